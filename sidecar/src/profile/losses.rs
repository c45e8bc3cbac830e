//! What did not come through, counted.

use serde::{Deserialize, Serialize};

/// How many reasons a drop can have; their names belong to the wire format.
pub const DROP_REASONS: usize = 5;

/// What did not come through as it should, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Records the producers dropped, by reason.
    pub dropped_records: [u64; DROP_REASONS],
    /// Rows the producers dropped, by reason.
    pub dropped_rows: [u64; DROP_REASONS],
    /// Records that a killed sidecar had read and nobody reports.
    pub crash_records: u64,
    /// Their rows.
    pub crash_rows: u64,
    /// Sequence numbers that never came.
    pub missing_records: u64,
    /// Times a ring was corrupt and its content given up.
    pub resyncs: u64,
    /// Rows whose period was already closed, or more than a day old.
    pub late_rows: u64,
    /// Rows with a time stamp from the future.
    pub early_rows: u64,
    /// Fullest any ring was seen, in bytes and of how many.
    pub high_water: (u64, u64),
}

impl Losses {
    /// Adds what else was lost. Saturates: a hostile producer may count anything.
    pub fn add(&mut self, other: &Losses) {
        for reason in 0..DROP_REASONS {
            self.dropped_records[reason] = self.dropped_records[reason].saturating_add(other.dropped_records[reason]);
            self.dropped_rows[reason] = self.dropped_rows[reason].saturating_add(other.dropped_rows[reason]);
        }
        self.crash_records = self.crash_records.saturating_add(other.crash_records);
        self.crash_rows = self.crash_rows.saturating_add(other.crash_rows);
        self.missing_records = self.missing_records.saturating_add(other.missing_records);
        self.resyncs = self.resyncs.saturating_add(other.resyncs);
        self.late_rows = self.late_rows.saturating_add(other.late_rows);
        self.early_rows = self.early_rows.saturating_add(other.early_rows);
        if other.high_water.0 > self.high_water.0 {
            self.high_water = other.high_water;
        }
    }
}
