//! Nothing vanishes: what was produced was consumed, dropped and counted, is still in flight, or was lost in a crash or a resync, and
//! the gaps in the sequence numbers say the same as the counters.

use mlwatch::ring::{Consumed, Counters};
use std::ops::RangeInclusive;

/// What a ring's consumer can say for itself.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Everything read since the ring was made, by whichever consumer.
    pub consumed: Consumed,
    /// Sequence numbers found missing since then.
    pub missing: u64,
    /// Records that are in the ring and not yet read, and their rows.
    pub in_flight: (u64, u64),
}

impl Read {
    /// With nothing left in the ring.
    pub fn all(consumed: Consumed, missing: u64) -> Read {
        Read { consumed, missing, in_flight: (0, 0) }
    }
}

/// Fails unless the books balance with `lost` records counted by the producer that never appeared. How many those are.
pub fn check(counters: &Counters, read: Read, lost: RangeInclusive<u64>) -> u64 {
    let Read { consumed, missing, in_flight } = read;
    let says = format!("{counters:?}\n{read:?}");
    let seen = consumed.records + in_flight.0;
    assert!(seen <= counters.records, "a record was read that was never counted:\n{says}");
    let vanished = counters.records - seen;
    assert!(lost.contains(&vanished), "{vanished} records vanished, {lost:?} may have:\n{says}");
    assert!(vanished > 0 || consumed.rows + in_flight.1 == counters.rows, "rows vanished:\n{says}");
    // Full and too large take a sequence number, the other drops do not; see docs/wire-format.md.
    let dropped = counters.dropped_records[0] + counters.dropped_records[1];
    assert_eq!(counters.next_seq, counters.records + dropped, "sequence numbers went astray:\n{says}");
    // Drops after the newest record: no record has come yet whose number shows them.
    let unseen = counters.next_seq - consumed.next_seq - in_flight.0;
    assert_eq!(missing + unseen, dropped + vanished, "the gaps are not the drops:\n{says}");
    vanished
}

/// Fails unless every row that calls were made with is counted, as committed or as dropped.
pub fn check_offered(counters: &Counters, rows: u64) {
    let counted = counters.rows + counters.dropped_rows.iter().sum::<u64>();
    assert_eq!(rows, counted, "rows went astray between the call and the ring:\n{counters:?}");
}
