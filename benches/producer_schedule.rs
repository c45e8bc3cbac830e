//! What does a call cost when calls are due at fixed times, and a stall holds back the calls after it?
//!
//! ```text
//! cargo bench --bench producer_schedule
//! ```
//!
//! An open loop. In a closed one the next call waits until the last one is over, so one stall is one slow call, however many
//! requests would have come meanwhile: *coordinated omission*. Here call i is due at start + i × interval, whatever became of
//! the calls before it, and its latency counts from that time to its end. A call that stalls makes those after it late, and each
//! of them is charged for it. The loop spins until the next call is due; when it is behind it begins the next one at once.
//!
//! The sidecar drains the ring: the release program in a process of its own, with all its statistics. It was chosen over a
//! thread with a `Consumer` because the rhythm of its polls, the work between them and the lines it takes away are what a
//! producer lives with. The producer is kept on one core and the sidecar off it, if there is another. The yardstick is memcpy
//! of the same bytes into shared memory of the ring's size on the same schedule, while the sidecar polls an idle ring. Both take
//! turns, half a second of the schedule at a time.
//!
//! - from due: from when the call was due to its end.
//! - by itself: from its own begin to its end, as a closed loop has it: the same calls of the same run.
//! - p50 to max: of all turns together, less the mean of an empty call. A call begins up to one reading of the clock late.
//! - ×: from due, subject ÷ memcpy of the same round, median over the rounds and [interquartile range].
//!
//! Times are reported and never judged: the tail is this machine's scheduler and its neighbours at least as much as the call,
//! which is why memcpy has the same columns. In the end no record may have been dropped, and the sidecar's reports must hold
//! every row.

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use bench::calls::{self, Plain, Source};
use bench::clock::{Clock, now};
use bench::{Spread, percentile};
use std::path::Path;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};
use support::sidecar::{self, Sidecar, inspect, reports, total, wait_until_drained};
use support::{Producer, ring_dir};

/// (rows, features), calls a second: 200 bytes twice, 65,536 bytes.
const SCHEDULES: [((u32, u32), usize); 3] = [((1, 40), 20_000), ((1, 40), 200_000), ((64, 246), 2_000)];
const SUBJECTS: [&str; 2] = ["memcpy", "`mlw_write`, caller's time stamp"];

fn main() {
    bench::print_heading("producer_schedule");
    let clock = Clock::calibrated();
    clock.print();
    let (here, others) = bench::cores().split_first().map(|(&here, others)| (here, others.to_vec())).expect("a core");
    if others.is_empty() {
        println!("There is one core only: producer and sidecar share it.\n");
    } else {
        bench::pin_to(&others);
    }
    println!("| bytes | calls/s | call | counted | p50 ns | p99 ns | p99.9 ns | max ns | p50 × | p99 × |");
    println!("| ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (shape, per_second) in SCHEDULES {
        measure(&Source::new(shape), per_second, here, clock);
    }
}

fn measure(source: &Source, per_second: usize, here: usize, clock: Clock) {
    let (dir, output) = (ring_dir(), ring_dir());
    let mut schedule = Schedule::new(dir.path(), source, per_second, clock);
    let sidecar = Sidecar::start(dir.path(), output.path(), &[]);
    let rounds = thread::scope(|scope| scope.spawn(|| schedule.rounds(here)).join()).expect("a whole schedule");
    schedule.assert_nothing_was_dropped();
    let (status, log) = sidecar.stop();
    assert!(status.success(), "{log}");
    let reported = total(&reports(output.path()), "/rows");
    assert_eq!(reported, schedule.written * u64::from(source.rows), "every row has been reported");
    for i in 0..SUBJECTS.len() {
        print_rows(source.bytes().len(), per_second, i, &rounds);
    }
}

fn print_rows(bytes: usize, per_second: usize, subject: usize, rounds: &[[Turn; 2]]) {
    let ratio = |share| {
        let of = |turn: &Turn| percentile(&turn.from_due, share);
        Spread::new(rounds.iter().map(|[yardstick, subject]| of(subject) / of(yardstick)).collect()).to_string()
    };
    let ratios = if subject == 0 { ["1".into(), "1".into()] } else { [ratio(0.5), ratio(0.99)] };
    let turns = || rounds.iter().map(|round| &round[subject]);
    let [due, alone] = [together(turns().map(|turn| &turn.from_due)), together(turns().map(|turn| &turn.by_itself))];
    let name = SUBJECTS[subject];
    println!("| {bytes} | {per_second} | {name} | from due | {} | {} |", due.join(" | "), ratios.join(" | "));
    println!("| {bytes} | {per_second} | {name} | by itself | {} | | |", alone.join(" | "));
}

/// p50, p99, p99.9 and the maximum of all turns, as cells of a table.
fn together<'a>(turns: impl Iterator<Item = &'a Vec<f32>>) -> [String; 4] {
    let mut all: Vec<f32> = turns.flatten().copied().collect();
    all.sort_by(f32::total_cmp);
    [0.5, 0.99, 0.999, 1.0].map(|share| format!("{:.0}", percentile(&all, share)))
}

/* ---- the schedule ---- */

struct Schedule<'a> {
    source: &'a Source,
    per_second: usize,
    producer: Producer,
    plain: Plain,
    written: u64,
    failed: u64,
    clock: Clock,
}

impl<'a> Schedule<'a> {
    fn new(dir: &Path, source: &'a Source, per_second: usize, clock: Clock) -> Schedule<'a> {
        let (producer, plain) = (calls::open(dir, source), Plain::new(dir, source));
        Schedule { source, per_second, producer, plain, written: 0, failed: 0, clock }
    }

    /// Of both subjects in turn, the first of which only warms up.
    fn rounds(&mut self, here: usize) -> Vec<[Turn; 2]> {
        bench::pin_to(&[here]);
        let path = self.producer.path();
        sidecar::wait_until("the sidecar has found the ring", || inspect(&path)["consumer_epoch"] == 1);
        let rounds = if bench::quick() { 1 } else { 11 };
        (0..=rounds).map(|round| self.round(round % 2 == 0)).skip(1).collect()
    }

    fn round(&mut self, copy_first: bool) -> [Turn; 2] {
        if copy_first {
            let copied = self.copy();
            [copied, self.write()]
        } else {
            let written = self.write();
            [self.copy(), written]
        }
    }

    fn copy(&mut self) -> Turn {
        let (plain, source) = (&mut self.plain, self.source);
        run(self.clock, self.per_second, |_| plain.copy(source))
    }

    /// Stamped with the time it was due, which costs the loop nothing.
    fn write(&mut self) -> Turn {
        let (producer, source) = (&self.producer, self.source);
        let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
        let mut failed = 0;
        let turn = run(self.clock, self.per_second, |due_ns| {
            failed += u64::from(producer.write(&source.batch(start + due_ns)) != 0);
        });
        wait_until_drained(&self.producer.path());
        self.failed += failed;
        self.written += turn.by_itself.len() as u64;
        turn
    }

    fn assert_nothing_was_dropped(&self) {
        let counts = self.producer.counts();
        assert_eq!((self.failed, counts.dropped_records), (0, 0), "records were dropped: their calls were too fast");
        assert_eq!(counts.records, self.written);
    }
}

/// Nanoseconds of every call, sorted.
struct Turn {
    from_due: Vec<f32>,
    by_itself: Vec<f32>,
}

/// Calls with the nanoseconds from the start to when each is due.
fn run(clock: Clock, per_second: usize, mut call: impl FnMut(u64)) -> Turn {
    let calls = if bench::quick() { per_second / 50 } else { per_second / 2 };
    let (mut from_due, mut by_itself) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    let interval_ns = 1e9 / per_second as f64;
    let start = now();
    for i in 1..=calls {
        let due_ns = i as f64 * interval_ns;
        let due = start + clock.ticks(due_ns) as u64;
        let begin = wait_until(due);
        call(due_ns as u64);
        let end = now();
        from_due.push(clock.ns(end - due, 1));
        by_itself.push(clock.ns(end - begin, 1));
    }
    from_due.sort_by(f32::total_cmp);
    by_itself.sort_by(f32::total_cmp);
    Turn { from_due, by_itself }
}

/// The first reading of the clock that is not before it.
fn wait_until(due: u64) -> u64 {
    loop {
        let now = now();
        if now >= due {
            return now;
        }
    }
}
