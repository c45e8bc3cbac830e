//! How much the numbers of a report went up and down over the periods that a reference was made from.

use super::{Column, Reference};
use crate::profile::Seen;
use crate::stats::Made;
use serde::{Deserialize, Serialize};

/// What the order in which values are summed moves their mean, as a share of them.
const SUMMED: f64 = 64.0 * f64::EPSILON;

/// One number's mean and deviation over periods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Which number, as `features.age.mean`.
    pub path: String,
    /// Periods in which it was defined; at least 2.
    pub n: u64,
    /// Over them.
    pub mean: f64,
    /// With ddof 1: the periods stand for others to come.
    pub std: f64,
}

impl Band {
    /// Of the values of one number. `None` of fewer than two, and where the deviation exceeds f64.
    pub fn of(path: String, values: &[f64]) -> Option<Band> {
        let n = values.len() as f64;
        let mean = values.iter().map(|x| x / n).sum::<f64>();
        let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
        let band = Band { path, n: values.len() as u64, mean, std: (squares / (n - 1.0)).sqrt() };
        band.is_sound().then_some(band)
    }

    /// Of the periods of several bands together. `None` where the deviation exceeds f64.
    pub(super) fn pooled(parts: &[&Band]) -> Option<Band> {
        let n: u64 = parts.iter().map(|band| band.n).sum();
        let mean = parts.iter().map(|band| band.mean * (band.n as f64 / n as f64)).sum::<f64>();
        let about = |band: &&Band| {
            let beside = band.mean - mean;
            (band.n - 1) as f64 * band.std * band.std + band.n as f64 * beside * beside
        };
        let squares: f64 = parts.iter().map(about).sum();
        let band = Band { path: parts.first()?.path.clone(), n, mean, std: (squares / (n - 1) as f64).sqrt() };
        band.is_sound().then_some(band)
    }

    /// Whether it can have been made: what comes from a file may be anything.
    pub(super) fn is_sound(&self) -> bool {
        self.n >= 2 && self.mean.is_finite() && self.std.is_finite() && self.std >= 0.0
    }
}

/// What a number is an average of.
struct Averaged {
    /// Of one row's part in it.
    variance: f64,
    /// In all periods together.
    rows: u64,
}

impl Reference {
    /// One deviation of a band's number in a period that takes it over so many rows. The band's own, where the period has as many as the
    /// reference's had; with fewer, chance alone moves an average farther. And the mean of a few periods is not known for certain.
    pub fn deviation(&self, band: &Band, rows: u64) -> f64 {
        let seen = band.std * band.std;
        let wider = self.averaged(band).filter(|averaged| averaged.rows > 0 && rows > 0).map(|averaged| {
            let then = averaged.rows as f64 / band.n as f64;
            (seen - averaged.variance / then).max(0.0) + averaged.variance / rows as f64
        });
        let variance = seen.max(wider.filter(|variance| variance.is_finite()).unwrap_or(0.0));
        (variance + seen / band.n as f64).sqrt()
    }

    /// How far rounding alone may move a band's number: of a period whose values are of other elements, and in the sum of either. So far a
    /// constant is beside its band, which is no wider than the last bit.
    pub fn rounding(&self, band: &Band, now: Seen) -> f64 {
        let between = |first, last| band.path.strip_prefix(first)?.strip_suffix(last);
        let (column, now, made) = match band.path.as_str() {
            "predictions.confidence.mean" => (self.confidence.as_ref(), now.probabilities, Made::Read),
            "predictions.margin.mean" => (self.margin.as_ref(), now.probabilities, self.margin_made()),
            "predictions.entropy.mean" => (self.entropy.as_ref(), now.probabilities, self.entropy_made()),
            _ => match (between("features.", ".mean"), between("outputs.", ".mean")) {
                (Some(name), _) => (self.features.iter().find(|of| of.name == name), now.features, Made::Read),
                (_, Some(name)) => (self.probability(name), now.probabilities, Made::Read),
                _ => (None, now.features, Made::Read),
            },
        };
        let of_column = |column: &Column| {
            // No mean of absolute values exceeds it.
            let size = column.moment.mean.hypot(column.moment.std().unwrap_or(0.0));
            column.elements.slack(now, made).at(size) + SUMMED * size
        };
        column.map(of_column).filter(|moved| moved.is_finite()).unwrap_or(0.0)
    }

    fn averaged(&self, band: &Band) -> Option<Averaged> {
        let of_column = |column: &Column| {
            let moment = &column.moment;
            Averaged { variance: moment.m2 / moment.n.max(1) as f64, rows: moment.n }
        };
        let share = |rows| Averaged { variance: (band.mean * (1.0 - band.mean)).max(0.0), rows };
        let between = |first, last| band.path.strip_prefix(first)?.strip_suffix(last);
        let feature = |name: &str| self.features.iter().find(|column| column.name == name);
        match band.path.as_str() {
            "predictions.confidence.mean" => self.confidence.as_ref().map(of_column),
            "predictions.margin.mean" => self.margin.as_ref().map(of_column),
            "predictions.entropy.mean" => self.entropy.as_ref().map(of_column),
            "predictions.low_confidence_share" => Some(share(self.predicted.iter().map(|(_, rows)| rows).sum())),
            "labels.accuracy" => self.quality.as_ref().map(|quality| share(quality.single_rows)),
            _ if between("predictions.classes.", ".frequency").is_some() => {
                Some(share(self.predicted.iter().map(|(_, rows)| rows).sum()))
            }
            _ => match (between("features.", ".mean"), between("features.", ".missing_share")) {
                (Some(name), _) => feature(name).map(of_column),
                (_, Some(name)) => feature(name).map(|column| {
                    let moment = &column.moment;
                    share(moment.n.saturating_add(moment.nan).saturating_add(moment.inf))
                }),
                _ => self.probability(between("outputs.", ".mean")?).map(of_column),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Profile, Rows, Spec};
    use crate::stats::Columns;
    use ndarray::ArrayView2;

    /// 20 periods of 1,000 rows of a feature with the deviation 2, and its band.
    fn of_a_feature(path: &str, mean: f64, std: f64) -> (Reference, Band) {
        let feature = Feature { name: "x".into(), categorical: false };
        let spec = Spec { model: "m".into(), features: vec![feature], ..Spec::default() };
        let mut profile = Profile::new(spec.into(), 100, 1);
        let values: Vec<f64> = (0..20_000).map(|i| if i % 2 == 0 { 3.0 } else { -1.0 }).collect();
        let features = Some(Columns::F64(ArrayView2::from_shape((20_000, 1), &values).unwrap()));
        profile.update(&Rows { count: 20_000, features, ..Rows::default() });
        let band = Band { path: path.into(), n: 20, mean, std };
        (Reference::of(&profile).with_bands(vec![band.clone()]), band)
    }

    #[test]
    fn with_fewer_rows_than_the_references_periods_chance_moves_an_average_farther() {
        // Nothing but chance between the periods.
        let by_chance = 2.0 / 1000f64.sqrt();
        let (reference, band) = of_a_feature("features.x.mean", 1.0, by_chance);
        let of_mean = by_chance / 20f64.sqrt();
        for (rows, want) in [(100, 0.2), (1000, by_chance), (100_000, by_chance), (0, by_chance)] {
            assert!((reference.deviation(&band, rows) - want.hypot(of_mean)).abs() < 1e-12, "{rows}");
        }
        // Much besides: that does not shrink with more rows, and hides what chance does.
        let (reference, band) = of_a_feature("features.x.mean", 1.0, 1.0);
        assert!((reference.deviation(&band, 100) - (1.0f64 - 0.004 + 0.04 + 0.05).sqrt()).abs() < 1e-12);
        let (reference, band) = of_a_feature("features.x.missing_share", 0.2, 0.0);
        assert!((reference.deviation(&band, 100) - 0.04).abs() < 1e-12, "√(.2 × .8 / 100)");
    }

    #[test]
    fn a_number_that_is_no_average_of_known_rows_keeps_its_band() {
        for path in ["labels.accuracy", "features.y.mean", "outputs.y.mean"] {
            let (reference, band) = of_a_feature(path, 0.9, 0.1);
            assert!((reference.deviation(&band, 1) - 0.1 * (1.0 + 1.0 / 20.0f64).sqrt()).abs() < 1e-12, "{path}");
        }
    }

    #[test]
    fn a_band_is_the_mean_and_the_deviation_of_periods_to_come() {
        let band = Band::of("rows".into(), &[1.0, 2.0, 3.0, 6.0]).unwrap();
        assert_eq!((band.n, band.mean), (4, 3.0));
        assert!((band.std - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn pooled_bands_are_the_band_of_all_periods() {
        let periods = [[1.0, 2.5, 3.0].as_slice(), &[10.0, 11.0], &[-4.0, 0.0, 0.5, 1e3]];
        let bands: Vec<Band> = periods.iter().map(|values| Band::of("x".into(), values).unwrap()).collect();
        let (got, want) = (Band::pooled(&bands.iter().collect::<Vec<_>>()), Band::of("x".into(), &periods.concat()));
        let (got, want) = (got.unwrap(), want.unwrap());
        assert_eq!((&got.path, got.n), (&want.path, want.n));
        assert!((got.mean / want.mean - 1.0).abs() < 1e-14 && (got.std / want.std - 1.0).abs() < 1e-14);
        let huge = |mean| Band { path: "x".into(), n: 2, mean, std: 0.0 };
        assert_eq!(Band::pooled(&[&huge(1e308), &huge(-1e308)]), None);
    }

    #[test]
    fn of_one_period_or_of_numbers_too_large_there_is_none() {
        assert_eq!(Band::of("x".into(), &[1.0]), None);
        assert_eq!(Band::of("x".into(), &[]), None);
        assert_eq!(Band::of("x".into(), &[1e308, -1e308]), None);
    }
}
