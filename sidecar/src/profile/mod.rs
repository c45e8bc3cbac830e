//! Everything known about one model over one period: exact statistics over every row, and a sample of whole rows.

mod answered;
mod bins;
mod embeddings;
mod estimates;
mod features;
mod histograms;
mod invalid;
mod later;
mod learned;
mod losses;
mod predictions;
mod quality;
mod rows;
mod sample;
mod segments;
mod spec;

pub use answered::{Answered, MOST_ANSWERED};
pub use bins::{Bins, Frozen};
pub use embeddings::Embeddings;
pub use estimates::Estimates;
pub use features::Features;
pub use histograms::Histograms;
pub use invalid::{Fault, Invalid, Occurrence};
pub use later::{Labelled, Later, Unjoined};
pub use learned::{Learned, Reading, Right};
pub use losses::{DROP_REASONS, Losses};
pub use predictions::{Predictions, SampledAnswers};
pub use quality::Quality;
pub use rows::{Labels, Record, Rows};
pub use sample::Sample;
pub use segments::{Segment, SegmentKey, Segments};
pub use spec::{Block, Feature, Histogrammed, SegmentBy, Segmentation, Size, Spec};

use crate::stats::{Classified, Elements, MOST_TRANSPOSED};
use quality::Answers;
use sample::MOST_CHANGES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Rows taken at a time: a record of many narrow rows must not make the scratch grow with it.
const CHUNK: usize = 4096;

/// Instances named in a report: a producer that invents a new one for every ring must not fill the memory.
pub const MOST_INSTANCES: usize = 256;

/// The accumulators. Memory: [`Profile::bytes`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Profile {
    /// What the columns mean.
    #[serde(skip)]
    pub spec: Arc<Spec>,
    /// Records with rows.
    pub records: u64,
    /// Rows seen, valid or not.
    pub rows: u64,
    /// Producer instances seen, the first [`MOST_INSTANCES`] of them.
    pub instances: BTreeSet<String>,
    /// There were more.
    pub more_instances: bool,
    /// What its numbers were.
    pub elements: Seen,
    /// What did not come through.
    pub losses: Losses,
    /// What the model answered.
    pub predictions: Predictions,
    /// What it was fed.
    pub features: Features,
    /// How right it was.
    pub quality: Quality,
    /// What became of labels that did not come with their rows.
    pub later: Later,
    /// How right it should be.
    pub estimates: Estimates,
    /// The rows in the bins of a reference, if there is one.
    pub bins: Option<Bins>,
    /// Every value of the columns that the spec says.
    pub histograms: Option<Histograms>,
    /// The answers by segment, where the spec says so.
    pub segments: Option<Segments>,
    /// What was predicted for which id.
    pub answered: Answered,
    /// Some of the rows.
    pub sample: Sample,
    #[serde(skip)]
    classified: Classified,
}

/// Element types that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Seen {
    pub probabilities: Elements,
    pub features: Elements,
}

impl Profile {
    /// An empty profile whose sample holds at most `reservoir_rows` rows, chosen by `seed`.
    pub fn new(spec: Arc<Spec>, reservoir_rows: u64, seed: u64) -> Profile {
        let classes = spec.classes.len();
        Profile {
            records: 0,
            rows: 0,
            instances: BTreeSet::new(),
            more_instances: false,
            elements: Seen::default(),
            losses: Losses::default(),
            predictions: Predictions::new(classes),
            features: Features::new(&spec),
            quality: Quality::new(&spec),
            later: Later::default(),
            estimates: Estimates::new(&spec),
            answered: Answered::default(),
            bins: None,
            histograms: Histograms::new(&spec),
            segments: spec.segments.map(|_| Segments::new(classes)),
            sample: Sample::new(&spec, reservoir_rows, seed),
            classified: Classified::default(),
            spec,
        }
    }

    /// The same, counting in the bins of a reference as well, and with what it says of the probabilities.
    pub fn counting_in(self, frozen: Option<&Frozen>) -> Profile {
        let estimates = self.estimates.reading(Reading::of(frozen));
        Profile { bins: frozen.map(Bins::new), estimates, ..self }
    }

    /// An upper bound of a profile's memory in bytes, the sample's values taking `value_bytes` each.
    pub fn bytes(size: Size, reservoir_rows: u64, value_bytes: u64) -> u64 {
        const COLUMN: u64 = 160 + 88; // a Moment, its pending sums and shift, a count of predictions, counts above 11 edges
        // Scratch, names, slots, ids with their share of the nodes.
        const FIXED: u64 = 64 * CHUNK as u64
            + 320 * MOST_INSTANCES as u64
            + 4 * MOST_CHANGES
            + 32 * MOST_ANSWERED as u64
            + Invalid::BYTES;
        // Exact counts, counters, where they stand, a HyperLogLog; lists double as they grow. And a count of each value of a reference.
        const CATEGORIES: u64 = (20 << 10) + (2 << 10);
        let columns = size.classes + size.features;
        let segments = Segments::bytes(size);
        let sample = reservoir_rows.saturating_mul(columns).saturating_mul(value_bytes);
        let slots = reservoir_rows.saturating_mul(2 * size_of::<u32>() as u64);
        let exact = (columns + 2 * size.embeddings + 3) * COLUMN + size.categorical * CATEGORIES + FIXED;
        let quality = Quality::bytes(size.classes) + Estimates::bytes(size.classes);
        let histograms = Histograms::bytes(size);
        [slots, segments, histograms, exact, quality].into_iter().fold(sample, u64::saturating_add)
    }

    /// What its report takes at most while it is made: columns of the sample side by side; of one its values as integers, those of
    /// them that are looked at closer, and its values in order; confidence and margin of the sampled rows.
    pub fn working_bytes(reservoir_rows: u64, value_bytes: u64) -> u64 {
        reservoir_rows.saturating_mul(3 * value_bytes + 24).saturating_add(MOST_TRANSPOSED as u64)
    }

    /// The largest sample with which a profile takes no more than `most_bytes`.
    pub fn rows_within(size: Size, most_bytes: u64, value_bytes: u64) -> u64 {
        let empty = Profile::bytes(size, 0, value_bytes);
        let row = Profile::bytes(size, 1, value_bytes) - empty;
        most_bytes.saturating_sub(empty).checked_div(row).unwrap_or(u64::MAX)
    }

    /// What its report takes to make, roughly: every value of the sample is sorted, every column written.
    pub fn report_cost(&self) -> u64 {
        let columns = (self.spec.classes.len() + self.spec.features.len()) as u64 + 1;
        columns.saturating_mul(self.sample.len() + 64)
    }

    /// Nothing was added, and nothing lost.
    pub fn is_untouched(&self) -> bool {
        self.records == 0 && self.later == Later::default() && self.losses == Losses::default()
    }

    /// Remembers who wrote.
    pub fn name_instance(&mut self, instance: &str) {
        if self.instances.contains(instance) {
            return;
        }
        self.more_instances |= self.instances.len() == MOST_INSTANCES;
        if self.instances.len() < MOST_INSTANCES {
            self.instances.insert(instance.to_owned());
        }
    }

    /// Adds a batch.
    pub fn update(&mut self, rows: &Rows<'_>) {
        if rows.are_labels_only() {
            return self.add_unjoined(&Unjoined { no_id: rows.count as u64, ..Unjoined::default() });
        }
        self.records += 1;
        for start in (0..rows.count).step_by(CHUNK) {
            self.update_chunk(&rows.slice(start..rows.count.min(start + CHUNK)));
        }
    }

    fn update_chunk(&mut self, rows: &Rows<'_>) {
        self.rows += rows.count as u64;
        self.sample.update(rows);
        self.classified.clear();
        if let Some(probabilities) = &rows.probabilities {
            self.elements.probabilities = self.elements.probabilities.and(Elements::of(probabilities.element()));
            self.predictions.update(probabilities, rows.record.as_ref(), &self.spec, &mut self.classified);
            self.estimates.update(probabilities, &self.classified);
            if let Some(bins) = &mut self.bins {
                bins.count_predictions(probabilities, &self.classified);
            }
        }
        if let Some(ids) = rows.ids {
            self.answered.update(ids, &self.classified);
        }
        if let Some(features) = &rows.features {
            self.elements.features = self.elements.features.and(Elements::of(features.element()));
            self.features.update(features);
            if let Some(bins) = &mut self.bins {
                bins.count_features(features);
            }
        }
        if let Some(histograms) = &mut self.histograms {
            histograms.update(rows);
        }
        if let Some(labels) = rows.labels {
            let reading = &self.estimates.reading;
            let answers =
                Answers { probabilities: rows.probabilities, classified: &self.classified, reading, epsilon: None };
            self.quality.update(labels, &answers);
        }
        if let (Some(segments), Some(segmentation)) = (&mut self.segments, &self.spec.segments) {
            segments.update(rows, segmentation, &self.classified);
        }
    }

    /// What is said of each answer, of the sampled rows that have a class.
    pub fn sampled_answers(&self) -> SampledAnswers {
        let mut answers = SampledAnswers::with_room(self.sample.len() as usize);
        self.sample.probabilities.for_each_row(|row| answers.add(row, self.spec.threshold));
        answers
    }

    /// Goes on against a reference, if it is still the same; without any, if not.
    pub fn revive_against(&mut self, frozen: Option<&Frozen>) {
        self.bins = self.bins.take().zip(frozen).and_then(|(bins, frozen)| bins.revived(frozen));
        self.estimates.reading = std::mem::take(&mut self.estimates.reading).revived(frozen);
    }

    /// What was serialized, once more in use, with an empty sample still to be filled. Its reference wants
    /// [`revive_against`](Self::revive_against). `None` if it does not belong to `spec`.
    pub fn revived(mut self, spec: Arc<Spec>) -> Option<Profile> {
        let classes = spec.classes.len();
        let fits = self.predictions.fits(classes)
            && self.elements.probabilities.is_sound()
            && self.elements.features.is_sound()
            && self.quality.fits(&spec)
            && self.estimates.fits(&spec)
            && self.features.fits(&spec)
            && self.answered.fits(classes)
            && self.sample.reservoir.is_sound()
            && Histograms::fits(self.histograms.as_ref(), &spec)
            && self.segments_fit(&spec);
        self.sample = self.sample.emptied(&spec);
        self.spec = spec;
        fits.then_some(self)
    }

    fn segments_fit(&self, spec: &Spec) -> bool {
        match (&self.segments, &spec.segments) {
            (Some(segments), Some(segmentation)) => segments.fits(spec.classes.len(), segmentation),
            (segments, segmentation) => segments.is_none() && segmentation.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Columns;
    use ndarray::ArrayView2;

    fn profile() -> Profile {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        let features = vec![Feature { name: "f".into(), categorical: true }];
        let spec = Spec {
            model: "m".into(),
            version: String::new(),
            regression: false,
            threshold: 0.5,
            classes: names,
            features,
            ..Spec::default()
        };
        Profile::new(Arc::new(spec), 10, 1)
    }

    fn rows<'a>(probabilities: &'a [f64], labels: Option<Labels<'a>>) -> Rows<'a> {
        let count = probabilities.len() / 3;
        let view = ArrayView2::from_shape((count, 3), probabilities).unwrap();
        Rows { count, probabilities: Some(Columns::F64(view)), features: None, labels, ..Rows::default() }
    }

    #[test]
    fn a_nan_row_has_no_class_but_is_counted_and_labelled() {
        let mut p = profile();
        p.update(&rows(&[0.2, f64::NAN, 0.1, 0.1, 0.2, 0.7], Some(Labels::Classes(&[0, 2]))));
        assert_eq!((p.rows, p.predictions.invalid.nan.rows, p.predictions.class_counts.clone()), (2, 1, vec![0, 0, 1]));
        assert_eq!(
            (p.quality.labelled_rows, p.quality.outcomes.rows(), p.quality.outcomes.accuracy().map(|a| a.value)),
            (2, 1, Some(1.0))
        );
        assert_eq!(p.predictions.confidence.columns()[0].n, 1);
    }

    #[test]
    fn a_batch_longer_than_a_chunk_counts_like_its_rows_one_by_one() {
        let count = 2 * CHUNK + 7;
        let probabilities: Vec<f64> =
            (0..count).flat_map(|i| [0.2, 0.5, 0.3].into_iter().cycle().skip(i % 3).take(3)).collect();
        let labels: Vec<i32> = (0..count).map(|i| (i % 4) as i32 - 1).collect();
        let (mut whole, mut single) = (profile(), profile());
        whole.update(&rows(&probabilities, Some(Labels::Classes(&labels))));
        for i in 0..count {
            single.update(&rows(&probabilities[3 * i..3 * i + 3], Some(Labels::Classes(&labels[i..=i]))));
        }
        assert_eq!(
            (whole.records, whole.rows, whole.quality.labelled_rows),
            (1, count as u64, single.quality.labelled_rows)
        );
        assert_eq!(whole.predictions.class_counts, single.predictions.class_counts);
        assert!(whole.quality.outcomes.classes().eq(single.quality.outcomes.classes()));
        assert_eq!(whole.sample.probabilities.finite_column(1), single.sample.probabilities.finite_column(1));
        assert!(whole.classified.confidence.capacity() <= CHUNK);
    }

    #[test]
    fn labels_in_only_some_batches_cover_only_those() {
        let mut p = profile();
        p.update(&rows(&[0.8, 0.1, 0.1], None));
        p.update(&rows(&[0.8, 0.1, 0.1, 0.1, 0.8, 0.1], Some(Labels::Classes(&[0, -1]))));
        assert_eq!((p.rows, p.quality.labelled_rows, p.quality.outcomes.rows()), (3, 1, 1));
    }

    #[test]
    fn a_label_out_of_range_is_counted_and_scores_nothing() {
        let mut p = profile();
        p.update(&rows(&[0.8, 0.1, 0.1, 0.8, 0.1, 0.1, 0.8, 0.1, 0.1], Some(Labels::Classes(&[3, -2, i32::MIN]))));
        assert_eq!((p.quality.invalid_labels, p.quality.labelled_rows, p.quality.outcomes.rows()), (3, 0, 0));
    }

    #[test]
    fn a_multi_label_row_counts_one_against_the_rest_only() {
        let mut p = profile();
        let sets = ArrayView2::from_shape((2, 3), &[1u8, 0, 1, 0, 0, 1]).unwrap();
        p.update(&rows(&[0.8, 0.1, 0.1, 0.1, 0.1, 0.8], Some(Labels::Sets(sets))));
        assert_eq!(
            (p.quality.outcomes.rows(), p.quality.outcomes.single_rows(), p.quality.outcomes.several_rows()),
            (2, 1, 1)
        );
        let support: Vec<u64> = p.quality.outcomes.classes().map(|c| c.support).collect();
        assert_eq!(support, [1, 0, 2]);
    }

    #[test]
    fn categorical_features_are_counted_by_value() {
        let mut p = profile();
        let view = ArrayView2::from_shape((3, 1), &[2.0f32, 1.0, 2.0]).unwrap();
        p.update(&Rows {
            count: 3,
            probabilities: None,
            features: Some(Columns::F32(view)),
            labels: None,
            ..Rows::default()
        });
        assert_eq!(p.features.categories[0].as_ref().unwrap().iter().collect::<Vec<_>>(), [(1.0, 1), (2.0, 2)]);
        assert_eq!((p.rows, p.predictions.rows), (3, 0));
    }

    #[test]
    fn rows_off_the_simplex_are_counted_and_still_classified() {
        let mut p = profile();
        p.update(&rows(&[0.5, 0.1, 0.1, 1.5, -0.3, -0.2], None));
        let invalid = &p.predictions.invalid;
        assert_eq!((invalid.not_normalised.rows, invalid.out_of_range.rows), (1, 1));
        assert_eq!(p.predictions.class_counts, [2, 0, 0]);
    }

    #[test]
    fn labels_without_predictions_or_features_are_counted_apart() {
        let mut p = profile();
        p.update(&Rows {
            count: 4,
            probabilities: None,
            features: None,
            labels: Some(Labels::Classes(&[0; 4])),
            ..Rows::default()
        });
        assert_eq!((p.rows, p.later.unjoined.rows()), (0, 4));
    }
}
