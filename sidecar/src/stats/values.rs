//! How often each value that a reference names occurs in a categorical column, over every row and whatever other values came first.

use super::codes::{Code, Places};
use super::elements::{Element, Elements};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Distinct values of one column.
#[derive(Clone, Debug, Default)]
pub struct Values {
    count: usize,
    /// For each type of a ring's numbers, in the order of [`Element::ALL`].
    as_rounded: [Rounded; Element::ALL.len()],
}

/// The values as they are compared with numbers of one type.
#[derive(Clone, Debug, Default)]
struct Rounded {
    /// What both are rounded to.
    to: Option<Element>,
    /// Each once, and the first value that it is.
    codes: Vec<(Code, usize)>,
    places: Places,
}

impl Values {
    /// At most [`MOST_CATEGORIES`](super::MOST_CATEGORIES) finite ones of such types, each once.
    pub fn new(values: impl Iterator<Item = f64>, elements: Elements) -> Values {
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        let as_rounded = Element::ALL.map(|element| {
            let to = elements.common(Elements::of(element));
            let code = |value: f64| Code::of(to.map_or(value, |to| to.round(value)));
            let mut codes: Vec<(Code, usize)> = Vec::new();
            for (at, code) in values.iter().enumerate().filter_map(|(at, value)| Some((at, code(*value)?))) {
                if codes.last().is_none_or(|(last, _)| *last != code) {
                    codes.push((code, at));
                }
            }
            let places = Places::of(codes.iter().map(|(code, _)| *code)).expect("each once, for they ascend");
            Rounded { to, codes, places }
        });
        Values { count: values.len(), as_rounded }
    }

    fn find(&self, value: f64, element: Element) -> Option<usize> {
        let Rounded { to, codes, places } = &self.as_rounded[element as usize];
        let code = Code::of(to.map_or(value, |to| to.round(value)))?;
        places.find(code, |at| codes[at].0).map(|at| codes[at].1)
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
        ValueCounts { counts: vec![0; values.count], values }
    }

    /// What was serialized, with the values that were counted. `None` if these are others.
    pub fn with_values(self, values: Arc<Values>) -> Option<ValueCounts> {
        (self.counts.len() == values.count).then_some(ValueCounts { values, ..self })
    }

    /// Counts `value`, one of such a type, if it is one of them.
    pub fn add(&mut self, value: f64, element: Element) {
        if let Some(at) = self.values.find(value, element) {
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
            let values = Arc::new(Values::new(known.iter().map(|x| f64::from(*x)), Elements::of(Element::F64)));
            let counted = |rows: &[u32]| {
                let mut counts = ValueCounts::new(values.clone());
                rows.iter().for_each(|x| counts.add(f64::from(*x), Element::F64));
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
        let mut counts = ValueCounts::new(Arc::new(Values::new([0.0, 7.0].into_iter(), Elements::of(Element::F32))));
        [-0.0, f64::NAN, f64::INFINITY, 7.0, 8.0, 7.0].into_iter().for_each(|x| counts.add(x, Element::F32));
        assert_eq!(counts.counts(), [1, 2]);
        assert!(counts.with_values(Arc::default()).is_none(), "of other values");
    }
    #[test]
    fn a_value_is_found_by_what_another_type_makes_of_it() {
        let known = [0.1, 0.1 + 1e-12, 0.2, 2049.0];
        let values = Arc::new(Values::new(known.into_iter(), Elements::of(Element::F64)));
        let counted = |element: Element| {
            let mut counts = ValueCounts::new(values.clone());
            known.into_iter().chain([0.3]).for_each(|x| counts.add(element.round(x), element));
            counts.counts().to_vec()
        };
        assert_eq!(counted(Element::F64), [1, 1, 1, 1]);
        assert_eq!(counted(Element::F32), [2, 0, 1, 1], "what becomes one is one");
        assert_eq!(counted(Element::BF16), [2, 0, 1, 1]);
    }
}
