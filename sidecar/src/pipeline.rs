//! The loop: find rings → drain them in place → feed the open periods → close what is due → hand over.
//!
//! One thread owns all rings and open periods. Closed profiles go to a second one, which turns them into reports, so that quantiles
//! never stall the tail; the sinks have threads of their own. The channel between the two is bounded: when closing cannot keep up,
//! the rings fill, and their producers count what they drop.

mod intake;

pub use intake::rows_of;

use crate::period::{MOST_OPEN, Period, Periods, Timing};
use crate::profile::{Losses, Profile, Rows, Spec};
use crate::report::Report;
use crate::ring::{self, Found, Segment, wire};
use crate::shutdown::Shutdown;
use crate::sink::Sinks;
use crossbeam::channel::{Receiver, Sender, bounded};
use intake::Intake;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
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
    /// What producers may ask for.
    pub limits: Limits,
}

/// What producers may ask for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Rings read at a time.
    pub max_rings: usize,
    /// Bytes of one ring file.
    pub max_ring_bytes: u64,
    /// Rows in a sample, when the producer wishes for one.
    pub max_reservoir_rows: u64,
    /// How long a drained ring without a producer is kept for the next one.
    #[serde(deserialize_with = "crate::period::duration")]
    pub keep_abandoned: Duration,
    /// How long a stopping sidecar goes on draining.
    #[serde(deserialize_with = "crate::period::duration")]
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_rings: 256,
            max_ring_bytes: 1 << 30,
            max_reservoir_rows: 1 << 20,
            keep_abandoned: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// Where neither the operator nor the producer says otherwise.
pub const DEFAULT_PERIOD: Duration = Duration::from_secs(60);
/// Where neither the operator nor the producer says otherwise.
pub const DEFAULT_RESERVOIR: u64 = 16_384;
/// Shortest period.
pub const MIN_PERIOD: Duration = Duration::from_millis(100);

const SCAN_EVERY: Duration = Duration::from_secs(1);
const COUNT_LOSSES_EVERY: Duration = Duration::from_millis(100);
const CLOSE_EVERY: Duration = Duration::from_millis(20);
const FIRST_NAP: Duration = Duration::from_micros(50);
/// Bounds of the nap that an idle sidecar works up to.
const LONGEST_NAP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// A nap is short enough that a ring filling at this rate does not overflow meanwhile, with room to spare.
const ASSUMED_FILL_RATE: u64 = 1 << 30;
/// Closed profiles that may wait for the closing thread.
const CLOSING_QUEUE: usize = 4;
/// Open, waiting to be closed, and being closed.
const PROFILES_OF_A_MODEL: u64 = (MOST_OPEN + CLOSING_QUEUE + 1) as u64;

/// Runs until told to stop. Returns how many reports the sinks lost.
pub fn run(settings: Settings, sinks: Sinks, shutdown: &Shutdown) -> io::Result<u64> {
    info!(dir = %settings.dir.display(), exists = settings.dir.exists(), "waiting for rings");
    let (closing, closed) = bounded(CLOSING_QUEUE);
    let closer = thread::Builder::new().name("closing".into()).spawn(move || close_all(&closed, sinks))?;
    let mut tail = Tail::new(settings, closing);
    tail.run(|| shutdown.requested() || closer.is_finished());
    drop(tail);
    closer.join().map_err(|_| io::Error::other("the closing thread panicked"))
}

fn close_all(closed: &Receiver<(Period, Profile)>, mut sinks: Sinks) -> u64 {
    for (period, profile) in closed {
        sinks.send(Report::of(period, &profile, wire::DROP_REASON_NAMES));
    }
    sinks.finish()
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

struct Tail {
    settings: Settings,
    started_ns: u64,
    /// Why the directory cannot be read, so that it is said once and not every second.
    unreadable: Option<String>,
    intakes: Vec<Intake>,
    models: BTreeMap<u64, Model>,
    next_model: u64,
    /// Why a file is not read, so that it is said once and not every second.
    refused: HashMap<Found, String>,
    closing: Sender<(Period, Profile)>,
}

impl Tail {
    fn new(settings: Settings, closing: Sender<(Period, Profile)>) -> Tail {
        Tail {
            settings,
            started_ns: now_ns(),
            unreadable: None,
            intakes: Vec::new(),
            models: BTreeMap::new(),
            next_model: 0,
            refused: HashMap::new(),
            closing,
        }
    }

    fn run(&mut self, stop: impl Fn() -> bool) {
        let (mut scan, mut losses, mut close) =
            (Timer::new(SCAN_EVERY), Timer::new(COUNT_LOSSES_EVERY), Timer::new(CLOSE_EVERY));
        let mut nap = FIRST_NAP;
        while !stop() {
            let now = Instant::now();
            if scan.is_due(now) {
                self.scan();
            }
            let moved = self.poll();
            if losses.is_due(now) {
                self.count_losses();
            }
            if close.is_due(now) {
                self.close_due();
            }
            nap = if moved { FIRST_NAP } else { (nap * 2).min(self.longest_nap()) };
            if !moved {
                thread::sleep(nap);
            }
        }
        self.stop();
    }

    fn longest_nap(&self) -> Duration {
        let smallest = self.intakes.iter().map(Intake::capacity).min();
        let fill_time = smallest.map(|bytes| Duration::from_secs_f64(bytes as f64 / ASSUMED_FILL_RATE as f64));
        fill_time.unwrap_or(LONGEST_NAP.1).clamp(LONGEST_NAP.0, LONGEST_NAP.1)
    }

    /// Polls every ring once. Whether anything was there. With nothing anywhere, a load for each ring is all it costs.
    fn poll(&mut self) -> bool {
        if !self.intakes.iter().any(Intake::has_news) {
            return false;
        }
        let now = now_ns();
        let horizons = self.horizons(now);
        let mut moved = false;
        for intake in &mut self.intakes {
            let model = self.models.get_mut(&intake.model).expect("a model lives as long as its rings");
            let until = horizons.get(&intake.model).copied().unwrap_or(u64::MAX);
            moved |= intake.poll(now, until, |instance, ts_ns, rows| {
                model.feed(instance, ts_ns, &rows, now, &self.closing);
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
        for intake in &mut self.intakes {
            intake.beat(now);
            let model = self.models.get_mut(&intake.model).expect("a model lives as long as its rings");
            if let Some(losses) = intake.new_losses() {
                model.lose(&losses, now, &self.closing);
            }
        }
    }

    fn close_due(&mut self) {
        let now = now_ns();
        for (id, model) in &mut self.models {
            let of_model = || self.intakes.iter().filter(|intake| intake.model == *id);
            let waiting_from = of_model().filter_map(|intake| intake.waiting_from(now)).min();
            let attached = of_model().any(|intake| intake.attached);
            model.close_due(now, waiting_from, attached, &self.closing);
        }
    }

    /// Looks for new rings, and lets go of those that are gone.
    fn scan(&mut self) {
        let found = match ring::scan(&self.settings.dir) {
            Ok(found) => found,
            Err(why) => return self.say_unreadable(why.to_string()),
        };
        self.unreadable = None;
        self.refused.retain(|refused, _| found.contains(refused));
        for new in &found {
            // By file and not by name: a ring may have two names, or have got another one.
            if !self.intakes.iter().any(|intake| intake.found.file == new.file) {
                self.attach(new);
            }
        }
        let now = now_ns();
        for intake in &mut self.intakes {
            let named = found.iter().any(|found| found.file == intake.found.file);
            intake.look_around(now, named, self.settings.limits.keep_abandoned);
        }
        self.let_go();
    }

    fn say_unreadable(&mut self, why: String) {
        if self.unreadable.as_ref() != Some(&why) {
            let (dir, uid, gid) = (self.settings.dir.display(), nix::unistd::geteuid(), nix::unistd::getegid());
            warn!(%dir, %uid, %gid, %why, "cannot read the ring directory: run producer and sidecar under a common user or group");
            self.unreadable = Some(why);
        }
    }

    fn attach(&mut self, found: &Found) {
        let limits = &self.settings.limits;
        let opened = if self.intakes.len() < limits.max_rings {
            Segment::open_found(found, limits.max_ring_bytes).map_err(|why| why.to_string())
        } else {
            Err(format!("{} rings are read already: raise limits.max_rings", limits.max_rings))
        };
        match opened {
            Ok(segment) => {
                self.refused.remove(found);
                let model = self.model_for(&segment);
                self.intakes.push(Intake::new(segment, found.clone(), model));
            }
            Err(why) => {
                if self.refused.get(found) != Some(&why) {
                    warn!(ring = %found.path.display(), %why, "not read");
                    self.refused.insert(found.clone(), why);
                }
            }
        }
    }

    /// Rings with equal specs feed one model. The first ring's wishes count.
    fn model_for(&mut self, segment: &Segment) -> u64 {
        let (schema, settings) = (segment.schema(), &self.settings);
        let spec = intake::spec_of(schema);
        let known = self.models.iter().find(|(_, model)| *model.spec == spec).map(|(id, _)| *id);
        let id = known.unwrap_or(self.next_model);
        let model = self.models.entry(id).or_insert_with(|| {
            let wished_rows = schema.reservoir_rows.map(|rows| rows.min(settings.limits.max_reservoir_rows));
            let period = settings.period.or(schema.period).unwrap_or(DEFAULT_PERIOD).max(MIN_PERIOD);
            let rows = settings.reservoir_rows.or(wished_rows).unwrap_or(DEFAULT_RESERVOIR);
            Model::new(spec, period, rows, self.started_ns)
        });
        self.next_model = self.next_model.max(id + 1);
        let value_bytes = schema.proba_dtype.size().max(schema.feature_dtype.size()).max(4);
        let bytes = Profile::bytes(&model.spec, model.reservoir_rows, value_bytes).saturating_mul(PROFILES_OF_A_MODEL);
        info!(
            ring = %segment.path().display(),
            model = model.spec.model,
            version = model.spec.version,
            period = ?model.period,
            reservoir_rows = model.reservoir_rows,
            model_bytes_at_most = bytes,
            "attached"
        );
        id
    }

    fn let_go(&mut self) {
        self.count_losses();
        self.intakes.retain(|intake| {
            if intake.is_over() {
                info!(ring = %intake.found.path.display(), "let go");
            }
            !intake.is_over()
        });
        let intakes = &self.intakes;
        self.models.retain(|id, model| !model.is_idle() || intakes.iter().any(|intake| intake.model == *id));
    }

    /// Drains what the rings hold now, and closes the open periods early.
    fn stop(&mut self) {
        let start = Instant::now();
        self.scan();
        let ends: Vec<u64> = self.intakes.iter().map(Intake::end).collect();
        let drained = |intakes: &[Intake]| intakes.iter().zip(&ends).all(|(intake, end)| intake.has_reached(*end));
        while !drained(&self.intakes) && start.elapsed() < self.settings.limits.drain_timeout {
            self.poll();
            self.close_due();
        }
        self.count_losses();
        for model in self.models.values_mut() {
            model.close_all(&self.closing);
        }
    }
}

/// One model's open periods.
struct Model {
    spec: Arc<Spec>,
    period: Duration,
    reservoir_rows: u64,
    seed: u64,
    periods: Periods<Profile>,
}

impl Model {
    fn new(spec: Spec, period: Duration, reservoir_rows: u64, started_ns: u64) -> Model {
        let name = [spec.model.as_bytes(), &[0], spec.version.as_bytes()].concat();
        let seed = u64::from(crc32c::crc32c(&name)) << 32;
        Model {
            spec: Arc::new(spec),
            period,
            reservoir_rows,
            seed,
            periods: Periods::new(period, started_ns, now_ns()),
        }
    }

    /// The sample of a period is seeded by model and period: the same records give the same sample.
    fn opener(&self) -> impl Fn(u64) -> Profile + use<> {
        let (spec, rows, seed) = (self.spec.clone(), self.reservoir_rows, self.seed);
        move |start_ns| Profile::new(spec.clone(), rows, seed ^ start_ns)
    }

    fn feed(&mut self, instance: &str, ts_ns: u64, rows: &Rows<'_>, now_ns: u64, closing: &Sender<(Period, Profile)>) {
        let open = self.opener();
        let (profile, timing) = self.periods.route(ts_ns, now_ns, open, |p, c| hand_over(closing, p, c));
        match timing {
            Timing::InTime => {}
            Timing::Late => profile.losses.late_rows += rows.count as u64,
            Timing::Early => profile.losses.early_rows += rows.count as u64,
        }
        if !profile.instances.contains(instance) {
            profile.instances.insert(instance.to_owned());
        }
        profile.update(rows);
    }

    fn lose(&mut self, losses: &Losses, now_ns: u64, closing: &Sender<(Period, Profile)>) {
        let open = self.opener();
        let profile = self.periods.newest(now_ns, open, |p, c| hand_over(closing, p, c));
        profile.losses.add(losses);
    }

    fn close_due(&mut self, now: u64, waiting_from: Option<u64>, attached: bool, closing: &Sender<(Period, Profile)>) {
        let open = self.opener();
        self.periods.close_due(now, waiting_from, attached, open, |p, c| hand_over(closing, p, c));
    }

    fn close_all(&mut self, closing: &Sender<(Period, Profile)>) {
        self.periods.close_all(|p, c| hand_over(closing, p, c));
    }

    fn is_idle(&self) -> bool {
        self.periods.is_empty()
    }
}

fn hand_over(closing: &Sender<(Period, Profile)>, period: Period, profile: Profile) {
    if closing.send((period, profile)).is_err() {
        warn!("the closing thread is gone: report lost");
    }
}
