//! One column of a reference.

use crate::stats::{
    Categories, ColumnEdges, Element, Elements, MOST_CATEGORIES, MOST_EDGES, Made, Moment, Slack, Steps,
    quantile_sorted,
};
use serde::{Deserialize, Serialize};

/// A column as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Of the class, output or feature.
    pub name: String,
    /// Over every row.
    pub moment: Moment,
    /// What its values were, or those that they were computed from: they are compared with others of these types as they are.
    pub elements: Elements,
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
    /// Of each edge, where counts were not counted but made out from quantiles, the least and the most of all that may lie at or below
    /// it; else empty.
    pub bounds: Vec<[f64; 2]>,
}

/// Of every row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Categorical {
    /// Values and their counts, ascending by value.
    pub values: Vec<(f64, u64)>,
    /// Rows with any further value.
    pub other: u64,
}

/// Where bins end that are made out from quantiles.
pub const BOUNDED_AT: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

impl Column {
    /// `sample` holds the finite values of the sampled rows, in any order.
    pub(super) fn numerical(name: &str, moment: &Moment, elements: Elements, mut sample: Vec<f64>) -> Column {
        sample.sort_unstable_by(f64::total_cmp);
        // −0 would come before 0 and be another value in the bytes of a file.
        sample.iter_mut().for_each(|x| *x += 0.0);
        let edges = edges(&sample, moment.min, moment.max);
        let (counts, steps) = (counts(&sample, &edges), Steps::of_sorted(&sample));
        let shape = Numerical { edges, counts, steps, bounds: Vec::new() };
        Column { name: name.to_owned(), moment: *moment, elements, shape: Shape::Numerical(shape) }
    }

    /// `shares`: values in any order with the share of all at each, interpolated. Bins end at `inner`, ascending values, at or below which
    /// lie so many as `bounds` says: the least and the most. `sampled` values are what all this was taken from.
    pub fn interpolated(
        name: &str,
        moment: &Moment,
        shares: Vec<(f64, f64)>,
        inner: &[f64],
        bounds: impl Fn(f64) -> [f64; 2],
        sampled: u64,
    ) -> Column {
        let edges = if shares.is_empty() { Vec::new() } else { between(inner, moment.min, moment.max) };
        let shape = Numerical::bounded(edges, Steps::of_shares(shares), moment, bounds, sampled);
        Column::told(name, moment, Shape::Numerical(shape))
    }

    /// Of a categorical feature, as others tell.
    pub fn counted(name: &str, moment: &Moment, counts: Categorical) -> Column {
        Column::told(name, moment, Shape::Categorical(counts))
    }

    fn told(name: &str, moment: &Moment, shape: Shape) -> Column {
        Column { name: name.to_owned(), moment: *moment, elements: Elements::UNKNOWN, shape }
    }

    pub(super) fn categorical(name: &str, moment: &Moment, elements: Elements, categories: &Categories) -> Column {
        let counts = Categorical { values: categories.iter().collect(), other: categories.other() };
        Column { elements, ..Column::counted(name, moment, counts) }
    }

    /// To count others in its bins.
    pub(super) fn to_count_in(&self, made: Made) -> ColumnEdges<'_> {
        ColumnEdges { edges: self.edges(), elements: self.elements, made }
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
        sound && self.elements.is_sound() && numbers.iter().all(|x| !x.is_nan()) && moment.m2 >= 0.0
    }
}

impl Numerical {
    /// Of `sampled` values of which each edge says what may lie at or below.
    pub(super) fn bounded(
        edges: Vec<f64>,
        steps: Steps,
        moment: &Moment,
        bounds: impl Fn(f64) -> [f64; 2],
        sampled: u64,
    ) -> Numerical {
        let bound = |edge: &f64| match *edge {
            edge if edge < moment.min => [0.0; 2],
            edge if edge >= moment.max => [1.0; 2],
            edge => bounds(edge).map(|share| share.clamp(0.0, 1.0)),
        };
        let mut bounds: Vec<[f64; 2]> = edges.iter().map(bound).collect();
        // Sums of shares are rounded.
        for i in 1..bounds.len() {
            let [[least, most], bound] = [bounds[i - 1], bounds[i]];
            bounds[i] = [bound[0].max(least), bound[1].max(bound[0]).max(most)];
        }
        let middle: Vec<f64> = bounds.iter().map(|[least, most]| (least + most) / 2.0).collect();
        let counts = if edges.is_empty() { Vec::new() } else { of_shares(&middle, sampled) };
        Numerical { edges, counts, steps, bounds }
    }

    /// The same, of which each edge says how many may lie at or below it in another rounding: those that did, and those above it that
    /// can no longer be told from them. An edge that cannot be told from the next is none; the others' places are given.
    /// Without its steps, which stay as they are.
    pub fn blurred(&self, slack: Slack) -> (Numerical, Vec<usize>) {
        let is_kept = |e: &usize| {
            *e == 0 || self.edges.get(e + 1).is_none_or(|next| slack.back(slack.above(self.edges[*e])) < *next)
        };
        let kept: Vec<usize> = (0..self.edges.len()).filter(is_kept).collect();
        let edges: Vec<f64> = kept.iter().map(|&e| self.edges[e]).collect();
        let ends = kept.iter().map(|&e| e + 1).chain([self.counts.len()]);
        let mut from = 0;
        let in_bin = |end: usize| total(&self.counts[std::mem::replace(&mut from, end)..end]);
        let counts: Vec<u64> = ends.map(in_bin).collect();
        let all = self.total().max(1) as f64;
        let (mut below, mut bound) = (0u64, [0.0f64; 2]);
        let bounds = kept.iter().zip(&counts).map(|(&e, count)| {
            below = below.saturating_add(*count);
            let [least, most] = self.bounds.get(e).copied().unwrap_or([below as f64 / all; 2]);
            // The first moves down, and nothing was below.
            let farther = match e {
                0 => 0.0,
                _ => self.steps.share_at(slack.back(slack.above(self.edges[e]))) - self.steps.share_at(self.edges[e]),
            };
            bound = [bound[0].max(least), bound[1].max(most + farther).min(1.0)];
            bound
        });
        let bounds = bounds.collect();
        (Numerical { edges, counts, steps: Steps::default(), bounds }, kept)
    }

    /// Its bins as they may have been and as near as that can be to `shares`, those of a period at or below each edge; and the largest
    /// distance that is left. `None` if it was counted.
    pub fn nearest(&self, shares: &[f64]) -> Option<(Vec<u64>, f64)> {
        if self.bounds.is_empty() {
            return None;
        }
        let within = |(share, [least, most]): (&f64, &[f64; 2])| share.max(*least).min(*most);
        let nearest: Vec<f64> = shares.iter().zip(&self.bounds).map(within).collect();
        let distance = nearest.iter().zip(shares).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        Some((of_shares(&nearest, self.total()), distance))
    }

    /// How many values are counted.
    pub fn total(&self) -> u64 {
        total(&self.counts)
    }

    fn are_bounds_sound(&self) -> bool {
        let ascends = |i: usize| self.bounds.is_sorted_by(|a, b| a[i] <= b[i]);
        let is_sound = |[least, most]: &[f64; 2]| 0.0 <= *least && least <= most && *most <= 1.0;
        (self.bounds.is_empty() || self.bounds.len() == self.edges.len())
            && self.bounds.iter().all(is_sound)
            && ascends(0)
            && ascends(1)
    }

    fn is_sound(&self) -> bool {
        let bins = if self.edges.is_empty() { 0 } else { self.edges.len() + 1 };
        self.edges.len() <= MOST_EDGES
            && self.counts.len() == bins
            && self.edges.iter().all(|x| x.is_finite())
            && self.edges.is_sorted_by(|a, b| a < b)
            && self.steps.is_sound()
            && self.are_bounds_sound()
    }
}

impl Categorical {
    /// The same values rounded: those that become one are counted as one.
    pub fn rounded(&self, element: Element) -> Categorical {
        let rounded = self.values.iter().map(|(value, count)| (element.round(*value), *count));
        let mut values: Vec<(f64, u64)> = Vec::new();
        for (value, count) in rounded {
            match values.last_mut() {
                Some((last, of_last)) if *last == value => *of_last = of_last.saturating_add(count),
                _ => values.push((value, count)),
            }
        }
        Categorical { values, other: self.other }
    }

    fn is_sound(&self) -> bool {
        self.values.len() <= MOST_CATEGORIES
            && self.values.iter().all(|(value, _)| value.is_finite())
            && self.values.is_sorted_by(|a, b| a.0 < b.0)
    }
}

fn total(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

/// Just below the least of all values, the sample's deciles strictly between the extremes, the largest of all; each once.
pub(super) fn edges(ascending: &[f64], least: f64, most: f64) -> Vec<f64> {
    if ascending.is_empty() {
        return Vec::new();
    }
    let deciles: Vec<f64> = (1..10).filter_map(|tenth| quantile_sorted(ascending, f64::from(tenth) / 10.0)).collect();
    between(&deciles, least, most)
}

/// Just below the least of all values, those of `inner`, which ascend, strictly between the extremes, the largest of all; each once.
pub(super) fn between(inner: &[f64], least: f64, most: f64) -> Vec<f64> {
    let mut edges = vec![least.next_down()];
    edges.extend(inner.iter().filter(|edge| (least..most).contains(*edge)));
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

/// How many of `all` lie in each bin, by the shares at or below each edge.
fn of_shares(shares: &[f64], all: u64) -> Vec<u64> {
    let ends = shares.iter().map(|share| (share * all as f64).round() as u64).chain([all]);
    let mut below = 0;
    ends.map(|end| end.saturating_sub(std::mem::replace(&mut below, end))).collect()
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
            let column = Column::numerical("x", &moment, Elements::of(Element::F64), values.clone());
            prop_assert!(column.is_sound());
            let Shape::Numerical(numerical) = column.shape else { unreachable!() };
            let counts = numerical.counts;
            prop_assert_eq!((counts[0], counts[counts.len() - 1]), (0, 0));
            prop_assert_eq!(counts.iter().sum::<u64>(), values.len() as u64);
        }
    }
}
