//! One ring on its way into a model: polled, counted, resynced or quarantined, and let go of.

use super::HistogramSettings;
use crate::checkpoint::{Mark, RingId};
use crate::health::{self, Health};
use crate::period::believed;
use crate::profile::{
    Block, DROP_REASONS, Feature, Histogrammed, Labels, Losses, Record, Rows, SegmentBy, Segmentation, Size, Spec,
};
use crate::ring::{
    self, Area, Batch, Budget, Consumed, Consumer, Corruption, Counters, FeatureKind, Found, Matrix, Polled, Schema,
    Segment, Task, wire,
};
use crate::stats::Columns;
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// One ring's share of a turn: a busy or hostile ring starves no other.
const BUDGET: Budget = Budget { records: 4096, bytes: 16 << 20 };
/// And its time, for bytes may be dear: some take a hundred times as long as others. A record is always read to its end.
const MOST_POLLING: Duration = Duration::from_millis(20);
/// So many corruptions within [`FAULT_WINDOW_NS`] end the reading of a ring.
const MOST_FAULTS: usize = 5;
const FAULT_WINDOW_NS: u64 = 60_000_000_000;
/// Two polls may follow each other so fast that their distance says nothing of a rate.
const LEAST_ELAPSED: Duration = Duration::from_millis(1);

/// One producer's ring, and what is known of it.
pub struct Intake {
    pub found: Found,
    /// The model it feeds.
    pub model: u64,
    /// A producer held the ring, or wrote into it, when last looked.
    pub attached: bool,
    consumer: Consumer<Segment>,
    instance: String,
    /// The producer's drop counters as far as they stand in a profile.
    seen: Counters,
    /// Since then, from this side.
    pending: Losses,
    /// Bytes a second, the most seen between two polls.
    fastest: f64,
    tail_at_last_look: u64,
    tail_at_last_poll: Option<u64>,
    unattached_since_ns: Option<u64>,
    /// That it cannot be removed has been said.
    irremovable: bool,
    /// The name leads elsewhere, or nowhere: drain, then let go.
    orphaned: bool,
    faults: VecDeque<u64>,
    quarantined: bool,
}

impl Intake {
    /// What an earlier sidecar had read, and neither its checkpoint's `mark` nor its orderly stop knows of, is lost.
    pub fn new(
        consumer: Consumer<Segment>,
        instance: String,
        found: Found,
        model: u64,
        mark: Option<Mark>,
        health: &mut Health,
    ) -> Intake {
        let segment = consumer.area();
        let quarantined = segment.quarantined();
        if quarantined {
            health::count(&mut health.quarantined, "earlier", 1);
            warn!(ring = ?found.path, "an earlier sidecar quarantined it: restart its producer to make a new ring");
        }
        let ring = RingId { uuid: segment.identity().uuid, file: found.file };
        let (consumed, dropped) = segment.accounted();
        let stopped = Mark { ring, consumed, dropped };
        // A checkpoint of before an orderly stop may still be there: the newer of the two counts.
        let known = mark.filter(|mark| mark.progress() > stopped.progress()).unwrap_or(stopped);
        let (accounted, seen) = (known.consumed, known.dropped);
        let tail_at_last_look = segment.position();
        let pending = lost_in_a_crash(&accounted, &consumer.consumed());
        if pending.crash_records > 0 {
            let (records, rows) = (pending.crash_records, pending.crash_rows);
            warn!(ring = ?found.path, records, rows, "an earlier sidecar was killed: what it had read since its last checkpoint is lost, and counted");
        }
        Intake {
            found,
            model,
            attached: true,
            consumer,
            instance,
            seen,
            pending,
            fastest: 0.0,
            tail_at_last_look,
            tail_at_last_poll: None,
            unattached_since_ns: None,
            irremovable: false,
            orphaned: false,
            faults: VecDeque::new(),
            quarantined,
        }
    }

    pub fn capacity(&self) -> u64 {
        self.consumer.area().capacity()
    }

    /// Bytes mapped.
    pub fn mapped_bytes(&self) -> u64 {
        self.consumer.area().identity().file_len
    }

    /// Bytes written and not yet read; none of a ring that is not read.
    pub fn lag_bytes(&self) -> u64 {
        if self.quarantined { 0 } else { self.consumer.backlog() }
    }

    /// What its producer last wrote as its time stamp, or when it attached; `None` without a producer.
    pub fn producer_heartbeat_ns(&self) -> Option<u64> {
        self.attached.then(|| self.consumer.area().producer_heartbeat_ns())
    }

    /// Capacity in bytes, and the fastest it was seen to fill in bytes a second.
    pub fn fill(&self) -> (u64, f64) {
        (self.capacity(), self.fastest)
    }

    /// How far it has been read, for a checkpoint.
    pub fn mark(&self) -> Mark {
        let ring = RingId { uuid: self.consumer.area().identity().uuid, file: self.found.file };
        Mark { ring, consumed: self.consumer.consumed(), dropped: self.seen }
    }

    /// Everything read stands in a report: an orderly stop.
    pub fn account(&self) {
        self.consumer.area().set_accounted(&self.consumer.consumed(), &self.seen);
    }

    /// Whether its producer has moved. A file that was cut short reads as zeros, which is news too, and else the next scan sees it.
    pub fn has_news(&self) -> bool {
        self.consumer.has_news() && !self.quarantined
    }

    /// Tells whoever looks that the ring is being watched.
    pub fn beat(&self, now_ns: u64) {
        self.consumer.area().beat(now_ns);
    }

    /// Reads what is there, within the budget and up to the time stamp `until_ns`, and feeds it with its instance and time stamp, until
    /// `feed` says that it is enough. Whether anything was there. `elapsed` has gone by since the last look.
    pub fn poll(
        &mut self,
        now_ns: u64,
        until_ns: u64,
        elapsed: Duration,
        health: &mut Health,
        mut feed: impl FnMut(&str, u64, Rows<'_>) -> bool,
    ) -> bool {
        if self.quarantined {
            return false;
        }
        let before = self.consumer.consumed();
        let (consumer, instance) = (&mut self.consumer, &self.instance);
        let start = Instant::now();
        let enough = Cell::new(false);
        let wanted = |ts_ns| !enough.get() && start.elapsed() < MOST_POLLING && believed(ts_ns, now_ns) < until_ns;
        let polled = consumer.poll(BUDGET, wanted, |batch| {
            enough.set(!feed(instance, batch.ts_ns, rows_of(&batch, instance)));
        });
        self.count(&before, &polled, elapsed);
        let after = self.consumer.consumed();
        health.records += after.records.saturating_sub(before.records);
        health.rows += after.rows.saturating_sub(before.rows);
        health.bytes = health.bytes.saturating_add(polled.bytes);
        if self.consumer.area().faulted() {
            self.abandon_resized(health);
        } else if let Some(why) = polled.corruption {
            self.give_up(why, now_ns, health);
        }
        polled.bytes > 0 || polled.corruption.is_some()
    }

    /// The time stamp of what will be read next, if something waits.
    pub fn waiting_from(&self, now_ns: u64) -> Option<u64> {
        if self.quarantined { None } else { self.consumer.next_ts_ns().map(|ts_ns| believed(ts_ns, now_ns)) }
    }

    /// Saturates: what an earlier sidecar is said to have missed may have been as much as there are numbers.
    fn miss(&mut self, records: u64) {
        self.pending.missing_records = self.pending.missing_records.saturating_add(records);
    }

    fn count(&mut self, before: &Consumed, polled: &Polled, elapsed: Duration) {
        self.miss(polled.missing);
        if polled.used > self.pending.high_water.0 {
            self.pending.high_water = (polled.used, self.capacity());
        }
        // What was left over from the last poll, or from before the first, says nothing of a rate.
        let tail = before.head.saturating_add(polled.used);
        let last = self.tail_at_last_poll.replace(tail).unwrap_or(tail);
        let rate = tail.saturating_sub(last) as f64 / elapsed.max(LEAST_ELAPSED).as_secs_f64();
        self.fastest = self.fastest.max(rate);
    }

    fn give_up(&mut self, why: Corruption, now_ns: u64, health: &mut Health) {
        self.consumer.resync();
        self.pending.resyncs += 1;
        health::count(&mut health.resyncs, why.reason(), 1);
        self.faults.push_back(now_ns);
        self.faults.retain(|at| now_ns.saturating_sub(*at) < FAULT_WINDOW_NS);
        self.quarantined = self.faults.len() >= MOST_FAULTS;
        self.consumer.area().mark_corrupt(self.quarantined);
        let ring = &self.found.path;
        if self.quarantined {
            health::count(&mut health.quarantined, why.reason(), 1);
            warn!(?ring, %why, "quarantined: corrupt {MOST_FAULTS} times within a minute; restart its producer to make a new ring");
        } else {
            warn!(?ring, %why, "corrupt: its content was given up, reading goes on at its tail");
        }
    }

    fn abandon_resized(&mut self, health: &mut Health) {
        self.pending.resyncs += 1;
        self.quarantined = true;
        self.consumer.area().mark_corrupt(true);
        health::count(&mut health.resyncs, "resized", 1);
        health::count(&mut health.quarantined, "resized", 1);
        warn!(ring = ?self.found.path, "quarantined: somebody changed its file's size; restart its producer to make a new ring");
    }

    /// What was lost since the last call, if anything.
    pub fn new_losses(&mut self, health: &mut Health) -> Option<Losses> {
        let now = self.consumer.area().counters();
        if self.quarantined {
            let abandoned = self.consumer.abandon_until(now.next_seq);
            self.miss(abandoned);
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
            add_losses(health, &losses);
        }
        any.then_some(losses)
    }

    /// Where the ring ends now: a stopping sidecar reads no further, or a busy producer would keep it for ever.
    pub fn end(&self) -> u64 {
        self.consumer.consumed().head + self.consumer.backlog()
    }

    /// Whether everything before `end` is read, or nothing is left to read: a corrupt ring may have moved its end.
    pub fn has_reached(&self, end: u64) -> bool {
        self.quarantined || self.consumer.consumed().head >= end || !self.consumer.has_news()
    }

    /// Once a scan: is the ring still the one of its name, is its producer there, may it go?
    pub fn look_around(&mut self, now_ns: u64, named: bool, keep_abandoned: Duration, health: &mut Health) {
        self.orphaned = !named;
        // The lock decides; where locks do not reach (some virtual file systems), a producer that writes is there all the same.
        let tail = self.consumer.area().position();
        self.attached = self.consumer.area().producer_attached() || tail != self.tail_at_last_look;
        self.tail_at_last_look = tail;
        if !self.quarantined && !self.consumer.area().has_its_size() {
            self.abandon_resized(health);
        }
        if self.attached {
            self.unattached_since_ns = None;
            return;
        }
        let since = *self.unattached_since_ns.get_or_insert(now_ns);
        if named && now_ns.saturating_sub(since) >= u64::try_from(keep_abandoned.as_nanos()).unwrap_or(u64::MAX) {
            match self.consumer.area().unlink_if_abandoned() {
                Ok(true) => {
                    info!(ring = ?self.found.path, "removed: read, and its producer has been gone for long")
                }
                Ok(false) => {}
                Err(why) if !self.irremovable => {
                    self.irremovable = true;
                    warn!(ring = ?self.found.path, %why, "cannot remove an abandoned ring: in a sticky directory only its owner may");
                }
                Err(_) => {}
            }
        }
    }

    /// Nothing will come any more.
    pub fn is_over(&self) -> bool {
        self.orphaned && !self.attached && (self.quarantined || self.consumer.backlog() == 0)
    }
}

/// Between what is accounted for and what was read. Saturates: both come from a page that a hostile producer can write to.
fn lost_in_a_crash(accounted: &Consumed, consumed: &Consumed) -> Losses {
    let crash_records = consumed.records.saturating_sub(accounted.records);
    let sequence_numbers = consumed.next_seq.saturating_sub(accounted.next_seq);
    Losses {
        crash_records,
        crash_rows: consumed.rows.saturating_sub(accounted.rows),
        // Gaps that the dead sidecar had seen, and nobody reports.
        missing_records: sequence_numbers.saturating_sub(crash_records),
        ..Losses::default()
    }
}

fn add_losses(health: &mut Health, losses: &Losses) {
    for (reason, name) in wire::DROP_REASON_NAMES.into_iter().enumerate() {
        health::count(&mut health.dropped_records, name, losses.dropped_records[reason]);
        health::count(&mut health.dropped_rows, name, losses.dropped_rows[reason]);
    }
    health.missing_records = health.missing_records.saturating_add(losses.missing_records);
    health.crash_records = health.crash_records.saturating_add(losses.crash_records);
    health.crash_rows = health.crash_rows.saturating_add(losses.crash_rows);
}

/// What the operator's settings say of a model besides its schema.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Kept apart.
    pub segments: usize,
    /// Of which columns.
    pub histograms: HistogramSettings,
}

/// What the ring calls a schema, the profile calls a spec. Takes the names along: there may be megabytes of them.
pub fn spec_of(schema: Schema, wanted: &Wanted) -> Spec {
    let embeddings =
        schema.embeddings().into_iter().map(|(name, columns)| Block { name: name.into(), columns }).collect();
    let segments = segmentation_of(&schema, wanted.segments);
    let histograms = histogrammed_of(&schema, &wanted.histograms);
    let feature = |(name, kind): (String, FeatureKind)| Feature { name, categorical: is_categorical(kind) };
    Spec {
        model: schema.model,
        version: schema.version,
        regression: schema.task == Task::Regression,
        threshold: schema.threshold,
        classes: schema.class_names,
        features: schema.feature_names.into_iter().zip(schema.feature_kinds).map(feature).collect(),
        embeddings,
        segments,
        histograms,
    }
}

/// Whether `spec_of` would make this spec of it.
pub fn has_spec(schema: &Schema, spec: &Spec, wanted: &Wanted) -> bool {
    let features = || schema.feature_names.iter().zip(schema.feature_kinds.iter().map(|kind| is_categorical(*kind)));
    schema.model == spec.model
        && schema.version == spec.version
        && (schema.task == Task::Regression) == spec.regression
        && schema.threshold == spec.threshold
        && schema.class_names == spec.classes
        && features().eq(spec.features.iter().map(|feature| (&feature.name, feature.categorical)))
        && (schema.embeddings().into_iter())
            .eq(spec.embeddings.iter().map(|block| (&*block.name, block.columns.clone())))
        && segmentation_of(schema, wanted.segments) == spec.segments
        && histogrammed_of(schema, &wanted.histograms) == spec.histograms
}

/// What its profile is made of.
pub fn size_of_schema(schema: &Schema, wanted: &Wanted) -> Size {
    let classes = schema.class_names.len();
    Size {
        classes: classes as u64,
        features: schema.feature_names.len() as u64,
        categorical: schema.feature_kinds.iter().filter(|kind| is_categorical(**kind)).count() as u64,
        embeddings: schema.embeddings().len() as u64,
        segments: Segmentation::size(segmentation_of(schema, wanted.segments)),
        histograms: Histogrammed::size(histogrammed_of(schema, &wanted.histograms).as_ref(), classes),
    }
}

fn histogrammed_of(schema: &Schema, settings: &HistogramSettings) -> Option<Histogrammed> {
    let categorical = schema.feature_kinds.iter().map(|kind| is_categorical(*kind));
    settings.of(schema.feature_names.iter().zip(categorical), !schema.class_names.is_empty())
}

fn segmentation_of(schema: &Schema, most: usize) -> Option<Segmentation> {
    let by = |by| match by {
        ring::SegmentBy::Feature(feature) => SegmentBy::Feature(feature),
        ring::SegmentBy::Row => SegmentBy::Row,
    };
    schema.segment_by.map(|segment_by| Segmentation { by: by(segment_by), most })
}

fn is_categorical(kind: FeatureKind) -> bool {
    kind == FeatureKind::Categorical
}

/// What the ring calls a batch, the profile calls rows; in place. `instance` wrote them.
pub fn rows_of<'a: 'b, 'b>(batch: &Batch<'a>, instance: &'b str) -> Rows<'b> {
    let labels = batch.labels.map(Labels::Classes);
    Rows {
        count: batch.rows,
        probabilities: batch.probabilities.map(columns_of),
        features: batch.features.map(columns_of),
        ids: batch.ids,
        segments: batch.segments,
        record: Some(Record { instance, sequence: batch.seq, ts_ns: batch.ts_ns, first_row: 0 }),
        labels: labels
            .or(batch.label_sets.map(|sets| Labels::Sets(sets.reborrow())))
            .or(batch.targets.map(|targets| Labels::Targets(targets.reborrow()))),
    }
}

/// Reborrowed, for a view's lifetime does not shrink by itself.
fn columns_of<'a: 'b, 'b>(matrix: Matrix<'a>) -> Columns<'b> {
    match matrix {
        Matrix::F16(view) => Columns::F16(view.reborrow()),
        Matrix::BF16(view) => Columns::BF16(view.reborrow()),
        Matrix::F32(view) => Columns::F32(view.reborrow()),
        Matrix::F64(view) => Columns::F64(view.reborrow()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::DType;

    fn schema(kinds: [FeatureKind; 3], segment_by: Option<ring::SegmentBy>) -> Schema {
        Schema {
            model: "m".into(),
            version: String::new(),
            instance: String::new(),
            task: Task::Classification,
            proba_dtype: DType::F32,
            feature_dtype: DType::F32,
            threshold: 0.5,
            period: None,
            reservoir_rows: None,
            class_names: ["a", "b"].map(String::from).to_vec(),
            feature_names: ["plan", "e_0", "e_1"].map(String::from).to_vec(),
            feature_kinds: kinds.to_vec(),
            segment_by,
        }
    }

    #[test]
    fn schemas_that_mean_the_same_are_one_model_and_others_are_not() {
        use FeatureKind::{Categorical, Embedding, Numerical};
        let kinds = [Categorical, Embedding, Embedding];
        let all = [
            schema(kinds, None),
            schema(kinds, Some(ring::SegmentBy::Row)),
            schema(kinds, Some(ring::SegmentBy::Feature(0))),
            schema([Categorical, Embedding, Numerical], None),
            schema([Numerical; 3], None),
        ];
        for (i, one) in all.iter().enumerate() {
            let histograms = HistogramSettings { features: vec!["e_*".into()], ..HistogramSettings::default() };
            let wanted = Wanted { segments: 32, histograms };
            let spec = spec_of(one.clone(), &wanted);
            let same: Vec<usize> = (0..all.len()).filter(|j| has_spec(&all[*j], &spec, &wanted)).collect();
            assert_eq!(same, [i]);
            assert_eq!(format!("{:?}", size_of_schema(one, &wanted)), format!("{:?}", spec.size()));
            let fewer = Wanted { segments: 31, ..wanted.clone() };
            assert_eq!(has_spec(one, &spec, &fewer), one.segment_by.is_none(), "another limit, another model");
            let none = Wanted { segments: 32, ..Wanted::default() };
            assert!(!has_spec(one, &spec, &none), "other columns with a histogram, another model");
        }
    }
}
