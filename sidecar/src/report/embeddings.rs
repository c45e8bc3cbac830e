//! What a model was fed as vectors.

use super::Summary;
use crate::profile::Profile;
use crate::stats::norm;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Embedding {
    pub name: String,
    pub first_feature: usize,
    pub dimensions: usize,
    pub incomplete_rows: u64,
    pub norm: Summary,
}

pub(super) fn embeddings(profile: &Profile) -> Vec<Embedding> {
    let spec = &profile.spec;
    let blocks = spec.embeddings.iter().zip(profile.features.embeddings.norms.columns()).enumerate();
    let mut norms = sampled_norms(profile);
    blocks
        .map(|(i, (block, moment))| Embedding {
            name: block.name.clone(),
            first_feature: block.columns.start,
            dimensions: block.columns.len(),
            incomplete_rows: moment.nan,
            norm: Summary::of(&moment, std::mem::take(&mut norms[i])),
        })
        .collect()
}

/// Of each embedding, the finite norms of the sampled rows.
fn sampled_norms(profile: &Profile) -> Vec<Vec<f64>> {
    let blocks = &profile.spec.embeddings;
    let mut norms = vec![Vec::new(); blocks.len()];
    if !blocks.is_empty() {
        profile.sample.features.for_each_row(|row| {
            for (norms, block) in norms.iter_mut().zip(blocks) {
                norms.extend(row.get(block.columns.clone()).and_then(norm).filter(|norm| norm.is_finite()));
            }
        });
    }
    norms
}
