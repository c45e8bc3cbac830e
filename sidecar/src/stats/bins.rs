//! How many values of every column lie above each of its frozen edges, over every row.
//!
//! A column's edges ascend: the first stands just below the least value of the reference, the last is its largest, and between them
//! stand its deciles, each different from the others. Bin i holds edge[i−1] < x ≤ edge[i]; the outer bins are open, and ±∞ falls
//! into them. NaN is above nothing: whoever counts missing values takes them out of the first bin.

use super::dispatch::{Kernel, dispatch};
use super::{Columns, Scalar, packed};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Below the least, nine deciles, the largest.
pub const MOST_EDGES: usize = 11;
/// Columns compared together, so that the compiler keeps their counts in vector registers.
const LANES: usize = 16;
/// The same for what is left of them.
const FEW: usize = 4;
/// Bytes of a block of rows, which is walked once for every edge: it stays in the first-level cache.
const BLOCK_BYTES: usize = 16 << 10;

/// The edges of all columns of a matrix.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edges {
    columns: usize,
    /// Edge by edge, each for all columns; +∞ where a column has fewer.
    wide: Vec<f64>,
    /// The same for f32 values: the largest f32 that is not above the edge, so that no comparison differs.
    narrow: Vec<f32>,
}

impl Edges {
    /// Of each column its edges, ascending, at most [`MOST_EDGES`]; a column without a reference has none.
    pub fn new(columns: &[&[f64]]) -> Edges {
        let count = columns.len();
        let mut wide = vec![f64::INFINITY; MOST_EDGES * count];
        for (column, edges) in columns.iter().enumerate() {
            assert!(edges.len() <= MOST_EDGES && edges.is_sorted(), "checked where they were read");
            edges.iter().enumerate().for_each(|(e, &edge)| wide[e * count + column] = edge);
        }
        Edges { columns: count, narrow: wide.iter().map(|&edge| below_or_at(edge)).collect(), wide }
    }
}

/// The largest f32 that is not above `x`.
fn below_or_at(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}

/// Counts over the rows of one matrix. Serialized without the edges.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BinCounts {
    #[serde(skip)]
    edges: Arc<Edges>,
    /// As the edges lie.
    above: Vec<u64>,
}

impl BinCounts {
    /// Of nothing yet.
    pub fn new(edges: Arc<Edges>) -> BinCounts {
        BinCounts { above: vec![0; edges.wide.len()], edges }
    }

    /// What was serialized, with the edges it was counted at. `None` if these are others.
    pub fn with_edges(self, edges: Arc<Edges>) -> Option<BinCounts> {
        (self.above.len() == edges.wide.len()).then_some(BinCounts { edges, ..self })
    }

    /// Adds every row of `matrix`.
    pub fn update(&mut self, matrix: &Columns<'_>) {
        assert_eq!(matrix.width(), self.edges.columns, "the schema fixes the number of columns");
        let (edges, above) = (&*self.edges, &mut self.above);
        match matrix {
            Columns::F32(view) => count(packed(view), &edges.narrow, edges.columns, above, |x| x),
            Columns::F16(view) => count(packed(view), &edges.narrow, edges.columns, above, Scalar::lane),
            Columns::BF16(view) => count(packed(view), &edges.narrow, edges.columns, above, Scalar::lane),
            Columns::F64(view) => count(packed(view), &edges.wide, edges.columns, above, |x| x),
        }
    }

    /// As if `other`'s rows, counted at the same edges, had been seen too.
    pub fn merge(&mut self, other: &BinCounts) {
        self.above.iter_mut().zip(&other.above).for_each(|(count, more)| *count += more);
    }

    /// How many values of a column lie above each of its first `edges` edges.
    pub fn above(&self, column: usize, edges: usize) -> Vec<u64> {
        (0..edges).map(|e| self.above[e * self.edges.columns + column]).collect()
    }
}

fn count<T: Copy, E: Copy + PartialOrd>(
    values: &[T],
    edges: &[E],
    columns: usize,
    above: &mut [u64],
    convert: impl Fn(T) -> E + Copy,
) {
    if columns > 0 {
        dispatch(Count { values, edges, columns, above, convert });
    }
}

/// Rows are walked block by block, a block once for every edge and group of columns.
struct Count<'a, T, E, F> {
    values: &'a [T],
    edges: &'a [E],
    columns: usize,
    above: &'a mut [u64],
    convert: F,
}

impl<T: Copy, E: Copy + PartialOrd, F: Fn(T) -> E + Copy> Kernel for Count<'_, T, E, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Count { values, edges, columns, above, convert } = self;
        let block_rows = (BLOCK_BYTES / (columns * size_of::<T>())).max(1);
        for block in values.chunks(block_rows * columns) {
            for (edges, above) in edges.chunks_exact(columns).zip(above.chunks_exact_mut(columns)) {
                let (whole, few) = (columns - columns % LANES, columns - columns % FEW);
                for first in (0..whole).step_by(LANES) {
                    count_lanes::<T, E, LANES>(block, columns, first, edges, above, convert);
                }
                for first in (whole..few).step_by(FEW) {
                    count_lanes::<T, E, FEW>(block, columns, first, edges, above, convert);
                }
                for column in few..columns {
                    count_lanes::<T, E, 1>(block, columns, column, edges, above, convert);
                }
            }
        }
    }
}

#[inline(always)]
fn count_lanes<T: Copy, E: Copy + PartialOrd, const W: usize>(
    block: &[T],
    columns: usize,
    first: usize,
    edges: &[E],
    above: &mut [u64],
    convert: impl Fn(T) -> E,
) {
    let edges: &[E; W] = edges[first..first + W].try_into().expect("W lanes");
    let mut counts = [0u32; W];
    for row in block.chunks_exact(columns) {
        let row: &[T; W] = row[first..first + W].try_into().expect("W lanes");
        for lane in 0..W {
            counts[lane] += u32::from(convert(row[lane]) > edges[lane]);
        }
    }
    above[first..first + W].iter_mut().zip(counts).for_each(|(above, count)| *above += u64::from(count));
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::ArrayView2;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => (-8i32..8).prop_map(|x| x as f32 / 4.0),
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(0.1f32),
        ]
    }

    proptest! {
        #[test]
        fn equal_comparing_one_by_one_whatever_the_type(
            columns in 1..40usize,
            values in proptest::collection::vec(value(), 1..600),
            mut edges in proptest::collection::vec(prop_oneof![(-8i32..8).prop_map(|x| f64::from(x) / 4.0), Just(0.1)], 0..MOST_EDGES),
        ) {
            edges.sort_by(f64::total_cmp);
            let rows = values.len() / columns;
            let values = &values[..rows * columns];
            let wide: Vec<f64> = values.iter().map(|&x| x.into()).collect();
            let all = Arc::new(Edges::new(&vec![edges.as_slice(); columns]));
            let (mut narrow, mut double) = (BinCounts::new(all.clone()), BinCounts::new(all.clone()));
            let mut halves = BinCounts::new(all);
            narrow.update(&Columns::F32(ArrayView2::from_shape((rows, columns), values).unwrap()));
            double.update(&Columns::F64(ArrayView2::from_shape((rows, columns), &wide).unwrap()));
            for part in wide.chunks(columns * 3) {
                let mut one = BinCounts::new(halves.edges.clone());
                one.update(&Columns::F64(ArrayView2::from_shape((part.len() / columns, columns), part).unwrap()));
                halves.merge(&one);
            }
            for column in 0..columns {
                let want: Vec<u64> = edges.iter().map(|edge| {
                    wide.iter().skip(column).step_by(columns).filter(|x| *x > edge).count() as u64
                }).collect();
                prop_assert_eq!(&narrow.above(column, edges.len()), &want);
                prop_assert_eq!(&double.above(column, edges.len()), &want);
                prop_assert_eq!(&halves.above(column, edges.len()), &want);
            }
        }
    }

    #[test]
    fn an_edge_between_two_f32_values_is_rounded_towards_the_lower() {
        assert_eq!(below_or_at(0.1), 0.1f32.next_down());
        assert_eq!(below_or_at(-0.1), -0.1f32);
        assert_eq!(below_or_at(1.0), 1.0);
        assert_eq!(below_or_at(1e300), f32::MAX);
        assert_eq!(below_or_at(-1e300), f32::NEG_INFINITY);
        assert_eq!(below_or_at(f64::INFINITY), f32::INFINITY);
    }
}
