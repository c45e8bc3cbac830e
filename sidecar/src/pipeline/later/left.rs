//! What waits for labels, as bytes that an orderly stop leaves to the next sidecar. When they come back they may be any bytes.
//!
//! How many closed periods, each of them, and the rows.

use super::{Kept, Later};
use crate::period::Period;
use crate::profile::{Frozen, Profile, Spec};
use crate::reference::Reference;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize, Deserialize)]
struct Left<P> {
    serial: u64,
    period: Period,
    revision: u64,
    /// In whose bins it was counted.
    reference: Option<String>,
    remainder: P,
}

impl Left<Profile> {
    /// Whether a sidecar that had given numbers below `next` can have left it: periods come in the order of theirs, and neither numbers
    /// nor revisions come to an end.
    fn is_possible(&self, next: u64) -> bool {
        (next..u64::MAX / 2).contains(&self.serial) && self.revision < u64::MAX / 2
    }
}

impl Later {
    /// The rows that wait, and of their periods what their labels can change. All is closed, and all labels that came are reported.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kept: Vec<_> = self.closed.iter().filter(|(serial, _)| self.waiting.of_period(**serial) > 0).collect();
        let mut bytes = postcard::to_stdvec(&kept.len()).expect("plain data");
        for (&serial, kept) in kept {
            let reference = kept.reference.upgrade().map(|reference| reference.id());
            let (period, revision, remainder) = (kept.period, kept.revision, &kept.remainder);
            let left = Left { serial, period, revision, reference, remainder };
            bytes.extend(postcard::to_stdvec(&left).expect("plain data"));
        }
        self.waiting.save(&mut bytes);
        bytes
    }

    /// Goes on with what an earlier sidecar left. Where that is more than there is room for, the oldest are forgotten. `None` if these are
    /// no such bytes of this model; then it is of no more use.
    pub fn take_up(&mut self, bytes: &[u8], spec: &Spec, next: Option<(&Arc<Reference>, &Frozen)>) -> Option<()> {
        let (count, mut bytes): (usize, _) = postcard::take_from_bytes(bytes).ok()?;
        for _ in 0..count {
            let (left, rest): (Left<Profile>, _) = postcard::take_from_bytes(bytes).ok()?;
            bytes = rest;
            if !left.is_possible(self.serial) {
                return None;
            }
            let mut remainder = left.remainder.revived_remainder(spec)?;
            remainder.revive_against(next.map(|(_, frozen)| frozen));
            let same = |reference: &&Arc<Reference>| left.reference.as_ref() == Some(&reference.id());
            let reference = next.map(|(reference, _)| reference).filter(same).map(Arc::downgrade).unwrap_or_default();
            let (period, revision) = (left.period, left.revision);
            let kept = Kept { period, remainder, reference, revision, labelled: 0, changed: false, due: false };
            self.closed.insert(left.serial, kept);
            self.serial = left.serial + 1;
            if self.closed.len() > self.most_closed {
                self.closed.pop_first();
            }
        }
        let closed = &self.closed;
        self.waiting.take_up(bytes, |serial| closed.contains_key(&serial))?;
        self.closed.retain(|serial, _| self.waiting.of_period(*serial) > 0);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Labels, Rows};
    use crate::stats::Columns;
    use ndarray::ArrayView2;

    fn spec() -> Spec {
        let classes = ["no", "yes"].map(String::from).to_vec();
        Spec { model: "m".into(), threshold: 0.5, classes, ..Spec::default() }
    }

    fn with_row<T>(labels: Option<Labels<'_>>, then: impl FnOnce(&Rows<'_>) -> T) -> T {
        let probabilities = Some(Columns::F32(ArrayView2::from_shape((1, 2), &[0.25, 0.75]).unwrap()));
        then(&Rows { count: 1, probabilities, labels, ids: Some(&[1]), ..Rows::default() })
    }

    /// Of a reference in which the class of every row was known.
    fn reference() -> Arc<Reference> {
        let mut profile = Profile::new(spec().into(), 9, 1);
        (0..9).for_each(|_| with_row(Some(Labels::Classes(&[1])), |rows| profile.update(rows)));
        Reference::of(&profile).into()
    }

    #[test]
    fn a_period_goes_on_with_its_reference_and_without_any_if_it_is_gone() {
        let reference = reference();
        let frozen = reference.frozen(&spec());
        let mut later = Later::new(&spec(), 1 << 20);
        let mut profile = Profile::new(spec().into(), 9, 1).counting_in(Some(&frozen));
        with_row(None, |rows| {
            profile.update(rows);
            later.wait(rows, &spec(), 1000, 1000);
        });
        let period = Period { start_ns: 1000, end_ns: 2000, partial: false };
        later.close(period, &mut profile, Some(&reference));
        let bytes = later.to_bytes();
        for (next, goes_on) in [(Some((&reference, &frozen)), true), (None, false)] {
            let mut later = Later::new(&spec(), 1 << 20);
            later.take_up(&bytes, &spec(), next).unwrap();
            let kept = &later.closed[&0];
            assert_eq!(
                (kept.reference.upgrade().is_some(), kept.remainder.estimates.reading.is_gone()),
                (goes_on, !goes_on)
            );
        }
        let other = Spec { classes: vec!["only".into()], ..spec() };
        assert!(Later::new(&other, 1 << 20).take_up(&bytes, &other, None).is_none(), "of another model");
    }
}
