//! How often each value that a reference names occurs in a categorical column, over every row and whatever other values came first.

use super::codes::{Code, Places};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Distinct values of one column.
#[derive(Clone, Debug, Default)]
pub struct Values {
    codes: Vec<Code>,
    places: Places,
}

impl Values {
    /// At most [`MOST_CATEGORIES`](super::MOST_CATEGORIES) finite ones, each once.
    pub fn new(values: impl Iterator<Item = f64>) -> Values {
        let codes: Vec<Code> = values.filter_map(Code::of).collect();
        let places = Places::of(codes.iter().copied()).expect("checked where they were read");
        Values { codes, places }
    }
}

/// Counts over the rows of one column. Serialized without the values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ValueCounts {
    #[serde(skip)]
    values: Arc<Values>,
    /// As the values come.
    counts: Vec<u64>,
}

impl ValueCounts {
    /// Of nothing yet.
    pub fn new(values: Arc<Values>) -> ValueCounts {
        ValueCounts { counts: vec![0; values.codes.len()], values }
    }

    /// What was serialized, with the values that were counted. `None` if these are others.
    pub fn with_values(self, values: Arc<Values>) -> Option<ValueCounts> {
        (self.counts.len() == values.codes.len()).then_some(ValueCounts { values, ..self })
    }

    /// Counts `value` if it is one of them.
    pub fn add(&mut self, value: f64) {
        let Values { codes, places } = &*self.values;
        if let Some(at) = Code::of(value).and_then(|code| places.find(code, |at| codes[at])) {
            self.counts[at] += 1;
        }
    }

    /// As if `other`'s rows, of which the same values were counted, had been seen too.
    pub fn merge(&mut self, other: &ValueCounts) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    /// Of each value, in the order in which they were given.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_counted_whatever_comes_first_in_parts_and_through_a_checkpoint(
            known in prop::collection::btree_set(0..600u32, 0..256),
            rows in prop::collection::vec(0..600u32, 0..3000),
            cut in any::<prop::sample::Index>(),
        ) {
            let values = Arc::new(Values::new(known.iter().map(|x| f64::from(*x))));
            let counted = |rows: &[u32]| {
                let mut counts = ValueCounts::new(values.clone());
                rows.iter().for_each(|x| counts.add(f64::from(*x)));
                counts
            };
            let (first, rest) = rows.split_at(cut.index(rows.len() + 1));
            let bytes = postcard::to_stdvec(&counted(first)).unwrap();
            let revived: ValueCounts = postcard::from_bytes(&bytes).unwrap();
            let mut whole = revived.with_values(values.clone()).unwrap();
            whole.merge(&counted(rest));
            let by_hand = |x: &u32| rows.iter().filter(|row| *row == x).count() as u64;
            prop_assert_eq!(whole.counts(), known.iter().map(by_hand).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn minus_zero_is_zero_and_what_is_no_value_is_none() {
        let mut counts = ValueCounts::new(Arc::new(Values::new([0.0, 7.0].into_iter())));
        [-0.0, f64::NAN, f64::INFINITY, 7.0, 8.0, 7.0].into_iter().for_each(|x| counts.add(x));
        assert_eq!(counts.counts(), [1, 2]);
        assert!(counts.with_values(Arc::default()).is_none(), "of other values");
    }
}
