//! Labels that come later than their rows: joined by id, and told by reporting the row's period once more.
//!
//! A label for a row of an open period counts there as if it had come with the row. Of a closed period for which rows still wait, what
//! a label can change is kept, and reported again with a higher revision when another period closes. Memory is bounded: where there is
//! no room for more rows, or for more periods, the oldest are forgotten, and counted.

mod left;

use super::model::MOST_WAITING;
use super::waiting::Waiting;
use crate::period::{Period, Periods};
use crate::profile::{Labelled, Labels, Profile, Rows, Spec, Unjoined};
use crate::reference::Reference;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Of one model.
pub struct Later {
    waiting: Waiting,
    /// [`Spec::columns_id`].
    columns: u32,
    /// Of which some must soon go: so many as can close before the next is reported again.
    most_closed: usize,
    /// Start and serial number of the open periods whose rows were asked to wait. Periods are told apart by number: after the clock was
    /// set back, or an earlier sidecar reported its part of one, several have the same start.
    open: Vec<(u64, u64)>,
    /// The next period's.
    serial: u64,
    /// Closed periods for which rows wait, or whose labels are still to be reported, by their number.
    closed: BTreeMap<u64, Kept>,
    /// Besides those that had to make room.
    forgotten_rows: u64,
}

struct Kept {
    period: Period,
    remainder: Profile,
    /// In whose bins it was counted. A reference that was replaced must not be kept for the sake of its bands.
    reference: Weak<Reference>,
    revision: u64,
    /// Rows whose labels came since it was reported last.
    labelled: u64,
    /// Something came since then.
    changed: bool,
    /// It is to be reported now.
    due: bool,
}

/// A closed period once more.
pub struct Revision {
    /// Which.
    pub period: Period,
    /// What labels can change.
    pub remainder: Profile,
    /// Of the model: the remainder does not have them all.
    pub columns: u32,
    /// In whose bins it was counted.
    pub reference: Option<Arc<Reference>>,
    /// From 1.
    pub number: u64,
}

impl Later {
    /// Half of the bytes are for rows that wait, half for the periods they wait for.
    pub fn new(spec: &Spec, bytes: u64) -> Later {
        let period_bytes = Profile::remainder_bytes(spec.size()) + spec.bytes();
        Later {
            waiting: Waiting::new(spec.classes.len(), bytes / 2),
            columns: spec.columns_id(),
            most_closed: usize::try_from(bytes / 2 / period_bytes).unwrap_or(usize::MAX),
            open: Vec::new(),
            serial: 0,
            closed: BTreeMap::new(),
            forgotten_rows: 0,
        }
    }

    /// How many rows wait.
    pub fn waiting_rows(&self) -> u64 {
        self.waiting.len()
    }

    /// What would be forgotten without a tomorrow: rows that wait, those whose labels are still to be reported, and those of which it
    /// is still to be said that they are forgotten.
    pub fn at_stake(&self) -> u64 {
        self.closed.values().fold(self.untold(), |sum, kept| sum.saturating_add(kept.labelled))
    }

    /// What no report would say of if no other period closed: rows that wait, and those that are forgotten since the last one.
    pub fn untold(&self) -> u64 {
        let forgotten = self.forgotten_rows.saturating_add(self.waiting.forgotten());
        self.waiting.len().saturating_add(forgotten)
    }

    /// A dead sidecar had these at stake.
    pub fn forget(&mut self, rows: u64) {
        self.forgotten_rows = self.forgotten_rows.saturating_add(rows);
    }

    /// The rows of a batch that was counted in the period that starts at `start_ns`: those that have ids and no label wait.
    pub fn wait(&mut self, rows: &Rows<'_>, spec: &Spec, start_ns: u64, ts_ns: u64) {
        let serial = self.serial_of(start_ns);
        self.waiting.add(rows, spec, serial, ts_ns);
    }

    /// Of an open period.
    fn serial_of(&mut self, start_ns: u64) -> u64 {
        if let Some((_, serial)) = self.open.iter().find(|(start, _)| *start == start_ns) {
            return *serial;
        }
        self.open.push((start_ns, self.serial));
        self.serial += 1;
        self.serial - 1
    }

    /// A batch of nothing but labels: each goes to the row with its id. Returns those that found none.
    pub fn join(&mut self, labels: &Rows<'_>, ts_ns: u64, periods: &mut Periods<Profile>) -> Unjoined {
        let mut unjoined = Unjoined::default();
        let Some(ids) = labels.ids else {
            unjoined.no_id = labels.count as u64;
            return unjoined;
        };
        for (at, &id) in ids.iter().enumerate() {
            match labels.labels.filter(|labels| labels.has(at)) {
                None => unjoined.no_label += 1,
                Some(labels) if self.join_one(id, labels.slice(at..at + 1), ts_ns, periods) => {}
                Some(_) => unjoined.unknown_id += 1,
            }
        }
        unjoined
    }

    /// Whether somebody waited for it.
    fn join_one(&mut self, id: u64, label: Labels<'_>, ts_ns: u64, periods: &mut Periods<Profile>) -> bool {
        let Some((row, outputs)) = self.waiting.get(id) else { return false };
        let labelled = Labelled {
            probabilities: outputs,
            label,
            epsilon: row.epsilon,
            segment: row.segment,
            delay_seconds: ts_ns.saturating_sub(row.ts_ns) as f64 / 1e9,
        };
        let start_ns = self.open.iter().find(|(_, serial)| *serial == row.period).map(|(start_ns, _)| *start_ns);
        let open = start_ns.and_then(|start_ns| periods.open_at(start_ns));
        let answered = match (open, self.closed.get_mut(&row.period)) {
            (Some(open), _) => open.label(&labelled),
            (None, Some(kept)) => kept.label(&labelled),
            (None, None) => return false,
        };
        if answered {
            self.waiting.remove(id);
        }
        true
    }

    /// A period closes. What it should say of labels that come later is put into its profile, and what they can change is kept. Of the
    /// oldest, where there are too many, what has come is still reported, unless nobody has time for that while others close.
    pub fn close(&mut self, period: Period, profile: &mut Profile, reference: Option<&Arc<Reference>>) {
        self.hurry();
        let serial = self.serial_of(period.start_ns);
        self.open.retain(|(_, open)| *open != serial);
        if self.waiting.of_period(serial) > 0 {
            let remainder = profile.remainder();
            let reference = reference.map(Arc::downgrade).unwrap_or_default();
            let kept = Kept { period, remainder, reference, revision: 0, labelled: 0, changed: false, due: false };
            self.closed.insert(serial, kept);
        }
        let too_many = self.closed.len().saturating_sub(self.most_waited_for());
        self.closed.keys().take(too_many).for_each(|serial| self.waiting.give_up(*serial));
        self.closed.retain(|serial, kept| kept.changed || self.waiting.of_period(*serial) > 0);
        while self.closed.len() > self.most_closed {
            let unreported = self.closed.pop_first().map_or(0, |(_, kept)| kept.labelled);
            self.forgotten_rows = self.forgotten_rows.saturating_add(unreported);
        }
        profile.later.waiting_rows = self.waiting.of_period(serial);
        profile.later.forgotten_rows = std::mem::take(&mut self.forgotten_rows) + self.waiting.take_forgotten();
    }

    /// Besides those that have made room and are still to be reported; one at least.
    fn most_waited_for(&self) -> usize {
        self.most_closed.saturating_sub(MOST_WAITING).max(self.most_closed.min(1))
    }

    /// Every label that has come is reported at the next occasion: there may be no other.
    pub fn hurry(&mut self) {
        self.closed.values_mut().for_each(|kept| kept.due = kept.changed);
    }

    /// Some period is to be reported again.
    pub fn is_due(&self) -> bool {
        self.closed.values().any(|kept| kept.due)
    }

    /// Some label has come that is not reported.
    pub fn has_news(&self) -> bool {
        self.closed.values().any(|kept| kept.changed)
    }

    /// A closed period whose labels are to be reported, if there is one.
    pub fn next_revision(&mut self) -> Option<Revision> {
        let (&serial, kept) = self.closed.iter_mut().find(|(_, kept)| kept.due)?;
        let waiting_rows = self.waiting.of_period(serial);
        kept.remainder.later.waiting_rows = waiting_rows;
        (kept.due, kept.changed, kept.labelled, kept.revision) = (false, false, 0, kept.revision + 1);
        let (period, reference, number) = (kept.period, kept.reference.upgrade(), kept.revision);
        let remainder =
            if waiting_rows > 0 { kept.remainder.remainder() } else { self.closed.remove(&serial)?.remainder };
        Some(Revision { period, remainder, columns: self.columns, reference, number })
    }
}

impl Kept {
    fn label(&mut self, labelled: &Labelled<'_, '_>) -> bool {
        let answered = self.remainder.label(labelled);
        self.labelled += u64::from(answered);
        self.changed = true;
        answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn spec() -> Spec {
        Spec { threshold: 0.5, classes: ["no", "yes"].map(String::from).to_vec(), ..Spec::default() }
    }

    /// As many rows, of which one gets its label when the period is over. Returns how many are said to be forgotten.
    fn live_through(later: &mut Later, period: u64, rows: u64) -> u64 {
        let (start_ns, mut open) = (period * SECOND, Periods::new(Duration::from_secs(1), 0, 0));
        let mut profile = Profile::new(spec().into(), 1, 1);
        let ids: Vec<u64> = (0..rows).map(|row| period * rows + row).collect();
        let values = [0.25, 0.75].repeat(ids.len());
        let view = ArrayView2::from_shape((ids.len(), 2), &values).unwrap();
        let probabilities = Some(Columns::F64(view));
        let rows = Rows { count: ids.len(), probabilities, ids: Some(&ids), ..Rows::default() };
        profile.update(&rows);
        later.wait(&rows, &spec(), start_ns, start_ns);
        later.close(Period { start_ns, end_ns: start_ns + SECOND, partial: false }, &mut profile, None);
        let label = Rows { count: 1, labels: Some(Labels::Classes(&[1])), ids: Some(&ids[..1]), ..Rows::default() };
        assert_eq!(later.join(&label, start_ns, &mut open), Unjoined::default());
        profile.later.forgotten_rows
    }

    #[test]
    fn periods_that_nobody_has_time_to_report_again_take_no_more_memory_than_allowed() {
        const BYTES: u64 = 2 << 20;
        let mut later = Later::new(&spec(), BYTES);
        let each = Profile::remainder_bytes(spec().size()) + spec().bytes();
        let mut forgotten = 0;
        for period in 0..100 {
            forgotten += live_through(&mut later, period, 3);
            assert!(later.closed.len() as u64 * each <= BYTES / 2, "{} periods", later.closed.len());
        }
        later.hurry();
        let revisions: Vec<Revision> = std::iter::from_fn(|| later.next_revision()).collect();
        let labelled: u64 = revisions.iter().map(|revision| revision.remainder.later.delay.n).sum();
        assert!(revisions.len() > 1 && labelled == revisions.len() as u64);
        assert_eq!(forgotten + labelled + later.untold(), 300);
    }

    #[test]
    fn what_is_forgotten_and_not_yet_told_is_at_stake() {
        let mut later = Later::new(&spec(), 4 << 20);
        later.forget(5);
        assert_eq!(later.at_stake(), 5);
        live_through(&mut later, 0, 3);
        assert_eq!(later.at_stake(), 3, "two that wait, and one whose label is to be reported");
    }

    #[test]
    fn what_is_forgotten_is_told_by_the_next_period_or_else_at_the_end() {
        let mut later = Later::new(&spec(), 4 << 20);
        later.forget(5);
        assert_eq!((later.waiting_rows(), later.untold()), (0, 5));
        assert_eq!(live_through(&mut later, 0, 3), 5);
        assert_eq!((later.waiting_rows(), later.untold()), (2, 2));
    }
}
