//! What the columns of a reference are called.

use super::SourceError;
use crate::profile::{Feature, Spec};
use crate::ring::wire;
use std::collections::HashSet;

/// What is known of a model besides its rows; what is not said is called as in a ring: `class_0`, `feat_0`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The model's name.
    pub model: String,
    /// Of this version; empty: of any.
    pub version: String,
    /// Outputs, not class probabilities.
    pub regression: bool,
    /// Two classes: class 1 is predicted when p₁ exceeds it.
    pub threshold: f64,
    /// Of the classes or outputs, in column order.
    pub classes: Option<Vec<String>>,
    /// Of the features, in column order.
    pub features: Option<Vec<String>>,
    /// Features whose values are codes.
    pub categorical: Vec<String>,
}

impl Names {
    /// For so many columns.
    pub fn spec(self, classes: usize, features: usize) -> Result<Spec, SourceError> {
        check_name("--model", &self.model)?;
        check_name("--version", &self.version)?;
        if self.model.is_empty() {
            return wrong("--model is empty: give the name that the producer gives".into());
        }
        if !self.threshold.is_finite() {
            return wrong(format!("--threshold is {}, want a finite number", self.threshold));
        }
        let most = [("classes", classes, wire::MAX_CLASSES), ("features", features, wire::MAX_FEATURES)];
        if let Some((what, count, most)) = most.iter().find(|(_, count, most)| *count > *most as usize) {
            return wrong(format!("{count} {what}, and a model has at most {most}"));
        }
        let classes = named("--class-names", self.classes, classes, "class")?;
        let features = named("--feature-names", self.features, features, "feat")?;
        let unknown = self.categorical.iter().find(|name| !features.contains(name));
        if let Some(name) = unknown {
            return wrong(format!("--categorical names {name:?}, which is no feature: {}", listed(&features)));
        }
        let categorical: HashSet<String> = self.categorical.into_iter().collect();
        let feature = |name: String| Feature { categorical: categorical.contains(&name), name };
        Ok(Spec {
            model: self.model,
            version: self.version,
            regression: self.regression,
            threshold: self.threshold,
            classes,
            features: features.into_iter().map(feature).collect(),
            ..Spec::default()
        })
    }
}

/// The first few of many.
pub fn listed(names: &[String]) -> String {
    let more = if names.len() > 8 { ", …" } else { "" };
    format!("{}{more}", names.iter().take(8).cloned().collect::<Vec<_>>().join(", "))
}

fn wrong<T>(why: String) -> Result<T, SourceError> {
    Err(SourceError::Options(why))
}

fn named(option: &str, names: Option<Vec<String>>, count: usize, unnamed: &str) -> Result<Vec<String>, SourceError> {
    let names = names.unwrap_or_else(|| (0..count).map(|i| format!("{unnamed}_{i}")).collect());
    if names.len() != count {
        return wrong(format!("{option} gives {} names, and there are {count} columns", names.len()));
    }
    let mut seen = HashSet::new();
    for name in &names {
        check_name(option, name)?;
        if !seen.insert(name) {
            return wrong(format!("{option}: two columns are called {name:?}, and columns are compared by name"));
        }
    }
    Ok(names)
}

fn check_name(option: &str, name: &str) -> Result<(), SourceError> {
    if name.len() > wire::MAX_NAME || name.contains('\0') {
        return wrong(format!("{option}: a name has at most {} bytes and no NUL", wire::MAX_NAME));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_without_names_are_called_as_in_a_ring() {
        let names = Names { model: "m".into(), categorical: vec!["feat_1".into()], ..Names::default() };
        let spec = names.spec(2, 2).unwrap();
        assert_eq!(spec.classes, ["class_0", "class_1"]);
        assert_eq!((spec.features[1].name.as_str(), spec.features[1].categorical), ("feat_1", true));
    }

    #[test]
    fn wrong_names_are_refused_and_named() {
        let names = |change: &dyn Fn(&mut Names)| {
            let mut names = Names { model: "m".into(), threshold: 0.5, ..Names::default() };
            change(&mut names);
            names.spec(2, 1).unwrap_err().to_string()
        };
        let text = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(names(&|n| n.model.clear()).contains("--model"));
        assert!(names(&|n| n.classes = Some(text(&["a"]))).contains("1 names, and there are 2"));
        assert!(names(&|n| n.classes = Some(text(&["a", "a"]))).contains("\"a\""));
        assert!(names(&|n| n.categorical = text(&["age"])).contains("feat_0"));
        assert!(names(&|n| n.threshold = f64::NAN).contains("--threshold"));
        assert!(names(&|n| n.version = "7".repeat(300)).contains("--version"));
    }
}
