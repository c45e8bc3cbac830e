//! Whether a rule has held often enough of late.

use crate::report::{AlertState, Severity};
use std::collections::VecDeque;

/// A rule's word on one period.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub start_ns: u64,
    /// It held, and this badly.
    pub severity: Option<Severity>,
}

/// The last periods of one rule on one subject.
#[derive(Debug, Default)]
pub struct History {
    periods: VecDeque<Judged>,
    /// Start and severity of an alert that goes on.
    active: Option<(u64, Severity)>,
}

impl History {
    /// What becomes of the alert with this period: held in k of the last m it is there, and it started with the first of these. What
    /// was said of the same period before counts no longer.
    pub fn add(&mut self, judged: Judged, [k, m]: [u64; 2]) -> Option<(AlertState, Severity, u64)> {
        match self.periods.binary_search_by_key(&judged.start_ns, |known| known.start_ns) {
            Ok(at) => self.periods[at] = judged,
            Err(at) => self.periods.insert(at, judged),
        }
        while self.periods.len() as u64 > m {
            self.periods.pop_front();
        }
        let times =
            |least: Severity| self.periods.iter().filter(|judged| judged.severity >= Some(least)).count() as u64;
        if times(Severity::Warning) >= k {
            let severity = if times(Severity::Critical) >= k { Severity::Critical } else { Severity::Warning };
            let first = self.periods.iter().find(|judged| judged.severity.is_some())?;
            let (state, start) = match self.active {
                Some((start, _)) => (AlertState::Firing, start),
                None => (AlertState::Started, first.start_ns),
            };
            self.active = Some((start, severity));
            return Some((state, severity, start));
        }
        self.active.take().map(|(start, severity)| (AlertState::Ended, severity, start))
    }

    /// Nothing of it matters any more.
    pub fn is_clean(&self) -> bool {
        self.active.is_none() && self.periods.iter().all(|judged| judged.severity.is_none())
    }
}
