//! What is known of alerts, as bytes that outlive the sidecar. When they come back they may be any bytes.
//!
//! For each model a head, and then its histories one by one, as postcard writes them.

use super::histories::{Subject, bytes as bytes_of};
use super::history::History;
use super::remembered::{Key, MOST_MEMORY, MOST_MODELS, Model};
use super::{AlertSettings, Alerts, Rule, checksum};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// All bytes together. Where there is more to say, models have equal shares as far as they need them, and alerts that go on come first.
pub const MOST_BYTES: u64 = 1 << 20;

/// No history takes less of [`MOST_BYTES`], so that there is a bound for how many there are.
const LEAST: u64 = 64;
/// An upper bound of the bytes of one period of a history.
const PERIOD: u64 = 24;

/// (model, version, checksum of its columns, end of its last report, histories)
type Head<T> = (T, T, u32, u64, u64);

#[derive(Serialize, Deserialize)]
struct Entry<T, H> {
    subject: (T, T, T),
    /// Of the rule it comes from.
    settings: u32,
    history: H,
}

impl AlertSettings {
    /// Over how many periods the history of a subject goes; `None` if what it follows from has changed or is gone.
    fn periods_of(&self, model: &str, version: &str, subject: &Subject) -> Option<u64> {
        let persistence_of = |own: &Rule| own.persistence.unwrap_or(self.persistence);
        let is_own = |own: &&Rule| own.title() == subject.rule && own.checksum(persistence_of(own)) == subject.settings;
        let own = self.rule.iter().find(is_own).map(persistence_of);
        let is_built_in = match subject.rule.as_str() {
            "drift" => self.drift,
            "quality" => self.quality,
            "canary" => self.canary,
            _ => false,
        };
        let persistence = self.of_model(model, version).of(&subject.of, &subject.name).filter(|_| is_built_in);
        own.or(persistence.filter(|persistence| checksum(persistence) == subject.settings)).map(|[_, m]| m)
    }
}

/// An upper bound of what it adds to the bytes.
fn cost(subject: &Subject, history: &History) -> u64 {
    let names = subject.rule.len() + subject.of.len() + subject.name.len();
    LEAST + names as u64 + history.len() as u64 * PERIOD
}

fn head_cost(key: &Key) -> u64 {
    LEAST + (key.model.len() + key.version.len()) as u64
}

impl Alerts {
    /// At most [`MOST_BYTES`]; none if there is nothing to remember.
    pub fn to_bytes(&self) -> Vec<u8> {
        let known = self.remembered.models.iter().filter(|(_, model)| !model.histories.is_empty());
        let all_of =
            |model: &Model| model.histories.iter().map(|(subject, history)| cost(subject, history)).sum::<u64>();
        let mut models: Vec<_> = known.map(|(key, model)| (head_cost(key) + all_of(model), key, model)).collect();
        // The least first: what it does not need of its share is the others'.
        models.sort_by_key(|(cost, ..)| *cost);
        let (mut writer, mut left) = (Writer::default(), 0);
        for (at, (_, key, model)) in models.iter().enumerate() {
            let room = MOST_BYTES - writer.bytes.len() as u64;
            left += writer.add(key, model, room / (models.len() - at) as u64);
        }
        if left > 0 {
            warn!(alerts = left, "more alerts than are remembered over a restart");
        }
        writer.bytes
    }

    /// What [`to_bytes`](Self::to_bytes) knew, as far as it follows from rules that are still the same. `None` if these are none of its bytes.
    pub fn revived(settings: AlertSettings, bytes: &[u8], now_ns: u64) -> Option<Alerts> {
        let mut alerts = Alerts::new(settings);
        let mut room = MOST_MEMORY;
        let mut reader = Reader { bytes, left: MOST_BYTES / LEAST };
        while !reader.bytes.is_empty() {
            let (model, version, columns, end_ns, count): Head<String> = reader.next()?;
            let mut known = Model { end_ns: end_ns.min(now_ns), ..Model::default() };
            for _ in 0..count {
                let entry = reader.next::<Entry<String, History>>()?;
                let Entry { subject: (rule, of, name), settings, mut history } = entry;
                let subject = Subject { rule, of, name, settings };
                let Some(periods) = alerts.settings.periods_of(&model, &version, &subject) else { continue };
                if !history.fits(periods) {
                    return None;
                }
                history.forget_future(now_ns);
                match room.checked_sub(bytes_of(&subject, periods)) {
                    Some(rest) => {
                        room = rest;
                        known.histories.put(subject, history, periods);
                    }
                    None => alerts.remembered.forgotten += 1,
                }
            }
            alerts.remembered.models.insert(Key { model, version, columns }, known);
            if alerts.remembered.models.len() > MOST_MODELS {
                return None;
            }
        }
        Some(alerts)
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A model in so many bytes. How many of its active alerts there was no room for.
    fn add(&mut self, key: &Key, model: &Model, room: u64) -> u64 {
        let Some(mut room) = room.checked_sub(head_cost(key)) else {
            return model.histories.iter().filter(|(_, history)| history.is_active()).count() as u64;
        };
        let (active, others): (Vec<_>, Vec<_>) = model.histories.iter().partition(|(_, history)| history.is_active());
        let (mut chosen, mut left) = (Vec::new(), 0);
        for (subject, history) in active.into_iter().chain(others) {
            match room.checked_sub(cost(subject, history)) {
                Some(rest) => {
                    room = rest;
                    chosen.push((subject, history));
                }
                None => left += u64::from(history.is_active()),
            }
        }
        let head: Head<&str> = (&key.model, &key.version, key.columns, model.end_ns, chosen.len() as u64);
        self.put(&head);
        chosen.into_iter().for_each(|(subject, history)| self.put_history(subject, history));
        left
    }

    fn put_history(&mut self, subject: &Subject, history: &History) {
        let Subject { rule, of, name, settings } = subject;
        self.put(&Entry { subject: (rule.as_str(), of.as_str(), name.as_str()), settings: *settings, history });
    }

    fn put(&mut self, what: &impl Serialize) {
        self.bytes.extend(postcard::to_stdvec(what).expect("plain data"));
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Heads and histories that may still come.
    left: u64,
}

impl<'a> Reader<'a> {
    fn next<T: Deserialize<'a>>(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let (next, rest) = postcard::take_from_bytes(self.bytes).ok()?;
        self.bytes = rest;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{RULE, report, settings};
    use super::*;
    use crate::report::{AlertState, Severity};
    use proptest::prelude::*;

    const NOW: u64 = 1_000;

    fn revived(toml: &str, bytes: &[u8]) -> Option<Alerts> {
        Alerts::revived(settings(toml).unwrap(), bytes, NOW)
    }

    fn judged(alerts: &mut Alerts, accuracy: Option<f64>, end_ns: u64, again: bool) -> Vec<(AlertState, u64)> {
        let mut report = report(accuracy, end_ns);
        alerts.judge(&mut report, 0, None, again);
        report.alerts.iter().map(|alert| (alert.state, alert.start)).collect()
    }

    /// Accuracies of periods that end at 1, 2, …, by a sidecar with an alert that goes on.
    fn firing() -> Alerts {
        let mut alerts = Alerts::new(settings(RULE).unwrap());
        (1..=4).for_each(|end_ns| drop(judged(&mut alerts, Some(0.5), end_ns, false)));
        alerts
    }

    fn accuracy() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![2 => Just(Some(0.5)), 2 => Just(Some(0.95)), 1 => Just(None)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn an_alert_does_not_notice_a_restart(periods in prop::collection::vec((accuracy(), any::<bool>()), 0..30)) {
            let [mut whole, mut restarted] = [(); 2].map(|()| Alerts::new(settings(RULE).unwrap()));
            for ((accuracy, restart), end_ns) in periods.into_iter().zip(1..) {
                let told = judged(&mut whole, accuracy, end_ns, false);
                prop_assert_eq!(judged(&mut restarted, accuracy, end_ns, false), told);
                if restart {
                    restarted = revived(RULE, &restarted.to_bytes()).unwrap();
                }
            }
        }

        #[test]
        fn a_report_that_is_made_again_says_what_it_said(
            periods in prop::collection::vec((accuracy(), 0..4usize), 0..30), k in 1..4u64,
        ) {
            let rule = RULE.replace("[2, 3]", &format!("[{k}, 3]"));
            let [mut whole, mut killed] = [(); 2].map(|()| Alerts::new(settings(&rule).unwrap()));
            let mut told = Vec::new();
            for (at, (accuracy, undelivered)) in periods.iter().enumerate() {
                let end_ns = at as u64 + 1;
                told.push(judged(&mut whole, *accuracy, end_ns, false));
                prop_assert_eq!(&judged(&mut killed, *accuracy, end_ns, false), &told[at]);
                if *undelivered > 0 {
                    killed = revived(&rule, &killed.to_bytes()).unwrap();
                    for again in (at + 1).saturating_sub(*undelivered)..=at {
                        prop_assert_eq!(&judged(&mut killed, periods[again].0, again as u64 + 1, true), &told[again]);
                    }
                }
            }
        }

        #[test]
        fn any_bytes_are_refused_or_understood(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..100usize) {
            revived(RULE, &bytes);
            let mut forged = firing().to_bytes();
            let at = at.min(forged.len());
            forged.splice(at..at, bytes);
            revived(RULE, &forged);
        }
    }

    #[test]
    fn whatever_is_changed_in_the_bytes_they_are_refused_or_understood() {
        let whole = firing().to_bytes();
        for at in 0..whole.len() {
            assert!(at == 0 || revived(RULE, &whole[..at]).is_none(), "cut at {at}");
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                if let Some(mut alerts) = revived(RULE, &flipped) {
                    judged(&mut alerts, Some(0.5), 5, false);
                }
            }
        }
    }

    #[test]
    fn a_history_that_cannot_have_been_is_refused() {
        let forged = |starts: &[u64]| {
            let mut history = History::default();
            for start_ns in starts {
                history.add(*start_ns, Some(Severity::Warning), [1000, 1000]);
            }
            let mut alerts = firing();
            for model in alerts.remembered.models.values_mut() {
                let subjects: Vec<Subject> = model.histories.iter().map(|(subject, _)| subject.clone()).collect();
                subjects.into_iter().for_each(|subject| model.histories.put(subject, history.clone(), 1000));
            }
            alerts.to_bytes()
        };
        assert!(revived(RULE, &forged(&[1, 2, 3])).is_some());
        assert!(revived(RULE, &forged(&[1, 2, 3, 4])).is_none(), "more than m periods");
        let mut descending = forged(&[1, 2, 3]);
        let at = descending.windows(8).position(|bytes| bytes == 1u64.to_le_bytes()).unwrap();
        descending[at] = 9;
        assert!(revived(RULE, &descending).is_none());
    }

    #[test]
    fn more_entries_than_there_can_be_are_refused() {
        let model = |at: u32| postcard::to_stdvec::<Head<&str>>(&(&at.to_string(), "", 0, 0, 0)).unwrap();
        let models = |n: u32| (0..n).flat_map(model).collect::<Vec<u8>>();
        assert!(revived(RULE, &models(MOST_MODELS as u32)).is_some());
        assert!(revived(RULE, &models(MOST_MODELS as u32 + 1)).is_none());
        let head: Head<&str> = ("m", "", 0, 0, u64::MAX);
        let entry = Entry { subject: ("", "", ""), settings: 0, history: History::default() };
        let (mut bytes, entry) = (postcard::to_stdvec(&head).unwrap(), postcard::to_stdvec(&entry).unwrap());
        bytes.extend(entry.repeat((MOST_BYTES / LEAST) as usize + 1));
        assert!(revived(RULE, &bytes).is_none());
    }

    #[test]
    fn what_was_judged_by_other_rules_is_forgotten() {
        let bytes = firing().to_bytes();
        let goes_on = |toml: &str| {
            let mut alerts = revived(toml, &bytes).unwrap();
            judged(&mut alerts, Some(0.5), 5, false).contains(&(AlertState::Firing, 0))
        };
        assert!(goes_on(RULE));
        assert!(goes_on(&format!("{RULE}\n[[rule]]\nmetric = 'rows'\nabove = 1e9\n")), "another rule is no matter");
        assert!(goes_on(&format!("persistence = [1, 2]\n{RULE}")), "it has a persistence of its own");
        for (from, to) in
            [("[2, 3]", "[2, 4]"), ("weak", "bad"), ("0.9", "0.8"), ("labels.accuracy", "labels.coverage")]
        {
            assert!(!goes_on(&RULE.replace(from, to)), "{to}");
        }
        assert!(!goes_on(""));
    }

    #[test]
    fn what_comes_from_the_future_is_forgotten() {
        let mut alerts = Alerts::new(settings(RULE).unwrap());
        (1..=4).for_each(|period| drop(judged(&mut alerts, Some(0.5), 2 * NOW + period, false)));
        let mut alerts = revived(RULE, &alerts.to_bytes()).unwrap();
        let told: Vec<_> = (1..=3).map(|end_ns| judged(&mut alerts, Some(0.95), end_ns, false)).collect();
        assert_eq!(told, [vec![(AlertState::Ended, 2 * NOW)], vec![], vec![]]);
    }

    #[test]
    fn where_there_is_no_room_for_all_every_model_has_its_share_and_active_alerts_come_first() {
        let mut alerts = Alerts::new(settings(RULE).unwrap());
        let settings = alerts.settings.rule[0].checksum([2, 3]);
        let subject = |name: String| Subject { rule: "weak".into(), of: String::new(), name, settings };
        let key = |model: &str| Key { model: model.into(), version: String::new(), columns: 0 };
        for (model, subjects) in [("small", 2), ("large", 9_000), ("larger", 20_000)] {
            let known = alerts.remembered.models.entry(key(model)).or_default();
            for i in 0..subjects {
                let mut history = History::default();
                let severity = Some(Severity::Warning);
                let held: &[u64] = if i % 10 == 9 { &[1, 2] } else { &[1] };
                for start_ns in held {
                    history.add(*start_ns, severity, [2, 3]);
                }
                known.histories.put(subject(format!("{i:06}")), history, 3);
            }
        }
        let bytes = alerts.to_bytes();
        assert!(bytes.len() as u64 <= MOST_BYTES);
        let again = revived(RULE, &bytes).unwrap();
        let count = |model: &str, active: bool| {
            let known = &again.remembered.models[&key(model)];
            known.histories.iter().filter(|(_, history)| history.is_active() || !active).count()
        };
        assert_eq!([count("small", false), count("large", true), count("larger", true)], [2, 900, 2_000]);
        let [large, larger] = ["large", "larger"].map(|model| count(model, false));
        assert!((4_000..9_000).contains(&large) && (large..20_000).contains(&larger), "{large} {larger}");
    }
}
