//! What does one write cost when another core reads what is written?
//!
//! ```text
//! cargo bench --bench producer_reader
//! ```
//!
//! A line that another core has read must be taken back from it before it can be written again, and so must the line of the
//! producer's position, which a reader polls. `producer_call` drains on the writing thread and has none of this. Here a second
//! thread, kept on another core, sums every value: the sidecar's `Consumer` those of the ring, a loop of the same kind those of
//! the yardstick. The yardstick is memcpy of the same bytes into shared memory of the same size in the same steps, followed by
//! one release store of its position; its reader stores how far it is, like a consumer. Both therefore publish, and both write
//! to lines that the other core has had.
//!
//! - reads along: the reader polls all the time, as a busy sidecar does. Writer and reader meet at the position and at the lines
//!   written last: the sooner a writer publishes again, the more often it meets the reader there, so × can be less than 1.
//! - reads afterwards: the reader rests while the writer is timed and reads between the bursts, as a sidecar does that polls
//!   every millisecond. Only the lines of the lap before come from the other core.
//! - p50 to in a row, and ×: as in `producer_call`, the yardstick of the same reader being 1.
//!
//! A closed loop; no burst is longer than half a lap and none begins before the reader has caught up, so nothing is dropped. In
//! the end everything written must have been read, with the sums of what was given.

#[path = "support/mod.rs"]
mod bench;
#[path = "../tests/support/mod.rs"]
mod support;

use bench::Spread;
use bench::calls::{self, RING_BYTES, Source};
use bench::clock::Clock;
use bench::rounds::{self, Round, Subject};
use memmap2::MmapRaw;
use mlwatch::ring::{Batch, Budget, Consumer, Matrix, Segment};
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use support::{Producer, ring_dir};

/// (rows, features): 200, 4096 and 65,536 bytes.
const SHAPES: [(u32, u32); 3] = [(1, 40), (8, 118), (64, 246)];
const LEAST_CALLS: usize = 400;
/// Of one look into the ring, so that the reader looks at the yardstick too.
const BUDGET: Budget = Budget { records: 64, bytes: u64::MAX };

fn main() {
    bench::print_heading("producer_reader");
    let cores = bench::cores();
    let here = bench::pin();
    let Some(there) = cores.into_iter().find(|&core| core != here) else {
        println!("Skipped: there is one core only.");
        return;
    };
    let clock = Clock::calibrated();
    clock.print();
    println!("| bytes | reader | call | p50 ns | p99 ns | p99.9 ns | p50 × | in a row ns | in a row × |");
    println!("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for shape in SHAPES {
        measure_shape(&Source::new(shape), there, clock);
    }
}

fn measure_shape(source: &Source, there: usize, clock: Clock) {
    let dir = ring_dir();
    let producer = calls::open(dir.path(), source);
    let (plain, orders) = (Plain::new(dir.path(), source), Orders::default());
    let reader = Reader::new(&producer, &plain, source, &orders);
    thread::scope(|scope| {
        let _end = End(&orders);
        scope.spawn(move || reader.run(there));
        let mut copy = Copy { plain: &plain, source, at: 0, written: 0, orders: &orders };
        let mut write = Write { producer: &producer, source, written: 0, failed: 0, orders: &orders };
        for (name, when) in [("reads along", ALONG), ("reads afterwards", AFTERWARDS)] {
            orders.when.store(when, Relaxed);
            print_rows(source, name, &compare(&mut copy, &mut write, clock));
        }
        write.assert_nothing_was_dropped();
    });
}

fn compare(copy: &mut Copy<'_>, write: &mut Write<'_>, clock: Clock) -> Vec<[Round; 2]> {
    let calls = copy.source.burst().min(if bench::quick() { LEAST_CALLS } else { usize::MAX });
    let (rounds, bursts) = if bench::quick() { (1, 1) } else { (31, 4.max(LEAST_CALLS / calls)) };
    (0..=rounds).map(|_| rounds::round(&mut [copy, write], clock, bursts, calls)).skip(1).collect()
}

fn print_rows(source: &Source, reader: &str, compared: &[[Round; 2]]) {
    let ratio = |of: fn(&Round) -> f64| Spread::new(compared.iter().map(|[y, s]| of(s) / of(y)).collect()).to_string();
    let ratios = [["1".into(), "1".into()], [ratio(Round::p50), ratio(Round::in_a_row)]];
    for (i, name) in ["memcpy, one store", "`mlw_write`, caller's time stamp"].into_iter().enumerate() {
        let rounds: Vec<&Round> = compared.iter().map(|round| &round[i]).collect();
        let ([p50, p99, p999, in_a_row], [p50_ratio, row_ratio]) = (rounds::cells(&rounds), &ratios[i]);
        let bytes = source.bytes().len();
        println!("| {bytes} | {reader} | {name} | {p50} | {p99} | {p999} | {p50_ratio} | {in_a_row} | {row_ratio} |");
    }
}

/* ---- what is timed ---- */

struct Copy<'a> {
    plain: &'a Plain,
    source: &'a Source,
    at: usize,
    written: u64,
    orders: &'a Orders,
}

impl Subject for Copy<'_> {
    fn call(&mut self) {
        if self.at + self.plain.step > RING_BYTES {
            self.at = 0;
        }
        // SAFETY: the place is inside the map; the reader has done with it, for no burst is longer than half a lap.
        unsafe { self.plain.place(self.at).copy_from_nonoverlapping(self.source.bytes().as_ptr(), self.plain.bytes) };
        self.at += self.plain.step;
        self.written += 1;
        // Pairs with the reader's acquire load: what it counts is whole.
        self.plain.tail().store(self.written, Release);
    }

    fn drain(&mut self) {
        self.orders.wait_for(&self.orders.copied, self.written);
    }
}

struct Write<'a> {
    producer: &'a Producer,
    source: &'a Source,
    written: u64,
    failed: u64,
    orders: &'a Orders,
}

impl Write<'_> {
    fn assert_nothing_was_dropped(&self) {
        let counts = self.producer.counts();
        assert_eq!((self.failed, counts.dropped_records), (0, 0), "records were dropped: the numbers above are wrong");
        assert_eq!(counts.records, self.written);
    }
}

impl Subject for Write<'_> {
    fn call(&mut self) {
        self.failed += u64::from(self.producer.write(&self.source.batch(NOW_NS)) != 0);
        self.written += 1;
    }

    fn drain(&mut self) {
        self.orders.wait_for(&self.orders.read, self.written);
    }
}

/// Any time will do: nobody judges it here.
const NOW_NS: u64 = 1;

/* ---- the yardstick's memory ---- */

struct Plain {
    map: MmapRaw,
    step: usize,
    bytes: usize,
}

impl Plain {
    const TAIL: usize = 0;
    const HEAD: usize = 4096;
    const DATA: usize = 2 * 4096;

    fn new(dir: &Path, source: &Source) -> Plain {
        let file = tempfile::tempfile_in(dir).expect("a file beside the ring");
        file.set_len((Plain::DATA + RING_BYTES) as u64).expect("room for it");
        let map = MmapRaw::map_raw(&file).expect("memory");
        // SAFETY: the map is as long as that, and ours alone so far.
        unsafe { map.as_mut_ptr().add(Plain::DATA).write_bytes(1, RING_BYTES) };
        Plain { map, step: source.record_bytes(), bytes: source.bytes().len() }
    }

    fn place(&self, at: usize) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(Plain::DATA + 64 + at)
    }

    fn tail(&self) -> &AtomicU64 {
        self.word(Plain::TAIL)
    }

    fn head(&self) -> &AtomicU64 {
        self.word(Plain::HEAD)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: inside the map, aligned, and nothing but an atomic to both threads.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(at).cast()) }
    }
}

/* ---- the thread on the other core ---- */

const ALONG: u64 = 0;
const AFTERWARDS: u64 = 1;
const NEVERMORE: u64 = 2;

/// What writer and reader tell each other, apart from what is measured.
#[derive(Default)]
#[repr(align(128))]
struct Orders {
    /// The reader's: how many calls of each subject it has read.
    read: AtomicU64,
    copied: AtomicU64,
    /// It has failed, and says why by itself.
    gone: AtomicBool,
    /// The writer's, on lines that stay where they are while it is timed.
    when: Apart,
    waiting: Apart,
}

#[derive(Default)]
#[repr(align(128))]
struct Apart(AtomicU64);

impl std::ops::Deref for Apart {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        &self.0
    }
}

impl Orders {
    fn wait_for(&self, count: &AtomicU64, written: u64) {
        self.waiting.store(1, Relaxed);
        // Pairs with the reader's release store: it has done with what it counts.
        while count.load(Acquire) != written {
            assert!(!self.gone.load(Relaxed), "the reader has failed");
            std::hint::spin_loop();
        }
        self.waiting.store(0, Relaxed);
    }

    fn may_read(&self) -> bool {
        self.when.load(Relaxed) == ALONG || self.waiting.load(Relaxed) == 1
    }
}

/// The writer's part is over, by a failure perhaps: nobody waits for it.
struct End<'a>(&'a Orders);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.when.store(NEVERMORE, Relaxed);
    }
}

struct Reader<'a> {
    consumer: Consumer<Segment>,
    plain: &'a Plain,
    at: usize,
    copied: u64,
    read: u64,
    sum: Sum,
    orders: &'a Orders,
}

impl<'a> Reader<'a> {
    fn new(producer: &Producer, plain: &'a Plain, source: &Source, orders: &'a Orders) -> Reader<'a> {
        let (proba, features) = source.sections();
        let sum = Sum { record: sum(floats(proba)) + sum(floats(features)), copy: sum(floats(source.bytes())) };
        Reader { consumer: calls::consumer(producer), plain, at: 0, copied: 0, read: 0, sum, orders }
    }

    fn run(mut self, core: usize) {
        bench::pin_to(&[core]);
        while self.orders.when.load(Relaxed) != NEVERMORE {
            if self.orders.may_read() {
                self.read_copies();
                self.read_ring();
            }
            std::hint::spin_loop();
        }
    }

    fn read_ring(&mut self) {
        let want = self.sum.record;
        let each = |batch: Batch<'_>| assert_eq!(sum_of(&batch), want, "what was written is what is read");
        let polled = self.consumer.poll(BUDGET, |_| true, each).sound().expect("sound records");
        if polled.records > 0 {
            self.read += polled.records;
            self.orders.read.store(self.read, Release);
        }
    }

    fn read_copies(&mut self) {
        // Pairs with the writer's release store.
        let tail = self.plain.tail().load(Acquire).min(self.copied + BUDGET.records);
        if self.copied == tail {
            return;
        }
        while self.copied != tail {
            self.read_copy();
        }
        self.orders.copied.store(self.copied, Release);
    }

    fn read_copy(&mut self) {
        if self.at + self.plain.step > RING_BYTES {
            self.at = 0;
        }
        // SAFETY: inside the map, written as the tail says, and not written to again before we have counted it.
        let bytes = unsafe { std::slice::from_raw_parts(self.plain.place(self.at), self.plain.bytes) };
        assert_eq!(sum(floats(bytes)), self.sum.copy, "what was copied is what is read");
        self.at += self.plain.step;
        self.copied += 1;
        self.plain.head().store(self.copied, Release);
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.orders.gone.store(true, Relaxed);
    }
}

/// What every record and every copy must sum to; the order of the additions differs.
struct Sum {
    record: f32,
    copy: f32,
}

fn floats(bytes: &[u8]) -> &[f32] {
    bytemuck::cast_slice(bytes)
}

fn sum_of(batch: &Batch<'_>) -> f32 {
    [batch.probabilities, batch.features].into_iter().flatten().map(sum_of_section).sum()
}

fn sum_of_section(section: Matrix<'_>) -> f32 {
    let Matrix::F32(view) = section else { unreachable!("the ring holds f32") };
    sum(view.as_slice().expect("sections are contiguous"))
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
