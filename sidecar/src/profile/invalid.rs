//! Rows that are not what a row of probabilities should be: how many, and where each kind came first.

use super::rows::Record;
use crate::stats::Flaw;
use serde::{Deserialize, Serialize};

/// Of an instance's name, in bytes.
const MOST_NAME: usize = 255;

/// Faulty rows, by what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// A probability is NaN: no class.
    pub nan: Fault,
    /// A probability is ±∞: no class.
    pub inf: Fault,
    /// A probability is below 0 or above 1; counted with the others all the same.
    pub out_of_range: Fault,
    /// The row does not sum to 1; counted with the others all the same.
    pub not_normalised: Fault,
}

/// Rows with one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// How many.
    pub rows: u64,
    /// The first that came, if it came in a record.
    pub first: Option<Occurrence>,
}

/// A row of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// Who wrote it.
    pub instance: String,
    /// The record's sequence number.
    pub sequence: u64,
    /// The record's time stamp: Unix time, ns, as the producer says.
    pub ts_ns: u64,
    /// Within the record, from 0.
    pub row: u64,
}

impl Invalid {
    /// An upper bound of its memory in bytes.
    pub(super) const BYTES: u64 = 4 * (size_of::<Fault>() + MOST_NAME) as u64;

    /// What is counted of a flaw.
    pub(super) fn of(&mut self, flaw: Flaw) -> &mut Fault {
        match flaw {
            Flaw::Nan => &mut self.nan,
            Flaw::Inf => &mut self.inf,
            Flaw::OutOfRange => &mut self.out_of_range,
            Flaw::NotNormalised => &mut self.not_normalised,
        }
    }

    /// By name, as reports spell it.
    pub fn faults(&self) -> [(&'static str, &Fault); 4] {
        [
            ("nan", &self.nan),
            ("inf", &self.inf),
            ("out_of_range", &self.out_of_range),
            ("not_normalised", &self.not_normalised),
        ]
    }

    /// Which kinds of faults there are, in the same order.
    pub fn kinds(&self) -> [bool; 4] {
        self.faults().map(|(_, fault)| fault.rows > 0)
    }

    /// Which of them are news beside those that were `known`.
    pub fn has_news(&self, known: [bool; 4]) -> bool {
        self.kinds().into_iter().zip(known).any(|(is, was)| is && !was)
    }

    /// Whether it is no larger than it may be: what comes from a file may be.
    pub(super) fn fits(&self) -> bool {
        let named = self.faults().into_iter().flat_map(|(_, fault)| &fault.first);
        named.into_iter().all(|first| first.instance.len() <= MOST_NAME)
    }
}

impl Fault {
    /// A row of the rows in hand, which came in `record`.
    pub(super) fn add(&mut self, record: Option<&Record<'_>>, row: usize) {
        self.rows += 1;
        if self.rows == 1 {
            self.first = record.map(|record| record.occurrence(row));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Profile, Rows, Spec};
    use super::*;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use std::sync::Arc;

    const SOUND: [f64; 3] = [0.2, 0.3, 0.5];
    const NAN: [f64; 3] = [0.2, f64::NAN, f64::INFINITY];
    const INF: [f64; 3] = [0.2, f64::NEG_INFINITY, 0.1];
    const OUTSIDE: [f64; 3] = [-0.1, 0.6, 0.5];
    const OFF: [f64; 3] = [0.2, 0.3, 0.1];
    const BOTH: [f64; 3] = [1e308, -1e308, 1e308];

    fn profile() -> Profile {
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        Profile::new(Arc::new(Spec { classes, threshold: 0.5, ..Spec::default() }), 10, 1)
    }

    fn rows<'a>(values: &'a [f64], record: Option<Record<'a>>) -> Rows<'a> {
        let count = values.len() / 3;
        let view = ArrayView2::from_shape((count, 3), values).unwrap();
        Rows { count, probabilities: Some(Columns::F64(view)), record, ..Rows::default() }
    }

    fn record(instance: &str, sequence: u64) -> Option<Record<'_>> {
        Some(Record { instance, sequence, ts_ns: 1000 + sequence, first_row: 0 })
    }

    fn places(invalid: &Invalid) -> [Option<(u64, u64)>; 4] {
        invalid.faults().map(|(_, fault)| fault.first.as_ref().map(|first| (first.sequence, first.row)))
    }

    #[test]
    fn the_first_of_each_kind_names_its_record_and_later_ones_do_not() {
        let mut p = profile();
        p.update(&rows(&[SOUND, SOUND].concat(), record("a", 5)));
        p.update(&rows(&[SOUND, NAN, OUTSIDE, NAN].concat(), record("b", 2)));
        p.update(&rows(&[INF, OFF, NAN, BOTH].concat(), record("a", 6)));
        let invalid = &p.predictions.invalid;
        assert_eq!(invalid.faults().map(|(_, fault)| fault.rows), [3, 1, 2, 2]);
        assert_eq!(places(invalid), [Some((2, 1)), Some((6, 0)), Some((2, 2)), Some((6, 1))]);
        let first = invalid.nan.first.clone().unwrap();
        assert_eq!((first.instance.as_str(), first.ts_ns), ("b", 1002));
    }

    #[test]
    fn a_row_far_into_a_record_keeps_its_number() {
        let far = super::super::CHUNK + 5;
        let mut p = profile();
        p.update(&rows(&[SOUND.repeat(far), NAN.to_vec(), NAN.to_vec()].concat(), record("a", 1)));
        assert_eq!(places(&p.predictions.invalid), [Some((1, far as u64)), None, None, None]);
    }

    #[test]
    fn rows_that_come_in_no_record_are_counted_all_the_same() {
        let mut p = profile();
        p.update(&rows(&NAN, None));
        p.update(&rows(&NAN, record("a", 1)));
        assert_eq!((p.predictions.invalid.nan.rows, p.predictions.invalid.kinds()), (2, [true, false, false, false]));
        assert_eq!(p.predictions.invalid.nan.first, None, "the first of all is not known, so none is named");
    }

    #[test]
    fn what_was_serialized_is_the_same_and_a_name_too_long_is_refused() {
        let mut p = profile();
        p.update(&rows(&[NAN, OFF].concat(), record(&"i".repeat(MOST_NAME), u64::MAX - 1000)));
        let revived = |p: &Profile| {
            let bytes = postcard::to_stdvec(p).unwrap();
            postcard::from_bytes::<Profile>(&bytes).unwrap().revived(p.spec.clone())
        };
        assert_eq!(revived(&p).unwrap().predictions.invalid, p.predictions.invalid);
        p.predictions.invalid.nan.first.as_mut().unwrap().instance.push('i');
        assert!(revived(&p).is_none());
    }

    proptest! {
        #[test]
        fn how_a_record_is_cut_changes_nothing(
            kinds in prop::collection::vec(prop::sample::select(vec![SOUND, SOUND, NAN, INF, OUTSIDE, OFF, BOTH]), 1..30),
            cut in any::<prop::sample::Index>(),
        ) {
            let values = kinds.concat();
            let whole = rows(&values, record("a", 7));
            let cut = cut.index(whole.count + 1);
            let (mut at_once, mut in_parts) = (profile(), profile());
            at_once.update(&whole);
            in_parts.update(&whole.slice(0..cut));
            in_parts.update(&whole.slice(cut..whole.count));
            prop_assert_eq!(&at_once.predictions.invalid, &in_parts.predictions.invalid);
            let first = |fault: [f64; 3]| kinds.iter().position(|row| row[1].to_bits() == fault[1].to_bits());
            let places = places(&at_once.predictions.invalid).map(|place| place.map(|(_, row)| row as usize));
            prop_assert_eq!(&places[..2], &[first(NAN), first(INF)]);
        }
    }
}
