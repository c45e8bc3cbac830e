//! The sample of a closed profile, put in order once for everyone who reports of it.

use super::drift::{Distances, of_measured, slack};
use crate::profile::{Profile, SampledAnswers, Seen, Size, Spec};
use crate::reference::{Column, Reference};
use crate::stats::{Elements, Made, Ordered, Quantiles, RowStore};

/// A closed profile, what it is compared with, and what its sample says.
#[derive(Debug)]
pub struct OrderedSample<'a> {
    pub(super) profile: &'a Profile,
    /// In whose bins it was counted.
    pub(super) reference: Option<&'a Reference>,
    /// Of each class's probability, or each output.
    pub(super) probabilities: Vec<SampledColumn>,
    pub(super) features: Vec<SampledColumn>,
    /// Ascending; nothing of a regression.
    pub(super) answers: SampledAnswers,
}

/// The finite values of a column in the kept rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct SampledColumn {
    pub count: u64,
    pub quantiles: Option<Quantiles>,
    /// From the reference, where that knows the column.
    pub distances: Distances,
}

impl<'a> OrderedSample<'a> {
    /// Puts every column in order, which takes its time: not for the tail's thread.
    pub fn of(profile: &'a Profile, reference: Option<&'a Reference>) -> OrderedSample<'a> {
        let spec = &profile.spec;
        let froze = reference.filter(|reference| reference.froze(profile));
        let Seen { probabilities, features } = profile.elements;
        let features = columns(&profile.sample.features, features, |j| {
            let feature = &spec.features[j];
            froze?.feature(&feature.name, feature.categorical)
        });
        let probabilities =
            columns(&profile.sample.probabilities, probabilities, |k| froze?.probability(&spec.classes[k]));
        // Last: they stay, and are not there beside columns that are being put in order.
        OrderedSample { profile, reference, probabilities, features, answers: answers(profile) }
    }

    /// An upper bound of what it takes in bytes, besides its answers.
    pub fn bytes(size: Size) -> u64 {
        (size.classes + size.features) * size_of::<SampledColumn>() as u64
    }
}

fn columns<'a>(
    rows: &RowStore,
    elements: Elements,
    reference: impl Fn(usize) -> Option<&'a Column>,
) -> Vec<SampledColumn> {
    let mut columns = Vec::with_capacity(rows.columns());
    rows.for_each_column(|k, values| columns.push(SampledColumn::of(values, reference(k), elements)));
    columns
}

impl SampledColumn {
    /// To find quantiles alone takes less than to put all values in order, of which they come for nothing.
    fn of(values: &mut dyn Ordered, reference: Option<&Column>, elements: Elements) -> SampledColumn {
        let count = values.count() as u64;
        let slack = slack(reference, elements, Made::Read);
        match reference.and_then(|column| of_measured(column, slack)) {
            None => SampledColumn { count, quantiles: values.quantiles(), distances: Distances::unknown() },
            Some(measured) => {
                let ascending = values.ascending();
                let quantiles = Quantiles::of_ascending(&ascending);
                SampledColumn { count, quantiles, distances: measured.distances(&ascending) }
            }
        }
    }
}

fn answers(profile: &Profile) -> SampledAnswers {
    if !has_classes(&profile.spec) {
        return SampledAnswers::default();
    }
    let mut answers = profile.sampled_answers();
    for values in [&mut answers.confidence, &mut answers.margin, &mut answers.entropy] {
        values.sort_unstable_by(f64::total_cmp);
    }
    answers
}

/// Whether the model is a classifier that says something.
pub(super) fn has_classes(spec: &Spec) -> bool {
    !spec.regression && !spec.classes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Rows};
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use std::sync::Arc;

    const FEATURES: usize = 3;

    fn fed(profile: Profile, values: &[f32]) -> Profile {
        let mut profile = profile;
        let view = ArrayView2::from_shape((values.len() / FEATURES, FEATURES), values).unwrap();
        profile.update(&Rows { count: view.nrows(), features: Some(Columns::F32(view)), ..Rows::default() });
        profile
    }

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -3.0..3.0f32,
            3 => (-2i8..3).prop_map(f32::from),
            1 => prop::sample::select(vec![-0.0, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN]),
        ]
    }

    proptest! {
        #[test]
        fn a_reference_changes_neither_counts_nor_quantiles(rows in proptest::collection::vec([value(), value(), value()], 1..80)) {
            let values = rows.concat();
            let feature = |i: usize| Feature { name: format!("f{i}"), categorical: false };
            let spec = Arc::new(Spec { features: (0..FEATURES).map(feature).collect(), ..Spec::default() });
            let empty = || Profile::new(spec.clone(), 100, 1);
            let reference = Reference::of(&fed(empty(), &[0.5, 0.0, 1.0, -1.0, 2.0, 1.0]));
            let compared = fed(empty().counting_in(Some(&reference.frozen(&spec))), &values);
            let [by_itself, compared] = [None, Some(&reference)].map(|reference| OrderedSample::of(&compared, reference));
            for (one, other) in by_itself.features.iter().zip(&compared.features) {
                prop_assert_eq!((one.count, format!("{:?}", one.quantiles)), (other.count, format!("{:?}", other.quantiles)));
            }
        }
    }
}
