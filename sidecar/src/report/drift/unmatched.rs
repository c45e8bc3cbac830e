//! Columns that only one of the two has: nothing compares them.

use crate::profile::Spec;
use crate::reference::{Column, Reference};
use serde::Serialize;
use std::collections::HashSet;
use tracing::warn;

/// How many columns have no counterpart of their name and, of features, kind: the stream's, and the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Unmatched {
    pub features: u64,
    pub reference_features: u64,
    pub classes: u64,
    pub reference_classes: u64,
}

/// Names of which only one side knows.
struct Sides<'a> {
    stream: Vec<&'a str>,
    reference: Vec<&'a str>,
    /// Neither side is without any: names differ, and not what there is.
    comparable: bool,
}

impl<'a> Sides<'a> {
    /// By name and kind.
    fn of(stream: Vec<(&'a str, bool)>, reference: Vec<(&'a str, bool)>) -> Sides<'a> {
        let only = |these: &[(&'a str, bool)], others: &[(&'a str, bool)]| {
            let others: HashSet<_> = others.iter().copied().collect();
            these.iter().filter(|it| !others.contains(*it)).map(|(name, _)| *name).collect()
        };
        let comparable = !stream.is_empty() && !reference.is_empty();
        Sides { stream: only(&stream, &reference), reference: only(&reference, &stream), comparable }
    }

    fn features(spec: &'a Spec, reference: &'a Reference) -> Sides<'a> {
        let kind = |column: &'a Column| (column.name.as_str(), column.as_categorical().is_some());
        let features = spec.features.iter().map(|feature| (feature.name.as_str(), feature.categorical)).collect();
        Sides::of(features, reference.features.iter().map(kind).collect())
    }

    /// Or outputs.
    fn classes(spec: &'a Spec, reference: &'a Reference) -> Sides<'a> {
        let classes = spec.classes.iter().map(|name| (name.as_str(), false)).collect();
        Sides::of(classes, reference.probabilities.iter().map(|column| (column.name.as_str(), false)).collect())
    }

    fn differ(&self) -> bool {
        self.comparable && !(self.stream.is_empty() && self.reference.is_empty())
    }
}

impl Unmatched {
    /// Of a stream of `spec`.
    pub(super) fn of(spec: &Spec, reference: &Reference) -> Unmatched {
        let (features, classes) = (Sides::features(spec, reference), Sides::classes(spec, reference));
        Unmatched {
            features: features.stream.len() as u64,
            reference_features: features.reference.len() as u64,
            classes: classes.stream.len() as u64,
            reference_classes: classes.reference.len() as u64,
        }
    }
}

/// Says which names a stream of `spec` and the reference do not share. Where one has none at all there is nothing to compare, and
/// nothing is said.
pub fn warn_of_unmatched(spec: &Spec, reference: &Reference) {
    let of = [("features", Sides::features(spec, reference)), ("classes", Sides::classes(spec, reference))];
    for (what, sides) in of.iter().filter(|(_, sides)| sides.differ()) {
        let (model, version, reference) = (&spec.model, &spec.version, reference.id());
        let (stream_only, reference_only) = (listed(&sides.stream), listed(&sides.reference));
        warn!(
            model,
            version,
            reference,
            stream_only,
            reference_only,
            "{what} that only one side has are not compared: give the stream and the reference the same names and kinds"
        );
    }
}

/// The first of them, and how many more there are.
fn listed(names: &[&str]) -> String {
    const MOST: usize = 8;
    let more = match names.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Profile};

    fn spec(features: &[(&str, bool)], classes: &[&str]) -> Spec {
        let feature = |&(name, categorical): &(&str, bool)| Feature { name: name.into(), categorical };
        let classes = classes.iter().map(|name| (*name).to_owned()).collect();
        Spec { model: "m".into(), features: features.iter().map(feature).collect(), classes, ..Spec::default() }
    }

    #[test]
    fn columns_without_a_counterpart_of_name_and_kind_are_counted_on_either_side() {
        let before = spec(&[("a", false), ("b", false), ("plan", true)], &["no", "yes"]);
        let reference = Reference::of(&Profile::new(before.clone().into(), 1, 1));
        let now = spec(&[("b", false), ("plan", false), ("new", false), ("x", true)], &["yes", "no", "maybe"]);
        let unmatched = Unmatched { features: 3, reference_features: 2, classes: 1, reference_classes: 0 };
        assert_eq!(Unmatched::of(&now, &reference), unmatched);
        let none = Unmatched { features: 0, reference_features: 0, classes: 0, reference_classes: 0 };
        assert_eq!(Unmatched::of(&before, &reference), none);
        let without = spec(&[], &["no", "yes"]);
        assert!(!Sides::features(&without, &reference).differ(), "a stream without features has no other names");
    }

    #[test]
    fn of_many_names_the_first_are_listed() {
        let names: Vec<String> = (0..10).map(|i| format!("f{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(listed(&names), "f0, f1, f2, f3, f4, f5, f6, f7 and 2 more");
        assert_eq!((listed(&names[..2]), listed(&[])), ("f0, f1".into(), String::new()));
    }
}
