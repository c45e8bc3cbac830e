//! An operator's rule on a number of the report.

use super::{AlertSettings, Finding, Subject, check_persistence, checksum};
use crate::reference::Reference;
use crate::report::{Measure, Report, Severity};
use crate::wildcard::matches;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use tracing::warn;

/// A limit on a number of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What its alerts are called; by default its metric.
    pub name: Option<String>,
    /// Path of the number in a report, such as `labels.accuracy` or `features.*.mean`; `*` is every entry of a list.
    pub metric: String,
    /// For these models only: a name, in which `*` is any text.
    pub model: Option<String>,
    /// For these versions only.
    pub version: Option<String>,
    /// Of what `*` stands for only those: a feature, a class, a column.
    pub feature: Option<String>,
    /// Holds above.
    pub above: Option<f64>,
    /// Holds below.
    pub below: Option<f64>,
    /// Holds so many deviations outside what the number was over the reference's own periods.
    pub outside_sigma: Option<f64>,
    /// Periods with fewer rows are not judged.
    #[serde(default)]
    pub min_rows: u64,
    /// k and m of its own.
    pub persistence: Option<[u64; 2]>,
    /// How bad it is.
    #[serde(default = "warning")]
    pub severity: Severity,
}

fn warning() -> Severity {
    Severity::Warning
}

/// What is wrong with the rules.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum RuleError {
    #[error("{what} is [{k}, {m}], want [k, m] for k of m periods, 1 <= k <= m <= 1000")]
    Persistence { what: String, k: u64, m: u64 },
    #[error("the rule on {metric:?} wants one of above, below, outside_sigma")]
    Limit { metric: String },
    #[error("the rule on {metric:?} has a limit that is not finite")]
    NotFinite { metric: String },
    #[error("rules {first} and {second} are both {title:?} on {metric:?} with the same settings: remove one of them")]
    Twice { title: String, metric: String, first: usize, second: usize },
    #[error("the rule on {metric:?}: a report has no such field; it begins with one of {known}")]
    Metric { metric: String, known: String },
}

/// What tells the entries of a list apart: of columns, segments and versions.
const NAMES: [&str; 3] = ["name", "segment", "version"];

/// Where a metric may begin.
pub(super) const ROOTS: [&str; 15] = [
    "records",
    "rows",
    "sampled_rows",
    "losses",
    "predictions",
    "outputs",
    "features",
    "embeddings",
    "labels",
    "scores",
    "errors",
    "estimated",
    "drift",
    "canary",
    "segments",
];

impl Rule {
    pub(super) fn check(&self) -> Result<(), RuleError> {
        let metric = self.metric.clone();
        let limits: Vec<f64> = [self.above, self.below, self.outside_sigma].into_iter().flatten().collect();
        if limits.len() != 1 {
            return Err(RuleError::Limit { metric });
        }
        if !limits.iter().all(|limit| limit.is_finite()) {
            return Err(RuleError::NotFinite { metric });
        }
        if !ROOTS.contains(&self.root()) {
            return Err(RuleError::Metric { metric, known: ROOTS.join(", ") });
        }
        self.persistence.map_or(Ok(()), |persistence| check_persistence(self.title(), persistence))
    }

    pub(super) fn is_there_twice(&self, [first, second]: [usize; 2]) -> RuleError {
        RuleError::Twice { title: self.title().to_owned(), metric: self.metric.clone(), first, second }
    }

    /// Changes with any of its settings. Of a list, for the sake of the histories that are on disk.
    pub(super) fn checksum(&self, persistence: [u64; 2]) -> u32 {
        checksum(&[(self, persistence)].as_slice())
    }

    fn root(&self) -> &str {
        self.metric.split('.').next().unwrap_or_default()
    }

    pub(super) fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.metric)
    }

    fn is_for(&self, report: &Report) -> bool {
        let chosen = |pattern: &Option<String>, text| pattern.as_ref().is_none_or(|pattern| matches(pattern, text));
        chosen(&self.model, &report.model) && chosen(&self.version, &report.version) && report.rows >= self.min_rows
    }

    /// Whether it holds, its limit, and the deviations it is away from the reference's. `None` where there is no band for it.
    fn judge(&self, name: &str, value: f64, reference: Option<&Reference>) -> Option<(bool, String, Option<f64>)> {
        match (self.above, self.below, self.outside_sigma) {
            (Some(above), ..) => Some((value > above, format!("above {above}"), None)),
            (_, Some(below), _) => Some((value < below, format!("below {below}"), None)),
            (_, _, Some(sigmas)) => {
                let band = reference?.band(&self.metric.replacen('*', name, 1))?;
                let z = (value - band.mean) / band.std;
                let limit = format!("outside {} ± {sigmas} × {}", band.mean, band.std);
                (!z.is_nan()).then_some((z.abs() > sigmas, limit, Some(z).filter(|z| z.is_finite())))
            }
            (None, None, None) => None,
        }
    }
}

/// Where a metric begins that labels which come later can change.
const REVISED: [&str; 5] = ["labels", "scores", "errors", "estimated", "segments"];

/// What the operator's rules say of a report.
pub(super) fn findings(settings: &AlertSettings, report: &Report, reference: Option<&Reference>) -> Vec<Finding> {
    let can_change = |rule: &Rule| report.revision == 0 || REVISED.contains(&rule.root());
    let rules: Vec<&Rule> = settings.rule.iter().filter(|rule| can_change(rule) && rule.is_for(report)).collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let report_value = serde_json::to_value(report).expect("plain data");
    let mut findings = Vec::new();
    for rule in rules {
        let mut found = Vec::new();
        collect(&report_value, &rule.metric, "", &mut found);
        if found.is_empty() {
            warn!(model = report.model, metric = rule.metric, "its reports have no such number: look at one of them");
        }
        let persistence = rule.persistence.unwrap_or(settings.persistence);
        let settings = rule.checksum(persistence);
        let chosen = |name: &str| rule.feature.as_ref().is_none_or(|pattern| matches(pattern, name));
        for (name, value) in found.into_iter().filter(|(name, _)| chosen(name)) {
            if let Some(value) = value
                && let Some((holds, limit, z)) = rule.judge(&name, value, reference)
            {
                findings.push(Finding {
                    subject: Subject { rule: rule.title().to_owned(), of: rule.metric.clone(), name, settings },
                    metric: rule.metric.clone(),
                    persistence,
                    severity: holds.then_some(rule.severity),
                    limit,
                    evidence: Measure { value: Some(value), z, ..Measure::default() },
                });
            }
        }
    }
    findings
}

/// Names and values of what lies at `path`. A null anywhere on the way is an undefined value; what is not there is not found.
fn collect(at: &Value, path: &str, name: &str, found: &mut Vec<(String, Option<f64>)>) {
    if path.is_empty() {
        if at.is_number() || at.is_null() {
            found.push((name.to_owned(), at.as_f64()));
        }
        return;
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    match at {
        Value::Null => found.push((name.to_owned(), None)),
        Value::Object(fields) if step != "*" => {
            if let Some(field) = fields.get(step) {
                collect(field, rest, name, found);
            }
        }
        Value::Array(entries) if step == "*" => {
            for entry in entries {
                let name = NAMES.iter().find_map(|field| entry.get(field)?.as_str()).unwrap_or(name);
                collect(entry, rest, name, found);
            }
            if entries.is_empty() {
                found.push((name.to_owned(), None));
            }
        }
        _ => {}
    }
}
