//! What did not come through.

use super::{DropReasons, frequency};
use crate::profile::{DROP_REASONS, Profile};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Losses {
    pub dropped_rows: u64,
    pub dropped_records: u64,
    pub dropped_rows_by_reason: BTreeMap<&'static str, u64>,
    pub dropped_records_by_reason: BTreeMap<&'static str, u64>,
    pub crash_rows: u64,
    pub crash_records: u64,
    pub missing_records: u64,
    pub resyncs: u64,
    pub late_rows: u64,
    pub early_rows: u64,
    pub ring_fill_high_water: f64,
}

pub(super) fn losses(profile: &Profile, reasons: DropReasons) -> Losses {
    let losses = &profile.losses;
    let by_reason = |counts: &[u64; DROP_REASONS]| reasons.into_iter().zip(*counts).collect();
    let (used, capacity) = losses.high_water;
    Losses {
        dropped_rows: total(&losses.dropped_rows),
        dropped_records: total(&losses.dropped_records),
        dropped_rows_by_reason: by_reason(&losses.dropped_rows),
        dropped_records_by_reason: by_reason(&losses.dropped_records),
        crash_rows: losses.crash_rows,
        crash_records: losses.crash_records,
        missing_records: losses.missing_records,
        resyncs: losses.resyncs,
        late_rows: losses.late_rows,
        early_rows: losses.early_rows,
        ring_fill_high_water: frequency(used, capacity).unwrap_or(0.0),
    }
}

/// Saturates: a hostile producer may count anything.
fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}
