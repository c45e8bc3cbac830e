//! How calls are timed: one by one and in a row, in bursts, in turns.

use super::clock::{Clock, now};
use super::{Spread, percentile};

const GROUP: usize = 32;

/// One of several that take turns.
pub trait Subject {
    fn call(&mut self);

    /// Between timed bursts: makes room, so that no call finds its ring full.
    fn drain(&mut self);
}

/// Bursts of all subjects in turns; each burst begins with another one.
pub fn round<const N: usize>(
    subjects: &mut [&mut dyn Subject; N],
    clock: Clock,
    bursts: usize,
    calls: usize,
) -> [Round; N] {
    let mut rounds = [(); N].map(|()| Round::default());
    for burst in 0..bursts {
        for turn in 0..N {
            let i = (burst + turn) % N;
            rounds[i].burst(clock, calls, &mut *subjects[i]);
        }
    }
    rounds.map(Round::sorted)
}

/// One subject's times of one round: nanoseconds a call.
#[derive(Default)]
pub struct Round {
    /// Each call timed by itself.
    pub each: Vec<f32>,
    /// 32 calls timed as one, or as many as there are in a burst.
    pub groups: Vec<f32>,
}

impl Round {
    fn burst(&mut self, clock: Clock, calls: usize, subject: &mut dyn Subject) {
        subject.drain();
        self.time_each(clock, calls, || subject.call());
        subject.drain();
        self.time_groups(clock, calls, || subject.call());
        subject.drain();
    }

    pub fn time_each(&mut self, clock: Clock, calls: usize, mut call: impl FnMut()) {
        for _ in 0..calls {
            let start = now();
            call();
            self.each.push(clock.ns(now() - start, 1));
        }
    }

    pub fn time_groups(&mut self, clock: Clock, calls: usize, mut call: impl FnMut()) {
        let group = GROUP.min(calls);
        for _ in 0..calls / group {
            let start = now();
            (0..group).for_each(|_| call());
            self.groups.push(clock.ns(now() - start, group));
        }
    }

    pub fn sorted(mut self) -> Round {
        self.each.sort_by(f32::total_cmp);
        self.groups.sort_by(f32::total_cmp);
        self
    }

    pub fn p50(&self) -> f64 {
        percentile(&self.each, 0.5)
    }

    pub fn in_a_row(&self) -> f64 {
        percentile(&self.groups, 0.5)
    }

    /// The mean of all groups: with what happens once a burst, and with every interruption.
    pub fn whole(&self) -> f64 {
        self.groups.iter().map(|&ns| f64::from(ns)).sum::<f64>() / self.groups.len() as f64
    }
}

/// p50, p99 and p99.9 of all rounds together, and the median of what they say about calls in a row, as cells of a table.
pub fn cells(rounds: &[&Round]) -> [String; 4] {
    let mut each: Vec<f32> = rounds.iter().flat_map(|round| &round.each).copied().collect();
    each.sort_by(f32::total_cmp);
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| format!("{:.0}", percentile(&each, share)));
    let in_a_row = Spread::new(rounds.iter().map(|round| round.in_a_row()).collect()).median();
    [p50, p99, p999, format!("{in_a_row:.1}")]
}
