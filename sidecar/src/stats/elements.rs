//! What numbers were rounded to, and how far apart two of them may lie that were one before.
//!
//! .1 is one number as f64 and another as f32, so what a reference keeps of the one is not found in a ring of the other. A value v
//! that is kept as a, and comes as x, each rounded to a type of its own, has |a − x| ≤ (u + u')|v|, u being half of what lies between 1
//! and the next value of a type. Whoever compares a with x must not tell apart what lies no farther from each other.

use super::Moment;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// Of a ring, an array or a column, from the finest to the coarsest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Element {
    F64,
    F32,
    F16,
    BF16,
}

/// Some types of elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elements(u8);

/// How a column's numbers come from elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Made {
    /// They are elements.
    Read,
    /// They are computed from the elements of a row, which moves them by so much times what rounding an element near 1 does, and by
    /// `own` besides.
    Computed {
        /// Times u.
        per_unit: f64,
        /// Whatever the type.
        own: f64,
    },
}

/// How far apart numbers may lie and be the same: a share of them and a distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slack {
    relative: f64,
    absolute: f64,
}

impl Element {
    /// Finest first.
    pub const ALL: [Element; 4] = [Element::F64, Element::F32, Element::F16, Element::BF16];

    fn epsilon(self) -> f64 {
        match self {
            Element::F64 => f64::EPSILON,
            Element::F32 => f32::EPSILON.into(),
            Element::F16 => f16::EPSILON.into(),
            Element::BF16 => bf16::EPSILON.into(),
        }
    }

    /// The most that rounding moves a normal number, as a share of it. What is f64 counts as never rounded.
    fn unit(self) -> f64 {
        if self == Element::F64 { 0.0 } else { self.epsilon() / 2.0 }
    }

    /// The most that rounding moves a denormal number.
    fn least(self) -> f64 {
        match self {
            Element::F64 => 0.0,
            Element::F32 => f64::from(f32::MIN_POSITIVE) * self.unit(),
            Element::F16 => f64::from(f16::MIN_POSITIVE) * self.unit(),
            Element::BF16 => f64::from(bf16::MIN_POSITIVE) * self.unit(),
        }
    }

    /// The nearest value of the type.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Element::F64 => x,
            Element::F32 => f64::from(x as f32),
            Element::F16 => f16::from_f64(x).into(),
            Element::BF16 => bf16::from_f64(x).into(),
        }
    }
}

impl Elements {
    /// Of values that are read from reports, which do not say it: of the two types that rings usually have.
    pub const UNKNOWN: Elements = Elements(1 << Element::F64 as u8 | 1 << Element::F32 as u8);

    /// One type.
    pub fn of(element: Element) -> Elements {
        Elements(1 << element as u8)
    }

    /// Those of both.
    pub fn and(self, other: Elements) -> Elements {
        Elements(self.0 | other.0)
    }

    /// All are f64.
    pub fn are_f64(self) -> bool {
        self == Elements::of(Element::F64)
    }

    /// Whether it can be: what comes from a file may be anything.
    pub fn is_sound(self) -> bool {
        self.0 < 1 << Element::ALL.len()
    }

    fn coarsest(self) -> Option<Element> {
        Element::ALL.into_iter().rev().find(|element| self.0 & 1 << *element as u8 != 0)
    }

    /// All are of one type, and it is the same.
    fn is_the_one(self, other: Elements) -> bool {
        self == other && self.0.is_power_of_two()
    }

    /// What codes of both are rounded to before they are compared; `None` if they are as they are.
    pub fn common(self, other: Elements) -> Option<Element> {
        if self.is_the_one(other) { None } else { self.and(other).coarsest() }
    }

    /// Between numbers of these and of `other` types.
    pub fn slack(self, other: Elements, made: Made) -> Slack {
        let (Some(one), Some(another)) = (self.coarsest(), other.coarsest()) else { return Slack::NONE };
        if self.is_the_one(other) {
            return Slack::NONE;
        }
        let unit = one.unit() + another.unit();
        // Of what was rounded instead of what was.
        let moved = unit * (1.0 + 2.0 * unit);
        match made {
            Made::Read => Slack { relative: moved, absolute: one.least() + another.least() },
            Made::Computed { per_unit, own } => Slack { relative: 0.0, absolute: per_unit * moved + own },
        }
    }
}

impl Made {
    /// Margins of rows whose columns these are: each of two probabilities is rounded, by u of itself.
    pub fn margins(columns: &[Moment]) -> Made {
        let largest = columns.iter().flat_map(|column| [column.min.abs(), column.max.abs()]).filter(|x| x.is_finite());
        let both = 2.0 * largest.fold(0.0, f64::max);
        Made::Computed { per_unit: if sum_to_one(columns) { both.min(1.0) } else { both }, own: 0.0 }
    }

    /// Entropies of the same. Where p moves by up.p, −p ln p moves by up(1 + |ln p|), of which the sum over a row that sums to 1 is
    /// u(1 + ln K) at most, and over any row uK; divided by ln K. They are computed within 1e-6.
    pub fn entropies(columns: &[Moment]) -> Made {
        let classes = columns.len().max(2) as f64;
        let of_row = if sum_to_one(columns) { 1.0 + classes.ln() } else { classes };
        Made::Computed { per_unit: of_row / classes.ln(), own: 2e-6 }
    }
}

/// Whether rows do, on average.
fn sum_to_one(columns: &[Moment]) -> bool {
    let sum: f64 = columns.iter().map(|column| column.mean).sum();
    (sum - 1.0).abs() <= 0.05
}

impl Slack {
    /// Every number is another one.
    pub const NONE: Slack = Slack { relative: 0.0, absolute: 0.0 };

    /// Whether it is [`NONE`](Self::NONE).
    pub fn is_none(self) -> bool {
        self == Slack::NONE
    }

    /// What lies at or below x in one rounding lies at or below this in the other.
    pub fn above(self, x: f64) -> f64 {
        x + self.at(x)
    }

    /// The same from above.
    pub fn below(self, x: f64) -> f64 {
        x - self.at(x)
    }

    /// What lies at or below x in the other rounding lies at or below this in the one.
    pub fn back(self, x: f64) -> f64 {
        x + self.at(x) * (1.0 + 2.0 * self.relative)
    }

    /// How far it goes at x.
    pub fn at(self, x: f64) -> f64 {
        x.abs() * self.relative + self.absolute
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element() -> impl Strategy<Value = Element> {
        prop::sample::select(Element::ALL.to_vec())
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            -1.0..1.0f64,
            -60_000.0..60_000.0f64,
            -1e-6..1e-6f64,
            (-100..100i32).prop_map(|x| f64::from(x) / 10.0)
        ]
    }

    proptest! {
        #[test]
        fn a_value_in_two_roundings_lies_within_the_slack_from_either(v in value(), then in element(), now in element()) {
            let (a, x) = (then.round(v), now.round(v));
            let slack = Elements::of(then).slack(Elements::of(now), Made::Read);
            prop_assert!(x <= slack.above(a) && x >= slack.below(a), "{a} {x}");
            prop_assert!(a <= slack.back(x), "{a} {x}");
            prop_assert!(slack.is_none() == (then == now));
        }

        #[test]
        fn what_is_above_ascends(a in value(), b in value(), then in element(), now in element()) {
            let slack = Elements::of(then).slack(Elements::of(now), Made::Read);
            prop_assert!(a > b || slack.above(a) <= slack.above(b) && slack.back(a) <= slack.back(b));
        }
    }

    #[test]
    fn rounding_is_that_of_the_types() {
        assert_eq!(Element::F32.round(0.1), f64::from(0.1f32));
        assert_eq!((Element::F16.round(0.1), Element::BF16.round(0.1)), (0.0999755859375, 0.10009765625));
    }

    #[test]
    fn several_types_are_as_coarse_as_the_coarsest_and_never_the_same() {
        let [wide, single] = [Element::F64, Element::F32].map(Elements::of);
        assert_eq!(wide.and(single), Elements::UNKNOWN);
        assert_eq!(Elements::UNKNOWN.common(wide), Some(Element::F32));
        assert_eq!((wide.common(wide), Elements::UNKNOWN.common(Elements::UNKNOWN)), (None, Some(Element::F32)));
        assert!(!Elements::UNKNOWN.slack(wide, Made::Read).is_none() && wide.slack(wide, Made::Read).is_none());
    }
}
