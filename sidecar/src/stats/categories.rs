//! How often each value of a categorical column occurs, and how many there are, in bounded memory.
//!
//! The first values seen have an exact count. What occurs besides them is `other`: its total is exact, its most frequent values are
//! known by [`SpaceSaving`] and their number by [`HyperLogLog`], so that a value which becomes frequent late is seen all the same.

use super::codes::{Code, MOST_PLACES, Places};
use super::distinct::{DISTINCT_ERROR, HyperLogLog};
use super::heavy::SpaceSaving;
use serde::{Deserialize, Serialize};

/// Values with an exact count.
pub const MOST_CATEGORIES: usize = MOST_PLACES;

/// Counts of one column's finite values.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Categories {
    exact: Exact,
    /// Occurrences of all other values. While there are none, every value is in `exact`.
    other: u64,
    /// Of all values but those in `exact`.
    heavy: SpaceSaving,
    /// Of all values; only once there are others.
    distinct: Option<HyperLogLog>,
}

/// A value, how often it occurred at most, and by how much less at worst.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Frequent {
    pub value: f64,
    pub count: u64,
    pub over_at_most: u64,
}

/// How many distinct values, and the standard error of that, relative. 0 = exact.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Distinct {
    pub count: u64,
    pub error: f64,
}

impl Categories {
    /// Whether it can be one: what comes from a file may not be.
    pub fn fits(&self) -> bool {
        let lists = self.exact.counts.iter().all(|(code, _)| self.heavy.get(*code).is_none());
        let others = if self.other == 0 { self.heavy.counters().is_empty() } else { self.distinct.is_some() };
        lists && others && self.distinct.as_ref().is_none_or(HyperLogLog::fits)
    }

    /// Counts `value`; NaN and ±∞ are counted elsewhere and skipped here.
    pub fn add(&mut self, value: f64) {
        let Some(code) = Code::of(value) else { return };
        if let Some(count) = self.exact.get_mut(code) {
            *count += 1;
        } else if self.other == 0 && self.exact.has_room() {
            self.exact.insert(code, 1);
        } else {
            self.add_other(code);
        }
    }

    fn add_other(&mut self, code: Code) {
        let exact = &self.exact;
        self.distinct.get_or_insert_with(|| exact.sketch()).add(code);
        self.heavy.add(code);
        self.other += 1;
    }

    /// As if `other`'s values had been seen too. A value stays exact where its count is on both sides, which it is if a side has no
    /// others; elsewhere it goes over to the others, with what is known of it.
    pub fn merge(&mut self, other: &Categories) {
        let sides = [&*self, other];
        let known = |code| sides.map(|side| side.exact.get(code).or((side.other == 0).then_some(0)));
        let only_other = other.exact.codes().filter(|code| self.exact.get(*code).is_none());
        let (mut exact, mut moved) = (Exact::default(), Vec::new());
        for code in self.exact.codes().chain(only_other) {
            match known(code) {
                [Some(a), Some(b)] if exact.has_room() => exact.insert(code, a + b),
                counts => moved.push((code, counts)),
            }
        }
        let moved_count: u64 = moved.iter().flat_map(|(_, counts)| counts.iter().flatten()).sum();
        let distinct = (self.other + other.other + moved_count > 0).then(|| {
            let mut union = self.sketch();
            union.merge(&other.sketch());
            union
        });
        *self = Categories {
            exact,
            other: self.other + other.other + moved_count,
            heavy: self.heavy.merged(&other.heavy, &moved),
            distinct,
        };
    }

    fn sketch(&self) -> HyperLogLog {
        self.distinct.clone().unwrap_or_else(|| self.exact.sketch())
    }

    /// Values with an exact count, ascending by value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (f64, u64)> + use<> {
        let mut counts: Vec<_> = self.exact.counts.iter().map(|&(code, count)| (code.value(), count)).collect();
        counts.sort_by(|a, b| a.0.total_cmp(&b.0));
        counts.into_iter()
    }

    /// Occurrences of values beyond the ones with an exact count.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// The most frequent values, the largest count first. Whatever is not among all that have a count occurred at most `other`/256 times.
    pub fn top(&self, most: usize) -> Vec<Frequent> {
        let exact = self.exact.counts.iter().map(|&(code, count)| (code, count, 0));
        let heavy = self.heavy.counters().iter().map(|c| (c.code, c.count, c.over));
        let frequent =
            |(code, count, over_at_most): (Code, u64, u64)| Frequent { value: code.value(), count, over_at_most };
        let mut all: Vec<Frequent> = exact.chain(heavy).map(frequent).collect();
        all.sort_by(|a, b| {
            b.count.cmp(&a.count).then(a.over_at_most.cmp(&b.over_at_most)).then(a.value.total_cmp(&b.value))
        });
        all.truncate(most);
        all
    }

    /// How many distinct values: at least those that have a count.
    pub fn distinct(&self) -> Distinct {
        let counted = (self.exact.counts.len() + self.heavy.counters().len()) as u64;
        match &self.distinct {
            None => Distinct { count: counted, error: 0.0 },
            Some(sketch) => Distinct { count: counted.max(sketch.estimate().round() as u64), error: DISTINCT_ERROR },
        }
    }
}

/// Values and counts, in the order in which they were first seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(Code, u64)>", into = "Vec<(Code, u64)>")]
struct Exact {
    counts: Vec<(Code, u64)>,
    places: Places,
}

impl TryFrom<Vec<(Code, u64)>> for Exact {
    type Error = &'static str;

    fn try_from(counts: Vec<(Code, u64)>) -> Result<Exact, &'static str> {
        let places = Places::of(counts.iter().map(|(code, _)| *code)).ok_or("no counts of distinct values")?;
        Ok(Exact { counts, places })
    }
}

impl From<Exact> for Vec<(Code, u64)> {
    fn from(exact: Exact) -> Vec<(Code, u64)> {
        exact.counts
    }
}

impl Exact {
    fn find(&self, code: Code) -> Option<usize> {
        self.places.find(code, |at| self.counts[at].0)
    }

    fn get(&self, code: Code) -> Option<u64> {
        self.find(code).map(|at| self.counts[at].1)
    }

    fn get_mut(&mut self, code: Code) -> Option<&mut u64> {
        self.find(code).map(|at| &mut self.counts[at].1)
    }

    fn has_room(&self) -> bool {
        self.counts.len() < MOST_CATEGORIES
    }

    fn insert(&mut self, code: Code, count: u64) {
        self.places.insert(code, self.counts.len());
        self.counts.push((code, count));
    }

    fn codes(&self) -> impl Iterator<Item = Code> + '_ {
        self.counts.iter().map(|(code, _)| *code)
    }

    fn sketch(&self) -> HyperLogLog {
        let mut sketch = HyperLogLog::default();
        self.codes().for_each(|code| sketch.add(code));
        sketch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn counted(values: impl IntoIterator<Item = u32>) -> Categories {
        let mut categories = Categories::default();
        values.into_iter().for_each(|x| categories.add(f64::from(x)));
        categories
    }

    fn truth(values: &[u32]) -> BTreeMap<u32, u64> {
        let mut truth = BTreeMap::new();
        values.iter().for_each(|x| *truth.entry(*x).or_insert(0) += 1);
        truth
    }

    /// Against the counts of everything.
    fn keeps_its_promises(categories: &Categories, values: &[u32]) {
        let truth = truth(values);
        assert!(categories.fits());
        let exact: Vec<_> = categories.iter().collect();
        assert!(exact.iter().all(|(value, count)| truth[&(*value as u32)] == *count), "an exact count is not");
        assert_eq!(exact.iter().map(|(_, n)| n).sum::<u64>() + categories.other(), values.len() as u64);
        let all = categories.top(usize::MAX);
        for f in &all {
            let count = truth[&(f.value as u32)];
            assert!(f.count - f.over_at_most <= count && count <= f.count, "{f:?} of {count}");
        }
        let error = categories.other() / MOST_CATEGORIES as u64;
        assert!(all.iter().all(|f| f.over_at_most <= error));
        let known = |value: u32| all.iter().any(|f| f.value == f64::from(value));
        assert!(truth.iter().all(|(value, count)| *count <= error || known(*value)), "a frequent value is lost");
        let (distinct, there) = (categories.distinct(), truth.len() as f64);
        match categories.other() {
            0 => assert_eq!(distinct, Distinct { count: truth.len() as u64, error: 0.0 }),
            _ => assert!(
                (distinct.count as f64 - there).abs() <= 5.0 * distinct.error * there + 1.0,
                "{distinct:?} of {there}"
            ),
        }
    }

    fn skewed(len: usize) -> impl Strategy<Value = Vec<u32>> {
        (1..5000u32).prop_flat_map(move |wide| prop::collection::vec(prop_oneof![0..20u32, 0..300u32, 0..wide], 0..len))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))] // each of thousands of values

        #[test]
        fn every_count_is_what_it_says_and_nothing_frequent_is_lost(values in skewed(4000)) {
            keeps_its_promises(&counted(values.iter().copied()), &values);
        }

        #[test]
        fn a_merge_keeps_the_promises_of_the_whole(parts in prop::collection::vec(skewed(1500), 1..5), later in skewed(500)) {
            let mut whole = parts.concat();
            let mut merged = Categories::default();
            parts.iter().for_each(|part| merged.merge(&counted(part.iter().copied())));
            keeps_its_promises(&merged, &whole);
            later.iter().for_each(|x| merged.add(f64::from(*x)));
            whole.extend(later);
            keeps_its_promises(&merged, &whole);
        }

        #[test]
        fn while_all_values_fit_a_merge_is_the_whole(left in prop::collection::vec(0..128u32, 0..300), right in prop::collection::vec(100..256u32, 0..300)) {
            let mut merged = counted(left.iter().copied());
            merged.merge(&counted(right.iter().copied()));
            let whole = counted(left.into_iter().chain(right));
            prop_assert!(merged.iter().eq(whole.iter()));
            prop_assert_eq!(merged.distinct(), whole.distinct());
        }

        #[test]
        fn what_was_serialized_goes_on_as_if_it_had_not_been(values in skewed(3000), later in skewed(1000)) {
            let mut through = counted(values);
            let bytes = postcard::to_stdvec(&through).unwrap();
            let mut revived: Categories = postcard::from_bytes(&bytes).unwrap();
            prop_assert!(revived.fits());
            for value in later {
                through.add(f64::from(value));
                revived.add(f64::from(value));
            }
            prop_assert_eq!(postcard::to_stdvec(&through).unwrap(), postcard::to_stdvec(&revived).unwrap());
        }

        #[test]
        fn bytes_of_whatever_origin_make_categories_that_work_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mut revived) = postcard::from_bytes::<Categories>(&bytes) && revived.fits() {
                (0..600).for_each(|i| revived.add(f64::from(i)));
            }
        }
    }

    #[test]
    fn a_value_that_comes_late_and_often_is_seen() {
        let categories = counted((0..5000).chain((0..400).map(|_| 77_777)));
        let first = categories.top(1)[0];
        assert!(
            (first.value, first.count >= 400, first.count - first.over_at_most <= 400) == (77_777.0, true, true),
            "{first:?}"
        );
    }

    #[test]
    fn a_value_that_both_halves_have_forgotten_is_not_underrated_when_it_comes_back() {
        // What is exact in one half is frequent in the other, and `forgotten` gave way to it in both.
        let (low, high, forgotten) = (0..256, 256..512, 9999);
        let half = |first: std::ops::Range<u32>, then: std::ops::Range<u32>| {
            let rounds = (0..100).flat_map(move |_| then.clone());
            first.chain((0..90).map(move |_| forgotten)).chain(rounds).collect::<Vec<u32>>()
        };
        let halves = [half(low.clone(), high.clone()), half(high, low)];
        let mut merged = counted(halves[0].iter().copied());
        merged.merge(&counted(halves[1].iter().copied()));
        let has_counter = |all: &Categories| all.top(usize::MAX).iter().any(|f| f.value == f64::from(forgotten));
        assert!(!has_counter(&merged), "meant to be forgotten");
        merged.add(f64::from(forgotten));
        assert!(has_counter(&merged));
        keeps_its_promises(&merged, &[halves.concat(), vec![forgotten]].concat());
    }

    #[test]
    fn count_minus_zero_as_zero_and_skip_missing() {
        let mut categories = Categories::default();
        [0.0, -0.0, f64::NAN, f64::INFINITY, 3.0].into_iter().for_each(|x| categories.add(x));
        assert_eq!(categories.iter().collect::<Vec<_>>(), [(0.0, 2), (3.0, 1)]);
    }

    #[test]
    fn of_nothing_are_exactly_nothing() {
        let none = Categories::default();
        assert_eq!((none.distinct(), none.top(3), none.other()), (Distinct { count: 0, error: 0.0 }, vec![], 0));
    }
}
