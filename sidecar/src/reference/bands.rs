//! How much the numbers of a report went up and down over the periods that a reference was made from.

use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::*;

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
