//! Counting: the bucket of each value from its bits, without a logarithm and without a branch.

use super::{EXPONENTS, Histogram, MOST_SCALE, Side, buckets};
use crate::stats::dispatch::{Kernel, dispatch};
use crate::stats::scalar::{Lane, Scalar};
use crate::stats::{Columns, packed, with_view};
use ndarray::ArrayView2;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use std::ops::Range;

/// Bytes of a block of rows, which is walked once for every 16 columns: it stays in the second-level cache.
const BLOCK_BYTES: usize = 160 << 10;
/// So many rows are counted in 16 bits, which take a quarter of the cache of 64.
const FLUSH: usize = u16::MAX as usize;

/// [`Histogram`]s of some columns of one matrix.
#[derive(Clone, Debug, Deserialize)]
pub struct Histograms {
    scale: u8,
    /// Of which columns, ascending.
    columns: Vec<Range<usize>>,
    counted: Vec<Histogram>,
    /// Since then: each column's slots, one after the other. None of it before the first row.
    #[serde(skip)]
    pending: Vec<u16>,
    #[serde(skip)]
    pending_rows: usize,
}

/// Written with what is pending, a column at a time: all of it at once would take the memory twice.
impl Serialize for Histograms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Counted<'a>(&'a Histograms);
        impl Serialize for Counted<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq((0..self.0.counted.len()).map(|nth| self.0.histogram(nth)))
            }
        }
        let mut all = serializer.serialize_struct("Histograms", 3)?;
        all.serialize_field("scale", &self.scale)?;
        all.serialize_field("columns", &self.columns)?;
        all.serialize_field("counted", &Counted(self))?;
        all.end()
    }
}

impl Histograms {
    /// Of these columns, ascending.
    pub fn new(scale: u8, columns: impl IntoIterator<Item = Range<usize>>) -> Histograms {
        assert!(scale <= MOST_SCALE, "checked where it was read");
        let columns: Vec<_> = columns.into_iter().collect();
        let counted = vec![Histogram::new(scale); columns.iter().map(Range::len).sum()];
        Histograms { scale, columns, counted, pending: Vec::new(), pending_rows: 0 }
    }

    /// Whether they are sound, of the same columns and at the same scale: what comes from a file may not be.
    pub fn is_like(&self, other: &Histograms) -> bool {
        (self.scale, &self.columns, self.counted.len()) == (other.scale, &other.columns, other.counted.len())
            && self.counted.iter().all(|histogram| histogram.fits(self.scale))
    }

    /// An upper bound of the memory in bytes that a column takes.
    pub fn bytes_of_a_column(scale: u8) -> u64 {
        let pending = Slots::of(scale).stride() * size_of::<u16>();
        let counted = 2 * buckets(scale) * size_of::<u64>() + size_of::<Histogram>();
        (pending + counted) as u64
    }

    /// Of which columns, ascending.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().cloned().flatten()
    }

    /// Of the nth of the columns.
    pub fn histogram(&self, nth: usize) -> Histogram {
        let slots = Slots::of(self.scale);
        let mut histogram = self.counted[nth].clone();
        if !self.pending.is_empty() {
            histogram.merge(&slots.read(self.scale, &self.pending[nth * slots.stride()..]));
        }
        histogram
    }

    /// Adds every row of `matrix`.
    pub fn update(&mut self, matrix: &Columns<'_>) {
        with_view!(matrix, view => self.update_typed(view));
    }

    /// The same for a known element type.
    pub fn update_typed<T: Scalar>(&mut self, matrix: &ArrayView2<'_, T>) {
        let (width, slots) = (matrix.ncols(), Slots::of(self.scale));
        let mut rest = packed(matrix);
        if self.counted.is_empty() || rest.is_empty() {
            return;
        }
        self.pending.resize(self.counted.len() * slots.stride(), 0);
        let block_rows = (BLOCK_BYTES / (width * size_of::<T>())).max(1);
        while !rest.is_empty() {
            let rows = block_rows.min(rest.len() / width).min(FLUSH - self.pending_rows);
            let (block, after) = rest.split_at(rows * width);
            let (scale, columns, pending) = (self.scale, &*self.columns, &mut *self.pending);
            dispatch(Count { rows: block, width, columns, scale, slots, pending });
            self.pending_rows += rows;
            if self.pending_rows == FLUSH {
                self.flush();
            }
            rest = after;
        }
    }

    fn flush(&mut self) {
        let slots = Slots::of(self.scale);
        for (histogram, pending) in self.counted.iter_mut().zip(self.pending.chunks_exact_mut(slots.stride())) {
            histogram.merge(&slots.read(self.scale, pending));
            pending.fill(0);
        }
        self.pending_rows = 0;
    }
}

/// Where the counts of one column lie, in the order of the values: to the right of the middle, which is zero, the buckets of positive
/// ones, one for what is beyond them, and one for +∞ and NaN, which nobody reads; to its left the same.
#[derive(Clone, Copy)]
struct Slots {
    /// On one side.
    buckets: i32,
}

impl Slots {
    fn of(scale: u8) -> Slots {
        Slots { buckets: buckets(scale) as i32 }
    }

    fn middle(self) -> i32 {
        self.buckets + 2
    }

    /// From one column's to the next one's: not near a multiple of 4 KiB, or the same bucket of 16 columns would want the same lines
    /// of the first-level cache, and each count seem to wait for the one before.
    fn stride(self) -> usize {
        const SPREAD: usize = 256;
        const OFF: usize = 136;
        let slots = 2 * self.middle() as usize + 1;
        (slots - OFF).next_multiple_of(SPREAD) + OFF
    }

    fn read(self, scale: u8, counts: &[u16]) -> Histogram {
        let (buckets, middle) = (self.buckets as usize, self.middle() as usize);
        let offset = EXPONENTS.start << scale;
        let wide = |count: &u16| u64::from(*count);
        let (left, right) = (&counts[middle - buckets..middle], &counts[middle + 1..=middle + buckets]);
        Histogram {
            scale,
            zero: wide(&counts[middle]),
            positive: Side::of(offset, right.iter().map(wide), wide(&counts[middle + buckets + 1])),
            negative: Side::of(offset, left.iter().rev().map(wide), wide(&counts[middle - buckets - 1])),
        }
    }

    /// Of a value.
    #[inline(always)]
    fn at<L: Lane>(self, x: L, scale: u8) -> u32 {
        let bits = x.leading_bits();
        let magnitude = (bits & 0x7fff_ffff) as i32;
        let sign = bits as i32 >> 31;
        let bucket = (magnitude >> (L::EXPONENT_AT - u32::from(scale))) - ((L::BIAS + EXPONENTS.start) << scale);
        let known = if bucket < -1 { -1 } else { bucket };
        let known = if known > self.buckets { self.buckets } else { known };
        let not_finite = magnitude >= (2 * L::BIAS + 1) << L::EXPONENT_AT;
        let from_middle = known + 1 + i32::from(not_finite);
        (self.middle() + ((from_middle ^ sign) - sign)) as u32
    }
}

/// Rows in hand, without gaps, to be added to `pending`.
struct Count<'a, T> {
    rows: &'a [T],
    width: usize,
    columns: &'a [Range<usize>],
    scale: u8,
    slots: Slots,
    pending: &'a mut [u16],
}

impl<T: Scalar> Kernel for Count<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let mut nth = 0;
        for columns in self.columns {
            let mut first = columns.start;
            while first < columns.end {
                let lanes = match columns.end - first {
                    16.. => self.count_lanes::<16>(first, nth),
                    8.. => self.count_lanes::<8>(first, nth),
                    4.. => self.count_lanes::<4>(first, nth),
                    2.. => self.count_lanes::<2>(first, nth),
                    _ => self.count_lanes::<1>(first, nth),
                };
                first += lanes;
                nth += lanes;
            }
        }
    }
}

impl<T: Scalar> Count<'_, T> {
    /// The columns from `first` on, whose slots are those of the `nth` and the following.
    #[inline(always)]
    fn count_lanes<const W: usize>(&mut self, first: usize, nth: usize) -> usize {
        let (slots, scale) = (self.slots, self.scale);
        let pending = &mut self.pending[nth * slots.stride()..][..W * slots.stride()];
        for row in self.rows.chunks_exact(self.width) {
            let row: &[T; W] = row[first..first + W].try_into().expect("W lanes");
            let mut at = [0; W];
            for lane in 0..W {
                at[lane] = slots.at(row[lane].lane(), scale) + (lane * slots.stride()) as u32;
            }
            for at in at {
                pending[at as usize] += 1;
            }
        }
        W
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn counts_are_the_same_whatever_the_instructions(
            width in 1..40usize, scale in 0..=MOST_SCALE, bits in prop::collection::vec(any::<u32>(), 40..900),
        ) {
            let rows: Vec<f32> = bits[..bits.len() - bits.len() % width].iter().map(|&bits| f32::from_bits(bits)).collect();
            let (slots, columns) = (Slots::of(scale), Some(0..width));
            let [mut widest, mut plain] = [(); 2].map(|()| vec![0u16; width * slots.stride()]);
            let count = |pending| Count { rows: &rows, width, columns: columns.as_slice(), scale, slots, pending };
            dispatch(count(&mut widest));
            count(&mut plain).run();
            prop_assert_eq!(&widest, &plain);
            prop_assert_eq!(widest.iter().map(|count| usize::from(*count)).sum::<usize>(), rows.len());
        }
    }
}
