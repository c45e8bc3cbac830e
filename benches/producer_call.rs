//! What does one write cost the inference loop, against a plain memcpy of the same bytes?
//!
//! ```text
//! cargo bench --bench producer_call
//! ```
//!
//! The real libmlwatch.so writes records of 200 B to 512 KiB of f32, rows × (10 probabilities + features), into a ring of the
//! default 8 MiB. The yardstick copies the same source to a map of the same size on the same file system, walking it in the
//! same steps as the records do. Both take turns every half lap, for at least two laps a round.
//!
//! - p50, p99, p99.9: each call timed by itself (on x86-64 by the fenced time stamp counter, elsewhere by the monotonic clock),
//!   all rounds together, less the mean of an empty call timed the same way. The fence waits for the call's instructions, not
//!   for its stores to leave the core. The clock's step, printed above the table, is the error of a single time.
//! - in a row: 32 calls timed as one (7 of the largest), less one empty call; time per call, the median. The step does not blur
//!   it, and calls overlap as in a loop that does nothing else: the number to go by for small batches.
//! - ×: subject ÷ memcpy of the same round, median over the rounds and [interquartile range].
//!
//! A closed loop: the next call begins when the last one is over, so a delay holds back no arrivals and waiting in a queue is
//! not in these numbers. The ring is drained between timed calls by the same thread, so the cost of lines that a sidecar on
//! another core has read is not in them either; `producer_call.py` has a sidecar. In the end every record written must have been
//! read and none dropped: a dropped call is a fast call.

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use bench::{Spread, percentile};
use memmap2::MmapMut;
use mlwatch::ring::{Budget, Consumer, Segment};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{Options, Producer, RawBatch, RawReservation, api, batch, reservation, ring_dir};

const RING_BYTES: usize = 8 << 20;
const ALL: Budget = Budget { records: u64::MAX, bytes: u64::MAX };
const PROBA_AND_FEATURES: u32 = 3;
const CLASSES: u32 = 10;
/// (rows, features): 200, 4096, 65,536 and 524,288 bytes.
const SHAPES: [(u32, u32); 4] = [(1, 40), (8, 118), (64, 246), (128, 1014)];
/// A round has as many of each kind, or two laps' worth.
const LEAST_CALLS: usize = 400;
const GROUP: usize = 32;

type Call = fn(&mut Bench);
const SUBJECTS: [(&str, Call); 4] = [
    ("`mlw_write`, caller's time stamp", Bench::write),
    ("`mlw_write`, coarse clock", Bench::write_now),
    ("`mlw_reserve`, memcpy, `mlw_commit`", Bench::reserve_fill_commit),
    ("`mlw_reserve`, `mlw_commit`: no copy", Bench::reserve_commit),
];

fn main() {
    bench::print_heading("producer_call");
    bench::pin();
    let clock = Clock::calibrated();
    println!("Clock: steps of {:.0} ns, {:.0} ns for an empty call.\n", clock.step_ns, clock.empty_ns);
    println!("| bytes | call | p50 ns | p99 ns | p99.9 ns | p50 × | in a row ns | in a row × |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (rows, features) in SHAPES {
        measure_shape(rows, features, clock);
    }
}

fn measure_shape(rows: u32, features: u32, clock: Clock) {
    let dir = ring_dir();
    let mut bench = Bench::new(dir.path(), rows, features, clock);
    let compared = SUBJECTS.map(|(name, call)| (name, bench.compare(call)));
    let bytes = bench.bytes;
    let memcpy = compared.iter().flat_map(|(_, rounds)| rounds.iter().map(|[yardstick, _]| yardstick));
    print_row(bytes, "memcpy", &memcpy.collect::<Vec<_>>(), ["1".into(), "1".into()]);
    for (name, rounds) in &compared {
        let ratio =
            |of: fn(&Round) -> f64| Spread::new(rounds.iter().map(|[y, s]| of(s) / of(y)).collect()).to_string();
        let ratios = [ratio(|round| percentile(&round.each, 0.5)), ratio(Round::in_a_row)];
        print_row(bytes, name, &rounds.iter().map(|[_, subject]| subject).collect::<Vec<_>>(), ratios);
    }
    bench.assert_nothing_was_lost();
}

fn print_row(bytes: usize, name: &str, rounds: &[&Round], [p50_ratio, row_ratio]: [String; 2]) {
    let mut each: Vec<f32> = rounds.iter().flat_map(|round| &round.each).copied().collect();
    each.sort_by(f32::total_cmp);
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| percentile(&each, share));
    let in_a_row = Spread::new(rounds.iter().map(|round| round.in_a_row()).collect()).median();
    println!("| {bytes} | {name} | {p50:.0} | {p99:.0} | {p999:.0} | {p50_ratio} | {in_a_row:.1} | {row_ratio} |");
}

/* ---- what is timed ---- */

struct Bench {
    bytes: usize,
    rows: u32,
    source: MmapMut,
    producer: Producer,
    consumer: Consumer<Segment>,
    now_ns: u64,
    /// The yardstick's destination: shared memory like the ring.
    plain: MmapMut,
    at: usize,
    record_bytes: usize,
    written: u64,
    failed: u64,
    read: u64,
    clock: Clock,
}

impl Bench {
    fn new(dir: &Path, rows: u32, features: u32, clock: Clock) -> Bench {
        let options =
            Options { n_classes: CLASSES, n_features: features, ring_bytes: RING_BYTES as u64, ..Options::default() };
        let producer = Producer::open(dir, &options).expect("a ring");
        let segment = Segment::open(&producer.path(), u64::MAX).expect("a ring that its producer has just made");
        let schema = segment.schema().clone();
        let [proba, features] = [CLASSES, features].map(|columns| (rows * columns) as usize * size_of::<f32>());
        Bench {
            bytes: proba + features,
            rows,
            source: values(proba + features),
            producer,
            consumer: Consumer::new(segment, &schema),
            now_ns: SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64,
            plain: shared_memory(dir),
            at: 0,
            record_bytes: 64 + proba.next_multiple_of(64) + features.next_multiple_of(64),
            written: 0,
            failed: 0,
            read: 0,
            clock,
        }
    }

    fn proba_bytes(&self) -> usize {
        (self.rows * CLASSES) as usize * size_of::<f32>()
    }

    fn memcpy(&mut self) {
        if self.at + self.record_bytes > RING_BYTES {
            self.at = 0;
        }
        let to = self.at + 64;
        self.plain[to..to + self.bytes].copy_from_slice(&self.source);
        self.at += self.record_bytes;
    }

    fn write(&mut self) {
        self.write_at(self.now_ns);
    }

    fn write_now(&mut self) {
        self.write_at(0);
    }

    fn write_at(&mut self, timestamp_ns: u64) {
        let proba = self.source.as_ptr();
        let features = self.source[self.proba_bytes()..].as_ptr();
        let one = RawBatch { rows: self.rows, timestamp_ns, proba: proba.cast(), features: features.cast(), ..batch() };
        self.failed += u64::from(self.producer.write(&one) != 0);
        self.written += 1;
    }

    fn reserve_fill_commit(&mut self) {
        let (proba, features) = self.source.split_at(self.proba_bytes());
        let to = self.reserve();
        // SAFETY: the ring has reserved as many bytes for each section as the schema says, which is what the source has.
        unsafe {
            to.proba.cast::<u8>().copy_from_nonoverlapping(proba.as_ptr(), proba.len());
            to.features.cast::<u8>().copy_from_nonoverlapping(features.as_ptr(), features.len());
        }
        self.commit();
    }

    fn reserve_commit(&mut self) {
        black_box(self.reserve());
        self.commit();
    }

    fn reserve(&self) -> RawReservation {
        let mut wanted = RawReservation { timestamp_ns: self.now_ns, ..reservation(self.rows, PROBA_AND_FEATURES) };
        // SAFETY: the handle is open.
        assert_eq!(unsafe { (api().reserve)(self.producer.0, &mut wanted) }, 0, "the ring has room");
        wanted
    }

    fn commit(&mut self) {
        // SAFETY: the handle is open.
        self.failed += u64::from(unsafe { (api().commit)(self.producer.0) } != 0);
        self.written += 1;
    }

    /* ---- how ---- */

    /// Calls that fit between two drains.
    fn burst(&self) -> usize {
        RING_BYTES / 2 / self.record_bytes
    }

    fn bursts(&self) -> usize {
        let two_laps = 4;
        if bench::quick() { 1 } else { two_laps.max(LEAST_CALLS / self.burst()) }
    }

    fn compare(&mut self, call: Call) -> Vec<[Round; 2]> {
        let rounds = if bench::quick() { 2 } else { 31 };
        self.round([Bench::memcpy, call]);
        (0..rounds).map(|_| self.round([Bench::memcpy, call])).collect()
    }

    /// Of both calls, in turn.
    fn round(&mut self, calls: [Call; 2]) -> [Round; 2] {
        let mut rounds = [Round::default(), Round::default()];
        for burst in 0..self.bursts() {
            for i in [burst % 2, 1 - burst % 2] {
                self.time_each(calls[i], &mut rounds[i].each);
                self.time_groups(calls[i], &mut rounds[i].groups);
            }
        }
        rounds.map(Round::sorted)
    }

    fn time_each(&mut self, call: Call, times: &mut Vec<f32>) {
        self.drain();
        for _ in 0..self.burst() {
            let start = now();
            call(self);
            times.push(self.clock.ns(now() - start, 1));
        }
    }

    fn time_groups(&mut self, call: Call, times: &mut Vec<f32>) {
        self.drain();
        let group = GROUP.min(self.burst());
        for _ in 0..self.burst() / group {
            let start = now();
            (0..group).for_each(|_| call(self));
            times.push(self.clock.ns(now() - start, group));
        }
    }

    fn drain(&mut self) {
        let polled = self
            .consumer
            .poll(ALL, |_| true, |batch| assert_eq!(batch.rows, self.rows as usize))
            .sound()
            .expect("sound records");
        self.read += polled.records;
    }

    fn assert_nothing_was_lost(mut self) {
        self.drain();
        let counts = self.producer.counts();
        assert_eq!((self.failed, counts.dropped_records), (0, 0), "records were dropped: the numbers above are wrong");
        assert_eq!((counts.records, self.read), (self.written, self.written), "as many were read as written");
    }
}

fn values(bytes: usize) -> MmapMut {
    let mut map = MmapMut::map_anon(bytes).expect("memory");
    map.chunks_exact_mut(4).enumerate().for_each(|(i, to)| to.copy_from_slice(&(i as f32).to_ne_bytes()));
    map
}

fn shared_memory(dir: &Path) -> MmapMut {
    let file = tempfile::tempfile_in(dir).expect("a file beside the ring");
    file.set_len(RING_BYTES as u64).expect("room for it");
    // SAFETY: the file has no name, so nobody else can change it.
    let mut map = unsafe { MmapMut::map_mut(&file) }.expect("memory");
    map.fill(1);
    map
}

/// Nanoseconds a call, sorted.
#[derive(Default)]
struct Round {
    each: Vec<f32>,
    groups: Vec<f32>,
}

impl Round {
    fn sorted(mut self) -> Round {
        self.each.sort_by(f32::total_cmp);
        self.groups.sort_by(f32::total_cmp);
        self
    }

    fn in_a_row(&self) -> f64 {
        percentile(&self.groups, 0.5)
    }
}

/* ---- the clock ---- */

#[derive(Clone, Copy)]
struct Clock {
    ns_per_tick: f64,
    step_ns: f64,
    /// Between two readings with an empty call in between.
    empty_ns: f64,
}

impl Clock {
    fn calibrated() -> Clock {
        let (start, ticks) = (Instant::now(), now());
        while start.elapsed() < Duration::from_millis(50) {}
        let ns_per_tick = start.elapsed().as_nanos() as f64 / (now() - ticks) as f64;
        let mut empty: Vec<u64> = (0..100_000).map(|_| time_nothing()).collect();
        empty.sort_unstable();
        empty.truncate(99_000); // the rest was interrupted
        let mean = empty.iter().sum::<u64>() as f64 / empty.len() as f64;
        let step = empty.windows(2).map(|pair| pair[1] - pair[0]).filter(|&step| step > 0).min();
        Clock { ns_per_tick, step_ns: step.unwrap_or(1) as f64 * ns_per_tick, empty_ns: mean * ns_per_tick }
    }

    /// Nanoseconds per call, less the clock's own.
    fn ns(&self, ticks: u64, calls: usize) -> f32 {
        ((ticks as f64 * self.ns_per_tick - self.empty_ns) / calls as f64).max(0.0) as f32
    }
}

fn time_nothing() -> u64 {
    let call: fn() = black_box(|| ());
    let start = now();
    call();
    now() - start
}

#[cfg(target_arch = "x86_64")]
fn now() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 has both instructions.
    unsafe {
        _mm_lfence();
        let ticks = _rdtsc();
        _mm_lfence();
        ticks
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn now() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
