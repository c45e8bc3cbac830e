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
