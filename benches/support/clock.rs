//! Times single calls: on x86-64 by the fenced time stamp counter, elsewhere by the monotonic clock.

use std::hint::black_box;
use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub struct Clock {
    ns_per_tick: f64,
    step_ns: f64,
    /// Between two readings with an empty call in between.
    empty_ns: f64,
}

impl Clock {
    pub fn calibrated() -> Clock {
        let (start, ticks) = (Instant::now(), now());
        while start.elapsed() < Duration::from_millis(50) {}
        let ns_per_tick = start.elapsed().as_nanos() as f64 / (now() - ticks) as f64;
        let mut empty: Vec<u64> = (0..100_000).map(|_| time_nothing()).collect();
        empty.sort_unstable();
        empty.truncate(99_000); // the rest was interrupted
        let mean = empty.iter().sum::<u64>() as f64 / empty.len() as f64;
        // Steps of a clock coarser than its ticks differ by one tick, for they are rounded.
        let step = empty.windows(2).map(|pair| pair[1] - pair[0]).filter(|&step| step > 1).min();
        Clock { ns_per_tick, step_ns: step.unwrap_or(1) as f64 * ns_per_tick, empty_ns: mean * ns_per_tick }
    }

    /// Nanoseconds per call, less the clock's own.
    pub fn ns(&self, ticks: u64, calls: usize) -> f32 {
        ((ticks as f64 * self.ns_per_tick - self.empty_ns) / calls as f64).max(0.0) as f32
    }

    pub fn ticks(&self, ns: f64) -> f64 {
        ns / self.ns_per_tick
    }

    pub fn print(&self) {
        println!("Clock: steps of {:.0} ns, {:.0} ns for an empty call.\n", self.step_ns, self.empty_ns);
    }
}

fn time_nothing() -> u64 {
    let call: fn() = black_box(|| ());
    let start = now();
    call();
    now() - start
}

/// The fence waits for the instructions before it, not for their stores to leave the core.
#[cfg(target_arch = "x86_64")]
pub fn now() -> u64 {
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
pub fn now() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}
