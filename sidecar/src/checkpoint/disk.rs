//! The files of a checkpoint directory: written by a thread of their own, read back at the next start.
//!
//! Everything read is untrusted: a file that is not whole, or does not fit together with the others, is said, removed, and not used.

use super::{Checkpoint, Log, ModelState, PeriodState, Receipt, Saved, State, WholeFile, rows};
use crate::period::can_be_open;
use crate::profile::{Profile, Spec};
use crossbeam::channel::{Receiver, Sender, bounded};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tracing::{info, warn};

/// Changes when what is written changes its meaning: a checkpoint of another format is not read.
const MAGIC: &[u8; 8] = b"MLWCKPT7";
/// More than any state takes, and less than would fill the memory.
const MOST_STATE: u64 = 1 << 30;
/// Magic, checksum, length of the head.
const PREFIX: usize = 20;
/// Commits that may wait for a slow disk. Then the tail waits with the next one, and goes on reading.
const QUEUE: usize = 4;

/// What checkpoints cost and how they fared, since the start.
#[derive(Debug, Default)]
pub struct Work {
    written: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    tail_ns: AtomicU64,
    writer_ns: AtomicU64,
}

/// [`Work`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct WorkDone {
    pub written: u64,
    pub failed: u64,
    pub bytes: u64,
    /// Processor time of the thread that reads the rings.
    pub tail_time: Duration,
    /// Processor time of the writer.
    pub writer_time: Duration,
}

impl Work {
    pub(super) fn add_tail_time(&self, time: Duration) {
        self.tail_ns.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// Release: who has seen the count finds the failure known.
    pub(super) fn add_failure(&self) {
        self.failed.fetch_add(1, Release);
    }

    /// So far.
    pub fn done(&self) -> WorkDone {
        WorkDone {
            written: self.written.load(Relaxed),
            failed: self.failed.load(Acquire),
            bytes: self.bytes.load(Relaxed),
            tail_time: Duration::from_nanos(self.tail_ns.load(Relaxed)),
            writer_time: Duration::from_nanos(self.writer_ns.load(Relaxed)),
        }
    }
}

#[derive(Debug)]
pub(super) enum Job {
    Commit(Commit),
    Retire(u32),
}

#[derive(Debug)]
pub(super) struct Commit {
    pub id: u32,
    /// Which of the two state files.
    pub turn: u64,
    /// Nothing of this model is on disk.
    pub anew: bool,
    pub appends: Vec<Append>,
    /// Head, then profiles.
    pub state: Vec<u8>,
    pub head_bytes: usize,
    /// Not needed any more when this is written.
    pub taken: Option<[WholeFile; 2]>,
    pub failed: Arc<AtomicBool>,
    /// Hung up when this is done: who waits for the commit may go on.
    pub lines: Vec<Sender<()>>,
}

#[derive(Debug)]
pub(super) struct Append {
    pub log: u64,
    /// Where in the log.
    pub at: u64,
    pub rows: Vec<u8>,
    pub delivered: Arc<AtomicBool>,
}

/// Why a checkpoint is not gone on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is no file that can be read.
    Unreadable,
    /// Written by a sidecar of another version.
    Version,
    /// Cut short, or changed.
    Checksum,
    /// Periods that cannot have been open, or over, at a time.
    Periods,
    /// Profiles that are none of its model.
    Profile,
    /// Samples that are not there, or do not belong to their profiles.
    Sample,
}

impl Damage {
    /// One word for a counter.
    fn reason(self) -> &'static str {
        match self {
            Damage::Unreadable => "unreadable",
            Damage::Version => "version",
            Damage::Checksum => "checksum",
            Damage::Periods => "periods",
            Damage::Profile => "profile",
            Damage::Sample => "sample",
        }
    }
}

/// A checkpoint directory, locked for this process.
#[derive(Debug)]
pub struct Store {
    pub(super) dir: PathBuf,
    next_id: u32,
    /// Of the rows that are left to the next sidecar.
    pub(super) next_left: u32,
    damaged: BTreeMap<&'static str, u64>,
    jobs: Sender<Job>,
    writer: JoinHandle<()>,
    pub(super) work: Arc<Work>,
    _lock: Flock<File>,
}

impl Store {
    /// Makes the directory if need be. What a dead sidecar left there comes along.
    pub fn open(dir: &Path) -> io::Result<(Store, Vec<Saved>)> {
        let context = |e: io::Error| {
            let remedy = "choose another directory with --checkpoint";
            io::Error::new(e.kind(), format!("cannot keep checkpoints in {}: {e}; {remedy}", dir.display()))
        };
        fs::create_dir_all(dir).map_err(context)?;
        let lock = lock(dir).map_err(context)?;
        let (jobs, queue) = bounded(QUEUE);
        let work = Arc::new(Work::default());
        let writer = Writer { dir: dir.to_owned(), work: work.clone() };
        let thread = thread::Builder::new().name("checkpoint".into()).spawn(move || writer.run(queue))?;
        let mut store = Store {
            dir: dir.to_owned(),
            next_id: 0,
            next_left: 0,
            damaged: BTreeMap::new(),
            jobs,
            writer: thread,
            work,
            _lock: lock,
        };
        let saved = store.load().map_err(context)?;
        Ok((store, saved))
    }

    /// For a model that has none yet.
    pub fn new_checkpoint(&mut self) -> Checkpoint {
        self.next_id += 1;
        Checkpoint::new(self.next_id - 1)
    }

    /// Whether a commit can be handed over without waiting.
    pub fn has_room(&self) -> bool {
        !self.jobs.is_full()
    }

    /// What the commits have cost.
    pub fn work(&self) -> &Arc<Work> {
        &self.work
    }

    /// The file of what is to be known of alerts, and what a sidecar before this one has put there. `most` bounds it in bytes.
    pub fn alerts(&mut self, most: u64) -> (WholeFile, Option<Vec<u8>>) {
        let (path, work) = (self.dir.join("alerts"), self.work.clone());
        let file = WholeFile { path, magic: b"MLWALRT3", most, work };
        let held = self.held_by(&file);
        (file, held)
    }

    /// What such a file holds. Damage is counted.
    pub(super) fn held_by(&mut self, file: &WholeFile) -> Option<Vec<u8>> {
        file.read().unwrap_or_else(|damage| {
            self.refuse(file, damage.reason());
            None
        })
    }

    /// What such a file holds cannot be used.
    pub fn refuse(&mut self, file: &WholeFile, reason: &'static str) {
        warn!(path = %file.path.display(), reason, "a file of the checkpoint is damaged or of another version: removed; what it held is forgotten");
        *self.damaged.entry(reason).or_default() += 1;
        file.remove();
    }

    /// How many checkpoints were there that could not be gone on from, by reason: what they held is lost.
    pub fn damaged(&self) -> &BTreeMap<&'static str, u64> {
        &self.damaged
    }

    /// Waits until everything is written.
    pub fn finish(self) {
        drop(self.jobs);
        if self.writer.join().is_err() {
            warn!("the checkpoint thread panicked");
        }
    }

    pub(super) fn send(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            warn!("the checkpoint thread is gone: a SIGKILL would lose the open periods");
        }
    }

    pub(super) fn receipt(&self, id: u32, log: u64, delivered: Arc<AtomicBool>, committed: Receiver<()>) -> Receipt {
        Receipt { log: log_path(&self.dir, id, log), delivered, committed }
    }
}

fn lock(dir: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| match why {
        Errno::EWOULDBLOCK => io::Error::new(io::ErrorKind::ResourceBusy, "another sidecar keeps its own there"),
        other => other.into(),
    })
}

/// Neither through a link nor into a FIFO, which would hold us up.
pub(super) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = options.mode(0o600).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other(format!("{path:?} is not a file"))) }
}

/// At most so many bytes of a file.
pub(super) fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path, OpenOptions::new().read(true))?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn state_path(dir: &Path, id: u32, turn: u64) -> PathBuf {
    dir.join(format!("{id}.state.{turn}"))
}

fn log_path(dir: &Path, id: u32, log: u64) -> PathBuf {
    dir.join(format!("{id}.{log}.rows"))
}

/* ---- writing ---- */

struct Writer {
    dir: PathBuf,
    work: Arc<Work>,
}

impl Writer {
    fn run(self, jobs: Receiver<Job>) {
        for job in jobs {
            let start = super::thread_time();
            match job {
                Job::Commit(commit) => self.commit(commit),
                Job::Retire(id) => self.remove_states(id),
            }
            let cost = super::thread_time().saturating_sub(start);
            self.work.writer_ns.fetch_add(cost.as_nanos() as u64, Relaxed);
        }
    }

    fn commit(&self, mut commit: Commit) {
        if commit.failed.load(Acquire) {
            return; // an earlier one failed, and this one goes on from it
        }
        match self.write(&mut commit) {
            Ok(bytes) => {
                commit.taken.iter().flatten().for_each(WholeFile::remove);
                self.work.written.fetch_add(1, Relaxed);
                self.work.add_bytes(bytes);
            }
            Err(why) => {
                let dir = self.dir.display();
                warn!(%dir, %why, "cannot write a checkpoint: a SIGKILL would lose the open periods; tried again in a minute");
                self.remove_states(commit.id);
                commit.appends.iter().for_each(|append| drop(fs::remove_file(self.log(&commit, append))));
                commit.failed.store(true, Release);
                self.work.add_failure(); // last
            }
        }
        drop(commit.lines);
    }

    fn write(&self, commit: &mut Commit) -> io::Result<u64> {
        if commit.anew {
            self.remove_states(commit.id);
        }
        let mut bytes = 0;
        for append in &mut commit.appends {
            rows::seal(&mut append.rows);
        }
        for append in &commit.appends {
            self.append(&self.log(commit, append), append)?;
            bytes += append.rows.len();
        }
        let state = sealed(commit);
        bytes += state.len();
        let path = state_path(&self.dir, commit.id, commit.turn);
        let mut file = open_regular(&path, OpenOptions::new().write(true).create(true))?;
        file.set_len(0)?;
        file.write_all(&state)?;
        Ok(bytes as u64)
    }

    fn append(&self, path: &Path, append: &Append) -> io::Result<()> {
        if append.delivered.load(Acquire) {
            return Ok(());
        }
        // What has been there once is made anew by nobody: a receipt may have removed it.
        let file = match open_regular(path, OpenOptions::new().write(true).create(append.at == 0)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound && append.delivered.load(Acquire) => return Ok(()),
            other => other?,
        };
        // After the newest rows that count nothing does: a restart may have left some.
        file.set_len(append.at)?;
        file.write_all_at(&append.rows, append.at)?;
        if append.delivered.load(Acquire) {
            // Delivered meanwhile: the receipt may have come before the file.
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    fn log(&self, commit: &Commit, append: &Append) -> PathBuf {
        log_path(&self.dir, commit.id, append.log)
    }

    fn remove_states(&self, id: u32) {
        for turn in [0, 1] {
            let _ = fs::remove_file(state_path(&self.dir, id, turn));
        }
    }
}

fn sealed(commit: &Commit) -> Vec<u8> {
    let head = (commit.head_bytes as u64).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head), &commit.state);
    [&MAGIC[..], &crc.to_le_bytes(), &head, &commit.state].concat()
}

/* ---- reading back ---- */

/// Numbers of the state files and logs in a name, if it is one of ours.
enum Name {
    State(u32),
    Log(u32, u64),
}

fn name_of(name: &str) -> Option<Name> {
    let mut parts = name.split('.');
    let id = parts.next()?.parse().ok().filter(|id| *id < u32::MAX)?;
    let parsed = match [parts.next()?, parts.next()?] {
        ["state", "0" | "1"] => Name::State(id),
        [log, "rows"] => Name::Log(id, log.parse().ok()?),
        _ => return None,
    };
    parts.next().is_none().then_some(parsed)
}

impl Store {
    fn load(&mut self) -> io::Result<Vec<Saved>> {
        let (mut ids, mut logs) = (BTreeSet::new(), Vec::new());
        for entry in fs::read_dir(&self.dir)? {
            match entry?.file_name().to_str().and_then(name_of) {
                Some(Name::State(id)) => drop(ids.insert(id)),
                Some(Name::Log(id, log)) => logs.push((id, log)),
                None => {}
            }
        }
        self.next_id = ids.last().map_or(0, |id| id + 1).max(logs.iter().map(|(id, _)| id + 1).max().unwrap_or(0));
        let saved: BTreeMap<u32, Saved> = ids.into_iter().filter_map(|id| Some((id, self.load_model(id)?))).collect();
        for (id, log) in logs.into_iter().filter(|(id, log)| !saved.get(id).is_some_and(|saved| saved.uses(*log))) {
            let _ = fs::remove_file(log_path(&self.dir, id, log));
        }
        Ok(saved.into_values().collect())
    }

    /// Of the two states, the newer one that is whole and has its logs. What is of no use is removed.
    fn load_model(&mut self, id: u32) -> Option<Saved> {
        match self.newest_whole(id) {
            Ok(saved) => {
                let spec = &saved.model.spec;
                info!(model = spec.model, version = spec.version, "continued from its checkpoint");
                Some(saved)
            }
            Err(damage) => {
                let reason = damage.reason();
                warn!(dir = %self.dir.display(), id, reason, "a checkpoint is damaged or of another version: removed; what it held is counted as lost");
                *self.damaged.entry(reason).or_default() += 1;
                [0, 1].into_iter().for_each(|turn| drop(fs::remove_file(state_path(&self.dir, id, turn))));
                None
            }
        }
    }

    fn newest_whole(&self, id: u32) -> Result<Saved, Damage> {
        let (mut states, mut torn) = (Vec::new(), Damage::Unreadable);
        for turn in [0, 1] {
            match read_state(&state_path(&self.dir, id, turn)) {
                Ok(state) => states.push(state),
                Err(Damage::Unreadable) => {} // after the first commit there is one
                Err(why) => torn = why,
            }
        }
        states.sort_by_key(|(state, _)| std::cmp::Reverse(state.commit));
        let mut damage = None;
        for (state, profiles) in states {
            match self.revive(id, state, &profiles) {
                Ok(saved) => return Ok(saved),
                Err(why) => damage = damage.or(Some(why)),
            }
        }
        Err(damage.unwrap_or(torn))
    }

    fn revive(&self, id: u32, state: State<'static>, mut profiles: &[u8]) -> Result<Saved, Damage> {
        let mut checkpoint = Checkpoint::new(id);
        checkpoint.commits = state.commit;
        checkpoint.next_log = state.periods.iter().map(|period| period.log).max().unwrap_or(0);
        let spec = Arc::new(state.model.spec.clone().into_owned());
        if state.commit == u64::MAX || checkpoint.next_log == u64::MAX || !are_possible(&state.periods, &state.model) {
            return Err(Damage::Periods);
        }
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for period in &state.periods {
            let (bytes, rest) = cut(profiles, period.profile_bytes).ok_or(Damage::Profile)?;
            profiles = rest;
            let mut profile = profile_of(bytes, &spec, state.model.reservoir_rows).ok_or(Damage::Profile)?;
            let log = match (self.read_log(id, period).ok_or(Damage::Sample)?, period.closed) {
                (Some(log), _) => log,
                (None, Some(_)) => continue, // its report was delivered
                (None, None) => return Err(Damage::Sample),
            };
            rows::replay(&log, &mut profile).ok_or(Damage::Sample)?;
            let log = Log { number: period.log, bytes: period.log_bytes, delivered: Arc::default() };
            match period.closed {
                None => {
                    open.push((period.start_ns, profile));
                    checkpoint.open.push((period.start_ns, log));
                }
                Some(times) => {
                    let receipt = self.receipt(id, period.log, log.delivered.clone(), bounded(0).1);
                    let (period, bytes) = (*period, bytes.to_vec());
                    closed.push((times, profile, receipt));
                    checkpoint.closed.push(super::Closed {
                        period,
                        log,
                        profile: bytes,
                        pending: Vec::new(),
                        line: None,
                    });
                }
            }
        }
        if profiles.is_empty() {
            Ok(Saved { model: state.model, open, closed, checkpoint })
        } else {
            Err(Damage::Profile)
        }
    }

    /// The rows of a log as far as they count; the inner `None` where there is no log.
    fn read_log(&self, id: u32, period: &PeriodState) -> Option<Option<Vec<u8>>> {
        match read_regular(&log_path(&self.dir, id, period.log), period.log_bytes) {
            Ok(log) => (log.len() as u64 == period.log_bytes).then_some(Some(log)),
            Err(why) => (why.kind() == io::ErrorKind::NotFound).then_some(None),
        }
    }
}

impl Saved {
    fn uses(&self, log: u64) -> bool {
        let closed = self.checkpoint.closed.iter().map(|closed| closed.log.number);
        self.checkpoint.open.iter().map(|(_, log)| log.number).chain(closed).any(|number| number == log)
    }
}

/// Whether such periods can have been open, and over, at a time: a sound checksum says only that somebody has written them so.
fn are_possible(periods: &[PeriodState], model: &ModelState<'_>) -> bool {
    let open = periods.iter().filter(|period| period.closed.is_none());
    let starts: Vec<u64> = open.map(|period| period.start_ns).collect();
    let mut over = periods.iter().filter_map(|period| Some((period.start_ns, period.closed?)));
    can_be_open(&starts, model.period, model.closed_before_ns)
        && over.all(|(start_ns, closed)| closed.start_ns == start_ns && start_ns < closed.end_ns)
}

fn profile_of(bytes: &[u8], spec: &Arc<Spec>, reservoir_rows: u64) -> Option<Profile> {
    let profile = postcard::from_bytes::<Profile>(bytes).ok()?.revived(spec.clone())?;
    (profile.sample.reservoir.capacity() == reservoir_rows).then_some(profile)
}

fn cut(bytes: &[u8], at: u64) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(at).ok()?)
}

fn read_state(path: &Path) -> Result<(State<'static>, Vec<u8>), Damage> {
    let bytes = read_regular(path, MOST_STATE).map_err(|_| Damage::Unreadable)?;
    let (prefix, body) = bytes.split_at_checked(PREFIX).ok_or(Damage::Checksum)?;
    let crc = u32::from_le_bytes(prefix[8..12].try_into().expect("4 bytes"));
    if &prefix[..8] != MAGIC {
        return Err(Damage::Version);
    }
    if crc32c::crc32c_append(crc32c::crc32c(&prefix[12..]), body) != crc {
        return Err(Damage::Checksum);
    }
    let head_bytes = u64::from_le_bytes(prefix[12..].try_into().expect("8 bytes"));
    let (head, profiles) = cut(body, head_bytes).ok_or(Damage::Checksum)?;
    Ok((postcard::from_bytes(head).map_err(|_| Damage::Profile)?, profiles.to_vec()))
}
