//! One ring on its way into a model: polled, counted, resynced or quarantined, and let go of.

use crate::period::believed;
use crate::profile::{DROP_REASONS, Feature, Labels, Losses, Rows, Spec};
use crate::ring::{
    Area, Batch, Budget, Consumer, Corruption, Counters, FeatureKind, Found, Matrix, Polled, Schema, Segment, Task,
};
use crate::stats::Columns;
use std::collections::VecDeque;
use std::time::Duration;
use tracing::{info, warn};

/// One ring's share of a turn: a busy or hostile ring starves no other.
const BUDGET: Budget = Budget { records: 4096, bytes: 16 << 20 };
/// So many corruptions within [`FAULT_WINDOW_NS`] end the reading of a ring.
const MOST_FAULTS: usize = 5;
const FAULT_WINDOW_NS: u64 = 60_000_000_000;

/// One producer's ring, and what is known of it.
pub struct Intake {
    pub found: Found,
    /// The model it feeds.
    pub model: u64,
    /// A producer held the ring when last looked.
    pub attached: bool,
    consumer: Consumer<Segment>,
    instance: String,
    /// The producer's drop counters as far as they stand in a profile.
    seen: Counters,
    /// Since then, from this side.
    pending: Losses,
    unattached_since_ns: Option<u64>,
    /// The name leads elsewhere, or nowhere: drain, then let go.
    orphaned: bool,
    faults: VecDeque<u64>,
    quarantined: bool,
}

impl Intake {
    pub fn new(segment: Segment, found: Found, model: u64) -> Intake {
        let schema = segment.schema().clone();
        let (seen, quarantined) = (segment.seen_dropped(), segment.quarantined());
        if quarantined {
            warn!(ring = %found.path.display(), "an earlier sidecar quarantined it: restart its producer to make a new ring");
        }
        Intake {
            found,
            model,
            attached: true,
            consumer: Consumer::new(segment, &schema),
            instance: schema.instance,
            seen,
            pending: Losses::default(),
            unattached_since_ns: None,
            orphaned: false,
            faults: VecDeque::new(),
            quarantined,
        }
    }

    pub fn capacity(&self) -> u64 {
        self.consumer.area().capacity()
    }

    /// Whether its producer has moved, or the ring needs a closer look.
    pub fn has_news(&self) -> bool {
        !self.quarantined && (self.consumer.has_news() || self.consumer.area().faulted())
    }

    /// Tells whoever looks that the ring is being watched.
    pub fn beat(&self, now_ns: u64) {
        self.consumer.area().beat(now_ns);
    }

    /// Reads what is there, within the budget and up to the time stamp `until_ns`, and feeds it with its instance and time stamp.
    /// Whether anything was there.
    pub fn poll(&mut self, now_ns: u64, until_ns: u64, mut feed: impl FnMut(&str, u64, Rows<'_>)) -> bool {
        if self.quarantined {
            return false;
        }
        let (consumer, instance) = (&mut self.consumer, &self.instance);
        let wanted = |ts_ns| believed(ts_ns, now_ns) < until_ns;
        let polled = consumer.poll(BUDGET, wanted, |batch| feed(instance, batch.ts_ns, rows_of(&batch)));
        self.count(&polled);
        if self.consumer.area().faulted() {
            self.abandon_resized();
        } else if let Some(why) = polled.corruption {
            self.give_up(why, now_ns);
        }
        polled.bytes > 0 || polled.corruption.is_some()
    }

    /// The time stamp of what will be read next, if something waits.
    pub fn waiting_from(&self, now_ns: u64) -> Option<u64> {
        if self.quarantined { None } else { self.consumer.next_ts_ns().map(|ts_ns| believed(ts_ns, now_ns)) }
    }

    fn count(&mut self, polled: &Polled) {
        self.pending.missing_records += polled.missing;
        if polled.used > self.pending.high_water.0 {
            self.pending.high_water = (polled.used, self.capacity());
        }
    }

    fn give_up(&mut self, why: Corruption, now_ns: u64) {
        self.consumer.resync();
        self.pending.resyncs += 1;
        self.faults.push_back(now_ns);
        self.faults.retain(|at| now_ns.saturating_sub(*at) < FAULT_WINDOW_NS);
        self.quarantined = self.faults.len() >= MOST_FAULTS;
        self.consumer.area().mark_corrupt(self.quarantined);
        let ring = self.found.path.display();
        if self.quarantined {
            warn!(%ring, %why, "quarantined: corrupt {MOST_FAULTS} times within a minute; restart its producer to make a new ring");
        } else {
            warn!(%ring, %why, "corrupt: its content was given up, reading goes on at its tail");
        }
    }

    fn abandon_resized(&mut self) {
        self.pending.resyncs += 1;
        self.quarantined = true;
        self.consumer.area().mark_corrupt(true);
        warn!(ring = %self.found.path.display(), "quarantined: somebody changed its file's size; restart its producer to make a new ring");
    }

    /// What was lost since the last call, if anything.
    pub fn new_losses(&mut self) -> Option<Losses> {
        let now = self.consumer.area().counters();
        if self.quarantined {
            self.pending.missing_records += self.consumer.abandon_until(now.next_seq);
        }
        let mut losses = std::mem::take(&mut self.pending);
        for reason in 0..DROP_REASONS {
            // A hostile producer may count backwards.
            losses.dropped_records[reason] =
                now.dropped_records[reason].saturating_sub(self.seen.dropped_records[reason]);
            losses.dropped_rows[reason] = now.dropped_rows[reason].saturating_sub(self.seen.dropped_rows[reason]);
        }
        let any = losses != Losses::default();
        if any {
            self.seen = now;
            self.consumer.area().set_seen_dropped(&now);
        }
        any.then_some(losses)
    }

    /// Where the ring ends now: a stopping sidecar reads no further, or a busy producer would keep it for ever.
    pub fn end(&self) -> u64 {
        self.consumer.consumed().head + self.consumer.backlog()
    }

    /// Whether everything before `end` is read.
    pub fn has_reached(&self, end: u64) -> bool {
        self.quarantined || self.consumer.consumed().head >= end
    }

    /// Once a scan: is the ring still the one of its name, is its producer there, may it go?
    pub fn look_around(&mut self, now_ns: u64, named: bool, keep_abandoned: Duration) {
        self.orphaned = !named;
        self.attached = self.consumer.area().producer_attached();
        if !self.quarantined && !self.consumer.area().has_its_size() {
            self.abandon_resized();
        }
        if self.attached {
            self.unattached_since_ns = None;
            return;
        }
        let since = *self.unattached_since_ns.get_or_insert(now_ns);
        if named && now_ns.saturating_sub(since) >= u64::try_from(keep_abandoned.as_nanos()).unwrap_or(u64::MAX) {
            match self.consumer.area().unlink_if_abandoned() {
                Ok(true) => {
                    info!(ring = %self.found.path.display(), "removed: read, and its producer has been gone for long")
                }
                Ok(false) => {}
                Err(why) => warn!(ring = %self.found.path.display(), %why, "cannot remove an abandoned ring"),
            }
        }
    }

    /// Nothing will come any more.
    pub fn is_over(&self) -> bool {
        self.orphaned && !self.attached && (self.quarantined || self.consumer.backlog() == 0)
    }
}

/// What the ring calls a schema, the profile calls a spec.
pub fn spec_of(schema: &Schema) -> Spec {
    let feature = |(name, kind): (&String, &FeatureKind)| Feature {
        name: name.clone(),
        categorical: *kind == FeatureKind::Categorical,
    };
    Spec {
        model: schema.model.clone(),
        version: schema.version.clone(),
        regression: schema.task == Task::Regression,
        threshold: schema.threshold,
        classes: schema.class_names.clone(),
        features: schema.feature_names.iter().zip(&schema.feature_kinds).map(feature).collect(),
    }
}

/// What the ring calls a batch, the profile calls rows; in place.
pub fn rows_of<'a>(batch: &Batch<'a>) -> Rows<'a> {
    let labels = batch.labels.map(Labels::Classes);
    Rows {
        count: batch.rows,
        probabilities: batch.probabilities.map(columns_of),
        features: batch.features.map(columns_of),
        labels: labels.or(batch.label_sets.map(Labels::Sets)).or(batch.targets.map(Labels::Targets)),
    }
}

fn columns_of(matrix: Matrix<'_>) -> Columns<'_> {
    match matrix {
        Matrix::F16(view) => Columns::F16(view),
        Matrix::BF16(view) => Columns::BF16(view),
        Matrix::F32(view) => Columns::F32(view),
        Matrix::F64(view) => Columns::F64(view),
    }
}
