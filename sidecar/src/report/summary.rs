//! What is said of every column.

use crate::stats::{Moment, Quantiles};
use serde::Serialize;

/// Count, moments and extremes over every finite value; quantiles of the sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Summary {
    pub n: u64,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub range: Option<f64>,
    pub sampled: u64,
    pub q01: Option<f64>,
    pub q05: Option<f64>,
    pub q25: Option<f64>,
    pub q50: Option<f64>,
    pub median: Option<f64>,
    pub q75: Option<f64>,
    pub q95: Option<f64>,
    pub q99: Option<f64>,
    pub iqr: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

impl Summary {
    /// `sample` holds the finite values of the kept rows, in any order.
    pub(super) fn of(moment: &Moment, mut sample: Vec<f64>) -> Summary {
        let q = Quantiles::of(&mut sample);
        Summary::with(moment, sample.len() as u64, q)
    }

    /// The same of values that ascend.
    pub(super) fn of_ascending(moment: &Moment, sample: &[f64]) -> Summary {
        Summary::with(moment, sample.len() as u64, Quantiles::of_ascending(sample))
    }

    /// The kept rows have `sampled` finite values with the quantiles `q`.
    pub(super) fn with(moment: &Moment, sampled: u64, q: Option<Quantiles>) -> Summary {
        let any = moment.n > 0;
        let std = moment.std();
        let range = moment.max - moment.min;
        let overflow = any && !(std.is_some_and(f64::is_finite) && range.is_finite() && moment.mean.is_finite());
        Summary {
            n: moment.n,
            mean: any.then_some(moment.mean).filter(|x| x.is_finite()),
            std: std.filter(|x| x.is_finite()),
            min: any.then_some(moment.min),
            max: any.then_some(moment.max),
            range: any.then_some(range).filter(|x| x.is_finite()),
            sampled,
            q01: q.map(|q| q.q01),
            q05: q.map(|q| q.q05),
            q25: q.map(|q| q.q25),
            q50: q.map(|q| q.q50),
            median: q.map(|q| q.q50),
            q75: q.map(|q| q.q75),
            q95: q.map(|q| q.q95),
            q99: q.map(|q| q.q99),
            iqr: q.map(|q| q.q75 - q.q25).filter(|x| x.is_finite()),
            reason: if !any {
                Some("empty")
            } else if overflow {
                Some("overflow")
            } else if q.is_none() {
                Some("not_sampled")
            } else {
                None
            },
        }
    }
}
