//! One column out of the same column of several references.

use super::columns::{BOUNDED_AT, Categorical, Column, Numerical, Shape, between, edges, spread_over};
use crate::stats::{Elements, Envelope, MOST_CATEGORIES, Moment, Steps, quantile_sorted};

impl Column {
    /// Of one name and kind, one at least, with counts that do not overflow when they are added; and whether nothing was interpolated.
    pub(super) fn joined(parts: &[&Column]) -> (Column, bool) {
        let mut moment = parts[0].moment;
        parts[1..].iter().for_each(|part| moment.merge(&part.moment));
        let numerical: Vec<Part> = parts.iter().filter_map(|part| Part::of(part)).collect();
        let categorical: Vec<&Categorical> = parts.iter().filter_map(|part| part.as_categorical()).collect();
        let (shape, exact) = match categorical.is_empty() {
            true => joined_numerical(&numerical, &moment),
            false => (Shape::Categorical(joined_categorical(&categorical)), true),
        };
        let elements = parts.iter().fold(Elements::default(), |all, part| all.and(part.elements));
        (Column { name: parts[0].name.clone(), moment, elements, shape }, exact)
    }
}

impl Categorical {
    /// Of both.
    pub fn joined(&self, other: &Categorical) -> Categorical {
        joined_categorical(&[self, other])
    }
}

/// A numerical column with values.
struct Part<'a> {
    of: &'a Numerical,
    /// Finite values, and how many of them were sampled.
    n: u64,
    sampled: u64,
}

impl Part<'_> {
    fn of(column: &Column) -> Option<Part<'_>> {
        let of = column.as_numerical()?;
        let part = Part { of, n: column.moment.n, sampled: of.counts.iter().sum() };
        (part.n > 0 && part.sampled > 0).then_some(part)
    }

    /// What share of its values may lie at or below `x`, at least and at most.
    fn bounds(&self) -> impl Fn(f64) -> [f64; 2] + '_ {
        let Numerical { edges, bounds, steps, .. } = self.of;
        let envelope = (!bounds.is_empty()).then(|| Envelope::new(edges.clone(), bounds.clone()));
        move |x| envelope.as_ref().map_or_else(|| [steps.share_at(x); 2], |envelope| envelope.at(x))
    }

    fn rate(&self) -> f64 {
        self.sampled as f64 / self.n as f64
    }

    /// Of its sample, what a sample at this rate would have: else a part with a larger one would count for more than its rows.
    fn thinned(&self, count: u64, rate: f64) -> u64 {
        if self.rate() == rate { count } else { (count as f64 * (rate / self.rate())).round() as u64 }
    }
}

/// Equal bins and equal steps stay as they are; others are those of the mixture.
fn joined_numerical(parts: &[Part], whole: &Moment) -> (Shape, bool) {
    let Some(first) = parts.first() else {
        return (
            Shape::Numerical(Numerical { edges: vec![], counts: vec![], steps: Steps::default(), bounds: vec![] }),
            true,
        );
    };
    let rate = parts.iter().map(Part::rate).fold(f64::INFINITY, f64::min);
    let same_steps = parts.iter().all(|part| part.of.steps == first.of.steps);
    let same_edges = parts.iter().all(|part| part.of.edges == first.of.edges);
    let steps = match same_steps {
        true => first.of.steps.clone(),
        false => Steps::mixture(&parts.iter().map(|part| (&part.of.steps, part.n as f64)).collect::<Vec<_>>()),
    };
    if parts.iter().any(|part| !part.of.bounds.is_empty()) {
        let edges = if same_edges { first.of.edges.clone() } else { common_edges(parts, &steps, whole) };
        let sampled = parts.iter().map(|part| part.thinned(part.sampled, rate)).sum();
        return (Shape::Numerical(Numerical::bounded(edges, steps, whole, mean_bounds(parts), sampled)), false);
    }
    let edges = if same_edges { first.of.edges.clone() } else { edges(&steps.points(), whole.min, whole.max) };
    let of_part = |part: &Part| match same_edges {
        true => part.of.counts.iter().map(|&count| part.thinned(count, rate)).collect(),
        false => spread_over(&part.of.steps, &edges, part.thinned(part.sampled, rate)),
    };
    let mut counts = vec![0; if edges.is_empty() { 0 } else { edges.len() + 1 }];
    for part in parts {
        counts.iter_mut().zip(of_part(part)).for_each(|(sum, count)| *sum += count);
    }
    (Shape::Numerical(Numerical { edges, counts, steps, bounds: vec![] }), same_steps && same_edges)
}

/// Those of the parts whose bins were not counted, near the quantiles that they were made of: of other values such parts know less.
fn common_edges(parts: &[Part], steps: &Steps, whole: &Moment) -> Vec<f64> {
    let bounded = parts.iter().filter(|part| !part.of.bounds.is_empty());
    let mut known: Vec<f64> = bounded.flat_map(|part| part.of.edges.iter().copied()).collect();
    known.sort_by(f64::total_cmp);
    let points = steps.points();
    let nearest = |share: &f64| {
        let quantile = quantile_sorted(&points, *share)?;
        let next = known.partition_point(|edge| *edge < quantile);
        let around = known[next.saturating_sub(1)..known.len().min(next + 1)].iter().copied();
        around.min_by(|a, b| (a - quantile).abs().total_cmp(&(b - quantile).abs()))
    };
    between(&BOUNDED_AT.iter().filter_map(nearest).collect::<Vec<_>>(), whole.min, whole.max)
}

/// Of all values, by the rows of each part.
fn mean_bounds<'a>(parts: &'a [Part<'a>]) -> impl Fn(f64) -> [f64; 2] + 'a {
    let all: f64 = parts.iter().map(|part| part.n as f64).sum();
    let weighted: Vec<_> = parts.iter().map(|part| (part.bounds(), part.n as f64 / all)).collect();
    move |x| {
        weighted.iter().fold([0.0; 2], |[least, most], (bounds, weight)| {
            let of_part = bounds(x);
            [least + weight * of_part[0], most + weight * of_part[1]]
        })
    }
}

/// As [`crate::stats::Categories::merge`]: a value keeps its count where every part knows its own, which all do that have no others;
/// what is too much goes over to the others, the rarest first.
fn joined_categorical(parts: &[&Categorical]) -> Categorical {
    let mut counted: Vec<(f64, u64)> = parts.iter().flat_map(|part| part.values.iter().copied()).collect();
    counted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let knowing = |value: f64| parts.iter().all(|part| part.other == 0 || part.values.iter().any(|(x, _)| *x == value));
    let summed = counted.chunk_by(|a, b| a.0 == b.0).map(|same| (same[0].0, same.iter().map(|(_, n)| n).sum::<u64>()));
    let (mut values, unknown): (Vec<_>, Vec<_>) = summed.partition(|(value, _)| knowing(*value));
    values.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.total_cmp(&b.0)));
    let rarest = values.split_off(values.len().min(MOST_CATEGORIES));
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let moved = unknown.iter().chain(&rarest).map(|(_, count)| count).sum::<u64>();
    Categorical { values, other: parts.iter().map(|part| part.other).sum::<u64>() + moved }
}

#[cfg(test)]
mod tests {
    use super::super::columns::counts;
    use super::*;
    use crate::stats::{Categories, Columns, MOST_STEPS, Moments};
    use ndarray::ArrayView2;
    use proptest::prelude::*;

    fn moment(values: &[f64]) -> Moment {
        let mut moments = Moments::new(1);
        moments.update(&Columns::F64(ArrayView2::from_shape((values.len(), 1), values).unwrap()));
        moments.columns()[0]
    }

    fn numerical(values: &[f64]) -> Column {
        Column::numerical(
            "x",
            &moment(values),
            Elements::default(),
            values.iter().copied().filter(|x| x.is_finite()).collect(),
        )
    }

    fn categorical(values: &[f64]) -> Column {
        let mut categories = Categories::default();
        values.iter().for_each(|x| categories.add(*x));
        Column::categorical("x", &moment(values), Elements::default(), &categories)
    }

    /// The same counted in other bins.
    fn in_bins(values: &[f64], edges: &[f64]) -> Column {
        let mut ascending = values.to_vec();
        ascending.sort_by(f64::total_cmp);
        let mut column = numerical(values);
        let Shape::Numerical(numerical) = &mut column.shape else { unreachable!() };
        (numerical.counts, numerical.edges) = (counts(&ascending, edges), edges.to_vec());
        column
    }

    fn joined(parts: &[Column]) -> (Column, bool) {
        Column::joined(&parts.iter().collect::<Vec<_>>())
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
    }

    fn same_moments(a: &Moment, b: &Moment) -> bool {
        (a.n, a.nan, a.inf, a.zero, a.min, a.max) == (b.n, b.nan, b.inf, b.zero, b.min, b.max)
            && close(a.mean, b.mean)
            && close(a.m2, b.m2)
    }

    fn parts() -> impl Strategy<Value = Vec<Vec<f64>>> {
        let value = prop_oneof![(-9..9i32).prop_map(f64::from), -5.0..40.0f64];
        proptest::collection::vec(proptest::collection::vec(value, 1..1500), 1..5)
    }

    #[test]
    fn of_a_smaller_sample_a_part_counts_by_its_rows_all_the_same() {
        let (mut large, small) = (in_bins(&[1.0; 100], &[0.0, 2.0]), in_bins(&[3.0; 100], &[0.0, 2.0]));
        large.moment.n = 900;
        let (joined, _) = joined(&[large, small]);
        assert_eq!(joined.as_numerical().unwrap().counts, [0, 100, 11], "a ninth of each is sampled");
        assert_eq!(joined.moment.n, 1000);
    }

    #[test]
    fn a_column_without_values_adds_its_missing_ones_only() {
        let (one, none) = (numerical(&[1.0, 2.0, 5.0]), numerical(&[f64::NAN; 4]));
        for parts in [[one.clone(), none.clone()], [none.clone(), one.clone()]] {
            let (joined, exact) = joined(&parts);
            assert_eq!((joined.moment.nan, &joined.shape, exact), (4, &one.shape, true));
        }
        assert_eq!(joined(&[none.clone(), none.clone()]).0.shape, none.shape);
    }

    #[test]
    fn a_value_that_a_part_may_have_among_its_others_has_no_count() {
        let many: Vec<f64> = (0..300).map(f64::from).collect();
        let (joined, _) = joined(&[categorical(&[299.0, 5.0, 5.0]), categorical(&many)]);
        let joined = joined.as_categorical().unwrap();
        assert_eq!(joined.values.len(), MOST_CATEGORIES);
        assert_eq!(joined.values[5], (5.0, 3));
        assert_eq!(joined.other, 44 + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn of_the_same_bins_the_counts_and_moments_are_the_wholes(parts in parts()) {
            let all = parts.concat();
            let whole = numerical(&all);
            let (got, _) = joined(&parts.iter().map(|part| in_bins(part, whole.edges())).collect::<Vec<_>>());
            prop_assert!(got.is_sound() && same_moments(&got.moment, &whole.moment));
            prop_assert_eq!(got.edges(), whole.edges());
            prop_assert_eq!(&got.as_numerical().unwrap().counts, &whole.as_numerical().unwrap().counts);
        }

        #[test]
        fn of_other_bins_every_share_is_within_what_the_docs_promise(parts in parts()) {
            let mut all = parts.concat();
            all.sort_by(f64::total_cmp);
            let (got, _) = joined(&parts.iter().map(|part| numerical(part)).collect::<Vec<_>>());
            prop_assert!(got.is_sound() && same_moments(&got.moment, &moment(&all)));
            let numerical = got.as_numerical().unwrap();
            let counts = &numerical.counts;
            prop_assert_eq!((counts[0], counts[counts.len() - 1]), (0, 0));
            prop_assert_eq!(counts.iter().sum::<u64>(), all.len() as u64);
            // Half a step of each part, half a step of the mixture; counts are rounded once a part.
            let (step, n) = (1.0 / MOST_STEPS as f64, all.len() as f64);
            prop_assert!(numerical.steps.distance(&all).unwrap().ks <= step + 1e-9);
            let mut below = 0;
            for (edge, count) in numerical.edges.iter().zip(counts) {
                below += count;
                let truth = all.partition_point(|x| x <= edge) as f64;
                prop_assert!((below as f64 - truth).abs() <= n * step / 2.0 + 0.5 * parts.len() as f64 + 1e-9);
            }
        }

        #[test]
        fn categories_are_the_wholes_while_they_fit(
            parts in proptest::collection::vec(proptest::collection::vec((0..200).prop_map(f64::from), 1..400), 1..5),
        ) {
            let (got, exact) = joined(&parts.iter().map(|part| categorical(part)).collect::<Vec<_>>());
            prop_assert!(exact);
            prop_assert_eq!(got.shape, categorical(&parts.concat()).shape);
        }

        #[test]
        fn of_more_categories_no_row_is_lost_and_every_count_is_right(
            parts in proptest::collection::vec(proptest::collection::vec((0..900).prop_map(f64::from), 1..900), 1..5),
        ) {
            let (got, _) = joined(&parts.iter().map(|part| categorical(part)).collect::<Vec<_>>());
            prop_assert!(got.is_sound());
            let all = parts.concat();
            let got = got.as_categorical().unwrap();
            prop_assert_eq!(got.values.iter().map(|(_, n)| n).sum::<u64>() + got.other, all.len() as u64);
            for (value, count) in &got.values {
                prop_assert_eq!(*count, all.iter().filter(|x| *x == value).count() as u64);
            }
        }
    }
}
