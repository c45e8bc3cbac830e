//! What does a sidecar with nothing to do cost, and is it back in time when a silent ring suddenly fills?
//!
//! ```text
//! cargo bench --bench idle
//! ```
//!
//! - idle: the real sidecar on rings that nobody writes to, its processor time over a minute (all threads, from
//!   /proc/PID/task/*/schedstat). Beside it, in the same minute, a thread of this process that does nothing but sleep as long as the
//!   sidecar's longest nap for rings of that size: what waking up costs on this machine, which no poller can go below. On virtual
//!   machines that is most of it.
//! - sudden: a ring of the default 8 MiB, silent for a second, is written at 1 GB/s for four times its size, in records of
//!   64 KiB each due at its own instant; again and again. Nothing may be dropped because the sidecar slept. What is dropped because
//!   the machine gave its core to somebody else would be in the last column too.

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use support::sidecar::{Sidecar, reports, wait_until, wait_until_drained};
use support::{Options, Producer, ring_dir};

/// Rings and MiB of each.
const IDLE: [(usize, u64); 4] = [(1, 8), (64, 8), (64, 32), (64, 1)];
const GIGABYTE: f64 = 1e9;

fn main() {
    bench::print_heading("idle");
    println!("| idle rings | MiB | nap ms | sidecar, % of a core | only sleeping, % | × |");
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    IDLE.into_iter().for_each(|(rings, mib)| measure_idle(rings, mib));
    println!("\n| bursts | GB/s | MiB each | fullest | records dropped |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    measure_sudden();
}

/* ---- idle ---- */

fn measure_idle(rings: usize, mib: u64) {
    let (dir, output) = (ring_dir(), tempfile::tempdir().expect("a directory"));
    let open = |i: usize| {
        let options = Options { model: format!("m{i}"), ring_bytes: mib << 20, ..Options::default() };
        Producer::open(dir.path(), &options).expect("room for the rings")
    };
    let producers: Vec<Producer> = (0..rings).map(open).collect();
    let sidecar = Sidecar::start(dir.path(), output.path(), &[]);
    wait_until("it has found them", || attached(&sidecar) == rings);
    let nap = Duration::from_secs_f64((0.5 * (mib << 20) as f64 / GIGABYTE).clamp(0.001, 0.02));
    let window = Duration::from_secs(if bench::quick() { 1 } else { 60 });
    let (before, start) = (process_seconds(sidecar.pid()), Instant::now());
    let sleeper = sleep_only(nap, window);
    let (seconds, elapsed) = (process_seconds(sidecar.pid()) - before, start.elapsed().as_secs_f64());
    let percent = |seconds: f64| 100.0 * seconds / elapsed;
    println!(
        "| {rings} | {mib} | {:.1} | {:.3} | {:.3} | {:.2} |",
        nap.as_secs_f64() * 1e3,
        percent(seconds),
        percent(sleeper),
        seconds / sleeper
    );
    sidecar.stop();
    drop(producers);
}

fn attached(sidecar: &Sidecar) -> usize {
    sidecar.log().matches("attached").count()
}

/// Processor seconds of a thread that only sleeps.
fn sleep_only(nap: Duration, window: Duration) -> f64 {
    let start = Instant::now();
    let before = bench::thread_seconds();
    while start.elapsed() < window {
        thread::sleep(nap);
    }
    bench::thread_seconds() - before
}

fn process_seconds(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let nanoseconds = threads.map(|thread| {
        let text = fs::read_to_string(thread.expect("a thread").path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    });
    nanoseconds.sum::<u64>() as f64 * 1e-9
}

/* ---- sudden ---- */

const FEATURES: usize = 64;
const ROWS: usize = 255; // with its header, 64 KiB a record

fn measure_sudden() {
    let (dir, output) = (ring_dir(), tempfile::tempdir().expect("a directory"));
    let ring_bytes = 8 << 20;
    let options = Options { n_features: FEATURES as u32, ring_bytes, reservoir_rows: 1, ..Options::default() };
    let producer = Producer::open(dir.path(), &options).expect("a ring");
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--period", "24h"]);
    wait_until("it has found the ring", || attached(&sidecar) == 1);
    let bursts = if bench::quick() { 2 } else { 40 };
    let bytes = 4 * ring_bytes;
    let mut seconds = 0.0;
    for _ in 0..bursts {
        thread::sleep(Duration::from_millis(if bench::quick() { 50 } else { 1000 }));
        seconds += burst(&producer, bytes);
        wait_until_drained(&producer.path());
    }
    let dropped = producer.counts().dropped_records;
    sidecar.stop();
    println!(
        "| {bursts} | {:.2} | {} | {:.0} % | {dropped} |",
        f64::from(bursts) * bytes as f64 / seconds / GIGABYTE,
        bytes >> 20,
        100.0 * fullest(output.path())
    );
}

/// Writes `bytes` at 1 GB/s. How long that took.
fn burst(producer: &Producer, bytes: u64) -> f64 {
    let values = vec![0.5f32; ROWS * FEATURES];
    let record = 64 + values.len() as u64 * 4;
    let start = Instant::now();
    for i in 0..bytes / record {
        let due = Duration::from_secs_f64((i * record) as f64 / GIGABYTE);
        while start.elapsed() < due {
            std::hint::spin_loop();
        }
        producer.write_features(&values, FEATURES);
    }
    start.elapsed().as_secs_f64()
}

fn fullest(output: &Path) -> f64 {
    let high_water = |report: &serde_json::Value| report["losses"]["ring_fill_high_water"].as_f64();
    reports(output).iter().filter_map(high_water).fold(0.0, f64::max)
}
