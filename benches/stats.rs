//! How fast are the statistics, against the least that they could cost or the obvious way to compute them?
//!
//! ```text
//! cargo bench --bench stats        # or: make bench-stats; a part of it: cargo bench --bench stats -- moments
//! ```
//!
//! - moments, 64 MiB: against reading the same buffer only (a sum in 16 lanes). In L2 (256 KiB, again and again): against Welford's
//!   recurrence in f64, a row at a time.
//! - bins: above which of 11 edges of its column each value lies, 64 MiB, against reading the same buffer only.
//! - histograms: every value of a column into its bucket, 64 MiB, against a `sketches-ddsketch` for each column with the same relative
//!   error, and against reading the same buffer only.
//! - prediction rows: 1,024 rows against the obvious scalar loop with the library's `ln`.
//! - sample: a batch of 128 × 794 offered and the chosen rows copied, against a memcpy of the batch. n/k is how many rows the
//!   reservoir has seen for each that it keeps.
//! - quantiles: seven of each column of a sample of 10,000 × 784, against gathering and sorting each column.
//! - distances: Kolmogorov-Smirnov and Wasserstein from a reference of 16 columns of a sample, from its rows on, against only sorting
//!   these columns, which lie there gathered.
//!
//! Yardstick and kernel run back to back in rounds whose order alternates. Time is this thread's processor time. ×: yardstick ÷
//! kernel, more is better; median over the rounds and [interquartile range].

#[path = "support/mod.rs"]
mod bench;
// What the other benches' support is built on.
#[path = "../tests/support/mod.rs"]
mod support;

use bench::Spread;
use memmap2::MmapMut;
use mlwatch::stats::{
    BinCounts, Classified, ColumnEdges, Columns, Edges, Histograms, Moments, Quantiles, Reservoir, RowStore, Steps,
    classify_rows, relative_error,
};
use ndarray::ArrayView2;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use sketches_ddsketch::{Config, DDSketch};
use std::hint::black_box;

const DRAM: usize = 64 << 20;
const L2: usize = 256 << 10;

fn main() {
    bench::print_heading("stats");
    bench::pin();
    println!("| statistic | of | yardstick | its ns | ns | × |");
    println!("| --- | --- | --- | ---: | ---: | ---: |");
    let chosen = std::env::args().nth(1).filter(|name| !name.starts_with('-'));
    let parts: [(&str, fn()); 7] = [
        ("moments", moments),
        ("bins", bins),
        ("histograms", histograms),
        ("predictions", predictions),
        ("sample", sample),
        ("quantiles", quantiles),
        ("distances", distances),
    ];
    for (name, measure) in parts {
        if chosen.as_deref().is_none_or(|chosen| chosen == name) {
            measure();
        }
    }
}

/* ---- moments ---- */

fn moments() {
    let mut memory = Memory::new(if bench::quick() { 1 << 20 } else { DRAM });
    for (name, missing) in [("64 MiB", 0.0), ("64 MiB, 1 % NaN", 0.01)] {
        memory.fill(missing);
        for columns in [2, 10, 30, 100, 784] {
            let matrix = memory.matrix(DRAM, columns);
            let mut moments = Moments::new(columns);
            let values = matrix.as_slice().expect("no gaps");
            let kernel = || moments.update_typed(&matrix);
            compare("moments", &format!("{columns} columns, {name}"), "read-only sum", || sum(values), kernel);
        }
    }
    memory.fill(0.0);
    for columns in [2, 10, 30, 100, 784] {
        let matrix = memory.matrix(L2, columns);
        let (mut moments, mut naive) = (Moments::new(columns), Welford::new(columns));
        let kernel = || moments.update_typed(&matrix);
        compare("moments", &format!("{columns} columns, L2"), "f64 Welford", || naive.update(&matrix), kernel);
    }
}

/// In lanes, or the compiler would keep to the order of a single chain of additions.
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (whole, rest) = values.as_chunks::<16>();
    for values in whole {
        lanes.iter_mut().zip(values).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter().chain(rest).sum()
}

/// The obvious way to count, mean, M2, extremes, zeros and missing values.
struct Welford {
    columns: Vec<[f64; 8]>,
}

impl Welford {
    fn new(columns: usize) -> Welford {
        Welford { columns: vec![[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY]; columns] }
    }

    fn update(&mut self, matrix: &ArrayView2<'_, f32>) {
        for row in matrix.rows() {
            for (&x, [n, mean, m2, nan, inf, zero, min, max]) in row.iter().zip(&mut self.columns) {
                let x = f64::from(x);
                if x.is_nan() {
                    *nan += 1.0;
                } else if x.is_infinite() {
                    *inf += 1.0;
                } else {
                    *n += 1.0;
                    let d = x - *mean;
                    *mean += d / *n;
                    *m2 += d * (x - *mean);
                    *zero += f64::from(x == 0.0);
                    (*min, *max) = (min.min(x), max.max(x));
                }
            }
        }
    }
}

/* ---- bins ---- */

fn bins() {
    let mut memory = Memory::new(if bench::quick() { 1 << 20 } else { DRAM });
    memory.fill(0.0);
    let edges: Vec<f64> = (0..11).map(|e| 2.5 + 0.5 * f64::from(e)).collect();
    for columns in [10, 100, 784] {
        let matrix = memory.matrix(DRAM, columns);
        let values = matrix.as_slice().expect("no gaps");
        let mut counts = BinCounts::new(Edges::new(&vec![ColumnEdges::as_they_are(&edges); columns]).into());
        let kernel = || counts.update(&Columns::F32(matrix));
        compare("bins", &format!("{columns} columns, 64 MiB"), "read-only sum", || sum(values), kernel);
    }
}

/* ---- histograms ---- */

fn histograms() {
    let mut memory = Memory::new(if bench::quick() { 1 << 20 } else { DRAM });
    memory.fill(0.0);
    for (scale, columns) in [(6, 10), (6, 784), (4, 10), (4, 784)] {
        let matrix = memory.matrix(DRAM, columns);
        let values = matrix.as_slice().expect("no gaps");
        let (of, all) = (format!("{columns} columns, scale {scale}"), 0..columns);
        let mut histograms = Histograms::new(scale, Some(all.clone()));
        compare("histograms", &of, "read-only sum", || sum(values), || histograms.update_typed(&matrix));
        // It takes its time: a tenth of the rows each.
        let few = memory.matrix(DRAM / 10, columns);
        let mut histograms = Histograms::new(scale, Some(all));
        let config = Config::new(relative_error(scale), 1 << 16, 1e-9);
        let mut sketches = vec![DDSketch::new(config); columns];
        let yardstick = || {
            for row in few.rows() {
                row.iter().zip(&mut sketches).for_each(|(&x, sketch)| sketch.add(x.into()));
            }
        };
        compare("histograms", &of, "sketches-ddsketch", yardstick, || histograms.update_typed(&few));
    }
}

/* ---- predictions ---- */

fn predictions() {
    const ROWS: usize = 1024;
    for classes in [2, 10, 100, 1000] {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
        let rows: Vec<f32> = (0..ROWS).flat_map(|_| softmax(&mut random, classes)).collect();
        let matrix = ArrayView2::from_shape((ROWS, classes), &rows).expect("whole rows");
        let yardstick = || matrix.rows().into_iter().map(|row| obvious(row.as_slice().expect("no gaps"))).sum::<f32>();
        let mut classified = Classified::default();
        let kernel = || {
            classified.clear();
            classify_rows(&matrix, 0.5, &mut classified);
            classified.entropy.len()
        };
        compare("prediction rows", &format!("{classes} classes"), "scalar with ln", yardstick, kernel);
    }
}

/// Everything that is said of a row, added up.
fn obvious(row: &[f32]) -> f32 {
    let (mut class, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    let (mut sum, mut entropy, mut least) = (0.0, 0.0, f32::INFINITY);
    for (k, &p) in row.iter().enumerate() {
        if p > first {
            (second, first, class) = (first, p, k);
        } else if p > second {
            second = p;
        }
        least = least.min(p);
        sum += p;
        if p > 0.0 {
            entropy -= p * p.ln();
        }
    }
    class as f32 + first + second + sum + least + entropy / (row.len() as f32).ln()
}

/* ---- the sample ---- */

fn sample() {
    const ROWS: usize = 128;
    const COLUMNS: usize = 794;
    let capacity = if bench::quick() { 100 } else { 16_384 };
    let mut memory = Memory::new(ROWS * COLUMNS * size_of::<f32>());
    memory.fill(0.0);
    let mut copy = Memory::new(ROWS * COLUMNS * size_of::<f32>());
    for seen in [1, 100, 1000] {
        let batch = memory.matrix(DRAM, COLUMNS);
        let rows = Columns::F32(batch);
        let mut reservoir = Reservoir::new(capacity, 1);
        let mut store = RowStore::new(COLUMNS);
        (0..capacity).for_each(|slot| store.keep(&rows, &[(0, slot as usize)]));
        let mut kept = Vec::new();
        reservoir.offer((capacity * seen) as usize, &mut kept);
        let aged = reservoir.clone();
        let mut batches = 0;
        let kernel = || {
            // As old as it is said to be, but for some per cent.
            if batches * ROWS as u64 > capacity * seen / 20 {
                (reservoir, batches) = (aged.clone(), 0);
            }
            batches += 1;
            kept.clear();
            reservoir.offer(ROWS, &mut kept);
            store.keep(&rows, &kept);
        };
        let yardstick = || copy.values_mut().copy_from_slice(batch.as_slice().expect("no gaps"));
        compare("sample", &format!("n/k = {seen}"), "memcpy of the batch", yardstick, kernel);
    }
}

/* ---- quantiles ---- */

fn quantiles() {
    const COLUMNS: usize = 784;
    let rows = if bench::quick() { 100 } else { 10_000 };
    for (name, zeros) in [("normal", 0.0), ("80 % zeros", 0.8)] {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut value = || if uniform(&mut random) < zeros { 0.0 } else { normal(&mut random) };
        let values: Vec<f32> = (0..rows * COLUMNS).map(|_| value()).collect();
        let matrix = ArrayView2::from_shape((rows, COLUMNS), &values).expect("whole rows");
        let mut store = RowStore::new(COLUMNS);
        let kept: Vec<(usize, usize)> = (0..rows).map(|row| (row, row)).collect();
        store.keep(&Columns::F32(matrix), &kept);
        let yardstick = || (0..COLUMNS).map(|j| gather_and_sort(&values, COLUMNS, j).q50).sum::<f64>();
        let kernel = || {
            let mut sum = 0.0;
            store.for_each_column(|_, column| sum += column.quantiles().expect("values").q50);
            sum
        };
        compare("seven quantiles", &format!("{rows} × {COLUMNS}, {name}"), "gather and sort", yardstick, kernel);
    }
}

fn gather_and_sort(values: &[f32], columns: usize, column: usize) -> Quantiles {
    let mut gathered: Vec<f64> = values.iter().skip(column).step_by(columns).map(|&x| f64::from(x)).collect();
    gathered.retain(|x| x.is_finite());
    gathered.sort_unstable_by(f64::total_cmp);
    let q = |share| mlwatch::stats::quantile_sorted(&gathered, share).expect("values");
    Quantiles { q01: q(0.01), q05: q(0.05), q25: q(0.25), q50: q(0.5), q75: q(0.75), q95: q(0.95), q99: q(0.99) }
}

/* ---- distances ---- */

fn distances() {
    const COLUMNS: usize = 16;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(4);
    let mut reference: Vec<f64> = (0..10_000).map(|_| normal(&mut random).into()).collect();
    reference.sort_unstable_by(f64::total_cmp);
    let reference = Steps::of_sorted(&reference);
    for rows in [500, 10_000] {
        let values: Vec<f32> = (0..rows * COLUMNS).map(|_| normal(&mut random)).collect();
        let mut store = RowStore::new(COLUMNS);
        let kept: Vec<(usize, usize)> = (0..rows).map(|row| (row, row)).collect();
        store.keep(&Columns::F32(ArrayView2::from_shape((rows, COLUMNS), &values).expect("whole rows")), &kept);
        let gathered: Vec<f64> = values.iter().map(|&x| x.into()).collect();
        let yardstick = || {
            let mut columns = gathered.clone();
            columns.chunks_exact_mut(rows).for_each(|column| column.sort_unstable_by(f64::total_cmp));
            columns[0]
        };
        let kernel = || {
            let mut sum = 0.0;
            store.for_each_column(|_, column| {
                let distance = reference.distance(&column.ascending()).expect("values");
                sum += distance.ks + distance.w1;
            });
            sum
        };
        compare("distances", &format!("{rows} rows"), "sorting the sample", yardstick, kernel);
    }
}

/* ---- comparing ---- */

fn compare<Y, K>(what: &str, of: &str, name: &str, mut yardstick: impl FnMut() -> Y, mut kernel: impl FnMut() -> K) {
    let rounds = if bench::quick() { 1 } else { 21 };
    let (yardstick_calls, kernel_calls) = (calls(&mut yardstick), calls(&mut kernel));
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turn in 0..2 {
            match (round + turn) % 2 {
                0 => times[0].push(seconds(&mut yardstick, yardstick_calls)),
                _ => times[1].push(seconds(&mut kernel, kernel_calls)),
            }
        }
    }
    let ratios = Spread::new(times[0].iter().zip(&times[1]).map(|(yardstick, kernel)| yardstick / kernel).collect());
    let [yardstick, kernel] = times.map(|seconds| Spread::new(seconds).median() * 1e9);
    println!("| {what} | {of} | {name} | {yardstick:.0} | {kernel:.0} | {ratios} |");
}

/// So many that they take some 20 ms.
fn calls<R>(call: &mut impl FnMut() -> R) -> usize {
    let mut calls = 1;
    while !bench::quick() && seconds(call, calls) * (calls as f64) < 0.01 {
        calls *= 2;
    }
    calls
}

/// A call takes on average.
fn seconds<R>(call: &mut impl FnMut() -> R, calls: usize) -> f64 {
    let start = bench::thread_seconds();
    for _ in 0..calls {
        black_box(call());
    }
    (bench::thread_seconds() - start) / calls as f64
}

/* ---- the data ---- */

/// Begins at a page.
struct Memory(MmapMut);

impl Memory {
    fn new(bytes: usize) -> Memory {
        Memory(MmapMut::map_anon(bytes).expect("memory"))
    }

    fn values_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }

    /// Normal numbers with some zeros, and with a share of NaN.
    fn fill(&mut self, missing: f32) {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let pool: Vec<f32> = (0..4096).map(|_| 5.0 + normal(&mut random)).collect();
        for x in self.values_mut() {
            let at = random.next_u64();
            let zero = at >> 60 == 0;
            *x = if zero { 0.0 } else { pool[at as usize % pool.len()] };
            if missing > 0.0 && uniform(&mut random) < missing {
                *x = f32::NAN;
            }
        }
    }

    /// As many whole rows as there are in so many bytes.
    fn matrix(&self, bytes: usize, columns: usize) -> ArrayView2<'_, f32> {
        let values: &[f32] = bytemuck::cast_slice(&self.0);
        let rows = values.len().min(bytes / size_of::<f32>()) / columns;
        ArrayView2::from_shape((rows, columns), &values[..rows * columns]).expect("whole rows")
    }
}

/// In (0, 1].
fn uniform(random: &mut Xoshiro256PlusPlus) -> f32 {
    ((random.next_u64() >> 40) + 1) as f32 / (1 << 24) as f32
}

/// Box and Muller's.
fn normal(random: &mut Xoshiro256PlusPlus) -> f32 {
    (-2.0 * uniform(random).ln()).sqrt() * (std::f32::consts::TAU * uniform(random)).cos()
}

fn softmax(random: &mut Xoshiro256PlusPlus, classes: usize) -> Vec<f32> {
    let weights: Vec<f32> = (0..classes).map(|_| (3.0 * normal(random)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}
