//! The values of those columns that an operator has chosen, each in its bucket, over every row.

use super::{Rows, Size, Spec};
use crate::stats;
use serde::{Deserialize, Serialize};

/// Of a period.
#[derive(Debug, Serialize, Deserialize)]
pub struct Histograms {
    /// Of some features.
    pub features: stats::Histograms,
    /// Of every class's probability, or every output; or of none of them.
    pub predictions: stats::Histograms,
}

impl Histograms {
    pub(super) fn new(spec: &Spec) -> Option<Histograms> {
        let chosen = spec.histograms.as_ref()?;
        let (features, predictions) = (chosen.features.iter().cloned(), 0..spec.classes.len());
        Some(Histograms {
            features: stats::Histograms::new(chosen.scale, features),
            predictions: stats::Histograms::new(chosen.scale, chosen.predictions.then_some(predictions)),
        })
    }

    /// An upper bound of their memory in bytes, with two more columns for the one that is merged or written.
    pub(super) fn bytes(size: Size) -> u64 {
        match size.histograms {
            (0, _) => 0,
            (columns, scale) => (columns + 2).saturating_mul(stats::Histograms::bytes_of_a_column(scale)),
        }
    }

    /// Whether they are what `spec` says: what comes from a file may not be.
    pub(super) fn fits(histograms: Option<&Histograms>, spec: &Spec) -> bool {
        match (histograms, Histograms::new(spec)) {
            (Some(these), Some(empty)) => {
                these.features.is_like(&empty.features) && these.predictions.is_like(&empty.predictions)
            }
            (these, wanted) => these.is_none() && wanted.is_none(),
        }
    }

    pub(super) fn update(&mut self, rows: &Rows<'_>) {
        if let Some(features) = &rows.features {
            self.features.update(features);
        }
        if let Some(probabilities) = &rows.probabilities {
            self.predictions.update(probabilities);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Histogrammed, Profile};
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use std::ops::Range;
    use std::sync::Arc;

    fn spec(scale: u8, features: &[Range<usize>], predictions: bool) -> Spec {
        let feature = |i| Feature { name: format!("f{i}"), categorical: false };
        Spec {
            classes: ["a", "b"].map(String::from).to_vec(),
            features: (0..4).map(feature).collect(),
            histograms: Some(Histogrammed { scale, features: features.to_vec(), predictions }),
            ..Spec::default()
        }
    }

    fn fed(spec: Spec) -> Profile {
        let mut profile = Profile::new(Arc::new(spec), 10, 1);
        profile.update(&Rows {
            count: 1,
            probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 2), &[0.25, 0.75]).unwrap())),
            features: Some(Columns::F64(ArrayView2::from_shape((1, 4), &[1.0, 2.0, 4.0, 8.0]).unwrap())),
            ..Rows::default()
        });
        profile
    }

    #[test]
    fn the_chosen_columns_of_features_and_predictions_are_counted() {
        let runs = [0..1, 2..4];
        let histograms = fed(spec(3, &runs, true)).histograms.unwrap();
        let first = |histograms: &stats::Histograms, nth| histograms.histogram(nth).positive.offset >> 3;
        assert_eq!([0, 1, 2].map(|nth| first(&histograms.features, nth)), [0, 2, 3]);
        assert_eq!([0, 1].map(|nth| first(&histograms.predictions, nth)), [-2, -1]);
        assert_eq!(fed(spec(3, &runs, false)).histograms.unwrap().predictions.columns().count(), 0);
    }

    #[test]
    fn what_was_written_for_other_columns_or_another_scale_is_not_gone_on_with() {
        let runs = [0..1, 2..4];
        let written = postcard::to_stdvec(&fed(spec(3, &runs, true))).unwrap();
        let revived = |spec: Spec| postcard::from_bytes::<Profile>(&written).unwrap().revived(Arc::new(spec));
        assert!(revived(spec(3, &runs, true)).is_some());
        for other in [
            spec(4, &runs, true),
            spec(3, &runs, false),
            spec(3, &runs[..1], true),
            Spec { histograms: None, ..spec(3, &runs, true) },
        ] {
            assert!(revived(other).is_none());
        }
    }
}
