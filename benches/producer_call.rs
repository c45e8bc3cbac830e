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
//! not in these numbers; `producer_schedule` has calls that are due at fixed times. The ring is drained between timed calls by
//! the same thread, so the cost of lines that a sidecar on another core has read is not in them either; `producer_reader` has
//! such a reader. In the end every record written must have been read and none dropped: a dropped call is a fast call.

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use bench::Spread;
use bench::calls::{Plain, Ring, Source};
use bench::clock::Clock;
use bench::rounds::{self, Round};
use std::hint::black_box;
use std::path::Path;
use support::{RawReservation, api, reservation, ring_dir};

const PROBA_AND_FEATURES: u32 = 3;
/// (rows, features): 200, 4096, 65,536 and 524,288 bytes.
const SHAPES: [(u32, u32); 4] = [(1, 40), (8, 118), (64, 246), (128, 1014)];
/// A round has as many of each kind, or two laps' worth.
const LEAST_CALLS: usize = 400;

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
    clock.print();
    println!("| bytes | call | p50 ns | p99 ns | p99.9 ns | p50 × | in a row ns | in a row × |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for shape in SHAPES {
        measure_shape(shape, clock);
    }
}

fn measure_shape(shape: (u32, u32), clock: Clock) {
    let dir = ring_dir();
    let mut bench = Bench::new(dir.path(), shape, clock);
    let compared = SUBJECTS.map(|(name, call)| (name, bench.compare(call)));
    let bytes = bench.source.bytes().len();
    let memcpy = compared.iter().flat_map(|(_, rounds)| rounds.iter().map(|[yardstick, _]| yardstick));
    print_row(bytes, "memcpy", &memcpy.collect::<Vec<_>>(), ["1".into(), "1".into()]);
    for (name, rounds) in &compared {
        let ratio =
            |of: fn(&Round) -> f64| Spread::new(rounds.iter().map(|[y, s]| of(s) / of(y)).collect()).to_string();
        let ratios = [ratio(Round::p50), ratio(Round::in_a_row)];
        print_row(bytes, name, &rounds.iter().map(|[_, subject]| subject).collect::<Vec<_>>(), ratios);
    }
    bench.ring.assert_nothing_was_lost();
}

fn print_row(bytes: usize, name: &str, rounds: &[&Round], [p50_ratio, row_ratio]: [String; 2]) {
    let [p50, p99, p999, in_a_row] = rounds::cells(rounds);
    println!("| {bytes} | {name} | {p50} | {p99} | {p999} | {p50_ratio} | {in_a_row} | {row_ratio} |");
}

/* ---- what is timed ---- */

struct Bench {
    source: Source,
    ring: Ring,
    plain: Plain,
    clock: Clock,
}

impl Bench {
    fn new(dir: &Path, shape: (u32, u32), clock: Clock) -> Bench {
        let source = Source::new(shape);
        Bench { ring: Ring::new(dir, &source), plain: Plain::new(dir, &source), source, clock }
    }

    fn memcpy(&mut self) {
        self.plain.copy(&self.source);
    }

    fn write(&mut self) {
        self.ring.write(&self.source);
    }

    fn write_now(&mut self) {
        self.ring.write_at(&self.source, 0);
    }

    fn reserve_fill_commit(&mut self) {
        let (proba, features) = self.source.sections();
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
        let wanted = reservation(self.source.rows, PROBA_AND_FEATURES);
        let mut wanted = RawReservation { timestamp_ns: self.ring.now_ns, ..wanted };
        // SAFETY: the handle is open.
        assert_eq!(unsafe { (api().reserve)(self.ring.producer.0, &mut wanted) }, 0, "the ring has room");
        wanted
    }

    fn commit(&mut self) {
        // SAFETY: the handle is open.
        let code = unsafe { (api().commit)(self.ring.producer.0) };
        self.ring.count(code == 0);
    }

    /* ---- how ---- */

    fn bursts(&self) -> usize {
        let two_laps = 4;
        if bench::quick() { 1 } else { two_laps.max(LEAST_CALLS / self.source.burst()) }
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
                self.burst(calls[i], &mut rounds[i]);
            }
        }
        rounds.map(Round::sorted)
    }

    fn burst(&mut self, call: Call, round: &mut Round) {
        let (clock, calls) = (self.clock, self.source.burst());
        self.ring.drain();
        round.time_each(clock, calls, || call(self));
        self.ring.drain();
        round.time_groups(clock, calls, || call(self));
    }
}
