//! What a SIGKILL of the sidecar leaves to the next one.
//!
//! Once a second every model that has changed is *committed*: how far each of its rings has been read, and the profiles of its open
//! periods. A profile's sample is far larger than the rest, and little of it changes once it is full, so its rows go into a log to
//! which each commit appends those that changed. The rest is written whole, to two files in turn, each with its own checksum: a torn
//! write leaves the other one, which is a second older. The tail's thread only copies; another one writes.
//!
//! A period that closes is committed once more, then reported, and stays until every sink has delivered its report, when its log is
//! removed: a closed period without a log is not reported again. After an orderly stop nothing is left of a model.
//!
//! ```text
//! <id>.state.0  <id>.state.1   one model: magic, checksum, what `State` holds, then the profiles
//! <id>.<n>.rows                the sample of one of its periods
//! <n>.waiting.head  .rows      of one model: rows that wait for labels, after an orderly stop, until its next sidecar has committed them
//! alerts                       which rules have held of late, of all models; it stays after an orderly stop
//! ```

mod disk;
mod left;
mod rows;
mod whole;

pub use disk::{Store, Work, WorkDone};
pub use left::LeftRows;
pub use whole::WholeFile;

use crate::period::Period;
use crate::profile::{Profile, Spec};
use crate::ring::{Consumed, Counters};
use crossbeam::channel::{Receiver, Sender, bounded};
use disk::{Append, Commit, Job};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

/// Between two commits of a model, unless they are so large that this would cost more than [`SHARE`].
const EVERY: Duration = Duration::from_secs(1);
/// A commit may cost the tail's thread this part of its time: 1 %.
const SHARE: u32 = 100;
/// As much of a sample waits for the next commit at most, or that one would hold the tail up for too long.
const MOST_PENDING: usize = 4 << 20;
/// After a failed write.
const RETRY: Duration = Duration::from_secs(60);

/// Which ring: its uuid, and the device and inode of its file, for a copy of the file has the same uuid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the type says it")]
pub struct RingId {
    pub uuid: [u8; 16],
    pub file: (u64, u64),
}

/// How far a ring had been read, and its producer's drop counters as far as they stood in a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the type says it")]
pub struct Mark {
    pub ring: RingId,
    pub consumed: Consumed,
    pub dropped: Counters,
}

impl Mark {
    /// Grows with whatever happens to a ring: of two marks the one with more is newer.
    pub fn progress(&self) -> (u64, u64, u64) {
        let dropped = self.dropped.dropped_records.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        (self.consumed.records, self.consumed.next_seq, dropped)
    }
}

/// What a commit says of a model besides its profiles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the pipeline")]
pub struct ModelState<'a> {
    pub spec: Cow<'a, Spec>,
    pub period: Duration,
    pub reservoir_rows: u64,
    pub closed_before_ns: Option<u64>,
    /// Not to be found here: those that wait for labels, whose labels are still to be reported, or of which it is still to be said that
    /// they are forgotten.
    pub rows_at_stake: u64,
    /// The file of rows that an earlier sidecar left and that are among those at stake since: nobody is to take them up once more.
    pub taken: Option<u32>,
    pub marks: Vec<Mark>,
}

/// The head of a state file; the profiles follow it, in the order of `periods`.
#[derive(Debug, Serialize, Deserialize)]
struct State<'a> {
    commit: u64,
    model: ModelState<'a>,
    periods: Vec<PeriodState>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PeriodState {
    start_ns: u64,
    /// Handed over, and perhaps not yet delivered.
    closed: Option<Period>,
    log: u64,
    log_bytes: u64,
    profile_bytes: u64,
}

/// A model that a dead sidecar left.
#[derive(Debug)]
pub struct Saved {
    /// What is known besides the profiles.
    pub model: ModelState<'static>,
    /// Start and profile of the periods that were open.
    pub open: Vec<(u64, Profile)>,
    /// Periods that were closed and whose reports are not delivered.
    pub closed: Vec<(Period, Profile, Receipt)>,
    /// To go on with.
    pub checkpoint: Checkpoint,
}

/// Goes along with a closed period. Once it is dropped, the period's report is delivered and will not be made again.
#[derive(Debug)]
pub struct Receipt {
    log: PathBuf,
    delivered: Arc<AtomicBool>,
    /// Says nothing, and hangs up when the commit of the closed period is written, or has failed.
    committed: Receiver<()>,
}

impl Receipt {
    /// Waits until a crash could no longer make the period's rows count as lost.
    pub fn wait_until_committed(&self) {
        let _ = self.committed.recv();
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // Before the file goes: pairs with the writer's load after it has written, so that one of the two removes it.
        self.delivered.store(true, Release);
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The log of one period.
#[derive(Debug)]
struct Log {
    number: u64,
    /// With everything that has been handed to the writer.
    bytes: u64,
    delivered: Arc<AtomicBool>,
}

/// A closed period that some sink may not have delivered yet.
#[derive(Debug)]
struct Closed {
    period: PeriodState,
    log: Log,
    profile: Vec<u8>,
    /// Rows that no commit has yet.
    pending: Vec<u8>,
    /// The other end of the receipt's line, until a commit takes it along.
    line: Option<Sender<()>>,
}

/// The checkpoint of one model.
#[derive(Debug)]
pub struct Checkpoint {
    id: u32,
    commits: u64,
    next_log: u64,
    open: Vec<(u64, Log)>,
    closed: Vec<Closed>,
    due: Option<Instant>,
    /// Set by the writer, which has then removed what it had of this model.
    failed: Arc<AtomicBool>,
    /// For the next try after a failure.
    waiting: bool,
}

impl Checkpoint {
    fn new(id: u32) -> Checkpoint {
        Checkpoint {
            id,
            commits: 0,
            next_log: 0,
            open: Vec::new(),
            closed: Vec::new(),
            due: None,
            failed: Arc::default(),
            waiting: false,
        }
    }

    /// Whether it is time, or too much has come together.
    pub fn is_due<'a>(&mut self, now: Instant, mut open: impl Iterator<Item = &'a Profile>) -> bool {
        self.notice_failure(now);
        let pending = |profile: &Profile| profile.sample.changes() * profile.sample.row_bytes();
        self.due.is_none_or(|due| now >= due) || (!self.waiting && open.any(|profile| pending(profile) > MOST_PENDING))
    }

    fn notice_failure(&mut self, now: Instant) {
        if self.has_failed() && !self.waiting {
            self.waiting = true;
            self.due = Some(now + RETRY);
        }
    }

    /// Nothing of it is on disk, because a write has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    /// A new start after a failure would say that what is under way was read, and not have it: that must be delivered first. Meanwhile
    /// nothing is written, and no report waits for a commit.
    fn must_wait(&mut self, now: Instant) -> bool {
        self.notice_failure(now);
        let must = self.has_failed() && (self.due.is_some_and(|due| now < due) || self.has_undelivered());
        if must {
            for closed in &mut self.closed {
                (closed.line, closed.profile, closed.pending) = (None, Vec::new(), Vec::new());
            }
        }
        must
    }

    /// Whether some closed period's report may still be under way.
    pub fn has_undelivered(&self) -> bool {
        self.closed.iter().any(|closed| !closed.log.delivered.load(Acquire))
    }

    /// A period's last rows and its final state. The receipt belongs to whoever delivers its report; nothing is owed for a period
    /// in which nothing happened.
    pub fn close(&mut self, store: &Store, period: Period, profile: &mut Profile) -> Option<Receipt> {
        let log = match self.open.iter().position(|(open, _)| *open == period.start_ns) {
            Some(at) => self.open.remove(at).1,
            None if profile.is_untouched() => return None,
            None => self.new_log(),
        };
        let (line, committed) = bounded(0);
        let receipt = store.receipt(self.id, log.number, log.delivered.clone(), committed);
        let pending = changed_rows(profile);
        let bytes = encode(profile);
        let state = PeriodState {
            start_ns: period.start_ns,
            closed: Some(period),
            log: log.number,
            log_bytes: log.bytes + pending.len() as u64,
            profile_bytes: bytes.len() as u64,
        };
        self.closed.push(Closed { period: state, log, profile: bytes, pending, line: Some(line) });
        Some(receipt)
    }

    /// Hands everything to the writer; call only if the store has room.
    pub fn commit<'a>(
        &mut self,
        store: &Store,
        model: ModelState<'_>,
        open: impl Iterator<Item = (u64, &'a mut Profile)>,
        now: Instant,
    ) {
        if self.must_wait(now) {
            return;
        }
        let start = thread_time();
        let taken = model.taken.map(|number| store.left_files(number, 0));
        let anew = self.has_failed();
        if anew {
            // Commits that are still queued know the old flag, and are not written.
            self.failed = Arc::default();
            self.waiting = false;
            self.open.clear();
            self.closed.clear();
        }
        self.closed.retain(|closed| !closed.log.delivered.load(Acquire));
        let (mut periods, mut appends, mut profiles) = (Vec::new(), Vec::new(), Vec::new());
        let lines = self.closed.iter_mut().filter_map(|closed| closed.line.take()).collect();
        for closed in &mut self.closed {
            let rows = std::mem::take(&mut closed.pending);
            appends.push(closed.log.append(rows));
            periods.push(closed.period);
            profiles.extend_from_slice(&closed.profile);
        }
        for (start_ns, profile) in open {
            if anew {
                profile.sample.touch_all_slots();
            }
            let append = self.log_of(start_ns).append(changed_rows(profile));
            let (log, log_bytes) = (append.log, append.at + append.rows.len() as u64);
            let bytes = encode(profile);
            periods.push(PeriodState { start_ns, closed: None, log, log_bytes, profile_bytes: bytes.len() as u64 });
            profiles.extend_from_slice(&bytes);
            appends.push(append);
        }
        self.commits = self.commits.wrapping_add(1);
        let state = State { commit: self.commits, model, periods };
        let mut state = postcard::to_stdvec(&state).expect("plain data");
        let head_bytes = state.len();
        state.extend_from_slice(&profiles);
        let turn = self.commits % 2;
        let failed = self.failed.clone();
        store.send(Job::Commit(Commit { id: self.id, turn, anew, appends, state, head_bytes, taken, failed, lines }));
        let cost = thread_time().saturating_sub(start);
        store.work.add_tail_time(cost);
        self.due = Some(now + EVERY.max(cost * SHARE));
    }

    /// Nothing is left of the model.
    pub fn retire(&self, store: &Store) {
        store.send(Job::Retire(self.id));
    }

    fn log_of(&mut self, start_ns: u64) -> &mut Log {
        let at = self.open.iter().position(|(open, _)| *open == start_ns);
        let at = at.unwrap_or_else(|| {
            let log = self.new_log();
            self.open.push((start_ns, log));
            self.open.len() - 1
        });
        &mut self.open[at].1
    }

    fn new_log(&mut self) -> Log {
        self.next_log = self.next_log.wrapping_add(1);
        Log { number: self.next_log, bytes: 0, delivered: Arc::default() }
    }
}

impl Log {
    fn append(&mut self, rows: Vec<u8>) -> Append {
        let at = self.bytes;
        self.bytes += rows.len() as u64;
        Append { log: self.number, at, rows, delivered: self.delivered.clone() }
    }
}

fn changed_rows(profile: &mut Profile) -> Vec<u8> {
    let slots = profile.sample.take_changed_slots();
    if slots.is_empty() { Vec::new() } else { rows::chunk(profile, &slots) }
}

fn encode(profile: &Profile) -> Vec<u8> {
    postcard::to_stdvec(profile).expect("plain data")
}

/// What this thread has used of its processor.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::period::Period;
    use crate::profile::{Feature, Histogrammed, Labels, Record, Rows};
    use crate::report::Report;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::fs;
    use std::path::Path;

    const PERIOD: Period = Period { start_ns: 1000, end_ns: 2000, partial: false };

    fn spec() -> Spec {
        Spec {
            model: "m".into(),
            threshold: 0.5,
            classes: ["a", "b"].map(String::from).to_vec(),
            features: vec![Feature { name: "f".into(), categorical: true }],
            histograms: Some(Histogrammed { scale: 4, features: Vec::from_iter(Some(0..1)), predictions: true }),
            ..Spec::default()
        }
    }

    fn profile() -> Profile {
        Profile::new(Arc::new(spec()), 8, 1)
    }

    fn model(rows_read: u64) -> ModelState<'static> {
        let consumed = Consumed { rows: rows_read, ..Consumed::default() };
        ModelState {
            spec: Cow::Owned(spec()),
            period: Duration::from_nanos(1000),
            reservoir_rows: 8,
            closed_before_ns: Some(1000),
            rows_at_stake: 3,
            taken: None,
            marks: vec![Mark { ring: RingId { uuid: [7; 16], file: (1, 2) }, consumed, dropped: Counters::default() }],
        }
    }

    fn feed(profile: &mut Profile, rows: std::ops::Range<usize>) {
        for i in rows {
            let p = if i == 70 || i == 170 { f32::NAN } else { (i % 10) as f32 / 10.0 };
            let (proba, feature) = ([1.0 - p, p], [i as f64]);
            let probabilities = Some(Columns::F32(ArrayView2::from_shape((1, 2), &proba).unwrap()));
            let features = Some(Columns::F64(ArrayView2::from_shape((1, 1), &feature).unwrap()));
            let (labels, ids) = ([(i % 3 == 0) as i32], [i as u64]);
            let labels = Some(Labels::Classes(&labels));
            let record = Some(Record { instance: "i", sequence: i as u64, ts_ns: 1000, first_row: 0 });
            let ids = Some(&ids[..]);
            profile.update(&Rows { count: 1, probabilities, features, labels, ids, record, ..Rows::default() });
        }
    }

    fn text(profile: &Profile) -> String {
        serde_json::to_string(&Report::of(PERIOD, profile, [""; 5])).unwrap()
    }

    /// A sidecar that commits `profile` after every 30 rows, up to `rows`, and is gone.
    fn live(dir: &Path, profile: &mut Profile, rows: usize) {
        let (mut store, _) = Store::open(dir).unwrap();
        let mut checkpoint = store.new_checkpoint();
        for start in (0..rows).step_by(30) {
            feed(profile, start..rows.min(start + 30));
            checkpoint.commit(&store, model(profile.rows), [(1000, &mut *profile)].into_iter(), Instant::now());
        }
        store.finish();
    }

    fn reopened(dir: &Path) -> Vec<Saved> {
        Store::open(dir).unwrap().1
    }

    #[test]
    fn a_dead_sidecars_period_goes_on_as_if_nothing_had_happened() {
        let (dir, mut whole, mut first) = (tempfile::tempdir().unwrap(), profile(), profile());
        feed(&mut whole, 0..300);
        live(dir.path(), &mut first, 120);
        let mut saved = reopened(dir.path());
        assert_eq!(saved.len(), 1);
        assert_eq!(saved[0].model, model(120));
        let (start_ns, mut second) = saved[0].open.pop().unwrap();
        assert_eq!((start_ns, text(&second)), (1000, text(&first)));
        feed(&mut second, 120..300);
        assert_eq!(text(&second), text(&whole), "the same sample, the same sums");
        assert_eq!(second.predictions.invalid.nan.first.as_ref().map(|first| first.sequence), Some(70));
    }

    #[test]
    fn a_continued_checkpoint_can_be_continued_again() {
        let (dir, mut whole, mut first) = (tempfile::tempdir().unwrap(), profile(), profile());
        feed(&mut whole, 0..90);
        live(dir.path(), &mut first, 60);
        let (store, mut saved) = Store::open(dir.path()).unwrap();
        let Saved { mut open, mut checkpoint, .. } = saved.pop().unwrap();
        feed(&mut open[0].1, 60..90);
        checkpoint.commit(&store, model(90), open.iter_mut().map(|(start, p)| (*start, p)), Instant::now());
        store.finish();
        let saved = reopened(dir.path());
        assert_eq!((text(&saved[0].open[0].1), saved[0].model.marks[0].consumed.rows), (text(&whole), 90));
    }

    #[test]
    fn a_torn_write_costs_one_commit_and_never_more_than_the_checkpoint() {
        let (dir, mut p) = (tempfile::tempdir().unwrap(), profile());
        live(dir.path(), &mut p, 90); // commits 1, 2, 3; the last in state.1
        let newest = dir.path().join("0.state.1");
        let whole = fs::read(&newest).unwrap();
        let rows_after = |damaged: &[u8]| {
            fs::write(&newest, damaged).unwrap();
            fs::write(dir.path().join("0.state.0"), fs::read(dir.path().join("older")).unwrap()).unwrap();
            fs::copy(dir.path().join("rows"), dir.path().join("0.1.rows")).unwrap();
            reopened(dir.path()).iter().map(|saved| saved.open[0].1.rows).collect::<Vec<_>>()
        };
        fs::copy(dir.path().join("0.state.0"), dir.path().join("older")).unwrap();
        fs::copy(dir.path().join("0.1.rows"), dir.path().join("rows")).unwrap();
        assert_eq!(rows_after(&whole), [90]);
        for at in (0..40).chain((40..whole.len()).step_by(29)) {
            assert_eq!(rows_after(&whole[..at]), [60], "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert_eq!(rows_after(&flipped), [60], "flipped at {at}");
        }
        let log = fs::read(dir.path().join("rows")).unwrap();
        let last_chunk = log.len() - log.windows(4).rev().position(|w| w == b"MLWS").unwrap() - 4;
        for at in (0..log.len()).step_by(11) {
            let mut damaged = log.clone();
            damaged[at] ^= 0x80;
            let left: &[u64] = if at < last_chunk { &[] } else { &[60] };
            for damaged in [&damaged, &log[..at]] {
                fs::write(dir.path().join("rows"), damaged).unwrap();
                assert_eq!(rows_after(&whole), left, "log damaged at {at}");
            }
        }
    }

    #[test]
    fn what_fits_no_profile_is_refused_however_sound_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let other = Spec { classes: vec!["only".into()], ..spec() };
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let mut checkpoint = store.new_checkpoint();
        let mut p = Profile::new(Arc::new(other), 8, 1);
        p.records = 1;
        checkpoint.commit(&store, model(1), [(1000, &mut p)].into_iter(), Instant::now());
        store.finish();
        assert!(reopened(dir.path()).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "only the lock is left");
    }

    /// What is left of a checkpoint whose first commit is sound, and whose second has these periods open; and why, if nothing is.
    fn left_of(sound: usize, starts_ns: &[u64]) -> (usize, Vec<(&'static str, u64)>) {
        let (dir, mut p) = (tempfile::tempdir().unwrap(), profile());
        if sound > 0 {
            live(dir.path(), &mut p, sound);
        }
        let (mut store, saved) = Store::open(dir.path()).unwrap();
        let mut checkpoint = saved.into_iter().next().map_or_else(|| store.new_checkpoint(), |saved| saved.checkpoint);
        let mut open: Vec<(u64, Profile)> = starts_ns.iter().map(|start_ns| (*start_ns, profile())).collect();
        open.iter_mut().for_each(|(_, p)| feed(p, 0..50));
        checkpoint.commit(&store, model(50), open.iter_mut().map(|(start, p)| (*start, p)), Instant::now());
        store.finish();
        let (store, saved) = Store::open(dir.path()).unwrap();
        assert_eq!(
            saved.is_empty(),
            fs::read_dir(dir.path()).unwrap().count() == 1,
            "only the lock is left of nothing"
        );
        let rows = saved.iter().flat_map(|saved| &saved.open).map(|(_, profile)| profile.rows as usize).sum();
        (rows, store.damaged().iter().map(|(reason, count)| (*reason, *count)).collect())
    }

    #[test]
    fn periods_that_cannot_have_been_open_are_damage_however_sound_the_checksum() {
        assert_eq!(left_of(0, &[1000, 2000]), (100, vec![]));
        for starts_ns in [&[1000, 2000, 3000][..], &[2000, 1000], &[1000, 1000], &[1500], &[0], &[u64::MAX - 615]] {
            assert_eq!(left_of(0, starts_ns), (0, vec![("periods", 1)]), "{starts_ns:?}");
            assert_eq!(left_of(30, starts_ns), (30, vec![]), "the commit before is whole, {starts_ns:?}");
        }
    }

    #[test]
    fn a_period_that_is_over_before_it_begins_is_damage() {
        for period in [Period { end_ns: 1000, ..PERIOD }, Period { end_ns: 0, ..PERIOD }] {
            let (dir, mut p) = (tempfile::tempdir().unwrap(), profile());
            let (mut store, _) = Store::open(dir.path()).unwrap();
            let mut checkpoint = store.new_checkpoint();
            feed(&mut p, 0..50);
            std::mem::forget(checkpoint.close(&store, period, &mut p)); // killed before it was delivered
            checkpoint.commit(&store, model(50), std::iter::empty(), Instant::now());
            store.finish();
            let (store, saved) = Store::open(dir.path()).unwrap();
            assert_eq!((saved.len(), store.damaged().get("periods")), (0, Some(&1)));
        }
    }

    #[test]
    fn a_checkpoint_that_is_lost_is_counted_once_with_its_reason() {
        let (dir, mut p) = (tempfile::tempdir().unwrap(), profile());
        let states = ["0.state.0", "0.state.1"].map(|name| dir.path().join(name));
        let reason_after = |damage: &dyn Fn(), p: &mut Profile| {
            live(dir.path(), p, 60);
            damage();
            let (store, saved) = Store::open(dir.path()).unwrap();
            assert!(saved.is_empty() && states.iter().all(|state| !state.exists()));
            store.damaged().iter().map(|(reason, count)| (*reason, *count)).collect::<Vec<_>>()
        };
        let change = |at: usize| {
            states.iter().for_each(|state| {
                let mut bytes = fs::read(state).unwrap();
                bytes[at] ^= 1;
                fs::write(state, bytes).unwrap();
            });
        };
        assert_eq!(reason_after(&|| change(7), &mut p), [("version", 1)]);
        assert_eq!(reason_after(&|| change(30), &mut profile()), [("checksum", 1)]);
        let without_samples = || fs::remove_file(dir.path().join("0.1.rows")).unwrap();
        assert_eq!(reason_after(&without_samples, &mut profile()), [("sample", 1)]);
    }

    #[test]
    fn a_closed_period_stays_until_its_report_is_delivered() {
        let (dir, mut p) = (tempfile::tempdir().unwrap(), profile());
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let mut checkpoint = store.new_checkpoint();
        feed(&mut p, 0..50);
        let receipt = checkpoint.close(&store, PERIOD, &mut p).unwrap();
        checkpoint.commit(&store, model(50), std::iter::empty(), Instant::now());
        store.finish();
        let mut saved = reopened(dir.path());
        let (period, closed, again) = saved[0].closed.pop().unwrap();
        assert_eq!((period, text(&closed)), (PERIOD, text(&p)));
        std::mem::forget(again); // killed before it was delivered
        assert!(saved[0].checkpoint.has_undelivered() && checkpoint.has_undelivered());
        drop(receipt);
        assert!(!checkpoint.has_undelivered());
        let saved = reopened(dir.path());
        assert!(saved[0].closed.is_empty() && saved[0].open.is_empty());
        assert_eq!(saved[0].model.marks, model(50).marks);
    }

    #[test]
    fn nothing_is_kept_of_a_period_in_which_nothing_happened() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        assert!(store.new_checkpoint().close(&store, PERIOD, &mut profile()).is_none());
    }

    #[test]
    fn a_failed_write_is_counted_and_the_next_commit_is_whole_again() {
        let (dir, mut p) = (tempfile::tempdir().unwrap(), profile());
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let mut checkpoint = store.new_checkpoint();
        let mut commit = |p: &mut Profile, now| checkpoint.commit(&store, model(p.rows), [(1000, p)].into_iter(), now);
        let wait = |what: fn(&WorkDone) -> bool| {
            while !what(&store.work().done()) {
                std::thread::yield_now();
            }
        };
        feed(&mut p, 0..20);
        commit(&mut p, Instant::now());
        wait(|done| done.written == 1);
        fs::create_dir(dir.path().join("0.state.0")).unwrap(); // in the way of the second
        feed(&mut p, 20..40);
        commit(&mut p, Instant::now());
        wait(|done| done.failed == 1);
        fs::remove_dir(dir.path().join("0.state.0")).unwrap();
        feed(&mut p, 40..60);
        commit(&mut p, Instant::now()); // too early: tried again after a while
        assert_eq!((store.work().done().written, store.work().done().failed), (1, 1));
        commit(&mut p, Instant::now() + RETRY);
        commit(&mut p, Instant::now() + 2 * RETRY);
        wait(|done| done.written == 3);
        assert_eq!(store.work().done().failed, 1);
        assert!(!checkpoint.is_due(Instant::now(), std::iter::empty()));
        store.finish();
        assert_eq!(reopened(dir.path())[0].open.first().map(|(_, saved)| text(saved)), Some(text(&p)));
    }

    #[test]
    fn after_a_failed_write_what_is_under_way_is_delivered_before_anything_is_said_to_be_read() {
        let (dir, mut p) = (tempfile::tempdir().unwrap(), profile());
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let mut checkpoint = store.new_checkpoint();
        fs::create_dir(dir.path().join("0.state.1")).unwrap(); // in the way of the first
        feed(&mut p, 0..20);
        checkpoint.commit(&store, model(20), [(1000, &mut p)].into_iter(), Instant::now());
        while store.work().done().failed == 0 {
            std::thread::yield_now();
        }
        fs::remove_dir(dir.path().join("0.state.1")).unwrap();
        let receipt = checkpoint.close(&store, PERIOD, &mut p).unwrap();
        let later = Instant::now() + 2 * RETRY;
        checkpoint.commit(&store, model(20), std::iter::empty(), Instant::now());
        checkpoint.commit(&store, model(20), std::iter::empty(), later);
        receipt.wait_until_committed(); // not held up
        assert_eq!(store.work().done().written, 0);
        assert!(checkpoint.has_failed() && checkpoint.has_undelivered());
        drop(receipt);
        checkpoint.commit(&store, model(20), std::iter::empty(), later);
        store.finish();
        assert_eq!(reopened(dir.path())[0].model.marks, model(20).marks);
    }

    #[test]
    fn files_that_are_none_of_ours_hold_up_no_start() {
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("0.state.0")).status().unwrap();
        assert!(made.success());
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("1.state.0")).unwrap();
        fs::write(dir.path().join("4294967295.state.0"), "x").unwrap();
        fs::write(dir.path().join("4294967295.1.rows"), "x").unwrap();
        assert!(reopened(dir.path()).is_empty());
        assert_eq!(Store::open(dir.path()).unwrap().0.new_checkpoint().id, 0);
    }

    #[test]
    fn two_sidecars_do_not_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Store::open(dir.path()).unwrap();
        let why = Store::open(dir.path()).unwrap_err().to_string();
        assert!(why.contains("another sidecar") && why.contains("--checkpoint"), "{why}");
    }
}
