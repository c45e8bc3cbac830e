//! The sidecar's own report files: what a model was like over periods whose rows nobody has any more.
//!
//! Moments and counts are those of all rows. Distributions are interpolated between the quantiles of each period.

use super::SourceError;
use super::bands::Numbers;
use super::build::MOST_BYTES;
use super::gathered::Gathered;
use super::told::{Labels, Told};
use crate::profile::Spec;
use crate::reference::Reference;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use tracing::info;

/// What a period takes for each column until all are read: quantiles, counts, numbers for the bands.
const BYTES_A_COLUMN: u64 = 128;

/// Which reports count, and what they do not say.
#[derive(Clone, Debug)]
pub struct ReportsOf {
    /// The model's name.
    pub model: String,
    /// Of this version; empty: of the only one there is, and the reference is of any.
    pub version: String,
    /// Two classes: class 1 was predicted when p₁ exceeded it.
    pub threshold: f64,
}

/// Lines that are not used.
#[derive(Debug, Default)]
struct Skipped {
    other_models: u64,
    other_versions: u64,
    partial: u64,
    empty: u64,
    unfinished: u64,
    revisions: u64,
    repeated: u64,
}

/// Where a sidecar writes, and the start of a period: another sidecar's report of the same time is of other rows.
type Key = (PathBuf, String);

/// What is known of a period besides what is gathered.
#[derive(Default)]
struct Period {
    /// Its first report has come: another one is the same once more.
    used: bool,
    /// Of `labels`, the highest so far.
    revision: u64,
    labels: Option<Labels>,
}

struct Reading<'a> {
    of: &'a ReportsOf,
    versions: BTreeSet<String>,
    gathered: Option<Gathered>,
    numbers: Numbers,
    periods: BTreeMap<Key, Period>,
    skipped: Skipped,
}

/// Of report files in the order of their periods.
pub fn of_reports(files: &[PathBuf], of: &ReportsOf) -> Result<Reference, SourceError> {
    let mut reading = Reading {
        of,
        versions: BTreeSet::new(),
        gathered: None,
        numbers: Numbers::default(),
        periods: BTreeMap::new(),
        skipped: Skipped::default(),
    };
    files.iter().try_for_each(|file| reading.file(file))?;
    reading.add_labels();
    let Skipped { other_models, other_versions, partial, empty, unfinished, revisions, repeated } = reading.skipped;
    let used = reading.periods.values().filter(|period| period.used).count();
    info!(used, revisions, repeated, partial, other_versions, other_models, empty, unfinished, "reports read");
    let Some(gathered) = reading.gathered else {
        let why = format!(
            "no whole period with rows of the model {:?}, version {:?}, is in these reports",
            of.model, of.version
        );
        return Err(SourceError::Options(why));
    };
    let unsound = || SourceError::Options("the reports contradict themselves: they were not written by mlwatch".into());
    let spec = Spec { version: of.version.clone(), threshold: of.threshold, ..gathered.spec() };
    let reference = Reference::interpolated(&spec, gathered.columns()).ok_or_else(unsound)?;
    Ok(reference.with_bands(reading.numbers.bands()))
}

impl Reading<'_> {
    fn file(&mut self, path: &Path) -> Result<(), SourceError> {
        let file = File::open(path).map_err(|why| SourceError::input(path, why))?;
        let (mut reader, mut line, mut number) = (BufReader::new(file), Vec::new(), 0u64);
        while reader.read_until(b'\n', &mut line).map_err(|why| SourceError::input(path, why))? > 0 {
            number += 1;
            self.line(path.parent().unwrap_or(path), &line)
                .map_err(|why| SourceError::input(Path::new(&format!("{}:{number}", path.display())), why))?;
            line.clear();
        }
        Ok(())
    }

    fn line(&mut self, dir: &Path, line: &[u8]) -> Result<(), String> {
        let mut report: Value = match serde_json::from_slice(line) {
            Ok(report) => report,
            // A sidecar is writing it, or was killed.
            Err(_) if !line.ends_with(b"\n") => {
                self.skipped.unfinished += 1;
                return Ok(());
            }
            Err(why) => return Err(format!("it is no report: {why}")),
        };
        let told = Told::deserialize(&report).map_err(|why| format!("it is no report: {why}"))?;
        if !self.is_wanted(&told)? {
            return Ok(());
        }
        let (key, revision) = ((dir.to_owned(), told.start.clone()), told.revision.0);
        if revision > 0 {
            // Says of labels what has come of them, and nothing else.
            self.skipped.revisions += 1;
        } else if self.periods.get(&key).is_some_and(|period| period.used) {
            // A sidecar was killed before it had noted that this is written.
            self.skipped.repeated += 1;
            return Ok(());
        } else {
            self.add(&told)?;
            report["labels"] = Value::Null;
            self.numbers.add(&report);
        }
        let period = self.periods.entry(key).or_default();
        period.used |= revision == 0;
        if revision >= period.revision {
            (period.revision, period.labels) = (revision, Some(told.labels));
        }
        Ok(())
    }

    /// Of a period once, however often it was reported.
    fn add_labels(&mut self) {
        let Some(gathered) = &mut self.gathered else { return };
        for labels in self.periods.values().filter(|period| period.used).filter_map(|period| period.labels.as_ref()) {
            gathered.add_labels(labels);
            self.numbers.add(&json!({ "labels": { "accuracy": labels.accuracy } }));
        }
    }

    fn is_wanted(&mut self, told: &Told) -> Result<bool, String> {
        let skipped = &mut self.skipped;
        let counter = match told {
            _ if told.model != self.of.model => &mut skipped.other_models,
            _ if !self.of.version.is_empty() && told.version != self.of.version => &mut skipped.other_versions,
            _ if told.partial => &mut skipped.partial,
            _ if told.rows.0 == 0 => &mut skipped.empty,
            _ => {
                self.versions.insert(told.version.clone());
                let [one, other, ..] = self.versions.iter().collect::<Vec<_>>()[..] else { return Ok(true) };
                return Err(format!(
                    "there are reports of the versions {one:?} and {other:?}: say of which with --version"
                ));
            }
        };
        *counter += 1;
        Ok(false)
    }

    fn add(&mut self, told: &Told) -> Result<(), String> {
        let known = match self.gathered.take() {
            Some(known) => known,
            None => Gathered::like(told),
        };
        let bytes = (self.periods.len() as u64 + 1).saturating_mul(known.count()).saturating_mul(BYTES_A_COLUMN);
        if bytes > MOST_BYTES {
            return Err(format!(
                "so many reports take more than {MOST_BYTES} bytes: name fewer, and merge the references"
            ));
        }
        self.gathered = Some(known.with(told)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Labels, Profile, Rows};
    use crate::reference::Column;
    use crate::report::Report;
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    fn spec() -> Spec {
        let feature = |name: &str, categorical| Feature { name: name.into(), categorical };
        Spec {
            model: "m".into(),
            version: "7".into(),
            threshold: 0.5,
            classes: ["a", "b"].map(String::from).to_vec(),
            features: vec![feature("x", false), feature("plan", true)],
            ..Spec::default()
        }
    }

    fn add(profile: &mut Profile, rows: &[(f64, i32)]) {
        for (x, label) in rows {
            let p = (x / 10.0).fract().abs();
            profile.update(&Rows {
                count: 1,
                probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 2), &[1.0 - p, p]).unwrap())),
                features: Some(Columns::F64(ArrayView2::from_shape((1, 2), &[*x, f64::from(*label)]).unwrap())),
                labels: Some(Labels::Classes(&[*label])),
                ..Rows::default()
            });
        }
    }

    fn profile(spec: Spec, rows: &[(f64, i32)]) -> Profile {
        let mut profile = Profile::new(Arc::new(spec), 1 << 14, 1);
        add(&mut profile, rows);
        profile
    }

    /// Every one has another start.
    fn line(profile: &Profile, partial: bool) -> String {
        static STARTS: AtomicU64 = AtomicU64::new(1);
        let start_ns = STARTS.fetch_add(1, Relaxed) * 1_000_000_000;
        let period = crate::period::Period { start_ns, end_ns: start_ns + 1, partial };
        serde_json::to_string(&Report::of(period, profile, crate::ring::wire::DROP_REASON_NAMES)).unwrap() + "\n"
    }

    fn read(text: impl AsRef<[u8]>, version: &str) -> Result<Reference, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics-1.jsonl");
        fs::write(&path, text).unwrap();
        let of = ReportsOf { model: "m".into(), version: version.into(), threshold: 0.5 };
        of_reports(&[path], &of).map_err(|why| why.to_string().replace(dir.path().to_str().unwrap(), ""))
    }

    fn noise(i: usize) -> f64 {
        (i as f64 * 0.754_877_666).fract()
    }

    #[test]
    fn of_many_periods_the_distribution_is_near_that_of_all_rows() {
        // Exponential, and its scale goes up and down.
        let rows: Vec<(f64, i32)> =
            (0..20_000).map(|i| (-noise(i).max(1e-9).ln() * (1.0 + (i / 1000 % 3) as f64), (i % 2) as i32)).collect();
        let text: String = rows.chunks(1000).map(|rows| line(&profile(spec(), rows), false)).collect();
        let reference = read(text, "").unwrap();
        let mut all: Vec<f64> = rows.iter().map(|(x, _)| *x).collect();
        all.sort_by(f64::total_cmp);
        let numerical = reference.features[0].as_numerical().unwrap();
        let ks = numerical.steps.distance(&all).unwrap().ks;
        assert!(ks < 0.03, "{ks}");
        for (edge, [least, most]) in numerical.edges.iter().zip(&numerical.bounds) {
            let share = all.partition_point(|x| x <= edge) as f64 / all.len() as f64;
            assert!(least - 0.03 < share && share < most + 0.03, "{edge} {share} {least} {most}");
            assert!(most - least < 0.1, "it has no lumps: {least} {most}");
        }
        assert_eq!(numerical.counts.iter().sum::<u64>(), 20_000);
        assert_eq!(reference.band("features.x.mean").unwrap().n, 20);
        assert!(!reference.exact && reference.version.is_empty());
    }

    #[test]
    fn of_lumps_the_share_at_or_below_every_edge_lies_within_its_bounds() {
        // Mostly zero; small counts; two values.
        let kinds: [fn(f64) -> f64; 3] =
            [|u| (u - 0.8).max(0.0), |u| (-3.0 * u.max(1e-9).ln()).round(), |u| f64::from(u8::from(u < 0.02))];
        for kind in kinds {
            let rows: Vec<(f64, i32)> = (0..6000).map(|i| (kind(noise(i)), 0)).collect();
            let text: String = rows.chunks(500).map(|rows| line(&profile(spec(), rows), false)).collect();
            let reference = read(text, "").unwrap();
            let numerical = reference.features[0].as_numerical().unwrap();
            for (edge, [least, most]) in numerical.edges.iter().zip(&numerical.bounds) {
                let share = rows.iter().filter(|(x, _)| x <= edge).count() as f64 / rows.len() as f64;
                assert!(least - 0.005 < share && share < most + 0.005, "{edge} {share} {least} {most}");
            }
        }
    }

    #[test]
    fn what_is_not_a_whole_period_of_the_model_and_version_is_skipped() {
        let rows = [(1.0, 0), (2.0, 1)];
        let whole = line(&profile(spec(), &rows), false);
        let others = [
            line(&profile(spec(), &[(9.0, 0)]), true),
            line(&profile(spec(), &[]), false),
            line(&profile(Spec { model: "n".into(), ..spec() }, &[(9.0, 0)]), false),
            line(&profile(Spec { version: "8".into(), ..spec() }, &[(9.0, 0)]), false),
            whole.clone(),
            whole[..100].to_owned(),
        ];
        let reference = read(others.concat(), "7").unwrap();
        assert_eq!((reference.rows, reference.features[0].moment.max, reference.version.as_str()), (2, 2.0, "7"));
        assert!(read(others[..5].concat(), "").unwrap_err().contains("versions \"7\" and \"8\""));
        assert!(read(&others[0], "").unwrap_err().contains("no whole period"));
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let whole = line(&profile(spec(), &[(1.0, 0)]), false);
        let of_another_period = |text: &str| text.replace(r#""start":"1970"#, r#""start":"1971"#);
        let second = |text: &str| read(format!("{whole}{}", of_another_period(text)), "").unwrap_err();
        let says = |text: &str, what: &str| {
            let why = second(text);
            assert!(why.starts_with("/metrics-1.jsonl:2: ") && why.contains(what), "{why}");
        };
        says("{]\n", "no report");
        says("{}\n", "missing field");
        says(&whole.replace("report/1", "report/2"), "mlwatch.report/2");
        says(&whole.replace(r#""rows":1"#, r#""rows":18446744073709551615"#), "2^53");
        says(&whole.replace(r#""count":1"#, r#""count":-1"#), "no report");
        says(&whole.replace(r#""name":"x""#, r#""name":"y""#), "other columns");
        says(
            &line(&profile(Spec { classes: vec!["a".into()], ..spec() }, &[]), false)
                .replace(r#""rows":0"#, r#""rows":5"#),
            "other columns",
        );
        says(&whole.replace(r#""mean":1.0"#, r#""mean":null"#), "\"x\" has values and no mean");
    }

    #[test]
    fn labels_that_came_later_count_once_in_their_last_revision() {
        let period = crate::period::Period { start_ns: 0, end_ns: 1, partial: false };
        let of = |report: Report| serde_json::to_string(&report).unwrap() + "\n";
        let names = crate::ring::wire::DROP_REASON_NAMES;
        let (before, after) = (profile(spec(), &[(1.0, 0), (2.0, -1)]), profile(spec(), &[(1.0, 0), (2.0, 1)]));
        let first = of(Report::of(period, &before, names));
        let [second, third] =
            [(1, &before), (2, &after)].map(|(n, profile)| of(Report::revised(period, profile, n, names)));
        let other = line(&before, false);
        for order in [[&first, &second, &third, &other], [&third, &other, &second, &first]] {
            let reference = read(order.map(String::as_str).concat(), "").unwrap();
            assert_eq!((reference.rows, &reference.actual[..]), (4, &[("a".to_owned(), 2), ("b".to_owned(), 1)][..]));
            assert_eq!(reference.band("labels.accuracy").unwrap().n, 2);
        }
        assert!(read(third, "").is_err(), "the period itself is in no file");
    }

    #[test]
    fn a_report_that_was_written_twice_counts_once_and_another_sidecars_for_itself() {
        let (profiles, names) = (
            [&[(1.0, 0), (2.0, 1)][..], &[(3.0, 0)]].map(|rows| profile(spec(), rows)),
            crate::ring::wire::DROP_REASON_NAMES,
        );
        let period = crate::period::Period { start_ns: 0, end_ns: 1, partial: false };
        let [one, other] = profiles.map(|of| serde_json::to_string(&Report::of(period, &of, names)).unwrap() + "\n");
        let dir = tempfile::tempdir().unwrap();
        let paths = ["one", "other"].map(|sidecar| dir.path().join(sidecar).join("metrics-1.jsonl"));
        for (path, text) in paths.iter().zip([one.repeat(2), other]) {
            fs::create_dir(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let of = ReportsOf { model: "m".into(), version: String::new(), threshold: 0.5 };
        let reference = of_reports(&paths, &of).unwrap();
        let labelled: u64 = reference.actual.iter().map(|(_, rows)| rows).sum();
        assert_eq!((reference.rows, labelled, reference.band("features.x.mean").unwrap().n), (3, 3, 2));
    }

    #[test]
    fn numbers_are_read_as_they_were_written_to_the_bit() {
        for x in [0.7 - 0.3, 1.1 - 0.3, 5e-324, 1e300 / 3.0] {
            let reference = read(line(&profile(spec(), &[(x, 0)]), false), "").unwrap();
            assert_eq!(reference.features[0].moment.max.to_bits(), f64::to_bits(x));
        }
    }

    #[test]
    fn a_regression_has_outputs_and_no_classes() {
        let spec = Spec { regression: true, classes: vec!["price".into()], features: vec![], ..spec() };
        let whole = |values: &[f64]| {
            let mut profile = Profile::new(Arc::new(spec.clone()), 100, 1);
            let probabilities = Some(Columns::F64(ArrayView2::from_shape((values.len(), 1), values).unwrap()));
            profile.update(&Rows { count: values.len(), probabilities, ..Rows::default() });
            line(&profile, false)
        };
        let reference = read(whole(&[1.0, 2.0]) + &whole(&[6.0]), "").unwrap();
        let moment = &reference.probabilities[0].moment;
        assert_eq!((moment.n, moment.mean, moment.m2), (3, 3.0, 14.0));
        assert!(reference.regression && reference.predicted.is_empty() && reference.confidence.is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_changed_byte_is_an_error_or_makes_a_sound_reference(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![b'0'..=b'9', any::<u8>()]), 1..4),
        ) {
            let whole = line(&profile(spec(), &[(1.0, 0), (2.0, 1), (7.5, 1)]), false);
            let mut changed = whole.clone().into_bytes();
            for (at, byte) in changes {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
            if let Ok(reference) = read([whole.as_bytes(), &changed].concat(), "") {
                prop_assert!(Reference::from_bytes(&reference.to_bytes()).is_ok());
            }
        }

        #[test]
        fn moments_and_counts_are_those_of_all_rows(
            periods in proptest::collection::vec(
                proptest::collection::vec((prop_oneof![(-9..9i32).prop_map(f64::from), Just(f64::NAN)], 0..2), 1..60), 1..6),
        ) {
            let text: String = periods.iter().map(|rows| line(&profile(spec(), rows), false)).collect();
            let (got, want) = (read(text, "").unwrap(), Reference::of(&profile(spec(), &periods.concat())));
            prop_assert_eq!((got.rows, &got.predicted, &got.actual), (want.rows, &want.predicted, &want.actual));
            let columns = |r: &Reference| -> Vec<Column> {
                r.confidence.iter().chain(&r.margin).chain(&r.entropy).chain(&r.probabilities).chain(&r.features).cloned().collect()
            };
            for (a, b) in columns(&got).iter().zip(&columns(&want)) {
                prop_assert_eq!((&a.name, a.moment.n, a.moment.nan, a.as_categorical()), (&b.name, b.moment.n, b.moment.nan, b.as_categorical()));
                prop_assert!((a.moment.mean - b.moment.mean).abs() < 1e-9);
                prop_assert!((a.moment.m2 - b.moment.m2).abs() < 1e-9 * (1.0 + b.moment.m2));
                prop_assert_eq!((a.moment.min, a.moment.max), (b.moment.min, b.moment.max));
                let sum = |c: &Column| c.as_numerical().map(|of| of.counts.iter().sum::<u64>());
                prop_assert_eq!(sum(a), sum(b));
                prop_assert_eq!(a.edges().first().zip(a.edges().last()), b.edges().first().zip(b.edges().last()));
            }
        }
    }
}
