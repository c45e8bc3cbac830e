//! What do checkpoints cost a sidecar that takes in 1,000 batches a second?
//!
//! ```text
//! cargo bench --bench checkpoint
//! ```
//!
//! A minute of 60,000 batches of 128 rows goes into a `Profile` whose sample has the default 16,384 rows, and is committed as the
//! pipeline does it, by a clock on which each batch takes a millisecond. Nothing waits for that clock, so the minute is over in
//! seconds; the processor time of the commits is set against the minute. Feeding is not in the numbers.
//!
//! - tail: processor time of the thread that reads the rings, which copies. Writer: of the one that writes.
//! - first second: in which the sample fills. Minute: all of it, as a share of one core.
//! - written: to the checkpoint directory. State: of that, what each commit writes anew.
//!
//! Every row has a label and an id.

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use mlwatch::checkpoint::{Checkpoint, ModelState, Store, WorkDone};
use mlwatch::profile::{Feature, Labels, Profile, Rows, Spec};
use mlwatch::stats::Columns;
use ndarray::ArrayView2;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROWS: usize = 128;
const CLASSES: usize = 10;
const FEATURES: [usize; 2] = [30, 784];
const RESERVOIR: u64 = 16_384;

fn main() {
    bench::print_heading("checkpoint");
    println!(
        "| features | in | first second: tail, writer | minute: tail, writer | both, % of a core | MB written | commits | state, KB |"
    );
    println!("| ---: | --- | --- | --- | ---: | ---: | ---: | ---: |");
    for features in FEATURES {
        for (name, parent) in [("memory", Path::new("/dev/shm")), ("a temporary directory", &std::env::temp_dir())] {
            let dir = tempfile::tempdir_in(parent).expect("a directory");
            measure(features, name, dir.path());
        }
    }
}

fn measure(features: usize, place: &str, dir: &Path) {
    let seconds = if bench::quick() { 2 } else { 60 };
    let mut stream = Stream::new(features, dir);
    let first = stream.live(1000);
    let all = stream.live(1000 * (seconds - 1));
    let percent = |time: Duration, of: u64| 100.0 * time.as_secs_f64() / of as f64;
    let pair =
        |work: &WorkDone, of| format!("{:.2} %, {:.2} %", percent(work.tail_time, of), percent(work.writer_time, of));
    println!(
        "| {features} | {place} | {} | {} | {:.2} | {:.0} | {} | {:.0} |",
        pair(&first, 1),
        pair(&all, seconds),
        percent(all.tail_time + all.writer_time, seconds),
        all.bytes as f64 / 1e6,
        all.written,
        state_bytes(dir) as f64 / 1e3
    );
    assert_eq!(all.failed, 0, "every commit was written");
}

/// Of the larger of the two files that are written in turn.
fn state_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).expect("a checkpoint directory").flatten();
    let states = files.filter(|file| file.file_name().to_string_lossy().contains(".state."));
    states.map(|file| file.metadata().expect("a state").len()).max().expect("a commit")
}

struct Stream {
    spec: Arc<Spec>,
    profile: Profile,
    store: Store,
    checkpoint: Checkpoint,
    values: (Vec<f32>, Vec<f32>),
    labels: Vec<i32>,
    /// On the stream's own clock.
    now: Instant,
    commits: u64,
}

impl Stream {
    fn new(features: usize, dir: &Path) -> Stream {
        let names = |prefix: &str, count| (0..count).map(|i| format!("{prefix}_{i}")).collect::<Vec<_>>();
        let features_of = |name| Feature { name, categorical: false };
        let spec = Arc::new(Spec {
            model: "bench".into(),
            threshold: 0.5,
            classes: names("class", CLASSES),
            features: names("feat", features).into_iter().map(features_of).collect(),
            ..Spec::default()
        });
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut uniform =
            |count: usize| (0..count).map(|_| (random.next_u64() >> 40) as f32 / (1 << 24) as f32).collect();
        let (mut store, _) = Store::open(dir).expect("a checkpoint directory");
        Stream {
            profile: Profile::new(spec.clone(), RESERVOIR, 1),
            checkpoint: store.new_checkpoint(),
            spec,
            store,
            values: (uniform(ROWS * CLASSES), uniform(ROWS * features)),
            labels: (0..ROWS).map(|row| (row % CLASSES) as i32).collect(),
            now: Instant::now(),
            commits: 0,
        }
    }

    /// So many batches, one a millisecond. The work since the stream began.
    fn live(&mut self, batches: u64) -> WorkDone {
        for _ in 0..batches {
            self.feed();
            self.now += Duration::from_millis(1);
            if self.checkpoint.is_due(self.now, std::iter::once(&self.profile)) {
                self.commit();
            }
        }
        self.store.work().done()
    }

    fn feed(&mut self) {
        let matrix = |values| {
            Columns::F32(ArrayView2::from_shape((ROWS, <[f32]>::len(values) / ROWS), values).expect("whole rows"))
        };
        let (probabilities, features) = (Some(matrix(&self.values.0)), Some(matrix(&self.values.1)));
        let labels = Some(Labels::Classes(&self.labels));
        let ids: Vec<u64> = (0..ROWS as u64).map(|row| self.profile.rows + row).collect();
        self.profile.update(&Rows { count: ROWS, probabilities, features, labels, ids: Some(&ids), ..Rows::default() });
    }

    /// And waits for the writer, which has a millisecond for each batch in life.
    fn commit(&mut self) {
        let model = ModelState {
            spec: Cow::Borrowed(&self.spec),
            period: Duration::from_secs(60),
            reservoir_rows: RESERVOIR,
            closed_before_ns: None,
            rows_at_stake: 0,
            taken: None,
            marks: Vec::new(),
        };
        self.checkpoint.commit(&self.store, model, [(0, &mut self.profile)].into_iter(), self.now);
        self.commits += 1;
        while self.store.work().done().written < self.commits {
            std::thread::yield_now();
        }
    }
}
