//! A sample that becomes f64 takes the memory of an f64 one, and not that of both.

use mlwatch::stats::{Columns, RowStore};
use ndarray::ArrayView2;
use std::fs;

/// In bytes, of a line of `/proc/self/status`.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_sample_that_becomes_f64_never_takes_both_at_once() {
    const COLUMNS: usize = 1 << 10;
    const ROWS: usize = 16 << 10;
    let mut store = RowStore::new(COLUMNS);
    let narrow = vec![0.5f32; COLUMNS];
    for slot in 0..ROWS {
        store.keep(&Columns::F32(ArrayView2::from_shape((1, COLUMNS), &narrow).unwrap()), &[(0, slot)]);
    }
    let before = status("VmRSS");
    fs::write("/proc/self/clear_refs", "5").expect("resets the peak");
    let wide = vec![0.25f64; COLUMNS];
    store.keep(&Columns::F64(ArrayView2::from_shape((1, COLUMNS), &wide).unwrap()), &[(0, 0)]);
    let more = status("VmHWM") - before;
    let values = (COLUMNS * ROWS) as u64;
    assert!(more < 4 * values + (8 << 20), "{more} bytes more at the peak, for {values} values");
    assert_eq!(store.value_bytes(), 8);
}
