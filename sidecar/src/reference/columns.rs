//! One column of a reference.

use crate::stats::{Categories, MOST_CATEGORIES, MOST_EDGES, Moment, Steps, quantile_sorted};
use serde::{Deserialize, Serialize};

/// A column as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Of the class, output or feature.
    pub name: String,
    /// Over every row.
    pub moment: Moment,
    /// How its values were distributed.
    pub shape: Shape,
}

/// How a column's values were distributed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Shape {
    Numerical(Numerical),
    Categorical(Categorical),
}

/// Of the sampled rows with a finite value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Numerical {
    /// As [`crate::stats::BinCounts`] wants them; empty without values.
    pub edges: Vec<f64>,
    /// Of each bin between them; empty without values, else one more than edges.
    pub counts: Vec<u64>,
    /// The distribution itself.
    pub steps: Steps,
}

/// Of every row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Categorical {
    /// Values and their counts, ascending by value.
    pub values: Vec<(f64, u64)>,
    /// Rows with any further value.
    pub other: u64,
}

impl Column {
    /// `sample` holds the finite values of the sampled rows, in any order.
    pub(super) fn numerical(name: &str, moment: &Moment, mut sample: Vec<f64>) -> Column {
        sample.sort_unstable_by(f64::total_cmp);
        // −0 would come before 0 and be another value in the bytes of a file.
        sample.iter_mut().for_each(|x| *x += 0.0);
        let edges = edges(&sample, moment.min, moment.max);
        let shape = Numerical { counts: counts(&sample, &edges), steps: Steps::of_sorted(&sample), edges };
        Column { name: name.to_owned(), moment: *moment, shape: Shape::Numerical(shape) }
    }

    /// `shares`: values in any order with the share of all at each, interpolated; `sampled` values are what they were taken from.
    pub fn interpolated(name: &str, moment: &Moment, shares: Vec<(f64, f64)>, sampled: u64) -> Column {
        let steps = Steps::of_shares(shares);
        let edges = edges(&steps.points(), moment.min, moment.max);
        let shape = Numerical { counts: spread_over(&steps, &edges, sampled), edges, steps };
        Column { name: name.to_owned(), moment: *moment, shape: Shape::Numerical(shape) }
    }

    /// Of a categorical feature.
    pub fn counted(name: &str, moment: &Moment, counts: Categorical) -> Column {
        Column { name: name.to_owned(), moment: *moment, shape: Shape::Categorical(counts) }
    }

    pub(super) fn categorical(name: &str, moment: &Moment, categories: &Categories) -> Column {
        Column::counted(name, moment, Categorical { values: categories.iter().collect(), other: categories.other() })
    }

    /// Empty for a categorical column, and for one without values.
    pub fn edges(&self) -> &[f64] {
        self.as_numerical().map_or(&[], |numerical| &numerical.edges)
    }

    /// If it is one.
    pub fn as_numerical(&self) -> Option<&Numerical> {
        match &self.shape {
            Shape::Numerical(numerical) => Some(numerical),
            Shape::Categorical(_) => None,
        }
    }

    /// If it is one.
    pub fn as_categorical(&self) -> Option<&Categorical> {
        match &self.shape {
            Shape::Categorical(categorical) => Some(categorical),
            Shape::Numerical(_) => None,
        }
    }

    /// Rows, missing and infinite values included.
    pub fn rows(&self) -> u64 {
        self.moment.n.saturating_add(self.moment.nan).saturating_add(self.moment.inf)
    }

    /// Whether it can have been made: what comes from a file may be anything.
    pub(super) fn is_sound(&self) -> bool {
        let moment = &self.moment;
        let numbers = [moment.mean, moment.m2];
        let sound = match &self.shape {
            Shape::Numerical(numerical) => numerical.is_sound(),
            Shape::Categorical(categorical) => categorical.is_sound(),
        };
        sound && numbers.iter().all(|x| !x.is_nan()) && moment.m2 >= 0.0
    }
}

impl Numerical {
    fn is_sound(&self) -> bool {
        let bins = if self.edges.is_empty() { 0 } else { self.edges.len() + 1 };
        self.edges.len() <= MOST_EDGES
            && self.counts.len() == bins
            && self.edges.iter().all(|x| x.is_finite())
            && self.edges.is_sorted_by(|a, b| a < b)
            && self.steps.is_sound()
    }
}

impl Categorical {
    fn is_sound(&self) -> bool {
        self.values.len() <= MOST_CATEGORIES
            && self.values.iter().all(|(value, _)| value.is_finite())
            && self.values.is_sorted_by(|a, b| a.0 < b.0)
    }
}

/// Just below the least of all values, the sample's deciles strictly between the extremes, the largest of all; each once.
pub(super) fn edges(ascending: &[f64], least: f64, most: f64) -> Vec<f64> {
    if ascending.is_empty() {
        return Vec::new();
    }
    let deciles = (1..10).filter_map(|tenth| quantile_sorted(ascending, f64::from(tenth) / 10.0));
    let mut edges = vec![least.next_down()];
    edges.extend(deciles.filter(|decile| (least..most).contains(decile)));
    edges.push(most);
    edges.dedup();
    edges.retain(|edge| edge.is_finite());
    edges
}

pub(super) fn counts(ascending: &[f64], edges: &[f64]) -> Vec<u64> {
    if edges.is_empty() {
        return Vec::new();
    }
    let below = edges.iter().map(|edge| ascending.partition_point(|x| x <= edge) as u64);
    let ends: Vec<u64> = below.chain([ascending.len() as u64]).collect();
    (0..ends.len()).map(|bin| ends[bin] - if bin == 0 { 0 } else { ends[bin - 1] }).collect()
}

/// About how many of a sample of `all` values lie in each bin. The sums below the edges are within half a step, and half a value.
pub(super) fn spread_over(steps: &Steps, edges: &[f64], all: u64) -> Vec<u64> {
    let points = steps.points();
    let share = 1.0 / points.len().max(1) as f64;
    let (mut seen, mut below) = (0, 0);
    let in_bin = |count: u64| {
        seen += count;
        let end = (seen as f64 * share * all as f64).round() as u64;
        end - std::mem::replace(&mut below, end)
    };
    counts(&points, edges).into_iter().map(in_bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_constant_column_has_a_bin_of_its_own_between_two_empty_ones() {
        let edges = edges(&[5.0; 20], 5.0, 5.0);
        assert_eq!(edges, [5.0f64.next_down(), 5.0]);
        assert_eq!(counts(&[5.0; 20], &edges), [0, 20, 0]);
    }

    #[test]
    fn deciles_that_coincide_are_one_edge() {
        let mostly_zero: Vec<f64> = (0..100).map(|i| if i < 85 { 0.0 } else { f64::from(i) }).collect();
        let edges = edges(&mostly_zero, 0.0, 99.0);
        assert_eq!((edges[1], edges.last()), (0.0, Some(&99.0)));
        assert_eq!(edges.len(), 4, "{edges:?}");
    }

    proptest! {
        #[test]
        fn the_outer_bins_of_a_reference_are_empty_and_the_others_hold_everything(
            values in proptest::collection::vec(prop_oneof![(-9i32..9).prop_map(f64::from), -1e308..1e308f64], 1..300),
        ) {
            let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
            let moment = Moment { n: values.len() as u64, nan: 0, inf: 0, zero: 0, mean: 0.0, m2: 0.0, min, max };
            let column = Column::numerical("x", &moment, values.clone());
            prop_assert!(column.is_sound());
            let Shape::Numerical(numerical) = column.shape else { unreachable!() };
            let counts = numerical.counts;
            prop_assert_eq!((counts[0], counts[counts.len() - 1]), (0, 0));
            prop_assert_eq!(counts.iter().sum::<u64>(), values.len() as u64);
        }
    }
}
