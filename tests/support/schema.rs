//! A schema without a producer.

use mlwatch::ring::{DType, FeatureKind, Schema, Task};

/// Rows of f64 features alone: with 8 columns a row takes 64 bytes.
pub fn of_features(columns: usize) -> Schema {
    Schema {
        model: "m".into(),
        version: String::new(),
        instance: String::new(),
        task: Task::Classification,
        proba_dtype: DType::F32,
        feature_dtype: DType::F64,
        threshold: 0.5,
        period: None,
        reservoir_rows: None,
        class_names: vec![],
        feature_names: vec!["f".into(); columns],
        feature_kinds: vec![FeatureKind::Numerical; columns],
        segment_by: None,
    }
}
