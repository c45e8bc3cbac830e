//! One model on its way: its open periods, those that are over, and their checkpoint.

use super::{Closed, Outlet};
use crate::checkpoint::{Checkpoint, Mark, ModelState, Saved, Store};
use crate::period::{Period, Periods, Timing};
use crate::profile::{Frozen, Losses, Profile, Rows, Size, Spec};
use crate::reference::{Library, Reference};
use crate::report::Report;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::warn;

/// One model's open periods.
pub struct Model {
    pub spec: Arc<Spec>,
    pub period: Duration,
    pub reservoir_rows: u64,
    pub periods: Periods<Profile>,
    /// The settings have changed since a dead sidecar made it: another model takes its rings.
    pub superseded: bool,
    /// Of one value of a sample.
    pub value_bytes: u64,
    /// What the names take.
    pub spec_bytes: u64,
    /// What one of its reports takes at most.
    pub report_bytes: u64,
    size: Size,
    seed: u64,
    /// Something has happened that no commit knows of.
    pub changed: bool,
    closing: Closing,
}

/// Closed periods that wait for their commit, or for the closing thread, before a model is read no further: it holds itself up, and
/// nobody else.
pub const MOST_WAITING: usize = 2;

/// What becomes of one model's closed periods.
struct Closing {
    model: u64,
    checkpoint: Checkpoint,
    /// A period has closed: the next commit is due at once.
    uncommitted: bool,
    /// Closed, and not yet handed over.
    waiting: usize,
    /// What its reports have cost the closing thread.
    spent: u64,
    /// In whose bins periods to come will be counted.
    next: Option<Arc<Compared>>,
    /// In whose bins open periods are counted.
    compared: Vec<Arc<Compared>>,
}

/// A reference, and its bins in the order of the model's columns.
struct Compared {
    reference: Arc<Reference>,
    frozen: Frozen,
}

impl Closing {
    fn reference_of(&self, profile: &Profile) -> Option<Arc<Reference>> {
        let its = self.next.iter().chain(&self.compared).find(|compared| compared.reference.froze(profile));
        its.map(|compared| compared.reference.clone())
    }

    /// A period's end: into the checkpoint, and on to its report.
    fn take(&mut self, out: &mut Outlet, period: Period, mut profile: Profile) {
        let receipt = self.checkpoint.close(out.store, period, &mut profile);
        self.uncommitted |= receipt.is_some();
        self.waiting += 1;
        let reference = self.reference_of(&profile);
        out.closed.push(Closed { model: self.model, period, profile, reference, receipt });
    }
}

impl Model {
    pub fn new(
        id: u64,
        spec: Spec,
        period: Duration,
        reservoir_rows: u64,
        [started_ns, now_ns]: [u64; 2],
        checkpoint: Checkpoint,
    ) -> Model {
        Model {
            seed: spec.seed(),
            spec_bytes: spec.bytes(),
            report_bytes: Report::bytes_at_most(&spec),
            size: spec.size(),
            spec: Arc::new(spec),
            period,
            reservoir_rows,
            periods: Periods::new(period, started_ns, now_ns),
            superseded: false,
            value_bytes: 4,
            changed: false,
            closing: Closing {
                model: id,
                checkpoint,
                uncommitted: false,
                waiting: 0,
                spent: 0,
                next: None,
                compared: Vec::new(),
            },
        }
    }

    /// As a dead sidecar left it. What was closed and not delivered is handed over once more.
    pub fn revived(id: u64, saved: Saved, started_ns: u64, library: &Library, out: &mut Outlet) -> Model {
        let Saved { model, mut open, closed, checkpoint } = saved;
        let times = [started_ns, started_ns];
        let (spec, rows) = (model.spec.into_owned(), model.reservoir_rows);
        let mut revived = Model::new(id, spec, model.period, rows, times, checkpoint);
        revived.compare_with(library);
        let next = revived.closing.next.clone();
        let frozen = next.as_deref().map(|compared| &compared.frozen);
        for (period, mut profile, receipt) in closed {
            profile.revive_bins(frozen);
            revived.closing.waiting += 1;
            let reference = revived.closing.reference_of(&profile);
            out.closed.push(Closed { model: id, period, profile, reference, receipt: Some(receipt) });
        }
        open.iter_mut().for_each(|(_, profile)| profile.revive_bins(frozen));
        revived.periods.revive(open, model.closed_before_ns);
        revived.changed = true;
        revived
    }

    /// Periods that open from now on are counted in the bins of its reference in `library`, if there is one.
    pub fn compare_with(&mut self, library: &Library) {
        let reference = library.find(&self.spec.model, &self.spec.version);
        let now = self.closing.next.as_ref().map(|next| next.reference.id());
        if reference.map(|reference| reference.id()) != now {
            let next = reference
                .map(|reference| Compared { frozen: reference.frozen(&self.spec), reference: reference.clone() });
            self.closing.compared.extend(self.closing.next.take());
            self.closing.compared.retain(|compared| self.periods.open().any(|open| compared.reference.froze(open)));
            self.closing.next = next.map(Arc::new);
        }
    }

    /// What one of its profiles takes at most.
    pub fn profile_bytes(&self) -> u64 {
        Profile::bytes(self.size, self.reservoir_rows, self.value_bytes)
    }

    pub fn feed(&mut self, instance: &str, ts_ns: u64, rows: &Rows<'_>, now_ns: u64, out: &mut Outlet) {
        let open = self.opener();
        let closing = &mut self.closing;
        let (profile, timing) = self.periods.route(ts_ns, now_ns, open, |p, c| closing.take(out, p, c));
        match timing {
            Timing::InTime => {}
            Timing::Late => profile.losses.late_rows += rows.count as u64,
            Timing::Early => profile.losses.early_rows += rows.count as u64,
        }
        profile.name_instance(instance);
        let known = profile.predictions.invalid.kinds();
        profile.update(rows);
        if profile.predictions.invalid.kinds() > known {
            let (model, version) = (&self.spec.model, &self.spec.version);
            warn!(
                model,
                version, instance, "its probabilities are not: the report of the period says which were first"
            );
        }
        self.changed = true;
    }

    pub fn lose(&mut self, losses: &Losses, now_ns: u64, out: &mut Outlet) {
        let open = self.opener();
        let closing = &mut self.closing;
        let profile = self.periods.newest(now_ns, open, |p, c| closing.take(out, p, c));
        profile.losses.add(losses);
        self.changed = true;
    }

    pub fn close_due(&mut self, now: u64, waiting_from: Option<u64>, attached: bool, out: &mut Outlet) {
        let (open, most) = (self.opener(), MOST_WAITING.saturating_sub(self.closing.waiting));
        let closing = &mut self.closing;
        self.periods.close_due(now, waiting_from, attached, most, open, |p, c| closing.take(out, p, c));
    }

    pub fn close_all(&mut self, out: &mut Outlet) {
        let closing = &mut self.closing;
        self.periods.close_all(|p, c| closing.take(out, p, c));
    }

    /// Nothing is open, and nothing under way.
    pub fn is_idle(&self) -> bool {
        self.periods.is_empty() && self.closing.waiting == 0 && !self.closing.checkpoint.has_undelivered()
    }

    pub fn commit_is_due(&mut self, now: Instant) -> bool {
        let (changed, checkpoint) =
            (self.changed || self.closing.checkpoint.has_failed(), &mut self.closing.checkpoint);
        self.closing.uncommitted || (changed && checkpoint.is_due(now, self.periods.open()))
    }

    /// Its closed periods are in no checkpoint yet.
    pub fn is_uncommitted(&self) -> bool {
        self.closing.uncommitted
    }

    /// So many closed periods wait that it is read no further.
    pub fn is_held_up(&self) -> bool {
        self.closing.waiting >= MOST_WAITING
    }

    /// What its reports have cost the closing thread. Who has had the least comes first.
    pub fn spent(&self) -> u64 {
        self.closing.spent
    }

    /// It has no claim to more than those that were there before.
    pub fn start_from(&mut self, spent: u64) {
        self.closing.spent = spent;
    }

    /// One of its closed periods is on its way.
    pub fn handed_over(&mut self, cost: u64) {
        self.closing.waiting -= 1;
        self.closing.spent = self.closing.spent.saturating_add(cost);
    }

    /// Whether the store has room is the caller's business.
    pub fn commit(&mut self, marks: Vec<Mark>, store: &Store, now: Instant) {
        let state = ModelState {
            spec: Cow::Borrowed(&self.spec),
            period: self.period,
            reservoir_rows: self.reservoir_rows,
            closed_before_ns: self.periods.closed_before_ns(),
            marks,
        };
        self.closing.checkpoint.commit(store, state, self.periods.open_mut(), now);
        (self.changed, self.closing.uncommitted) = (false, false);
    }

    /// Nothing of it is to be found by the next sidecar.
    pub fn retire(&self, store: &Store) {
        self.closing.checkpoint.retire(store);
    }

    /// The sample of a period is seeded by model and period: the same records give the same sample.
    fn opener(&self) -> impl Fn(u64) -> Profile + use<> {
        let (spec, rows, seed) = (self.spec.clone(), self.reservoir_rows, self.seed);
        let next = self.closing.next.clone();
        move |start_ns| {
            let frozen = next.as_deref().map(|compared| &compared.frozen);
            Profile::new(spec.clone(), rows, seed ^ start_ns).counting_in(frozen)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Feature;
    use crate::stats::Columns;
    use ndarray::ArrayView2;

    #[test]
    fn a_model_with_a_period_for_every_record_is_held_up_before_its_profiles_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let spec = Spec { features: vec![Feature { name: "f".into(), categorical: false }], ..Spec::default() };
        let (second, now) = (1_000_000_000, 1_700_000_000_000_000_000);
        let mut model = Model::new(0, spec, Duration::from_secs(1), 1, [now; 2], store.new_checkpoint());
        let mut closed = Vec::new();
        let features = Some(Columns::F64(ArrayView2::from_shape((1, 1), &[1.0]).unwrap()));
        let rows = Rows { count: 1, probabilities: None, features, ..Rows::default() };
        let mut fed = 0;
        while !model.is_held_up() {
            let mut out = Outlet { closed: &mut closed, store: &store };
            model.feed("i", now - (100 - fed) * second, &rows, now, &mut out);
            fed += 1;
        }
        assert_eq!((fed as usize, closed.len()), (crate::period::MOST_OPEN + MOST_WAITING, MOST_WAITING));
        model.handed_over(1);
        assert!(!model.is_held_up());
    }
}
