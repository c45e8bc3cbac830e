//! When a period opens and closes.
//!
//! Periods are tumbling and aligned to the clock: period i spans [i·length, (i+1)·length) of Unix time. A record belongs to the
//! period of its own time stamp. A period closes once the clock has passed its end and nothing that could still belong to it is
//! waiting in a ring. Every row finds a period: what comes too late, or claims to come from the future or a distant past, goes to an
//! open one and is counted as such.
//!
//! At most [`MOST_OPEN`] periods are open, whatever time stamps producers invent.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use tracing::warn;

/// Bounds the memory of a model: each open period holds a profile.
pub const MOST_OPEN: usize = 2;
/// How long after its end a period waits for records that were written before it.
pub const GRACE: Duration = Duration::from_millis(200);
/// Records older than this are taken for a broken clock.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// After a pause of the whole machine, no more than this many empty periods are reported.
const MOST_EMPTY: u64 = 60;

/// Reads "60s", "5m", "1h 30m".
pub fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = <String as serde::Deserialize>::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

/// Reads "60s", "5m", "1h 30m".
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || format!("{text:?} is not a length of time such as \"60s\", \"5m\" or \"1h 30m\"");
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| help())?;
    Duration::try_from(parsed).map_err(|_| help())
}

/// Writes Unix time in ns as RFC 3339, always with milliseconds, so that it sorts as text.
pub fn utc<S: serde::Serializer>(ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(*ns)).map_err(serde::ser::Error::custom)?;
    serializer.collect_str(&format_args!("{time:.3}"))
}

/// One interval of Unix time, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// First instant.
    pub start_ns: u64,
    /// First instant after it.
    pub end_ns: u64,
    /// The sidecar was not there for all of it: another report may hold the rest.
    pub partial: bool,
}

/// Whether a record came when its time stamp says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Into the period of its time stamp.
    InTime,
    /// Its period is closed, or it is more than a day old.
    Late,
    /// Its time stamp is more than a period ahead of the clock.
    Early,
}

fn is_too_old(ts_ns: u64, now_ns: u64) -> bool {
    now_ns.saturating_sub(ts_ns) > MAX_AGE.as_nanos() as u64
}

/// A time stamp as far as it is believed: what cannot be counts as now.
pub fn believed(ts_ns: u64, now_ns: u64) -> u64 {
    if is_too_old(ts_ns, now_ns) { now_ns } else { ts_ns.min(now_ns) }
}

/// Whether periods of this length that start then can be open at a time, when those that start before `closed_before_ns` are closed
/// for good: few enough, one after the other, on the grid, and not among the closed ones.
pub fn can_be_open(starts_ns: &[u64], length: Duration, closed_before_ns: Option<u64>) -> bool {
    let length_ns = in_ns(length);
    let ascending = starts_ns.windows(2).all(|pair| pair[0] < pair[1]);
    let on_grid = |start_ns: &u64| start_ns.is_multiple_of(length_ns) && start_ns.checked_add(length_ns).is_some();
    let still_open = |start_ns: &u64| closed_before_ns.is_none_or(|closed_ns| *start_ns >= closed_ns);
    starts_ns.len() <= MOST_OPEN && ascending && starts_ns.iter().all(|start| on_grid(start) && still_open(start))
}

fn in_ns(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The open periods of one model, each with a `T` that collects it.
#[derive(Debug)]
pub struct Periods<T> {
    length_ns: u64,
    /// Ascending, at most [`MOST_OPEN`].
    open: Vec<(u64, T)>,
    /// Indices below this are closed for good; `None` until one has been.
    closed_before: Option<u64>,
    /// Periods that began before are partial.
    started_ns: u64,
    /// Periods before are not reported empty.
    watched_ns: u64,
}

impl<T> Periods<T> {
    /// Periods of `length`, watched from `now_ns` on by a sidecar that started at `started_ns`.
    pub fn new(length: Duration, started_ns: u64, now_ns: u64) -> Periods<T> {
        let length_ns = in_ns(length);
        Periods { length_ns, open: Vec::new(), closed_before: None, started_ns, watched_ns: now_ns }
    }

    /// Goes on with periods that a dead sidecar left open, by their start, and does not open again what it had closed before
    /// `closed_before_ns`. They [`can_be_open`].
    pub fn revive(&mut self, open: Vec<(u64, T)>, closed_before_ns: Option<u64>) {
        self.open = open.into_iter().map(|(start_ns, collected)| (start_ns / self.length_ns, collected)).collect();
        self.closed_before = closed_before_ns.map(|ns| ns / self.length_ns);
    }

    /// Start and collection of every open period.
    pub fn open_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.open.iter_mut().map(|(index, collected)| (*index * self.length_ns, collected))
    }

    /// The collection of the period that starts then, if it is open.
    pub fn open_at(&mut self, start_ns: u64) -> Option<&mut T> {
        self.open_mut().find_map(|(start, collected)| (start == start_ns).then_some(collected))
    }

    /// Every open period's collection.
    pub fn open(&self) -> impl Iterator<Item = &T> {
        self.open.iter().map(|(_, collected)| collected)
    }

    /// Start of the oldest open period.
    pub fn first_start_ns(&self) -> Option<u64> {
        self.open.first().map(|(index, _)| index * self.length_ns)
    }

    /// Start of the period of a record that is still to come, or of a later one if that is closed for good.
    pub fn start_for(&self, ts_ns: u64) -> u64 {
        (ts_ns / self.length_ns).max(self.closed_before.unwrap_or(0)).saturating_mul(self.length_ns)
    }

    /// Periods that start before are closed for good.
    pub fn closed_before_ns(&self) -> Option<u64> {
        self.closed_before.map(|index| index.saturating_mul(self.length_ns))
    }

    /// Whether `close_due` would close anything, which costs more to do than to ask.
    pub fn has_due(&self, now_ns: u64, empty: bool) -> bool {
        let due_before = now_ns.saturating_sub(GRACE.as_nanos() as u64) / self.length_ns;
        let first_empty = self.closed_before.unwrap_or(0).max(self.watched_ns / self.length_ns);
        self.was_set_back(now_ns)
            || (empty && first_empty < due_before)
            || self.open.iter().any(|(index, _)| *index < due_before)
    }

    /// The open period for a record, and its start. May have to close the oldest to make room.
    pub fn route(
        &mut self,
        ts_ns: u64,
        now_ns: u64,
        open: impl FnOnce(u64) -> T,
        mut closed: impl FnMut(Period, T),
    ) -> (u64, &mut T, Timing) {
        let (index, timing) = self.place(ts_ns, now_ns);
        let at = match self.open.binary_search_by_key(&index, |(i, _)| *i) {
            Ok(at) => at,
            Err(_) => {
                if self.open.len() == MOST_OPEN {
                    self.close_oldest(false, &mut closed);
                }
                let at = self.open.partition_point(|(i, _)| *i < index);
                self.open.insert(at, (index, open(index * self.length_ns)));
                at
            }
        };
        (index * self.length_ns, &mut self.open[at].1, timing)
    }

    /// The newest open period, or the current one if none is: for what has no time of its own.
    pub fn newest(&mut self, now_ns: u64, open: impl FnOnce(u64) -> T, closed: impl FnMut(Period, T)) -> &mut T {
        let ts_ns = self.open.last().map_or(now_ns, |(index, _)| index * self.length_ns);
        self.route(ts_ns, now_ns, open, closed).1
    }

    /// The first time stamp that must wait while records as old as `oldest_ns` do: later periods would push theirs out.
    pub fn horizon(&self, oldest_ns: u64) -> u64 {
        (oldest_ns / self.length_ns + MOST_OPEN as u64).saturating_mul(self.length_ns)
    }

    fn place(&self, ts_ns: u64, now_ns: u64) -> (u64, Timing) {
        let (index, current) = (ts_ns / self.length_ns, now_ns / self.length_ns);
        let oldest_open = self.open.first().map(|(i, _)| *i);
        let full = self.open.len() == MOST_OPEN;
        let first_possible = self.closed_before.unwrap_or(0).max(if full { oldest_open.unwrap_or(0) } else { 0 });
        let too_old = is_too_old(ts_ns, now_ns);
        if index > current + 1 {
            (current.max(first_possible), Timing::Early)
        } else if index < first_possible || too_old {
            (oldest_open.unwrap_or(current.max(first_possible)), Timing::Late)
        } else {
            (index, Timing::InTime)
        }
    }

    /// Closes what the clock has passed. `waiting_from` is the least time stamp that may still come out of a ring, if any waits.
    /// With `empty`, periods without a record are opened and closed as well. At most `most` at a time, unless the clock was set back.
    pub fn close_due(
        &mut self,
        now_ns: u64,
        waiting_from: Option<u64>,
        empty: bool,
        most: usize,
        open: impl Fn(u64) -> T,
        mut closed: impl FnMut(Period, T),
    ) {
        self.follow_clock_back(now_ns, &mut closed);
        let settled = now_ns.saturating_sub(GRACE.as_nanos() as u64).min(waiting_from.unwrap_or(u64::MAX));
        let due_before = settled / self.length_ns;
        for _ in 0..most {
            let oldest = self.open.first().map(|(index, _)| *index).filter(|index| *index < due_before);
            let missing = if empty { self.first_missing(due_before) } else { None };
            match (oldest, missing) {
                (_, Some(index)) if oldest.is_none_or(|oldest| index < oldest) => {
                    closed(self.period(index, false), open(index * self.length_ns));
                    self.closed_before = Some(index + 1);
                }
                (Some(_), _) => self.close_oldest(false, &mut closed),
                (None, _) => break,
            }
        }
    }

    fn was_set_back(&self, now_ns: u64) -> bool {
        let in_future = |index: u64| index > now_ns / self.length_ns + 1;
        self.closed_before.is_some_and(in_future) || self.open.last().is_some_and(|(index, _)| in_future(*index))
    }

    /// A clock that is set back leaves periods open that never come due, and closed ones that are still to be lived through.
    fn follow_clock_back(&mut self, now_ns: u64, closed: &mut impl FnMut(Period, T)) {
        if self.was_set_back(now_ns) {
            let current = now_ns / self.length_ns;
            warn!("the clock was set back: open periods are closed early, and some periods may be reported twice");
            self.close_all(closed);
            self.closed_before = Some(current);
            self.started_ns = self.started_ns.min(now_ns);
            self.watched_ns = self.watched_ns.min(now_ns);
        }
    }

    /// The first period before `due_before` in which nothing came.
    fn first_missing(&self, due_before: u64) -> Option<u64> {
        let first = self.closed_before.unwrap_or(0).max(self.watched_ns / self.length_ns);
        let is_open = |index: &u64| self.open.iter().any(|(open, _)| open == index);
        (first.max(due_before.saturating_sub(MOST_EMPTY))..due_before).find(|index| !is_open(index))
    }

    /// Closes everything, over or not.
    pub fn close_all(&mut self, mut closed: impl FnMut(Period, T)) {
        while !self.open.is_empty() {
            self.close_oldest(true, &mut closed);
        }
    }

    /// Whether no period is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn close_oldest(&mut self, cut_short: bool, closed: &mut impl FnMut(Period, T)) {
        let (index, collected) = self.open.remove(0);
        self.closed_before = self.closed_before.max(Some(index + 1));
        closed(self.period(index, cut_short), collected);
    }

    fn period(&self, index: u64, cut_short: bool) -> Period {
        let start_ns = index * self.length_ns;
        let end_ns = start_ns.saturating_add(self.length_ns);
        // Whoever was there before may have reported some of it.
        Period { start_ns, end_ns, partial: cut_short || start_ns < self.started_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;
    const NOW: u64 = 1_700_000_000 * S;

    /// Start and rows of each open period; start, rows and `partial` of the closed ones in order.
    struct Log {
        periods: Periods<(u64, u64)>,
        closed: Vec<(u64, u64, bool)>,
    }

    impl Log {
        fn new(length_s: u64) -> Log {
            Log { periods: Periods::new(Duration::from_secs(length_s), NOW, NOW), closed: Vec::new() }
        }

        fn row(&mut self, ts: u64, now: u64) -> Timing {
            let closed = &mut self.closed;
            let length = self.periods.length_ns;
            let push = |p: Period, (_, n)| closed.push((p.start_ns / S, n, p.partial));
            let (placed, (start, count), timing) = self.periods.route(ts, now, |start| (start, 0), push);
            assert_eq!(placed, *start);
            *count += 1;
            assert!(timing != Timing::InTime || *start == ts / length * length, "in time, and elsewhere");
            timing
        }

        fn tick(&mut self, now: u64, waiting_from: Option<u64>, empty: bool) {
            let closed = &mut self.closed;
            let push = |p: Period, (_, n)| closed.push((p.start_ns / S, n, p.partial));
            self.periods.close_due(now, waiting_from, empty, usize::MAX, |start| (start, 0), push);
        }

        fn stop(&mut self) {
            let closed = &mut self.closed;
            self.periods.close_all(|p, (_, n)| closed.push((p.start_ns / S, n, p.partial)));
        }
    }

    #[test]
    fn a_record_belongs_to_the_period_of_its_own_time() {
        let mut log = Log::new(10);
        assert_eq!(log.row(NOW + 9 * S, NOW + 11 * S), Timing::InTime);
        assert_eq!(log.row(NOW + 10 * S, NOW + 11 * S), Timing::InTime);
        log.tick(NOW + 21 * S, None, false);
        assert_eq!(log.closed, [(1_700_000_000, 1, false), (1_700_000_010, 1, false)]);
    }

    #[test]
    fn periods_can_be_open_that_are_few_ascending_on_the_grid_and_not_closed() {
        let can =
            |starts_ns: &[u64], closed_before_ns| can_be_open(starts_ns, Duration::from_nanos(10), closed_before_ns);
        assert!(can(&[], None) && can(&[0], None) && can(&[70, 100], Some(70)));
        for (starts_ns, closed_before_ns) in [
            (&[10, 20, 30][..], None), // too many
            (&[20, 10], None),
            (&[20, 20], None),
            (&[20, 35], None),
            (&[60, 70], Some(70)),
            (&[u64::MAX - 5], None), // on the grid, but its end is beyond all time
        ] {
            assert!(!can(starts_ns, closed_before_ns), "{starts_ns:?}, {closed_before_ns:?}");
        }
    }

    #[test]
    fn a_period_waits_for_records_still_in_a_ring() {
        let mut log = Log::new(10);
        log.row(NOW + 9 * S, NOW + 9 * S);
        log.tick(NOW + 30 * S, Some(NOW + 9 * S), false);
        assert_eq!(log.closed, []);
        log.tick(NOW + 30 * S, Some(NOW + 10 * S), false);
        assert_eq!(log.closed.len(), 1);
    }

    #[test]
    fn a_late_row_is_counted_in_an_open_period() {
        let mut log = Log::new(10);
        log.row(NOW, NOW);
        log.tick(NOW + 11 * S, None, false);
        assert_eq!(log.row(NOW + 5 * S, NOW + 12 * S), Timing::Late);
        log.tick(NOW + 21 * S, None, false);
        assert_eq!(log.closed, [(1_700_000_000, 1, false), (1_700_000_010, 1, false)]);
    }

    #[test]
    fn a_row_from_the_future_is_counted_now() {
        let mut log = Log::new(10);
        assert_eq!(log.row(u64::MAX, NOW), Timing::Early);
        assert_eq!(log.row(0, NOW), Timing::Late);
        log.tick(NOW + 11 * S, None, false);
        assert_eq!(log.closed, [(1_700_000_000, 2, false)]);
    }

    #[test]
    fn empty_periods_are_reported_while_a_producer_is_there() {
        let mut log = Log::new(10);
        log.row(NOW + 25 * S, NOW + 25 * S);
        log.tick(NOW + 41 * S, None, true);
        let starts: Vec<_> = log.closed.iter().map(|c| (c.0 - 1_700_000_000, c.1)).collect();
        assert_eq!(starts, [(0, 0), (10, 0), (20, 1), (30, 0)]);
        log.tick(NOW + 60 * S, None, false);
        assert_eq!(log.closed.len(), 4);
    }

    #[test]
    fn no_more_periods_are_closed_at_a_time_than_may_be() {
        let mut log = Log::new(10);
        log.row(NOW + 5 * S, NOW + 5 * S);
        log.row(NOW + 25 * S, NOW + 25 * S);
        let mut starts = Vec::new();
        for _ in 0..3 {
            let push = |p: Period, (_, n)| starts.push((p.start_ns / S - 1_700_000_000, n));
            log.periods.close_due(NOW + 61 * S, None, true, 2, |start| (start, 0), push);
        }
        assert_eq!(starts, [(0, 1), (10, 0), (20, 1), (30, 0), (40, 0), (50, 0)]);
    }

    #[test]
    fn a_period_the_sidecar_left_in_the_middle_is_partial() {
        let mut log = Log::new(10);
        log.row(NOW, NOW);
        log.stop();
        assert_eq!(log.closed, [(1_700_000_000, 1, true)]);
    }

    #[test]
    fn periods_that_began_before_the_sidecar_are_partial_and_later_ones_are_whole() {
        let mut log = Log::new(7); // NOW is not a multiple of 7 s
        for ts in [NOW - 20 * S, NOW, NOW + 7 * S] {
            log.row(ts, NOW + 8 * S);
        }
        log.tick(NOW + 30 * S, None, false);
        assert_eq!(log.closed.iter().map(|c| (c.1, c.2)).collect::<Vec<_>>(), [(1, true), (1, true), (1, false)]);
    }

    #[test]
    fn reports_go_on_after_the_clock_was_set_forward_and_back() {
        let mut log = Log::new(10);
        let far = NOW + 1_000_000 * S;
        log.row(NOW, NOW);
        log.row(far, far);
        log.tick(far, None, true);
        log.row(NOW + 30 * S, NOW + 30 * S);
        log.tick(NOW + 30 * S, None, true);
        log.row(NOW + 31 * S, NOW + 31 * S);
        log.closed.clear();
        log.tick(NOW + 51 * S, None, true);
        assert_eq!(log.closed, [(1_700_000_030, 1, false), (1_700_000_040, 0, false)]);
    }

    #[test]
    fn what_has_no_time_of_its_own_pushes_no_period_out() {
        let mut log = Log::new(10);
        log.row(NOW - 40 * S, NOW);
        log.row(NOW - 30 * S, NOW);
        log.periods.newest(NOW, |start| (start, 0), |_, _| panic!("pushed out")).1 += 1;
        log.tick(NOW, None, false);
        assert_eq!(log.closed.iter().map(|c| c.1).collect::<Vec<_>>(), [1, 2]);
    }

    proptest! {
        #[test]
        fn every_row_is_in_exactly_one_period_and_periods_close_once_in_order(
            steps in proptest::collection::vec((0..40u64, 0..6u64, any::<bool>(), prop_oneof![9 => Just(None), 1 => any::<u64>().prop_map(Some)]), 1..200),
        ) {
            let mut log = Log::new(5);
            let mut now = NOW;
            for &(back, forward, tick, wild) in &steps {
                now += forward * S;
                log.row(wild.unwrap_or(now - back * S), now);
                let starts: Vec<u64> = log.periods.open_mut().map(|(start_ns, _)| start_ns).collect();
                prop_assert!(can_be_open(&starts, Duration::from_secs(5), log.periods.closed_before_ns()), "{:?}", log.periods);
                if tick {
                    log.tick(now, None, true);
                }
            }
            log.stop();
            prop_assert_eq!(log.closed.iter().map(|c| c.1).sum::<u64>(), steps.len() as u64);
            prop_assert!(log.closed.windows(2).all(|pair| pair[0].0 < pair[1].0), "{:?}", log.closed);
        }
    }
}
