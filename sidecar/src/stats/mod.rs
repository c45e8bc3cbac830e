//! Pure statistics over slices and `ndarray` views: accumulators that merge, and functions of a sample.
//!
//! Nothing here reads a clock, draws its own seeds or does I/O. Sums are `f64` of exactly widened inputs, but for some rows at a
//! time in `moments`.
//! `docs/statistics.md` has every formula with its source and error.

#![deny(unsafe_code)]

mod bins;
mod calibration;
mod categories;
mod classified;
mod codes;
mod dispatch;
mod distinct;
mod divergence;
mod elements;
mod entropy;
mod envelope;
mod errors;
mod estimates;
mod heavy;
mod histogram;
mod moments;
mod order;
mod outcomes;
mod predictions;
mod proportion;
mod quantiles;
mod ranking;
mod reliability;
mod reservoir;
mod row_store;
mod scalar;
mod scoring;
mod select;
mod side_by_side;
mod significance;
mod skips;
mod steps;
mod thresholds;
mod values;
mod vectors;

pub use bins::{BinCounts, ColumnEdges, Edges, MOST_EDGES};
pub use calibration::{Calibration, Isotonic};
pub use categories::{Categories, Distinct, Frequent, MOST_CATEGORIES};
pub use classified::Classified;
pub use divergence::{Chi2, Contingency, Noisy};
pub use elements::{Element, Elements, Made, Slack};
pub use entropy::entropy;
pub use envelope::Envelope;
pub use errors::Errors;
pub use estimates::{ClassEstimate, Estimates};
pub use histogram::{Histogram, Histograms, MOST_SCALE, Side, ZERO_THRESHOLD, relative_error};
pub use moments::{Moment, Moments};
pub use order::{MOST_TRANSPOSED, Ordered};
pub use outcomes::{Averages, ClassOutcomes, MOST_CONFUSED, Outcomes, Single, is_multi_label, sole};
pub use predictions::{Flaw, LOW_CONFIDENCE, Prediction, classify};
pub use proportion::{Difference, Proportion};
pub use quantiles::{Quantiles, quantile_sorted};
pub use ranking::{Binned, MOST_RANKED, Ranked, RankedAverages, Ranking, SCORE_BINS};
pub use reliability::{CalibrationError, Reliability, ReliabilityBin};
pub use reservoir::Reservoir;
pub use row_store::RowStore;
pub use scalar::Scalar;
pub use scoring::Scoring;
pub use side_by_side::classify_rows;
pub use significance::{SharesApart, benjamini_hochberg, chi2_p, corrected_z, fisher_ln_p, kolmogorov_p, normal_z};
pub use steps::{Distance, MOST_STEPS, Steps, spread};
pub use thresholds::{Thresholded, accuracy_by_difference, confidence_threshold};
pub use values::{ValueCounts, Values};
pub use vectors::{Undefined, centroid_shift, norm};

use half::{bf16, f16};
use ndarray::{ArrayView2, Axis, Slice};
use std::ops::Range;

/// A rows × columns matrix of any element type, row-major without gaps.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Columns<'a> {
    F16(ArrayView2<'a, f16>),
    BF16(ArrayView2<'a, bf16>),
    F32(ArrayView2<'a, f32>),
    F64(ArrayView2<'a, f64>),
}

/// Runs `$body` with `$view` bound to the typed view.
macro_rules! with_view {
    ($columns:expr, $view:ident => $body:expr) => {
        match $columns {
            $crate::stats::Columns::F16($view) => $body,
            $crate::stats::Columns::BF16($view) => $body,
            $crate::stats::Columns::F32($view) => $body,
            $crate::stats::Columns::F64($view) => $body,
        }
    };
}
pub(crate) use with_view;

impl<'a> Columns<'a> {
    /// Some of the rows.
    pub fn rows(&self, range: Range<usize>) -> Columns<'a> {
        match *self {
            Columns::F16(view) => Columns::F16(rows(view, range)),
            Columns::BF16(view) => Columns::BF16(rows(view, range)),
            Columns::F32(view) => Columns::F32(rows(view, range)),
            Columns::F64(view) => Columns::F64(rows(view, range)),
        }
    }

    /// From 1 to the next value of its elements.
    pub fn epsilon(&self) -> f64 {
        fn of<T: Scalar>(_: &ArrayView2<'_, T>) -> f64 {
            T::EPSILON
        }
        with_view!(self, view => of(view))
    }

    /// What its elements are.
    pub fn element(&self) -> Element {
        match self {
            Columns::F16(_) => Element::F16,
            Columns::BF16(_) => Element::BF16,
            Columns::F32(_) => Element::F32,
            Columns::F64(_) => Element::F64,
        }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        with_view!(self, view => view.ncols())
    }
}

/// Some of a view's rows.
pub fn rows<T>(mut view: ArrayView2<'_, T>, range: Range<usize>) -> ArrayView2<'_, T> {
    view.slice_axis_inplace(Axis(0), Slice::from(range));
    view
}

/// The elements of a view that has no gaps, as every view into a ring.
fn packed<'a, T>(view: &'a ArrayView2<'_, T>) -> &'a [T] {
    view.as_slice().expect("ring views are row-major without gaps")
}
