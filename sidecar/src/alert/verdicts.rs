//! The rules that are always there: what a report has judged by the levels of drift.

use super::histories::Subject;
use super::{AlertSettings, Finding, checksum};
use crate::report::{Alert, AlertState, Canary, Evidence, Measure, Override, Report, Severity, Verdict};
use std::collections::BTreeSet;

/// What one of these alerts says of its limit.
const LIMIT: &str = "by the levels of drift";

/// The settings of one model.
pub(super) struct Persistences<'a> {
    settings: &'a AlertSettings,
    overrides: Vec<&'a Override>,
}

impl AlertSettings {
    pub(super) fn of_model(&self, model: &str, version: &str) -> Persistences<'_> {
        let overrides = self.overrides.iter().filter(|by| by.is_for_model(model, version)).collect();
        Persistences { settings: self, overrides }
    }
}

impl Persistences<'_> {
    /// k and m. `None` of what nobody is to be told.
    pub fn of(&self, of: &str, name: &str) -> Option<[u64; 2]> {
        let first = self.overrides.iter().find(|by| by.is_for(of, name));
        let silent = first.is_some_and(|by| by.alert == Some(false));
        (!silent).then(|| first.and_then(|by| by.persistence).unwrap_or(self.settings.persistence))
    }

    fn finding(&self, rule: &str, of: &str, name: String, judged: Judged) -> Option<Finding> {
        let persistence = self.of(of, &name)?;
        let Judged { metric, evidence, verdict } = judged;
        let severity = match verdict {
            Verdict::Ok => None,
            Verdict::Warn => Some(Severity::Warning),
            Verdict::Alert => Some(Severity::Critical),
        };
        let subject = Subject { rule: rule.into(), of: of.into(), name, settings: checksum(&persistence) };
        Some(Finding { subject, limit: LIMIT.into(), metric, persistence, severity, evidence })
    }
}

struct Judged {
    metric: String,
    evidence: Evidence,
    verdict: Verdict,
}

/// What they say of a report.
pub(super) fn findings(settings: &AlertSettings, report: &Report) -> Vec<Finding> {
    let persistences = settings.of_model(&report.model, &report.version);
    let mut findings = Vec::new();
    if settings.drift {
        findings.extend(of_drift(report, &persistences));
    }
    if settings.quality {
        findings.extend(of_quality(report, &persistences));
    }
    if settings.canary {
        findings.extend(report.canary.iter().filter_map(|other| of_version(other, &persistences)));
    }
    findings
}

/// The verdict of every column, and of their share.
fn of_drift(report: &Report, persistences: &Persistences<'_>) -> Vec<Finding> {
    let Some(drift) = &report.drift else { return Vec::new() };
    let mut taken = BTreeSet::new();
    let columns = drift.columns.iter().enumerate().filter_map(|(position, column)| {
        // A producer may call two of its columns the same.
        let is_first = taken.insert((column.of, column.name.as_str()));
        let name = if is_first { column.name.clone() } else { format!("{} [{position}]", column.name) };
        let (verdict, (measure, evidence), of) = (column.verdict?, column.worst(), column.of.name());
        persistences.finding("drift", of, name, Judged { metric: format!("drift.{of}.{measure}"), evidence, verdict })
    });
    let mut findings: Vec<Finding> = columns.collect();
    let share = drift.drifted_share;
    findings.extend(share.verdict.and_then(|verdict| {
        let evidence = Evidence { measure: share, n: Some(drift.monitored), n_other: None };
        let judged = Judged { metric: "drift.features.drifted_share".into(), evidence, verdict };
        persistences.finding("drift", "features", String::new(), judged)
    }));
    findings
}

/// How right the model was against what its reference has taught: labels that come later change it.
fn of_quality(report: &Report, persistences: &Persistences<'_>) -> Vec<Finding> {
    let Some(estimated) = &report.estimated else { return Vec::new() };
    let both = [("concept_drift", estimated.concept_drift), ("accuracy_drift", estimated.accuracy_drift)];
    let finding = |(of, drift): (&str, crate::report::QualityDrift)| {
        let judged = Judged { metric: format!("estimated.{of}"), evidence: drift.evidence(), verdict: drift.verdict? };
        persistences.finding("quality", of, String::new(), judged)
    };
    both.into_iter().filter_map(finding).collect()
}

fn of_version(other: &Canary, persistences: &Persistences<'_>) -> Option<Finding> {
    let (measure, evidence) = other.worst();
    let judged = Judged { metric: format!("canary.{measure}"), evidence, verdict: other.verdict? };
    persistences.finding("canary", "version", other.version.clone(), judged)
}

/// The alert on two versions that ends because `other` has gone.
pub(super) fn gone(other: &str, severity: Severity, [start, end]: [u64; 2], periods: [u64; 2]) -> Alert {
    Alert {
        rule: "canary".into(),
        metric: "canary".into(),
        of: "version".into(),
        name: other.into(),
        severity,
        state: AlertState::Ended,
        start,
        end: Some(end),
        periods,
        limit: LIMIT.into(),
        evidence: Evidence { measure: Measure::undefined("gone"), ..Evidence::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::super::Alerts;
    use super::super::tests::report;
    use super::*;

    fn settings(overrides: Vec<Override>) -> AlertSettings {
        AlertSettings { persistence: [2, 3], overrides, ..AlertSettings::default() }
    }

    /// A period's report, or a revision of it, whose labels say this of the concept.
    fn judged(
        alerts: &mut Alerts,
        end_ns: u64,
        revision: u64,
        verdict: Option<Verdict>,
    ) -> Vec<(String, AlertState, u64)> {
        let mut report = report(None, end_ns);
        report.revision = revision;
        report.estimated.as_mut().unwrap().concept_drift.verdict = verdict;
        alerts.judge(&mut report, 0, None, false);
        report.alerts.into_iter().map(|alert| (alert.metric, alert.state, alert.start)).collect()
    }

    #[test]
    fn labels_that_come_later_count_in_the_place_of_their_period() {
        let mut alerts = Alerts::new(settings(Vec::new()));
        for end_ns in 1..=3 {
            assert_eq!(judged(&mut alerts, end_ns, 0, None), []);
        }
        assert_eq!(judged(&mut alerts, 1, 1, Some(Verdict::Alert)), []);
        let started = [("estimated.concept_drift".to_owned(), AlertState::Started, 0)];
        assert_eq!(judged(&mut alerts, 2, 1, Some(Verdict::Alert)), started);
        assert_eq!(
            judged(&mut alerts, 2, 2, Some(Verdict::Ok))[0].1,
            AlertState::Ended,
            "more labels, and all is well"
        );
    }

    #[test]
    fn an_override_silences_or_has_a_persistence_of_its_own_and_the_first_counts() {
        let of = |of: &str, by: Override| Override { of: Some(of.into()), ..by };
        let silent = || Override { alert: Some(false), ..Override::default() };
        let at_once = || Override { persistence: Some([1, 1]), ..Override::default() };
        for (overrides, starts_at) in [
            (vec![], Some(2)),
            (vec![of("concept_drift", silent())], None),
            (vec![of("concept_drift", at_once()), silent()], Some(1)),
            (vec![of("accuracy_drift", silent())], Some(2)),
            (vec![Override { model: Some("n*".into()), ..silent() }], Some(2)),
            (vec![Override { model: Some("m".into()), ..silent() }, at_once()], None),
        ] {
            let mut alerts = Alerts::new(settings(overrides.clone()));
            let started = (1..=4).find(|end_ns| !judged(&mut alerts, *end_ns, 0, Some(Verdict::Warn)).is_empty());
            assert_eq!(started, starts_at, "{overrides:?}");
        }
    }

    #[test]
    fn what_an_override_now_says_otherwise_of_is_forgotten_and_the_rest_goes_on() {
        let mut alerts = Alerts::new(settings(Vec::new()));
        (1..=3).for_each(|end_ns| drop(judged(&mut alerts, end_ns, 0, Some(Verdict::Alert))));
        let bytes = alerts.to_bytes();
        let goes_on = |by: Override| {
            let mut alerts = Alerts::revived(settings(vec![by]), &bytes, 100).unwrap();
            judged(&mut alerts, 4, 0, Some(Verdict::Alert)).iter().any(|told| told.1 == AlertState::Firing)
        };
        let persistence = Some([3, 4]);
        assert!(goes_on(Override { model: Some("another".into()), persistence, ..Override::default() }));
        assert!(!goes_on(Override { model: Some("m".into()), persistence, ..Override::default() }));
        assert!(!goes_on(Override { of: Some("concept*".into()), alert: Some(false), ..Override::default() }));
        assert!(goes_on(Override { z: Some(9.0), ..Override::default() }), "levels are none of its");
    }
}
