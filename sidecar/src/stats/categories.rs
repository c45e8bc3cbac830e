//! How often each value of a categorical column occurs, in bounded memory: the first values seen have a count of their own,
//! later ones share `other`, so that count, frequency and total are exact.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values with a count of their own.
pub const MOST_CATEGORIES: usize = 256;

/// Counts of one column's finite values.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Categories {
    counts: BTreeMap<Code, u64>,
    other: u64,
}

/// A finite value, ordered as a number. −0 is 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Code(f64);

impl Eq for Code {}

impl Ord for Code {
    fn cmp(&self, other: &Code) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Code) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Categories {
    /// Counts `value`; NaN and ±∞ are counted elsewhere and skipped here.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let code = Code(value + 0.0);
        if let Some(count) = self.counts.get_mut(&code) {
            *count += 1;
        } else if self.counts.len() < MOST_CATEGORIES {
            self.counts.insert(code, 1);
        } else {
            self.other += 1;
        }
    }

    /// Values and counts, ascending by value.
    pub fn iter(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.counts.iter().map(|(code, &count)| (code.0, count))
    }

    /// Occurrences of values beyond the ones with a count of their own.
    pub fn other(&self) -> u64 {
        self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lose_no_row_beyond_their_bound() {
        let mut categories = Categories::default();
        (0..1000).for_each(|i| categories.add(f64::from(i % 500)));
        assert_eq!(categories.iter().count(), MOST_CATEGORIES);
        assert_eq!(categories.iter().map(|(_, n)| n).sum::<u64>() + categories.other(), 1000);
    }

    #[test]
    fn count_minus_zero_as_zero_and_skip_missing() {
        let mut categories = Categories::default();
        [0.0, -0.0, f64::NAN, 3.0].into_iter().for_each(|x| categories.add(x));
        assert_eq!(categories.iter().collect::<Vec<_>>(), [(0.0, 2), (3.0, 1)]);
    }
}
