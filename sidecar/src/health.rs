//! What the sidecar says of itself: counters since its start, plain data. `docs/report.md` documents every field.

use crate::period::utc;
use serde::Serialize;
use std::collections::BTreeMap;

/// Changes when a field changes its meaning or goes away.
pub const FORMAT: &str = "mlwatch.health/1";

/// How often something happened, by reason.
pub type ByReason = BTreeMap<&'static str, u64>;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Health {
    pub format: &'static str,
    pub version: &'static str,
    #[serde(serialize_with = "utc")]
    pub started: u64,
    #[serde(serialize_with = "utc")]
    pub time: u64,
    pub rings: u64,
    pub mapped_bytes: u64,
    pub models: u64,
    pub memory_bytes_at_most: u64,
    pub waiting_rows: u64,
    pub forgotten_rows: u64,
    pub records: u64,
    pub rows: u64,
    pub bytes: u64,
    pub lag_bytes: u64,
    pub producer_heartbeat_age: Seconds,
    pub period_lateness: Lateness,
    pub dropped_rows: ByReason,
    pub dropped_records: ByReason,
    pub missing_records: u64,
    pub crash_rows: u64,
    pub crash_records: u64,
    pub refused: ByReason,
    pub resyncs: ByReason,
    pub quarantined: ByReason,
    pub reports_lost: u64,
    pub forgotten_alerts: u64,
    pub checkpoints: Checkpoints,
    pub references: References,
}

/// The longest of several times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Seconds {
    pub n: u64,
    pub most_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl Seconds {
    /// From each of some times, in nanoseconds, until `now_ns`; what lies ahead has just been. `reason` where there are none.
    pub fn since(times: impl Iterator<Item = u64>, now_ns: u64, reason: &'static str) -> Seconds {
        let ages = times.map(|time| now_ns.saturating_sub(time));
        let (n, most) = ages.fold((0, None), |(n, most), age| (n + 1, most.max(Some(age))));
        Seconds { n, most_seconds: most.map(|most| most as f64 / 1e9), reason: most.is_none().then_some(reason) }
    }
}

/// How long after their ends periods were handed to the sinks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Lateness {
    pub n: u64,
    pub last_seconds: Option<f64>,
    pub most_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl Default for Lateness {
    fn default() -> Lateness {
        Lateness { n: 0, last_seconds: None, most_seconds: None, reason: Some("no_period") }
    }
}

impl Lateness {
    /// A period that ended at `end_ns` is handed over; one that an orderly stop cut short is not late.
    pub fn add(&mut self, end_ns: u64, now_ns: u64) {
        let Some(late) = now_ns.checked_sub(end_ns) else { return };
        let late = late as f64 / 1e9;
        let most = self.most_seconds.map_or(late, |most| most.max(late));
        *self = Lateness { n: self.n + 1, last_seconds: Some(late), most_seconds: Some(most), reason: None };
    }
}

#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct References {
    pub loaded: u64,
    pub bytes: u64,
    pub refused: ByReason,
}

#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Checkpoints {
    pub written: u64,
    pub failed: u64,
    pub damaged: ByReason,
    pub bytes: u64,
    pub tail_seconds: f64,
    pub writer_seconds: f64,
}

impl Health {
    /// Of a sidecar that starts at `now_ns`.
    pub fn new(now_ns: u64) -> Health {
        Health {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            started: now_ns,
            time: now_ns,
            rings: 0,
            mapped_bytes: 0,
            models: 0,
            memory_bytes_at_most: 0,
            waiting_rows: 0,
            forgotten_rows: 0,
            records: 0,
            rows: 0,
            bytes: 0,
            lag_bytes: 0,
            producer_heartbeat_age: Seconds::default(),
            period_lateness: Lateness::default(),
            dropped_rows: ByReason::new(),
            dropped_records: ByReason::new(),
            missing_records: 0,
            crash_rows: 0,
            crash_records: 0,
            refused: ByReason::new(),
            resyncs: ByReason::new(),
            quarantined: ByReason::new(),
            reports_lost: 0,
            forgotten_alerts: 0,
            checkpoints: Checkpoints::default(),
            references: References::default(),
        }
    }
}

/// One more. Saturates, like all that a hostile producer can make count.
pub fn count(by_reason: &mut ByReason, reason: &'static str, by: u64) {
    if by > 0 {
        let count = by_reason.entry(reason).or_default();
        *count = count.saturating_add(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_times_the_longest_counts_and_of_none_the_reason() {
        let since = Seconds::since([4_000_000_000, 9_000_000_000, 1].into_iter(), 5_000_000_001, "no_producer");
        assert_eq!(since, Seconds { n: 3, most_seconds: Some(5.0), reason: None });
        let none = Seconds::since([].into_iter(), 5, "no_producer");
        assert_eq!(none, Seconds { n: 0, most_seconds: None, reason: Some("no_producer") });
    }

    #[test]
    fn lateness_is_that_of_the_last_period_and_the_most() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.reason, Some("no_period"));
        lateness.add(10, 3_000_000_010);
        lateness.add(10, 1_000_000_010);
        lateness.add(2_000_000_010, 10);
        assert_eq!(
            lateness,
            Lateness { n: 2, last_seconds: Some(1.0), most_seconds: Some(3.0), reason: None },
            "the third was cut short"
        );
    }
}
