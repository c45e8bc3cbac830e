//! Several references of one model as one: as if it had been made from all their rows, as far as they tell.

use super::{Band, Column, Quality, Reference};
use std::collections::{BTreeMap, HashMap};
use thiserror::Error;
use tracing::warn;

/// So many numbers up to 2^53 have a sum.
const MOST_PARTS: usize = 1024;

/// Which of the references cannot be merged, counted from 0, and why.
#[derive(Debug, Error, PartialEq)]
#[error("reference {part}: {why}")]
#[expect(missing_docs, reason = "named by themselves")]
pub struct MergeError {
    pub part: usize,
    pub why: Mismatch,
}

/// What keeps a reference from being merged with the first.
#[derive(Debug, Error, PartialEq)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum Mismatch {
    #[error("there is none before it and none after it: name the references to merge")]
    Nothing,
    #[error("only {MOST_PARTS} references are merged at once: merge those before it, then the result with the others")]
    TooMany,
    #[error("it is of the model {it:?}, and the first of {first:?}: merge references of one model")]
    Model { it: String, first: String },
    #[error(
        "it is of the version {it:?}, and the first of {first:?}: say with --version of which the merged one is, '' for any"
    )]
    Version { it: String, first: String },
    #[error("it is of a {it}, and the first of a {first}: merge references of one --task")]
    Task { it: &'static str, first: &'static str },
    #[error(
        "its threshold is {it}, and the first's {first}, so the same rows would count as other classes: build both with one --threshold"
    )]
    Threshold { it: f64, first: f64 },
    #[error("it has the {what} {name:?}, and the first has not: build both from the same columns")]
    More { what: &'static str, name: String },
    #[error("it has no {what} {name:?}, and the first has: build both from the same columns")]
    Fewer { what: &'static str, name: String },
    #[error("{name:?} is {it} in it, and {first} in the first: build both with the same --categorical")]
    Kind { name: String, it: &'static str, first: &'static str },
    #[error(
        "taken together with the others its numbers exceed f64 or 2^53 rows, or contradict each other: build it anew without such values"
    )]
    Unsound,
}

impl Reference {
    /// Of one model, task and threshold, and of the same columns by name, which keep the order of the first. In whatever order the
    /// references come, the numbers are the same. `version` is what the merged one is of; without it, all are of one version.
    ///
    /// Moments and counts are those of all rows. Bins and steps that are not the same in all are those of the mixture: see
    /// docs/statistics.md for how far they may be off. Of one reference it is that reference.
    pub fn merge(parts: &[Reference], version: Option<&str>) -> Result<Reference, MergeError> {
        let error = |part| move |why| MergeError { part, why };
        let (first, others) = parts.split_first().ok_or(Mismatch::Nothing).map_err(error(0))?;
        if parts.len() > MOST_PARTS {
            return Err(error(MOST_PARTS)(Mismatch::TooMany));
        }
        for (part, other) in others.iter().enumerate() {
            first.check_same(other, version.is_some()).map_err(error(part + 1))?;
        }
        let version = version.unwrap_or(&first.version).to_owned();
        let mut merged = if others.is_empty() { first.clone() } else { first.merged(others) };
        merged.version = version;
        let merged = merged.complete();
        if merged.is_sound() { Ok(merged) } else { Err(error(others.len())(Mismatch::Unsound)) }
    }

    /// What `check_same` finds nothing against.
    fn merged(&self, others: &[Reference]) -> Reference {
        let mut parts: Vec<&Reference> = others.iter().chain([self]).collect();
        // Sums of floats depend on the order, and nobody should have to care.
        parts.sort_by_key(|part| part.id);
        let mut exact = parts.iter().all(|part| part.exact);
        let mut join = |columns: &dyn Fn(&Reference) -> Vec<&Column>| {
            let joined = together(&columns(self), &parts, columns);
            exact &= joined.iter().all(|(_, exact)| *exact);
            joined.into_iter().map(|(column, _)| column).collect::<Vec<_>>()
        };
        Reference {
            id: 0,
            model: self.model.clone(),
            version: self.version.clone(),
            regression: self.regression,
            threshold: self.threshold,
            rows: parts.iter().map(|part| part.rows).sum(),
            predicted: summed(self, &parts, |part| &part.predicted),
            actual: summed(self, &parts, |part| &part.actual),
            probabilities: join(&|part| part.probabilities.iter().collect()),
            confidence: join(&|part| part.confidence.iter().collect()).pop(),
            margin: join(&|part| part.margin.iter().collect()).pop(),
            entropy: join(&|part| part.entropy.iter().collect()).pop(),
            features: join(&|part| part.features.iter().collect()),
            exact,
            bands: pooled(&parts),
            quality: self.merged_quality(&parts),
            calibration: None,
        }
    }

    /// Of the rows of those that have labels, its classes in our order.
    fn merged_quality(&self, parts: &[&Reference]) -> Option<Quality> {
        let mut merged: Option<Quality> = None;
        for part in parts {
            let Some(quality) = &part.quality else { continue };
            let place = |class: &Column| part.probabilities.iter().position(|theirs| theirs.name == class.name);
            let order = self.probabilities.iter().map(place).collect::<Option<Vec<_>>>()?;
            match &mut merged {
                None => merged = Some(quality.reordered(&order)),
                Some(merged) => merged.merge(quality, &order),
            }
        }
        merged
    }

    fn check_same(&self, it: &Reference, any_version: bool) -> Result<(), Mismatch> {
        let task = |regression| if regression { "regression" } else { "classification" };
        if it.model != self.model {
            return Err(Mismatch::Model { it: it.model.clone(), first: self.model.clone() });
        }
        if it.version != self.version && !any_version {
            return Err(Mismatch::Version { it: it.version.clone(), first: self.version.clone() });
        }
        if it.regression != self.regression {
            return Err(Mismatch::Task { it: task(it.regression), first: task(self.regression) });
        }
        if it.threshold != self.threshold {
            return Err(Mismatch::Threshold { it: it.threshold, first: self.threshold });
        }
        let what = if self.regression { "output" } else { "class" };
        check_columns(what, &self.probabilities, &it.probabilities)?;
        check_columns("feature", &self.features, &it.features)
    }
}

fn check_columns(what: &'static str, first: &[Column], it: &[Column]) -> Result<(), Mismatch> {
    let kind = |column: &Column| if column.as_categorical().is_some() { "categorical" } else { "numerical" };
    let (of_first, of_it) = (by_name(first.iter()), by_name(it.iter()));
    for (name, column) in &of_first {
        let name = || (*name).to_owned();
        let here = of_it.get(column.name.as_str()).ok_or_else(|| Mismatch::Fewer { what, name: name() })?;
        if kind(here) != kind(column) {
            return Err(Mismatch::Kind { name: name(), it: kind(here), first: kind(column) });
        }
    }
    match of_it.keys().find(|name| !of_first.contains_key(*name)) {
        Some(name) => Err(Mismatch::More { what, name: (*name).to_owned() }),
        None => Ok(()),
    }
}

fn by_name<'a>(columns: impl Iterator<Item = &'a Column>) -> BTreeMap<&'a str, &'a Column> {
    columns.map(|column| (column.name.as_str(), column)).collect()
}

/// Each of these columns out of the parts' columns of its name.
fn together(
    these: &[&Column],
    parts: &[&Reference],
    columns: &dyn Fn(&Reference) -> Vec<&Column>,
) -> Vec<(Column, bool)> {
    let parts: Vec<HashMap<&str, &Column>> = parts
        .iter()
        .map(|part| columns(part).into_iter().map(|column| (column.name.as_str(), column)).collect())
        .collect();
    let same = |name: &str| parts.iter().filter_map(|part| part.get(name).copied()).collect::<Vec<_>>();
    these.iter().map(|column| Column::joined(&same(&column.name))).collect()
}

/// By class. A part without labels has no counts, and adds none.
fn summed(
    first: &Reference,
    parts: &[&Reference],
    counts: impl Fn(&Reference) -> &[(String, u64)],
) -> Vec<(String, u64)> {
    if parts.iter().all(|part| counts(part).is_empty()) {
        return Vec::new();
    }
    let mut sums: HashMap<&str, u64> = HashMap::new();
    for (name, count) in parts.iter().flat_map(|part| counts(part)) {
        *sums.entry(name).or_default() += count;
    }
    let of_class = |column: &Column| (column.name.clone(), sums.get(column.name.as_str()).copied().unwrap_or(0));
    first.probabilities.iter().map(of_class).collect()
}

/// Of the periods of all parts, path by path.
fn pooled(parts: &[&Reference]) -> Vec<Band> {
    let mut by_path: BTreeMap<&str, Vec<&Band>> = BTreeMap::new();
    for band in parts.iter().flat_map(|part| &part.bands) {
        by_path.entry(&band.path).or_default().push(band);
    }
    let pool = |(path, bands): (&str, Vec<&Band>)| {
        let band = Band::pooled(&bands);
        if band.is_none() {
            warn!(path, "no band: the deviation over the periods of all references exceeds f64");
        }
        band
    };
    by_path.into_iter().filter_map(pool).collect()
}

#[cfg(test)]
mod tests {
    use super::super::file::MOST_COUNT;
    use super::*;
    use crate::profile::{Feature, Labels, Profile, Rows, Spec};
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn spec() -> Spec {
        let feature = |name: &str, categorical| Feature { name: name.into(), categorical };
        Spec {
            model: "m".into(),
            version: "7".into(),
            threshold: 0.5,
            classes: ["a", "b"].map(String::from).to_vec(),
            features: vec![feature("x", false), feature("plan", true)],
            ..Spec::default()
        }
    }

    fn band(path: &str, n: u64, mean: f64) -> Band {
        Band { path: path.into(), n, mean, std: 1.0 }
    }

    fn reference_of(spec: Spec, rows: &[(f64, i32)]) -> Reference {
        let features = spec.features.len();
        let mut profile = Profile::new(Arc::new(spec), 1 << 12, 1);
        for (x, label) in rows {
            let (p, plan) = ((x / 10.0).fract().abs(), f64::from(*label));
            profile.update(&Rows {
                count: 1,
                probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 2), &[1.0 - p, p]).unwrap())),
                features: Some(Columns::F64(ArrayView2::from_shape((1, features), &[*x, plan][..features]).unwrap())),
                labels: Some(Labels::Classes(&[*label])),
                ..Rows::default()
            });
        }
        Reference::of(&profile)
    }

    fn reference(rows: &[(f64, i32)]) -> Reference {
        reference_of(spec(), rows).with_bands(vec![band("features.x.mean", 3, rows.len() as f64)])
    }

    fn rows() -> impl Strategy<Value = Vec<(f64, i32)>> {
        proptest::collection::vec((prop_oneof![(-9..9i32).prop_map(f64::from), -5.0..40.0f64], 0..2), 1..300)
    }

    fn merge(parts: &[Reference]) -> Reference {
        Reference::merge(parts, None).unwrap()
    }

    #[test]
    fn of_one_reference_it_is_that_reference() {
        let one = reference(&[(1.0, 0), (2.5, 1), (7.0, 1)]);
        assert_eq!(merge(std::slice::from_ref(&one)).to_bytes(), one.to_bytes());
    }

    #[test]
    fn of_the_same_reference_twice_only_counts_differ() {
        let one = reference(&[(1.0, 0), (2.5, 1), (7.0, 1)]);
        let twice = merge(&[one.clone(), one.clone()]);
        assert!(twice.exact);
        for (a, b) in one.features.iter().zip(&twice.features) {
            assert_eq!((a.edges(), 2 * a.moment.n), (b.edges(), b.moment.n));
            assert_eq!((a.moment.mean, a.moment.std()), (b.moment.mean, b.moment.std()));
        }
        assert_eq!(twice.predicted.iter().map(|(_, n)| n).sum::<u64>(), 6);
        assert_eq!(twice.bands[0].n, 6);
        assert_ne!(twice.id(), one.id());
    }

    #[test]
    fn columns_are_matched_by_name_and_keep_the_order_of_the_first() {
        let one = reference(&[(1.0, 0), (2.0, 1)]);
        let mut turned = one.clone();
        turned.features.reverse();
        turned.probabilities.reverse();
        turned.predicted.reverse();
        turned.quality = turned.quality.map(|quality| quality.reordered(&[1, 0]));
        assert_eq!(merge(&[one.clone(), turned.clone()]), merge(&[one.clone(), one.clone()]));
        assert_eq!(merge(&[turned, one]).features[0].name, "plan");
    }

    #[test]
    fn labels_of_some_are_the_labels_of_all() {
        let labelled = reference(&[(1.0, 0), (2.0, 1)]);
        let unlabelled = Reference { actual: vec![], ..labelled.clone() };
        assert_eq!(merge(&[unlabelled.clone(), labelled.clone()]).actual, labelled.actual);
        assert_eq!(merge(&[unlabelled.clone(), unlabelled]).actual, []);
    }

    #[test]
    fn bands_are_of_the_periods_of_all() {
        let with = |bands| reference(&[(1.0, 0)]).with_bands(bands);
        let merged = merge(&[
            with(vec![band("a", 2, 1.0), band("b", 4, 1e308)]),
            with(vec![band("a", 2, 3.0), band("b", 4, -1e308)]),
        ]);
        assert_eq!(
            merged.bands.iter().map(|band| (band.path.as_str(), band.n, band.mean)).collect::<Vec<_>>(),
            [("a", 4, 2.0)]
        );
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        let one = reference(&[(1.0, 0), (2.0, 1)]);
        let with = |change: &dyn Fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            let other = reference_of(spec, &[(1.0, 0)]);
            let error = Reference::merge(&[one.clone(), one.clone(), other], None).unwrap_err();
            assert_eq!(error.part, 2);
            error.why
        };
        assert_eq!(with(&|spec| spec.model = "n".into()), Mismatch::Model { it: "n".into(), first: "m".into() });
        assert_eq!(with(&|spec| spec.version.clear()), Mismatch::Version { it: "".into(), first: "7".into() });
        assert_eq!(with(&|spec| spec.regression = true), Mismatch::Task { it: "regression", first: "classification" });
        assert_eq!(with(&|spec| spec.threshold = 0.3), Mismatch::Threshold { it: 0.3, first: 0.5 });
        assert_eq!(with(&|spec| spec.classes[0] = "c".into()), Mismatch::Fewer { what: "class", name: "a".into() });
        assert_eq!(with(&|spec| spec.features.truncate(1)), Mismatch::Fewer { what: "feature", name: "plan".into() });
        let (it, first) = ("numerical", "categorical");
        let kind = Mismatch::Kind { name: "plan".into(), it, first };
        assert_eq!(with(&|spec| spec.features[1].categorical = false), kind);
        let narrow = Spec { features: spec().features[..1].to_vec(), ..spec() };
        let more = Reference::merge(&[reference_of(narrow, &[(1.0, 0)]), one.clone()], None).unwrap_err().why;
        assert_eq!(more, Mismatch::More { what: "feature", name: "plan".into() });
        assert_eq!(Reference::merge(&[], None).unwrap_err().why, Mismatch::Nothing);
        assert_eq!(Reference::merge(&vec![one; MOST_PARTS + 1], None).unwrap_err().why, Mismatch::TooMany);
    }

    #[test]
    fn versions_become_the_one_that_is_told() {
        let (one, mut other) = (reference(&[(1.0, 0)]), reference(&[(2.0, 1)]));
        other.version = "8".into();
        assert_eq!(Reference::merge(&[one, other], Some("")).unwrap().version, "");
    }

    #[test]
    fn counts_that_are_too_many_together_are_refused() {
        let one = reference(&[(1.0, 0), (2.0, 1)]);
        let with = |rows| Reference::merge(&[one.clone(), Reference { rows, ..one.clone() }], None);
        assert_eq!(with(MOST_COUNT).unwrap_err(), MergeError { part: 1, why: Mismatch::Unsound });
        assert_eq!(with(MOST_COUNT - one.rows).unwrap().rows, MOST_COUNT);
    }

    #[test]
    fn means_that_cancel_at_infinity_are_refused() {
        let (mut up, mut down) = (reference(&[(1.0, 0)]), reference(&[(2.0, 1)]));
        (up.features[0].moment.mean, down.features[0].moment.mean) = (f64::INFINITY, f64::NEG_INFINITY);
        assert_eq!(Reference::merge(&[up.clone(), down, up], None).unwrap_err().why, Mismatch::Unsound);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_merged_reference_counts_all_rows(parts in proptest::collection::vec(rows(), 1..5)) {
            let merged = merge(&parts.iter().map(|rows| reference(rows)).collect::<Vec<_>>());
            let whole = reference(&parts.concat());
            prop_assert_eq!(merged.rows, whole.rows);
            prop_assert_eq!((&merged.predicted, &merged.actual), (&whole.predicted, &whole.actual));
            let columns = |r: &Reference| {
                let rows = r.confidence.iter().chain(&r.margin).chain(&r.entropy);
                rows.chain(&r.probabilities).chain(&r.features).cloned().collect::<Vec<_>>()
            };
            for (a, b) in columns(&merged).iter().zip(&columns(&whole)) {
                prop_assert_eq!((&a.name, a.moment.n, a.moment.zero), (&b.name, b.moment.n, b.moment.zero));
                prop_assert!((a.moment.mean - b.moment.mean).abs() < 1e-9);
                prop_assert!((a.moment.std().unwrap() - b.moment.std().unwrap()).abs() < 1e-9);
                prop_assert_eq!(a.as_categorical(), b.as_categorical());
            }
        }

        #[test]
        fn the_order_does_not_matter(parts in proptest::collection::vec(rows(), 2..5), turn in 0..4usize) {
            let mut parts: Vec<Reference> = parts.iter().map(|rows| reference(rows)).collect();
            let bytes = merge(&parts).to_bytes();
            let by = turn % parts.len();
            parts.rotate_left(by);
            prop_assert_eq!(merge(&parts).to_bytes(), bytes);
        }

        #[test]
        fn a_forged_reference_merges_soundly_or_not_at_all(at in any::<prop::sample::Index>(), xor in 1..=255u8) {
            let one = reference(&[(1.0, 0), (2.0, 1), (3.5, 1)]);
            let mut bytes = one.to_bytes();
            let at = 12 + at.index(bytes.len() - 12);
            bytes[at] ^= xor;
            let crc = crc32c::crc32c(&bytes[12..]);
            bytes[8..12].copy_from_slice(&crc.to_le_bytes());
            if let Ok(forged) = Reference::from_bytes(&bytes)
                && let Ok(merged) = Reference::merge(&[one, forged], None)
            {
                prop_assert!(Reference::from_bytes(&merged.to_bytes()).is_ok());
            }
        }
    }
}
