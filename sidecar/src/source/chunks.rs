//! How rows are cut. By the number of columns alone: with any other cut the last bits of a mean might differ.

use std::ops::Range;

const MOST_ROWS: usize = 4096;
const MOST_VALUES: usize = 1 << 20;

/// Consecutive batches of `rows` rows.
pub fn chunks(rows: usize, columns: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (MOST_VALUES / columns.max(1)).clamp(1, MOST_ROWS);
    (0..rows).step_by(step).map(move |start| start..rows.min(start + step))
}
