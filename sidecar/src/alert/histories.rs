//! What is remembered of one model's rules, and what that takes.

use super::history::History;
use std::collections::BTreeMap;

/// Which rule, on what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub rule: String,
    /// What kind of thing: a column's kind.
    pub of: String,
    /// Of the class, feature or column; its position where it has no name.
    pub name: String,
    /// Of the rule's settings, its metric among them: rules may have the same name.
    pub settings: u32,
}

/// What was not all right within the last periods. Empties itself of what is.
#[derive(Debug, Default)]
pub struct Histories {
    all: BTreeMap<Subject, Kept>,
    bytes: u64,
}

#[derive(Debug)]
struct Kept {
    history: History,
    bytes: u64,
}

/// An upper bound of the memory of a history over `m` periods.
pub fn bytes(subject: &Subject, m: u64) -> u64 {
    const FIXED: u64 = 400; // with its share of a node that is half full
    let names = subject.rule.len() + subject.of.len() + subject.name.len();
    FIXED + names as u64 + m * History::PERIOD
}

impl Histories {
    /// An upper bound of the memory of all.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn get(&self, subject: &Subject) -> Option<&History> {
        self.all.get(subject).map(|kept| &kept.history)
    }

    /// One over `m` periods, new or changed.
    pub fn put(&mut self, subject: Subject, history: History, m: u64) {
        if history.is_clean() {
            return self.remove(&subject);
        }
        let bytes = bytes(&subject, m);
        let before = self.all.insert(subject, Kept { history, bytes });
        self.bytes = self.bytes + bytes - before.map_or(0, |before| before.bytes);
    }

    /// To be [`put`](Self::put) again, or forgotten.
    pub fn take(&mut self, subject: &Subject) -> Option<History> {
        let kept = self.all.remove(subject)?;
        self.bytes -= kept.bytes;
        Some(kept.history)
    }

    fn remove(&mut self, subject: &Subject) {
        self.take(subject);
    }

    /// No report will be made again.
    pub fn settle(&mut self) {
        self.all.values_mut().for_each(|kept| kept.history.settle());
        self.keep_if(|history| !history.is_clean());
    }

    /// Forgets what was judged before and not since. How much that is.
    pub fn forget_before(&mut self, start_ns: u64) -> u64 {
        self.keep_if(|history| history.last_ns() >= start_ns)
    }

    /// Forgets an eighth: what has not been judged for longest, alerts that go on last. How much that is.
    pub fn forget_some(&mut self) -> u64 {
        let age = |history: &History| (history.is_active(), history.last_ns());
        let mut ages: Vec<_> = self.all.values().map(|kept| age(&kept.history)).collect();
        ages.sort_unstable();
        let Some(&most) = ages.get(ages.len() / 8) else { return 0 };
        let mut left = ages.len() / 8 + 1;
        self.keep_if(|history| {
            let goes = left > 0 && age(history) <= most;
            left -= usize::from(goes);
            !goes
        })
    }

    fn keep_if(&mut self, mut keep: impl FnMut(&History) -> bool) -> u64 {
        let before = self.all.len();
        let bytes = &mut self.bytes;
        self.all.retain(|_, kept| {
            let stays = keep(&kept.history);
            *bytes -= if stays { 0 } else { kept.bytes };
            stays
        });
        (before - self.all.len()) as u64
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Subject, &History)> {
        self.all.iter().map(|(subject, kept)| (subject, &kept.history))
    }

    /// How many.
    pub fn len(&self) -> u64 {
        self.all.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
