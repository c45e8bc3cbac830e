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
    key: u64,
    period: Period,
    revision: u64,
    /// In whose bins it was counted.
    reference: Option<String>,
    remainder: P,
}

impl Left<Profile> {
    /// Whether a sidecar can have left it: its key is that of some life, and there will be others.
    fn is_possible(&self) -> bool {
        let Period { start_ns, end_ns, .. } = self.period;
        (start_ns..end_ns).contains(&self.key) && self.key < u64::MAX - 1 && self.revision < u64::MAX - 1
    }
}

impl Later {
    /// The rows that wait, and of their periods what their labels can change. All is closed, and all labels that came are reported.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kept: Vec<_> = self.closed.iter().filter(|(key, _)| self.waiting.of_period(**key) > 0).collect();
        let mut bytes = postcard::to_stdvec(&kept.len()).expect("plain data");
        for (&key, kept) in kept {
            let reference = kept.reference.upgrade().map(|reference| reference.id());
            let (period, revision, remainder) = (kept.period, kept.revision, &kept.remainder);
            let left = Left { key, period, revision, reference, remainder };
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
            if !left.is_possible() {
                return None;
            }
            let mut remainder = left.remainder.revived_remainder(spec)?;
            remainder.revive_against(next.map(|(_, frozen)| frozen));
            let same = |reference: &&Arc<Reference>| left.reference.as_ref() == Some(&reference.id());
            let reference = next.map(|(reference, _)| reference).filter(same).map(Arc::downgrade).unwrap_or_default();
            let (period, revision) = (left.period, left.revision);
            let kept = Kept { period, remainder, reference, revision, labelled: 0, changed: false, due: false };
            self.closed.insert(in_next_life(left.key), kept);
            if self.closed.len() > self.most_closed {
                self.closed.pop_first();
            }
        }
        let closed = &self.closed;
        self.waiting.take_up(bytes, |key| Some(in_next_life(key)).filter(|key| closed.contains_key(key)))?;
        self.closed.retain(|key, _| self.waiting.of_period(*key) > 0);
        Some(())
    }
}

/// The key of a period that an earlier sidecar reported is none of an open one's, which is a multiple of its length: the rest of the
/// period may be open here, and has a report of its own.
fn in_next_life(key: u64) -> u64 {
    key.saturating_add(1)
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
            let kept = &later.closed[&1001];
            assert_eq!(
                (kept.reference.upgrade().is_some(), kept.remainder.estimates.reading.is_gone()),
                (goes_on, !goes_on)
            );
        }
        let other = Spec { classes: vec!["only".into()], ..spec() };
        assert!(Later::new(&other, 1 << 20).take_up(&bytes, &other, None).is_none(), "of another model");
    }
}
