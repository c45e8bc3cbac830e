//! What one row looks like: the schema's bytes in, a checked [`Schema`] out.

use super::wire::{self, SchemaHead, section};
use serde::Serialize;
use std::ops::Range;
use std::time::Duration;
use thiserror::Error;

/// Element type of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named by themselves")]
pub enum DType {
    F16,
    BF16,
    F32,
    F64,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> u64 {
        match self {
            DType::F16 | DType::BF16 => 2,
            DType::F32 => 4,
            DType::F64 => 8,
        }
    }
}

/// What the model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// The first section holds class probabilities.
    Classification,
    /// The first section holds outputs.
    Regression,
}

/// How a feature's values are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureKind {
    /// A quantity.
    Numerical,
    /// A code.
    Categorical,
    /// A coordinate of a vector, which ends where the kind does, or the name's stem changes.
    Embedding,
}

/// Whose statistics are to be kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentBy {
    /// Of each value of this feature, which is categorical.
    Feature(usize),
    /// As the records' section says.
    Row,
}

/// Who writes a ring, and the shape of its rows. Names are filled in: an unnamed class is `class_<i>`, a feature `feat_<i>`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/wire-format.md documents each field")]
pub struct Schema {
    pub model: String,
    pub version: String,
    pub instance: String,
    pub task: Task,
    pub proba_dtype: DType,
    pub feature_dtype: DType,
    pub threshold: f64,
    /// The producer's wish.
    pub period: Option<Duration>,
    /// The producer's wish.
    pub reservoir_rows: Option<u64>,
    pub class_names: Vec<String>,
    pub feature_names: Vec<String>,
    pub feature_kinds: Vec<FeatureKind>,
    pub segment_by: Option<SegmentBy>,
}

/// Why the schema of a ring was refused.
#[derive(Debug, Error, PartialEq)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum SchemaError {
    #[error("the schema ends early: {need} bytes needed at {at}, {len} in all")]
    Short { at: usize, need: usize, len: usize },
    #[error("{0} bytes follow the schema's last name")]
    Trailing(usize),
    #[error("dtype {0} is not known")]
    DType(u8),
    #[error("task {0} is not known")]
    Task(u8),
    #[error("feature kind {0} is not known")]
    FeatureKind(u8),
    #[error("the segments are by feature {0}, which is not a categorical one")]
    SegmentBy(u32),
    #[error(
        "{classes} classes and {features} features; want at most {} and {}, and not none of both",
        wire::MAX_CLASSES,
        wire::MAX_FEATURES
    )]
    Columns { classes: u32, features: u32 },
    #[error("the threshold is not a finite number")]
    Threshold,
    #[error("a name is not UTF-8, holds NUL, or is longer than {} bytes", wire::MAX_NAME)]
    Name,
    #[error("the model has no name")]
    Model,
}

impl Schema {
    /// Every byte is checked: lengths, enumerations, UTF-8, and that nothing is left over.
    pub fn parse(bytes: &[u8]) -> Result<Schema, SchemaError> {
        let mut reader = Reader { bytes, at: 0 };
        let head: SchemaHead = bytemuck::pod_read_unaligned(reader.take(size_of::<SchemaHead>())?);
        let (classes, features) = (head.n_classes, head.n_features);
        if classes > wire::MAX_CLASSES || features > wire::MAX_FEATURES || (classes, features) == (0, 0) {
            return Err(SchemaError::Columns { classes, features });
        }
        if !head.threshold.is_finite() {
            return Err(SchemaError::Threshold);
        }
        let feature_kinds: Vec<FeatureKind> =
            reader.take(features as usize)?.iter().map(|&kind| feature_kind(kind)).collect::<Result<_, _>>()?;
        let segment_by = segment_by(head.segment_by, &feature_kinds)?;
        let model = reader.name()?;
        if model.is_empty() {
            return Err(SchemaError::Model);
        }
        let schema = Schema {
            model,
            version: reader.name()?,
            instance: reader.name()?,
            task: task(head.task)?,
            proba_dtype: dtype(head.proba_dtype)?,
            feature_dtype: dtype(head.feature_dtype)?,
            threshold: head.threshold,
            period: (head.period_ns > 0).then(|| Duration::from_nanos(head.period_ns)),
            reservoir_rows: (head.reservoir_rows > 0).then_some(head.reservoir_rows),
            class_names: reader.names(classes, "class")?,
            feature_names: reader.names(features, "feat")?,
            feature_kinds,
            segment_by,
        };
        match bytes.len() - reader.at {
            0 => Ok(schema),
            extra => Err(SchemaError::Trailing(extra)),
        }
    }

    /// Bytes one row takes in the section, or `None` where this schema has no such section.
    pub fn row_bytes(&self, section: u16) -> Option<u64> {
        let classes = self.class_names.len() as u64;
        let classification = self.task == Task::Classification;
        let bytes = match section {
            section::PROBABILITIES => classes * self.proba_dtype.size(),
            section::FEATURES => self.feature_names.len() as u64 * self.feature_dtype.size(),
            section::LABELS if classification => 4,
            section::LABEL_SETS if classification => classes,
            section::TARGETS if !classification => classes * 8,
            section::IDS => 8,
            section::SEGMENTS if self.segment_by == Some(SegmentBy::Row) => 2,
            _ => 0,
        };
        (bytes > 0).then_some(bytes)
    }

    /// Stem and columns of each embedding.
    pub fn embeddings(&self) -> Vec<(&str, Range<usize>)> {
        let mut all: Vec<(&str, Range<usize>)> = Vec::new();
        for (column, (name, kind)) in self.feature_names.iter().zip(&self.feature_kinds).enumerate() {
            match all.last_mut() {
                _ if *kind != FeatureKind::Embedding => {}
                Some((last, columns)) if columns.end == column && *last == stem(name) => columns.end += 1,
                _ => all.push((stem(name), column..column + 1)),
            }
        }
        all
    }
}

/// A coordinate's name without its number: `e` of `e_7`, `e.7` and `e[7]`. The whole name where it has none.
fn stem(name: &str) -> &str {
    let bare = name.strip_suffix(']').unwrap_or(name);
    let before = bare.trim_end_matches(|c: char| c.is_ascii_digit());
    let opening = if bare.len() < name.len() { &['['][..] } else { &['_', '.'][..] };
    before.strip_suffix(opening).filter(|stem| before.len() < bare.len() && !stem.is_empty()).unwrap_or(name)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, need: usize) -> Result<&'a [u8], SchemaError> {
        let short = SchemaError::Short { at: self.at, need, len: self.bytes.len() };
        let taken = self.bytes[self.at..].get(..need).ok_or(short)?;
        self.at += need;
        Ok(taken)
    }

    fn name(&mut self) -> Result<String, SchemaError> {
        let len: u16 = bytemuck::pod_read_unaligned(self.take(2)?);
        if usize::from(len) > wire::MAX_NAME {
            return Err(SchemaError::Name);
        }
        let text = std::str::from_utf8(self.take(len.into())?).map_err(|_| SchemaError::Name)?;
        if text.contains('\0') { Err(SchemaError::Name) } else { Ok(text.to_owned()) }
    }

    fn names(&mut self, count: u32, unnamed: &str) -> Result<Vec<String>, SchemaError> {
        let or_default = |(i, name): (u32, String)| if name.is_empty() { format!("{unnamed}_{i}") } else { name };
        (0..count).map(|i| self.name().map(|name| or_default((i, name)))).collect()
    }
}

fn dtype(code: u8) -> Result<DType, SchemaError> {
    [DType::F16, DType::BF16, DType::F32, DType::F64]
        .get(usize::from(code).wrapping_sub(1))
        .copied()
        .ok_or(SchemaError::DType(code))
}

fn task(code: u8) -> Result<Task, SchemaError> {
    match code {
        1 => Ok(Task::Classification),
        2 => Ok(Task::Regression),
        _ => Err(SchemaError::Task(code)),
    }
}

fn feature_kind(code: u8) -> Result<FeatureKind, SchemaError> {
    match code {
        0 => Ok(FeatureKind::Numerical),
        1 => Ok(FeatureKind::Categorical),
        2 => Ok(FeatureKind::Embedding),
        _ => Err(SchemaError::FeatureKind(code)),
    }
}

fn segment_by(code: u32, kinds: &[FeatureKind]) -> Result<Option<SegmentBy>, SchemaError> {
    let feature = code.wrapping_sub(1) as usize;
    match code {
        0 => Ok(None),
        wire::SEGMENT_BY_ROW => Ok(Some(SegmentBy::Row)),
        _ if kinds.get(feature) == Some(&FeatureKind::Categorical) => Ok(Some(SegmentBy::Feature(feature))),
        _ => Err(SchemaError::SegmentBy(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Vec<u8> {
        let head = SchemaHead {
            n_classes: 2,
            n_features: 1,
            proba_dtype: 3,
            feature_dtype: 4,
            task: 1,
            threshold: 0.3,
            ..bytemuck::Zeroable::zeroed()
        };
        let mut bytes = bytemuck::bytes_of(&head).to_vec();
        bytes.push(1);
        for name in ["m", "1", "host", "", "dog", ""] {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
        }
        bytes
    }

    #[test]
    fn names_what_the_producer_left_unnamed() {
        let schema = Schema::parse(&small()).unwrap();
        assert_eq!((schema.model.as_str(), schema.version.as_str(), schema.instance.as_str()), ("m", "1", "host"));
        assert_eq!(schema.class_names, ["class_0", "dog"]);
        assert_eq!(schema.feature_names, ["feat_0"]);
        assert_eq!(schema.feature_kinds, [FeatureKind::Categorical]);
        assert_eq!(schema.row_bytes(section::PROBABILITIES), Some(8));
        assert_eq!(schema.row_bytes(section::TARGETS), None);
    }

    #[test]
    fn segments_are_by_a_categorical_feature_or_by_row() {
        let by = |segment_by: u32, kind: u8| {
            let mut bytes = small();
            bytes[40..44].copy_from_slice(&segment_by.to_le_bytes());
            bytes[64] = kind;
            Schema::parse(&bytes).map(|schema| (schema.segment_by, schema.row_bytes(section::SEGMENTS)))
        };
        assert_eq!(by(0, 1), Ok((None, None)));
        assert_eq!(by(1, 1), Ok((Some(SegmentBy::Feature(0)), None)));
        assert_eq!(by(wire::SEGMENT_BY_ROW, 0), Ok((Some(SegmentBy::Row), Some(2))));
        assert_eq!(by(1, 0), Err(SchemaError::SegmentBy(1)));
        assert_eq!(by(2, 1), Err(SchemaError::SegmentBy(2)));
    }

    #[test]
    fn an_embedding_ends_where_the_kind_or_the_stem_does() {
        let mut schema = Schema::parse(&small()).unwrap();
        let (e, n) = (FeatureKind::Embedding, FeatureKind::Numerical);
        let columns = [
            ("a_0", e),
            ("a_1", e),
            ("b[0]", e),
            ("b[1]", e),
            ("age", n),
            ("b[2]", e),
            ("a.9", e),
            ("a.10", e),
            ("x", e),
            ("y", e),
        ];
        schema.feature_names = columns.map(|(name, _)| name.into()).to_vec();
        schema.feature_kinds = columns.map(|(_, kind)| kind).to_vec();
        let embeddings = [("a", 0..2), ("b", 2..4), ("b", 5..6), ("a", 6..8), ("x", 8..9), ("y", 9..10)];
        assert_eq!(schema.embeddings(), embeddings);
        let stems = ["a_0", "a_b_12", "v2_3", "7", "_7", "a7", "a_", "a[1", "a_1]", "ü.1"].map(stem);
        assert_eq!(stems, ["a", "a_b", "v2", "7", "_7", "a7", "a_", "a[1", "a_1]", "ü"]);
    }

    #[test]
    fn refuses_a_schema_cut_anywhere_or_too_long() {
        let whole = small();
        for cut in 0..whole.len() {
            assert!(Schema::parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(Schema::parse(&[whole.as_slice(), &[0]].concat()), Err(SchemaError::Trailing(1)));
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Schema::parse(&bytes);
        }

        #[test]
        fn never_panics_on_a_schema_with_a_flipped_byte(at in 0..100usize, value in any::<u8>()) {
            let mut bytes = small();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = Schema::parse(&bytes);
        }
    }
}
