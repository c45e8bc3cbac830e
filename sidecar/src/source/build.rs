//! Rows in, a reference out.

use super::batch::Batch;
use super::{SourceError, bands::Numbers, chunks::chunks};
use crate::period::Period;
use crate::profile::{Profile, Rows, Spec};
use crate::reference::Reference;
use crate::report::Report;
use crate::ring::wire;
use crate::stats::Element;
use std::ops::Range;
use std::sync::Arc;

/// Rows in the sample that distributions come from, unless more than [`MOST_BYTES`] would be taken.
pub const DEFAULT_SAMPLE_ROWS: u64 = 1_000_000;
/// Of a profile.
pub const MOST_BYTES: u64 = 1 << 30;
/// Into which rows are cut to see how much numbers go up and down.
pub const DEFAULT_PERIODS: u64 = 20;
/// In one of them: with fewer, chance is most of what is seen.
const LEAST_PERIOD_ROWS: u64 = 50;

/// How much there is.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Extent {
    pub rows: usize,
    pub classes: usize,
    pub features: usize,
}

/// Rows of known number, read in order.
pub trait Source {
    /// How much there is.
    fn extent(&self) -> Extent;
    /// What each feature's numbers are, where they are not all of one type; else nothing.
    fn feature_elements(&self) -> Vec<Element> {
        Vec::new()
    }
    /// The rows that follow those of the last call.
    fn read(&mut self, rows: Range<usize>) -> Result<Batch, SourceError>;
}

/// A profile for a reference: its sample holds every row, as far as there may be so many.
pub fn profile(spec: Arc<Spec>, most_sample_rows: u64) -> Profile {
    let rows = Profile::rows_within(spec.size(), MOST_BYTES, size_of::<f64>() as u64);
    let seed = spec.seed();
    Profile::new(spec, most_sample_rows.min(rows), seed)
}

/// The same rows give the same reference.
pub fn build(
    source: &mut dyn Source,
    spec: Spec,
    most_sample_rows: u64,
    periods: u64,
) -> Result<Reference, SourceError> {
    let Extent { rows, classes, features } = source.extent();
    if rows == 0 {
        return Err(SourceError::Options("there are no rows, and of nothing there is no reference".into()));
    }
    let spec = Arc::new(spec);
    let mut whole = profile(spec.clone(), most_sample_rows);
    let mut cut = Cut::new(spec, rows, periods);
    for range in chunks(rows, classes + features) {
        let batch = source.read(range.clone())?;
        whole.update(&batch.rows(0..batch.count));
        cut.add(range.start, &batch);
    }
    let reference = Reference::of(&whole).with_feature_elements(&source.feature_elements());
    Ok(reference.with_bands(cut.numbers.bands()))
}

/// The rows as if they had come over several periods.
struct Cut {
    ends: Vec<usize>,
    open: Slice,
    numbers: Numbers,
}

impl Cut {
    fn new(spec: Arc<Spec>, rows: usize, periods: u64) -> Cut {
        let periods = periods.min(rows as u64 / LEAST_PERIOD_ROWS);
        let end = |i| (i as u128 * rows as u128 / u128::from(periods)) as usize;
        let ends = if periods < 2 { Vec::new() } else { (1..=periods).map(end).rev().collect() };
        Cut { open: Slice::new(spec), ends, numbers: Numbers::default() }
    }

    fn add(&mut self, first: usize, batch: &Batch) {
        let mut start = 0;
        while start < batch.count
            && let Some(end) = self.ends.last().copied()
        {
            let until = batch.count.min(end - first);
            self.open.update(&batch.rows(start..until));
            start = until;
            if first + until == end {
                self.ends.pop();
                self.open.close(&mut self.numbers);
            }
        }
    }
}

/// The rows of one period.
pub struct Slice {
    spec: Arc<Spec>,
    /// Its sample is empty: bands are of numbers over every row.
    open: Profile,
}

impl Slice {
    /// Without rows.
    pub fn new(spec: Arc<Spec>) -> Slice {
        Slice { open: Profile::new(spec.clone(), 0, 0), spec }
    }

    /// As a profile takes them.
    pub fn update(&mut self, rows: &Rows<'_>) {
        self.open.update(rows);
    }

    /// Adds its numbers, unless it has too few rows, and begins anew.
    pub fn close(&mut self, numbers: &mut Numbers) {
        let closed = std::mem::replace(&mut self.open, Profile::new(self.spec.clone(), 0, 0));
        if closed.rows >= LEAST_PERIOD_ROWS {
            let period = Period { start_ns: 0, end_ns: 1, partial: false };
            numbers.add_report(&Report::of(period, &closed, wire::DROP_REASON_NAMES));
        }
    }
}
