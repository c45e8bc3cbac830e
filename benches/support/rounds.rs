//! How calls are timed: one by one and in a row, in bursts, in turns.

use super::clock::{Clock, now};
use super::percentile;

const GROUP: usize = 32;

/// One subject's times of one round: nanoseconds a call.
#[derive(Default)]
pub struct Round {
    /// Each call timed by itself.
    pub each: Vec<f32>,
    /// 32 calls timed as one, or as many as there are in a burst.
    pub groups: Vec<f32>,
}

impl Round {
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
}
