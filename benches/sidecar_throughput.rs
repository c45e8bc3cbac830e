//! How fast does the sidecar take in records, against only reading them?
//!
//! ```text
//! cargo bench --bench sidecar_throughput
//! ```
//!
//! 160 records of 128 rows × (10 probabilities + 784 features) f32, 407 KB each, fill a ring of 64 MiB through the real
//! libmlwatch.so, outside the timed part. Then one pass polls them all: the yardstick sums every value in 16 lanes, the subject
//! feeds a `Profile` as the pipeline does, or does a part of that. Yardstick and subject run back to back on the same ring, each
//! after a filling of its own, in rounds whose order alternates. Time is this thread's processor time.
//!
//! - pixels: about 80 % of the features are 0 and the others n/255; normal: all of them are drawn from N(0, 1). The
//!   probabilities are a softmax of normal numbers.
//! - `Profile::update`, sample full: the sample of 16,384 rows has seen 100 times as many, as for most of a busy minute. Filling: a
//!   new profile, whose sample takes up 16,384 of these 20,480 rows.
//! - with labels: every row has one. A reference: rows are counted in its bins. A labelled one: its labels also say what the
//!   probabilities mean, class by class.
//! - with ids: rows have no label and wait for one, as many as the sidecar lets wait by default. That join: after each record comes
//!   one of labels alone, for the rows that came 20,480 earlier. Both include `Profile::update`, sample full.
//! - moments: of both sections. Predictions: a `Profile` fed with the probabilities alone and keeping no sample; this includes
//!   the moments of their 10 columns. Both: the same fed with all there is. Sample: choosing rows and copying them, late.
//! - GB/s: of probabilities and features, all of which the pass holds even where it looks at a part.
//! - ×: GB/s of the subject ÷ GB/s of the yardstick in the same round, median over the rounds and [interquartile range].

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use bench::Spread;
use mlwatch::period::Periods;
use mlwatch::pipeline::{Later, Limits, rows_of};
use mlwatch::profile::{Feature, Labels, Profile, Rows, Spec};
use mlwatch::reference::Reference;
use mlwatch::ring::{Budget, Consumer, Segment};
use mlwatch::stats::{Columns, Moments, Reservoir, RowStore};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use support::{Options, Producer, RawBatch, batch, ring_dir};

const ROWS: usize = 128;
const CLASSES: usize = 10;
const FEATURES: usize = 784;
/// Without optimisation, when nothing but whether it runs is asked, fewer.
const RECORDS: usize = if cfg!(debug_assertions) { 16 } else { 160 };
const RING_BYTES: u64 = 64 << 20;
const PASS_BYTES: usize = RECORDS * ROWS * (CLASSES + FEATURES) * size_of::<f32>();
const RESERVOIR: u64 = 16_384;
const SEEN: u64 = 100 * RESERVOIR;
const ALL: Budget = Budget { records: u64::MAX, bytes: u64::MAX };

/// As many for each class.
static LABELS: [i32; ROWS] = {
    let mut labels = [0; ROWS];
    let mut row = 0;
    while row < ROWS {
        labels[row] = (row % CLASSES) as i32;
        row += 1;
    }
    labels
};

/// What a pass does with each record.
type Each = fn(&mut State, &Rows<'_>);
const SUBJECTS: [(&str, Each); 12] = [
    ("`Profile::update`, sample full", |state, rows| state.late.update(rows)),
    ("… with labels", |state, rows| state.late.update(&labelled(rows))),
    ("… with a reference", |state, rows| state.compared.update(rows)),
    ("… with labels and a reference", |state, rows| state.compared.update(&labelled(rows))),
    ("… with labels and a labelled reference", |state, rows| state.calibrated.update(&labelled(rows))),
    ("… with ids", |state, rows| state.waiting.wait(rows)),
    ("… with ids, and labels that join", |state, rows| state.waiting.wait_and_join(rows)),
    ("`Profile::update`, sample filling", |state, rows| state.early.update(rows)),
    ("moments and predictions", |state, rows| state.predictions.update(rows)),
    ("moments", State::update_moments),
    ("predictions", |state, rows| state.predictions.update(&Rows { features: None, ..*rows })),
    ("sample", State::sample),
];

fn main() {
    bench::print_heading("sidecar_throughput");
    bench::pin();
    println!("| features | pass | GB/s | rows/s | µs a record | × |");
    println!("| --- | --- | ---: | ---: | ---: | ---: |");
    measure("pixels", pixel);
    measure("normal", normal);
}

fn measure(data: &str, feature: fn(&mut Xoshiro256PlusPlus) -> f32) {
    let dir = ring_dir();
    let mut ring = Ring::new(dir.path(), feature);
    let mut state = State::new();
    state.age(&mut ring);
    let compared = SUBJECTS.map(|(name, each)| (name, Comparison::run(&mut ring, &mut state, each)));
    let reading = compared.iter().flat_map(|(_, c)| &c.yardstick).copied().collect();
    print_row(data, "reading only", &Spread::new(reading), "1");
    for (name, compared) in compared {
        let ratio = compared.ratio().to_string();
        print_row(data, name, &Spread::new(compared.subject), &ratio);
    }
}

fn print_row(data: &str, name: &str, seconds: &Spread, ratio: &str) {
    let seconds = seconds.median();
    let gigabytes = PASS_BYTES as f64 / seconds / 1e9;
    let million_rows = (RECORDS * ROWS) as f64 / seconds / 1e6;
    println!(
        "| {data} | {name} | {gigabytes:.2} | {million_rows:.2} M | {:.1} | {ratio} |",
        seconds / RECORDS as f64 * 1e6
    );
}

/// Seconds of each round.
#[derive(Default)]
struct Comparison {
    yardstick: Vec<f64>,
    subject: Vec<f64>,
}

impl Comparison {
    fn run(ring: &mut Ring, state: &mut State, each: Each) -> Comparison {
        let rounds = if bench::quick() { 1 } else { 21 };
        let mut compared = Comparison::default();
        ring.pass(state, each);
        for round in 0..rounds {
            if round % 2 == 0 {
                compared.yardstick.push(ring.pass(state, State::read));
            }
            compared.subject.push(ring.pass(state, each));
            if round % 2 == 1 {
                compared.yardstick.push(ring.pass(state, State::read));
            }
        }
        compared
    }

    fn ratio(&self) -> Spread {
        Spread::new(self.yardstick.iter().zip(&self.subject).map(|(yardstick, subject)| yardstick / subject).collect())
    }
}

/* ---- what is timed ---- */

struct State {
    read: f32,
    late: Profile,
    compared: Profile,
    calibrated: Profile,
    waiting: WaitingRows,
    /// New for every pass.
    early: Profile,
    moments: [Moments; 2],
    predictions: Profile,
    reservoir: Reservoir,
    stores: [RowStore; 2],
    kept: Vec<(usize, usize)>,
}

impl State {
    fn new() -> State {
        State {
            read: 0.0,
            late: Profile::new(spec(), RESERVOIR, 1),
            compared: Profile::new(spec(), RESERVOIR, 1),
            calibrated: Profile::new(spec(), RESERVOIR, 1),
            waiting: WaitingRows::new(),
            early: Profile::new(spec(), RESERVOIR, 1),
            moments: [CLASSES, FEATURES].map(Moments::new),
            predictions: Profile::new(spec(), 0, 1),
            reservoir: Reservoir::new(RESERVOIR, 1),
            stores: [CLASSES, FEATURES].map(RowStore::new),
            kept: Vec::new(),
        }
    }

    /// Fills the samples, and lets them see so many rows that few of the next are kept.
    fn age(&mut self, ring: &mut Ring) {
        ring.pass(self, |state, rows| {
            state.late.update(rows);
            state.sample(rows);
        });
        self.compared = self.compared_with_late();
        ring.pass(self, |state, rows| {
            state.compared.update(rows);
            state.waiting.wait(rows);
            state.late.update(&labelled(rows));
        });
        self.calibrated = self.compared_with_late();
        ring.pass(self, |state, rows| state.calibrated.update(&labelled(rows)));
        let waiting = self.waiting.profile();
        let profiles = [&mut self.late, &mut self.compared, &mut self.calibrated, waiting];
        let reservoirs = profiles.map(|profile| &mut profile.sample.reservoir);
        for reservoir in reservoirs.into_iter().chain([&mut self.reservoir]) {
            reservoir.offer(SEEN as usize, &mut Vec::new());
        }
    }

    fn compared_with_late(&self) -> Profile {
        let frozen = Reference::of(&self.late).frozen(&spec());
        Profile::new(spec(), RESERVOIR, 1).counting_in(Some(&frozen))
    }

    fn read(&mut self, rows: &Rows<'_>) {
        for section in [rows.probabilities, rows.features].into_iter().flatten() {
            let Columns::F32(view) = section else { unreachable!("the ring holds f32") };
            self.read += sum(view.as_slice().expect("without gaps"));
        }
    }

    fn update_moments(&mut self, rows: &Rows<'_>) {
        for (moments, section) in self.moments.iter_mut().zip([rows.probabilities, rows.features]) {
            moments.update(&section.expect("both sections were written"));
        }
    }

    fn sample(&mut self, rows: &Rows<'_>) {
        self.kept.clear();
        self.reservoir.offer(rows.count, &mut self.kept);
        for (store, section) in self.stores.iter_mut().zip([rows.probabilities, rows.features]) {
            store.keep(&section.expect("both sections were written"), &self.kept);
        }
    }
}

fn labelled<'a>(rows: &Rows<'a>) -> Rows<'a> {
    Rows { labels: Some(Labels::Classes(&LABELS)), ..*rows }
}

/// An open period, and its rows that wait for their labels.
struct WaitingRows {
    periods: Periods<Profile>,
    later: Later,
    spec: Arc<Spec>,
    /// So many came.
    record: usize,
}

impl WaitingRows {
    const NOW_NS: u64 = 1 << 60;

    fn new() -> WaitingRows {
        WaitingRows {
            periods: Periods::new(Duration::from_secs(60), 0, WaitingRows::NOW_NS),
            later: Later::new(&spec(), Limits::default().max_waiting_bytes),
            spec: spec(),
            record: 0,
        }
    }

    fn profile(&mut self) -> &mut Profile {
        self.open().1
    }

    /// The period's start, and what it collects.
    fn open(&mut self) -> (u64, &mut Profile) {
        let new = |_| Profile::new(spec(), RESERVOIR, 1);
        let (start_ns, profile, _) =
            self.periods.route(WaitingRows::NOW_NS, WaitingRows::NOW_NS, new, |_, _| unreachable!("time stands still"));
        (start_ns, profile)
    }

    fn wait(&mut self, rows: &Rows<'_>) {
        let rows = Rows { ids: Some(ids_of(self.record)), ..*rows };
        self.record += 1;
        let (start_ns, profile) = self.open();
        profile.update(&rows);
        self.later.wait(&rows, &self.spec, start_ns, WaitingRows::NOW_NS);
    }

    fn wait_and_join(&mut self, rows: &Rows<'_>) {
        self.wait(rows);
        let ids = ids_of(self.record - 1 - RECORDS);
        let labels = labelled(&Rows { count: ROWS, ids: Some(ids), ..Rows::default() });
        let unjoined = self.later.join(&labels, WaitingRows::NOW_NS, &mut self.periods);
        assert_eq!(unjoined.rows(), 0, "every label found its row");
    }
}

/// Of a record's rows. They come again after 20 passes, when none of those that had them waits.
fn ids_of(record: usize) -> &'static [u64] {
    static IDS: LazyLock<Vec<u64>> = LazyLock::new(|| (0..20 * (RECORDS * ROWS) as u64).collect());
    &IDS[record % (20 * RECORDS) * ROWS..][..ROWS]
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

/* ---- the ring ---- */

struct Ring {
    producer: Producer,
    consumer: Consumer<Segment>,
    /// (probabilities, features), written in turn.
    batches: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Ring {
    fn new(dir: &Path, feature: fn(&mut Xoshiro256PlusPlus) -> f32) -> Ring {
        let options = Options {
            n_classes: CLASSES as u32,
            n_features: FEATURES as u32,
            ring_bytes: RING_BYTES,
            ..Options::default()
        };
        let producer = Producer::open(dir, &options).expect("a ring");
        let segment = Segment::open(&producer.path(), u64::MAX).expect("a ring that its producer has just made");
        let schema = segment.schema().clone();
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let batches = (0..8).map(|_| {
            let probabilities = (0..ROWS).flat_map(|_| softmax(&mut random)).collect();
            (probabilities, (0..ROWS * FEATURES).map(|_| feature(&mut random)).collect())
        });
        let batches = batches.collect();
        Ring { producer, consumer: Consumer::new(segment, &schema), batches }
    }

    /// Fills the ring, then seconds for emptying it.
    fn pass(&mut self, state: &mut State, each: Each) -> f64 {
        self.fill();
        state.early = Profile::new(spec(), RESERVOIR, 1);
        let start = bench::thread_seconds();
        let polled = self
            .consumer
            .poll(ALL, |_| true, |batch| each(state, &rows_of(&batch, "bench")))
            .sound()
            .expect("sound records");
        let seconds = bench::thread_seconds() - start;
        black_box(state);
        assert_eq!((polled.records, polled.missing), (RECORDS as u64, 0), "everything written was read");
        seconds
    }

    fn fill(&self) {
        for (probabilities, features) in self.batches.iter().cycle().take(RECORDS) {
            let one = RawBatch {
                rows: ROWS as u32,
                proba: probabilities.as_ptr().cast(),
                features: features.as_ptr().cast(),
                ..batch()
            };
            assert_eq!(self.producer.write(&one), 0, "the ring has room");
        }
    }
}

/* ---- the data ---- */

fn spec() -> Arc<Spec> {
    let names = |prefix: &str, count| (0..count).map(|i| format!("{prefix}_{i}")).collect::<Vec<_>>();
    Arc::new(Spec {
        model: "bench".into(),
        version: String::new(),
        regression: false,
        threshold: 0.5,
        classes: names("class", CLASSES),
        features: names("feat", FEATURES).into_iter().map(|name| Feature { name, categorical: false }).collect(),
        ..Spec::default()
    })
}

/// In (0, 1].
fn uniform(random: &mut Xoshiro256PlusPlus) -> f32 {
    ((random.next_u64() >> 40) + 1) as f32 / (1 << 24) as f32
}

/// Box and Muller's.
fn normal(random: &mut Xoshiro256PlusPlus) -> f32 {
    (-2.0 * uniform(random).ln()).sqrt() * (std::f32::consts::TAU * uniform(random)).cos()
}

fn pixel(random: &mut Xoshiro256PlusPlus) -> f32 {
    if uniform(random) <= 0.8 { 0.0 } else { (uniform(random) * 255.0).ceil() / 255.0 }
}

fn softmax(random: &mut Xoshiro256PlusPlus) -> [f32; CLASSES] {
    let weights = [(); CLASSES].map(|()| (3.0 * normal(random)).exp());
    weights.map(|weight| weight / weights.iter().sum::<f32>())
}
