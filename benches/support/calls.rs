//! The call that is measured, and the memcpy of the same bytes that it is compared with.

use crate::support::{Options, Producer, RawBatch, batch};
use memmap2::MmapMut;
use mlwatch::ring::{Budget, Consumer, Segment};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub const RING_BYTES: usize = 8 << 20;
const CLASSES: u32 = 10;
const ALL: Budget = Budget { records: u64::MAX, bytes: u64::MAX };

/// What one call writes: rows × (10 probabilities + features) of f32.
pub struct Source {
    pub rows: u32,
    features: u32,
    values: MmapMut,
}

impl Source {
    pub fn new((rows, features): (u32, u32)) -> Source {
        let mut values = MmapMut::map_anon((rows * (CLASSES + features)) as usize * size_of::<f32>()).expect("memory");
        values.chunks_exact_mut(4).enumerate().for_each(|(i, to)| to.copy_from_slice(&(i as f32).to_ne_bytes()));
        Source { rows, features, values }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.values
    }

    /// Probabilities and features.
    pub fn sections(&self) -> (&[u8], &[u8]) {
        self.values.split_at((self.rows * CLASSES) as usize * size_of::<f32>())
    }

    /// As much of the ring as one record takes.
    pub fn record_bytes(&self) -> usize {
        let (proba, features) = self.sections();
        64 + proba.len().next_multiple_of(64) + features.len().next_multiple_of(64)
    }

    /// Calls that fit between two drains: half a lap.
    pub fn burst(&self) -> usize {
        RING_BYTES / 2 / self.record_bytes()
    }

    pub fn batch(&self, timestamp_ns: u64) -> RawBatch {
        let (proba, features) = self.sections();
        RawBatch {
            rows: self.rows,
            timestamp_ns,
            proba: proba.as_ptr().cast(),
            features: features.as_ptr().cast(),
            ..batch()
        }
    }
}

/// The yardstick's destination: shared memory like the ring, walked in the records' steps.
pub struct Plain {
    map: MmapMut,
    at: usize,
    step: usize,
}

impl Plain {
    /// In memory already, as the ring is.
    pub fn new(dir: &Path, source: &Source) -> Plain {
        let mut plain = Plain::unpopulated(dir, source);
        plain.map.fill(1);
        plain
    }

    /// Nothing but a size: the kernel finds a page when it is first written to.
    pub fn unpopulated(dir: &Path, source: &Source) -> Plain {
        let file = tempfile::tempfile_in(dir).expect("a file beside the ring");
        file.set_len(RING_BYTES as u64).expect("room for it");
        // SAFETY: the file has no name, so nobody else can change it.
        let map = unsafe { MmapMut::map_mut(&file) }.expect("memory");
        Plain { map, at: 0, step: source.record_bytes() }
    }

    pub fn copy(&mut self, source: &Source) {
        if self.at + self.step > RING_BYTES {
            self.at = 0;
        }
        let to = self.at + 64;
        self.map[to..to + source.bytes().len()].copy_from_slice(source.bytes());
        self.at += self.step;
    }
}

/// A ring of the real libmlwatch.so with a consumer at its other end.
pub struct Ring {
    pub producer: Producer,
    consumer: Consumer<Segment>,
    pub now_ns: u64,
    rows: usize,
    written: u64,
    failed: u64,
    read: u64,
}

impl Ring {
    pub fn new(dir: &Path, source: &Source) -> Ring {
        let producer = open(dir, source);
        let consumer = consumer(&producer);
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64;
        Ring { producer, consumer, now_ns, rows: source.rows as usize, written: 0, failed: 0, read: 0 }
    }

    /// With a caller's time stamp.
    pub fn write(&mut self, source: &Source) {
        self.write_at(source, self.now_ns);
    }

    pub fn write_at(&mut self, source: &Source, timestamp_ns: u64) {
        let code = self.producer.write(&source.batch(timestamp_ns));
        self.count(code == 0);
    }

    pub fn count(&mut self, succeeded: bool) {
        self.failed += u64::from(!succeeded);
        self.written += 1;
    }

    pub fn drain(&mut self) {
        let polled = self
            .consumer
            .poll(ALL, |_| true, |batch| assert_eq!(batch.rows, self.rows))
            .sound()
            .expect("sound records");
        self.read += polled.records;
    }

    pub fn assert_nothing_was_lost(&mut self) {
        self.drain();
        let counts = self.producer.counts();
        assert_eq!((self.failed, counts.dropped_records), (0, 0), "records were dropped: the numbers above are wrong");
        assert_eq!((counts.records, self.read), (self.written, self.written), "as many were read as written");
    }
}

pub fn open(dir: &Path, source: &Source) -> Producer {
    let options = Options {
        n_classes: CLASSES,
        n_features: source.features,
        ring_bytes: RING_BYTES as u64,
        ..Options::default()
    };
    Producer::open(dir, &options).expect("a ring")
}

pub fn consumer(producer: &Producer) -> Consumer<Segment> {
    let segment = Segment::open(&producer.path(), u64::MAX).expect("a ring that its producer has just made");
    let schema = segment.schema().clone();
    Consumer::new(segment, &schema)
}
