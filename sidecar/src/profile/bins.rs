//! A period's rows counted in the bins that a reference has frozen.

use super::Learned;
use crate::stats::{BinCounts, Classified, Columns, Edges, Scalar, ValueCounts, Values, with_view};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The edges and values of a reference, in the order of a spec's columns.
#[derive(Clone, Debug)]
pub struct Frozen {
    /// Which reference.
    pub reference: u32,
    /// Of each class's probability, or each output.
    pub probabilities: Arc<Edges>,
    /// Of each feature.
    pub features: Arc<Edges>,
    /// Of each feature that is categorical in both.
    pub categories: Vec<Option<Arc<Values>>>,
    /// One column.
    pub confidence: Arc<Edges>,
    /// One column.
    pub margin: Arc<Edges>,
    /// One column.
    pub entropy: Arc<Edges>,
    /// What follows from its labels, if it has any.
    pub learned: Option<Arc<Learned>>,
}

/// Counts in the bins of one reference.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bins {
    reference: u32,
    /// Of each class's probability, or each output.
    pub probabilities: BinCounts,
    /// Of each feature; nothing for categorical ones.
    pub features: BinCounts,
    /// Of each feature that is categorical in both.
    pub categories: Vec<Option<ValueCounts>>,
    /// Of the rows with a class.
    pub confidence: BinCounts,
    /// Of the rows with a class.
    pub margin: BinCounts,
    /// Of the rows with a class.
    pub entropy: BinCounts,
}

impl Bins {
    pub(super) fn new(frozen: &Frozen) -> Bins {
        Bins {
            reference: frozen.reference,
            probabilities: BinCounts::new(frozen.probabilities.clone()),
            features: BinCounts::new(frozen.features.clone()),
            categories: frozen.categories.iter().map(|values| values.clone().map(ValueCounts::new)).collect(),
            confidence: BinCounts::new(frozen.confidence.clone()),
            margin: BinCounts::new(frozen.margin.clone()),
            entropy: BinCounts::new(frozen.entropy.clone()),
        }
    }

    /// Which reference froze them.
    pub fn reference(&self) -> u32 {
        self.reference
    }

    /// What was serialized, once more in use. `None` if another reference froze them.
    pub(super) fn revived(self, frozen: &Frozen) -> Option<Bins> {
        if self.reference != frozen.reference {
            return None;
        }
        Some(Bins {
            reference: self.reference,
            probabilities: self.probabilities.with_edges(frozen.probabilities.clone())?,
            features: self.features.with_edges(frozen.features.clone())?,
            categories: revived(self.categories, &frozen.categories)?,
            confidence: self.confidence.with_edges(frozen.confidence.clone())?,
            margin: self.margin.with_edges(frozen.margin.clone())?,
            entropy: self.entropy.with_edges(frozen.entropy.clone())?,
        })
    }

    pub(super) fn count_predictions(&mut self, probabilities: &Columns<'_>, classified: &Classified) {
        self.probabilities.update(probabilities);
        let element = probabilities.element();
        self.confidence.update_computed(&classified.confidence, element);
        self.margin.update_computed(&classified.margin, element);
        self.entropy.update_computed(&classified.entropy, element);
    }

    pub(super) fn count_features(&mut self, columns: &Columns<'_>) {
        self.features.update(columns);
        let element = columns.element();
        for (column, counts) in self.categories.iter_mut().enumerate() {
            if let Some(counts) = counts {
                with_view!(columns, view => view.column(column).iter().for_each(|x| counts.add(x.widen(), element)));
            }
        }
    }
}

fn revived(counts: Vec<Option<ValueCounts>>, frozen: &[Option<Arc<Values>>]) -> Option<Vec<Option<ValueCounts>>> {
    let revive = |(counts, values): (Option<ValueCounts>, &Option<Arc<Values>>)| match (counts, values) {
        (Some(counts), Some(values)) => counts.with_values(values.clone()).map(Some),
        (None, None) => Some(None),
        _ => None,
    };
    let is_as_long = counts.len() == frozen.len();
    counts.into_iter().zip(frozen).map(revive).collect::<Option<_>>().filter(|_| is_as_long)
}
