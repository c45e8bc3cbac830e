//! Rows that wait for labels, as an orderly stop leaves them to the next sidecar: for each model a file that says whose they are, and
//! one that holds them. They are too many to be written every second.

use super::{Store, WholeFile};
use crate::profile::Spec;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs;
use std::io;
use std::time::Duration;

/// More than any head takes, and less than would fill the memory.
const MOST_HEAD: u64 = 1 << 30;

/// Whose the rows are, and how many.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    of: Of<'a>,
    rows: u64,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Of<'a> {
    spec: Cow<'a, Spec>,
    period: Duration,
}

impl Of<'_> {
    fn checksum(&self) -> u32 {
        crc32c::crc32c(&postcard::to_stdvec(self).expect("plain data"))
    }
}

/// What an earlier sidecar left of one model.
#[derive(Debug)]
pub struct LeftRows {
    /// Of its files.
    pub number: u32,
    /// Of [`Of`], so that names are not kept in memory twice.
    of: u32,
    /// How many.
    pub rows: u64,
}

impl Store {
    /// All that an earlier sidecar left. What is damaged is counted and removed.
    pub fn left(&mut self) -> Vec<LeftRows> {
        let names = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let number = |name: &str| name.strip_suffix(".waiting.head")?.parse().ok().filter(|n| *n < u32::MAX);
        let mut numbers: Vec<u32> = names.filter_map(|name| number(name.to_str()?)).collect();
        numbers.sort_unstable();
        self.next_left = numbers.last().map_or(0, |last| last + 1);
        numbers.into_iter().filter_map(|number| self.left_head(number)).collect()
    }

    fn left_head(&mut self, number: u32) -> Option<LeftRows> {
        let [head, rows] = self.left_files(number, 0);
        let held = self.held_by(&head);
        let known = held.map(|bytes| postcard::from_bytes::<Head>(&bytes).map(|head| (head.of.checksum(), head.rows)));
        if let Some(Err(_)) = known {
            self.refuse(&head, "rows");
        }
        let known = known.and_then(Result::ok);
        if known.is_none() {
            rows.remove();
        }
        known.map(|(of, rows)| LeftRows { number, of, rows })
    }

    /// Whether they are of this model.
    pub fn is_left_of(&self, left: &LeftRows, spec: &Spec, period: Duration) -> bool {
        let of = Of { spec: Cow::Borrowed(spec), period };
        let [head, _] = self.left_files(left.number, 0);
        let is_its = |bytes: Vec<u8>| postcard::from_bytes::<Head>(&bytes).is_ok_and(|head| head.of == of);
        left.of == of.checksum() && head.read().ok().flatten().is_some_and(is_its)
    }

    /// The rows that were left, at most so many bytes. They stay until they are in a checkpoint that says so, or are removed.
    pub fn read_left(&mut self, left: &LeftRows, most: u64) -> Option<Vec<u8>> {
        let [head, rows] = self.left_files(left.number, most);
        let held = self.held_by(&rows);
        if held.is_none() {
            head.remove();
        }
        held
    }

    /// Nobody has come for them, or they are elsewhere.
    pub fn remove_left(&self, number: u32) {
        self.left_files(number, 0).iter().for_each(WholeFile::remove);
    }

    /// What was taken is not what a sidecar leaves.
    pub fn refuse_left(&mut self, left: &LeftRows) {
        let [head, rows] = self.left_files(left.number, 0);
        self.refuse(&head, "rows");
        rows.remove();
    }

    /// Leaves so many rows of a model to the next sidecar.
    pub fn leave(&mut self, spec: &Spec, period: Duration, rows: u64, bytes: &[u8]) -> io::Result<()> {
        let [head_file, rows_file] = self.left_files(self.next_left, 0);
        self.next_left += 1;
        rows_file.write(bytes)?;
        let head = Head { of: Of { spec: Cow::Borrowed(spec), period }, rows };
        let written = head_file.write(&postcard::to_stdvec(&head).expect("plain data"));
        if written.is_err() {
            rows_file.remove();
        }
        written
    }

    pub(super) fn left_files(&self, number: u32, most: u64) -> [WholeFile; 2] {
        let file = |what: &str, magic, most| WholeFile {
            path: self.dir.join(format!("{number}.waiting.{what}")),
            magic,
            most,
            work: self.work.clone(),
        };
        [file("head", b"MLWLEFT1", MOST_HEAD), file("rows", b"MLWROWS2", most)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::ModelState;
    use super::*;
    use std::path::Path;
    use std::time::Instant;

    const PERIOD: Duration = Duration::from_secs(1);

    fn spec(model: &str) -> Spec {
        Spec { model: model.into(), ..Spec::default() }
    }

    fn leave(dir: &Path, model: &str, bytes: &[u8]) {
        let (mut store, _) = Store::open(dir).unwrap();
        store.left();
        store.leave(&spec(model), PERIOD, 7, bytes).unwrap();
        store.finish();
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count() - 1 // the lock
    }

    #[test]
    fn rows_are_found_by_their_own_model_until_they_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        ["a", "b"].into_iter().for_each(|model| leave(dir.path(), model, model.as_bytes()));
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let left = store.left();
        assert_eq!(left.iter().map(|left| left.rows).collect::<Vec<_>>(), [7, 7]);
        assert!(store.is_left_of(&left[0], &spec("a"), PERIOD) && !store.is_left_of(&left[0], &spec("b"), PERIOD));
        assert!(!store.is_left_of(&left[0], &spec("a"), 2 * PERIOD));
        assert_eq!(store.read_left(&left[1], 1), Some(b"b".to_vec()));
        left.iter().for_each(|left| store.remove_left(left.number));
        assert_eq!(store.read_left(&left[1], 1), None);
        assert_eq!((files(dir.path()), store.left().len()), (0, 0));
    }

    #[test]
    fn rows_are_left_until_a_checkpoint_has_them_and_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), "a", b"rows");
        for _ in 0..2 {
            // Killed once they are read, before anything is committed.
            let (mut store, saved) = Store::open(dir.path()).unwrap();
            let left = store.left();
            assert_eq!((saved.len(), left.len()), (0, 1));
            assert_eq!(store.read_left(&left[0], 4), Some(b"rows".to_vec()));
            store.finish();
        }
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let number = store.left()[0].number;
        let state = ModelState {
            spec: Cow::Owned(spec("a")),
            period: PERIOD,
            reservoir_rows: 1,
            closed_before_ns: None,
            rows_at_stake: 7,
            taken: Some(number),
            marks: Vec::new(),
        };
        store.new_checkpoint().commit(&store, state, std::iter::empty(), Instant::now());
        store.finish();
        let (mut store, saved) = Store::open(dir.path()).unwrap();
        assert_eq!((saved[0].model.taken, saved[0].model.rows_at_stake, store.left().len()), (Some(number), 7, 0));
        assert_eq!(files(dir.path()), 1, "the checkpoint");
    }

    #[test]
    fn damage_is_counted_and_nothing_of_it_stays() {
        for (file, reason) in [("0.waiting.head", "checksum"), ("0.waiting.rows", "checksum")] {
            let dir = tempfile::tempdir().unwrap();
            leave(dir.path(), "a", b"rows");
            let path = dir.path().join(file);
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&path, bytes).unwrap();
            let (mut store, _) = Store::open(dir.path()).unwrap();
            let left = store.left();
            assert!(left.iter().all(|left| store.read_left(left, 4).is_none()));
            assert_eq!((store.damaged().get(reason), files(dir.path())), (Some(&1), 0), "{file}");
        }
    }

    #[test]
    fn rows_that_take_more_than_they_may_are_damage() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), "a", b"rows");
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let left = store.left();
        assert_eq!(store.read_left(&left[0], 3), None);
    }
}
