//! One model on its way: its open periods, and their checkpoint.

use super::{Closed, Outlet};
use crate::checkpoint::{Checkpoint, Mark, ModelState, Saved, Store};
use crate::period::{Period, Periods, Timing};
use crate::profile::{Losses, Profile, Rows, Size, Spec};
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
    size: Size,
    seed: u64,
    checkpoint: Checkpoint,
    /// Something has happened that no commit knows of.
    changed: bool,
    /// A period has closed: the next commit is due at once.
    closed: bool,
}

impl Model {
    pub fn new(
        spec: Spec,
        period: Duration,
        reservoir_rows: u64,
        [started_ns, now_ns]: [u64; 2],
        checkpoint: Checkpoint,
    ) -> Model {
        let name = [spec.model.as_bytes(), &[0], spec.version.as_bytes()].concat();
        let seed = u64::from(crc32c::crc32c(&name)) << 32;
        Model {
            spec_bytes: spec.bytes(),
            size: spec.size(),
            spec: Arc::new(spec),
            period,
            reservoir_rows,
            periods: Periods::new(period, started_ns, now_ns),
            superseded: false,
            value_bytes: 4,
            seed,
            checkpoint,
            changed: false,
            closed: false,
        }
    }

    /// As a dead sidecar left it. What was closed and not delivered is handed over once more.
    pub fn revived(saved: Saved, started_ns: u64, out: &mut Outlet) -> Model {
        let Saved { model, open, closed, checkpoint } = saved;
        let times = [started_ns, started_ns];
        let (spec, rows) = (model.spec.into_owned(), model.reservoir_rows);
        let mut revived = Model::new(spec, model.period, rows, times, checkpoint);
        for (period, profile, receipt) in closed {
            out.closed.push(Closed { period, profile, receipt: Some(receipt) });
        }
        if !revived.periods.revive(open, model.closed_before_ns) {
            warn!(model = revived.spec.model, "its checkpoint has periods that cannot have been open: given up");
        }
        revived.changed = true;
        revived
    }

    /// What one of its profiles takes at most.
    pub fn profile_bytes(&self) -> u64 {
        Profile::bytes(self.size, self.reservoir_rows, self.value_bytes)
    }

    pub fn feed(&mut self, instance: &str, ts_ns: u64, rows: &Rows<'_>, now_ns: u64, out: &mut Outlet) {
        let open = self.opener();
        let (checkpoint, closed) = (&mut self.checkpoint, &mut self.closed);
        let (profile, timing) = self.periods.route(ts_ns, now_ns, open, |p, c| close(checkpoint, closed, out, p, c));
        match timing {
            Timing::InTime => {}
            Timing::Late => profile.losses.late_rows += rows.count as u64,
            Timing::Early => profile.losses.early_rows += rows.count as u64,
        }
        profile.name_instance(instance);
        profile.update(rows);
        self.changed = true;
    }

    pub fn lose(&mut self, losses: &Losses, now_ns: u64, out: &mut Outlet) {
        let open = self.opener();
        let (checkpoint, closed) = (&mut self.checkpoint, &mut self.closed);
        let profile = self.periods.newest(now_ns, open, |p, c| close(checkpoint, closed, out, p, c));
        profile.losses.add(losses);
        self.changed = true;
    }

    pub fn close_due(&mut self, now: u64, waiting_from: Option<u64>, attached: bool, out: &mut Outlet) {
        let open = self.opener();
        let (checkpoint, closed) = (&mut self.checkpoint, &mut self.closed);
        self.periods.close_due(now, waiting_from, attached, open, |p, c| close(checkpoint, closed, out, p, c));
    }

    pub fn close_all(&mut self, out: &mut Outlet) {
        let (checkpoint, closed) = (&mut self.checkpoint, &mut self.closed);
        self.periods.close_all(|p, c| close(checkpoint, closed, out, p, c));
    }

    /// Nothing is open, and nothing under way.
    pub fn is_idle(&self) -> bool {
        self.periods.is_empty() && !self.checkpoint.has_undelivered()
    }

    pub fn commit_is_due(&mut self, now: Instant) -> bool {
        self.closed || (self.changed && self.checkpoint.is_due(now, self.periods.open()))
    }

    /// A period has closed since the last commit.
    pub fn has_closed(&self) -> bool {
        self.closed
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
        self.checkpoint.commit(store, state, self.periods.open_mut(), now);
        (self.changed, self.closed) = (false, false);
    }

    /// Nothing of it is to be found by the next sidecar.
    pub fn retire(&self, store: &Store) {
        self.checkpoint.retire(store);
    }

    /// The sample of a period is seeded by model and period: the same records give the same sample.
    fn opener(&self) -> impl Fn(u64) -> Profile + use<> {
        let (spec, rows, seed) = (self.spec.clone(), self.reservoir_rows, self.seed);
        move |start_ns| Profile::new(spec.clone(), rows, seed ^ start_ns)
    }
}

/// A period's end: into the checkpoint, and on to its report.
fn close(checkpoint: &mut Checkpoint, closed: &mut bool, out: &mut Outlet, period: Period, mut profile: Profile) {
    let receipt = checkpoint.close(out.store, period, &mut profile);
    *closed |= receipt.is_some();
    out.closed.push(Closed { period, profile, receipt });
}
