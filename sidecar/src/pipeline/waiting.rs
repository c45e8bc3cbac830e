//! Rows that wait for their labels, by id. Where there is no more room, the one that came first gives up its place.

use crate::profile::{Rows, SegmentKey, Spec};
use crate::stats::{Columns, RowStore};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What a hash table takes besides its places.
const TABLE: u64 = 64;

/// Takes no more memory than it was allowed.
pub struct Waiting {
    most: usize,
    /// Where the row with this id stands.
    by_id: HashMap<u64, u32>,
    /// In the order they came, round and round. A row that its id does not lead to has gone.
    rows: Vec<Row>,
    /// Their probabilities or outputs, wide from the start: were they to become so, both would be there for a while.
    outputs: RowStore,
    columns: usize,
    next: usize,
    /// How many wait, by the number of their period, of the periods that are not given up.
    counts: BTreeMap<u64, u64>,
    forgotten: u64,
}

/// A row without its values.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Row {
    id: u64,
    /// Of its record, as far as it is believed.
    pub ts_ns: u64,
    /// Serial number of the period it was counted in.
    pub period: u64,
    /// In which segment it was counted.
    pub segment: Option<SegmentKey>,
    /// From 1 to the next value of what its probabilities were made of.
    pub epsilon: f64,
}

impl Row {
    /// What postcard makes of one, at most: three numbers of up to 10 bytes, a segment of up to 11, a float.
    const MOST_SAVED: usize = 3 * 10 + 11 + 8;
}

impl Waiting {
    /// As many rows of `columns` values as fit into `bytes`.
    pub fn new(columns: usize, bytes: u64) -> Waiting {
        let rows = bytes.saturating_sub(TABLE) / Waiting::row_bytes(columns as u64);
        let most = rows.min(u64::from(u32::MAX)) as usize;
        Waiting {
            most,
            by_id: HashMap::new(),
            rows: Vec::new(),
            outputs: RowStore::of_f64(columns),
            columns,
            next: 0,
            counts: BTreeMap::new(),
            forgotten: 0,
        }
    }

    /// An upper bound of the memory of a row.
    pub fn row_bytes(columns: u64) -> u64 {
        // Key, place and mark. With twice the room the gaps that rows leave behind make no table grow; 2^k places of which seven
        // eighths may be taken are up to 16/7 of that.
        const ENTRY: u64 = (size_of::<(u64, u32)>() as u64 + 1) * 2 * 16 / 7 + 1;
        const VALUE: u64 = size_of::<f64>() as u64;
        ENTRY + size_of::<Row>() as u64 + columns * VALUE
    }

    /// How many rows wait, of all periods that are not given up.
    pub fn len(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many of the period of this number.
    pub fn of_period(&self, period: u64) -> u64 {
        self.counts.get(&period).copied().unwrap_or(0)
    }

    /// The rows of a batch that have an id and outputs, and no label, wait from now on.
    pub fn add(&mut self, rows: &Rows<'_>, spec: &Spec, period: u64, ts_ns: u64) {
        let (Some(ids), Some(outputs)) = (rows.ids, rows.probabilities) else { return };
        if self.most == 0 {
            return;
        }
        self.make_room();
        let epsilon = outputs.epsilon();
        for row in (0..rows.count).filter(|row| rows.labels.is_none_or(|labels| !labels.has(*row))) {
            let segment = spec.segments.as_ref().and_then(|by| SegmentKey::of(rows, row, by));
            let place = self.place(Row { id: ids[row], ts_ns, period, segment, epsilon });
            // One by one: a list of them would be as long as a producer likes.
            self.outputs.keep(&outputs, &[(row, place)]);
        }
    }

    fn make_room(&mut self) {
        if self.by_id.capacity() == 0 {
            self.by_id.reserve(2 * self.most);
        }
        self.rows.reserve_exact(self.most - self.rows.len());
        self.outputs.reserve(self.most);
    }

    /// Appends the rows that wait, the oldest first: the bytes of a value, how many rows, then for each what it is, and its values.
    pub fn save(&self, out: &mut Vec<u8>) {
        out.reserve(16 + self.by_id.len() * (Row::MOST_SAVED + self.outputs.row_bytes()));
        out.push(self.outputs.value_bytes() as u8);
        out.extend(postcard::to_stdvec(&self.len()).expect("plain data"));
        let oldest = if self.rows.len() == self.most { self.next } else { 0 };
        for place in (oldest..self.rows.len()).chain(0..oldest).filter(|place| self.waits(*place)) {
            let mut buffer = [0; Row::MOST_SAVED];
            out.extend_from_slice(postcard::to_slice(&self.rows[place], &mut buffer).expect("plain data"));
            self.outputs.copy_out(place, out);
        }
    }

    fn waits(&self, place: usize) -> bool {
        let row = &self.rows[place];
        self.by_id.get(&row.id) == Some(&(place as u32)) && self.counts.contains_key(&row.period)
    }

    /// Takes up what was [`save`](Self::save)d, the rows of each `known` period; others are forgotten. `None`
    /// if these are no such bytes.
    pub fn take_up(&mut self, saved: &[u8], known: impl Fn(u64) -> bool) -> Option<()> {
        let (&value_bytes, saved) = saved.split_first()?;
        let value_bytes = usize::from(value_bytes);
        let (count, mut saved): (u64, _) = postcard::take_from_bytes(saved).ok()?;
        if ![4, 8].contains(&value_bytes) {
            return None;
        }
        self.make_room();
        for _ in 0..count {
            let (row, rest) = postcard::take_from_bytes::<Row>(saved).ok()?;
            let (values, rest) = rest.split_at_checked(self.columns * value_bytes)?;
            saved = rest;
            if !(row.epsilon > 0.0 && row.epsilon < 0.5) {
                return None;
            }
            if self.most > 0 && known(row.period) {
                let place = self.place(row);
                self.outputs.copy_in(place, values, value_bytes);
            } else {
                self.forgotten += 1;
            }
        }
        saved.is_empty().then_some(())
    }

    /// Whoever is in its place, or has its id, goes.
    fn place(&mut self, row: Row) -> usize {
        let place = self.next;
        self.next = (place + 1) % self.most;
        if place == self.rows.len() {
            self.rows.push(row);
        } else {
            let before = std::mem::replace(&mut self.rows[place], row);
            if self.by_id.get(&before.id) == Some(&(place as u32)) {
                self.by_id.remove(&before.id);
                self.forget(before.period);
            }
        }
        if let Some(same) = self.by_id.insert(row.id, place as u32) {
            self.forget(self.rows[same as usize].period);
        }
        *self.counts.entry(row.period).or_default() += 1;
        place
    }

    /// Of periods that are given up, the rows are forgotten already.
    fn forget(&mut self, period: u64) {
        self.forgotten += u64::from(self.uncount(period));
    }

    fn uncount(&mut self, period: u64) -> bool {
        let Some(count) = self.counts.get_mut(&period) else { return false };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&period);
        }
        true
    }

    /// The row that waits under this id, and its values.
    pub fn get(&self, id: u64) -> Option<(Row, Columns<'_>)> {
        let place = *self.by_id.get(&id)? as usize;
        let row = self.rows[place];
        self.counts.contains_key(&row.period).then(|| (row, self.outputs.row(place)))
    }

    /// The row under this id has its label.
    pub fn remove(&mut self, id: u64) {
        if let Some(place) = self.by_id.remove(&id) {
            self.uncount(self.rows[place as usize].period);
        }
    }

    /// Nobody will ask for the rows of this period.
    pub fn give_up(&mut self, period: u64) {
        self.forgotten += self.counts.remove(&period).unwrap_or(0);
    }

    /// Rows that had to go since the last call of [`take_forgotten`](Self::take_forgotten).
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The same, which are told now.
    pub fn take_forgotten(&mut self) -> u64 {
        std::mem::take(&mut self.forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Scalar, with_view};
    use half::f16;
    use ndarray::ArrayView2;

    /// What there is with a hash table of so much room, counted by hand.
    fn bytes(waiting: &Waiting, room: usize) -> u64 {
        let places = (room as u64 * 8).div_ceil(7).next_power_of_two();
        let table = places * (size_of::<(u64, u32)>() as u64 + 1) + 16;
        let outputs = waiting.rows.len() * waiting.outputs.row_bytes();
        table + (waiting.rows.capacity() * size_of::<Row>() + outputs) as u64
    }

    #[test]
    fn rows_that_come_and_go_take_no_more_memory_than_allowed() {
        let (narrow, wide) = ([f16::ONE; 2], [0.5f64; 2]);
        for allowed in [200, 10 << 10, 700_000, 1 << 20, 1_500_000] {
            let mut waiting = Waiting::new(2, allowed);
            let most = waiting.most as u64;
            let mut room = None;
            for id in 0..4 * most {
                let ids = [id.wrapping_mul(0x9e37_79b9_7f4a_7c15)];
                // Rings of one model may be of different precision.
                let probabilities = match id < most / 2 {
                    true => Columns::F16(ArrayView2::from_shape((1, 2), &narrow).unwrap()),
                    false => Columns::F64(ArrayView2::from_shape((1, 2), &wide).unwrap()),
                };
                let rows = Rows { count: 1, probabilities: Some(probabilities), ids: Some(&ids), ..Rows::default() };
                waiting.add(&rows, &Spec::default(), 0, 0);
                // What was taken once: a table that grows, or values that become wide, would be there beside the new ones.
                let room = *room.get_or_insert(waiting.by_id.capacity());
                assert!(waiting.by_id.capacity() <= room && waiting.outputs.value_bytes() == 8);
                assert!(bytes(&waiting, room) <= allowed, "{} > {allowed}", bytes(&waiting, room));
            }
            assert_eq!(waiting.len(), most);
        }
    }

    #[test]
    fn of_a_record_with_more_rows_than_may_wait_the_last_ones_do() {
        let mut waiting = Waiting::new(1, 2000);
        let (most, rows) = (waiting.most, 100);
        let (ids, values): (Vec<u64>, Vec<f64>) = (0..rows).map(|row| (row, row as f64)).unzip();
        let probabilities = Some(Columns::F64(ArrayView2::from_shape((ids.len(), 1), &values).unwrap()));
        let record = Rows { count: ids.len(), probabilities, ids: Some(&ids), ..Rows::default() };
        waiting.add(&record, &Spec::default(), 0, 0);
        assert_eq!((waiting.len(), waiting.take_forgotten()), (most as u64, rows - most as u64));
        for id in 0..rows {
            let value = waiting.get(id).map(|(_, outputs)| with_view!(outputs, view => view[(0, 0)].widen()));
            assert_eq!(value, (id >= rows - most as u64).then_some(id as f64));
        }
    }
}
