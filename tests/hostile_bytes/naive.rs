//! A reader that knows nothing but docs/wire-format.md: slow, obvious, and for one schema of three classes and two f32 features, whose
//! records may carry segments.

use std::ops::Range;

pub const CAPACITY: usize = 1 << 14;

/// The data region and both positions.
#[derive(Clone, Debug)]
pub struct Ring {
    pub data: Vec<u8>,
    pub head: u64,
    pub tail: u64,
}

/// Bit by bit, as the documentation names it.
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 })
    })
}

/// What is handed out of one record: its seq, time stamp, rows, and where in the ring each section lies.
#[derive(Debug, PartialEq)]
pub struct Handed {
    pub seq: u64,
    pub ts_ns: u64,
    pub rows: u64,
    pub sections: [Option<Range<usize>>; 7],
}

pub struct Naive<'a> {
    ring: &'a Ring,
    pub head: u64,
    next_seq: Option<u64>,
}

impl<'a> Naive<'a> {
    pub fn at_head(ring: &'a Ring) -> Naive<'a> {
        Naive { ring, head: ring.head, next_seq: None }
    }

    fn number<const N: usize>(&self, at: usize) -> u64 {
        let first = self.head as usize % CAPACITY + at;
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.ring.data[first..first + N]);
        u64::from_le_bytes(bytes)
    }

    /// Three classes and two features, f32.
    fn sections(&self, bits: u64, rows: u64) -> Option<([Option<Range<usize>>; 7], u64)> {
        let truths = (bits >> 2 & 1) + (bits >> 3 & 1);
        if bits == 0 || bits >> 7 != 0 || truths > 1 || bits >> 4 & 1 == 1 {
            return None;
        }
        let (mut end, mut places) = (0, [const { None }; 7]);
        let first = self.head % CAPACITY as u64 + 64;
        for (bit, row_bytes) in [12, 8, 4, 3, 0, 8, 2].into_iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1) {
            places[bit] = Some((first + end) as usize..(first + end + rows * row_bytes) as usize);
            end = (end + rows * row_bytes).next_multiple_of(64);
        }
        Some((places, end))
    }

    /// The next record, if there is a sound one: `Err` at corruption, `Ok(None)` for padding.
    fn next(&mut self) -> Result<Option<Handed>, ()> {
        let place = self.head as usize % CAPACITY;
        let header = &self.ring.data[place..place + 64];
        let rest = (CAPACITY - place) as u64;
        let (kind, bits, rec_len, payload_len) =
            (self.number::<2>(4), self.number::<2>(6), self.number::<4>(8), self.number::<4>(12));
        let (seq, rows) = (self.number::<8>(24), self.number::<4>(40));
        let most = rest.min(self.ring.tail - self.head).min(CAPACITY as u64 / 4);
        let framed = &header[..4] == b"MLWR"
            && u64::from(crc32c(&header[..60])) == self.number::<4>(60)
            && self.number::<8>(16) == self.head
            && (64..=most).contains(&rec_len)
            && rec_len % 64 == 0;
        if !framed || !(kind == 1 || kind == 2 && rec_len == rest) {
            return Err(());
        }
        let mut handed = None;
        if kind == 1 {
            let (sections, end) = self.sections(bits, rows).ok_or(())?;
            if rows == 0 || end != payload_len || end + 64 != rec_len || self.next_seq.is_some_and(|next| seq < next) {
                return Err(());
            }
            self.next_seq = Some(seq.saturating_add(1));
            handed = Some(Handed { seq, ts_ns: self.number::<8>(32), rows, sections });
        }
        self.head += rec_len;
        Ok(handed)
    }

    /// Everything up to the tail or the first fault; whether there was a fault.
    pub fn read(&mut self) -> (Vec<Handed>, bool) {
        let (head, tail, mut all) = (self.head, self.ring.tail, Vec::new());
        if tail < head || tail - head > CAPACITY as u64 || !head.is_multiple_of(64) || !tail.is_multiple_of(64) {
            return (all, true);
        }
        while self.head != tail {
            match self.next() {
                Ok(handed) => all.extend(handed),
                Err(()) => return (all, true),
            }
        }
        (all, false)
    }
}
