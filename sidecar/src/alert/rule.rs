//! An operator's rule on a number of the report.

use super::{AlertSettings, Finding, Subject, check_persistence, checksum};
use crate::reference::{Band, Reference};
use crate::report::{Evidence, Measure, Report, Severity};
use crate::wildcard::matches;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
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
    /// Of what `*` stands for only those of this kind: `of` of a column.
    pub of: Option<String>,
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
    #[error("the rule on {metric:?} has outside_sigma = {sigmas}, want a number of deviations above 0, such as 3")]
    Sigmas { metric: String, sigmas: f64 },
    #[error("rules {first} and {second} are both {title:?} on {metric:?} with the same settings: remove one of them")]
    Twice { title: String, metric: String, first: usize, second: usize },
    #[error("the rule on {metric:?}: a report has no such field; it begins with one of {known}")]
    Metric { metric: String, known: String },
}

/// What tells the entries of a list apart: of columns, segments, versions and kinds of invalid rows, and of a categorical feature's values.
const NAMES: [&str; 5] = ["name", "segment", "version", "kind", "value"];

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
        if let Some(sigmas) = self.outside_sigma.filter(|sigmas| *sigmas <= 0.0) {
            return Err(RuleError::Sigmas { metric, sigmas });
        }
        if !ROOTS.contains(&self.root()) {
            return Err(RuleError::Metric { metric, known: ROOTS.join(", ") });
        }
        let what = format!("persistence of the rule {:?}", self.title());
        self.persistence.map_or(Ok(()), |persistence| check_persistence(&what, persistence))
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

    fn band<'a>(&self, name: &str, reference: &'a Reference) -> Option<&'a Band> {
        reference.band(&self.metric.replacen('*', name, 1))
    }

    /// The last step of its metric.
    fn field(&self) -> &str {
        self.metric.rsplit('.').next().unwrap_or_default()
    }

    fn chooses(&self, entry: &Entry) -> bool {
        let named =
            |pattern: &String| matches(pattern, &entry.name) || entry.steps.iter().any(|step| matches(pattern, step));
        self.of.as_ref().is_none_or(|pattern| matches(pattern, &entry.of)) && self.feature.as_ref().is_none_or(named)
    }

    /// Whether it holds, its limit, and the deviations it is away from the reference's. `None` where there is no band for it.
    fn judge(
        &self,
        name: &str,
        value: f64,
        rows: u64,
        report: &Report,
        reference: Option<&Reference>,
    ) -> Option<(bool, String, Option<f64>)> {
        match (self.above, self.below, self.outside_sigma) {
            (Some(above), ..) => Some((value > above, format!("above {above}"), None)),
            (_, Some(below), _) => Some((value < below, format!("below {below}"), None)),
            (_, _, Some(sigmas)) => {
                let band = self.band(name, reference?)?;
                let deviation = reference?.deviation(band, rows) + reference?.rounding(band, report.elements);
                let z = (value - band.mean) / deviation;
                let limit = format!("outside {} ± {sigmas} × {deviation}", band.mean);
                (!z.is_nan()).then_some((z.abs() > sigmas, limit, Some(z).filter(|z| z.is_finite())))
            }
            (None, None, None) => None,
        }
    }
}

/// Where a metric begins that labels which come later can change.
const REVISED: [&str; 5] = ["labels", "scores", "errors", "estimated", "segments"];

/// Which rules cannot be judged by which reference, as far as it was said.
pub(super) type Said = HashSet<(u32, String)>;
const MOST_SAID: usize = 1024;

/// What the operator's rules say of a report.
pub(super) fn findings(
    settings: &AlertSettings,
    report: &Report,
    reference: Option<&Reference>,
    said: &mut Said,
) -> Vec<Finding> {
    if said.len() > MOST_SAID {
        said.clear();
    }
    let can_change = |rule: &Rule| report.revision == 0 || REVISED.contains(&rule.root());
    let rules: Vec<&Rule> = settings.rule.iter().filter(|rule| can_change(rule) && rule.is_for(report)).collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let report_value = serde_json::to_value(report).expect("plain data");
    let mut findings = Vec::new();
    for rule in rules {
        let mut found = Vec::new();
        collect(&report_value, &rule.metric, &Entry::default(), &Value::Null, &mut found);
        if found.is_empty() {
            warn!(model = report.model, metric = rule.metric, "its reports have no such number: look at one of them");
        }
        let persistence = rule.persistence.unwrap_or(settings.persistence);
        let settings = rule.checksum(persistence);
        found.retain(|number| rule.chooses(&number.entry));
        if let Some(reference) = reference.filter(|_| rule.outside_sigma.is_some()) {
            let has_band = found.iter().any(|number| rule.band(&number.entry.name, reference).is_some());
            if !found.is_empty() && !has_band && said.insert((settings, reference.id())) {
                let (model, reference) = (&report.model, reference.id());
                warn!(
                    model,
                    reference,
                    metric = rule.metric,
                    "the reference has no band of it: outside_sigma is never judged; take a metric that has one, or above or below"
                );
            }
        }
        for Number { entry, value, parent } in found {
            let rows = rows_behind(rule.field(), parent, report);
            if let Some(value) = value
                && let Some((holds, limit, z)) = rule.judge(&entry.name, value, rows, report, reference)
            {
                let n = Some(rows).filter(|n| *n > 0).or_else(|| parent.get("n")?.as_u64());
                findings.push(Finding {
                    subject: Subject { rule: rule.title().to_owned(), of: entry.of, name: entry.name, settings },
                    metric: rule.metric.clone(),
                    persistence,
                    severity: holds.then_some(rule.severity),
                    limit,
                    evidence: Evidence {
                        measure: Measure { value: Some(value), z, ..Measure::default() },
                        n,
                        n_other: None,
                    },
                });
            }
        }
    }
    findings
}

/// Which entry of a report's lists: no other has the same kind and name.
#[derive(Clone, Debug, Default)]
struct Entry {
    of: String,
    /// Of an entry in an entry: both names, with a slash between.
    name: String,
    /// Each of them.
    steps: Vec<String>,
}

impl Entry {
    /// Of the list that lies at this entry.
    fn within(&self, position: usize, item: &Value, taken: &mut HashSet<(String, String)>) -> Entry {
        let text = |field: &str| item.get(field).and_then(Value::as_str);
        let of = text("of").unwrap_or(&self.of).to_owned();
        let named = NAMES.iter().find_map(|field| match item.get(field)? {
            Value::String(name) => Some(name.clone()),
            Value::Number(value) => Some(value.to_string()),
            _ => None,
        });
        let mut step = named.unwrap_or_else(|| position.to_string());
        // A producer may call two of its columns the same.
        if !taken.insert((of.clone(), step.clone())) {
            step = format!("{step} [{position}]");
        }
        let name = if self.steps.is_empty() { step.clone() } else { format!("{}/{step}", self.name) };
        Entry { of, name, steps: [self.steps.as_slice(), &[step]].concat() }
    }
}

/// A number of a report; without a value where it is undefined.
struct Number<'a> {
    entry: Entry,
    value: Option<f64>,
    /// The object that it is a field of.
    parent: &'a Value,
}

/// How many rows a number is taken over that a reference may have a band of; 0 where that is not known.
fn rows_behind(field: &str, parent: &Value, report: &Report) -> u64 {
    let count = |field: &str| parent.get(field).and_then(Value::as_u64).unwrap_or(0);
    let predicted = || report.predictions.as_ref().map_or(0, |predictions| predictions.confidence.n);
    match field {
        "mean" => count("n"),
        "missing_share" => count("n").saturating_add(count("missing")).saturating_add(count("inf")),
        "frequency" | "low_confidence_share" => predicted(),
        "accuracy" => count("single_rows"),
        _ => 0,
    }
}

/// Entries and values of what lies at `path`. A null anywhere on the way is an undefined value; what is not there is not found.
fn collect<'a>(at: &'a Value, path: &str, entry: &Entry, parent: &'a Value, found: &mut Vec<Number<'a>>) {
    let number = |value| Number { entry: entry.clone(), value, parent };
    if path.is_empty() {
        if at.is_number() || at.is_null() {
            found.push(number(at.as_f64()));
        }
        return;
    }
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    match at {
        Value::Null => found.push(number(None)),
        Value::Object(fields) if step != "*" => {
            if let Some(field) = fields.get(step) {
                collect(field, rest, entry, at, found);
            }
        }
        Value::Array(items) if step == "*" => {
            let mut taken = HashSet::new();
            for (position, item) in items.iter().enumerate() {
                collect(item, rest, &entry.within(position, item, &mut taken), at, found);
            }
            if items.is_empty() {
                found.push(number(None));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(at: &Value, path: &str) -> Vec<(String, String, Option<f64>)> {
        let mut found = Vec::new();
        collect(at, path, &Entry::default(), &Value::Null, &mut found);
        found.into_iter().map(|Number { entry: Entry { of, name, .. }, value, .. }| (of, name, value)).collect()
    }

    fn entries(of: &[(&str, &str, f64)]) -> Vec<(String, String, Option<f64>)> {
        of.iter().map(|(of, name, value)| (of.to_string(), name.to_string(), Some(*value))).collect()
    }

    #[test]
    fn entries_of_a_list_are_told_apart_by_kind_and_name_or_by_position() {
        let columns = json!([{"of": "margin", "name": "", "n": 1}, {"of": "entropy", "name": "", "n": 2},
            {"of": "feature", "name": "a", "n": 3}, {"of": "probability", "name": "a", "n": 4},
            {"of": "feature", "name": "a", "n": 5}]);
        let want = [
            ("margin", "", 1.0),
            ("entropy", "", 2.0),
            ("feature", "a", 3.0),
            ("probability", "a", 4.0),
            ("feature", "a [4]", 5.0),
        ];
        assert_eq!(found(&columns, "*.n"), entries(&want));
        assert_eq!(found(&json!([{"n": 1}, {"n": 2}]), "*.n"), entries(&[("", "0", 1.0), ("", "1", 2.0)]));
        assert_eq!(
            found(&json!([[1, 2], [3]]), "*.*"),
            entries(&[("", "0/0", 1.0), ("", "0/1", 2.0), ("", "1/0", 3.0)])
        );
        let values = json!([{"name": "plan", "values": [{"value": 7.0, "count": 1}, {"value": 3.0, "count": 2}]}]);
        assert_eq!(found(&values, "*.values.*.count"), entries(&[("", "plan/7.0", 1.0), ("", "plan/3.0", 2.0)]));
    }

    #[test]
    fn a_rule_chooses_by_kind_and_by_any_name_on_the_way() {
        let rule = |line: &str| toml::from_str::<Rule>(&format!("metric = 'rows'\nabove = 1\n{line}")).unwrap();
        let entry = Entry { of: "feature".into(), name: "plan/7.0".into(), steps: vec!["plan".into(), "7.0".into()] };
        for (line, want) in [
            ("", true),
            ("of = 'feature'", true),
            ("of = 'probability'", false),
            ("feature = 'plan'", true),
            ("feature = 'plan/7*'", true),
            ("feature = 'age'", false),
            ("feature = ''", false),
        ] {
            assert_eq!(rule(line).chooses(&entry), want, "{line}");
        }
        assert!(rule("feature = ''\nof = 'margin'").chooses(&Entry { of: "margin".into(), ..Entry::default() }));
    }

    #[test]
    fn a_constant_in_another_rounding_is_within_its_band_and_another_constant_is_not() {
        use crate::profile::{Feature, Profile, Rows, Spec};
        use crate::report::Report;
        use crate::stats::Columns;
        use ndarray::Array2;
        let feature = Feature { name: "x".into(), categorical: false };
        let spec = std::sync::Arc::new(Spec { model: "m".into(), features: vec![feature], ..Spec::default() });
        let fed = |features: Columns<'_>, count| {
            let mut profile = Profile::new(spec.clone(), 1000, 1);
            profile.update(&Rows { count, features: Some(features), ..Rows::default() });
            profile
        };
        let wide = |value: f64| fed(Columns::F64(Array2::from_elem((1000, 1), value).view()), 1000);
        let narrow = |value: f32| fed(Columns::F32(Array2::from_elem((1000, 1), value).view()), 1000);
        let settings: AlertSettings =
            toml::from_str("[[rule]]\nmetric = 'features.*.mean'\noutside_sigma = 3").unwrap();
        for std in [0.0, 1e-17] {
            let band = Band { path: "features.x.mean".into(), n: 20, mean: 0.1, std };
            let reference = Reference::of(&wide(0.1)).with_bands(vec![band]);
            let holds = |profile: &Profile| {
                let period = crate::period::Period { start_ns: 0, end_ns: 1, partial: false };
                let report = Report::of(period, profile, [""; 5]);
                let found = findings(&settings, &report, Some(&reference), &mut Said::new());
                found.iter().map(|finding| finding.severity.is_some()).collect::<Vec<_>>()
            };
            assert_eq!([holds(&wide(0.1)), holds(&wide(0.1f64.next_up())), holds(&narrow(0.1))], [[false]; 3]);
            assert_eq!([holds(&wide(0.1 + 1e-9)), holds(&narrow(0.10001))], [[true]; 2]);
        }
    }

    #[test]
    fn a_band_is_wider_for_fewer_rows_and_where_there_is_none_that_is_said_once() {
        use crate::profile::{Feature, Profile, Rows, Spec};
        use crate::report::Report;
        use crate::stats::Columns;
        use ndarray::ArrayView2;
        let feature = Feature { name: "x".into(), categorical: false };
        let spec = std::sync::Arc::new(Spec { model: "m".into(), features: vec![feature], ..Spec::default() });
        // Four of five are there, half of them 1 and half −1.
        let profile = |rows: usize| {
            let mut profile = Profile::new(spec.clone(), 1, 1);
            let values: Vec<f64> = (0..rows).map(|i| [1.0, -1.0, 1.0, -1.0, f64::NAN][i % 5]).collect();
            let features = Some(Columns::F64(ArrayView2::from_shape((rows, 1), &values).unwrap()));
            profile.update(&Rows { count: rows, features, ..Rows::default() });
            profile
        };
        let band = |path: &str, mean, std| Band { path: path.into(), n: 20, mean, std };
        let bands = vec![band("features.x.mean", 0.2, 0.04), band("features.x.missing_share", 0.25, 0.01)];
        let reference = Reference::of(&profile(20_000)).with_bands(bands);
        let settings: AlertSettings = toml::from_str(
            "[[rule]]\nmetric = 'features.*.mean'\noutside_sigma = 3\n\
             [[rule]]\nmetric = 'features.*.missing_share'\noutside_sigma = 3\n\
             [[rule]]\nmetric = 'features.*.std'\noutside_sigma = 3\n",
        )
        .unwrap();
        let mut said = Said::new();
        let mut hold = |rows| {
            let period = crate::period::Period { start_ns: 0, end_ns: 1, partial: false };
            let report = Report::of(period, &profile(rows), [""; 5]);
            let found = findings(&settings, &report, Some(&reference), &mut said);
            found.into_iter().map(|finding| finding.severity.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(hold(1000), [true, true]);
        assert_eq!(hold(50), [false, false], "by chance");
        assert_eq!(said.len(), 1);
        assert!(said.contains(&(settings.rule[2].checksum(settings.persistence), reference.id())));
    }
}
