//! Everything known about one model over one period: exact statistics over every row, and a sample of whole rows.

use crate::stats::{
    self, Categories, Columns, Moments, Outcomes, Prediction, Reservoir, RowStore, Scalar, Validity, classify,
    with_view,
};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// What the columns mean. Streams with equal specs are one model to the reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The model's name.
    pub model: String,
    /// The model's version; may be empty.
    pub version: String,
    /// The first section holds outputs, not class probabilities.
    pub regression: bool,
    /// Two classes: class 1 is predicted when p₁ exceeds it.
    pub threshold: f64,
    /// Names of the classes, or of a regression's outputs.
    pub classes: Vec<String>,
    /// The features, in column order.
    pub features: Vec<Feature>,
}

/// One feature column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Values are codes to be counted, not quantities.
    pub categorical: bool,
}

/// How many columns there are: what a profile's memory depends on.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Size {
    pub classes: u64,
    pub features: u64,
    /// Of the features.
    pub categorical: u64,
}

impl Spec {
    /// How many columns there are.
    pub fn size(&self) -> Size {
        let categorical = self.features.iter().filter(|feature| feature.categorical).count() as u64;
        Size { classes: self.classes.len() as u64, features: self.features.len() as u64, categorical }
    }

    /// An upper bound of its own memory in bytes: names, and what it takes to keep each.
    pub fn bytes(&self) -> u64 {
        const NAME: u64 = 64; // a String, a flag, and what the allocator adds
        let names = self.classes.iter().chain(self.features.iter().map(|feature| &feature.name));
        names.map(|name| name.len() as u64 + NAME).sum::<u64>() + 2 * (MOST_NAME + NAME)
    }
}

/// Of a model or a version, in bytes.
const MOST_NAME: u64 = 255;

/// A batch of rows, in place.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Rows in every part.
    pub count: usize,
    /// count × classes (or outputs).
    pub probabilities: Option<Columns<'a>>,
    /// count × features.
    pub features: Option<Columns<'a>>,
    /// What was right.
    pub labels: Option<Labels<'a>>,
}

/// What was right, in one of three encodings.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// A class index per row, −1 = not known.
    Classes(&'a [i32]),
    /// A flag per row and class.
    Sets(ArrayView2<'a, u8>),
    /// A value per row and output, NaN = not known.
    Targets(ArrayView2<'a, f64>),
}

impl<'a> Rows<'a> {
    fn slice(&self, range: Range<usize>) -> Rows<'a> {
        Rows {
            count: range.len(),
            probabilities: self.probabilities.map(|columns| columns.rows(range.clone())),
            features: self.features.map(|columns| columns.rows(range.clone())),
            labels: self.labels.map(|labels| match labels {
                Labels::Classes(labels) => Labels::Classes(&labels[range]),
                Labels::Sets(sets) => Labels::Sets(stats::rows(sets, range)),
                Labels::Targets(targets) => Labels::Targets(stats::rows(targets, range)),
            }),
        }
    }
}

/// Slots remembered as changed before they are sorted out, however small the sample.
const MOST_CHANGES: u64 = 1024;

/// Rows taken at a time: a record of many narrow rows must not make the scratch grow with it.
const CHUNK: usize = 4096;

/// Instances named in a report: a producer that invents a new one for every ring must not fill the memory.
pub const MOST_INSTANCES: usize = 256;

/// How many reasons a drop can have; their names belong to the wire format.
pub const DROP_REASONS: usize = 5;

/// What did not come through as it should, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Records the producers dropped, by reason.
    pub dropped_records: [u64; DROP_REASONS],
    /// Rows the producers dropped, by reason.
    pub dropped_rows: [u64; DROP_REASONS],
    /// Records that a killed sidecar had read and nobody reports.
    pub crash_records: u64,
    /// Their rows.
    pub crash_rows: u64,
    /// Sequence numbers that never came.
    pub missing_records: u64,
    /// Times a ring was corrupt and its content given up.
    pub resyncs: u64,
    /// Rows whose period was already closed, or more than a day old.
    pub late_rows: u64,
    /// Rows with a time stamp from the future.
    pub early_rows: u64,
    /// Fullest any ring was seen, in bytes and of how many.
    pub high_water: (u64, u64),
}

impl Losses {
    /// Adds what else was lost. Saturates: a hostile producer may count anything.
    pub fn add(&mut self, other: &Losses) {
        for reason in 0..DROP_REASONS {
            self.dropped_records[reason] = self.dropped_records[reason].saturating_add(other.dropped_records[reason]);
            self.dropped_rows[reason] = self.dropped_rows[reason].saturating_add(other.dropped_rows[reason]);
        }
        self.crash_records = self.crash_records.saturating_add(other.crash_records);
        self.crash_rows = self.crash_rows.saturating_add(other.crash_rows);
        self.missing_records = self.missing_records.saturating_add(other.missing_records);
        self.resyncs = self.resyncs.saturating_add(other.resyncs);
        self.late_rows = self.late_rows.saturating_add(other.late_rows);
        self.early_rows = self.early_rows.saturating_add(other.early_rows);
        if other.high_water.0 > self.high_water.0 {
            self.high_water = other.high_water;
        }
    }
}

/// Rows that are not what a row of probabilities should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// A probability is NaN: no class.
    pub nan: u64,
    /// A probability is ±∞: no class.
    pub inf: u64,
    /// A probability is below 0 or above 1; counted with the others all the same.
    pub out_of_range: u64,
    /// The row does not sum to 1; counted with the others all the same.
    pub not_normalised: u64,
}

/// The accumulators. Memory: [`Profile::bytes`]. Serialized without the sample, whose rows a checkpoint keeps apart.
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
    /// What did not come through.
    pub losses: Losses,
    /// Rows with a probabilities section.
    pub prediction_rows: u64,
    /// Faulty rows among them.
    pub invalid: Invalid,
    /// Rows whose largest probability stands more than once.
    pub tie_rows: u64,
    /// Rows predicted as each class.
    pub class_counts: Vec<u64>,
    /// Of each class's probability, or each output.
    pub probabilities: Moments,
    /// One column: the largest probability of each valid row.
    pub confidence: Moments,
    /// One column: largest minus second largest.
    pub margin: Moments,
    /// Of each feature.
    pub features: Moments,
    /// Of each categorical feature; `None` for numerical ones.
    pub categories: Vec<Option<Categories>>,
    /// Predictions against labels.
    pub outcomes: Outcomes,
    /// Rows with a label in range, or a target, predicted or not.
    pub labelled_rows: u64,
    /// Label values that are not a class.
    pub invalid_labels: u64,
    /// Rows of records with neither predictions nor features to join their labels to.
    pub unjoined_label_rows: u64,
    /// Which rows were kept.
    pub reservoir: Reservoir,
    /// Their probabilities.
    #[serde(skip)]
    pub sampled_probabilities: RowStore,
    /// Their features.
    #[serde(skip)]
    pub sampled_features: RowStore,
    /// Slots of the sample that were filled anew since [`take_changed_slots`](Self::take_changed_slots).
    #[serde(skip)]
    changed_slots: Vec<u32>,
    #[serde(skip)]
    scratch: Scratch,
}

/// Of one batch; kept for its memory.
#[derive(Debug, Default)]
struct Scratch {
    /// (row of the batch, slot of the reservoir).
    kept: Vec<(usize, usize)>,
    classes: Vec<Option<usize>>,
    confidence: Vec<f64>,
    margin: Vec<f64>,
}

impl Profile {
    /// An empty profile whose sample holds at most `reservoir_rows` rows, chosen by `seed`.
    pub fn new(spec: Arc<Spec>, reservoir_rows: u64, seed: u64) -> Profile {
        let (classes, features) = (spec.classes.len(), spec.features.len());
        Profile {
            records: 0,
            rows: 0,
            instances: BTreeSet::new(),
            more_instances: false,
            losses: Losses::default(),
            prediction_rows: 0,
            invalid: Invalid::default(),
            tie_rows: 0,
            class_counts: vec![0; classes],
            probabilities: Moments::new(classes),
            confidence: Moments::new(1),
            margin: Moments::new(1),
            features: Moments::new(features),
            categories: spec.features.iter().map(|f| f.categorical.then(Categories::default)).collect(),
            outcomes: Outcomes::new(classes),
            labelled_rows: 0,
            invalid_labels: 0,
            unjoined_label_rows: 0,
            reservoir: Reservoir::new(reservoir_rows, seed),
            sampled_probabilities: RowStore::new(classes),
            sampled_features: RowStore::new(features),
            changed_slots: Vec::new(),
            scratch: Scratch::default(),
            spec,
        }
    }

    /// An upper bound of a profile's memory in bytes, the sample's values taking `value_bytes` each.
    pub fn bytes(size: Size, reservoir_rows: u64, value_bytes: u64) -> u64 {
        const COLUMN: u64 = 160; // a Moment, its pending sums and shift, an Outcomes entry
        const FIXED: u64 = 48 * CHUNK as u64 + 320 * MOST_INSTANCES as u64 + 4 * MOST_CHANGES; // scratch, names, slots
        const CATEGORIES: u64 = 256 * 40; // BTreeMap entries with their share of the nodes
        let columns = size.classes + size.features;
        let sample = reservoir_rows.saturating_mul(columns).saturating_mul(value_bytes);
        let slots = reservoir_rows.saturating_mul(2 * size_of::<u32>() as u64);
        sample.saturating_add(slots).saturating_add((columns + 2) * COLUMN + size.categorical * CATEGORIES + FIXED)
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
        columns.saturating_mul(self.reservoir.len() + 64)
    }

    /// Nothing was added, and nothing lost.
    pub fn is_untouched(&self) -> bool {
        self.records == 0 && self.unjoined_label_rows == 0 && self.losses == Losses::default()
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
        if rows.probabilities.is_none() && rows.features.is_none() {
            self.unjoined_label_rows += rows.count as u64;
            return;
        }
        self.records += 1;
        for start in (0..rows.count).step_by(CHUNK) {
            self.update_chunk(&rows.slice(start..rows.count.min(start + CHUNK)));
        }
    }

    fn update_chunk(&mut self, rows: &Rows<'_>) {
        self.rows += rows.count as u64;
        self.sample(rows);
        self.scratch.classes.clear();
        if let Some(probabilities) = &rows.probabilities {
            self.prediction_rows += rows.count as u64;
            self.probabilities.update(probabilities);
            if !self.spec.regression {
                with_view!(probabilities, view => self.classify_rows(view));
            }
        }
        if let Some(features) = &rows.features {
            self.features.update(features);
            self.count_categories(features);
        }
        match rows.labels {
            Some(Labels::Classes(labels)) => self.score_classes(labels),
            Some(Labels::Sets(sets)) => self.score_sets(&sets),
            Some(Labels::Targets(targets)) => {
                self.labelled_rows +=
                    targets.rows().into_iter().filter(|row| !row.iter().any(|t| t.is_nan())).count() as u64;
            }
            None => {}
        }
    }

    fn sample(&mut self, rows: &Rows<'_>) {
        self.scratch.kept.clear();
        for row in 0..rows.count {
            if let Some(slot) = self.reservoir.offer() {
                self.scratch.kept.push((row, slot));
            }
        }
        let kept = &self.scratch.kept;
        self.changed_slots.extend(kept.iter().map(|&(_, slot)| slot as u32));
        if self.changed_slots.len() as u64 > MOST_CHANGES.max(2 * self.reservoir.capacity()) {
            self.changed_slots.sort_unstable();
            self.changed_slots.dedup();
        }
        match &rows.probabilities {
            Some(probabilities) => self.sampled_probabilities.keep(probabilities, kept),
            None => self.sampled_probabilities.keep_missing(kept),
        }
        match &rows.features {
            Some(features) => self.sampled_features.keep(features, kept),
            None => self.sampled_features.keep_missing(kept),
        }
    }

    /// Bytes of a row of the sample.
    pub fn sampled_row_bytes(&self) -> usize {
        let bytes = |columns: usize, store: &RowStore| columns * store.value_bytes();
        bytes(self.spec.classes.len(), &self.sampled_probabilities)
            + bytes(self.spec.features.len(), &self.sampled_features)
    }

    /// How many times a slot of the sample was filled since they were taken.
    pub fn changes(&self) -> usize {
        self.changed_slots.len()
    }

    /// Which slots of the sample were filled since the last call, ascending, each once.
    pub fn take_changed_slots(&mut self) -> Vec<u32> {
        let mut slots = std::mem::take(&mut self.changed_slots);
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The next [`take_changed_slots`](Self::take_changed_slots) gives the whole sample.
    pub fn touch_all_slots(&mut self) {
        self.changed_slots = (0..self.reservoir.len() as u32).collect();
    }

    /// What was serialized, once more in use, with an empty sample still to be filled. `None` if it does not belong to `spec`.
    pub fn revived(mut self, spec: Arc<Spec>) -> Option<Profile> {
        let (classes, features) = (spec.classes.len(), spec.features.len());
        let kinds = spec.features.iter().map(|f| f.categorical);
        let fits = self.class_counts.len() == classes
            && self.outcomes.fits(classes)
            && self.probabilities.fits(classes)
            && self.confidence.fits(1)
            && self.margin.fits(1)
            && self.features.fits(features)
            && self.categories.iter().map(Option::is_some).eq(kinds);
        (self.sampled_probabilities, self.sampled_features) = (RowStore::new(classes), RowStore::new(features));
        self.spec = spec;
        fits.then_some(self)
    }

    /// Whether the sample has the rows that its reservoir has kept.
    pub fn has_its_sample(&self) -> bool {
        let slots = self.sampled_probabilities.slots().min(self.sampled_features.slots());
        slots as u64 >= self.reservoir.len()
    }

    fn classify_rows<T: Scalar>(&mut self, probabilities: &ArrayView2<'_, T>) {
        self.scratch.confidence.clear();
        self.scratch.margin.clear();
        let check_sum = probabilities.ncols() > 1;
        for row in probabilities.rows() {
            let prediction = classify(row.iter().map(|p| p.widen()), self.spec.threshold);
            self.scratch.classes.push(prediction.ok().map(|p| p.class));
            match prediction {
                Ok(p) => {
                    self.count_prediction(&p);
                    let off = (p.sum - 1.0).abs() > T::SUM_TOLERANCE;
                    self.invalid.not_normalised += u64::from(check_sum && off);
                }
                Err(Validity::Nan) => self.invalid.nan += 1,
                Err(Validity::Inf) => self.invalid.inf += 1,
            }
        }
        update_column(&mut self.confidence, &self.scratch.confidence);
        update_column(&mut self.margin, &self.scratch.margin);
    }

    fn count_prediction(&mut self, p: &Prediction) {
        self.class_counts[p.class] += 1;
        self.tie_rows += u64::from(p.tie);
        self.invalid.out_of_range += u64::from(p.out_of_range);
        self.scratch.confidence.push(p.confidence);
        self.scratch.margin.push(p.margin);
    }

    fn count_categories(&mut self, features: &Columns<'_>) {
        for (column, categories) in self.categories.iter_mut().enumerate() {
            if let Some(categories) = categories {
                with_view!(features, view => view.column(column).iter().for_each(|x| categories.add(x.widen())));
            }
        }
    }

    /// The class predicted for a row of the batch in hand, if it had a valid prediction.
    fn predicted(&self, row: usize) -> Option<usize> {
        self.scratch.classes.get(row).copied().flatten()
    }

    fn score_classes(&mut self, labels: &[i32]) {
        for (row, &label) in labels.iter().enumerate() {
            match usize::try_from(label) {
                Ok(actual) if actual < self.class_counts.len() => self.score(row, actual),
                Err(_) if label == -1 => {}
                _ => self.invalid_labels += 1,
            }
        }
    }

    fn score(&mut self, row: usize, actual: usize) {
        self.labelled_rows += 1;
        if let Some(predicted) = self.predicted(row) {
            self.outcomes.add(predicted, actual);
        }
    }

    fn score_sets(&mut self, sets: &ArrayView2<'_, u8>) {
        for (row, set) in sets.rows().into_iter().enumerate() {
            // The index comes from `enumerate`, never from the ring's bytes: it is in bounds whatever the flags turn into.
            let mut applies = set.iter().map(|&flag| flag != 0).enumerate().filter(|(_, applies)| *applies);
            match (applies.next(), applies.next()) {
                (Some((actual, _)), None) => self.score(row, actual),
                _ => {
                    self.labelled_rows += 1;
                    if let Some(predicted) = self.predicted(row) {
                        self.outcomes.add_set(predicted, set.iter().map(|&flag| flag != 0));
                    }
                }
            }
        }
    }
}

fn update_column(moments: &mut Moments, values: &[f64]) {
    moments.update_typed(&ArrayView2::from_shape((values.len(), 1), values).expect("one column"));
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        Profile::new(Arc::new(spec), 10, 1)
    }

    fn rows<'a>(probabilities: &'a [f64], labels: Option<Labels<'a>>) -> Rows<'a> {
        let count = probabilities.len() / 3;
        let view = ArrayView2::from_shape((count, 3), probabilities).unwrap();
        Rows { count, probabilities: Some(Columns::F64(view)), features: None, labels }
    }

    #[test]
    fn a_nan_row_has_no_class_but_is_counted_and_labelled() {
        let mut p = profile();
        p.update(&rows(&[0.2, f64::NAN, 0.1, 0.1, 0.2, 0.7], Some(Labels::Classes(&[0, 2]))));
        assert_eq!((p.rows, p.invalid.nan, p.class_counts.clone()), (2, 1, vec![0, 0, 1]));
        assert_eq!((p.labelled_rows, p.outcomes.rows(), p.outcomes.accuracy()), (2, 1, Some(1.0)));
        assert_eq!(p.confidence.columns()[0].n, 1);
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
        assert_eq!((whole.records, whole.rows, whole.labelled_rows), (1, count as u64, single.labelled_rows));
        assert_eq!(whole.class_counts, single.class_counts);
        assert!(whole.outcomes.classes().eq(single.outcomes.classes()));
        assert_eq!(whole.sampled_probabilities.finite_column(1), single.sampled_probabilities.finite_column(1));
        assert!(whole.scratch.classes.capacity() <= 2 * CHUNK);
    }

    #[test]
    fn labels_in_only_some_batches_cover_only_those() {
        let mut p = profile();
        p.update(&rows(&[0.8, 0.1, 0.1], None));
        p.update(&rows(&[0.8, 0.1, 0.1, 0.1, 0.8, 0.1], Some(Labels::Classes(&[0, -1]))));
        assert_eq!((p.rows, p.labelled_rows, p.outcomes.rows()), (3, 1, 1));
    }

    #[test]
    fn a_label_out_of_range_is_counted_and_scores_nothing() {
        let mut p = profile();
        p.update(&rows(&[0.8, 0.1, 0.1, 0.8, 0.1, 0.1, 0.8, 0.1, 0.1], Some(Labels::Classes(&[3, -2, i32::MIN]))));
        assert_eq!((p.invalid_labels, p.labelled_rows, p.outcomes.rows()), (3, 0, 0));
    }

    #[test]
    fn a_multi_label_row_counts_one_against_the_rest_only() {
        let mut p = profile();
        let sets = ArrayView2::from_shape((2, 3), &[1u8, 0, 1, 0, 0, 1]).unwrap();
        p.update(&rows(&[0.8, 0.1, 0.1, 0.1, 0.1, 0.8], Some(Labels::Sets(sets))));
        assert_eq!((p.outcomes.rows(), p.outcomes.single_rows(), p.outcomes.accuracy()), (2, 1, Some(1.0)));
        let support: Vec<u64> = p.outcomes.classes().map(|c| c.support).collect();
        assert_eq!(support, [1, 0, 2]);
    }

    #[test]
    fn categorical_features_are_counted_by_value() {
        let mut p = profile();
        let view = ArrayView2::from_shape((3, 1), &[2.0f32, 1.0, 2.0]).unwrap();
        p.update(&Rows { count: 3, probabilities: None, features: Some(Columns::F32(view)), labels: None });
        assert_eq!(p.categories[0].as_ref().unwrap().iter().collect::<Vec<_>>(), [(1.0, 1), (2.0, 2)]);
        assert_eq!((p.rows, p.prediction_rows), (3, 0));
    }

    #[test]
    fn rows_off_the_simplex_are_counted_and_still_classified() {
        let mut p = profile();
        p.update(&rows(&[0.5, 0.1, 0.1, 1.5, -0.3, -0.2], None));
        assert_eq!((p.invalid.not_normalised, p.invalid.out_of_range), (1, 1));
        assert_eq!(p.class_counts, [2, 0, 0]);
    }

    #[test]
    fn labels_without_predictions_or_features_are_counted_apart() {
        let mut p = profile();
        p.update(&Rows { count: 4, probabilities: None, features: None, labels: Some(Labels::Classes(&[0; 4])) });
        assert_eq!((p.rows, p.unjoined_label_rows), (0, 4));
    }
}
