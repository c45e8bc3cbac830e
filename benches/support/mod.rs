//! What the benches say, call, time and count the same way.
#![allow(dead_code, reason = "each bench uses its own part")]

pub mod calls;
pub mod clock;
pub mod rounds;

use nix::libc;
use std::fs;
use std::thread::available_parallelism;

/// A few iterations, only to see that the bench still works: without cargo's `--bench`, as under `cargo test --benches`.
pub fn quick() -> bool {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    has("--test") || !has("--bench") || std::env::var_os("MLWATCH_BENCH_QUICK").is_some()
}

/// Prints what every table must stand under: the machine and the command.
pub fn print_heading(bench: &str) {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name);
    let cores = available_parallelism().map_or(1, usize::from);
    let warning = if quick() { " (quick: these numbers mean nothing)" } else { "" };
    println!("{model}, {cores} cores: cargo bench --bench {bench}{warning}\n");
}

/// Keeps this thread on the core it is on, so that its caches stay its own. Which one that is.
pub fn pin() -> usize {
    // SAFETY: no arguments.
    let core = unsafe { libc::sched_getcpu() } as usize;
    pin_to(&[core]);
    core
}

/// Keeps this thread, and what it starts, on these cores.
pub fn pin_to(cores: &[usize]) {
    // SAFETY: the set is plain data, zeroed, and as long as stated; the call only concerns this thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cores.iter().for_each(|&core| libc::CPU_SET(core, &mut set));
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &set), 0, "cores may be chosen");
    }
}

/// Those that this thread may run on.
pub fn cores() -> Vec<usize> {
    // SAFETY: the set is plain data, zeroed, and as long as stated.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0, "cores may be listed");
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
    }
}

/// Processor time of this thread.
pub fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists since Linux 2.6.12, and `time` is ours to write.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The smallest value that at least `share` of the values do not exceed.
pub fn percentile(sorted: &[f32], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1].into()
}

/// One number per round, shown as its median and interquartile range.
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn new(mut rounds: Vec<f64>) -> Spread {
        rounds.sort_by(f64::total_cmp);
        Spread(rounds)
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    fn at(&self, share: f64) -> f64 {
        self.0[((self.0.len() - 1) as f64 * share).round() as usize]
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} [{:.2}, {:.2}]", self.median(), self.at(0.25), self.at(0.75))
    }
}
