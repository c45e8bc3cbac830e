//! What the columns of a model mean.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What the columns mean. Streams with equal specs are one model to the reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The model's name.
    pub model: String,
    /// The model's version; may be empty.
    pub version: String,
    /// The first section holds outputs, not class probabilities.
    pub regression: bool,
    /// Two classes: class 1 is predicted when p₁ exceeds it.
    pub threshold: f64,
    /// Names of the classes, or of a regression's outputs.
    pub classes: Vec<String>,
    /// The features, in column order.
    pub features: Vec<Feature>,
    /// The features that form a vector each, ascending.
    pub embeddings: Vec<Block>,
    /// Whose statistics are kept apart.
    pub segments: Option<Segmentation>,
    /// Whose values are all counted in buckets.
    pub histograms: Option<Histogrammed>,
}

/// The columns whose values are all counted in the buckets of a histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogrammed {
    /// An octave has 2^scale buckets.
    pub scale: u8,
    /// Which features, ascending.
    pub features: Vec<Range<usize>>,
    /// Every class's probability, or every output.
    pub predictions: bool,
}

impl Histogrammed {
    /// How many columns there are, with so many classes or outputs, and at which scale.
    pub fn size(histograms: Option<&Histogrammed>, classes: usize) -> (u64, u8) {
        histograms.map_or((0, 0), |histograms| (histograms.columns(classes), histograms.scale))
    }

    fn columns(&self, classes: usize) -> u64 {
        let features = self.features.iter().map(|run| run.len() as u64).sum::<u64>();
        features + if self.predictions { classes as u64 } else { 0 }
    }
}

/// Features that form a vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Block {
    pub name: String,
    pub columns: Range<usize>,
}

/// Whose statistics are kept apart, and of how many at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the type says it")]
pub struct Segmentation {
    pub by: SegmentBy,
    pub most: usize,
}

impl Segmentation {
    /// How many segments there can be: those without one and the further ones have each their own.
    pub fn size(segmentation: Option<Segmentation>) -> u64 {
        segmentation.map_or(0, |segmentation| (segmentation.most as u64).saturating_add(2))
    }
}

/// What says which segment a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentBy {
    /// The value of this feature.
    Feature(usize),
    /// The row itself.
    Row,
}

/// One feature column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Its name.
    pub name: String,
    /// Values are codes to be counted, not quantities.
    pub categorical: bool,
}

/// How many columns there are: what a profile's memory depends on.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named by themselves")]
pub struct Size {
    pub classes: u64,
    pub features: u64,
    /// Of the features.
    pub categorical: u64,
    pub embeddings: u64,
    /// At most; 0 = none are kept apart.
    pub segments: u64,
    /// Columns with a histogram, of classes and features, and its scale.
    pub histograms: (u64, u8),
}

impl Spec {
    /// How many columns there are.
    pub fn size(&self) -> Size {
        let categorical = self.features.iter().filter(|feature| feature.categorical).count() as u64;
        Size {
            classes: self.classes.len() as u64,
            features: self.features.len() as u64,
            categorical,
            embeddings: self.embeddings.len() as u64,
            segments: Segmentation::size(self.segments),
            histograms: Histogrammed::size(self.histograms.as_ref(), self.classes.len()),
        }
    }

    /// For the samples of this model and version: the same rows give the same sample.
    pub fn seed(&self) -> u64 {
        let name = [self.model.as_bytes(), &[0], self.version.as_bytes()].concat();
        u64::from(crc32c::crc32c(&name)) << 32
    }

    /// A checksum of what its producers say of their columns, which the sidecar's settings do not change.
    pub fn columns_id(&self) -> u32 {
        let embeddings = &self.embeddings;
        let by = self.segments.map(|segments| segments.by);
        let columns = (self.regression, self.threshold, &self.classes, &self.features, embeddings, by);
        crc32c::crc32c(&postcard::to_stdvec(&columns).expect("plain data"))
    }

    /// An upper bound of its own memory in bytes: names, and what it takes to keep each.
    pub fn bytes(&self) -> u64 {
        const NAME: u64 = 64; // a String, a flag or columns, and what the allocator adds
        let names = self.classes.iter().chain(self.features.iter().map(|feature| &feature.name));
        let names = names.chain(self.embeddings.iter().map(|block| &block.name));
        let runs = self.histograms.iter().map(|histograms| size_of_val(&*histograms.features) as u64);
        names.map(|name| name.len() as u64 + NAME).sum::<u64>() + runs.sum::<u64>() + 2 * (MOST_NAME + NAME)
    }
}

/// Of a model or a version, in bytes.
const MOST_NAME: u64 = 255;
