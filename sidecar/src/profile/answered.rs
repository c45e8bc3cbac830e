//! Which class was predicted for which id: a sample of the ids that is the same in every stream, so that two versions that were asked
//! the same can be compared.
//!
//! Ids are hashed, and those with the smallest hashes are kept (Broder, On the Resemblance and Containment of Documents, 1997): of two
//! streams the kept ids below the smaller of their bounds are all there are in either, so what they have in common is a uniform sample
//! of the common ids.

use crate::stats::Classified;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ids kept.
pub const MOST_ANSWERED: usize = 4096;

/// By hash, the class that was predicted last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered(BTreeMap<u64, u32>);

impl Answered {
    /// Rows of a batch that was `classified`; those without a class do not count.
    pub(super) fn update(&mut self, ids: &[u64], classified: &Classified) {
        for (row, &id) in ids.iter().enumerate() {
            if let Some(class) = classified.class(row) {
                self.add(id, class as u32);
            }
        }
    }

    fn add(&mut self, id: u64, class: u32) {
        let hash = mix(id);
        if hash <= self.bound() {
            self.0.insert(hash, class);
            if self.0.len() > MOST_ANSWERED {
                self.0.pop_last();
            }
        }
    }

    /// Every id with a hash up to it is kept.
    fn bound(&self) -> u64 {
        match self.0.last_key_value() {
            Some((last, _)) if self.0.len() == MOST_ANSWERED => *last,
            _ => u64::MAX,
        }
    }

    /// Whether it can have been counted for so many classes: what comes from a file may not.
    pub(super) fn fits(&self, classes: usize) -> bool {
        self.0.len() <= MOST_ANSWERED && self.0.values().all(|class| (*class as usize) < classes)
    }

    /// Whether no row had an id.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The classes of the ids in both.
    pub fn common<'a>(&'a self, other: &'a Answered) -> impl Iterator<Item = (usize, usize)> + 'a {
        let bound = self.bound().min(other.bound());
        let mine = self.0.range(..=bound);
        mine.filter_map(|(hash, class)| Some((*class as usize, *other.0.get(hash)? as usize)))
    }
}

/// A bijection of 64 bits whose output looks random (the finalizer of SplitMix64; Steele, Lea, Flood 2014): no two ids share a hash.
fn mix(id: u64) -> u64 {
    let x = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(ids: impl Iterator<Item = u64>, class: impl Fn(u64) -> u32) -> Answered {
        let mut answered = Answered::default();
        ids.for_each(|id| answered.add(id, class(id)));
        answered
    }

    #[test]
    fn the_common_ids_of_two_long_streams_are_a_sample_of_the_common_ids() {
        let (a, b) = (of(0..60_000, |_| 0), of(40_000..100_000, |id| u32::from(id % 10 == 0)));
        let common: Vec<_> = a.common(&b).collect();
        // A third of the ids are in both: of the kept ones below the bound so are about a third, give or take five deviations.
        assert!((1000..1750).contains(&common.len()), "{}", common.len());
        let agreeing = common.iter().filter(|(a, b)| a == b).count() as f64 / common.len() as f64;
        assert!((agreeing - 0.9).abs() < 0.04, "{agreeing}");
    }

    proptest! {
        #[test]
        fn up_to_their_bound_streams_are_compared_exactly(
            a in proptest::collection::vec((0..300u64, 0..3u32), 0..400),
            b in proptest::collection::vec((0..300u64, 0..3u32), 0..400),
        ) {
            let last: [BTreeMap<u64, u32>; 2] = [&a, &b].map(|pairs| pairs.iter().copied().collect());
            let mut want: Vec<(usize, usize)> =
                last[0].iter().filter_map(|(id, x)| Some((*x as usize, *last[1].get(id)? as usize))).collect();
            let [a, b] = [&a, &b].map(|pairs| {
                let mut answered = Answered::default();
                pairs.iter().for_each(|(id, class)| answered.add(*id, *class));
                answered
            });
            let mut got: Vec<_> = a.common(&b).collect();
            got.sort_unstable();
            want.sort_unstable();
            prop_assert_eq!(got, want);
        }
    }
}
