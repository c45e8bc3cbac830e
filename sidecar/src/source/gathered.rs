//! What reports tell of the columns of one model, gathered over periods.

use super::told::{Labels, MOST_COUNT, Predictions, Summary, Told};
use crate::profile::Spec;
use crate::reference::{BOUNDED_AT, Categorical, Column, Interpolated};
use crate::stats::{Envelope, MOST_STEPS, Moment};
use std::collections::HashMap;

/// The shares at which a distribution is known, least and largest value included.
const AT: [f64; 9] = [0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0];
/// Of one period at least, and of all together: four for each step.
const LEAST_POINTS: usize = 16;
const ALL_POINTS: usize = 4 * MOST_STEPS;

/// One period's distribution of one column.
struct Knots {
    /// At [`AT`].
    values: [f64; 9],
    n: u64,
}

impl Knots {
    /// `None` where nothing was sampled.
    fn of(told: &Summary) -> Option<Knots> {
        let Summary { min, q01, q05, q25, q50, q75, q95, q99, max, .. } = *told;
        let values = [min?, q01?, q05?, q25?, q50?, q75?, q95?, q99?, max?];
        // −0 would be another value than 0.
        Some(Knots { values: values.map(|x| x + 0.0), n: told.n.0 })
    }

    /// Linear between the knots.
    fn at(&self, share: f64) -> f64 {
        let knot = AT.partition_point(|at| *at <= share).clamp(1, AT.len() - 1);
        let (from, to) = (AT[knot - 1], AT[knot]);
        let along = (share - from) / (to - from);
        self.values[knot - 1] * (1.0 - along) + self.values[knot] * along
    }
}

/// What values come in lumps, as far as the knots of all periods tell: those that stand at one of them in every second period. A value
/// that fewer have is not much more frequent than the quantiles of a period are uncertain. Of one period nobody knows: all of them.
fn lumps(periods: &[Knots]) -> Vec<f64> {
    let mut values: Vec<f64> = periods.iter().flat_map(|knots| knots.values).collect();
    values.sort_unstable_by(f64::total_cmp);
    let enough = if periods.len() == 1 { 1 } else { periods.len().div_ceil(2).max(2) };
    values.chunk_by(|a, b| a == b).filter(|same| same.len() >= enough).map(|same| same[0]).collect()
}

/// At each share at which bins end the middle one of the periods' quantiles.
fn medians(periods: &[Knots]) -> Vec<f64> {
    let median = |knot: usize| {
        let mut values: Vec<f64> = periods.iter().map(|knots| knots.values[knot]).collect();
        let middle = values.len().checked_sub(1)? / 2;
        Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
    };
    (0..AT.len()).filter(|knot| BOUNDED_AT.contains(&AT[*knot])).filter_map(median).collect()
}

/// One column over all periods.
struct OverPeriods {
    moment: Moment,
    sampled: u64,
    periods: Vec<Knots>,
}

impl OverPeriods {
    fn new() -> OverPeriods {
        OverPeriods { moment: Moment::NONE, sampled: 0, periods: Vec::new() }
    }

    fn add(&mut self, name: &str, told: &Summary, [nan, inf, zero]: [u64; 3]) -> Result<(), String> {
        let n = told.n.0;
        let extremes = (told.mean, told.min, told.max);
        let (mean, min, max) = match extremes {
            (Some(mean), Some(min), Some(max)) => (mean, min, max),
            _ if n == 0 => (0.0, f64::INFINITY, f64::NEG_INFINITY),
            _ => return Err(format!("{name:?} has values and no mean or no extremes: they exceed f64")),
        };
        let m2 = if n == 0 { 0.0 } else { told.std.map_or(f64::INFINITY, |std| std * std * n as f64) };
        self.moment.merge(&Moment { n, nan, inf, zero: zero.min(n), mean, m2, min, max });
        if self.moment.n.saturating_add(self.moment.nan).saturating_add(self.moment.inf) > MOST_COUNT {
            return Err(format!("{name:?} has more than 2^53 values by now, which no model has"));
        }
        self.sampled = self.sampled.saturating_add(told.sampled.0.min(n));
        self.periods.extend(Knots::of(told));
        Ok(())
    }

    /// Each period's values at equidistant shares. From period to period these are shifted, so that all of them together see every share.
    fn column(&self, name: &str) -> Column {
        let each = LEAST_POINTS.max(ALL_POINTS.div_ceil(self.periods.len().max(1)));
        let all = self.periods.iter().map(|knots| knots.n as f64).sum::<f64>() * each as f64;
        const GOLDEN: f64 = 0.618_033_988_749_894_8;
        let points = self.periods.iter().enumerate().flat_map(|(i, knots)| {
            let shift = (0.5 + i as f64 * GOLDEN).fract();
            (0..each).map(move |j| (knots.at((j as f64 + shift) / each as f64), knots.n as f64 / all))
        });
        let points = points.collect();
        let (medians, bounds) = (medians(&self.periods), self.bounds());
        // Lines are bent where density falls, as in heavy tails, and bend their mean; the median of the periods' quantiles does not, but
        // knows of no periods that differ. Nobody knows which is nearer.
        let either = |x: f64| {
            let [least, most] = bounds(x);
            let share = medians.iter().rposition(|median| *median == x).map_or(least, |at| BOUNDED_AT[at]);
            [least.min(share), most.max(share)]
        };
        Column::interpolated(name, &self.moment, points, &medians, either, self.sampled)
    }

    /// What share of all values may lie at or below x, at least and at most.
    fn bounds(&self) -> impl Fn(f64) -> [f64; 2] {
        let lumps = lumps(&self.periods);
        let is_lump = |x: f64| lumps.binary_search_by(|lump| lump.total_cmp(&x)).is_ok();
        let all: f64 = self.periods.iter().map(|knots| knots.n as f64).sum();
        let weighted = |knots: &Knots| (Envelope::of_quantiles(&knots.values, &AT, is_lump), knots.n as f64 / all);
        let periods: Vec<(Envelope, f64)> = self.periods.iter().map(weighted).collect();
        move |x| {
            periods.iter().fold([0.0; 2], |[least, most], (envelope, weight)| {
                let of_period = envelope.at(x);
                [least + weight * of_period[0], most + weight * of_period[1]]
            })
        }
    }
}

/// All columns, in the order of the first report.
pub struct Gathered {
    spec: Spec,
    rows: u64,
    predicted: HashMap<String, u64>,
    actual: HashMap<String, u64>,
    probabilities: Vec<OverPeriods>,
    confidence: OverPeriods,
    margin: OverPeriods,
    entropy: OverPeriods,
    features: Vec<OverPeriods>,
    codes: Vec<Option<Categorical>>,
}

impl Gathered {
    /// For reports with these columns; without any yet.
    pub fn like(told: &Told) -> Gathered {
        let spec = told.spec();
        Gathered {
            rows: 0,
            predicted: HashMap::new(),
            actual: HashMap::new(),
            probabilities: spec.classes.iter().map(|_| OverPeriods::new()).collect(),
            confidence: OverPeriods::new(),
            margin: OverPeriods::new(),
            entropy: OverPeriods::new(),
            features: spec.features.iter().map(|_| OverPeriods::new()).collect(),
            codes: spec.features.iter().map(|_| None).collect(),
            spec,
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        (self.probabilities.len() + self.features.len() + 3) as u64
    }

    /// What they are called. Reports say neither the threshold nor, of more than one, which version is meant.
    pub fn spec(&self) -> Spec {
        self.spec.clone()
    }

    /// And one more period.
    pub fn with(mut self, told: &Told) -> Result<Gathered, String> {
        if told.spec() != self.spec {
            return Err("it has other columns than the reports before it: name only those that have the same".into());
        }
        self.rows = self.rows.saturating_add(told.rows.0);
        if let Some(predictions) = &told.predictions {
            self.add_predictions(predictions)?;
        }
        for (output, column) in told.outputs.iter().flatten().zip(&mut self.probabilities) {
            column.add(&output.name, &output.summary, [0; 3])?;
        }
        for (feature, (column, codes)) in told.features.iter().zip(self.features.iter_mut().zip(&mut self.codes)) {
            column.add(&feature.name, &feature.summary, [feature.missing.0, feature.inf.0, feature.zero.0])?;
            if let Some(period) = feature.counted()? {
                *codes = Some(codes.take().map_or(period.clone(), |known| known.joined(&period)));
            }
        }
        Ok(self)
    }

    /// Of one of the periods, as far as they have come.
    pub fn add_labels(&mut self, labels: &Labels) {
        for class in &labels.classes {
            let sum = self.actual.entry(class.name.clone()).or_default();
            *sum = sum.saturating_add(class.support.0);
        }
    }

    fn add_predictions(&mut self, told: &Predictions) -> Result<(), String> {
        self.confidence.add("confidence", &told.confidence, [0; 3])?;
        self.margin.add("margin", &told.margin, [0; 3])?;
        if let Some(entropy) = &told.entropy {
            self.entropy.add("entropy", entropy, [0; 3])?;
        }
        for (class, column) in told.classes.iter().zip(&mut self.probabilities) {
            let sum = self.predicted.entry(class.name.clone()).or_default();
            *sum = sum.saturating_add(class.count.0);
            // What is not finite is one number in a report; NaN is what it usually is.
            let missing = told.rows.0.saturating_sub(class.probability.n.0);
            column.add(&class.name, &class.probability, [missing, 0, 0])?;
        }
        Ok(())
    }

    /// As a reference has them.
    pub fn columns(&self) -> Interpolated {
        let classified = !self.spec.regression && !self.spec.classes.is_empty();
        let counts = |counts: &HashMap<String, u64>| {
            let of_class = |name: &String| (name.clone(), counts.get(name).copied().unwrap_or(0));
            self.spec.classes.iter().map(of_class).collect::<Vec<_>>()
        };
        let probabilities = self.spec.classes.iter().zip(&self.probabilities);
        let features = self.spec.features.iter().zip(self.features.iter().zip(&self.codes));
        Interpolated {
            rows: self.rows,
            predicted: if classified { counts(&self.predicted) } else { Vec::new() },
            actual: if self.actual.is_empty() { Vec::new() } else { counts(&self.actual) },
            probabilities: probabilities.map(|(name, column)| column.column(name)).collect(),
            confidence: classified.then(|| self.confidence.column("confidence")),
            margin: classified.then(|| self.margin.column("margin")),
            entropy: classified.then(|| self.entropy.column("entropy")),
            features: features
                .map(|(feature, (column, codes))| match codes {
                    Some(codes) => Column::counted(&feature.name, &column.moment, codes.clone()),
                    None => column.column(&feature.name),
                })
                .collect(),
        }
    }
}
