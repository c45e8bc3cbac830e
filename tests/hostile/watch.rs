//! The honest producer beside an attack, and what is seen of the sidecar meanwhile.

use crate::support::sidecar::{Sidecar, each_report_line, total, wait_until};
use crate::support::{Counts, Options, Producer, RawBatch, batch};
use mlwatch::ring::Snapshot;
use serde_json::Value;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// A thread that writes through the real library, at a rate any sidecar keeps up with.
pub struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Counts>,
    pub path: PathBuf,
}

impl Honest {
    pub fn start(dir: &Path, period_ns: u64) -> Honest {
        let options = Options { model: "honest".into(), ring_bytes: 1 << 22, period_ns, ..Options::default() };
        let producer = Producer::open(dir, &options).unwrap();
        let (path, stop) = (producer.path(), Arc::new(AtomicBool::new(false)));
        let until = stop.clone();
        let thread = thread::spawn(move || {
            let (proba, features) = ([[0.7f32, 0.2, 0.1]; 16], [[1f32, 2.0]; 16]);
            let one =
                RawBatch { rows: 16, proba: proba.as_ptr().cast(), features: features.as_ptr().cast(), ..batch() };
            while !until.load(Relaxed) {
                producer.write(&one);
                sleep(Duration::from_millis(1));
            }
            wait_until("the honest ring is drained", || positions(&producer.path()).0 == positions(&producer.path()).1);
            producer.counts()
        });
        wait_until("the honest producer writes", || positions(&path).1 > 0);
        Honest { stop, thread, path }
    }

    /// Once everything written has been read.
    pub fn stop(self) -> Counts {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the honest ring is drained")
    }
}

/// Head and tail.
fn positions(ring: &Path) -> (u64, u64) {
    let snapshot = Snapshot::read(ring).expect("the honest ring stays sound");
    (snapshot.head, snapshot.tail)
}

/// What was measured.
#[derive(Default)]
pub struct Seen {
    /// Of the attacker.
    pub rounds: u64,
    /// Anonymous memory, the most at any time.
    pub memory: u64,
    /// The most that the sidecar ever said it may take.
    pub bound: u64,
    /// How long what stood in the honest ring waited for being read, at worst.
    pub wait: Duration,
    pub stop: Duration,
    pub lines: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let memory = format!("{:.1}, {:.1}", mib(self.memory), mib(self.bound));
        let (wait, stop) = (self.wait.as_millis(), self.stop.as_millis());
        write!(f, "{:>8} {memory:>14} {wait:>8} {stop:>8} {:>6}", self.rounds, self.lines)
    }
}

impl Seen {
    /// Looks until the time is over. Fails if the honest ring is not drained.
    pub fn watch(&mut self, sidecar: &Sidecar, honest: &Honest, output: &Path, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let (since, (_, tail)) = (Instant::now(), positions(&honest.path));
            wait_until("the sidecar reads what the honest producer has written", || {
                self.look(sidecar, output);
                positions(&honest.path).0 >= tail
            });
            self.wait = self.wait.max(since.elapsed());
        }
    }

    pub fn look(&mut self, sidecar: &Sidecar, output: &Path) {
        self.memory = self.memory.max(anonymous_bytes(sidecar.id()));
        if let Some(health) = health(output) {
            self.bound = self.bound.max(health["memory_bytes_at_most"].as_u64().unwrap());
        }
    }
}

fn anonymous_bytes(pid: u32) -> u64 {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10)
}

pub fn health(output: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(output.join("health.json")).ok()?).ok()
}

/// The honest stream's reports have every row in time, and nothing lost.
pub fn assert_undisturbed(output: &Path, counts: &Counts) {
    let honest: Vec<Value> = of_model(output, "honest").collect();
    assert!(counts.rows > 0 && counts.dropped_records == 0, "the honest producer dropped: {counts:?}");
    assert_eq!(total(&honest, "/rows"), counts.rows, "rows reported and rows written");
    for loss in ["dropped_rows", "crash_rows", "missing_records", "resyncs", "late_rows", "early_rows"] {
        assert_eq!(total(&honest, &format!("/losses/{loss}")), 0, "{loss}");
    }
}

/// Of a minute's attack there may be more than there is memory: one at a time, and read only if it is this model's.
pub fn of_model(output: &Path, model: &str) -> impl Iterator<Item = Value> {
    let named = format!(r#""model":"{model}""#);
    let lines = each_report_line(output).filter(move |line| line.contains(&named));
    lines.map(|line| serde_json::from_str(&line).expect("a report"))
}
