//! A few order statistics of many integers, without sorting those in between.
//!
//! Counted in buckets first, as in a radix sort, of which only those that hold a wanted rank are looked at any closer.

/// u32 or u64.
pub trait Key: Copy + Default + Ord + Into<u64> {}
impl Key for u32 {}
impl Key for u64 {}

const BUCKETS: usize = 4096;
/// Fewer than that are not worth a walk over all buckets.
const MANY: usize = 1024;

/// The keys of the `ranks`, which ascend and differ: 0 is the least key's. Changes the order of `keys`.
pub fn at_ranks<K: Key>(keys: &mut [K], ranks: &[usize]) -> Vec<K> {
    if keys.len() < MANY {
        select(keys, 0, ranks);
        return ranks.iter().map(|&rank| keys[rank]).collect();
    }
    let (mut keys, ranks) = narrow(keys, ranks);
    select(&mut keys, 0, &ranks);
    ranks.iter().map(|&rank| keys[rank]).collect()
}

/// Without the keys of buckets in which no wanted rank is: what is left, and the ranks among it.
fn narrow<K: Key>(keys: &[K], ranks: &[usize]) -> (Vec<K>, Vec<usize>) {
    let extremes = keys.iter().fold((K::default(), keys[0]), |(most, least), &key| (most.max(key), least.min(key)));
    let (most, least): (u64, u64) = (extremes.0.into(), extremes.1.into());
    let shift = (u64::BITS - (most - least).leading_zeros()).saturating_sub(BUCKETS.ilog2());
    let bucket = |key: K| ((key.into() - least) >> shift) as usize % BUCKETS;

    let mut counts = [0u32; BUCKETS];
    keys.iter().for_each(|&key| counts[bucket(key)] += 1);
    let (mut is_wanted, mut ranks_left, mut next) = ([false; BUCKETS], ranks.to_vec(), 0);
    let (mut below, mut left) = (0, 0);
    for (count, is_wanted) in counts.into_iter().zip(&mut is_wanted) {
        let end = below + count as usize;
        while next < ranks.len() && ranks[next] < end {
            ranks_left[next] = ranks[next] - below + left;
            (next, *is_wanted) = (next + 1, true);
        }
        left += if *is_wanted { count as usize } else { 0 };
        below = end;
    }
    let (mut keys_left, mut at) = (vec![K::default(); left + 1], 0);
    for &key in keys {
        keys_left[at] = key;
        at += usize::from(is_wanted[bucket(key)]);
    }
    keys_left.truncate(left);
    (keys_left, ranks_left)
}

/// Puts the keys of the `wanted` places, which ascend, where sorting would put them; `keys` begin at place `from`.
fn select<K: Ord>(keys: &mut [K], from: usize, wanted: &[usize]) {
    let middle = wanted.len() / 2;
    if let Some(&place) = wanted.get(middle) {
        let (before, _, after) = keys.select_nth_unstable(place - from);
        select(before, from, &wanted[..middle]);
        select(after, place + 1, &wanted[middle + 1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn equal_sorting<K: Key + std::fmt::Debug>(mut keys: Vec<K>, shares: &[f64]) -> Result<(), TestCaseError> {
        let mut ranks: Vec<usize> = shares.iter().map(|share| (share * keys.len() as f64) as usize).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        let want: Vec<K> = ranks.iter().map(|&rank| sorted[rank]).collect();
        prop_assert_eq!(at_ranks(&mut keys, &ranks), want);
        keys.sort_unstable();
        prop_assert_eq!(keys, sorted, "nothing is lost");
        Ok(())
    }

    proptest! {
        #[test]
        fn equal_sorting_wide_or_narrow_few_or_many(
            seed in 0..u64::MAX,
            n in prop_oneof![1..50usize, MANY - 2..MANY + 2, 1..5000usize],
            bits in 0..64u32,
            shares in proptest::collection::vec(0.0..1.0f64, 0..14),
        ) {
            let random = |i: usize| (seed ^ i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let keys: Vec<u64> = (0..n).map(|i| u64::MAX - (random(i) >> bits)).collect();
            equal_sorting(keys.iter().map(|&key| (key >> 32) as u32).collect(), &shares)?;
            equal_sorting(keys, &shares)?;
        }
    }
}
