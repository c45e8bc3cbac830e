//! Two versions of a model of which one has gone: their alert ends, and whichever is left says so.

use super::histories::Subject;
use super::history::{History, Told};
use super::remembered::Judging;
use super::{Alerts, Of, checksum, verdicts};
use crate::report::{Alert, Report};

impl Alerts {
    /// A report with rows of one version, and what was going on between it and those that it is not compared with. Of a pair the version
    /// that comes later in the order of their bytes remembers.
    pub(super) fn part(
        &mut self,
        report: &Report,
        judging: &mut Judging,
        of: Of,
        alerts: &mut Vec<Alert>,
        changed: &mut bool,
    ) {
        if !of.is_first || report.rows == 0 || !self.settings.canary {
            return;
        }
        let here = self.settings.of_model(&report.model, &report.version);
        for other in judging.versions() {
            let Some(persistence) = here.of("version", &other) else { continue };
            let subject = subject(&other, persistence);
            let Some(mut history) = judging.take(&subject, persistence[1]) else { continue };
            if report.canary.iter().any(|compared| compared.version == other) {
                history.meet();
            } else {
                let told = alone(&mut history, of, persistence[1], changed);
                alerts.extend(ended(told, &other, of, persistence));
            }
            judging.put(subject, history, persistence[1]);
        }
        for (key, model) in self.remembered.models_of(&report.model) {
            let there = self.settings.of_model(&key.model, &key.version);
            let Some(persistence) = there.of("version", &report.version) else { continue };
            let subject = subject(&report.version, persistence);
            let Some(mut history) = model.histories.take(&subject) else { continue };
            let told = alone(&mut history, of, persistence[1], changed);
            alerts.extend(ended(told, &key.version, of, persistence));
            model.histories.put(subject, history, persistence[1]);
        }
    }
}

fn subject(other: &str, persistence: [u64; 2]) -> Subject {
    Subject { rule: "canary".into(), of: "version".into(), name: other.into(), settings: checksum(&persistence) }
}

fn alone(history: &mut History, of: Of, m: u64, changed: &mut bool) -> Option<Told> {
    if let Some(told) = Some(&*history).filter(|_| of.again).and_then(|history| history.told_at(of.start_ns)) {
        return told;
    }
    *changed = true;
    history.miss(of.start_ns, m)
}

fn ended(told: Option<Told>, other: &str, of: Of, persistence: [u64; 2]) -> Option<Alert> {
    let Told { severity, start_ns, .. } = told?;
    Some(verdicts::gone(other, severity, [start_ns, of.end_ns], persistence))
}

#[cfg(test)]
mod tests {
    use super::super::AlertSettings;
    use super::super::tests::report;
    use super::*;
    use crate::report::{AlertState, Canary, Measure, Verdict};

    /// A report of a version, compared with those of which it says something.
    fn of_version(version: &str, end_ns: u64, compared: &[(&str, Verdict)]) -> Report {
        let mut report = report(None, end_ns);
        report.version = version.into();
        let canary = |(other, verdict): &(&str, Verdict)| Canary {
            version: (*other).into(),
            rows: 100,
            bins_hash: String::new(),
            class_mix: Measure { value: Some(1.0), verdict: Some(*verdict), ..Measure::default() }.counted(100, 100),
            confidence_ks: Default::default(),
            margin_ks: Default::default(),
            entropy_ks: Default::default(),
            accuracy_difference: Default::default(),
            agreement: Default::default(),
            verdict: Some(*verdict),
        };
        report.canary = compared.iter().map(canary).collect();
        report
    }

    fn told(alerts: &mut Alerts, mut report: Report, again: bool) -> Vec<(AlertState, String, u64)> {
        alerts.judge(&mut report, 0, None, again);
        report.alerts.into_iter().map(|alert| (alert.state, alert.name, alert.start)).collect()
    }

    /// Versions 1 and 2 that differ, for 6 periods.
    fn firing() -> Alerts {
        let mut alerts = Alerts::new(AlertSettings::default());
        for end_ns in 1..=6 {
            assert_eq!(told(&mut alerts, of_version("1", end_ns, &[]), false), []);
            told(&mut alerts, of_version("2", end_ns, &[("1", Verdict::Alert)]), false);
        }
        alerts
    }

    use AlertState::{Ended, Firing};

    #[test]
    fn an_alert_on_two_versions_ends_when_either_has_not_been_there_for_more_than_m_periods() {
        for (left, gone) in [("1", "2"), ("2", "1")] {
            let mut alerts = firing();
            for end_ns in 7..=11 {
                assert_eq!(told(&mut alerts, of_version(left, end_ns, &[]), false), []);
            }
            let want = [(Ended, gone.to_owned(), 0)];
            assert_eq!(told(&mut alerts, of_version(left, 12, &[]), false), want);
            let bytes = alerts.to_bytes();
            let mut killed = Alerts::revived(AlertSettings::default(), &bytes, 100).unwrap();
            assert_eq!(told(&mut killed, of_version(left, 12, &[]), true), want, "made again");
            for end_ns in 13..30 {
                assert_eq!(told(&mut alerts, of_version(left, end_ns, &[]), false), []);
            }
            assert!(alerts.to_bytes().is_empty(), "nothing is left of it");
        }
    }

    #[test]
    fn a_version_that_comes_back_in_time_has_missed_nothing_and_a_night_without_rows_is_no_farewell() {
        let mut alerts = firing();
        for end_ns in 7..=10 {
            told(&mut alerts, of_version("1", end_ns, &[]), false);
        }
        for end_ns in 11..=60 {
            for version in ["1", "2"] {
                let mut empty = of_version(version, end_ns, &[]);
                empty.rows = 0;
                assert_eq!(told(&mut alerts, empty, false), []);
            }
        }
        assert_eq!(told(&mut alerts, of_version("1", 61, &[]), false), []);
        let back = of_version("2", 61, &[("1", Verdict::Alert)]);
        assert_eq!(told(&mut alerts, back, false), [(Firing, "1".to_owned(), 0)]);
        for end_ns in 62..=66 {
            assert_eq!(told(&mut alerts, of_version("1", end_ns, &[]), false), []);
        }
    }

    #[test]
    fn a_period_that_is_reported_again_is_missed_once() {
        let mut alerts = firing();
        for end_ns in 7..=11 {
            for _ in 0..4 {
                assert_eq!(told(&mut alerts, of_version("1", end_ns, &[]), true), []);
            }
        }
        assert_eq!(told(&mut alerts, of_version("1", 12, &[]), false).len(), 1);
    }
}
