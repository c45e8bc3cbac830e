//! The profile that others are compared with: frozen bins, steps of each column's distribution, moments and class counts.
//!
//! It is made once, from a profile, and never changes: whatever is compared with it is counted in the same bins.

mod bands;
mod columns;
mod file;
mod joined;
mod library;
mod merge;
mod quality;

pub use bands::Band;
pub use columns::{BOUNDED_AT, Categorical, Column, Numerical, Shape};
pub use file::{FileError, MOST_BYTES};
pub use library::{Library, LibraryError, Watch};
pub use merge::{MergeError, Mismatch};
pub use quality::Quality;

use crate::profile::{Frozen, Profile, SampledAnswers, Spec};
use crate::stats::{Calibration, ColumnEdges, Edges, Element, Elements, Made, Moment, Moments, Values};
use serde::{Deserialize, Serialize};

/// What a model was like when all was well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// Checksum of its file.
    #[serde(skip)]
    id: u32,
    /// Of this model.
    pub model: String,
    /// Of this version; empty: of any.
    pub version: String,
    /// The first section holds outputs, not class probabilities.
    pub regression: bool,
    /// Two classes: class 1 is predicted when p₁ exceeds it.
    pub threshold: f64,
    /// Rows it was made from.
    pub rows: u64,
    /// Rows predicted as each class, by name.
    pub predicted: Vec<(String, u64)>,
    /// Rows whose label is each class; empty without labels.
    pub actual: Vec<(String, u64)>,
    /// Of each class's probability, or each output.
    pub probabilities: Vec<Column>,
    /// Of the largest probability of a row, and its distance to the second largest; `None` for a regression or without classes.
    pub confidence: Option<Column>,
    /// Largest minus second largest.
    pub margin: Option<Column>,
    /// How undecided each row is.
    pub entropy: Option<Column>,
    /// Of each feature.
    pub features: Vec<Column>,
    /// Made from rows. Else distributions are interpolated: merged from several references, or between the quantiles of reports.
    pub exact: bool,
    /// How much the numbers of a report went up and down over its periods, by path.
    pub bands: Vec<Band>,
    /// How right the model was; `None` without labels.
    pub quality: Option<Quality>,
    /// What its probabilities mean, as follows from its quality; `None` if that is best taken to be what they say.
    #[serde(skip)]
    pub calibration: Option<Calibration>,
}

/// What is known of a model whose rows nobody has.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "as in a Reference")]
pub struct Interpolated {
    pub rows: u64,
    pub predicted: Vec<(String, u64)>,
    pub actual: Vec<(String, u64)>,
    pub probabilities: Vec<Column>,
    pub confidence: Option<Column>,
    pub margin: Option<Column>,
    pub entropy: Option<Column>,
    pub features: Vec<Column>,
}

impl Reference {
    /// Of numbers that others have told. `None` if they contradict each other.
    pub fn interpolated(spec: &Spec, told: Interpolated) -> Option<Reference> {
        let reference = Reference {
            id: 0,
            model: spec.model.clone(),
            version: spec.version.clone(),
            regression: spec.regression,
            threshold: spec.threshold,
            rows: told.rows,
            predicted: told.predicted,
            actual: told.actual,
            probabilities: told.probabilities,
            confidence: told.confidence,
            margin: told.margin,
            entropy: told.entropy,
            features: told.features,
            exact: false,
            bands: Vec::new(),
            quality: None,
            calibration: None,
        };
        let reference = reference.complete();
        reference.is_sound().then_some(reference)
    }

    /// Freezes a profile. Bins and steps are those of its sample, moments are over every row.
    pub fn of(profile: &Profile) -> Reference {
        let spec = &profile.spec;
        let classified = !spec.regression && !spec.classes.is_empty();
        let SampledAnswers { confidence, margin, entropy } = profile.sampled_answers();
        let elements = profile.elements.probabilities;
        let of_rows =
            |name, moments: &Moments, sample| Column::numerical(name, &moments.columns()[0], elements, sample);
        let predictions = &profile.predictions;
        let reference = Reference {
            id: 0,
            model: spec.model.clone(),
            version: spec.version.clone(),
            regression: spec.regression,
            threshold: spec.threshold,
            rows: profile.rows,
            predicted: if classified { named(spec, predictions.class_counts.iter().copied()) } else { Vec::new() },
            actual: if profile.quality.outcomes.rows() > 0 {
                named(spec, profile.quality.outcomes.classes().map(|class| class.support))
            } else {
                Vec::new()
            },
            probabilities: probabilities(profile),
            confidence: classified.then(|| of_rows("confidence", &predictions.confidence, confidence)),
            margin: classified.then(|| of_rows("margin", &predictions.margin, margin)),
            entropy: classified.then(|| of_rows("entropy", &predictions.entropy, entropy)),
            features: features(profile),
            exact: true,
            bands: Vec::new(),
            quality: if classified { Quality::of(profile) } else { None },
            calibration: None,
        };
        reference.complete()
    }

    /// The same with what follows from the rest, after a change of it: its calibration, and its checksum.
    fn complete(mut self) -> Reference {
        self.calibration = self.quality.as_ref().and_then(Quality::calibration);
        self.id = self.checksum();
        self
    }

    /// The same with what each feature's values were, which makes it another one. Of none they are what they were read as.
    pub fn with_feature_elements(mut self, elements: &[Element]) -> Reference {
        self.features.iter_mut().zip(elements).for_each(|(column, element)| column.elements = Elements::of(*element));
        self.id = self.checksum();
        self
    }

    /// The same with bands, which makes it another one.
    pub fn with_bands(mut self, bands: Vec<Band>) -> Reference {
        self.bands = bands;
        self.id = self.checksum();
        self
    }

    /// What reports call it.
    pub fn id(&self) -> String {
        format!("{:08x}", self.id)
    }

    /// What the number at this path of a report was over its own periods.
    pub fn band(&self, path: &str) -> Option<&Band> {
        let at = self.bands.binary_search_by(|band| band.path.as_str().cmp(path)).ok()?;
        self.bands.get(at)
    }

    /// The feature of this name, if it is of the same kind.
    pub fn feature(&self, name: &str, categorical: bool) -> Option<&Column> {
        let found = self.features.iter().find(|column| column.name == name)?;
        (matches!(found.shape, Shape::Categorical(_)) == categorical).then_some(found)
    }

    /// The class's probability, or the output of this name.
    pub fn probability(&self, name: &str) -> Option<&Column> {
        self.probabilities.iter().find(|column| column.name == name)
    }

    /// The bins in which profiles of `spec` are to be counted: columns are matched by name and kind.
    pub fn frozen(&self, spec: &Spec) -> Frozen {
        let one = |column: &Option<Column>, made| Edges::new(&[edges(column.as_ref(), made)]).into();
        let probabilities: Vec<_> = spec.classes.iter().map(|name| edges(self.probability(name), Made::Read)).collect();
        let columns = || spec.features.iter().map(|feature| self.feature(&feature.name, feature.categorical));
        let features: Vec<_> = columns().map(|column| edges(column, Made::Read)).collect();
        let values = |column: &Column| {
            let known = column.as_categorical()?.values.iter().map(|(value, _)| *value);
            Some(Values::new(known, column.elements).into())
        };
        Frozen {
            reference: self.id,
            probabilities: Edges::new(&probabilities).into(),
            features: Edges::new(&features).into(),
            categories: columns().map(|column| values(column?)).collect(),
            confidence: one(&self.confidence, Made::Read),
            margin: one(&self.margin, self.margin_made()),
            entropy: one(&self.entropy, self.entropy_made()),
            learned: self.learned(spec).map(Into::into),
        }
    }

    /// How margins come about.
    pub fn margin_made(&self) -> Made {
        Made::margins(&self.moments())
    }

    /// How entropies do.
    pub fn entropy_made(&self) -> Made {
        Made::entropies(&self.moments())
    }

    fn moments(&self) -> Vec<Moment> {
        self.probabilities.iter().map(|column| column.moment).collect()
    }

    /// The share of its rows whose class may be another one where the probabilities of `spec` are rounded to other elements: they lie at
    /// the threshold, or two classes are as likely.
    pub fn undecided(&self, spec: &Spec, now: Elements) -> f64 {
        let near = |column: Option<&Column>, made: Made, x: f64, may_equal: bool| {
            let Some((column, numerical)) = column.and_then(|column| Some((column, column.as_numerical()?))) else {
                return 0.0;
            };
            let slack = column.elements.slack(now, made);
            if slack.is_none() {
                return 0.0;
            }
            let from = if may_equal { slack.below(x).next_down() } else { x };
            numerical.steps.share_at(slack.above(x)) - numerical.steps.share_at(from)
        };
        match spec.classes.as_slice() {
            [_, yes] => near(self.probability(yes), Made::Read, self.threshold, true),
            // Numbers that are the same stay so.
            _ => near(
                self.margin.as_ref(),
                self.margin_made(),
                0.0,
                !self.margin.as_ref().is_some_and(|of| of.elements.are_f64()),
            ),
        }
    }

    /// Whether a profile was counted in its bins.
    pub fn froze(&self, profile: &Profile) -> bool {
        profile.bins.as_ref().is_some_and(|bins| bins.reference() == self.id)
    }
}

fn edges(column: Option<&Column>, made: Made) -> ColumnEdges<'_> {
    column.map_or(ColumnEdges::as_they_are(&[]), |column| column.to_count_in(made))
}

fn named(spec: &Spec, counts: impl Iterator<Item = u64>) -> Vec<(String, u64)> {
    spec.classes.iter().cloned().zip(counts).collect()
}

fn probabilities(profile: &Profile) -> Vec<Column> {
    let (moments, elements) = (profile.predictions.probabilities.columns(), profile.elements.probabilities);
    let columns = profile.spec.classes.iter().zip(moments).enumerate();
    columns
        .map(|(k, (name, moment))| {
            Column::numerical(name, &moment, elements, profile.sample.probabilities.finite_column(k))
        })
        .collect()
}

fn features(profile: &Profile) -> Vec<Column> {
    let (moments, elements) = (profile.features.moments.columns(), profile.elements.features);
    let columns = profile.spec.features.iter().zip(moments).zip(&profile.features.categories).enumerate();
    columns
        .map(|(j, ((feature, moment), categories))| match categories {
            Some(categories) => Column::categorical(&feature.name, &moment, elements, categories),
            None => Column::numerical(&feature.name, &moment, elements, profile.sample.features.finite_column(j)),
        })
        .collect()
}
