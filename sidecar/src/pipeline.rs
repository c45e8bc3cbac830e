//! The loop: find rings → drain them in place → feed the open periods → close what is due → hand over.
//!
//! One thread owns all rings and open periods. Closed profiles go to a second one, which turns them into reports, so that quantiles
//! never stall the tail; the sinks have threads of their own. When closing cannot keep up, the models whose periods wait are read no
//! further: their rings fill, and their producers count what they drop. The others go on, and those whose reports have cost the least
//! come first.

mod closing;
mod histograms;
mod intake;
mod judge;
mod later;
mod left;
mod limits;
mod model;
mod naps;
mod roster;
mod versions;
mod waiting;

pub use histograms::HistogramSettings;
pub use intake::{Wanted, rows_of, spec_of};
pub use later::{Later, Revision};
pub use limits::Limits;

use crate::alert::AlertSettings;
use crate::checkpoint::{LeftRows, Mark, RingId, Saved, Store};
use crate::health::{self, Health, Seconds};
use crate::period::MOST_OPEN;
use crate::profile::Profile;
use crate::reference::{Library, Watch};
use crate::report::DriftSettings;
use crate::ring::wire::Identity;
use crate::ring::{AtMost, Consumer, Found, OpenError, Schema, Segment};
use crate::shutdown::Shutdown;
use crate::sink::{self, HealthFile, Sinks};
use closing::{Closed, ToClose};
use crossbeam::channel::Sender;
use intake::Intake;
use judge::Judge;
use limits::Asked;
use model::{MOST_WAITING, Model};
use naps::Naps;
use roster::Roster;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// What the loop needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The ring directory.
    pub dir: PathBuf,
    /// Reporting period; `None` = the producer's wish, or [`DEFAULT_PERIOD`].
    pub period: Option<Duration>,
    /// Rows in the sample; `None` = the producer's wish, or [`DEFAULT_RESERVOIR`].
    pub reservoir_rows: Option<u64>,
    /// What survives a SIGKILL lies here.
    pub checkpoint: PathBuf,
    /// The references lie here, if there are any.
    pub reference: Option<PathBuf>,
    /// When a difference from a reference counts as drift.
    pub drift: DriftSettings,
    /// When somebody is to be told.
    pub alerts: AlertSettings,
    /// Of which columns.
    pub histograms: HistogramSettings,
    /// What producers may ask for.
    pub limits: Limits,
}

/// Where neither the operator nor the producer says otherwise.
pub const DEFAULT_PERIOD: Duration = Duration::from_secs(60);
/// Where neither the operator nor the producer says otherwise.
pub const DEFAULT_RESERVOIR: u64 = 16_384;
/// Shortest period.
pub const MIN_PERIOD: Duration = Duration::from_millis(100);
/// Longest period a producer may wish for; an operator may say what he likes.
const LONGEST_WISH: Duration = Duration::from_secs(24 * 3600);

const SCAN_EVERY: Duration = Duration::from_secs(1);
const CLOSE_EVERY: Duration = Duration::from_millis(20);
/// While something comes in, and while nothing does.
const COUNT_LOSSES_EVERY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// A turn's time for opening rings: a huge schema takes its time, and others wait meanwhile.
const MOST_ATTACHING: Duration = Duration::from_millis(4);
/// How long after the start a ring that a dead sidecar had read may come back and be known, and a model find its rows that wait.
const MARKS_WAIT: Duration = Duration::from_secs(600);
/// Waiting to be closed, and being closed, over all models.
const PROFILES_CLOSING: u64 = closing::QUEUE as u64 + 1;

/// Rows of one model that are left, or taken up, as bytes: as many times `max_waiting_bytes` more.
const LEFT: u64 = 2;

/// What a reference takes at most for each byte of its file: its numbers in full, of which the small counts of a score histogram take 8
/// bytes for 1, and 4 more for the map that follows from them; the old one while a new one is loaded. Edges in the order of a model's
/// columns, once for each type of elements that comes, take less than the rest of the column.
const REFERENCE: u64 = 24;

/// Where closed periods go, to be committed before they are reported, and their checkpoints.
struct Outlet<'a> {
    closed: &'a mut Vec<Closed>,
    store: &'a Store,
}

/// Runs until told to stop. Returns how many reports the sinks lost.
pub fn run(settings: Settings, sinks: Sinks, health_file: HealthFile, shutdown: &Shutdown) -> io::Result<u64> {
    let (mut store, saved) = Store::open(&settings.checkpoint)?;
    info!(dir = %settings.dir.display(), exists = settings.dir.exists(), "waiting for rings");
    let sinks_count = sinks.count() as u64;
    let watched = settings.reference.clone().map(Watch::start).transpose().map_err(io::Error::other)?;
    let left = store.left();
    let judge = Judge::revived(settings.alerts.clone(), &mut store, now_ns());
    let (closing, closer) = closing::start(sinks, health_file, settings.drift.clone(), judge)?;
    let mut tail = Tail::new(settings, closing, store, sinks_count);
    if let Some((library, watch)) = watched {
        tail.watch = Some(watch);
        tail.take_references(library);
    }
    tail.left = left;
    tail.revive(saved);
    tail.run(|| shutdown.requested() || closer.is_finished());
    let Tail { closing, intakes, models, marks, store, .. } = tail;
    drop(closing);
    let lost = closer.join().map_err(|_| io::Error::other("the closing thread panicked"))?;
    // Every report is delivered. Killed before here, the next sidecar finds the checkpoints; after, that all is accounted for.
    intakes.iter().for_each(Intake::account);
    // A ring that a dead sidecar had read and this one never saw may still come.
    let attached: HashSet<RingId> = intakes.iter().map(|intake| intake.mark().ring).collect();
    let waited_for = |id: &u64| marks.iter().any(|(ring, (model, _))| model == id && !attached.contains(ring));
    models.iter().filter(|(id, _)| !waited_for(id)).for_each(|(_, model)| model.retire(&store));
    store.finish();
    Ok(lost)
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64)
}

/// Due at once, and then every so often.
struct Timer {
    every: Duration,
    last: Option<Instant>,
}

impl Timer {
    fn new(every: Duration) -> Timer {
        Timer { every, last: None }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now - last >= self.every);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// What there is to do besides reading, and when. While nothing comes, nothing of it is looked at before `due`.
struct Chores {
    due: Instant,
    scan: Timer,
    close: Timer,
    losses: [Timer; 2],
    health: Timer,
    /// Something came since losses were counted.
    busy: bool,
}

impl Chores {
    fn new() -> Chores {
        Chores {
            due: Instant::now(),
            scan: Timer::new(SCAN_EVERY),
            close: Timer::new(CLOSE_EVERY),
            losses: COUNT_LOSSES_EVERY.map(Timer::new),
            health: Timer::new(HEALTH_EVERY),
            busy: false,
        }
    }
}

struct Tail {
    settings: Settings,
    /// The same, as far as a model depends on it.
    wanted: Wanted,
    started_ns: u64,
    started: Instant,
    roster: Roster,
    intakes: Vec<Intake>,
    models: BTreeMap<u64, Model>,
    next_model: u64,
    /// Of rings that a dead sidecar had read and this one has not seen yet, with the model they fed.
    marks: HashMap<RingId, (u64, Mark)>,
    /// Rows that waited when an earlier sidecar stopped, and whose models have not come yet.
    left: Vec<LeftRows>,
    health: Health,
    /// It is time to publish it.
    health_due: bool,
    /// Not yet handed over.
    closed: Vec<Closed>,
    /// Every ring that was there at the start is open, or refused.
    all_attached: bool,
    /// Nothing more is read.
    stopping: bool,
    /// The model that was committed last: the next one comes first.
    last_commit: u64,
    /// The same of labels that came later.
    last_revision: u64,
    /// How many there are.
    sinks: u64,
    closing: Sender<ToClose>,
    store: Store,
    library: Library,
    watch: Option<Watch>,
}

impl Tail {
    fn new(settings: Settings, closing: Sender<ToClose>, store: Store, sinks: u64) -> Tail {
        let started_ns = now_ns();
        Tail {
            roster: Roster::new(settings.dir.clone()),
            wanted: Wanted { segments: settings.limits.max_segments, histograms: settings.histograms.clone() },
            settings,
            started_ns,
            started: Instant::now(),
            intakes: Vec::new(),
            models: BTreeMap::new(),
            next_model: 0,
            marks: HashMap::new(),
            left: Vec::new(),
            health: Health::new(started_ns),
            health_due: false,
            closed: Vec::new(),
            all_attached: false,
            stopping: false,
            last_commit: 0,
            last_revision: 0,
            sinks,
            closing,
            store,
            library: Library::default(),
            watch: None,
        }
    }

    /// Goes on with what a dead sidecar left, as far as the settings are still the same.
    fn revive(&mut self, saved: Vec<Saved>) {
        saved.iter().filter_map(|saved| saved.model.taken).for_each(|number| self.drop_taken(number));
        for saved in saved {
            for mark in &saved.model.marks {
                let (id, newest) = self.marks.entry(mark.ring).or_insert_with(|| (self.next_model, mark.clone()));
                if mark.progress() > newest.progress() {
                    (*id, *newest) = (self.next_model, mark.clone());
                }
            }
            let rows_at_stake = saved.model.rows_at_stake;
            let mut out = Outlet { closed: &mut self.closed, store: &self.store };
            let mut model = Model::revived(
                self.next_model,
                saved,
                self.settings.limits.max_waiting_bytes,
                self.started_ns,
                &self.library,
                &mut out,
            );
            let (id, suits) = (self.next_model, self.suits(&model));
            if !suits {
                info!(model = model.spec.model, "the settings have changed: its open periods are closed early");
                model.forget(rows_at_stake);
                model.close_all(&mut Outlet { closed: &mut self.closed, store: &self.store });
                model.superseded = true;
            }
            self.models.insert(id, model);
            self.next_model += 1;
            // After an orderly stop they are not gone, but left.
            if suits
                && !self.take_up(id)
                && let Some(model) = self.models.get_mut(&id)
            {
                model.forget(rows_at_stake);
            }
        }
    }

    /// Whether a revived model is what it would be if it came now.
    fn suits(&self, model: &Model) -> bool {
        let (settings, limits) = (&self.settings, &self.settings.limits);
        let most_rows = limits.max_reservoir_rows.max(DEFAULT_RESERVOIR);
        settings.period.is_none_or(|period| period == model.period)
            && settings.reservoir_rows.map_or(model.reservoir_rows <= most_rows, |rows| rows == model.reservoir_rows)
            && model.profile_bytes() <= limits.max_profile_bytes
            && model.spec.segments.is_none_or(|segments| segments.most == limits.max_segments)
            && model.spec.histograms == self.wanted.histograms.of_spec(&model.spec)
    }

    fn run(&mut self, stop: impl Fn() -> bool) {
        let (mut naps, mut chores, mut last_turn) = (Naps::new(), Chores::new(), Instant::now());
        while !stop() {
            let now = Instant::now();
            let moved = self.poll(now - last_turn);
            last_turn = now;
            if moved || now >= chores.due || self.has_to_close() {
                self.do_chores(&mut chores, moved, now);
                naps.fit(self.intakes.iter().map(Intake::fill));
            }
            if moved {
                naps.wake();
            } else {
                thread::sleep(naps.next());
            }
        }
        self.stop();
    }

    /// Something waits for the closing thread.
    fn has_to_close(&self) -> bool {
        !self.closed.is_empty() || self.models.values().any(Model::has_revision)
    }

    /// Everything but reading.
    fn do_chores(&mut self, chores: &mut Chores, moved: bool, now: Instant) {
        chores.busy |= moved;
        if chores.scan.is_due(now) {
            self.scan();
            self.renew_references();
        }
        self.attach_for(MOST_ATTACHING);
        self.all_attached |= !self.roster.has_candidates();
        if chores.losses[usize::from(!chores.busy)].is_due(now) {
            self.count_losses();
            chores.busy = false;
        }
        if chores.close.is_due(now) {
            self.close_due();
        }
        self.health_due |= chores.health.is_due(now);
        self.commit_due(now);
        chores.due = if self.roster.has_candidates() { now } else { now + CLOSE_EVERY };
    }

    /// Polls every ring once. Whether anything was there. With nothing anywhere, a load for each ring is all it costs.
    fn poll(&mut self, elapsed: Duration) -> bool {
        if !self.intakes.iter().any(Intake::has_news) {
            return false;
        }
        let now = now_ns();
        let horizons = self.horizons(now);
        let mut moved = false;
        let mut out = Outlet { closed: &mut self.closed, store: &self.store };
        for intake in &mut self.intakes {
            let model = self.models.get_mut(&intake.model).expect("a model lives as long as its rings");
            let until = horizons.get(&intake.model).copied().unwrap_or(u64::MAX);
            if model.is_held_up() {
                continue;
            }
            moved |= intake.poll(now, until, elapsed, &mut self.health, |instance, ts_ns, rows| {
                model.feed(instance, ts_ns, &rows, now, &mut out);
                !model.is_held_up()
            });
        }
        moved
    }

    /// How far each model's rings may be read: after a pause, the backlogs of all its producers are read side by side, or the first
    /// one's late periods would push out the early ones that the others still have rows for.
    fn horizons(&self, now: u64) -> BTreeMap<u64, u64> {
        let mut oldest = BTreeMap::new();
        for (model, ts_ns) in self.intakes.iter().filter_map(|intake| Some((intake.model, intake.waiting_from(now)?))) {
            let least = oldest.entry(model).or_insert(ts_ns);
            *least = ts_ns.min(*least);
        }
        oldest.into_iter().map(|(model, ts_ns)| (model, self.models[&model].periods.horizon(ts_ns))).collect()
    }

    fn count_losses(&mut self) {
        let now = now_ns();
        let mut out = Outlet { closed: &mut self.closed, store: &self.store };
        for intake in &mut self.intakes {
            intake.beat(now);
            let model = self.models.get_mut(&intake.model).expect("a model lives as long as its rings");
            if let Some(losses) = intake.new_losses(&mut self.health) {
                model.lose(&losses, now, &mut out);
            }
        }
    }

    fn close_due(&mut self) {
        let now = now_ns();
        let mut out = Outlet { closed: &mut self.closed, store: &self.store };
        for (id, model) in &mut self.models {
            let of_model = || self.intakes.iter().filter(|intake| intake.model == *id);
            if !model.is_held_up() && model.periods.has_due(now, true) {
                let waiting_from = of_model().filter_map(|intake| intake.waiting_from(now)).min();
                let attached = of_model().any(|intake| intake.attached);
                model.close_due(now, waiting_from, attached, &mut out);
            }
        }
    }

    /// Commits the models that are due, as long as the disk keeps up, and hands over the closed periods that are committed.
    fn commit_due(&mut self, now: Instant) {
        if self.models.values_mut().any(|model| model.commit_is_due(now)) {
            // A ring's mark says that its gaps are in the profiles too.
            self.count_losses();
            // On a slow disk, models that close all the time must not keep the others from it.
            for id in self.in_turn_after(self.last_commit) {
                let model = self.models.get_mut(&id).expect("listed above");
                if model.commit_is_due(now) && self.store.has_room() {
                    model.commit(marks_of(id, &self.intakes, &self.marks), &self.store, now);
                    self.last_commit = id;
                }
            }
        }
        self.give_up_waiting();
        while !self.closing.is_full()
            && let Some(next) = self.next_for_closing()
        {
            self.hand_over(next);
        }
    }

    /// Health is never held up by reports.
    fn next_for_closing(&mut self) -> Option<ToClose> {
        if std::mem::take(&mut self.health_due) {
            return Some(ToClose::Health(Box::new(self.health_now())));
        }
        match self.next_period() {
            Some(at) => {
                let has_versions = self.has_versions(&self.closed[at]);
                let closed = Closed { has_versions, ..self.closed.remove(at) };
                Some(ToClose::Period(Box::new(closed)))
            }
            None => self.next_revision().map(Box::new).map(ToClose::Revision),
        }
    }

    /// A model whose labels keep coming must not keep the others from reporting theirs.
    fn next_revision(&mut self) -> Option<Revision> {
        self.in_turn_after(self.last_revision).into_iter().find_map(|id| {
            let revision = self.models.get_mut(&id).expect("listed").next_revision()?;
            self.last_revision = id;
            Some(revision)
        })
    }

    /// All models, those after the last one that had its turn first.
    fn in_turn_after(&self, last: u64) -> Vec<u64> {
        let (before, after): (Vec<u64>, Vec<u64>) = self.models.keys().partition(|id| **id <= last);
        [after, before].concat()
    }

    fn hand_over(&mut self, next: ToClose) {
        if let ToClose::Period(closed) = &next
            && let Some(model) = self.models.get_mut(&closed.model)
        {
            model.handed_over(closed.profile.report_cost());
        }
        if self.closing.send(next).is_err() {
            warn!("the closing thread is gone: report lost");
        }
    }

    fn health_now(&mut self) -> Health {
        let work = self.store.work().done();
        self.health.time = now_ns();
        self.health.rings = self.intakes.len() as u64;
        self.health.mapped_bytes = self.intakes.iter().map(Intake::mapped_bytes).sum();
        self.health.lag_bytes = self.intakes.iter().map(Intake::lag_bytes).sum();
        let heartbeats = self.intakes.iter().filter_map(Intake::producer_heartbeat_ns);
        self.health.producer_heartbeat_age = Seconds::since(heartbeats, self.health.time, "no_producer");
        self.health.models = self.models.len() as u64;
        self.health.waiting_rows = self.models.values().map(Model::waiting_rows).sum();
        self.health.memory_bytes_at_most = self.memory_at_most();
        self.health.checkpoints = health::Checkpoints {
            written: work.written,
            failed: work.failed,
            damaged: self.store.damaged().clone(),
            bytes: work.bytes,
            tail_seconds: work.tail_time.as_secs_f64(),
            writer_seconds: work.writer_time.as_secs_f64(),
        };
        self.health.clone()
    }

    /// The names and open profiles of every model, and the closing profiles, which may all be of the largest, as may the one whose report
    /// is being made.
    fn memory_at_most(&self) -> u64 {
        let bytes = || self.models.values().map(Model::profile_bytes);
        let names = self.models.values().map(|model| model.spec_bytes).fold(0u64, u64::saturating_add);
        let of_each = (MOST_OPEN + MOST_WAITING) as u64;
        let open = bytes().fold(0u64, u64::saturating_add).saturating_mul(of_each);
        let closing = bytes().max().unwrap_or(0).saturating_mul(PROFILES_CLOSING);
        let references = self.library.bytes.saturating_mul(REFERENCE);
        let waiting = self.settings.limits.max_waiting_bytes.saturating_mul(self.models.len() as u64 + LEFT);
        let working = self.models.values().map(Model::working_bytes).max().unwrap_or(0);
        let all = [names, open, closing, waiting, working, self.reports_at_most(), references];
        all.into_iter().fold(0, u64::saturating_add)
    }

    /// Reports that are made, that wait for each sink, and that it is writing, which takes their text as well.
    fn reports_at_most(&self) -> u64 {
        const TEXT: u64 = 4;
        let largest = self.models.values().map(|model| model.report_bytes).max().unwrap_or(0);
        let waiting = (sink::QUEUE as u64 * largest).min(sink::QUEUE_BYTES.max(largest));
        largest + self.sinks * (waiting + TEXT * largest)
    }

    /// Looks for new rings, and lets go of those that are gone.
    fn scan(&mut self) {
        // By file and not by name: a ring may have two names, or have got another one.
        let read: HashSet<_> = self.intakes.iter().map(|intake| intake.found.file).collect();
        let Some(listing) = self.roster.look(|new| read.contains(&new.file)) else { return };
        let listed: HashSet<_> = listing.found.iter().map(|found| found.file).collect();
        let now = now_ns();
        for intake in &mut self.intakes {
            let named = listed.contains(&intake.found.file) || (listing.cut && intake.found.is_there());
            intake.look_around(now, named, self.settings.limits.keep_abandoned, &mut self.health);
        }
        self.let_go();
    }

    /// Periods that are open stay with the reference they were opened with.
    fn renew_references(&mut self) {
        if let Some(library) = self.watch.as_ref().and_then(Watch::changed) {
            self.take_references(library);
        }
    }

    fn take_references(&mut self, library: Library) {
        self.models.values_mut().for_each(|model| model.compare_with(&library));
        let (loaded, bytes, refused) = (library.len() as u64, library.bytes, library.refused.clone());
        self.health.references = health::References { loaded, bytes, refused };
        self.library = library;
    }

    /// Opens what was found: usually all of it, so that backlogs are read side by side.
    fn attach_for(&mut self, most: Duration) {
        let start = Instant::now();
        while start.elapsed() < most
            && let Some(found) = self.roster.next()
        {
            self.attach(found);
        }
    }

    fn attach(&mut self, found: Found) {
        let by_another_name = self.intakes.iter().any(|intake| intake.found.file == found.file);
        if !by_another_name {
            let accept = |id: &Identity, schema: &Schema| self.accept(id, schema);
            let limits = &self.settings.limits;
            let (classes, features) = (limits.max_classes, limits.max_features);
            match Segment::open_found(&found, AtMost { file_bytes: limits.max_ring_bytes, classes, features }, accept) {
                Ok(segment) => self.take_in(segment, found),
                // Gone since the directory was read: nothing is there to be refused.
                Err(OpenError::Io(why)) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => self.roster.refuse(found, &why, &mut self.health),
            }
        }
    }

    fn take_in(&mut self, mut segment: Segment, found: Found) {
        self.roster.accept(&found);
        let schema = segment.take_schema();
        let ring = RingId { uuid: segment.identity().uuid, file: found.file };
        let (instance, mark) = (schema.instance.clone(), self.marks.get(&ring).cloned());
        let consumer = Consumer::new(segment, &schema);
        let model = self.model_for(schema, &found);
        if mark.as_ref().is_some_and(|(of, _)| *of == model) {
            self.marks.remove(&ring);
        }
        // Of a superseded model: it keeps the mark until the new one has it for certain.
        let known = self.models.get_mut(&model).expect("it was just found");
        known.changed |= mark.is_some();
        let mark = mark.map(|(_, mark)| mark);
        self.intakes.push(Intake::new(consumer, instance, found, model, mark, &mut self.health));
    }

    /// Whether there is room for it, before it is mapped.
    fn accept(&self, id: &Identity, schema: &Schema) -> Result<(), OpenError> {
        let mapped: u64 = self.intakes.iter().map(Intake::mapped_bytes).sum();
        let known =
            self.models.values().any(|model| !model.superseded && intake::has_spec(schema, &model.spec, &self.wanted));
        self.settings.limits.check(&Asked {
            rings: self.intakes.len() as u64 + 1,
            mapped_bytes: mapped.saturating_add(id.file_len),
            models: self.models.len() as u64 + u64::from(!known),
            profile_bytes: Profile::bytes(intake::size_of_schema(schema, &self.wanted), 1, value_bytes(schema)),
        })
    }

    /// Rings with equal specs feed one model. The first ring's wishes count.
    fn model_for(&mut self, schema: Schema, found: &Found) -> u64 {
        let value_bytes = value_bytes(&schema);
        let mut known = self.models.iter().filter(|(_, model)| !model.superseded);
        let known = known.find(|(_, model)| intake::has_spec(&schema, &model.spec, &self.wanted)).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| self.add_model(schema));
        let model = self.models.get_mut(&id).expect("known, or just added");
        model.value_bytes = model.value_bytes.max(value_bytes);
        let (model, memory_bytes_at_most) = (&self.models[&id], self.memory_at_most());
        info!(
            ring = ?found.path,
            model = model.spec.model,
            version = model.spec.version,
            period = ?model.period,
            reservoir_rows = model.reservoir_rows,
            profile_bytes_at_most = model.profile_bytes(),
            memory_bytes_at_most,
            "attached"
        );
        id
    }

    fn add_model(&mut self, schema: Schema) -> u64 {
        let settings = &self.settings;
        let wished_period = schema.period.map(|period| period.min(LONGEST_WISH));
        let period = settings.period.or(wished_period).unwrap_or(DEFAULT_PERIOD).max(MIN_PERIOD);
        let (rows, _) = sample_and_profile(&schema, &self.wanted, settings.reservoir_rows, &settings.limits);
        let times = [self.started_ns, now_ns()];
        let spent = self.models.values().map(Model::spent).min().unwrap_or(0);
        let (id, spec) = (self.next_model, intake::spec_of(schema, &self.wanted));
        let mut model =
            Model::new(id, spec, period, rows, settings.limits.max_waiting_bytes, times, self.store.new_checkpoint());
        model.start_from(spent);
        model.compare_with(&self.library);
        self.next_model += 1;
        self.models.insert(id, model);
        self.take_up(id);
        id
    }

    fn let_go(&mut self) {
        self.count_losses();
        for over in self.intakes.extract_if(.., |intake| intake.is_over()) {
            info!(ring = ?over.found.path, "let go");
            // Should it get a name again, what was read of it is not lost.
            over.account();
        }
        if self.started.elapsed() > MARKS_WAIT {
            self.marks.clear();
            self.give_up_left();
        }
        let waits = |id: &u64| self.marks.values().any(|(model, _)| model == id);
        let fed = |id: &u64| self.intakes.iter().any(|intake| intake.model == *id) || waits(id);
        self.models.retain(|id, model| {
            if fed(id) {
                return true;
            }
            model.hurry();
            let over = model.is_idle();
            if over {
                self.health.forgotten_rows += model.untold_rows();
                model.retire(&self.store);
            }
            !over
        });
    }

    /// Drains what the rings hold now, and closes the open periods early.
    fn stop(&mut self) {
        let start = Instant::now();
        self.scan();
        // Newcomers one by one: those that are known are read meanwhile.
        while self.roster.has_candidates() && start.elapsed() < self.settings.limits.drain_timeout {
            self.attach_for(MOST_ATTACHING);
            self.poll(Duration::ZERO);
            self.commit_due(Instant::now());
        }
        let ends: Vec<u64> = self.intakes.iter().map(Intake::end).collect();
        let drained = |intakes: &[Intake]| intakes.iter().zip(&ends).all(|(intake, end)| intake.has_reached(*end));
        while !drained(&self.intakes) && start.elapsed() < self.settings.limits.drain_timeout {
            let moved = self.poll(Duration::ZERO);
            self.close_due();
            self.commit_due(Instant::now());
            if !moved {
                thread::sleep(Duration::from_millis(1)); // held up by the closing thread or the disk
            }
        }
        self.count_losses();
        self.stopping = true;
        let mut out = Outlet { closed: &mut self.closed, store: &self.store };
        for model in self.models.values_mut() {
            model.close_all(&mut out);
        }
        for (id, model) in &mut self.models {
            model.commit(marks_of(*id, &self.intakes, &self.marks), &self.store, start);
        }
        while let Some(next) = self.next_for_closing() {
            self.hand_over(next);
        }
        self.health.forgotten_rows +=
            self.models.values().map(|model| model.untold_rows() - model.waiting_rows()).sum::<u64>();
        self.leave();
        let health = self.health_now();
        self.hand_over(ToClose::Health(Box::new(health)));
    }
}

/// How far a model's rings have been read, those included that a dead sidecar had read and that may still come.
fn marks_of(model: u64, intakes: &[Intake], waiting: &HashMap<RingId, (u64, Mark)>) -> Vec<Mark> {
    let waiting = waiting.values().filter(|(id, _)| *id == model).map(|(_, mark)| mark.clone());
    intakes.iter().filter(|intake| intake.model == model).map(Intake::mark).chain(waiting).collect()
}

/// Rows of the sample, and what a profile takes at most, with the default settings.
pub fn sample_and_profile_by_default(schema: &Schema) -> (u64, u64) {
    let limits = Limits::default();
    let wanted = Wanted { segments: limits.max_segments, ..Wanted::default() };
    sample_and_profile(schema, &wanted, None, &limits)
}

/// The operator's wish, or the producer's as far as the limits allow, cut so that the profile fits.
fn sample_and_profile(schema: &Schema, wanted: &Wanted, wanted_rows: Option<u64>, limits: &Limits) -> (u64, u64) {
    let (size, value_bytes) = (intake::size_of_schema(schema, wanted), value_bytes(schema));
    let wished = schema.reservoir_rows.map(|rows| rows.min(limits.max_reservoir_rows));
    let rows = wanted_rows.or(wished).unwrap_or(DEFAULT_RESERVOIR);
    let rows = rows.min(Profile::rows_within(size, limits.max_profile_bytes, value_bytes));
    (rows, Profile::bytes(size, rows, value_bytes))
}

fn value_bytes(schema: &Schema) -> u64 {
    schema.proba_dtype.size().max(schema.feature_dtype.size()).max(4)
}

#[cfg(test)]
impl Settings {
    /// Nobody's wishes, everything in one directory.
    fn of_test(dir: &std::path::Path) -> Settings {
        Settings {
            dir: dir.to_owned(),
            period: None,
            reservoir_rows: None,
            checkpoint: dir.to_owned(),
            reference: None,
            drift: DriftSettings::default(),
            alerts: AlertSettings::default(),
            histograms: HistogramSettings::default(),
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Labels, Rows, Spec};
    use crate::stats::Columns;
    use crossbeam::channel::bounded;
    use ndarray::ArrayView2;

    const PERIOD: u64 = 1_000_000_000;
    const NOW: u64 = 1_700_000_000 * PERIOD;

    fn tail(dir: &std::path::Path) -> Tail {
        let (store, _) = Store::open(dir).unwrap();
        Tail::new(Settings::of_test(dir), bounded(closing::QUEUE).0, store, 0)
    }

    fn feed(tail: &mut Tail, model: u64, rows: &Rows<'_>) {
        let mut out = Outlet { closed: &mut tail.closed, store: &tail.store };
        tail.models.get_mut(&model).unwrap().feed("i", NOW, rows, NOW, &mut out);
    }

    /// Some rows of a period that is over, and reported.
    fn add_model(tail: &mut Tail, id: u64, rows: usize) {
        let spec = Spec { classes: ["no", "yes"].map(String::from).to_vec(), threshold: 0.5, ..Spec::default() };
        let (period, checkpoint) = (Duration::from_nanos(PERIOD), tail.store.new_checkpoint());
        tail.models.insert(id, Model::new(id, spec, period, 1, 1 << 20, [0, NOW], checkpoint));
        let (values, ids): (Vec<f64>, Vec<u64>) = ([0.25, 0.75].repeat(rows), (0..rows as u64).collect());
        let probabilities = Some(Columns::F64(ArrayView2::from_shape((rows, 2), &values).unwrap()));
        feed(tail, id, &Rows { count: rows, probabilities, ids: Some(&ids), ..Rows::default() });
        tail.models.get_mut(&id).unwrap().close_all(&mut Outlet { closed: &mut tail.closed, store: &tail.store });
        tail.closed.clear();
        tail.models.get_mut(&id).unwrap().handed_over(1);
    }

    fn label(tail: &mut Tail, model: u64, id: u64) {
        feed(tail, model, &Rows { count: 1, labels: Some(Labels::Classes(&[1])), ids: Some(&[id]), ..Rows::default() });
        tail.models.get_mut(&model).unwrap().hurry();
    }

    #[test]
    fn a_model_whose_labels_keep_coming_does_not_keep_the_others_from_reporting_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = tail(dir.path());
        (0..3).for_each(|model| add_model(&mut tail, model, 10));
        (0..3).for_each(|model| label(&mut tail, model, 0));
        for id in 1..4 {
            assert!(matches!(tail.next_for_closing(), Some(ToClose::Revision(_))));
            label(&mut tail, 0, id);
        }
        let still_due = [1, 2].map(|model| tail.models.get_mut(&model).unwrap().next_revision().is_some());
        assert_eq!(still_due, [false, false]);
    }
}
