//! Numbers of a report that a reference keeps bands of, by path.

use crate::reference::Band;
use crate::report::Report;
use serde_json::Value;
use std::collections::BTreeMap;

/// Each number's values over the periods.
#[derive(Debug, Default)]
pub struct Numbers(BTreeMap<String, Vec<f64>>);

impl Numbers {
    /// Of a period with rows.
    pub fn add_report(&mut self, report: &Report) {
        self.add(&serde_json::to_value(report).expect("plain data"));
    }

    /// The same, of a report that was written to a file.
    pub fn add(&mut self, report: &Value) {
        let predictions = &report["predictions"];
        self.put("predictions.confidence.mean", &predictions["confidence"]["mean"]);
        self.put("predictions.margin.mean", &predictions["margin"]["mean"]);
        self.put("predictions.entropy.mean", &predictions["entropy"]["mean"]);
        self.put("predictions.low_confidence_share", &predictions["low_confidence_share"]);
        for (class, name) in named(&predictions["classes"]) {
            self.put(&format!("predictions.classes.{name}.frequency"), &class["frequency"]);
        }
        for (output, name) in named(&report["outputs"]) {
            self.put(&format!("outputs.{name}.mean"), &output["mean"]);
        }
        for (feature, name) in named(&report["features"]) {
            self.put(&format!("features.{name}.mean"), &feature["mean"]);
            let count = |field: &str| feature[field].as_f64().unwrap_or(0.0);
            let all = count("n") + count("missing") + count("inf");
            if all > 0.0 {
                self.push(&format!("features.{name}.missing_share"), count("missing") / all);
            }
        }
        self.put("labels.accuracy", &report["labels"]["accuracy"]);
        for (errors, name) in named(&report["errors"]) {
            for field in ["mean_error", "mean_absolute_error", "root_mean_square_error"] {
                self.put(&format!("errors.{name}.{field}"), &errors[field]);
            }
        }
    }

    fn put(&mut self, path: &str, value: &Value) {
        if let Some(value) = value.as_f64() {
            self.push(path, value);
        }
    }

    fn push(&mut self, path: &str, value: f64) {
        match self.0.get_mut(path) {
            Some(values) => values.push(value),
            None => {
                self.0.insert(path.to_owned(), vec![value]);
            }
        }
    }

    /// By path, ascending; without those that were defined in fewer than two periods.
    pub fn bands(self) -> Vec<Band> {
        self.0.into_iter().filter_map(|(path, values)| Band::of(path, &values)).collect()
    }
}

fn named(list: &Value) -> impl Iterator<Item = (&Value, &str)> {
    list.as_array().into_iter().flatten().filter_map(|item| Some((item, item["name"].as_str()?)))
}
