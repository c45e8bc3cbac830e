//! One model on its way: its open periods, those that are over, and their checkpoint.

use super::later::{Later, Revision};
use super::{Closed, Outlet};
use crate::checkpoint::{Checkpoint, Mark, ModelState, Saved, Store};
use crate::period::{Period, Periods, Timing, believed};
use crate::profile::{Frozen, Losses, Profile, Rows, Size, Spec};
use crate::reference::{Library, Reference};
use crate::report::{OrderedSample, Report, warn_of_unmatched};
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
    /// Its other versions have waited for its reports in vain, and do not until then.
    pub not_waited_for_until: Option<Instant>,
    /// [`Spec::columns_id`].
    pub columns: u32,
    /// Of one value of a sample.
    pub value_bytes: u64,
    /// What the names take.
    pub spec_bytes: u64,
    /// What one of its reports takes at most.
    pub report_bytes: u64,
    size: Size,
    /// For rows that wait, and their periods.
    waiting_bytes: u64,
    seed: u64,
    /// It was told that rows do not sum to 1: of a model with a sigmoid for each class they never do.
    is_known_unnormalised: bool,
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
    /// Labels that come later.
    later: Later,
    /// What an earlier sidecar left and was taken up, by number.
    taken: Option<u32>,
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
        let reference = self.reference_of(&profile);
        self.later.close(period, &mut profile, reference.as_ref());
        let receipt = self.checkpoint.close(out.store, period, &mut profile);
        self.uncommitted |= receipt.is_some();
        self.waiting += 1;
        out.closed.push(Closed {
            model: self.model,
            period,
            profile,
            reference,
            receipt,
            again: false,
            since: Instant::now(),
            has_versions: false,
        });
    }
}

impl Model {
    pub fn new(
        id: u64,
        spec: Spec,
        period: Duration,
        reservoir_rows: u64,
        waiting_bytes: u64,
        [started_ns, now_ns]: [u64; 2],
        checkpoint: Checkpoint,
    ) -> Model {
        let later = Later::new(&spec, waiting_bytes);
        Model {
            seed: spec.seed(),
            spec_bytes: spec.bytes(),
            report_bytes: Report::bytes_at_most(&spec),
            columns: spec.columns_id(),
            size: spec.size(),
            waiting_bytes,
            spec: Arc::new(spec),
            period,
            reservoir_rows,
            periods: Periods::new(period, started_ns, now_ns),
            superseded: false,
            not_waited_for_until: None,
            value_bytes: 4,
            is_known_unnormalised: false,
            changed: false,
            closing: Closing {
                model: id,
                checkpoint,
                later,
                taken: None,
                uncommitted: false,
                waiting: 0,
                spent: 0,
                next: None,
                compared: Vec::new(),
            },
        }
    }

    /// As a dead sidecar left it. What was closed and not delivered is handed over once more.
    pub fn revived(
        id: u64,
        saved: Saved,
        waiting_bytes: u64,
        started_ns: u64,
        library: &Library,
        out: &mut Outlet,
    ) -> Model {
        let Saved { model, mut open, closed, checkpoint } = saved;
        let times = [started_ns, started_ns];
        let (spec, rows) = (model.spec.into_owned(), model.reservoir_rows);
        let mut revived = Model::new(id, spec, model.period, rows, waiting_bytes, times, checkpoint);
        revived.compare_with(library);
        let next = revived.closing.next.clone();
        let frozen = next.as_deref().map(|compared| &compared.frozen);
        for (period, mut profile, receipt) in closed {
            profile.revive_against(frozen);
            revived.closing.waiting += 1;
            let reference = revived.closing.reference_of(&profile);
            let receipt = Some(receipt);
            let (since, again, has_versions) = (Instant::now(), true, false);
            out.closed.push(Closed { model: id, period, profile, reference, receipt, again, since, has_versions });
        }
        open.iter_mut().for_each(|(_, profile)| profile.revive_against(frozen));
        revived.periods.revive(open, model.closed_before_ns);
        revived.changed = true;
        revived
    }

    /// A dead sidecar had so many rows at stake, and they are gone.
    pub fn forget(&mut self, rows: u64) {
        self.closing.later.forget(rows);
    }

    /// What waits for labels, for the next sidecar.
    pub fn left(&self) -> Vec<u8> {
        self.closing.later.to_bytes()
    }

    /// Goes on with what an earlier sidecar [`left`](Self::left) under this number, before anything else. Whether that is what it is.
    pub fn take_up(&mut self, left: &[u8], number: u32) -> bool {
        let mut later = Later::new(&self.spec, self.waiting_bytes);
        let next = self.closing.next.as_deref().map(|next| (&next.reference, &next.frozen));
        let taken = later.take_up(left, &self.spec, next).is_some();
        if taken {
            self.closing.later = later;
            self.closing.taken = Some(number);
            self.changed = true;
        }
        taken
    }

    /// Periods that open from now on are counted in the bins of its reference in `library`, if there is one.
    pub fn compare_with(&mut self, library: &Library) {
        let reference = library.find(&self.spec.model, &self.spec.version);
        let now = self.closing.next.as_ref().map(|next| next.reference.id());
        if reference.map(|reference| reference.id()) != now {
            reference.into_iter().for_each(|reference| warn_of_unmatched(&self.spec, reference));
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

    /// What one of its reports takes at most while it is made.
    pub fn working_bytes(&self) -> u64 {
        let rows = Profile::working_bytes(self.reservoir_rows, self.value_bytes);
        rows.saturating_add(OrderedSample::bytes(self.size))
    }

    pub fn feed(&mut self, instance: &str, ts_ns: u64, rows: &Rows<'_>, now_ns: u64, out: &mut Outlet) {
        let open = self.opener();
        let closing = &mut self.closing;
        let believed_ns = believed(ts_ns, now_ns);
        let unjoined = rows.are_labels_only().then(|| closing.later.join(rows, believed_ns, &mut self.periods));
        let (start_ns, profile, timing) = self.periods.route(ts_ns, now_ns, open, |p, c| closing.take(out, p, c));
        match timing {
            Timing::InTime => {}
            Timing::Late => profile.losses.late_rows += rows.count as u64,
            Timing::Early => profile.losses.early_rows += rows.count as u64,
        }
        profile.name_instance(instance);
        match unjoined {
            Some(unjoined) => profile.add_unjoined(&unjoined),
            None => {
                let [nan, inf, out_of_range, not_normalised] = profile.predictions.invalid.kinds();
                let known = [nan, inf, out_of_range, not_normalised || self.is_known_unnormalised];
                profile.update(rows);
                let invalid = &profile.predictions.invalid;
                self.is_known_unnormalised |= invalid.not_normalised.rows > 0;
                if invalid.has_news(known) {
                    let (model, version) = (&self.spec.model, &self.spec.version);
                    warn!(
                        model,
                        version, instance, "its probabilities are not: the report of the period says which were first"
                    );
                }
                closing.later.wait(rows, &self.spec, start_ns, believed_ns);
            }
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
        closing.later.hurry();
    }

    /// Nothing is open, and nothing under way.
    pub fn is_idle(&self) -> bool {
        let closing = &self.closing;
        let under_way = closing.waiting > 0 || closing.checkpoint.has_undelivered() || closing.later.has_news();
        self.periods.is_empty() && !under_way
    }

    /// No more comes: what labels have changed is reported as soon as may be.
    pub fn hurry(&mut self) {
        self.closing.later.hurry();
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
            rows_at_stake: self.closing.later.at_stake(),
            taken: self.closing.taken,
            marks,
        };
        self.closing.checkpoint.commit(store, state, self.periods.open_mut(), now);
        (self.changed, self.closing.uncommitted) = (false, false);
    }

    /// How many rows wait for labels.
    pub fn waiting_rows(&self) -> u64 {
        self.closing.later.waiting_rows()
    }

    /// Rows without labels that no report will say of, should no period close any more.
    pub fn untold_rows(&self) -> u64 {
        self.closing.later.untold()
    }

    /// Whether there is a next revision.
    pub fn has_revision(&self) -> bool {
        self.closing.waiting == 0 && self.closing.later.is_due()
    }

    /// A closed period for which labels have come since, once its first report is on its way.
    pub fn next_revision(&mut self) -> Option<Revision> {
        if self.closing.waiting > 0 { None } else { self.closing.later.next_revision() }
    }

    /// Nothing of it is to be found by the next sidecar.
    pub fn retire(&self, store: &Store) {
        self.closing.checkpoint.retire(store);
        self.remove_taken(store);
    }

    /// What was taken up is elsewhere, or forgotten.
    pub fn remove_taken(&self, store: &Store) {
        self.closing.taken.into_iter().for_each(|number| store.remove_left(number));
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
    use crate::profile::{Feature, Labels, SegmentBy, Segmentation};
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    #[test]
    fn a_model_with_a_period_for_every_record_is_held_up_before_its_profiles_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let spec = Spec { features: vec![Feature { name: "f".into(), categorical: false }], ..Spec::default() };
        let (second, now) = (1_000_000_000, 1_700_000_000_000_000_000);
        let mut model = Model::new(0, spec, Duration::from_secs(1), 1, 0, [now; 2], store.new_checkpoint());
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

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_700_000_000 * SECOND;

    /// A row, and after how many others its label comes; never, at once, or after a wrong one.
    #[derive(Clone, Debug)]
    struct Asked {
        sure: f32,
        label: i32,
        after: Option<usize>,
        wrong_first: bool,
        segment: u16,
    }

    fn asked() -> impl Strategy<Value = Asked> {
        let sure = prop_oneof![9 => 0.0..1.0f32, 1 => Just(f32::NAN)];
        let after = prop_oneof![1 => Just(None), 4 => (0..40usize).prop_map(Some)];
        (sure, 0..2i32, after, any::<bool>(), 0..4u16).prop_map(|(sure, label, after, wrong_first, segment)| Asked {
            sure,
            label,
            after,
            wrong_first,
            segment,
        })
    }

    fn spec() -> Spec {
        let classes = ["no", "yes"].map(String::from).to_vec();
        let segments = Some(Segmentation { by: SegmentBy::Row, most: 2 });
        Spec { model: "m".into(), threshold: 0.5, classes, segments, ..Spec::default() }
    }

    fn with_row<T>(asked: &Asked, label: Option<i32>, id: u64, then: impl FnOnce(&Rows<'_>) -> T) -> T {
        let values = [1.0 - asked.sure, asked.sure];
        let probabilities = Some(Columns::F32(ArrayView2::from_shape((1, 2), &values).unwrap()));
        let (ids, segments, label) = ([id], [asked.segment], label.map(|label| [label]));
        let labels = label.as_ref().map(|label| Labels::Classes(label));
        then(&Rows {
            count: 1,
            probabilities,
            features: None,
            labels,
            ids: Some(&ids),
            segments: Some(&segments),
            ..Rows::default()
        })
    }

    /// A sidecar's model, and the last report of each period, by its start.
    struct Life {
        model: Model,
        store: Store,
        closed: Vec<Closed>,
        reports: BTreeMap<u64, Report>,
        forgotten: u64,
        unjoined: u64,
        waiting_bytes: u64,
        _dir: tempfile::TempDir,
    }

    impl Life {
        fn new(waiting_bytes: u64) -> Life {
            let dir = tempfile::tempdir().unwrap();
            let (mut store, _) = Store::open(dir.path()).unwrap();
            let checkpoint = store.new_checkpoint();
            let model = Model::new(0, spec(), Duration::from_secs(1), 4, waiting_bytes, [0, NOW], checkpoint);
            let (closed, reports) = (Vec::new(), BTreeMap::new());
            Life { model, store, closed, reports, forgotten: 0, unjoined: 0, waiting_bytes, _dir: dir }
        }

        /// Another sidecar goes on after an orderly stop.
        fn restart(&mut self) {
            self.stop();
            let left = self.model.left();
            assert!(self.take_up(&left));
        }

        fn take_up(&mut self, left: &[u8]) -> bool {
            let checkpoint = self.store.new_checkpoint();
            let period = Duration::from_secs(1);
            self.model = Model::new(0, spec(), period, 4, self.waiting_bytes, [0, NOW], checkpoint);
            self.model.take_up(left, 0)
        }

        fn feed(&mut self, rows: &Rows<'_>, now_ns: u64) {
            let mut out = Outlet { closed: &mut self.closed, store: &self.store };
            self.model.close_due(now_ns, None, false, &mut out);
            self.model.feed("i", now_ns, rows, now_ns, &mut out);
            self.report();
        }

        fn stop(&mut self) {
            self.model.close_all(&mut Outlet { closed: &mut self.closed, store: &self.store });
            self.report();
        }

        fn report(&mut self) {
            for Closed { period, profile, .. } in self.closed.drain(..) {
                self.model.handed_over(1);
                let report = Report::of(period, &profile, [""; 5]);
                self.forgotten += report.labels.forgotten_rows;
                self.unjoined += report.labels.unjoined_rows;
                assert!(self.reports.insert(period.start_ns, report).is_none());
            }
            while let Some(Revision { period, remainder, number, .. }) = self.model.next_revision() {
                let report = Report::revised(period, &remainder, number, [""; 5]);
                let before = self.reports.insert(period.start_ns, report).unwrap();
                assert_eq!(before.revision + 1, number);
            }
        }

        /// One row every tenth of a second, and the labels that are due. A restart between any two periods, if there are any.
        fn live(&mut self, asked: &[Asked], restarts: bool) {
            for turn in 0..asked.len() + 41 {
                let now_ns = NOW + turn as u64 * SECOND / 10;
                if restarts && turn % 10 == 0 {
                    self.restart();
                }
                if let Some(asked) = asked.get(turn) {
                    with_row(asked, None, turn as u64, |rows| self.feed(rows, now_ns));
                }
                for (id, asked) in
                    asked.iter().enumerate().filter(|(id, asked)| asked.after.is_some_and(|after| id + after == turn))
                {
                    let wrong: &[i32] = if asked.wrong_first { &[-1, 7] } else { &[] };
                    for label in wrong.iter().chain([&asked.label]) {
                        let (ids, labels) = ([id as u64], [*label]);
                        let labels = Some(Labels::Classes(&labels));
                        self.feed(&Rows { count: 1, labels, ids: Some(&ids), ..Rows::default() }, now_ns);
                    }
                }
            }
            self.stop();
        }
    }

    /// What a report says of labels, without what only later labels have.
    fn told(report: &Report) -> Value {
        let mut all = serde_json::to_value(report).unwrap();
        let labels = all["labels"].as_object_mut().unwrap();
        labels
            .retain(|field, _| !["unjoined_rows", "unjoined", "waiting_rows", "delay", "invalid"].contains(&&**field));
        // Sums are taken in another order.
        let scores = all["scores"].as_object_mut().unwrap();
        scores.retain(|field, _| !["log_loss", "brier", "calibration"].contains(&&**field));
        for class in scores["classes"].as_array_mut().unwrap() {
            class.as_object_mut().unwrap().retain(|field, _| !["mean_probability", "bias"].contains(&&**field));
        }
        json!([all["rows"], all["labels"], all["scores"], all["segments"]])
    }

    fn near(a: Option<f64>, b: Option<f64>) -> bool {
        a.zip(b).map_or(a == b, |(a, b)| (a - b).abs() <= 1e-9)
    }

    const SURE: Asked = Asked { sure: 0.9, label: 1, after: None, wrong_first: false, segment: 1 };

    fn label_for(life: &mut Life, id: u64, now_ns: u64) {
        let labels = Some(Labels::Classes(&[1]));
        life.feed(&Rows { count: 1, labels, ids: Some(&[id]), ..Rows::default() }, now_ns);
    }

    #[test]
    fn a_label_of_what_an_earlier_sidecar_reported_is_none_of_the_rest_of_the_period() {
        let mut life = Life::new(64 << 20);
        with_row(&SURE, None, 1, |rows| life.feed(rows, NOW));
        life.restart();
        let first = life.reports.remove(&NOW).unwrap();
        assert_eq!((first.rows, first.labels.waiting_rows), (1, 1));
        (2..=3).for_each(|id| with_row(&SURE, None, id, |rows| life.feed(rows, NOW)));
        life.restart();
        let second = life.reports.remove(&NOW).unwrap();
        assert_eq!((second.rows, second.labels.waiting_rows), (2, 2));
        (4..=6).for_each(|id| with_row(&SURE, None, id, |rows| life.feed(rows, NOW)));
        label_for(&mut life, 1, NOW);
        life.model.close_all(&mut Outlet { closed: &mut life.closed, store: &life.store });
        let third = life.closed.pop().unwrap().profile;
        assert_eq!((third.rows, third.later.delay.n, third.later.waiting_rows), (3, 0, 3));
        life.model.handed_over(1);
        let again = life.model.next_revision().unwrap();
        assert_eq!((again.period.start_ns, again.number, again.remainder.rows), (NOW, 1, 1));
        assert_eq!((again.remainder.later.delay.n, again.remainder.later.waiting_rows), (1, 0));
        assert!(life.model.next_revision().is_none());
        assert_eq!(life.model.waiting_rows(), 5);
    }

    #[test]
    fn a_label_of_a_period_before_the_clock_was_set_back_is_none_of_the_one_that_starts_then_again() {
        let mut life = Life::new(64 << 20);
        with_row(&SURE, None, 1, |rows| life.feed(rows, NOW));
        with_row(&SURE, None, 2, |rows| life.feed(rows, NOW + 30 * SECOND));
        life.stop();
        life.reports.clear();
        (3..=4).for_each(|id| with_row(&SURE, None, id, |rows| life.feed(rows, NOW)));
        label_for(&mut life, 1, NOW);
        label_for(&mut life, 3, NOW);
        life.model.close_all(&mut Outlet { closed: &mut life.closed, store: &life.store });
        let second = life.closed.pop().unwrap().profile;
        assert_eq!((second.rows, second.later.delay.n, second.later.waiting_rows), (2, 1, 1));
        life.model.handed_over(1);
        let first = life.model.next_revision().unwrap();
        assert_eq!((first.period.start_ns, first.remainder.rows, first.remainder.later.delay.n), (NOW, 1, 1));
        assert!(life.model.next_revision().is_none());
    }

    #[test]
    fn rows_that_are_given_up_are_not_asked_for_by_a_period_that_starts_when_theirs_did() {
        let mut life = Life::new(300_000);
        for id in 0..40 {
            with_row(&SURE, None, id, |rows| life.feed(rows, NOW + id * SECOND));
        }
        life.stop();
        let given_up = life.forgotten;
        assert!(given_up > 0 && life.model.waiting_rows() + given_up == 40);
        life.reports.clear();
        with_row(&SURE, None, 99, |rows| life.feed(rows, NOW));
        label_for(&mut life, 0, NOW);
        life.stop();
        let again = &life.reports[&NOW];
        assert_eq!((again.rows, again.labels.delay.n, again.labels.unjoined_rows), (1, 0, 1));
        assert_eq!(again.labels.waiting_rows, 1);
    }

    #[test]
    fn what_a_sidecar_left_may_be_any_bytes() {
        let mut life = Life::new(1 << 20);
        (1..=2).for_each(|id| with_row(&SURE, None, id, |rows| life.feed(rows, NOW)));
        life.stop();
        let left = life.model.left();
        let places = || (left.len() - 150..left.len()).chain((0..left.len()).step_by(53));
        for at in places() {
            assert!(!life.take_up(&left[..at]), "cut at {at}");
            let mut flipped = left.clone();
            flipped[at] ^= 1 << (at % 8);
            life.take_up(&flipped);
            assert!(life.model.waiting_rows() <= 2);
        }
        assert!(life.take_up(&left));
        assert_eq!(life.model.waiting_rows(), 2);
    }

    #[test]
    fn what_a_sidecar_left_takes_no_more_room_than_there_is_now() {
        let mut life = Life::new(64 << 20);
        for id in 0..40 {
            with_row(&SURE, None, id, |rows| life.feed(rows, NOW + id * SECOND));
        }
        life.stop();
        let left = life.model.left();
        for bytes in [0, 300_000] {
            life.waiting_bytes = bytes;
            assert!(life.take_up(&left));
            let kept = life.model.waiting_rows();
            assert!(kept < 40 && (kept > 0) == (bytes > 0), "{kept} of {bytes} bytes");
            life.reports.clear();
            with_row(&SURE, Some(1), 99, |rows| life.feed(rows, NOW + 50 * SECOND));
            life.forgotten = 0;
            life.stop();
            assert_eq!(life.forgotten + kept, 40);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn labels_that_come_later_say_in_the_end_what_they_would_have_said_at_once(
            asked in prop::collection::vec(asked(), 1..60), restarts in any::<bool>(),
        ) {
            let mut life = Life::new(64 << 20);
            life.live(&asked, restarts);
            let mut at_once: BTreeMap<u64, Profile> = BTreeMap::new();
            for (id, asked) in asked.iter().enumerate() {
                let start_ns = NOW + id as u64 / 10 * SECOND;
                let profile = at_once.entry(start_ns).or_insert_with(|| Profile::new(Arc::new(spec()), 4, 1));
                let label = asked.after.map_or(-1, |_| asked.label);
                with_row(asked, Some(label), id as u64, |rows| profile.update(rows));
            }
            for (start_ns, profile) in at_once {
                let period = Period { start_ns, end_ns: start_ns + SECOND, partial: false };
                let (got, want) = (&life.reports[&start_ns], Report::of(period, &profile, [""; 5]));
                prop_assert_eq!(told(got), told(&want));
                let (scores, wanted) = (got.scores.as_ref().unwrap(), want.scores.as_ref().unwrap());
                prop_assert!(near(scores.log_loss, wanted.log_loss) && near(scores.brier, wanted.brier));
                prop_assert_eq!(got.labels.delay.n, got.labels.rows);
            }
        }

        #[test]
        fn with_little_memory_every_row_is_labelled_or_forgotten_or_waits(
            asked in prop::collection::vec(asked(), 1..60), kilobytes in prop_oneof![0..200u64, 640..1100u64], restarts in any::<bool>(),
        ) {
            let mut life = Life::new(kilobytes << 10);
            life.live(&asked, restarts);
            let of = |field: fn(&Report) -> u64| life.reports.values().map(field).sum::<u64>();
            let labelled = of(|report| report.labels.delay.n);
            let rows = if kilobytes == 0 { 0 } else { asked.len() as u64 };
            prop_assert_eq!(labelled + life.forgotten + life.model.waiting_rows(), rows);
            let wrong = |asked: &&Asked| asked.after.is_some() && asked.wrong_first;
            let labels = asked.iter().filter(|asked| asked.after.is_some()).count() + 2 * asked.iter().filter(wrong).count();
            prop_assert_eq!(labelled + life.unjoined + of(|report| report.labels.invalid), labels as u64);
            prop_assert_eq!(of(|report| report.rows), asked.len() as u64);
        }
    }
}
