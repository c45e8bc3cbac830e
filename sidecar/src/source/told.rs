//! A report as a reference reads it: docs/report.md.

use crate::profile::{Feature, Spec};
use crate::reference::Categorical;
use crate::stats::MOST_CATEGORIES;
use serde::Deserialize;

const FORMAT: &str = "mlwatch.report/1";
/// Beyond it f64 does not hold every whole number, and no model has so many rows.
pub const MOST_COUNT: u64 = 1 << 53;

/// As far as a reference needs it.
#[derive(Debug, Deserialize)]
pub struct Told {
    #[serde(rename = "format", deserialize_with = "known_format")]
    _format: (),
    pub model: String,
    pub version: String,
    pub start: String,
    /// Not in the first reports.
    #[serde(default)]
    pub revision: Count,
    pub task: Task,
    pub partial: bool,
    pub rows: Count,
    pub predictions: Option<Predictions>,
    pub outputs: Option<Vec<Named>>,
    pub features: Vec<FeatureTold>,
    pub labels: Labels,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    Classification,
    Regression,
}

#[derive(Debug, Deserialize)]
pub struct Predictions {
    pub rows: Count,
    pub confidence: Summary,
    pub margin: Summary,
    /// Not in the first reports.
    pub entropy: Option<Summary>,
    pub classes: Vec<Class>,
}

#[derive(Debug, Deserialize)]
pub struct Class {
    pub name: String,
    pub count: Count,
    pub probability: Summary,
}

#[derive(Debug, Deserialize)]
pub struct Named {
    pub name: String,
    #[serde(flatten)]
    pub summary: Summary,
}

#[derive(Debug, Deserialize)]
pub struct FeatureTold {
    pub name: String,
    pub kind: String,
    pub missing: Count,
    pub inf: Count,
    pub zero: Count,
    #[serde(flatten)]
    pub summary: Summary,
    pub values: Option<Vec<ValueCount>>,
    pub other_count: Option<Count>,
}

#[derive(Debug, Deserialize)]
pub struct ValueCount {
    pub value: f64,
    pub count: Count,
}

#[derive(Debug, Deserialize)]
pub struct Labels {
    pub accuracy: Option<f64>,
    pub classes: Vec<Support>,
}

#[derive(Debug, Deserialize)]
pub struct Support {
    pub name: String,
    pub support: Count,
}

#[derive(Debug, Deserialize)]
pub struct Summary {
    pub n: Count,
    pub mean: Option<f64>,
    pub std: Option<f64>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub sampled: Count,
    pub q01: Option<f64>,
    pub q05: Option<f64>,
    pub q25: Option<f64>,
    pub q50: Option<f64>,
    pub q75: Option<f64>,
    pub q95: Option<f64>,
    pub q99: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "u64")]
pub struct Count(pub u64);

impl TryFrom<u64> for Count {
    type Error = &'static str;

    fn try_from(count: u64) -> Result<Count, &'static str> {
        if count <= MOST_COUNT { Ok(Count(count)) } else { Err("it counts more than 2^53, which no model has") }
    }
}

fn known_format<'de, D: serde::Deserializer<'de>>(value: D) -> Result<(), D::Error> {
    match String::deserialize(value)?.as_str() {
        FORMAT => Ok(()),
        other => Err(serde::de::Error::custom(format!("its format is {other:?}, this version reads {FORMAT:?}"))),
    }
}

impl Told {
    /// What the columns are called.
    pub fn spec(&self) -> Spec {
        let classes = self.predictions.iter().flat_map(|of| &of.classes).map(|class| &class.name);
        let outputs = self.outputs.iter().flatten().map(|output| &output.name);
        let feature = |told: &FeatureTold| Feature { name: told.name.clone(), categorical: told.kind == "categorical" };
        Spec {
            model: self.model.clone(),
            regression: self.task == Task::Regression,
            classes: classes.chain(outputs).cloned().collect(),
            features: self.features.iter().map(feature).collect(),
            ..Spec::default()
        }
    }
}

impl FeatureTold {
    /// Of a categorical one.
    pub fn counted(&self) -> Result<Option<Categorical>, String> {
        if self.kind != "categorical" {
            return Ok(None);
        }
        let (Some(values), Some(other)) = (&self.values, self.other_count) else {
            return Err(format!("{:?} is categorical and has no values", self.name));
        };
        let mut values: Vec<(f64, u64)> = values.iter().map(|of| (of.value, of.count.0)).collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let sum = values.iter().fold(other.0, |sum, (_, count)| sum.saturating_add(*count));
        if values.len() > MOST_CATEGORIES || sum > self.summary.n.0 {
            return Err(format!("{:?} counts more values than it has", self.name));
        }
        Ok(Some(Categorical { values, other: other.0 }))
    }
}
