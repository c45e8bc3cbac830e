//! Whether a rule has held often enough of late.

use crate::report::{AlertState, Severity};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A rule's word on one period, and what was made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    #[serde(with = "postcard::fixint::le")]
    pub start_ns: u64,
    /// It held, and this badly.
    pub severity: Option<Severity>,
    /// What the period's first report said of the alert, which it says once more if it is made again.
    told: Option<Told>,
}

/// What a report says of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub state: AlertState,
    pub severity: Severity,
    /// Of the alert.
    pub start_ns: u64,
}

/// The last periods of one rule on one subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    periods: VecDeque<Judged>,
    /// Start and severity of an alert that goes on.
    active: Option<(u64, Severity)>,
    /// Periods in a row with only one of the two that it is about, and the start of the last of them.
    alone: (u64, u64),
}

impl History {
    /// Memory of one period.
    pub const PERIOD: u64 = size_of::<Judged>() as u64;

    /// What becomes of the alert with this period: held in k of the last m it is there, and it started with the first of these. What
    /// was said of the same period before counts no longer.
    pub fn add(&mut self, start_ns: u64, severity: Option<Severity>, [k, m]: [u64; 2]) -> Option<Told> {
        self.judge(start_ns, severity, m);
        let times =
            |least: Severity| self.periods.iter().filter(|judged| judged.severity >= Some(least)).count() as u64;
        if times(Severity::Warning) >= k {
            let severity = if times(Severity::Critical) >= k { Severity::Critical } else { Severity::Warning };
            let first = self.periods.iter().find(|judged| judged.severity.is_some())?;
            let (state, start_ns) = match self.active {
                Some((start_ns, _)) => (AlertState::Firing, start_ns),
                None => (AlertState::Started, first.start_ns),
            };
            self.active = Some((start_ns, severity));
            return Some(Told { state, severity, start_ns });
        }
        self.active.take().map(|(start_ns, severity)| Told { state: AlertState::Ended, severity, start_ns })
    }

    /// The two are there.
    pub fn meet(&mut self) {
        self.alone.0 = 0;
    }

    /// Only one of the two is there, for more than m periods in a row: what goes on ends.
    pub fn miss(&mut self, start_ns: u64, m: u64) -> Option<Told> {
        if self.alone.0 > 0 && start_ns <= self.alone.1 {
            return None;
        }
        self.alone = (self.alone.0.saturating_add(1), start_ns);
        if self.alone.0 <= m {
            return None;
        }
        let ended =
            self.active.take().map(|(start_ns, severity)| Told { state: AlertState::Ended, severity, start_ns });
        *self = History::default();
        if ended.is_some() {
            self.judge(start_ns, None, m);
            self.tell(start_ns, ended);
        }
        ended
    }

    /// The oldest makes room before, and no more room is taken than is needed: memory is counted by m.
    fn judge(&mut self, start_ns: u64, severity: Option<Severity>, m: u64) {
        let judged = Judged { start_ns, severity, told: None };
        match self.place_of(start_ns) {
            Ok(at) => self.periods[at].severity = severity,
            Err(0) if self.periods.len() as u64 >= m => {}
            Err(at) if self.periods.len() as u64 >= m => {
                self.periods.pop_front();
                self.periods.insert(at - 1, judged);
            }
            Err(at) => {
                self.periods.reserve_exact(1);
                self.periods.insert(at, judged);
            }
        }
    }

    /// The first report of a period says this.
    pub fn tell(&mut self, start_ns: u64, told: Option<Told>) {
        if let Ok(at) = self.place_of(start_ns) {
            self.periods[at].told = told;
        }
    }

    /// What the first report of a period said, if the period was judged. One of before those that are remembered was all right.
    pub fn told_of(&self, start_ns: u64) -> Option<Option<Told>> {
        match self.place_of(start_ns) {
            Ok(at) => Some(self.periods[at].told),
            Err(at) => (at < self.periods.len()).then_some(None),
        }
    }

    /// What the first report of a period said, if the period is remembered.
    pub fn told_at(&self, start_ns: u64) -> Option<Option<Told>> {
        self.place_of(start_ns).ok().map(|at| self.periods[at].told)
    }

    fn place_of(&self, start_ns: u64) -> Result<usize, usize> {
        self.periods.binary_search_by_key(&start_ns, |judged| judged.start_ns)
    }

    /// No report will be made again.
    pub fn settle(&mut self) {
        self.periods.iter_mut().for_each(|judged| judged.told = None);
    }

    /// Nothing of it matters any more.
    pub fn is_clean(&self) -> bool {
        self.active.is_none() && self.periods.iter().all(|judged| judged.severity.is_none() && judged.told.is_none())
    }

    /// An alert goes on.
    pub fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Start of the last period it remembers.
    pub fn last_ns(&self) -> u64 {
        self.periods.back().map_or(0, |judged| judged.start_ns)
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.periods.capacity()
    }

    /// How many periods it remembers.
    pub fn len(&self) -> usize {
        self.periods.len()
    }

    /// Whether it can be one over `m` periods: what comes from a file may not be.
    pub fn fits(&self, m: u64) -> bool {
        let ascending = self.periods.iter().zip(self.periods.iter().skip(1)).all(|(a, b)| a.start_ns < b.start_ns);
        self.periods.len() as u64 <= m && ascending
    }

    /// Periods that are still to come would push out those that do: the clock was set back.
    pub fn forget_future(&mut self, now_ns: u64) {
        self.periods.retain(|judged| judged.start_ns <= now_ns);
    }
}
