//! The lengths of what a model was fed as vectors, over every row.

use super::{Block, CHUNK};
use crate::stats::{Columns, Moments, Scalar, norm, with_view};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The embeddings of a period. Their centroids are the means of their columns.
#[derive(Debug, Serialize, Deserialize)]
pub struct Embeddings {
    /// The columns of each.
    blocks: Vec<Range<usize>>,
    /// Of each: its vectors' norms. NaN: a coordinate was not finite; +∞: the norm exceeds f64.
    pub norms: Moments,
    #[serde(skip)]
    norms_in_hand: Vec<f64>,
}

impl Embeddings {
    pub(super) fn new(blocks: &[Block]) -> Embeddings {
        let columns = blocks.iter().map(|block| block.columns.clone()).collect();
        Embeddings { blocks: columns, norms: Moments::new(blocks.len()), norms_in_hand: Vec::new() }
    }

    /// Whether it is for these blocks: what comes from a file may not be.
    pub(super) fn fits(&self, blocks: &[Block]) -> bool {
        self.blocks.iter().eq(blocks.iter().map(|block| &block.columns)) && self.norms.fits(blocks.len())
    }

    pub(super) fn update(&mut self, columns: &Columns<'_>) {
        if !self.blocks.is_empty() {
            with_view!(columns, view => self.update_typed(view));
        }
    }

    /// So many rows at a time that their norms take no more memory than a column.
    fn update_typed<T: Scalar>(&mut self, rows: &ArrayView2<'_, T>) {
        let at_a_time = (CHUNK / self.blocks.len()).max(1);
        for rows in rows.axis_chunks_iter(ndarray::Axis(0), at_a_time) {
            self.norms_in_hand.clear();
            for row in rows.rows() {
                let row = row.to_slice().expect("ring views are row-major without gaps");
                let norm_of = |block: &Range<usize>| row.get(block.clone()).and_then(norm).unwrap_or(f64::NAN);
                self.norms_in_hand.extend(self.blocks.iter().map(norm_of));
            }
            let norms = ArrayView2::from_shape((rows.nrows(), self.blocks.len()), &self.norms_in_hand);
            self.norms.update_typed(&norms.expect("a norm for each row and block"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_over_the_rows_that_have_all_coordinates_however_batches_are_cut() {
        let rows = 10_001;
        let value = |row: usize, column: usize| match (row % 50, column) {
            (7, 2) => f32::NAN,
            (9, 1) => f32::INFINITY,
            _ => ((row * 31 + column * 17) % 101) as f32 / 10.0 - 5.0,
        };
        let values: Vec<f32> = (0..rows * 6).map(|i| value(i / 6, i % 6)).collect();
        let blocks = [1..3, 4..6].map(|columns| Block { name: "e".into(), columns });
        for cut in [1, 1000, rows] {
            let mut embeddings = Embeddings::new(&blocks);
            for part in values.chunks(6 * cut) {
                embeddings.update(&Columns::F32(ArrayView2::from_shape((part.len() / 6, 6), part).unwrap()));
            }
            for (block, moment) in blocks.iter().zip(embeddings.norms.columns()) {
                let norms: Vec<f64> = values
                    .chunks(6)
                    .map(|row| row[block.columns.clone()].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt())
                    .filter(|norm| norm.is_finite())
                    .collect();
                let mean = norms.iter().sum::<f64>() / norms.len() as f64;
                assert_eq!((moment.n, moment.nan), (norms.len() as u64, (rows - norms.len()) as u64));
                assert!((moment.mean - mean).abs() < 1e-12 * mean, "{} {mean}", moment.mean);
            }
            assert!(embeddings.norms_in_hand.capacity() <= 2 * CHUNK);
        }
    }
}
