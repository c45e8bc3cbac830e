//! Some rows on their way into a profile.

use crate::profile::{Labels, Rows};
use crate::stats::{Columns, rows};
use half::f16;
use ndarray::ArrayView2;
use std::ops::Range;

/// Numbers row by row: f32 where that loses nothing, as for small integers.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Values {
    F16(Vec<f16>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// What was right.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchLabels {
    /// A class index per row, −1 = not known.
    Classes(Vec<i32>),
    /// A flag per row and class.
    Sets(Vec<u8>),
    /// What each output should have been, NaN = not known.
    Targets(Vec<f64>),
}

/// Rows.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Batch {
    pub count: usize,
    pub probabilities: Option<Values>,
    pub features: Option<Values>,
    pub labels: Option<BatchLabels>,
}

impl Batch {
    /// Some of the rows, as a profile takes them.
    pub fn rows(&self, range: Range<usize>) -> Rows<'_> {
        Rows {
            count: range.len(),
            probabilities: self.probabilities.as_ref().map(|values| values.columns(self.count).rows(range.clone())),
            features: self.features.as_ref().map(|values| values.columns(self.count).rows(range.clone())),
            labels: self.labels.as_ref().map(|labels| match labels {
                BatchLabels::Classes(classes) => Labels::Classes(&classes[range]),
                BatchLabels::Targets(targets) => Labels::Targets(rows(view(targets, self.count), range)),
                BatchLabels::Sets(flags) => Labels::Sets(rows(view(flags, self.count), range)),
            }),
            ..Rows::default()
        }
    }
}

impl Values {
    fn columns(&self, rows: usize) -> Columns<'_> {
        match self {
            Values::F16(values) => Columns::F16(view(values, rows)),
            Values::F32(values) => Columns::F32(view(values, rows)),
            Values::F64(values) => Columns::F64(view(values, rows)),
        }
    }

    /// The same numbers.
    pub fn into_f64(self) -> Vec<f64> {
        match self {
            Values::F16(values) => values.into_iter().map(f64::from).collect(),
            Values::F32(values) => values.into_iter().map(f64::from).collect(),
            Values::F64(values) => values,
        }
    }
}

fn view<T>(values: &[T], rows: usize) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, values.len() / rows.max(1)), values).expect("whole rows")
}
