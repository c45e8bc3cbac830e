//! How far the centroid of an embedding has moved.

use super::{DriftSettings, Measure};
use crate::profile::Profile;
use crate::reference::Reference;
use crate::report::overrides::OfModel;
use crate::stats::{Moment, centroid_shift};
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct EmbeddingDrift {
    pub name: String,
    pub n: u64,
    pub reference_n: u64,
    pub distance: Measure,
    pub cosine: Measure,
    pub shift: Measure,
}

pub(super) fn embeddings(profile: &Profile, reference: &Reference, settings: &OfModel<'_>) -> Vec<EmbeddingDrift> {
    let (spec, moments) = (&profile.spec, profile.features.moments.columns());
    let of_block = |block: &crate::profile::Block| {
        let features = &spec.features[block.columns.clone()];
        let then: Option<Vec<Moment>> =
            features.iter().map(|f| reference.feature(&f.name, f.categorical).map(|column| column.moment)).collect();
        let now = &moments[block.columns.clone()];
        match then {
            Some(then) => compare(&block.name, now, &then, settings.of("embedding", &block.name)),
            None => {
                let [distance, cosine, shift] = [Measure::undefined("no_reference"); 3];
                EmbeddingDrift { name: block.name.clone(), n: fewest(now), reference_n: 0, distance, cosine, shift }
            }
        }
    };
    spec.embeddings.iter().map(of_block).collect()
}

/// Values of the coordinate that has the fewest.
fn fewest(moments: &[Moment]) -> u64 {
    moments.iter().map(|moment| moment.n).min().unwrap_or(0)
}

/// Chance: the squared distance of two centroids is a sum of squares with the variances σ²(1/N + 1/M) of their coordinates, as if these
/// were independent.
fn compare(name: &str, now: &[Moment], then: &[Moment], settings: &DriftSettings) -> EmbeddingDrift {
    let centroid = |moments: &[Moment]| -> Vec<f64> { moments.iter().map(|moment| moment.mean).collect() };
    let (n, reference_n) = (fewest(now), fewest(then));
    let (distance, cosine) = match n.min(reference_n) > 0 {
        true => centroid_shift(&centroid(now), &centroid(then)),
        false => (Err("empty"), Err("empty")),
    };
    let variance = |moment: &Moment| moment.m2 / moment.n.max(1) as f64;
    let spread: f64 = then.iter().map(variance).sum();
    let shift = distance.and_then(|distance| {
        let by_chance = now.iter().zip(then).map(|(a, b)| variance(b) * (1.0 / a.n as f64 + 1.0 / b.n as f64));
        let (mean, squares) = by_chance.fold((0.0, 0.0), |(sum, squares), v| (sum + v, squares + v * v));
        let z = (distance * distance - mean) / (2.0 * squares).sqrt();
        match spread > 0.0 && spread.is_finite() {
            true => Ok((distance / spread.sqrt(), Some(z).filter(|z| z.is_finite()))),
            false => Err("constant_reference"),
        }
    });
    let mut shift = match shift {
        Ok((value, z)) => Measure { z, ..Measure::of(value) },
        Err(reason) => Measure::undefined(reason),
    };
    if n.min(reference_n) >= settings.min_rows {
        shift.judge(&settings.embedding, |shift| shift.z.is_some_and(|z| z >= settings.z));
    }
    let measure = |result: Result<f64, &'static str>| result.map_or_else(Measure::undefined, Measure::of);
    EmbeddingDrift {
        name: name.to_owned(),
        n,
        reference_n,
        distance: measure(distance),
        cosine: measure(cosine),
        shift,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Verdict;

    fn moments(means: [f64; 2], n: u64) -> Vec<Moment> {
        let moment = |mean| Moment { n, nan: 0, inf: 0, zero: 0, mean, m2: n as f64, min: -9.0, max: 9.0 };
        means.map(moment).to_vec()
    }

    #[test]
    fn a_centroid_that_moves_farther_than_chance_is_judged_by_its_deviations() {
        let settings = DriftSettings::default();
        let moved = compare("e", &moments([3.0, 1.0], 1000), &moments([0.0, 1.0], 1000), &settings);
        assert_eq!((moved.distance.value, moved.shift.verdict), (Some(3.0), Some(Verdict::Alert)));
        assert!((moved.shift.value.unwrap() - 3.0 / 2f64.sqrt()).abs() < 1e-12);
        assert!((moved.cosine.value.unwrap() - 1.0 / 10f64.sqrt()).abs() < 1e-12);
        let by_chance = compare("e", &moments([0.05, 1.0], 1000), &moments([0.0, 1.0], 1000), &settings);
        assert_eq!(by_chance.shift.verdict, Some(Verdict::Ok));
        let mut some_missing = moments([3.0, 1.0], 1000);
        some_missing[1].n = 5;
        let few = compare("e", &some_missing, &moments([0.0, 1.0], 1000), &settings);
        assert_eq!((few.shift.verdict, few.distance.value), (None, Some(3.0)));
        assert_eq!((few.n, few.reference_n), (5, 1000), "of the coordinate that has the fewest");
        let none = compare("e", &moments([0.0, 0.0], 0), &moments([0.0, 1.0], 1000), &settings);
        assert_eq!(none.distance.reason, Some("empty"));
    }
}
