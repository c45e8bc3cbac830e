//! What a model was fed, over every row.

use super::{Embeddings, Spec};
use crate::stats::{Categories, Columns, Moments, Scalar, with_view};
use serde::{Deserialize, Serialize};

/// The inputs of a period.
#[derive(Debug, Serialize, Deserialize)]
pub struct Features {
    /// Of each feature.
    pub moments: Moments,
    /// Of each categorical feature; `None` for numerical ones.
    pub categories: Vec<Option<Categories>>,
    /// Those that form vectors.
    pub embeddings: Embeddings,
}

impl Features {
    pub(super) fn new(spec: &Spec) -> Features {
        let categories = spec.features.iter().map(|f| f.categorical.then(Categories::default)).collect();
        let moments = Moments::new(spec.features.len());
        Features { moments, categories, embeddings: Embeddings::new(&spec.embeddings) }
    }

    /// Whether it is for these features: what comes from a file may not be.
    pub(super) fn fits(&self, spec: &Spec) -> bool {
        let kinds = spec.features.iter().map(|f| f.categorical);
        self.moments.fits(spec.features.len())
            && self.embeddings.fits(&spec.embeddings)
            && self.categories.iter().map(Option::is_some).eq(kinds)
            && self.categories.iter().flatten().all(Categories::fits)
    }

    pub(super) fn update(&mut self, columns: &Columns<'_>) {
        self.moments.update(columns);
        self.embeddings.update(columns);
        for (column, categories) in self.categories.iter_mut().enumerate() {
            if let Some(categories) = categories {
                with_view!(columns, view => view.column(column).iter().for_each(|x| categories.add(x.widen())));
            }
        }
    }
}
