//! How long the loop may sleep when no ring has anything.
//!
//! Producers make no system call, so nobody wakes the sidecar: it must look again before a ring that has been silent can be full.

use std::time::Duration;

/// What a producer may do out of the blue: no nap is so long that a ring filling at this rate, in bytes a second, overflows
/// meanwhile. A ring that has been seen to fill faster shortens it further.
const SUDDEN_RATE: f64 = 1e9;
/// Part of a ring's time to fill that may be slept away; the rest is for waking up, which takes as long as a time slice of somebody
/// else where the core is shared, and for the work of the turn. With three quarters, 21 of 20,480 records were dropped.
const SHARE: f64 = 0.5;
const FIRST: Duration = Duration::from_micros(50);
/// Rings below 2 MiB cannot be watched closely enough for [`SUDDEN_RATE`] at a bearable price.
const SHORTEST_LONGEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(20);

/// Naps that double up to a bound while nothing comes.
#[derive(Debug)]
pub struct Naps {
    next: Duration,
    longest: Duration,
}

impl Naps {
    pub fn new() -> Naps {
        Naps { next: FIRST, longest: LONGEST }
    }

    /// Fits the bound to the rings there are: capacity in bytes, and the fastest each was seen to fill in bytes a second.
    pub fn fit(&mut self, rings: impl Iterator<Item = (u64, f64)>) {
        let may_sleep = |(capacity, rate): (u64, f64)| SHARE * capacity as f64 / rate.max(SUDDEN_RATE);
        let seconds = rings.map(may_sleep).fold(LONGEST.as_secs_f64(), f64::min);
        self.longest = Duration::from_secs_f64(seconds).clamp(SHORTEST_LONGEST, LONGEST);
    }

    /// Something came.
    pub fn wake(&mut self) {
        self.next = FIRST;
    }

    /// The next nap.
    pub fn next(&mut self) -> Duration {
        let nap = self.next.min(self.longest);
        self.next = (nap * 2).min(self.longest);
        nap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ring_fills_during_a_nap() {
        for shift in 22..34 {
            for rate in [0.0, 1e8, 1e9, 1.5e9] {
                let mut naps = Naps::new();
                naps.fit([(1u64 << 33, 0.0), (1 << shift, rate)].into_iter());
                let longest = (0..20).map(|_| naps.next()).max().unwrap();
                let filled = longest.as_secs_f64() * rate.max(1e9);
                assert!(filled < 0.51 * (1u64 << shift) as f64, "2^{shift} bytes at {rate} B/s: {longest:?}");
            }
        }
    }

    #[test]
    fn naps_grow_while_nothing_comes_and_begin_anew_when_something_does() {
        let mut naps = Naps::new();
        naps.fit([(8 << 20, 0.0)].into_iter());
        let lengths: Vec<_> = (0..12).map(|_| naps.next()).collect();
        assert!(lengths.windows(2).all(|pair| pair[0] <= pair[1]) && lengths[0] == FIRST);
        assert_eq!(lengths[11], Duration::from_secs_f64(0.5 * f64::from(8 << 20) / 1e9));
        naps.wake();
        assert_eq!(naps.next(), FIRST);
    }
}
