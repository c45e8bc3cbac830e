//! What does one write cost against the same bytes through rtrb and iceoryx2?
//!
//! ```text
//! make bench-peers
//! ```
//!
//! All of them hand 200 B to 64 KiB of f32 to a reader, and all copy the bytes once, from the same source:
//!
//! - memcpy: into shared memory of 8 MiB, walked in the steps of mlwatch's records. Hands over nothing.
//! - `mlw_write`: with the caller's time stamp, into a ring of the default 8 MiB; a record has a header and counters, and its
//!   reader needs not trust the writer.
//! - rtrb: a ring of 8 MiB of bytes between two threads of one process: a chunk is reserved, filled and committed. It has no
//!   header, no bounds between messages and no other process, so it is what handing over costs at least.
//! - iceoryx2: publish-subscribe between processes, one publisher and one subscriber: a slice is loaned uninitialised, filled
//!   and sent. Nothing overflows: the subscriber's buffer holds a burst, and a send must have reached one subscriber.
//!
//! They take turns within a round, a burst at a time, on one pinned thread that also empties each the way it wants to be
//! emptied, between the timed bursts. A burst is half a lap of mlwatch's ring; the others hold as many.
//!
//! - p50 to in a row: as in `producer_call`.
//! - whole: the mean of all groups of calls in a row, median over the rounds. With what happens once a burst, which no median
//!   has: in the first loan of a burst iceoryx2 takes back all samples of the last one.
//! - ×: of whole, subject ÷ memcpy and ÷ `mlw_write` of the same round; median over the rounds and [interquartile range].
//!
//! iceoryx2 uses again what was given back, so it walks half the memory that the others walk, and rtrb packs its bytes closer:
//! more of both is in a cache, to their favour.
//!
//! A closed loop on one thread: see `producer_call` for what that leaves out. In the end everything must have arrived.

#[path = "../support/mod.rs"]
mod bench;
#[path = "../../tests/support/mod.rs"]
mod support;

use bench::Spread;
use bench::calls::{Plain, RING_BYTES, Ring, Source};
use bench::clock::Clock;
use bench::rounds::{self, Round, Subject};
use iceoryx2::node::Node;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{BackpressureStrategy, Config, LogLevel, NodeBuilder, Path as IpcPath, SemanticString, ipc};
use std::path::Path;
use support::ring_dir;

/// (rows, features): 200, 4096 and 65,536 bytes.
const SHAPES: [(u32, u32); 3] = [(1, 40), (8, 118), (64, 246)];
const LEAST_CALLS: usize = 400;
const NAMES: [&str; 4] = ["memcpy", "`mlw_write`, caller's time stamp", "rtrb", "iceoryx2"];
const MLWATCH: usize = 1;

fn main() {
    bench::print_heading("peers --manifest-path benches/peers/Cargo.toml");
    iceoryx2::prelude::set_log_level(LogLevel::Error);
    bench::pin();
    let clock = Clock::calibrated();
    clock.print();
    println!("| bytes | call | p50 ns | p99 ns | p99.9 ns | in a row ns | whole ns | × memcpy | × `mlw_write` |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for shape in SHAPES {
        measure(&Source::new(shape), clock);
    }
}

fn measure(source: &Source, clock: Clock) {
    let dir = ring_dir();
    let mut copy = Copy { plain: Plain::new(dir.path(), source), source };
    let mut write = Write { ring: Ring::new(dir.path(), source), source };
    let mut rtrb = Rtrb::new(source);
    let mut iceoryx = Iceoryx::new(dir.path(), source);
    let rounds = compare(&mut [&mut copy, &mut write, &mut rtrb, &mut iceoryx], source.burst(), clock);
    write.ring.assert_nothing_was_lost();
    rtrb.handed.assert_nothing_was_lost();
    iceoryx.handed.assert_nothing_was_lost();
    for subject in 0..NAMES.len() {
        print_row(source.bytes().len(), subject, &rounds);
    }
}

fn compare(subjects: &mut [&mut dyn Subject; NAMES.len()], burst: usize, clock: Clock) -> Vec<[Round; NAMES.len()]> {
    let (rounds, bursts) = if bench::quick() { (1, 1) } else { (31, 4.max(LEAST_CALLS / burst)) };
    (0..=rounds).map(|_| rounds::round(subjects, clock, bursts, burst)).skip(1).collect()
}

fn print_row(bytes: usize, subject: usize, rounds: &[[Round; NAMES.len()]]) {
    let cells = rounds::cells(&rounds.iter().map(|round| &round[subject]).collect::<Vec<_>>()).join(" | ");
    let whole = Spread::new(rounds.iter().map(|round| round[subject].whole()).collect()).median();
    let [to_memcpy, to_mlwatch] = [0, MLWATCH].map(|yardstick| {
        let ratio = |round: &[Round; NAMES.len()]| round[subject].whole() / round[yardstick].whole();
        if subject == yardstick { "1".into() } else { Spread::new(rounds.iter().map(ratio).collect()).to_string() }
    });
    println!("| {bytes} | {} | {cells} | {whole:.1} | {to_memcpy} | {to_mlwatch} |", NAMES[subject]);
}

/* ---- mlwatch and its yardstick ---- */

struct Copy<'a> {
    plain: Plain,
    source: &'a Source,
}

impl Subject for Copy<'_> {
    fn call(&mut self) {
        self.plain.copy(self.source);
    }

    fn drain(&mut self) {}
}

struct Write<'a> {
    ring: Ring,
    source: &'a Source,
}

impl Subject for Write<'_> {
    fn call(&mut self) {
        self.ring.write(self.source);
    }

    fn drain(&mut self) {
        self.ring.drain();
    }
}

/* ---- the peers ---- */

/// Messages that were sent, were refused, and arrived.
#[derive(Default)]
struct Handed {
    sent: u64,
    refused: u64,
    arrived: u64,
}

impl Handed {
    fn count(&mut self, sent: bool) {
        self.refused += u64::from(!sent);
        self.sent += 1;
    }

    fn assert_nothing_was_lost(&self) {
        assert_eq!((self.refused, self.arrived), (0, self.sent), "messages were lost: the numbers are wrong");
    }
}

struct Rtrb<'a> {
    producer: rtrb::Producer<u8>,
    consumer: rtrb::Consumer<u8>,
    source: &'a Source,
    handed: Handed,
}

impl<'a> Rtrb<'a> {
    fn new(source: &'a Source) -> Rtrb<'a> {
        let (producer, consumer) = rtrb::RingBuffer::new(RING_BYTES);
        Rtrb { producer, consumer, source, handed: Handed::default() }
    }

    fn send(&mut self) -> bool {
        let bytes = self.source.bytes();
        let Ok(mut chunk) = self.producer.write_chunk_uninit(bytes.len()) else { return false };
        let (first, second) = chunk.as_mut_slices();
        let (before, after) = bytes.split_at(first.len());
        // SAFETY: the two slices are as long as the bytes together, and all of them are written.
        unsafe {
            first.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(before.as_ptr(), before.len());
            second.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(after.as_ptr(), after.len());
            chunk.commit_all();
        }
        true
    }
}

impl Subject for Rtrb<'_> {
    fn call(&mut self) {
        let sent = self.send();
        self.handed.count(sent);
    }

    fn drain(&mut self) {
        while let Ok(chunk) = self.consumer.read_chunk(self.source.bytes().len()) {
            let begin = chunk.as_slices().0[0];
            assert_eq!(begin, self.source.bytes()[0], "what was sent is what arrives");
            chunk.commit_all();
            self.handed.arrived += 1;
        }
    }
}

struct Iceoryx<'a> {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    /// Keeps the ports' files.
    _node: Node<ipc::Service>,
    source: &'a Source,
    handed: Handed,
}

impl<'a> Iceoryx<'a> {
    fn new(dir: &Path, source: &'a Source) -> Iceoryx<'a> {
        let mut config = Config::default();
        config.global.set_root_path(&IpcPath::new(dir.as_os_str().as_encoded_bytes()).expect("a short path"));
        let node = NodeBuilder::new().config(&config).create::<ipc::Service>().expect("a node");
        let service = node
            .service_builder(&"mlwatch-peers".try_into().expect("a name"))
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .subscriber_max_buffer_size(source.burst())
            .create()
            .expect("a service");
        let subscriber = service.subscriber_builder().create().expect("a subscriber");
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(source.bytes().len())
            .backpressure_strategy(BackpressureStrategy::DiscardData)
            .create()
            .expect("a publisher");
        Iceoryx { publisher, subscriber, _node: node, source, handed: Handed::default() }
    }

    fn send(&self) -> bool {
        let bytes = self.source.bytes();
        let Ok(mut sample) = self.publisher.loan_slice_uninit(bytes.len()) else { return false };
        // SAFETY: the loan is as long as the bytes, and all of it is written.
        let sample = unsafe {
            sample.payload_mut().as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            sample.assume_init()
        };
        sample.send() == Ok(1)
    }
}

impl Subject for Iceoryx<'_> {
    fn call(&mut self) {
        let sent = self.send();
        self.handed.count(sent);
    }

    fn drain(&mut self) {
        while let Some(sample) = self.subscriber.receive().expect("a connection") {
            assert_eq!(sample.payload()[0], self.source.bytes()[0], "what was sent is what arrives");
            self.handed.arrived += 1;
        }
    }
}
