//! SIGKILL after any instruction of a call into the library, without luck: the call is traced instruction by instruction, and after each
//! that changed the ring a consumer and a new producer go on from a copy of it, as they would had the process died there.

mod support;

use mlwatch::ring::{Batch, Budget, Consumer, Matrix, Polled, Segment, Snapshot};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use support::conservation::{self, Read};
use support::{F64, Options, Producer, RawBatch, batch, compiled, ring_dir};

const FEATURES: u32 = 6;
const RING: &str = "stepped.0.ring";

/// One call of `tests/c/stepped.c`, with four records in the ring.
struct Scene {
    name: &'static str,
    /// How many of the four a consumer reads before.
    read: u64,
    /// Records that the call publishes.
    new: usize,
}

const SCENES: [Scene; 10] = [
    Scene { name: "write", read: 2, new: 1 },
    Scene { name: "write in parts", read: 1, new: 3 },
    Scene { name: "commit", read: 0, new: 1 },
    Scene { name: "discard", read: 4, new: 0 },
    Scene { name: "pad", read: 3, new: 1 },
    Scene { name: "drop", read: 0, new: 0 },
    Scene { name: "refuse", read: 2, new: 0 },
    Scene { name: "contend", read: 2, new: 1 },
    Scene { name: "close", read: 2, new: 0 },
    Scene { name: "attach", read: 2, new: 0 },
];

/// A process that stands still but for single steps. It ends with its tracer.
struct Traced(Child);

impl Traced {
    fn start(program: &Path, dir: &Path, scene: &Scene) -> Traced {
        let traced = Traced(Command::new(program).arg(dir).arg(scene.name).spawn().expect("it starts"));
        assert_eq!(traced.next_stop(), Signal::SIGSTOP, "{}", scene.name);
        ptrace::setoptions(traced.pid(), ptrace::Options::PTRACE_O_EXITKILL).unwrap();
        traced
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    fn next_stop(&self) -> Signal {
        match waitpid(self.pid(), None).unwrap() {
            WaitStatus::Stopped(_, signal) => signal,
            other => panic!("it was to stop, not {other:?}"),
        }
    }

    /// One instruction. `false` when the call is over.
    fn step(&self) -> bool {
        ptrace::step(self.pid(), None).unwrap();
        match self.next_stop() {
            Signal::SIGTRAP => true,
            Signal::SIGSTOP => false,
            other => panic!("{other}"),
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// seq, rows, and the number of the first row.
type Seen = (u64, u64, u64);

fn seen(b: &Batch<'_>) -> Seen {
    let ids = b.ids.expect("ids were written");
    let Some(Matrix::F64(features)) = b.features else { panic!("f64 features were written") };
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
    features.indexed_iter().for_each(|((row, f), &x)| assert_eq!(x, (ids[row] * 10 + f as u64) as f64));
    (b.seq, b.rows as u64, ids[0])
}

fn attached_consumer(path: &Path) -> Consumer<Segment> {
    let segment = Segment::open(path, 1 << 30).expect("the ring is whole");
    let schema = segment.schema().clone();
    Consumer::new(segment, &schema)
}

fn read_on(consumer: &mut Consumer<Segment>, records: u64) -> (Vec<Seen>, Polled) {
    let mut all = Vec::new();
    let polled = consumer.poll(Budget { records, bytes: u64::MAX }, |_| true, |b| all.push(seen(&b)));
    (all, polled.sound().expect("every record is sound"))
}

/// What follows a kill: the next producer attaches to the ring and writes one row.
fn produce_on(dir: &Path) -> Producer {
    let options = Options {
        model: "stepped".into(),
        n_classes: 0,
        n_features: FEATURES,
        dtype: F64,
        ring_bytes: 1 << 14,
        ..Options::default()
    };
    let epoch = Snapshot::read(&dir.join(RING)).unwrap().producer_epoch;
    let producer = Producer::open(dir, &options).expect("a ring of its own making is continued");
    assert_eq!(producer.path(), dir.join(RING));
    assert_eq!(Snapshot::read(&dir.join(RING)).unwrap().producer_epoch, epoch + 1, "adopted and not replaced");
    let (features, ids) = ([0.0f64, 1.0, 2.0, 3.0, 4.0, 5.0], [0u64]);
    let one = RawBatch { rows: 1, timestamp_ns: 2, features: features.as_ptr().cast(), ids: ids.as_ptr(), ..batch() };
    assert_eq!(producer.write(&one), 0);
    producer
}

/// Where copies of the ring are made and gone on with.
struct Survivors {
    dir: tempfile::TempDir,
}

impl Survivors {
    fn copied(&self, ring: &[u8]) -> PathBuf {
        let path = self.dir.path().join(RING);
        let _ = fs::remove_file(&path);
        fs::write(&path, ring).unwrap();
        path
    }

    fn balance(consumer: &Consumer<Segment>, missing: u64) {
        conservation::check(&consumer.area().counters(), Read::all(consumer.consumed(), missing), 0..=1);
    }

    /// The consumer reads what is left; then a new producer comes.
    fn read_then_write(&self, ring: &[u8]) -> Vec<Seen> {
        let mut consumer = attached_consumer(&self.copied(ring));
        let (found, before) = read_on(&mut consumer, u64::MAX);
        let _producer = produce_on(self.dir.path());
        let (added, after) = read_on(&mut consumer, u64::MAX);
        assert_eq!(added.iter().map(|&(_, rows, id)| (rows, id)).collect::<Vec<_>>(), [(1, 0)]);
        Survivors::balance(&consumer, before.missing + after.missing);
        found
    }

    /// A new producer comes while there are records left to read.
    fn write_then_read(&self, ring: &[u8]) -> Vec<Seen> {
        let path = self.copied(ring);
        let _producer = produce_on(self.dir.path());
        let mut consumer = attached_consumer(&path);
        let (mut found, polled) = read_on(&mut consumer, u64::MAX);
        assert_eq!(found.pop().map(|(_, rows, id)| (rows, id)), Some((1, 0)));
        Survivors::balance(&consumer, polled.missing);
        found
    }

    fn find(&self, ring: &[u8]) -> Vec<Seen> {
        let found = self.read_then_write(ring);
        assert_eq!(self.write_then_read(ring), found);
        found
    }
}

/// What survivors find after each instruction that changed the ring, the state before the first included; and how many there were.
fn go_through(program: &Path, scene: &Scene) -> (Vec<Vec<Seen>>, u64) {
    let (dir, survivors) = (ring_dir(), Survivors { dir: ring_dir() });
    let traced = Traced::start(program, dir.path(), scene);
    let path = dir.path().join(RING);
    if scene.read > 0 {
        assert_eq!(read_on(&mut attached_consumer(&path), scene.read).0.len() as u64, scene.read);
    }
    let file = File::open(&path).unwrap();
    let mut ring = fs::read(&path).unwrap();
    let mut now = vec![0; ring.len()];
    let (mut found, mut instants) = (vec![survivors.find(&ring)], 0);
    while traced.step() {
        instants += 1;
        file.read_exact_at(&mut now, 0).unwrap();
        if now != ring {
            ring.copy_from_slice(&now);
            found.push(survivors.find(&ring));
        }
    }
    (found, instants)
}

#[test]
fn killed_after_any_instruction_a_call_has_published_a_record_or_not() {
    let tools = tempfile::tempdir().unwrap();
    let program = compiled("tests/c/stepped.c", tools.path());
    let (mut instants, mut states) = (0, 0);
    for scene in &SCENES {
        let (found, steps) = go_through(&program, scene);
        let (first, last) = (&found[0], &found[found.len() - 1]);
        assert_eq!((first.len() as u64, last.len()), (4 - scene.read, first.len() + scene.new), "{}", scene.name);
        assert!(found.iter().all(|some| last.starts_with(some)), "{}: other records than at the end", scene.name);
        assert!(found.is_sorted_by_key(Vec::len), "{}: a record was there and then no more", scene.name);
        println!("{:<15} {steps:>6} instants, {:>4} states of the ring", scene.name, found.len());
        (instants, states) = (instants + steps, states + found.len());
    }
    assert!(states > 200, "only {states} states");
    println!("{instants} instants, {states} states of the ring");
}
