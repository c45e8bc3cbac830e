//! How the values of a column are distributed, over every row: counts in buckets that are the first bits of the number.
//!
//! An octave, from a power of two to the next, is cut into 2^s equal parts, s being the scale. Bucket i holds
//!
//! ```text
//! 2^e (1 + k/2^s) ≤ |x| < 2^e (1 + (k + 1)/2^s)      e = ⌊i/2^s⌋, k = i − e 2^s
//! ```
//!
//! so i is exponent and first s bits of the fraction of the float itself. Within an octave buckets are equally wide, and not, as those
//! of OTLP's exponential histogram and of Prometheus's native one, equally wide on a logarithmic scale: HdrHistogram's buckets, DDSketch's
//! "linearly interpolated" mapping. Edges at powers of two are common to all of these; the others are not.
//!
//! Masson, Rim, Lee: DDSketch, a Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees (2019).

mod count;

pub use count::Histograms;

use serde::{Deserialize, Serialize};

/// Parts of an octave: at most 2^6.
pub const MOST_SCALE: u8 = 6;
/// |x| below it counts as zero: 2^−32.
pub const ZERO_THRESHOLD: f64 = 1.0 / (1u64 << 32) as f64;
/// Exponents of the values that have buckets. What is larger is counted as such.
const EXPONENTS: std::ops::Range<i32> = -32..64;

/// Buckets on either side of zero.
fn buckets(scale: u8) -> usize {
    EXPONENTS.len() << scale
}

/// A quantile that is read out of a histogram is at most this far from the value in question, as a share of that value: 1/(2^(s+1) + 1).
pub fn relative_error(scale: u8) -> f64 {
    1.0 / ((2u32 << scale) + 1) as f64
}

/// The finite values of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    scale: u8,
    /// |x| < [`ZERO_THRESHOLD`].
    pub zero: u64,
    /// x ≥ the threshold.
    pub positive: Side,
    /// −x ≥ the threshold.
    pub negative: Side,
}

/// The values on one side of zero, by |x|.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Of the first bucket in `counts`.
    pub offset: i32,
    /// From the first bucket that holds something to the last one.
    pub counts: Vec<u64>,
    /// 2^64 and more.
    pub beyond: u64,
}

impl Side {
    /// Counts of buckets from `offset` on, without the empty ones at both ends.
    fn of(offset: i32, counts: impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + Clone, beyond: u64) -> Side {
        let Some(first) = counts.clone().position(|count| count > 0) else {
            return Side { beyond, ..Side::default() };
        };
        let last = counts.clone().rposition(|count| count > 0).unwrap_or(first);
        let counts: Vec<u64> = counts.skip(first).take(last + 1 - first).collect();
        Side { offset: offset + first as i32, counts, beyond }
    }

    fn count(&self) -> u64 {
        self.counts.iter().fold(self.beyond, |sum, count| sum.saturating_add(*count))
    }

    fn end(&self) -> i32 {
        self.offset + self.counts.len() as i32
    }

    fn merge(&mut self, other: &Side) {
        self.beyond = self.beyond.saturating_add(other.beyond);
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            (self.offset, self.counts) = (other.offset, other.counts.clone());
            return;
        }
        self.widen(self.offset.min(other.offset), self.end().max(other.end()));
        let at = (other.offset - self.offset) as usize;
        let common = self.counts[at..].iter_mut().zip(&other.counts);
        common.for_each(|(count, more)| *count = count.saturating_add(*more));
    }

    /// To buckets from `offset` to `end`, which include those that there are. Not by pushing: that may take twice the memory.
    fn widen(&mut self, offset: i32, end: i32) {
        if (offset, end) != (self.offset, self.end()) {
            let mut wider = vec![0; (end - offset) as usize];
            let at = (self.offset - offset) as usize;
            wider[at..at + self.counts.len()].copy_from_slice(&self.counts);
            (self.offset, self.counts) = (offset, wider);
        }
    }

    /// In buckets twice as wide.
    fn folded(&self) -> Side {
        if self.counts.is_empty() {
            return self.clone();
        }
        let offset = self.offset >> 1;
        let mut counts = vec![0u64; (((self.end() - 1) >> 1) - offset + 1) as usize];
        for (bucket, count) in (self.offset..).zip(&self.counts) {
            let wider = &mut counts[((bucket >> 1) - offset) as usize];
            *wider = wider.saturating_add(*count);
        }
        Side { offset, counts, beyond: self.beyond }
    }

    /// Whether there can be such buckets: what comes from a file may not be.
    fn fits(&self, scale: u8) -> bool {
        let octave = 1 << scale;
        let ends = [self.counts.first(), self.counts.last()];
        self.counts.len() <= buckets(scale)
            && !ends.contains(&Some(&0))
            && (self.counts.is_empty() || self.offset >= EXPONENTS.start * octave)
            && self.offset <= EXPONENTS.end * octave
            && self.end() <= EXPONENTS.end * octave
    }
}

impl Histogram {
    /// Of no value.
    pub fn new(scale: u8) -> Histogram {
        Histogram { scale, zero: 0, positive: Side::default(), negative: Side::default() }
    }

    /// An octave has 2^scale buckets.
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// All values.
    pub fn count(&self) -> u64 {
        self.zero.saturating_add(self.positive.count()).saturating_add(self.negative.count())
    }

    /// As if `other`'s values, counted at the same scale, had been counted too.
    pub fn merge(&mut self, other: &Histogram) {
        assert_eq!(self.scale, other.scale, "fold the finer one first");
        self.zero = self.zero.saturating_add(other.zero);
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
    }

    /// As if the values had been counted at the next coarser scale; as they are at scale 0.
    pub fn folded(&self) -> Histogram {
        match self.scale.checked_sub(1) {
            None => self.clone(),
            Some(scale) => {
                Histogram { scale, zero: self.zero, positive: self.positive.folded(), negative: self.negative.folded() }
            }
        }
    }

    /// Whether it is one of this scale: what comes from a file may not be.
    fn fits(&self, scale: u8) -> bool {
        self.scale == scale && self.positive.fits(scale) && self.negative.fits(scale)
    }

    /// The ⌊q (n − 1)⌋-th value from below, counted from 0, within [`relative_error`] of itself; where it counts as zero, 0, which is
    /// within [`ZERO_THRESHOLD`]. `None` without values, and where it is beyond all buckets.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let below = |counts: u64, rank: &mut u64| {
            let here = *rank < counts;
            *rank = rank.saturating_sub(counts);
            here
        };
        let last = self.count().checked_sub(1)?;
        let mut rank = ((q.clamp(0.0, 1.0) * last as f64) as u64).min(last);
        if below(self.negative.beyond, &mut rank) {
            return None;
        }
        for (bucket, count) in (self.negative.offset..self.negative.end()).zip(&self.negative.counts).rev() {
            if below(*count, &mut rank) {
                return Some(-self.middle(bucket));
            }
        }
        if below(self.zero, &mut rank) {
            return Some(0.0);
        }
        let mut positive = (self.positive.offset..).zip(&self.positive.counts);
        positive.find(|(_, count)| below(**count, &mut rank)).map(|(bucket, _)| self.middle(bucket))
    }

    /// As far from both ends of a bucket, relative to each.
    fn middle(&self, bucket: i32) -> f64 {
        let [low, high] = [bucket, bucket + 1].map(|edge| self.edge(edge));
        2.0 * low * (high / (low + high))
    }

    /// Where a bucket begins.
    fn edge(&self, bucket: i32) -> f64 {
        let octave = 1 << self.scale;
        let fraction = f64::from(bucket.rem_euclid(octave)) / f64::from(octave);
        2f64.powi(bucket.div_euclid(octave)) * (1.0 + fraction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Columns;
    use half::{bf16, f16};
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Of every size, edges of buckets and their neighbours among them, and what has no bucket.
    fn value() -> impl Strategy<Value = f64> {
        let signed = |x: f64, negative: bool| if negative { -x } else { x };
        let beside = |x: f64, by: i32| match by {
            -1 => x.next_down(),
            1 => x.next_up(),
            _ => x,
        };
        let edge = (-36..68i32, 0..64u32, -1..2i32)
            .prop_map(move |(e, k, by)| beside(2f64.powi(e) * (1.0 + f64::from(k) / 64.0), by));
        let odd = [0.0, f64::NAN, f64::INFINITY, 1e308, 1e-310, ZERO_THRESHOLD, 2f64.powi(64)];
        prop_oneof![
            6 => (-3.0..3.0f64).prop_map(|x| 10f64.powf(x)),
            2 => (-14.0..24.0f64).prop_map(|x| 10f64.powf(x)),
            2 => edge,
            1 => prop::sample::select(odd.to_vec()),
        ]
        .prop_flat_map(move |x| any::<bool>().prop_map(move |negative| signed(x, negative)))
    }

    fn values() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(value(), 1..120)
    }

    fn counted(scale: u8, values: &[f64]) -> Histogram {
        let mut histograms = Histograms::new(scale, Some(0..1));
        histograms.update(&Columns::F64(ArrayView2::from_shape((values.len(), 1), values).unwrap()));
        histograms.histogram(0)
    }

    /// The bucket of |x|, by arithmetic: which octave, and which part of it.
    fn bucket(scale: u8, x: f64) -> i32 {
        let exponent = (-40..70).rev().find(|e| 2f64.powi(*e) <= x.abs()).expect("no smaller");
        let octave = f64::from(1 << scale);
        exponent * (1 << scale) + ((x.abs() / 2f64.powi(exponent) - 1.0) * octave).floor() as i32
    }

    /// Value by value, by the definition.
    fn obvious(scale: u8, values: &[f64]) -> Histogram {
        let finite = || values.iter().copied().filter(|x| x.is_finite());
        let side = |of: &dyn Fn(f64) -> f64| {
            let (mut counts, mut beyond) = (BTreeMap::new(), 0);
            for x in finite().map(of).filter(|x| *x >= ZERO_THRESHOLD) {
                if x < 2f64.powi(64) {
                    *counts.entry(bucket(scale, x)).or_insert(0) += 1;
                } else {
                    beyond += 1;
                }
            }
            let offset = counts.first_key_value().map_or(0, |(first, _)| *first);
            let end = counts.last_key_value().map_or(0, |(last, _)| last + 1);
            Side { offset, counts: (offset..end).map(|i| counts.get(&i).copied().unwrap_or(0)).collect(), beyond }
        };
        let zero = finite().filter(|x| x.abs() < ZERO_THRESHOLD).count() as u64;
        Histogram { scale, zero, positive: side(&|x| x), negative: side(&|x| -x) }
    }

    /// The value that [`Histogram::quantile`] says it is near to.
    fn exact(values: &[f64], q: f64) -> Option<f64> {
        let mut finite: Vec<f64> = values.iter().copied().filter(|x| x.is_finite()).collect();
        finite.sort_by(f64::total_cmp);
        let last = finite.len().checked_sub(1)?;
        Some(finite[(q * last as f64) as usize])
    }

    proptest! {
        #[test]
        fn every_value_is_in_the_bucket_that_the_definition_says(scale in 0..=MOST_SCALE, values in values()) {
            prop_assert_eq!(counted(scale, &values), obvious(scale, &values));
        }

        #[test]
        fn halves_merge_into_the_whole(scale in 0..=MOST_SCALE, values in values(), at in 0.0..1.0f64) {
            let (left, right) = values.split_at((values.len() as f64 * at) as usize);
            let mut merged = counted(scale, left);
            merged.merge(&counted(scale, right));
            prop_assert_eq!(merged, counted(scale, &values));
        }

        #[test]
        fn a_folded_histogram_is_that_of_the_coarser_scale(scale in 1..=MOST_SCALE, values in values()) {
            prop_assert_eq!(counted(scale, &values).folded(), counted(scale - 1, &values));
        }

        #[test]
        fn a_quantile_is_as_near_to_the_value_as_is_promised(
            scale in 0..=MOST_SCALE, values in values(), q in prop_oneof![0.0..=1.0f64, Just(0.0), Just(1.0)],
        ) {
            let (got, want) = (counted(scale, &values).quantile(q), exact(&values, q));
            match want {
                Some(x) if x.abs() < ZERO_THRESHOLD => prop_assert_eq!(got, Some(0.0)),
                Some(x) if x.abs() >= 2f64.powi(64) => prop_assert_eq!(got, None),
                Some(x) => {
                    let off = (got.unwrap() - x).abs() / x.abs();
                    prop_assert!(off <= relative_error(scale) * (1.0 + 1e-12), "{got:?} for {x}: {off}");
                }
                None => prop_assert_eq!(got, None),
            }
        }

    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn the_type_the_cut_and_the_other_columns_do_not_matter(
            columns in 1..40usize, cut in 1..30usize, values in prop::collection::vec(value(), 40..900), hole in 0..40usize,
        ) {
            let rows = values.len() / columns;
            let narrow: Vec<f32> = values[..rows * columns].iter().map(|&x| x as f32).collect();
            let half: Vec<f16> = narrow.iter().map(|&x| f16::from_f32(x)).collect();
            let brain: Vec<bf16> = narrow.iter().map(|&x| bf16::from_f32(x)).collect();
            let chosen: Vec<_> = [0..hole.min(columns), hole + 1..columns].into_iter().filter(|run| !run.is_empty()).collect();
            let check = |name: &str, wide: Vec<f64>, feed: &dyn Fn(&mut Histograms)| {
                let mut histograms = Histograms::new(4, chosen.clone());
                feed(&mut histograms);
                for (nth, column) in histograms.columns().enumerate() {
                    let column: Vec<f64> = wide.iter().skip(column).step_by(columns).copied().collect();
                    assert_eq!(histograms.histogram(nth), obvious(4, &column), "{name}");
                }
            };
            macro_rules! check {
                ($name:ident, $values:expr, $widen:expr) => {
                    check(stringify!($name), $values.iter().map($widen).collect(), &|histograms| {
                        for part in $values.chunks(cut * columns) {
                            let view = ArrayView2::from_shape((part.len() / columns, columns), part).unwrap();
                            histograms.update(&Columns::$name(view));
                        }
                    })
                };
            }
            let double: Vec<f64> = narrow.iter().map(|&x| x.into()).collect();
            check!(F64, double, |&x| x);
            check!(F32, narrow, |&x| x.into());
            check!(F16, half, |x| x.to_f64());
            check!(BF16, brain, |x| x.to_f64());
        }

        #[test]
        fn what_is_written_is_read_and_gone_on_with(scale in 0..=MOST_SCALE, values in values(), at in 0.0..1.0f64) {
            let (left, right) = values.split_at((values.len() as f64 * at) as usize);
            let feed = |histograms: &mut Histograms, part: &[f64]| {
                histograms.update(&Columns::F64(ArrayView2::from_shape((part.len(), 1), part).unwrap()));
            };
            let mut first = Histograms::new(scale, Some(0..1));
            feed(&mut first, left);
            let mut second: Histograms = postcard::from_bytes(&postcard::to_stdvec(&first).unwrap()).unwrap();
            prop_assert!(second.is_like(&first) && !second.is_like(&Histograms::new(scale, Some(0..2))));
            feed(&mut second, right);
            prop_assert_eq!(second.histogram(0), counted(scale, &values));
        }

        /// Whoever wants OTLP's buckets takes each of these whole: no value comes further than into the one beside its own.
        #[test]
        fn in_buckets_on_a_logarithmic_scale_a_value_comes_at_most_one_too_far(scale in 0..=MOST_SCALE, x in (-9.0..19.0f64).prop_map(|x| 10f64.powf(x))) {
            let logarithmic = |x: f64| (x.log2() * f64::from(1 << scale)).ceil() as i32 - 1;
            let histogram = counted(scale, &[x]);
            let moved = logarithmic(histogram.middle(histogram.positive.offset));
            prop_assert!((moved - logarithmic(x)).abs() <= 1, "{moved} for {x}");
        }
    }

    #[test]
    fn more_rows_than_sixteen_bits_count_are_counted() {
        let values = [[1.5, -3.0]; 200_000].concat();
        let mut histograms = Histograms::new(4, Some(0..2));
        let view = ArrayView2::from_shape((200_000, 2), &values).unwrap();
        histograms.update(&Columns::F64(view));
        let [right, left] = [0, 1].map(|nth| histograms.histogram(nth));
        assert_eq!((right.count(), right.positive), (200_000, Side { offset: 8, counts: vec![200_000], beyond: 0 }));
        assert_eq!((left.negative, left.zero), (Side { offset: 24, counts: vec![200_000], beyond: 0 }, 0));
    }

    #[test]
    fn of_nothing_there_is_no_quantile_and_of_one_value_every_one() {
        assert_eq!(Histogram::new(4).quantile(0.5), None);
        assert_eq!((Histogram::new(4).count(), counted(4, &[f64::NAN]).count()), (0, 0));
        let one = counted(6, &[1000.0]);
        assert_eq!([0.0, 0.3, 1.0].map(|q| one.quantile(q)), [one.quantile(0.5); 3]);
    }

    #[test]
    fn the_error_is_what_the_page_says() {
        assert_eq!([0, 4, 6].map(relative_error), [1.0 / 3.0, 1.0 / 33.0, 1.0 / 129.0]);
    }

    #[test]
    fn what_no_histogram_can_be_is_refused() {
        let side = |offset, counts: &[u64]| Side { offset, counts: counts.to_vec(), beyond: 0 };
        let fits = |positive| Histogram { positive, ..Histogram::new(4) }.fits(4);
        assert!(fits(side(-512, &[1])) && fits(side(1023, &[1])) && fits(Side::default()));
        for wrong in [
            side(-513, &[1]),
            side(1024, &[1]),
            side(1022, &[1, 0, 1]),
            side(0, &[0, 1]),
            side(0, &[1, 0]),
            side(-512, &[1; 1537]),
            side(i32::MAX, &[1]),
            side(i32::MAX, &[]),
        ] {
            assert!(!fits(wrong.clone()), "{wrong:?}");
        }
        assert!(!Histogram::new(3).fits(4));
    }

    #[test]
    fn a_column_takes_no_more_than_is_said() {
        for scale in 0..=MOST_SCALE {
            let octave = 1 << scale;
            let edges = (EXPONENTS.start * octave..EXPONENTS.end * octave).map(|i| Histogram::new(scale).edge(i));
            let values: Vec<f64> = edges.flat_map(|x| [x, -x]).collect();
            let full = counted(scale, &values);
            assert_eq!(full.positive.counts, vec![1; buckets(scale)]);
            let counts = full.positive.counts.capacity() + full.negative.counts.capacity();
            let pending = 2 * buckets(scale) + 5;
            let bytes = 8 * counts + 2 * pending + size_of::<Histogram>();
            assert!(bytes as u64 <= Histograms::bytes_of_a_column(scale));
            assert!(Histograms::bytes_of_a_column(scale) <= 1920 * octave as u64 + 500, "as the pages say");
        }
    }
}
