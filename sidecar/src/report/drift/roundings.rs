//! The same data in other roundings than the reference's is no drift, and other data is.

use super::{ColumnKind, Drift, DriftSettings, Verdict, drift};
use crate::profile::{Feature, Frozen, Profile, Rows, Spec};
use crate::reference::Reference;
use crate::report::OrderedSample;
use crate::stats::{Columns, Element};
use half::{bf16, f16};
use ndarray::{Array2, ArrayView2};
use std::ops::Range;
use std::sync::Arc;

const FEATURES: [(&str, bool); 7] = [
    ("tenths", false),
    ("constant", false),
    ("lump", false),
    ("normal", false),
    ("whole", false),
    ("codes", true),
    ("ids", true),
];

fn spec() -> Arc<Spec> {
    let features = FEATURES.map(|(name, categorical)| Feature { name: name.into(), categorical }).to_vec();
    let classes = ["no", "yes"].map(String::from).to_vec();
    Arc::new(Spec { model: "m".into(), threshold: 0.3, classes, features, ..Spec::default() })
}

fn noise(i: usize, step: f64) -> f64 {
    (i as f64 * step).fract()
}

/// Of a row the probability of yes, in tenths, and the features.
fn usual(i: usize) -> (f64, [f64; 7]) {
    let tenth = |step: f64| 1.0 + (noise(i, step) * 9.0).floor();
    let normal = (0..12).map(|k| noise(i + 7 * k, 0.569_840_290_998 + 0.01 * k as f64)).sum::<f64>() - 6.0;
    let lump = if noise(i, 0.754_877_666_247) < 0.6 { 0.7 } else { normal };
    let whole = (noise(i, 0.438_579_021_3) * 200.0).floor();
    let (code, id) = (1.0 + (i % 3) as f64, 2049.0 + (i % 5) as f64);
    (tenth(0.618_033_988_75) / 10.0, [tenth(0.324_717_957_2) / 10.0, 0.1, lump, normal, whole, code / 10.0, id])
}

/// What differs from it in every column.
fn moved(i: usize) -> (f64, [f64; 7]) {
    let (p, [tenths, _, lump, normal, whole, code, id]) = usual(i);
    let lump = if lump == 0.7 { 0.9 } else { lump };
    let code = if i.is_multiple_of(2) { 0.1 } else { code };
    (
        (p + 0.3).min(0.9),
        [tenths + 0.3, 0.2, lump, normal + 0.7, whole + 80.0, code, if id < 2052.0 { 4096.0 } else { id }],
    )
}

fn fed(mut profile: Profile, element: Element, rows: usize, row: fn(usize) -> (f64, [f64; 7])) -> Profile {
    let rows: Vec<_> = (0..rows).map(row).collect();
    let proba: Vec<f64> = rows.iter().flat_map(|(p, _)| [1.0 - p, *p]).collect();
    let features: Vec<f64> = rows.iter().flat_map(|(_, features)| *features).collect();
    let [proba, features] = [(&proba, 2), (&features, FEATURES.len())]
        .map(|(values, width)| ArrayView2::from_shape((rows.len(), width), values.as_slice()).unwrap());
    macro_rules! feed {
        ($as:ident, $to:expr) => {{
            let [proba, features]: [Array2<_>; 2] = [proba.mapv($to), features.mapv($to)];
            let (proba, features) = (Columns::$as(proba.view()), Columns::$as(features.view()));
            profile.update(&Rows {
                count: rows.len(),
                probabilities: Some(proba),
                features: Some(features),
                ..Rows::default()
            });
        }};
    }
    match element {
        Element::F64 => feed!(F64, |x| x),
        Element::F32 => feed!(F32, |x| x as f32),
        Element::F16 => feed!(F16, f16::from_f64),
        Element::BF16 => feed!(BF16, bf16::from_f64),
    }
    profile
}

fn empty(frozen: Option<&Frozen>) -> Profile {
    Profile::new(spec(), 10_000, 1).counting_in(frozen)
}

fn judged(reference: &Reference, profile: &Profile) -> Drift {
    drift(&OrderedSample::of(profile, Some(reference)), &DriftSettings::default()).unwrap()
}

#[test]
fn in_any_rounding_the_same_data_is_no_drift_and_other_data_is() {
    for then in Element::ALL {
        let reference = Reference::of(&fed(empty(None), then, 5000, usual));
        let reference = Reference::from_bytes(&reference.to_bytes()).unwrap();
        let frozen = reference.frozen(&spec());
        for now in Element::ALL {
            let same = judged(&reference, &fed(empty(Some(&frozen)), now, 1000, usual));
            for column in same.columns.iter().filter(|column| column.reason.is_none()) {
                assert_eq!(column.verdict, Some(Verdict::Ok), "{then:?} {now:?} {column:#?}");
                assert!(column.out_of_range.unwrap_or(0) == 0, "{then:?} {now:?} {column:#?}");
            }
            assert_eq!((same.monitored, same.verdict), (FEATURES.len() as u64, Some(Verdict::Ok)));
            let other = judged(&reference, &fed(empty(Some(&frozen)), now, 1000, moved));
            for column in other.columns.iter().filter(|column| column.reason.is_none()) {
                assert!(column.verdict > Some(Verdict::Ok), "{then:?} {now:?} {column:#?}");
            }
        }
    }
}

#[test]
fn several_roundings_in_one_period_and_in_one_reference_are_no_drift_either() {
    let both = |frozen: Option<&Frozen>| fed(fed(empty(frozen), Element::F64, 1000, usual), Element::F32, 1000, usual);
    let references = [Element::F64, Element::F32].map(|then| Reference::of(&fed(empty(None), then, 3000, usual)));
    let merged = Reference::merge(&references, None).unwrap();
    for reference in references.iter().chain([&merged, &Reference::of(&both(None))]) {
        let frozen = reference.frozen(&spec());
        let profiles = Element::ALL.map(|now| fed(empty(Some(&frozen)), now, 1000, usual));
        for profile in profiles.iter().chain([&both(Some(&frozen))]) {
            let drift = judged(reference, profile);
            assert_eq!(drift.verdict, Some(Verdict::Ok), "{:?} {drift:#?}", profile.elements);
        }
    }
}

/// Softmax of logits that are spread so far: nearly all of it on one class, or on none.
fn of_softmax(mut profile: Profile, element: Element, rows: Range<usize>, spread: f64) -> Profile {
    let classes = profile.spec.classes.len();
    let logits = |i: usize| (0..classes).map(move |k| spread * noise(i * classes + k + 1, 0.618_033_988_749_895));
    let softmax = |i: usize| {
        let weights: Vec<f64> = logits(i).map(f64::exp).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(move |weight| weight / sum)
    };
    let count = rows.len();
    let wide = Array2::from_shape_vec((count, classes), rows.flat_map(softmax).collect()).unwrap();
    let mut feed = |probabilities| {
        profile.update(&Rows { count, probabilities: Some(probabilities), ..Rows::default() });
    };
    match element {
        Element::F64 => feed(Columns::F64(wide.view())),
        Element::F32 => feed(Columns::F32(wide.mapv(|x| x as f32).view())),
        Element::F16 => feed(Columns::F16(wide.mapv(f16::from_f64).view())),
        Element::BF16 => feed(Columns::BF16(wide.mapv(bf16::from_f64).view())),
    }
    profile
}

#[test]
fn margins_and_entropies_of_rounded_probabilities_are_no_drift() {
    for (classes, spread) in [(2, 40.0), (3, 1.0), (3, 12.0), (10, 25.0), (100, 8.0)] {
        let spec = Arc::new(Spec { classes: (0..classes).map(|k| k.to_string()).collect(), ..Spec::default() });
        let empty = || Profile::new(spec.clone(), 5000, 1);
        for then in Element::ALL {
            let reference = Reference::of(&of_softmax(empty(), then, 0..1000, spread));
            let frozen = reference.frozen(&spec);
            let against = |now, spread| {
                let profile = of_softmax(empty().counting_in(Some(&frozen)), now, 0..1000, spread);
                judged(&reference, &profile).columns.into_iter().filter(|column| column.verdict.is_some())
            };
            for now in Element::ALL {
                for column in against(now, spread) {
                    assert_eq!(column.verdict, Some(Verdict::Ok), "{classes} {spread} {then:?} {now:?} {column:#?}");
                    assert!(column.ks.value.is_none_or(|ks| ks < 1e-9), "the same rows: {column:#?}");
                }
                let other: Vec<_> =
                    against(now, spread / 3.0).filter(|column| column.verdict > Some(Verdict::Ok)).collect();
                for of in [ColumnKind::Confidence, ColumnKind::Margin, ColumnKind::Entropy] {
                    assert!(other.iter().any(|column| column.of == of), "{classes} {spread} {then:?} {now:?} {of:?}");
                }
            }
        }
    }
}

#[test]
fn in_the_same_rounding_nothing_is_the_least_that_it_can_be() {
    for element in Element::ALL {
        let reference = Reference::of(&fed(empty(None), element, 2000, usual));
        let frozen = reference.frozen(&spec());
        let drift = judged(&reference, &fed(empty(Some(&frozen)), element, 1000, usual));
        assert!(drift.columns.iter().all(|column| !column.at_least));
    }
}

#[test]
fn a_class_that_rounding_decides_is_no_drift() {
    let spec = Arc::new(Spec { classes: ["a", "b", "c"].map(String::from).to_vec(), ..Spec::default() });
    // .3 and 1 − .7 are the same as f32 and not as f64: the first of the largest is another one.
    let usual = |narrow| fed_rows(Profile::new(spec.clone(), 1000, 1), narrow, false);
    let [of_wide, of_narrow] = [false, true].map(|narrow| Reference::of(&usual(narrow)));
    for (reference, narrow) in [(&of_wide, true), (&of_narrow, false)] {
        let frozen = reference.frozen(&spec);
        let counted = |sure| fed_rows(Profile::new(spec.clone(), 1000, 1).counting_in(Some(&frozen)), narrow, sure);
        assert_ne!(counted(false).predictions.class_counts, usual(!narrow).predictions.class_counts);
        let predicted = |sure| judged(reference, &counted(sure)).columns[0].verdict;
        assert_eq!((predicted(false), predicted(true)), (Some(Verdict::Ok), Some(Verdict::Alert)));
    }
}

fn fed_rows(mut profile: Profile, narrow: bool, sure: bool) -> Profile {
    let undecided = [0.3, 0.2, 1.0 - 0.7];
    let decided = |i: usize| if sure { [0.1, 0.1, 0.8] } else { [[0.7, 0.2, 0.1], [0.2, 0.6, 0.2]][i % 2] };
    let values: Vec<f64> = (0..1000).flat_map(|i| if i % 4 == 0 { undecided } else { decided(i) }).collect();
    let wide = ArrayView2::from_shape((1000, 3), values.as_slice()).unwrap();
    let single = wide.mapv(|p| p as f32);
    let probabilities = if narrow { Columns::F32(single.view()) } else { Columns::F64(wide) };
    profile.update(&Rows { count: 1000, probabilities: Some(probabilities), ..Rows::default() });
    profile
}
