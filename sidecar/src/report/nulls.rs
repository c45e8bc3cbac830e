//! Whatever is `null` in a report has its reason beside it.

use super::{DROP_REASONS, DriftSettings, OrderedSample, Report};
use crate::period::Period;
use crate::profile::{Feature, Labels, Profile, Rows, SegmentBy, Segmentation, Spec};
use crate::reference::Reference;
use crate::stats::Columns;
use ndarray::ArrayView2;
use serde_json::{Map, Value};
use std::sync::Arc;

/// docs/report.md says of each when it is `null`. Drift's are its own.
const BY_THEMSELVES: [&str; 5] = ["predictions", "outputs", "scores", "estimated", "drift"];

fn is_explained(fields: &Map<String, Value>, name: &str) -> bool {
    let begins = |prefix: &str| name.starts_with(prefix);
    fields.contains_key("reason")
        || fields.keys().filter_map(|key| key.strip_suffix("_reason")).any(begins)
        || fields.get("reasons").and_then(Value::as_object).is_some_and(|reasons| reasons.keys().any(|key| begins(key)))
}

fn unexplained(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match value {
                    Value::Null if path.matches('.').count() == 1 && BY_THEMSELVES.contains(&name.as_str()) => {}
                    Value::Null if !is_explained(fields, name) => found.push(path),
                    _ if path == ".drift" => {}
                    _ => unexplained(value, &path, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| unexplained(item, path, found)),
        _ => {}
    }
}

fn spec(classes: usize, regression: bool) -> Arc<Spec> {
    let feature = |(name, categorical): (&str, bool)| Feature { name: name.into(), categorical };
    Arc::new(Spec {
        classes: (0..classes).map(|k| k.to_string()).collect(),
        features: [("x", false), ("code", true)].map(feature).to_vec(),
        segments: Some(Segmentation { by: SegmentBy::Feature(1), most: 3 }),
        threshold: 0.5,
        regression,
        ..Spec::default()
    })
}

#[test]
fn every_null_has_a_reason() {
    for (classes, regression) in [(2, false), (3, false), (65, false), (2, true), (0, false)] {
        let spec = spec(classes, regression);
        let features = [f64::NAN, 1.0];
        let proba = vec![1.0 / classes.max(1) as f64; classes];
        let nan = vec![f64::NAN; classes];
        let (flags, targets) = (vec![1u8; classes], vec![0.0; classes]);
        let labels = match regression {
            true => Labels::Targets(ArrayView2::from_shape((1, classes), &targets).unwrap()),
            false => Labels::Classes(&[0]),
        };
        let sets = (!regression).then(|| Labels::Sets(ArrayView2::from_shape((1, classes), &flags).unwrap()));
        let view = |values| (classes > 0).then(|| Columns::F64(ArrayView2::from_shape((1, classes), values).unwrap()));
        let features = Some(Columns::F64(ArrayView2::from_shape((1, 2), &features).unwrap()));
        let row = |probabilities, labels| Rows { count: 1, probabilities, features, labels, ..Rows::default() };
        let labels = (classes > 0).then_some(labels);
        let sets = sets.filter(|_| classes > 0);
        let kinds = [
            None,
            Some(row(view(&proba), None)),
            Some(row(view(&nan), None)),
            Some(row(view(&proba), labels)),
            Some(row(view(&proba), sets)),
        ];
        let fed = |mut profile: Profile, rows: &Option<Rows<'_>>| {
            rows.iter().for_each(|rows| profile.update(rows));
            profile
        };
        for reference in &kinds {
            let reference = Reference::of(&fed(Profile::new(spec.clone(), 10, 1), reference));
            let frozen = reference.frozen(&spec);
            for rows in &kinds {
                let profile = fed(Profile::new(spec.clone(), 10, 1).counting_in(Some(&frozen)), rows);
                let period = Period { start_ns: 0, end_ns: 1, partial: false };
                let sample = OrderedSample::of(&profile, Some(&reference));
                let report = Report::of_ordered(period, &sample, [""; DROP_REASONS]);
                let report = report.against(&sample, &DriftSettings::default());
                for report in [report, Report::revised(period, &profile.remainder(), 1, [""; DROP_REASONS])] {
                    let mut found = Vec::new();
                    unexplained(&serde_json::to_value(&report).unwrap(), "", &mut found);
                    assert!(found.is_empty(), "{classes} classes, {rows:?}: {found:?}");
                }
            }
        }
    }
}
