//! A batch as a profile sees it: rows in place, of whatever element type.

use super::invalid::Occurrence;
use crate::stats::{self, Columns, Scalar};
use ndarray::{ArrayView1, ArrayView2};
use std::ops::Range;

/// A batch of rows, in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows<'a> {
    /// Rows in every part.
    pub count: usize,
    /// count × classes (or outputs).
    pub probabilities: Option<Columns<'a>>,
    /// count × features.
    pub features: Option<Columns<'a>>,
    /// What was right.
    pub labels: Option<Labels<'a>>,
    /// Whom the rows are about, for whoever else was asked the same.
    pub ids: Option<&'a [u64]>,
    /// Whom each row is about.
    pub segments: Option<&'a [u16]>,
    /// Where they come from, if from a ring.
    pub record: Option<Record<'a>>,
}

/// The record of a ring that rows came in.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Who wrote it.
    pub instance: &'a str,
    /// Its sequence number.
    pub sequence: u64,
    /// Unix time, ns, as the producer says.
    pub ts_ns: u64,
    /// Of its rows the first in hand.
    pub first_row: u64,
}

impl Record<'_> {
    /// Of the rows in hand one.
    pub(super) fn occurrence(&self, row: usize) -> Occurrence {
        Occurrence {
            instance: self.instance.to_owned(),
            sequence: self.sequence,
            ts_ns: self.ts_ns,
            row: self.first_row + row as u64,
        }
    }
}

/// What was right, in one of three encodings.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// A class index per row, −1 = not known.
    Classes(&'a [i32]),
    /// A flag per row and class.
    Sets(ArrayView2<'a, u8>),
    /// A value per row and output, NaN = not known.
    Targets(ArrayView2<'a, f64>),
}

impl<'a> Labels<'a> {
    /// Of some of the rows.
    pub fn slice(self, range: Range<usize>) -> Labels<'a> {
        match self {
            Labels::Classes(labels) => Labels::Classes(&labels[range]),
            Labels::Sets(sets) => Labels::Sets(stats::rows(sets, range)),
            Labels::Targets(targets) => Labels::Targets(stats::rows(targets, range)),
        }
    }

    /// Whether something is known of a row, right or wrong.
    pub fn has(&self, row: usize) -> bool {
        match self {
            Labels::Classes(labels) => labels[row] != -1,
            Labels::Sets(_) => true,
            Labels::Targets(targets) => targets.row(row).iter().any(|target| !target.is_nan()),
        }
    }
}

impl<'a> Rows<'a> {
    /// Labels of rows that came before, or that never came.
    pub fn are_labels_only(&self) -> bool {
        self.probabilities.is_none() && self.features.is_none()
    }

    /// Some of the rows.
    pub(super) fn slice(&self, range: Range<usize>) -> Rows<'a> {
        Rows {
            count: range.len(),
            probabilities: self.probabilities.map(|columns| columns.rows(range.clone())),
            features: self.features.map(|columns| columns.rows(range.clone())),
            ids: self.ids.map(|ids| &ids[range.clone()]),
            segments: self.segments.map(|segments| &segments[range.clone()]),
            record: self.record.map(|record| Record { first_row: record.first_row + range.start as u64, ..record }),
            labels: self.labels.map(|labels| labels.slice(range)),
        }
    }
}

/// Reads a row of probabilities, once, and each within [0, 1]: one that is not counts as the nearer end, and NaN, which stands there only
/// if a producer has changed the row since it was classified, as 0. Returns how precise they are.
#[expect(clippy::manual_clamp, reason = "clamp would keep NaN")]
pub(super) fn read_unit_row<T: Scalar>(row: ArrayView1<'_, T>, into: &mut Vec<f64>) -> f64 {
    let row = row.as_slice().expect("ring views are row-major without gaps");
    into.clear();
    into.extend(row.iter().map(|p| p.widen().max(0.0).min(1.0)));
    T::EPSILON
}
