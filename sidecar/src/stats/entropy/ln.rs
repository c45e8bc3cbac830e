//! A natural logarithm for lanes: no branch and no table.
//!
//! x = 2ᵉ m with m in [√½, √2); ln m = 2 atanh s with s = (m − 1)/(m + 1), a series in s² of which |s| < .172 needs four terms. Their
//! coefficients minimise the largest relative error (7e-10); what is left is the rounding of f32.

use std::f32::consts::LN_2;

const SERIES: [f32; 4] = [2.0, 0.666_668_2, 0.399_747_55, 0.299_265_15];
const SQRT_HALF: u32 = 0x3f35_04f3;
const EXPONENT: u32 = 0xff80_0000;
const ONE_IN_EXPONENT: f32 = 8_388_608.0;

/// −ln x of a positive normal number: right within 3e-7 of itself.
#[inline(always)]
pub fn minus_ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = bits.wrapping_sub(SQRT_HALF) & EXPONENT;
    let m = f32::from_bits(bits.wrapping_sub(exponent));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let [c0, c1, c2, c3] = SERIES.map(|c| -c);
    // Where it stands the exponent is e times a power of two, which the product takes out again without rounding.
    s * (c0 + z * (c1 + z * (c2 + z * c3))) + exponent as i32 as f32 * (-LN_2 / ONE_IN_EXPONENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in ten thousand of all there are.
    fn normal_numbers() -> impl Iterator<Item = f32> {
        (f32::MIN_POSITIVE.to_bits()..f32::INFINITY.to_bits()).step_by(9973).map(f32::from_bits)
    }

    #[test]
    fn is_the_librarys_within_what_f32_rounds() {
        let error = |x: f32| {
            let want = f64::from(x).ln();
            (f64::from(-minus_ln(x)) - want).abs() / want.abs()
        };
        let worst = normal_numbers().filter(|x| *x != 1.0).map(error).fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst:e}");
    }

    #[test]
    fn of_one_is_zero_and_below_one_negative() {
        assert_eq!(minus_ln(1.0), 0.0);
        assert!(normal_numbers().chain([1f32.next_down()]).take_while(|x| *x < 1.0).all(|x| minus_ln(x) > 0.0));
    }
}
