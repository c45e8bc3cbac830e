//! The most frequent values of a stream in bounded memory: Space-Saving.
//!
//! Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements in Data Streams (2005). With k counters over n
//! occurrences: a count is never too small, and too large by at most its own `over` ≤ n/k; every value that occurs more than n/k times
//! has a counter. Merging keeps all of this (Agarwal et al.: Mergeable Summaries, 2012).

use super::codes::{Code, MOST_PLACES, Places};
use serde::{Deserialize, Serialize};
use std::ops::Add;

/// Counters.
const COUNTERS: usize = MOST_PLACES;

/// A value that has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Counter {
    pub code: Code,
    /// At least as often as it occurred.
    pub count: u64,
    /// At most by so much too large.
    pub over: u64,
}

impl Add for Counter {
    type Output = Counter;

    /// Of the same value, in two streams.
    fn add(self, other: Counter) -> Counter {
        Counter { code: self.code, count: self.count + other.count, over: self.over + other.over }
    }
}

/// The counters, the largest count first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Counter>", into = "Vec<Counter>")]
pub(super) struct SpaceSaving {
    counters: Vec<Counter>,
    places: Places,
}

impl TryFrom<Vec<Counter>> for SpaceSaving {
    type Error = &'static str;

    fn try_from(counters: Vec<Counter>) -> Result<SpaceSaving, &'static str> {
        let descending = counters.windows(2).all(|pair| pair[0].count >= pair[1].count);
        let sound = descending && counters.iter().all(|c| c.over < c.count);
        let places =
            Places::of(counters.iter().map(|c| c.code)).filter(|_| sound).ok_or("no counters of Space-Saving")?;
        Ok(SpaceSaving { counters, places })
    }
}

impl From<SpaceSaving> for Vec<Counter> {
    fn from(heavy: SpaceSaving) -> Vec<Counter> {
        heavy.counters
    }
}

impl SpaceSaving {
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// A value without a counter has occurred at most so often.
    pub fn absent_at_most(&self) -> u64 {
        if self.counters.len() < COUNTERS { 0 } else { self.counters.last().map_or(0, |least| least.count) }
    }

    pub fn get(&self, code: Code) -> Option<&Counter> {
        self.places.find(code, |at| self.counters[at].code).map(|at| &self.counters[at])
    }

    pub fn add(&mut self, code: Code) {
        let at = match self.places.find(code, |at| self.counters[at].code) {
            Some(at) => at,
            None => self.take_counter(code),
        };
        self.increment(at);
    }

    /// A free counter, or the least one with its count for a handicap.
    fn take_counter(&mut self, code: Code) -> usize {
        let over = self.absent_at_most();
        if self.counters.len() == COUNTERS {
            let least = self.counters[COUNTERS - 1].code;
            self.places.remove(least, |at| self.counters[at].code);
            self.counters.pop();
        }
        let at = self.counters.len();
        self.places.insert(code, at);
        self.counters.push(Counter { code, count: over, over });
        at
    }

    /// Its place among those of equal count is the first, which keeps them in order.
    fn increment(&mut self, at: usize) {
        let count = self.counters[at].count;
        let first = self.counters[..at].partition_point(|c| c.count > count);
        if first < at {
            self.places.swap([first, at], |at| self.counters[at].code);
            self.counters.swap(first, at);
        }
        self.counters[first].count += 1;
    }

    /// As if `other`'s stream had been seen too, and besides both the values of `moved`, each with its exact count in the one and in the
    /// other. Where that is `None` the value belongs to the stream, and its counter says what is known; where it is not, it has none.
    pub fn merged(&self, other: &SpaceSaving, moved: &[(Code, [Option<u64>; 2])]) -> SpaceSaving {
        let only_other = other.counters.iter().filter(|c| self.get(c.code).is_none());
        let counted = self.counters.iter().chain(only_other).map(|c| (c.code, [None; 2]));
        let counted = counted.filter(|(code, _)| !moved.iter().any(|(moved, _)| moved == code));
        let sum = |(code, [a, b]): (Code, [Option<u64>; 2])| self.known(code, a) + other.known(code, b);
        let mut counters: Vec<Counter> = counted.chain(moved.iter().copied()).map(sum).collect();
        counters.sort_by(|a, b| {
            b.count.cmp(&a.count).then(a.over.cmp(&b.over)).then(a.code.value().total_cmp(&b.code.value()))
        });
        counters.truncate(COUNTERS);
        let places =
            Places::of(counters.iter().map(|c| c.code)).expect("each code once, and no more than there may be");
        SpaceSaving { counters, places }
    }

    /// What is known of a value here. Never less than what an absent one may have, so that no counter falls below that.
    fn known(&self, code: Code, exact: Option<u64>) -> Counter {
        let absent = self.absent_at_most();
        match (exact, self.get(code)) {
            (Some(count), _) => Counter { code, count: count.max(absent), over: absent.saturating_sub(count) },
            (None, Some(counter)) => *counter,
            (None, None) => Counter { code, count: absent, over: absent },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn code(value: u32) -> Code {
        Code::of(f64::from(value)).unwrap()
    }

    fn counted(values: &[u32]) -> (SpaceSaving, BTreeMap<u32, u64>) {
        let (mut heavy, mut truth) = (SpaceSaving::default(), BTreeMap::new());
        for value in values {
            heavy.add(code(*value));
            *truth.entry(*value).or_insert(0) += 1;
        }
        (heavy, truth)
    }

    /// What Metwally promises of n occurrences.
    fn keeps_its_promises(heavy: &SpaceSaving, truth: &BTreeMap<u32, u64>) {
        let n: u64 = truth.values().sum();
        assert!(heavy.counters.windows(2).all(|pair| pair[0].count >= pair[1].count), "out of order");
        assert!(heavy.absent_at_most() <= n / COUNTERS as u64);
        for (at, c) in heavy.counters.iter().enumerate() {
            let true_count = truth[&(c.code.value() as u32)];
            assert!(c.count - c.over <= true_count && true_count <= c.count, "{c:?} of {true_count}");
            assert!(c.over <= n / COUNTERS as u64 && c.over < c.count);
            assert_eq!(heavy.places.find(c.code, |at| heavy.counters[at].code), Some(at));
        }
        for (value, count) in truth {
            assert!(heavy.get(code(*value)).is_some() || *count <= heavy.absent_at_most(), "{value} is lost");
        }
    }

    /// Some values often and very many seldom.
    fn skewed(len: usize) -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(prop_oneof![0..20u32, 0..300u32, 0..5000u32], 0..len)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))] // each of thousands of values

        #[test]
        fn counts_are_never_too_small_and_too_large_by_no_more_than_they_say(values in skewed(6000)) {
            let (heavy, truth) = counted(&values);
            keeps_its_promises(&heavy, &truth);
            prop_assert_eq!(heavy.counters.iter().map(|c| c.count).sum::<u64>(), values.len() as u64);
        }

        #[test]
        fn merged_counts_keep_the_promises_of_the_whole_and_go_on_keeping_them(
            parts in prop::collection::vec(skewed(3000), 1..5), later in skewed(2000),
        ) {
            let (mut heavy, mut truth) = counted(&[]);
            for part in parts.iter().map(|part| counted(part)) {
                heavy = heavy.merged(&part.0, &[]);
                part.1.iter().for_each(|(value, count)| *truth.entry(*value).or_insert(0) += count);
                keeps_its_promises(&heavy, &truth);
            }
            for value in later {
                heavy.add(code(value));
                *truth.entry(value).or_insert(0) += 1;
            }
            keeps_its_promises(&heavy, &truth);
        }
    }

    #[test]
    fn counters_from_a_file_are_checked() {
        let revived = |counters: &[(u32, u64, u64)]| {
            let counters = counters.iter().map(|&(value, count, over)| Counter { code: code(value), count, over });
            SpaceSaving::try_from(counters.collect::<Vec<_>>()).is_ok()
        };
        assert!(revived(&[(1, 5, 0), (2, 5, 4)]));
        assert!(!revived(&[(1, 4, 0), (2, 5, 0)]), "out of order");
        assert!(!revived(&[(1, 5, 5)]), "never seen");
        assert!(!revived(&[(1, 5, 0), (1, 5, 0)]), "twice");
        assert!(!revived(&(0..257).map(|i| (i, 1, 0)).collect::<Vec<_>>()), "too many");
    }
}
