//! When something is worth waking somebody: rules over reports, each of which must hold in k of the last m periods.
//!
//! The rules that are always there are what a report judges by the levels of drift; others are the operator's, on any number of a report. A
//! period in which a rule's value is undefined changes nothing.

mod histories;
mod history;
mod pairs;
mod remembered;
mod rule;
mod saved;
mod verdicts;

pub use rule::{Rule, RuleError};
pub use saved::MOST_BYTES;

use crate::reference::Reference;
use crate::report::{Alert, AlertState, Evidence, MOST_ALERTS, Override, Report, Severity};
use histories::Subject;
use history::Told;
use remembered::{Judging, Remembered};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// When alerts start and end.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertSettings {
    /// k and m: a rule alerts when it held in k of the last m periods.
    pub persistence: [u64; 2],
    /// Alert on the verdicts of `drift`.
    pub drift: bool,
    /// Alert on the verdicts of `estimated`.
    pub quality: bool,
    /// Alert on the verdicts of `canary`.
    pub canary: bool,
    /// Further rules.
    pub rule: Vec<Rule>,
    /// What is otherwise for some models and columns.
    #[serde(skip)]
    pub overrides: Vec<Override>,
}

impl Default for AlertSettings {
    fn default() -> AlertSettings {
        AlertSettings {
            persistence: [3, 5],
            drift: true,
            quality: true,
            canary: true,
            rule: Vec::new(),
            overrides: Vec::new(),
        }
    }
}

/// Longest history.
const MOST_PERIODS: u64 = 1000;

impl AlertSettings {
    /// What is wrong with them, if anything.
    pub fn check(&self) -> Result<(), RuleError> {
        check_persistence("alerts.persistence", self.persistence)?;
        self.rule.iter().try_for_each(Rule::check)?;
        for (at, persistence) in self.overrides.iter().enumerate().filter_map(|(at, by)| Some((at, by.persistence?))) {
            check_persistence(&format!("override {}: persistence", at + 1), persistence)?;
        }
        self.rule.iter().enumerate().try_for_each(|(at, rule)| {
            match self.rule[..at].iter().position(|other| other == rule) {
                Some(first) => Err(rule.is_there_twice([first + 1, at + 1])),
                None => Ok(()),
            }
        })
    }
}

fn check_persistence(what: &str, [k, m]: [u64; 2]) -> Result<(), RuleError> {
    if (1..=m).contains(&k) && m <= MOST_PERIODS {
        return Ok(());
    }
    Err(RuleError::Persistence { what: what.to_owned(), k, m })
}

/// What has been going on with each model.
#[derive(Debug, Default)]
pub struct Alerts {
    settings: AlertSettings,
    remembered: Remembered,
    said: rule::Said,
}

/// One rule's word on one period.
struct Finding {
    subject: Subject,
    metric: String,
    persistence: [u64; 2],
    severity: Option<Severity>,
    limit: String,
    evidence: Evidence,
}

impl Alerts {
    /// Settings that were [checked](AlertSettings::check).
    pub fn new(settings: AlertSettings) -> Alerts {
        Alerts { settings, ..Alerts::default() }
    }

    /// Adds to `report`, of a model with these `columns`, what starts, goes on or ends with it; if it is made `again`, what it said before.
    /// Whether something came of it that is to be remembered.
    pub fn judge(&mut self, report: &mut Report, columns: u32, reference: Option<&Reference>, again: bool) -> bool {
        let mut findings = verdicts::findings(&self.settings, report);
        findings.extend(rule::findings(&self.settings, report, reference, &mut self.said));
        let mut judging = self.remembered.take(report, columns);
        let of = Of { start_ns: report.start, end_ns: report.end, is_first: report.revision == 0, again };
        let mut changed = false;
        let mut alerts: Vec<Alert> =
            findings.into_iter().filter_map(|finding| take(&mut judging, finding, of, &mut changed)).collect();
        self.part(report, &mut judging, of, &mut alerts, &mut changed);
        for alert in alerts {
            if report.alerts.len() < MOST_ALERTS {
                report.alerts.push(alert);
            } else {
                report.more_alerts += 1;
            }
        }
        self.remembered.put(judging, report);
        report.alerts.iter().for_each(|alert| tell(report, alert));
        changed
    }

    /// Everything is delivered: no report will be made again.
    pub fn settle(&mut self) {
        self.remembered.settle();
    }

    /// Histories for which there was no room.
    pub fn forgotten(&self) -> u64 {
        self.remembered.forgotten
    }
}

/// What is judged.
#[derive(Clone, Copy)]
struct Of {
    start_ns: u64,
    end_ns: u64,
    /// No revision.
    is_first: bool,
    /// It was made before, and perhaps not delivered.
    again: bool,
}

fn take(judging: &mut Judging, finding: Finding, of: Of, changed: &mut bool) -> Option<Alert> {
    let Finding { subject, metric, persistence, severity, limit, evidence } = finding;
    let before = judging.history(&subject);
    if severity.is_none() && before.is_none() {
        return None;
    }
    let told = match before.filter(|_| of.again).and_then(|history| history.told_of(of.start_ns)) {
        Some(told) => told,
        None => {
            *changed = true;
            add(judging, &subject, severity, persistence, of)
        }
    };
    let Told { state, severity, start_ns: start } = told?;
    let end = (state == AlertState::Ended).then_some(of.end_ns);
    let Subject { rule, of, name, .. } = subject;
    Some(Alert { rule, metric, of, name, severity, state, start, end, periods: persistence, limit, evidence })
}

fn add(
    judging: &mut Judging,
    subject: &Subject,
    severity: Option<Severity>,
    persistence: [u64; 2],
    of: Of,
) -> Option<Told> {
    let mut history = judging.take(subject, persistence[1])?;
    let told = history.add(of.start_ns, severity, persistence);
    if of.is_first {
        history.tell(of.start_ns, told);
    }
    judging.put(subject.clone(), history, persistence[1]);
    told
}

fn tell(report: &Report, alert: &Alert) {
    let (model, version) = (&report.model, &report.version);
    let Alert { rule, metric, of, name, severity, limit, evidence, .. } = alert;
    match alert.state {
        AlertState::Started => {
            warn!(model, version, rule, metric, of, name, ?severity, value = ?evidence.measure.value, limit, "alert")
        }
        AlertState::Ended => info!(model, version, rule, metric, of, name, "alert ended"),
        AlertState::Firing => {}
    }
}

/// Changes with any of them.
fn checksum(settings: &impl Serialize) -> u32 {
    crc32c::crc32c(&postcard::to_stdvec(settings).expect("plain data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn settings(toml: &str) -> Result<AlertSettings, String> {
        let settings: AlertSettings = toml::from_str(toml).map_err(|why| why.to_string())?;
        settings.check().map_err(|why| why.to_string()).map(|()| settings)
    }

    pub(super) fn report(accuracy: Option<f64>, end_ns: u64) -> Report {
        use crate::period::Period;
        use crate::profile::{Profile, Spec};
        let spec = Spec { model: "m".into(), classes: vec!["a".into(), "b".into()], ..Spec::default() };
        let period = Period { start_ns: end_ns - 1, end_ns, partial: false };
        let mut report = Report::of(period, &Profile::new(spec.into(), 1, 1), [""; 5]);
        (report.rows, report.labels.accuracy) = (100, accuracy);
        report
    }

    /// Accuracies of periods that end at 1, 2, …, and what became of the rule in each.
    fn states(rule: &str, accuracies: &[Option<f64>]) -> Vec<Option<AlertState>> {
        let mut alerts = Alerts::new(settings(rule).unwrap());
        let periods = accuracies.iter().zip(1..);
        periods
            .map(|(accuracy, end_ns)| {
                let mut report = report(*accuracy, end_ns);
                alerts.judge(&mut report, 0, None, false);
                assert!(report.alerts.len() <= 1);
                report.alerts.first().map(|alert| alert.state)
            })
            .collect()
    }

    pub(super) const RULE: &str =
        "[[rule]]\nname = 'weak'\nmetric = 'labels.accuracy'\nbelow = 0.9\npersistence = [2, 3]\n";

    #[test]
    fn an_alert_starts_when_its_rule_held_k_of_m_times_and_ends_when_no_longer() {
        let (good, bad) = (Some(0.95), Some(0.5));
        use AlertState::{Ended, Firing, Started};
        assert_eq!(states(RULE, &[bad, good, good, bad, good]), [None; 5]);
        let told = states(RULE, &[good, bad, good, bad, good, good, bad, bad]);
        assert_eq!(told, [None, None, None, Some(Started), Some(Ended), None, None, Some(Started)]);
        assert_eq!(
            states(RULE, &[bad, bad, bad, good, good])[1..],
            [Some(Started), Some(Firing), Some(Firing), Some(Ended)]
        );
    }

    #[test]
    fn a_period_without_the_value_changes_nothing() {
        let bad = Some(0.5);
        let told = states(RULE, &[bad, None, None, None, bad, None, bad]);
        assert_eq!(told[4..], [Some(AlertState::Started), None, Some(AlertState::Firing)]);
    }

    #[test]
    fn an_alert_says_since_when_and_with_what_evidence() {
        let mut alerts = Alerts::new(settings(RULE).unwrap());
        let mut last = report(Some(0.5), 30);
        last.labels.single_rows = 40;
        alerts.judge(&mut report(Some(0.5), 20), 0, None, false);
        alerts.judge(&mut last, 0, None, false);
        let alert = &last.alerts[0];
        assert_eq!((alert.rule.as_str(), alert.metric.as_str()), ("weak", "labels.accuracy"));
        assert_eq!((alert.start, alert.end, alert.periods), (19, None, [2, 3]));
        assert_eq!((alert.evidence.measure.value, alert.evidence.n), (Some(0.5), Some(40)));
        assert_eq!((alert.limit.as_str(), alert.severity), ("below 0.9", Severity::Warning));
    }

    #[test]
    fn a_rule_may_choose_models_names_and_rows() {
        let text = |line: &str| format!("{RULE}{line}\n");
        let bad = [Some(0.5); 3];
        assert_eq!(states(&text("model = 'n*'"), &bad), [None; 3]);
        assert_eq!(states(&text("min_rows = 101"), &bad), [None; 3]);
        assert!(states(&text("model = 'm'"), &bad)[1].is_some());
        let wild = "[[rule]]\nmetric = 'predictions.classes.*.count'\nfeature = 'b'\nbelow = 1\npersistence = [1, 1]\n";
        let mut alerts = Alerts::new(settings(wild).unwrap());
        let mut report = report(None, 10);
        alerts.judge(&mut report, 0, None, false);
        let names: Vec<&str> = report.alerts.iter().map(|alert| alert.name.as_str()).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn a_metric_may_begin_with_any_field_of_a_report_that_holds_numbers() {
        let report = serde_json::to_value(report(None, 10)).unwrap();
        let about_itself = [
            "format",
            "model",
            "version",
            "task",
            "instances",
            "more_instances",
            "start",
            "end",
            "period_seconds",
            "partial",
            "revision",
            "alerts",
            "more_alerts",
        ];
        let mut fields: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
        fields.retain(|field| !about_itself.contains(field));
        let mut roots = rule::ROOTS.to_vec();
        fields.sort_unstable();
        roots.sort_unstable();
        assert_eq!(roots, fields);
    }

    #[test]
    fn a_warning_and_a_critical_rule_of_one_name_on_one_metric_have_alerts_of_their_own() {
        let critical = RULE.replace("0.9", "0.6").replace("[2, 3]", "[1, 1]") + "severity = 'critical'\n";
        let mut alerts = Alerts::new(settings(&format!("{RULE}{critical}")).unwrap());
        let mut told = |accuracy, end_ns| {
            let mut report = report(Some(accuracy), end_ns);
            alerts.judge(&mut report, 0, None, false);
            report.alerts.into_iter().map(|alert| (alert.severity, alert.state, alert.start)).collect::<Vec<_>>()
        };
        use AlertState::{Ended, Firing, Started};
        use Severity::{Critical, Warning};
        assert_eq!(told(0.8, 1), []);
        assert_eq!(told(0.5, 2), [(Warning, Started, 0), (Critical, Started, 1)]);
        assert_eq!(told(0.8, 3), [(Warning, Firing, 0), (Critical, Ended, 1)]);
        assert_eq!(told(0.95, 4), [(Warning, Firing, 0)]);
        assert_eq!(told(0.95, 5), [(Warning, Ended, 0)]);
    }

    #[test]
    fn models_of_one_name_and_version_with_other_columns_have_alerts_of_their_own() {
        let mut alerts = Alerts::new(settings(RULE).unwrap());
        let mut state = |accuracy, columns, end_ns| {
            let mut report = report(Some(accuracy), end_ns);
            alerts.judge(&mut report, columns, None, false);
            report.alerts.first().map(|alert| alert.state)
        };
        for end_ns in 1..10 {
            let want = match end_ns {
                1 => None,
                2 => Some(AlertState::Started),
                _ => Some(AlertState::Firing),
            };
            assert_eq!((state(0.5, 1, end_ns), state(0.95, 2, end_ns)), (want, None));
        }
    }

    #[test]
    fn a_rule_that_cannot_be_is_refused_with_its_remedy() {
        let twice = settings(&format!("{RULE}[[rule]]\nmetric = 'rows'\nabove = 1\n{RULE}")).unwrap_err();
        assert!(twice.contains("rules 1 and 3") && twice.contains("weak") && twice.contains("remove"), "{twice}");
        assert!(settings("persistence = [4, 3]").unwrap_err().contains("k of m"));
        assert!(settings("[[rule]]\nmetric = 'rows'").unwrap_err().contains("one of above, below"));
        assert!(
            settings("[[rule]]\nmetric = 'rows'\nabove = 1\nbelow = 2").unwrap_err().contains("one of above, below")
        );
        assert!(settings("[[rule]]\nmetric = 'accuracy'\nabove = 1").unwrap_err().contains("labels"));
        assert!(settings("[[rule]]\nmetric = 'rows'\nabove = nan").unwrap_err().contains("finite"));
        assert!(settings("[[rule]]\nmetric = 'rows'\nabovee = 1").unwrap_err().contains("above"));
    }
}
