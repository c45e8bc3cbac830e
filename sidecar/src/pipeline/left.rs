//! Rows that wait for labels, from one sidecar to the next.

use super::{LEFT, Tail};
use crate::checkpoint::LeftRows;
use std::time::Instant;
use tracing::{info, warn};

impl Tail {
    /// A model that has just come goes on with the rows that an earlier sidecar left of it. Whether there were any.
    pub(super) fn take_up(&mut self, id: u64) -> bool {
        let model = self.models.get_mut(&id).expect("it has just come");
        let is_its = |left: &LeftRows| self.store.is_left_of(left, &model.spec, model.period);
        let Some(at) = self.left.iter().position(is_its) else { return false };
        let left = self.left.remove(at);
        let held = self.store.read_left(&left, self.settings.limits.max_waiting_bytes.saturating_mul(LEFT));
        let taken = held.map(|bytes| model.take_up(&bytes, left.number));
        match taken {
            Some(true) => info!(model = model.spec.model, rows = left.rows, "rows that waited for labels wait on"),
            Some(false) => self.store.refuse_left(&left),
            None => {}
        }
        if taken != Some(true) {
            self.forget_left(left.rows);
        }
        true
    }

    /// A dead sidecar had taken them up, and its checkpoint counts them.
    pub(super) fn drop_taken(&mut self, number: u32) {
        self.left.retain(|left| left.number != number);
        self.store.remove_left(number);
    }

    /// Nobody has come for them.
    pub(super) fn give_up_left(&mut self) {
        for left in std::mem::take(&mut self.left) {
            self.store.remove_left(left.number);
            self.forget_left(left.rows);
        }
    }

    fn forget_left(&mut self, rows: u64) {
        warn!(rows, "rows that waited for labels when an earlier sidecar stopped are forgotten");
        self.health.forgotten_rows = self.health.forgotten_rows.saturating_add(rows);
    }

    /// Nothing is open, and all that came is reported: what waits is left to the next sidecar, or forgotten.
    pub(super) fn leave(&mut self) {
        let start = Instant::now();
        for model in self.models.values().filter(|model| model.waiting_rows() > 0) {
            let rows = model.waiting_rows();
            let has_time = start.elapsed() < self.settings.limits.drain_timeout;
            let written = (has_time && !model.superseded)
                .then(|| self.store.leave(&model.spec, model.period, rows, &model.left()));
            if let Some(Err(why)) = &written {
                warn!(model = model.spec.model, rows, %why, "cannot leave rows that wait for labels to the next sidecar");
            }
            if !matches!(written, Some(Ok(()))) {
                self.health.forgotten_rows = self.health.forgotten_rows.saturating_add(rows);
            }
            model.remove_taken(&self.store);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;
    use crate::checkpoint::Store;
    use crate::profile::Spec;
    use std::path::Path;
    use std::time::Duration;

    /// Of a sidecar that has just started.
    fn tail(dir: &Path) -> Tail {
        let (mut store, _) = Store::open(dir).unwrap();
        let left = store.left();
        Tail { left, ..Tail::new(Settings::of_test(dir), crossbeam::channel::bounded(1).0, store, 0) }
    }

    #[test]
    fn rows_that_a_checkpoint_has_are_not_taken_up_once_more() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        for model in ["a", "b"] {
            let spec = Spec { model: model.into(), ..Spec::default() };
            store.leave(&spec, Duration::from_secs(1), 1, b"rows").unwrap();
        }
        store.finish();
        let mut tail = tail(dir.path());
        let committed = tail.left[0].number;
        tail.drop_taken(committed);
        assert_eq!((tail.left.len(), tail.health.forgotten_rows), (1, 0));
        assert!(tail.left[0].number != committed && tail.store.left().len() == 1);
    }

    #[test]
    fn rows_whose_model_does_not_come_are_forgotten_and_counted_and_their_files_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        for model in ["a", "b"] {
            let spec = Spec { model: model.into(), ..Spec::default() };
            store.leave(&spec, Duration::from_secs(1), u64::MAX - 1, b"rows").unwrap();
        }
        store.finish();
        let files = || std::fs::read_dir(dir.path()).unwrap().count() - 1; // the lock
        assert_eq!(files(), 4);
        let mut tail = tail(dir.path());
        tail.give_up_left();
        assert_eq!((tail.health.forgotten_rows, files(), tail.left.len()), (u64::MAX, 0, 0));
    }
}
