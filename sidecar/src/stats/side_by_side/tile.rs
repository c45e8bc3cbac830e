//! Rows that lie one behind the other, turned into columns of as many lanes.

use super::lanes::Lanes;
use crate::stats::scalar::{Lane, Scalar};
use std::array::from_fn;

/// Columns that are gathered together, at most.
pub const MOST_COLUMNS: usize = 8;

/// Adds the columns of `W` rows to their lanes, from the first to the last.
#[inline(always)]
pub fn add<T: Scalar, const W: usize>(block: &[T], columns: usize, lanes: &mut Lanes<T::Lane, W>) {
    match columns {
        1 => lanes.add(&narrow::<T, W, 1>(block), true),
        2 => lanes.add(&narrow::<T, W, 2>(block), false),
        3 => lanes.add(&narrow::<T, W, 3>(block), false),
        4 => lanes.add(&narrow::<T, W, 4>(block), false),
        5 => lanes.add(&narrow::<T, W, 5>(block), false),
        6 => lanes.add(&narrow::<T, W, 6>(block), false),
        7 => lanes.add(&narrow::<T, W, 7>(block), false),
        _ => wide(block, columns, lanes),
    }
}

/// All of rows with `C` columns.
#[inline(always)]
fn narrow<T: Scalar, const W: usize, const C: usize>(block: &[T]) -> [[T::Lane; W]; C] {
    let rows: &[[T; C]; W] = block.as_chunks().0.first_chunk().expect("as many rows as lanes");
    from_fn(|column| from_fn(|r| rows[r][column].lane()))
}

#[inline(always)]
fn wide<T: Scalar, const W: usize>(block: &[T], columns: usize, lanes: &mut Lanes<T::Lane, W>) {
    let mut tile = [[T::Lane::ZERO; W]; MOST_COLUMNS];
    let whole = columns - columns % MOST_COLUMNS;
    for first in (0..whole).step_by(MOST_COLUMNS) {
        gather(block, columns, first, &mut tile);
        lanes.add(&tile, false);
    }
    // The last ones reach back, and what was there before is left out.
    if whole < columns {
        gather(block, columns, columns - MOST_COLUMNS, &mut tile);
        lanes.add(&tile[whole + MOST_COLUMNS - columns..], false);
    }
}

#[inline(always)]
fn gather<T: Scalar, const W: usize>(
    block: &[T],
    columns: usize,
    first: usize,
    into: &mut [[T::Lane; W]; MOST_COLUMNS],
) {
    let row_at = |r: usize| block[r * columns + first..].first_chunk().expect("so many columns");
    let rows: [&[T; MOST_COLUMNS]; W] = from_fn(row_at);
    for (column, into) in into.iter_mut().enumerate() {
        *into = from_fn(|r| rows[r][column].lane());
    }
}
