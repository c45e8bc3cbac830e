//! What the values of a ring are made of, and what the kernels compute with.

use half::{bf16, f16};
use std::ops::{Add, AddAssign, Mul, Sub};

/// An element of a ring section, widened exactly.
pub trait Scalar: Copy {
    /// What kernels hold it in.
    type Lane: Lane;
    /// How far the probabilities of a row may sum from 1: the rounding of a row's worth of this type, at least 1e-3.
    const SUM_TOLERANCE: f64;
    /// From 1 to the next value.
    const EPSILON: f64;
    /// The same value.
    fn lane(self) -> Self::Lane;
    /// The same value as `f64`.
    #[inline(always)]
    fn widen(self) -> f64 {
        self.lane().into()
    }
}

/// f32 or f64.
pub trait Lane: Copy + PartialOrd + Into<f64> + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    /// An unsigned integer as wide: counts in lanes as wide as the values' stay in as many registers.
    type Count: Copy + From<bool> + AddAssign + Sub<Output = Self::Count> + Into<u64>;
    /// +∞.
    const INFINITY: Self;
    /// −∞.
    const NEG_INFINITY: Self;
    /// Not a number.
    const NAN: Self;
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// A sum of squares below it may have lost some that were too small.
    const SQUARES: Self;
    /// None.
    const ZERO_COUNT: Self::Count;
    /// As many as fit.
    fn count(n: u64) -> Self::Count;
    /// 0 or −0.
    fn is_zero(self) -> bool;
    /// Neither NaN nor ±∞.
    fn is_finite(self) -> bool;
    /// ±∞.
    fn is_infinite(self) -> bool;
    /// The nearest to it.
    fn nearest(x: f64) -> Self;
    /// The nearest f32.
    fn narrow(self) -> f32;
    /// Not a number.
    fn is_nan(self) -> bool;
    /// Sign, exponent and the first bits of the fraction.
    fn leading_bits(self) -> u32;
    /// Of those the exponent's last.
    const EXPONENT_AT: u32;
    /// The exponent's bits for 1.
    const BIAS: i32;
}

macro_rules! lane {
    ($type:ty, $count:ty, $squares:literal, $exponent_at:literal, $bias:literal, $leading_bits:expr) => {
        impl Lane for $type {
            type Count = $count;
            const INFINITY: $type = <$type>::INFINITY;
            const NEG_INFINITY: $type = <$type>::NEG_INFINITY;
            const NAN: $type = <$type>::NAN;
            const ZERO: $type = 0.0;
            const ONE: $type = 1.0;
            const SQUARES: $type = $squares;
            const ZERO_COUNT: $count = 0;
            const EXPONENT_AT: u32 = $exponent_at;
            const BIAS: i32 = $bias;
            #[inline(always)]
            #[allow(trivial_numeric_casts, clippy::unnecessary_cast, reason = "of u64 it is itself")]
            fn count(n: u64) -> $count {
                n as $count
            }
            #[inline(always)]
            fn is_zero(self) -> bool {
                self == 0.0
            }
            #[inline(always)]
            #[allow(trivial_numeric_casts, clippy::unnecessary_cast, reason = "of f32 it is itself")]
            fn narrow(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                self.is_finite()
            }
            #[inline(always)]
            fn is_infinite(self) -> bool {
                self.is_infinite()
            }
            #[inline(always)]
            #[allow(trivial_numeric_casts, clippy::unnecessary_cast, reason = "of f64 it is itself")]
            fn nearest(x: f64) -> $type {
                x as $type
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                self.is_nan()
            }
            #[inline(always)]
            fn leading_bits(self) -> u32 {
                $leading_bits(self)
            }
        }
    };
}
lane!(f32, u32, 1e-28, 23, 127, f32::to_bits);
lane!(f64, u64, 1e-280, 20, 1023, |x: f64| (x.to_bits() >> 32) as u32);

macro_rules! scalar {
    ($type:ty, $lane:ty, $tolerance:literal, $epsilon:expr, $widen:expr) => {
        impl Scalar for $type {
            type Lane = $lane;
            const SUM_TOLERANCE: f64 = $tolerance;
            const EPSILON: f64 = $epsilon;
            #[inline(always)]
            fn lane(self) -> $lane {
                $widen(self)
            }
        }
    };
}
scalar!(f16, f32, 1e-2, f16::EPSILON.to_f64_const(), widen_f16);
scalar!(bf16, f32, 5e-2, bf16::EPSILON.to_f64_const(), |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16));
scalar!(f32, f32, 1e-3, f32::EPSILON as f64, |x| x);
scalar!(f64, f64, 1e-3, f64::EPSILON, |x| x);

/// Without a branch, unlike `half`'s, so that it goes in lanes: exponent and fraction into their places, the difference of the two
/// biases by a product, which is exact for denormal numbers too.
#[inline(always)]
fn widen_f16(x: f16) -> f32 {
    const BIASES: f32 = f32::from_bits((127 + 127 - 15) << 23);
    const BEYOND_F16: f32 = 65536.0;
    let bits = u32::from(x.to_bits());
    let scaled = f32::from_bits((bits & 0x7fff) << 13) * BIASES;
    let infinite_or_nan = if scaled >= BEYOND_F16 { f32::INFINITY.to_bits() } else { 0 };
    f32::from_bits(scaled.to_bits() | infinite_or_nan | (bits & 0x8000) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_to_itself() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert!(half.lane().to_bits() == half.to_f32().to_bits() || half.is_nan() && half.lane().is_nan());
            assert!(brain.lane().to_bits() == brain.to_f32().to_bits() || brain.is_nan() && brain.lane().is_nan());
        }
    }
}
