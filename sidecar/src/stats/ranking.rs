//! How well scores rank the rows of a class before the rest: AUROC and average precision, from a histogram of scores.
//!
//! Scores in the same bin count as tied. What that may have cost is known from the histogram itself, and is said beside each value.

use serde::{Deserialize, Serialize};

/// Bins of [0, 1], each 1/1000 wide.
pub const SCORE_BINS: usize = 1000;

/// Of what comes from a file: counted exactly as f64, and far from where sums of several overflow.
const MOST_ROWS: u64 = 1 << 53;

/// Of more classes none is ranked: 64 take 1 MB.
pub const MOST_RANKED: usize = 64;

/// A value of scores in bins, and how far the value of the scores themselves may be from it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Binned {
    pub value: f64,
    pub error: f64,
}

/// How well one class is ranked before the rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Rows of the class.
    pub support: u64,
    /// Share of the pairs of a row of the class and one of the rest that are ranked right, ties counting half. Undefined unless
    /// there are rows of both.
    pub auroc: Option<Binned>,
    /// Σ (Rᵢ − Rᵢ₋₁) Pᵢ over falling thresholds. Undefined without rows of the class.
    pub average_precision: Option<Binned>,
}

/// Histograms of each class's score, of the rows of the class and of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranking {
    /// classes × [`SCORE_BINS`]; empty until a row comes, and with more than [`MOST_RANKED`] classes.
    bins: Vec<Bin>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Bin {
    pub(super) rows: u64,
    pub(super) positives: u64,
}

/// The bin of a score in [0, 1]. By way of u32: to come from f64 to u64 takes twice the instructions.
pub(super) fn score_bin(score: f64) -> usize {
    ((score * SCORE_BINS as f64) as u32 as usize).min(SCORE_BINS - 1)
}

impl Ranking {
    /// Of no rows.
    pub fn new() -> Ranking {
        Ranking { bins: Vec::new() }
    }

    /// An upper bound of its memory in bytes.
    pub fn bytes(classes: u64) -> u64 {
        if classes > MOST_RANKED as u64 { 0 } else { classes * (SCORE_BINS * size_of::<Bin>()) as u64 }
    }

    /// Whether it is for `classes` classes: what comes from a file may not be.
    pub fn fits(&self, classes: usize) -> bool {
        self.bins.is_empty() || (classes <= MOST_RANKED && self.bins.len() == classes * SCORE_BINS)
    }

    /// Whether a row can have made it for every class, as often: what comes from a file may be anything.
    pub fn is_sound(&self) -> bool {
        let rows = |bins: &[Bin]| bins.iter().map(|bin| bin.rows).try_fold(0u64, u64::checked_add);
        let mut all = self.histograms().map(rows);
        let first = all.next().unwrap_or(Some(0));
        first.is_some_and(|rows| rows <= MOST_ROWS)
            && all.all(|rows| rows == first)
            && self.bins.iter().all(|bin| bin.positives <= bin.rows)
    }

    /// Rows added.
    pub fn rows(&self) -> u64 {
        self.histograms().next().map_or(0, |bins| bins.iter().map(|bin| bin.rows).sum())
    }

    /// A row's scores, each in [0, 1], and to which classes it belongs.
    pub fn add(&mut self, scores: &[f64], belongs: impl Fn(usize) -> bool) {
        if scores.len() > MOST_RANKED {
            return;
        }
        if self.bins.is_empty() {
            self.bins = vec![Bin::default(); scores.len() * SCORE_BINS];
        }
        for (class, (bins, &score)) in self.bins.chunks_exact_mut(SCORE_BINS).zip(scores).enumerate() {
            let bin = &mut bins[score_bin(score)];
            bin.rows += 1;
            bin.positives += u64::from(belongs(class));
        }
    }

    /// As if `other`'s rows had been added too; it has as many classes.
    pub fn merge(&mut self, other: &Ranking) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
            return;
        }
        for (bin, other) in self.bins.iter_mut().zip(&other.bins) {
            bin.rows += other.rows;
            bin.positives += other.positives;
        }
    }

    /// The same for classes in another order, each named by where its own is; that of nothing stays so.
    pub fn reordered(&self, order: &[usize]) -> Ranking {
        let classes: Vec<&[Bin]> = self.histograms().collect();
        Ranking { bins: order.iter().flat_map(|&own| classes.get(own).copied().unwrap_or_default()).copied().collect() }
    }

    /// The bins of each class, in order; nothing before the first row, or with more than [`MOST_RANKED`] classes.
    pub(super) fn histograms(&self) -> impl Iterator<Item = &[Bin]> + '_ {
        self.bins.chunks_exact(SCORE_BINS)
    }

    /// Every class, in order; nothing before the first row, or with more than [`MOST_RANKED`] classes.
    pub fn classes(&self) -> impl Iterator<Item = Ranked> + '_ {
        self.histograms().map(|bins| {
            let counts = || bins.iter().map(|bin| (bin.positives as f64, (bin.rows - bin.positives) as f64));
            let support = bins.iter().map(|bin| bin.positives).sum();
            Ranked { support, auroc: auroc(counts()), average_precision: average_precision(counts()) }
        })
    }
}

/// Means over the classes that have rows, and rows of the rest too: every class weighs the same, or as many rows as it has. The errors are
/// those of all being off to the same side.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct RankedAverages {
    pub auroc: Binned,
    pub weighted_auroc: Binned,
    pub average_precision: Binned,
    pub weighted_average_precision: Binned,
}

impl RankedAverages {
    /// `None` if no class has rows of both kinds.
    pub fn of(classes: &[Ranked]) -> Option<RankedAverages> {
        let defined =
            classes.iter().filter_map(|class| Some((class.support as f64, class.auroc?, class.average_precision?)));
        let defined: Vec<_> = defined.collect();
        let mean = |value: fn(&(f64, Binned, Binned)) -> Binned, weight: fn(f64) -> f64| {
            let all: f64 = defined.iter().map(|class| weight(class.0)).sum();
            let sum =
                |part: fn(Binned) -> f64| defined.iter().map(|class| weight(class.0) * part(value(class))).sum::<f64>();
            Binned { value: sum(|binned| binned.value) / all, error: sum(|binned| binned.error) / all }
        };
        (!defined.is_empty()).then(|| RankedAverages {
            auroc: mean(|class| class.1, |_| 1.0),
            weighted_auroc: mean(|class| class.1, |support| support),
            average_precision: mean(|class| class.2, |_| 1.0),
            weighted_average_precision: mean(|class| class.2, |support| support),
        })
    }
}

impl Default for Ranking {
    fn default() -> Ranking {
        Ranking::new()
    }
}

/// Of the (positives, negatives) in each bin, by rising score. Within a bin the order is unknown, so that each of its pairs may be off
/// by a half.
pub(super) fn auroc(bins: impl Iterator<Item = (f64, f64)>) -> Option<Binned> {
    let (mut right, mut tied, mut positives, mut negatives) = (0.0, 0.0, 0.0, 0.0);
    for (positive, negative) in bins {
        right += positive * negatives;
        tied += positive * negative;
        positives += positive;
        negatives += negative;
    }
    let pairs: f64 = positives * negatives;
    (pairs > 0.0).then(|| Binned { value: (right + tied / 2.0) / pairs, error: tied / 2.0 / pairs })
}

/// Of the (positives, negatives) in each bin, by rising score. The error is that of the best and the worst order within the bins.
fn average_precision(bins: impl DoubleEndedIterator<Item = (f64, f64)>) -> Option<Binned> {
    let (mut tp, mut fp) = (0.0, 0.0);
    let (mut value, mut worst, mut best) = (0.0, 0.0, 0.0);
    for (positive, negative) in bins.rev() {
        let (hits, misses) = (tp + positive, fp + negative);
        if positive > 0.0 {
            value += positive * hits / (hits + misses);
            best += positive * hits / (hits + fp);
            worst += positive - misses * harmonic(tp + misses, positive);
        }
        (tp, fp) = (hits, misses);
    }
    (tp > 0.0).then(|| Binned { value: value / tp, error: (best - value).max(value - worst).max(0.0) / tp })
}

/// At least 1/(from + 1) + … + 1/(from + count); with `from` 0 nothing divides by it, as there were neither hits nor misses.
fn harmonic(from: f64, count: f64) -> f64 {
    if from > 0.0 { (count / from).ln_1p() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Rows = Vec<(f64, bool)>;

    fn of(rows: &[(f64, bool)]) -> Ranking {
        let mut ranking = Ranking::new();
        rows.iter().for_each(|&(score, is)| ranking.add(&[score], |_| is));
        ranking
    }

    fn naive_auroc(rows: &Rows) -> Option<f64> {
        let [positives, negatives] = [true, false].map(|is| rows.iter().filter(move |row| row.1 == is));
        let pairs = positives.flat_map(|p| negatives.clone().map(move |n| (p.0, n.0)));
        let points: Vec<f64> =
            pairs.map(|(p, n)| if p > n { 1.0 } else { 0.5 * f64::from(u8::from(p == n)) }).collect();
        (!points.is_empty()).then(|| points.iter().sum::<f64>() / points.len() as f64)
    }

    fn naive_average_precision(rows: &Rows) -> Option<f64> {
        let precision = |threshold: f64| {
            let taken = rows.iter().filter(|row| row.0 >= threshold);
            taken.clone().filter(|row| row.1).count() as f64 / taken.count() as f64
        };
        let at: Vec<f64> = rows.iter().filter(|row| row.1).map(|row| precision(row.0)).collect();
        (!at.is_empty()).then(|| at.iter().sum::<f64>() / at.len() as f64)
    }

    fn near(got: Option<Binned>, want: Option<f64>) {
        match (got, want) {
            (Some(got), Some(want)) => assert!((got.value - want).abs() <= got.error + 1e-12, "{got:?} {want}"),
            (got, want) => assert_eq!(got.map(|got| got.value), want),
        }
    }

    fn rows(score: impl Strategy<Value = f64>) -> impl Strategy<Value = Rows> {
        proptest::collection::vec((score, any::<bool>()), 0..80)
    }

    #[test]
    fn one_sided_rows_have_no_auroc() {
        let ranked = |rows: &[(f64, bool)]| of(rows).classes().next().unwrap();
        assert_eq!(ranked(&[(0.3, true), (1.0, true)]).auroc, None);
        assert_eq!(ranked(&[(0.3, true), (1.0, true)]).average_precision, Some(Binned { value: 1.0, error: 0.0 }));
        assert_eq!(ranked(&[(0.3, false)]), Ranked { support: 0, auroc: None, average_precision: None });
        assert_eq!(Ranking::new().classes().count(), 0);
    }

    #[test]
    fn what_no_rows_can_have_made_is_unsound() {
        let bins = |bins: &[(usize, u64, u64)]| {
            let mut ranking = Ranking { bins: vec![Bin::default(); 2 * SCORE_BINS] };
            bins.iter().for_each(|&(at, rows, positives)| ranking.bins[at] = Bin { rows, positives });
            ranking
        };
        assert!(Ranking::new().is_sound() && bins(&[(3, 5, 5), (1003, 4, 0), (1999, 1, 1)]).is_sound());
        assert!(!bins(&[(3, 5, 0), (1003, 4, 0)]).is_sound(), "a row without a score of one class");
        assert!(!bins(&[(3, 5, 6), (1003, 5, 0)]).is_sound(), "more of the class than there are");
        assert!(!bins(&[(3, u64::MAX, 0), (4, 2, 0), (1003, 1, 0)]).is_sound(), "more than can be counted");
        assert!(!bins(&[(3, MOST_ROWS + 1, 0), (1003, MOST_ROWS + 1, 0)]).is_sound(), "more than there ever are");
    }

    #[test]
    fn many_classes_are_not_ranked_and_take_no_memory() {
        let mut ranking = Ranking::new();
        ranking.add(&[0.5; MOST_RANKED + 1], |_| true);
        assert_eq!((ranking.classes().count(), ranking.bins.capacity()), (0, 0));
        assert!(ranking.fits(MOST_RANKED + 1));
    }

    #[test]
    fn averages_are_over_the_classes_with_both_outcomes() {
        let binned = |value| Some(Binned { value, error: value / 10.0 });
        let class = |support, auroc, average_precision| Ranked { support, auroc, average_precision };
        let classes =
            [class(1, binned(0.9), binned(0.8)), class(3, binned(0.5), binned(0.4)), class(7, None, binned(1.0))];
        let averages = RankedAverages::of(&classes).unwrap();
        let near = |got: Binned, want: f64| (got.value - want).abs() < 1e-12 && (got.error - want / 10.0).abs() < 1e-12;
        assert!(near(averages.auroc, 0.7) && near(averages.weighted_auroc, 0.6), "{averages:?}");
        assert!(
            near(averages.average_precision, 0.6) && near(averages.weighted_average_precision, 0.5),
            "{averages:?}"
        );
        assert_eq!(RankedAverages::of(&classes[2..]), None);
    }

    proptest! {
        #[test]
        fn values_are_within_their_error_of_the_exact_ones(rows in rows(0.0..=1.0f64), narrow in rows(0.4..0.41f64)) {
            for rows in [&rows, &narrow].into_iter().filter(|rows| !rows.is_empty()) {
                let ranked = of(rows).classes().next().unwrap();
                near(ranked.auroc, naive_auroc(rows));
                near(ranked.average_precision, naive_average_precision(rows));
            }
        }

        #[test]
        fn values_are_exact_where_a_bin_is_a_score(rows in rows((0..=10u8).prop_map(|x| f64::from(x) / 10.0))) {
            let ranked = of(&rows);
            for ranked in ranked.classes() {
                let value = |binned: Option<Binned>| binned.map_or(-1.0, |binned| binned.value);
                prop_assert!((value(ranked.auroc) - naive_auroc(&rows).unwrap_or(-1.0)).abs() < 1e-12);
                let want = naive_average_precision(&rows).unwrap_or(-1.0);
                prop_assert!((value(ranked.average_precision) - want).abs() < 1e-12);
            }
        }

        #[test]
        fn merge_equals_whole(rows in rows(0.0..=1.0f64), at in 0.0..1.0f64) {
            let (left, right) = rows.split_at((rows.len() as f64 * at) as usize);
            let mut merged = of(left);
            merged.merge(&of(right));
            prop_assert_eq!(merged, of(&rows));
        }
    }
}
