//! Is the first lap of a fresh ring slower than the second?
//!
//! ```text
//! cargo bench --bench producer_first_lap
//! ```
//!
//! `mlw_open` has the kernel find all pages of the ring, so that no call of the inference loop waits for one. Every round opens
//! a fresh ring of 8 MiB in a directory of its own and writes two laps, drained every half lap between the timed parts. For
//! contrast the same bytes go by memcpy into fresh shared memory of the same size: once populated before, once not.
//!
//! - lap 1, lap 2: time of a whole lap ÷ its calls, median over the fresh rings. Nothing is left out, as page faults are what is
//!   looked for.
//! - ×: lap 1 ÷ lap 2 of the same ring, median over the rings and [interquartile range].

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use bench::Spread;
use bench::calls::{Plain, Ring, Source};
use bench::clock::{Clock, now};
use std::path::Path;
use support::ring_dir;

/// (rows, features): 200, 4096 and 65,536 bytes.
const SHAPES: [(u32, u32); 3] = [(1, 40), (8, 118), (64, 246)];

type Laps = fn(&Path, &Source, Clock) -> [f64; 2];
const SUBJECTS: [(&str, Laps); 3] =
    [("memcpy, not populated", copy_unpopulated), ("memcpy, populated", copy), ("`mlw_write`", write)];

fn main() {
    bench::print_heading("producer_first_lap");
    bench::pin();
    let clock = Clock::calibrated();
    println!("| bytes | call | lap 1, ns | lap 2, ns | × |");
    println!("| ---: | --- | ---: | ---: | ---: |");
    for shape in SHAPES {
        let source = Source::new(shape);
        let rounds = rounds(&source, clock);
        for (i, (name, _)) in SUBJECTS.iter().enumerate() {
            print_row(source.bytes().len(), name, rounds.iter().map(|round| round[i]).collect());
        }
    }
}

/// Of all subjects in turn, after one that only warms up.
fn rounds(source: &Source, clock: Clock) -> Vec<[[f64; 2]; SUBJECTS.len()]> {
    let rounds = if bench::quick() { 1 } else { 41 };
    let round = |_| SUBJECTS.map(|(_, laps)| laps(ring_dir().path(), source, clock));
    (0..=rounds).map(round).skip(1).collect()
}

fn print_row(bytes: usize, name: &str, laps: Vec<[f64; 2]>) {
    let [first, second] = [0, 1].map(|lap| Spread::new(laps.iter().map(|ns| ns[lap]).collect()).median());
    let ratio = Spread::new(laps.iter().map(|[first, second]| first / second).collect());
    println!("| {bytes} | {name} | {first:.1} | {second:.1} | {ratio} |");
}

fn copy_unpopulated(dir: &Path, source: &Source, clock: Clock) -> [f64; 2] {
    let mut plain = Plain::unpopulated(dir, source);
    laps(source, clock, &mut plain, |plain| plain.copy(source), |_| ())
}

fn copy(dir: &Path, source: &Source, clock: Clock) -> [f64; 2] {
    let mut plain = Plain::new(dir, source);
    laps(source, clock, &mut plain, |plain| plain.copy(source), |_| ())
}

fn write(dir: &Path, source: &Source, clock: Clock) -> [f64; 2] {
    let mut ring = Ring::new(dir, source);
    let laps = laps(source, clock, &mut ring, |ring| ring.write(source), Ring::drain);
    ring.assert_nothing_was_lost();
    laps
}

/// Nanoseconds a call, of each lap.
fn laps<T>(source: &Source, clock: Clock, to: &mut T, call: impl Fn(&mut T), drain: impl Fn(&mut T)) -> [f64; 2] {
    let mut half = || {
        let start = now();
        (0..source.burst()).for_each(|_| call(to));
        let ns = clock.ns(now() - start, source.burst());
        drain(to);
        f64::from(ns)
    };
    [(); 2].map(|()| (half() + half()) / 2.0)
}
