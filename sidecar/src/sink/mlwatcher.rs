//! `<time>_MLmetrics.json`: a period as MLWatcher 1.0 names and fills it, one valid JSON object a line.
//!
//! As there, a ratio of 0/0 is 0 and statistics of nothing are left out. `tags` carry model and version, because one sidecar
//! serves many models; `docs/statistics.md` lists every difference.

use super::{RotatingFiles, Rotation, Sink};
use crate::report::{Report, Summary};
use serde::Serialize;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// MLWatcher's format.
#[derive(Debug)]
pub struct MlwatcherFiles {
    files: RotatingFiles,
    agent_id: String,
}

impl MlwatcherFiles {
    /// Makes `dir` if need be. `agent_id` stands in every record.
    pub fn new(dir: &Path, rotation: Rotation, agent_id: String) -> io::Result<MlwatcherFiles> {
        let files = RotatingFiles::new(dir, "", "%Y%m%d-%H%M%S", "_MLmetrics.json", rotation)?;
        Ok(MlwatcherFiles { files, agent_id })
    }
}

impl Sink for MlwatcherFiles {
    fn name(&self) -> &'static str {
        "mlwatcher"
    }

    fn deliver(&mut self, report: &Report, now: SystemTime) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records(report, &self.agent_id, seconds(now)) {
            serde_json::to_writer(&mut lines, &record)?;
            lines.push(b'\n');
        }
        self.files.append(&lines, now)
    }
}

#[derive(Clone, Debug, Serialize)]
struct Record<'a> {
    tags: Tags<'a>,
    /// Unix time in seconds: the end of the period, or now if it was cut short.
    timestamp: u64,
    value: f64,
    properties: Properties<'a>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Tags<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Properties<'a> {
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feat_name: Option<&'a str>,
    /// Of a categorical feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stat: Option<&'static str>,
    target_type: &'static str,
    agent_id: &'a str,
    ver: &'static str,
}

struct Lines<'a> {
    report: &'a Report,
    agent_id: &'a str,
    timestamp: u64,
    records: Vec<Record<'a>>,
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn records<'a>(report: &'a Report, agent_id: &'a str, now: u64) -> Vec<Record<'a>> {
    let timestamp = now.min(report.end / 1_000_000_000);
    let mut lines = Lines { report, agent_id, timestamp, records: Vec::new() };
    lines.features();
    lines.predictions();
    lines.labels();
    lines.records
}

impl<'a> Lines<'a> {
    fn push(&mut self, value: Option<f64>, target_type: &'static str, properties: Properties<'a>) {
        let Some(value) = value else { return };
        self.records.push(Record {
            tags: Tags { model: &self.report.model, version: &self.report.version },
            timestamp: self.timestamp,
            value,
            properties: Properties { target_type, agent_id: self.agent_id, ver: "1", ..properties },
        });
    }

    fn summary(&mut self, summary: &Summary, properties: &Properties<'a>) {
        let stats = [
            ("mean", summary.mean),
            ("median", summary.median),
            ("std", summary.std),
            ("range", summary.range),
            ("q25", summary.q25),
            ("q50", summary.q50),
            ("q75", summary.q75),
            ("iqr", summary.iqr),
        ];
        for (stat, value) in stats {
            self.push(value, "gauge", Properties { stat: Some(stat), ..properties.clone() });
        }
    }

    fn features(&mut self) {
        for feature in &self.report.features {
            let feat_name = Some(feature.name.as_str());
            let Some(values) = feature.codes.as_ref().map(|codes| &codes.values) else {
                self.summary(
                    &feature.summary,
                    &Properties { what: "feature_value", feat_name, ..Properties::default() },
                );
                continue;
            };
            for value in values {
                let named = |what| Properties {
                    what,
                    feat_name,
                    value: Some(value.value.to_string()),
                    ..Properties::default()
                };
                self.push(Some(value.count as f64), "counter", named("feature_count"));
                self.push(value.frequency, "gauge", named("feature_freq"));
            }
        }
    }

    fn predictions(&mut self) {
        let Some(predictions) = &self.report.predictions else { return };
        let of_class = |what, name: &'a String| Properties { what, class_name: Some(name), ..Properties::default() };
        for class in &predictions.classes {
            self.push(class.frequency, "gauge", of_class("prediction_freq", &class.name));
        }
        for class in &predictions.classes {
            self.push(Some(class.count as f64), "counter", of_class("prediction_count", &class.name));
        }
        self.push(
            Some(self.report.rows as f64),
            "counter",
            Properties { what: "buffer_count", ..Properties::default() },
        );
        let of = |what| Properties { what, ..Properties::default() };
        self.summary(&predictions.confidence, &of("max_prediction_proba"));
        self.summary(&predictions.margin, &of("spread12_prediction_proba"));
    }

    fn labels(&mut self) {
        for class in &self.report.labels.classes {
            let stats = [
                ("accuracy", class.accuracy),
                ("precision", class.precision),
                ("recall", class.recall),
                ("f1", class.f1),
            ];
            for (what, value) in stats {
                let properties = Properties { what, class_name: Some(&class.name), ..Properties::default() };
                self.push(Some(value.unwrap_or(0.0)), "gauge", properties);
            }
        }
    }
}
