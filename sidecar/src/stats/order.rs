//! The columns of a sample's rows in order, and their quantiles.
//!
//! Rows lie one after another, so that a column is a value here and there; some columns at a time are transposed, which reads
//! each line of the cache once. Values become integers in the order of the numbers, which compare without a branch. Zeros, of
//! which pixels and counts have many, are counted and not moved about.

use super::Quantiles;
use super::dispatch::prefetch;
use super::select::{Key, at_ranks};
use std::array::from_fn;
use std::ops::Range;

/// Columns that are transposed together: fewer, and finding a row's place in memory costs more than its values.
const TOGETHER: usize = 64;
/// What they may take; a single column may take more.
pub const MOST_TRANSPOSED: usize = 5 << 20;
/// Rows and columns of a square: a line of the cache of f32.
const SIDE: usize = 16;

/// The finite values of one column.
pub trait Ordered {
    /// How many there are.
    fn count(&self) -> usize;
    /// Their quantiles, the same bits as [`Quantiles::of`] gives; `None` of none.
    fn quantiles(&mut self) -> Option<Quantiles>;
    /// All of them. −0 is 0.
    fn ascending(&mut self) -> Vec<f64>;
}

/// A number as an integer in the same order.
pub trait Sortable: Copy + Default {
    /// An unsigned one.
    type Key: Key;
    /// Of 0.
    const ZERO: Self::Key;
    /// Of a number that is not NaN.
    fn key(self) -> Self::Key;
    /// The number again.
    fn value(key: Self::Key) -> f64;
    /// 0 or −0.
    fn is_zero(self) -> bool;
    /// Not 0, not NaN and not ±∞.
    fn is_finite_and_not_zero(self) -> bool;
}

macro_rules! sortable {
    ($type:ty, $key:ty, $signed:ty) => {
        impl Sortable for $type {
            type Key = $key;
            const ZERO: $key = 1 << (<$key>::BITS - 1);
            #[inline(always)]
            fn key(self) -> $key {
                let bits = self.to_bits();
                bits ^ (((bits as $signed) >> (<$key>::BITS - 1)) as $key | Self::ZERO)
            }
            #[inline(always)]
            fn value(key: $key) -> f64 {
                <$type>::from_bits(if key < Self::ZERO { !key } else { key ^ Self::ZERO }).into()
            }
            #[inline(always)]
            fn is_zero(self) -> bool {
                self == 0.0
            }
            #[inline(always)]
            fn is_finite_and_not_zero(self) -> bool {
                // 0 becomes the largest of all.
                let size_less_one = (self.to_bits() << 1).wrapping_sub(1);
                size_less_one < (<$type>::INFINITY.to_bits() << 1) - 1
            }
        }
    };
}
sortable!(f32, u32, i32);
sortable!(f64, u64, i64);

/// One column, its zeros apart.
struct Column<'a, T: Sortable> {
    keys: &'a mut [T::Key],
    negative: usize,
    zeros: usize,
}

/// Calls `each` with every column of row-major `values`, from the first to the last.
pub fn for_each_column<T: Sortable>(values: &[T], columns: usize, mut each: impl FnMut(usize, &mut dyn Ordered)) {
    let Some(rows) = values.len().checked_div(columns) else { return };
    let apart = rows + SIDE; // or with 2^n rows all columns would lie in the same few places of the cache
    let together = (MOST_TRANSPOSED / (apart * size_of::<T>())).clamp(1, TOGETHER);
    let (mut transposed, mut keys) = (vec![T::default(); together * apart], vec![T::Key::default(); rows + 1]);
    for first in (0..columns).step_by(together) {
        let wanted = first..columns.min(first + together);
        transpose(values, columns, wanted.clone(), &mut transposed, apart);
        for (column, values) in wanted.zip(transposed.chunks_exact(apart)) {
            each(column, &mut Column::<T>::of(&values[..rows], &mut keys));
        }
    }
}

/// The `wanted` columns, `apart` from each other.
fn transpose<T: Sortable>(values: &[T], columns: usize, wanted: Range<usize>, to: &mut [T], apart: usize) {
    let rows = values.len() / columns;
    let place = |row, column| row * columns + column;
    for row in (0..rows).step_by(SIDE) {
        for next in row + SIDE..row + 2 * SIDE {
            wanted.clone().step_by(SIDE).for_each(|column| prefetch(values, place(next, column)));
            prefetch(values, place(next, wanted.end - 1));
        }
        for column in wanted.clone().step_by(SIDE) {
            let to = &mut to[(column - wanted.start) * apart..];
            let (height, width) = (SIDE.min(rows - row), SIDE.min(wanted.end - column));
            if (height, width) == (SIDE, SIDE) {
                let square: [[T; SIDE]; SIDE] =
                    from_fn(|i| *values[place(row + i, column)..].first_chunk().expect("a row of the square"));
                for (j, to) in to.chunks_mut(apart).take(SIDE).enumerate() {
                    to[row..row + SIDE].copy_from_slice(&from_fn::<T, SIDE, _>(|i| square[i][j]));
                }
            } else {
                (0..width).for_each(|j| {
                    (0..height).for_each(|i| to[j * apart + row + i] = values[place(row + i, column + j)])
                });
            }
        }
    }
}

impl<'a, T: Sortable> Column<'a, T> {
    /// `keys` have room for one more than there are values.
    fn of(values: &[T], keys: &'a mut [T::Key]) -> Column<'a, T> {
        let count = |is: fn(T) -> bool| values.iter().map(|&x| u64::from(is(x))).sum::<u64>() as usize;
        let (zeros, n) = (count(T::is_zero), count(T::is_finite_and_not_zero));
        if n == values.len() {
            keys.iter_mut().zip(values).for_each(|(key, x)| *key = x.key());
        } else {
            let mut kept = 0;
            for x in values {
                // Written in any case, which costs less than to find out whether to.
                keys[kept] = x.key();
                kept += usize::from(x.is_finite_and_not_zero());
            }
        }
        let keys = &mut keys[..n];
        Column { negative: keys.iter().filter(|&&key| key < T::ZERO).count(), keys, zeros }
    }
}

impl<T: Sortable> Column<'_, T> {
    /// Where the value of a rank is among the keys; `None`: it is 0.
    fn key_of(&self, rank: usize) -> Option<usize> {
        match rank.checked_sub(self.negative) {
            None => Some(rank),
            Some(from_zero) => Some(from_zero.checked_sub(self.zeros)? + self.negative),
        }
    }
}

impl<T: Sortable> Ordered for Column<'_, T> {
    fn count(&self) -> usize {
        self.keys.len() + self.zeros
    }

    fn quantiles(&mut self) -> Option<Quantiles> {
        let mut wanted: Vec<usize> =
            Quantiles::ranks(self.count())?.into_iter().filter_map(|rank| self.key_of(rank)).collect();
        wanted.dedup();
        let found = at_ranks(self.keys, &wanted);
        let at = |key| found[wanted.binary_search(&key).expect("wanted above")];
        Quantiles::by_rank(self.count(), |rank| self.key_of(rank).map_or(0.0, |key| T::value(at(key))))
    }

    fn ascending(&mut self) -> Vec<f64> {
        self.keys.sort_unstable();
        let (negative, positive) = self.keys.split_at(self.negative);
        let values = |keys: &[T::Key]| keys.iter().map(|&key| T::value(key)).collect::<Vec<f64>>();
        [values(negative), vec![0.0; self.zeros], values(positive)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious way.
    fn gathered(values: &[f64], columns: usize, column: usize) -> Vec<f64> {
        let mut column: Vec<f64> = values.iter().copied().skip(column).step_by(columns).collect();
        column.retain(|x| x.is_finite());
        column.sort_unstable_by(f64::total_cmp);
        column
    }

    fn equal_gathering_and_sorting<T: Sortable + Into<f64>>(values: &[T], columns: usize) -> Result<(), TestCaseError> {
        let values = &values[..values.len() - values.len() % columns];
        let wide: Vec<f64> = values.iter().map(|&x| x.into()).collect();
        let (mut next, bits) = (0, |q: Quantiles| [q.q01, q.q05, q.q25, q.q50, q.q75, q.q95, q.q99].map(f64::to_bits));
        let mut wrong = None;
        for_each_column(values, columns, |column, ordered| {
            let mut want = gathered(&wide, columns, column);
            let quantiles = ordered.quantiles().map(bits);
            let same = ordered.count() == want.len() && quantiles == Quantiles::of(&mut want).map(bits);
            if column != next || !same || ordered.ascending() != want {
                wrong = Some((column, want));
            }
            next += 1;
        });
        prop_assert_eq!(wrong, None);
        prop_assert_eq!(next, columns);
        Ok(())
    }

    fn value() -> impl Strategy<Value = f64> {
        let odd =
            [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, 5e-324, -5e-324, 1e-40, -1.0];
        prop_oneof![4 => -1e3..1e3f64, 2 => proptest::sample::select(odd.to_vec()), 2 => (-3..3i32).prop_map(f64::from)]
    }

    proptest! {
        #[test]
        fn f64_columns_equal_gathering_and_sorting(columns in 1..40usize, values in proptest::collection::vec(value(), 0..2000)) {
            equal_gathering_and_sorting(&values, columns)?;
        }

        #[test]
        fn f32_columns_equal_gathering_and_sorting(columns in 1..40usize, values in proptest::collection::vec(value(), 0..2000)) {
            let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
            equal_gathering_and_sorting(&values, columns)?;
        }
    }

    #[test]
    fn long_columns_are_taken_out_one_by_one() {
        let values: Vec<f32> = (0..3 * MOST_TRANSPOSED / 4).map(|i| ((i * 7919) % 10_007) as f32 - 5000.0).collect();
        equal_gathering_and_sorting(&values, 3).unwrap();
    }
}
