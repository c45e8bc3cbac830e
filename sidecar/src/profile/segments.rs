//! The same model for each of those whom its rows are about: a country, a customer tier. Over every row.
//!
//! The first segments seen are kept apart, as many as the operator allows; the rows of all further ones are counted together, and so
//! are those that say nothing of a segment, so that the segments always add up to the whole.

use super::spec::{SegmentBy, Segmentation};
use super::{Labels, Rows, Size};
use crate::stats::{Classified, Columns, Moment, Scalar, with_view};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A model's answers by segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Segments {
    /// By the bits of the segment's value.
    known: BTreeMap<u64, Segment>,
    /// Rows without one.
    pub missing: Segment,
    /// Rows of segments that came when `known` was full.
    pub other: Segment,
}

/// The bits of a segment's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentKey(u64);

impl SegmentKey {
    /// Of a row, if it says so.
    pub fn of(rows: &Rows<'_>, row: usize, segmentation: &Segmentation) -> Option<SegmentKey> {
        let value = match segmentation.by {
            SegmentBy::Row => rows.segments.map(|segments| f64::from(segments[row])),
            SegmentBy::Feature(column) => rows.features.and_then(|features| value_at(&features, row, column)),
        };
        value.filter(|value| value.is_finite()).map(|value| SegmentKey((value + 0.0).to_bits())) // −0 is 0
    }
}

/// What is known of one segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// Rows, with predictions or without.
    pub rows: u64,
    /// Rows predicted as each class.
    pub class_counts: Vec<u64>,
    /// The largest probability of each valid row.
    pub confidence: Moment,
    /// Rows with a valid prediction and a label that is one class.
    pub scored_rows: u64,
    /// Those predicted right.
    pub right_rows: u64,
}

impl Segment {
    fn new(classes: usize) -> Segment {
        let class_counts = vec![0; classes];
        Segment { rows: 0, class_counts, confidence: Moment::default(), scored_rows: 0, right_rows: 0 }
    }

    fn add(&mut self, predicted: Option<(usize, f64)>, actual: Option<usize>) {
        self.rows += 1;
        let Some((class, confidence)) = predicted else { return };
        self.class_counts[class] += 1;
        self.confidence.merge(&Moment::of(confidence));
        if let Some(actual) = actual {
            self.scored_rows += 1;
            self.right_rows += u64::from(actual == class);
        }
    }
}

impl Segments {
    /// Of `classes` classes or outputs.
    pub(super) fn new(classes: usize) -> Segments {
        Segments { known: BTreeMap::new(), missing: Segment::new(classes), other: Segment::new(classes) }
    }

    /// An upper bound of their memory in bytes.
    pub(super) fn bytes(size: Size) -> u64 {
        const SEGMENT: u64 = 512; // a Segment, its key, its share of the nodes
        size.segments.saturating_mul(8 * size.classes + SEGMENT)
    }

    /// Whether it is for `classes` classes, and no more than may be: what comes from a file may not be.
    pub(super) fn fits(&self, classes: usize, segmentation: &Segmentation) -> bool {
        let all = self.known.values().chain([&self.missing, &self.other]);
        self.known.len() <= segmentation.most && all.into_iter().all(|segment| segment.class_counts.len() == classes)
    }

    /// Adds a batch that was `classified`.
    pub(super) fn update(&mut self, rows: &Rows<'_>, segmentation: &Segmentation, classified: &Classified) {
        let mut confidence = classified.confidence.iter();
        for row in 0..rows.count {
            let class = classified.class(row);
            let predicted = class.and_then(|class| Some((class, *confidence.next()?)));
            let segment = self.of_row(rows, row, segmentation);
            let actual = rows.labels.and_then(|labels| single_label(&labels, row, segment.class_counts.len()));
            segment.add(predicted, actual);
        }
    }

    /// A row that has been counted turns out to have been of this class.
    pub(super) fn judge(&mut self, key: Option<SegmentKey>, predicted: usize, actual: usize) {
        let segment = match key {
            None => &mut self.missing,
            Some(SegmentKey(key)) => self.known.get_mut(&key).unwrap_or(&mut self.other),
        };
        segment.scored_rows += 1;
        segment.right_rows += u64::from(predicted == actual);
    }

    fn of_row(&mut self, rows: &Rows<'_>, row: usize, segmentation: &Segmentation) -> &mut Segment {
        let Some(SegmentKey(key)) = SegmentKey::of(rows, row, segmentation) else { return &mut self.missing };
        if self.known.len() < segmentation.most {
            let classes = self.missing.class_counts.len();
            return self.known.entry(key).or_insert_with(|| Segment::new(classes));
        }
        self.known.get_mut(&key).unwrap_or(&mut self.other)
    }

    /// Value and numbers of those that are kept apart, ascending by value.
    pub fn known(&self) -> Vec<(f64, &Segment)> {
        let mut known: Vec<_> = self.known.iter().map(|(bits, segment)| (f64::from_bits(*bits), segment)).collect();
        known.sort_by(|a, b| a.0.total_cmp(&b.0));
        known
    }
}

fn value_at(columns: &Columns<'_>, row: usize, column: usize) -> Option<f64> {
    with_view!(columns, view => view.get((row, column)).map(|x| x.widen()))
}

/// The one class that a row's label names, if it does.
pub(super) fn single_label(labels: &Labels<'_>, row: usize, classes: usize) -> Option<usize> {
    match labels {
        Labels::Classes(labels) => usize::try_from(labels[row]).ok().filter(|class| *class < classes),
        Labels::Sets(sets) => {
            let mut applies = sets.row(row).into_iter().enumerate().filter(|(_, flag)| **flag != 0);
            let first = applies.next()?;
            applies.next().is_none().then_some(first.0)
        }
        Labels::Targets(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Feature, Profile, Spec};
    use super::*;
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use std::sync::Arc;

    const CLASSES: usize = 3;

    fn profile(by: SegmentBy, most: usize) -> Profile {
        let features = ["plan", "age"].map(|name| Feature { name: name.into(), categorical: name == "plan" }).to_vec();
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        let segments = Some(Segmentation { by, most });
        Profile::new(Arc::new(Spec { classes, features, segments, threshold: 0.5, ..Spec::default() }), 10, 1)
    }

    /// One row: its segment, its confidence (NaN: no class), its class and its label.
    type Row = (u16, f64, usize, i32);

    fn batch(profile: &mut Profile, rows: &[Row], with: bool) {
        let other = |p: f64| (1.0 - p) / 2.0;
        let probabilities: Vec<f64> = rows
            .iter()
            .flat_map(|&(_, p, class, _)| (0..CLASSES).map(move |k| if k == class { p } else { other(p) }))
            .collect();
        let features: Vec<f64> = rows.iter().flat_map(|&(segment, ..)| [f64::from(segment), 1.0]).collect();
        let segments: Vec<u16> = rows.iter().map(|row| row.0).collect();
        let labels: Vec<i32> = rows.iter().map(|row| row.3).collect();
        let view = |values, columns| Columns::F64(ArrayView2::from_shape((rows.len(), columns), values).unwrap());
        profile.update(&Rows {
            count: rows.len(),
            probabilities: Some(view(&probabilities, CLASSES)),
            features: with.then(|| view(&features, 2)),
            labels: Some(Labels::Classes(&labels)),
            segments: with.then_some(&segments[..]),
            ..Rows::default()
        });
    }

    fn all(profile: &Profile) -> Vec<(Option<f64>, &Segment)> {
        let segments = profile.segments.as_ref().unwrap();
        let known = segments.known().into_iter().map(|(value, segment)| (Some(value), segment));
        known.chain([(None, &segments.missing), (None, &segments.other)]).collect()
    }

    fn row() -> impl Strategy<Value = Row> {
        let confidence = prop_oneof![9 => 0.5..1.0f64, 1 => Just(f64::NAN)];
        (0..12u16, confidence, 0..CLASSES, -2..4i32)
    }

    proptest! {
        #[test]
        fn segments_add_up_to_the_whole_and_each_is_its_rows_alone(
            batches in prop::collection::vec((prop::collection::vec(row(), 1..40), any::<bool>()), 1..12),
            by_row: bool, most in 0..14usize,
        ) {
            let by = if by_row { SegmentBy::Row } else { SegmentBy::Feature(0) };
            let mut whole = profile(by, most);
            batches.iter().for_each(|(rows, with)| batch(&mut whole, rows, *with));
            let segments = all(&whole);
            let sum = |of: fn(&Segment) -> u64| segments.iter().map(|(_, s)| of(s)).sum::<u64>();
            prop_assert_eq!(sum(|s| s.rows), whole.rows);
            prop_assert_eq!(sum(|s| s.scored_rows), whole.quality.outcomes.single_rows());
            prop_assert_eq!(sum(|s| s.confidence.n), whole.predictions.confidence.columns()[0].n);
            for class in 0..CLASSES {
                let count: u64 = segments.iter().map(|(_, s)| s.class_counts[class]).sum();
                prop_assert_eq!(count, whole.predictions.class_counts[class]);
            }
            let right = sum(|s| s.right_rows) as f64 / sum(|s| s.scored_rows) as f64;
            prop_assert!(whole.quality.outcomes.accuracy().is_none_or(|accuracy| (accuracy.value - right).abs() < 1e-12));

            prop_assert!(segments.len() <= most + 2);
            for (value, segment) in segments.iter().filter_map(|(value, segment)| Some(((*value)?, segment))) {
                let mut alone = profile(by, 1);
                for (rows, _) in batches.iter().filter(|(_, with)| *with) {
                    let rows: Vec<Row> = rows.iter().copied().filter(|row| f64::from(row.0) == value).collect();
                    if !rows.is_empty() {
                        batch(&mut alone, &rows, true);
                    }
                }
                prop_assert_eq!((segment.rows, &segment.class_counts), (alone.rows, &alone.predictions.class_counts));
                let (got, want) = (segment.confidence, alone.predictions.confidence.columns()[0]);
                prop_assert!(got.n == want.n && (got.mean - want.mean).abs() < 1e-12 && (got.m2 - want.m2).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn what_is_no_value_is_missing_and_what_comes_too_late_is_other() {
        let mut p = profile(SegmentBy::Feature(0), 2);
        let values = [7.0, f64::NAN, -0.0, 0.0, f64::INFINITY, 8.0, 7.0];
        let features: Vec<f64> = values.iter().flat_map(|x| [*x, 1.0]).collect();
        let features = Some(Columns::F64(ArrayView2::from_shape((7, 2), &features).unwrap()));
        p.update(&Rows { count: 7, probabilities: None, features, ..Rows::default() });
        let rows: Vec<_> = all(&p).into_iter().map(|(value, segment)| (value, segment.rows)).collect();
        assert_eq!(rows, [(Some(0.0), 2), (Some(7.0), 2), (None, 2), (None, 1)]);
    }

    #[test]
    fn a_set_of_labels_scores_where_it_is_one_class() {
        let mut p = profile(SegmentBy::Row, 4);
        let sets = ArrayView2::from_shape((3, 3), &[0u8, 1, 0, 1, 1, 0, 0, 0, 9]).unwrap();
        let probabilities = ArrayView2::from_shape((3, 3), &[0.1, 0.8, 0.1, 0.1, 0.8, 0.1, 0.1, 0.8, 0.1]).unwrap();
        p.update(&Rows {
            count: 3,
            probabilities: Some(Columns::F64(probabilities)),
            features: None,
            labels: Some(Labels::Sets(sets)),
            segments: Some(&[5; 3]),
            ..Rows::default()
        });
        let segments = all(&p);
        assert_eq!((segments[0].1.scored_rows, segments[0].1.right_rows, segments[0].1.rows), (2, 1, 3));
    }

    #[test]
    fn what_a_file_has_too_much_of_is_refused() {
        let mut p = profile(SegmentBy::Row, 3);
        batch(&mut p, &[(1, 0.9, 0, 0), (2, 0.9, 0, 0), (3, 0.9, 0, 0)], true);
        let bytes = postcard::to_stdvec(&p).unwrap();
        let revived = |most: Option<usize>| {
            let segments = most.map(|most| Segmentation { by: SegmentBy::Row, most });
            let spec = Spec { segments, ..(*p.spec).clone() };
            postcard::from_bytes::<Profile>(&bytes).unwrap().revived(Arc::new(spec)).is_some()
        };
        assert_eq!([Some(3), Some(2), None].map(revived), [true, false, false]);
    }
}
