//! A uniform sample of whole rows, and which of them have changed since they were last saved.

use super::{Rows, Spec};
use crate::stats::{Reservoir, RowStore};
use serde::{Deserialize, Serialize};

/// Slots remembered as changed before they are sorted out, however small the sample.
pub(super) const MOST_CHANGES: u64 = 1024;

/// Rows of a period. Serialized without the rows themselves, which a checkpoint keeps apart.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Which rows were kept.
    pub reservoir: Reservoir,
    /// Their probabilities.
    #[serde(skip)]
    pub probabilities: RowStore,
    /// Their features.
    #[serde(skip)]
    pub features: RowStore,
    /// Slots that were filled anew since [`take_changed_slots`](Self::take_changed_slots).
    #[serde(skip)]
    changed_slots: Vec<u32>,
    /// (row of the batch in hand, slot); kept for its memory.
    #[serde(skip)]
    kept: Vec<(usize, usize)>,
}

impl Sample {
    /// At most `rows` rows, chosen by `seed`.
    pub(super) fn new(spec: &Spec, rows: u64, seed: u64) -> Sample {
        Sample {
            reservoir: Reservoir::new(rows, seed),
            probabilities: RowStore::new(spec.classes.len()),
            features: RowStore::new(spec.features.len()),
            changed_slots: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// What was serialized, its rows still to be filled in.
    pub(super) fn emptied(mut self, spec: &Spec) -> Sample {
        self.probabilities = RowStore::new(spec.classes.len());
        self.features = RowStore::new(spec.features.len());
        self
    }

    pub(super) fn update(&mut self, rows: &Rows<'_>) {
        self.kept.clear();
        self.reservoir.offer(rows.count, &mut self.kept);
        self.changed_slots.extend(self.kept.iter().map(|&(_, slot)| slot as u32));
        if self.changed_slots.len() as u64 > MOST_CHANGES.max(2 * self.reservoir.capacity()) {
            self.changed_slots.sort_unstable();
            self.changed_slots.dedup();
        }
        match &rows.probabilities {
            Some(probabilities) => self.probabilities.keep(probabilities, &self.kept),
            None => self.probabilities.keep_missing(&self.kept),
        }
        match &rows.features {
            Some(features) => self.features.keep(features, &self.kept),
            None => self.features.keep_missing(&self.kept),
        }
    }

    /// Rows kept.
    pub fn len(&self) -> u64 {
        self.reservoir.len()
    }

    /// Whether no row is kept.
    pub fn is_empty(&self) -> bool {
        self.reservoir.is_empty()
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.probabilities.row_bytes() + self.features.row_bytes()
    }

    /// How many times a slot was filled since they were taken.
    pub fn changes(&self) -> usize {
        self.changed_slots.len()
    }

    /// Which slots were filled since the last call, ascending, each once.
    pub fn take_changed_slots(&mut self) -> Vec<u32> {
        let mut slots = std::mem::take(&mut self.changed_slots);
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The next [`take_changed_slots`](Self::take_changed_slots) gives the whole sample.
    pub fn touch_all_slots(&mut self) {
        self.changed_slots = (0..self.reservoir.len() as u32).collect();
    }

    /// Whether it has the rows that its reservoir has kept.
    pub fn is_complete(&self) -> bool {
        self.probabilities.slots().min(self.features.slots()) as u64 >= self.reservoir.len()
    }
}
