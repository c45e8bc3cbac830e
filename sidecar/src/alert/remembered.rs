//! What is remembered of every model, within a bound: producers may invent models, versions and segments without end.

use super::histories::{Histories, Subject, bytes};
use super::history::History;
use crate::report::Report;
use std::collections::BTreeMap;
use tracing::warn;

/// Models whose alerts are remembered.
pub const MOST_MODELS: usize = 1024;
/// Memory of all histories together,
pub const MOST_MEMORY: u64 = 48 << 20;
/// but this much is every model's own, whatever the others take.
const SHARE: u64 = 16 << 10;

/// Streams with other columns are another model, whatever its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub model: String,
    pub version: String,
    pub columns: u32,
}

/// What has been going on with each model.
#[derive(Debug, Default)]
pub struct Remembered {
    pub models: BTreeMap<Key, Model>,
    /// Histories for which there was no room.
    pub forgotten: u64,
}

#[derive(Debug, Default)]
pub struct Model {
    /// Of its last report.
    pub end_ns: u64,
    pub histories: Histories,
}

/// A model while one of its reports is judged.
pub struct Judging {
    key: Key,
    model: Model,
    /// Memory that its histories may take.
    most: u64,
    refused: u64,
}

impl Judging {
    pub fn history(&self, subject: &Subject) -> Option<&History> {
        self.model.histories.get(subject)
    }

    /// The history of this subject over `m` periods, an empty one if it has none, to be [`put`](Self::put) again. `None` if there is no
    /// room for another.
    pub fn take(&mut self, subject: &Subject, m: u64) -> Option<History> {
        let histories = &mut self.model.histories;
        let taken = histories.take(subject);
        if taken.is_none() && histories.bytes() + bytes(subject, m) > self.most {
            self.refused += 1;
            return None;
        }
        Some(taken.unwrap_or_default())
    }

    pub fn put(&mut self, subject: Subject, history: History, m: u64) {
        self.model.histories.put(subject, history, m);
    }

    /// Those with which it is remembered to have been compared.
    pub fn versions(&self) -> Vec<String> {
        let pairs =
            self.model.histories.iter().filter(|(subject, _)| subject.rule == "canary" && subject.of == "version");
        pairs.map(|(subject, _)| subject.name.clone()).collect()
    }
}

impl Remembered {
    /// The model of a report, to be [`put`](Self::put) back.
    pub fn take(&mut self, report: &Report, columns: u32) -> Judging {
        let key = Key { model: report.model.clone(), version: report.version.clone(), columns };
        let model = self.models.remove(&key).unwrap_or_default();
        let others: u64 = self.models.values().map(|model| model.histories.bytes()).sum();
        Judging { key, model, most: MOST_MEMORY.saturating_sub(others).max(SHARE), refused: 0 }
    }

    /// Every version of a model but the one that is being judged.
    pub fn models_of(&mut self, model: &str) -> impl Iterator<Item = (&Key, &mut Model)> {
        let first = Key { model: model.to_owned(), version: String::new(), columns: 0 };
        self.models.range_mut(first..).take_while(move |(key, _)| key.model == model)
    }

    /// A model that was judged by a report. If there was no room for some of its histories, there will be some for the next report: what
    /// this one did not judge goes, and a model that has much more than it gives up some.
    pub fn put(&mut self, judging: Judging, report: &Report) {
        let Judging { key, mut model, refused, .. } = judging;
        model.end_ns = model.end_ns.max(report.end);
        if refused > 0 {
            let stale = model.histories.forget_before(report.start);
            let given_up = self.level(model.histories.bytes());
            let forgotten = refused.saturating_add(stale).saturating_add(given_up);
            warn!(histories = forgotten, "more alerts than there is room for are not remembered");
            self.forgotten = self.forgotten.saturating_add(forgotten);
        }
        if !model.histories.is_empty() {
            self.insert(key, model);
        }
    }

    /// Whose last report is the oldest makes room.
    pub fn insert(&mut self, key: Key, model: Model) {
        if self.models.len() == MOST_MODELS {
            let oldest = self.models.iter().min_by_key(|(_, model)| model.end_ns).map(|(key, _)| key.clone());
            let gone = oldest.and_then(|key| self.models.remove(&key));
            let histories = gone.map_or(0, |gone| gone.histories.len());
            self.forgotten = self.forgotten.saturating_add(histories);
        }
        self.models.insert(key, model);
    }

    /// Of models that take turns in being the largest none gives up anything.
    fn level(&mut self, bytes: u64) -> u64 {
        let largest = self.models.values_mut().max_by_key(|model| model.histories.bytes());
        let much_larger = largest.filter(|model| model.histories.bytes() / 4 * 3 > bytes);
        much_larger.map_or(0, |model| model.histories.forget_some())
    }

    /// No report will be made again.
    pub fn settle(&mut self) {
        self.models.values_mut().for_each(|model| model.histories.settle());
        self.models.retain(|_, model| !model.histories.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;
    use crate::report::Severity;

    fn subject(name: u64) -> Subject {
        Subject { rule: "r".into(), of: "m".into(), name: format!("{name:03000}"), settings: 0 }
    }

    /// A period of a model in which a rule holds on these. On how many it is remembered to have held.
    fn judge(all: &mut Remembered, model: &str, end_ns: u64, names: std::ops::Range<u64>) -> u64 {
        let mut report = report(None, end_ns);
        report.model = model.into();
        let mut judging = all.take(&report, 0);
        let mut remembered = 0;
        for name in names {
            let Some(mut history) = judging.take(&subject(name), 5) else { continue };
            history.add(report.start, Some(Severity::Warning), [3, 5]);
            judging.put(subject(name), history, 5);
            remembered += 1;
        }
        all.put(judging, &report);
        remembered
    }

    fn total(all: &Remembered) -> u64 {
        all.models.values().map(|model| model.histories.bytes()).sum()
    }

    #[test]
    fn models_and_subjects_without_end_take_bounded_memory_and_what_is_forgotten_is_counted() {
        let mut all = Remembered::default();
        let mut held = 0;
        for model in 0..1200 {
            held += 20;
            judge(&mut all, &model.to_string(), model + 1, 0..20);
            assert!(total(&all) <= MOST_MEMORY + MOST_MODELS as u64 * SHARE && all.models.len() <= MOST_MODELS);
        }
        let kept: u64 = all.models.values().map(|model| model.histories.len()).sum();
        assert_eq!(kept + all.forgotten, held);
        let exact = |model: &Model| model.histories.iter().map(|(subject, _)| bytes(subject, 5)).sum::<u64>();
        assert!(all.models.values().all(|model| model.histories.bytes() == exact(model)));
        assert!(all.forgotten > 0);
    }

    #[test]
    fn a_hostile_model_with_new_segments_all_the_time_keeps_nobody_from_remembering() {
        let mut all = Remembered::default();
        for end_ns in 1..=7 {
            judge(&mut all, "hostile", end_ns, end_ns * 20_000..(end_ns + 1) * 20_000);
            assert_eq!(judge(&mut all, "honest", end_ns, 0..4), 4, "its share");
            assert!(total(&all) <= MOST_MEMORY + SHARE);
        }
        let honest = |all: &mut Remembered, end_ns| judge(all, "wide", end_ns, 0..1000);
        assert!(honest(&mut all, 8) < 1000);
        assert_eq!(honest(&mut all, 9), 1000);
        assert!(all.forgotten > 0);
    }

    #[test]
    fn of_a_model_that_is_too_wide_what_was_remembered_stays() {
        let mut all = Remembered::default();
        let kept: Vec<u64> = (1..=4).map(|end_ns| judge(&mut all, "wide", end_ns, 0..20_000)).collect();
        assert!(kept[0] < 20_000 && kept.iter().all(|n| *n == kept[0]), "{kept:?}");
    }

    #[test]
    fn a_history_takes_no_more_memory_than_is_counted() {
        for m in [1, 5, 512, 1000] {
            let mut history = History::default();
            for start_ns in 0..2 * m {
                history.add(start_ns, Some(Severity::Warning), [1, m]);
                assert!(history.capacity() as u64 <= m);
            }
        }
    }
}
