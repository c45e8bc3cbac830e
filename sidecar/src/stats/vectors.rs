//! Rows seen as vectors: their length, and how far one centroid is from another.

use super::Scalar;

const LANES: usize = 8;

/// Euclidean norm, scaled where squares would not fit into f64. `None` if a coordinate is not finite; +∞ if only the norm is not.
pub fn norm<T: Scalar>(vector: &[T]) -> Option<f64> {
    let squares = sum_of_squares(vector, 1.0);
    if squares.is_normal() {
        return Some(squares.sqrt());
    }
    if !vector.iter().all(|x| x.widen().is_finite()) {
        return None;
    }
    let largest = vector.iter().map(|x| x.widen().abs()).fold(0.0, f64::max);
    Some(if largest == 0.0 { 0.0 } else { largest * sum_of_squares(vector, largest).sqrt() })
}

/// In lanes, or it would not vectorise.
fn sum_of_squares<T: Scalar>(vector: &[T], unit: f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = vector.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            let x = x.widen() / unit;
            *lane += x * x;
        }
    }
    let rest: f64 = rest.iter().map(|x| x.widen() / unit).map(|x| x * x).sum();
    lanes.iter().sum::<f64>() + rest
}

/// Why a distance or cosine is undefined, as reports spell it.
pub type Undefined = &'static str;

/// Euclidean distance between two centroids, and the cosine of the angle between them. Undefined: `empty` where a centroid has no
/// coordinates, not as many as the other, or one that is not finite; `zero_norm` for the cosine with a centroid at the origin; `overflow`.
pub fn centroid_shift(current: &[f64], reference: &[f64]) -> (Result<f64, Undefined>, Result<f64, Undefined>) {
    let norms = (norm(current), norm(reference));
    let (Some(a), Some(b), false) = (norms.0, norms.1, current.is_empty() || current.len() != reference.len()) else {
        return (Err("empty"), Err("empty"));
    };
    let difference: Vec<f64> = current.iter().zip(reference).map(|(x, y)| x - y).collect();
    let distance = norm(&difference).filter(|d| d.is_finite()).ok_or("overflow");
    let cosine = match () {
        _ if a == 0.0 || b == 0.0 => Err("zero_norm"),
        _ if a.is_infinite() || b.is_infinite() => Err("overflow"),
        // Each is divided by its norm first: a product of the coordinates themselves might overflow, or vanish.
        _ => Ok(current.iter().zip(reference).map(|(x, y)| (x / a) * (y / b)).sum::<f64>().clamp(-1.0, 1.0)),
    };
    (distance, cosine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(got: f64, want: f64) -> bool {
        (got - want).abs() <= 1e-12 * want.abs().max(1e-300)
    }

    proptest! {
        #[test]
        fn a_norm_is_that_of_the_scaled_vector_times_the_scale(
            vector in prop::collection::vec(-1e3..1e3f64, 0..40), exponent in -290..290i32,
        ) {
            let obvious = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
            let scale = 10f64.powi(exponent);
            let scaled: Vec<f64> = vector.iter().map(|x| x * scale).collect();
            prop_assert!(close(norm(&vector).unwrap(), obvious));
            prop_assert!(close(norm(&scaled).unwrap(), obvious * scale));
        }

        #[test]
        fn shifts_are_those_of_the_definition(
            pairs in prop::collection::vec((-1e3..1e3f64, -1e3..1e3f64), 1..40),
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
            let apart: Vec<f64> = a.iter().zip(&b).map(|(x, y)| x - y).collect();
            let (distance, cosine) = centroid_shift(&a, &b);
            prop_assert!(close(distance.unwrap(), dot(&apart, &apart).sqrt()));
            prop_assert!((cosine.unwrap() - dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()).abs() < 1e-12);
        }
    }

    #[test]
    fn a_coordinate_that_is_not_finite_leaves_no_norm() {
        assert_eq!(
            [norm(&[f64::NAN, 1.0]), norm(&[1.0, f64::NEG_INFINITY]), norm(&[f64::INFINITY, f64::NAN])],
            [None; 3]
        );
        assert_eq!([norm::<f64>(&[]), norm(&[0.0, -0.0])], [Some(0.0); 2]);
        assert_eq!(norm(&[1.7e308, 1.7e308]), Some(f64::INFINITY));
        assert_eq!(norm(&[3e-200, 4e-200]), Some(5e-200));
        assert_eq!(norm(&[f32::MAX; 1]), Some(f64::from(f32::MAX)));
    }

    #[test]
    fn what_is_undefined_says_why() {
        assert_eq!(centroid_shift(&[0.0, 0.0], &[3.0, 4.0]), (Ok(5.0), Err("zero_norm")));
        assert_eq!(centroid_shift(&[], &[]), (Err("empty"), Err("empty")));
        assert_eq!(centroid_shift(&[1.0], &[1.0, 2.0]), (Err("empty"), Err("empty")));
        assert_eq!(centroid_shift(&[f64::NAN], &[1.0]), (Err("empty"), Err("empty")));
        assert_eq!(centroid_shift(&[1.7e308], &[-1.7e308]), (Err("overflow"), Ok(-1.0)));
        assert_eq!(centroid_shift(&[1.7e308; 2], &[1.0; 2]).1, Err("overflow"));
        assert_eq!(centroid_shift(&[1e-200], &[1e200]).1, Ok(1.0));
    }
}
