//! What the rows of a batch are classified as: a column for each thing that is said of a row.

use super::scalar::Lane;
use super::side_by_side::Lanes;
use super::{Flaw, Prediction};

/// Instead of a class.
const NONE: u32 = u32::MAX;

/// Of the rows of one batch; cleared and filled again for its memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classified {
    /// Of each row; [`NONE`] of one that has none.
    classes: Vec<u32>,
    /// The largest probability of each row with a class.
    pub confidence: Vec<f64>,
    /// Largest minus second largest of the same rows.
    pub margin: Vec<f64>,
    /// How undecided the same rows are.
    pub entropy: Vec<f64>,
    /// Rows whose largest probability stands more than once.
    pub ties: u64,
    /// What is wrong with which row, in their order; a row may have two flaws.
    pub flaws: Vec<(u32, Flaw)>,
}

impl Classified {
    /// Forgets the batch.
    pub fn clear(&mut self) {
        let Classified { classes, confidence, margin, entropy, ties, flaws } = self;
        classes.clear();
        [confidence, margin, entropy].into_iter().for_each(Vec::clear);
        *ties = 0;
        flaws.clear();
    }

    /// Of each row the class, if it has a valid prediction.
    pub fn classes(&self) -> impl Iterator<Item = Option<usize>> {
        self.classes.iter().map(|class| (*class != NONE).then_some(*class as usize))
    }

    /// Of one row.
    pub fn class(&self, row: usize) -> Option<usize> {
        self.classes.get(row).filter(|class| **class != NONE).map(|class| *class as usize)
    }

    /// The next row, of which only the class is known.
    pub fn push_class(&mut self, class: Option<usize>) {
        self.classes.push(class.map_or(NONE, |class| class as u32));
    }

    pub(super) fn rows(&self) -> usize {
        self.classes.len()
    }

    /// Room for so many rows more, and for no others.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.classes.reserve_exact(rows);
        let columns = [&mut self.confidence, &mut self.margin, &mut self.entropy];
        columns.into_iter().for_each(|column| column.reserve_exact(rows));
    }

    /// The next `n` rows, none with a flaw.
    #[inline(always)]
    pub(super) fn extend<L: Lane>(&mut self, rows: &Lanes<L>, n: usize, columns: usize, threshold: f64) {
        self.classes.extend_from_slice(&rows.classes(columns, threshold)[..n]);
        self.confidence.extend_from_slice(&rows.confidences()[..n]);
        self.margin.extend_from_slice(&rows.margins(columns)[..n]);
        self.entropy.extend_from_slice(&rows.entropies()[..n]);
        self.ties += rows.ties(n, columns);
    }

    /// The next row; its sum may be off 1 by `tolerance`.
    pub(super) fn push(&mut self, said: Result<Prediction, Flaw>, entropy: f64, tolerance: f64) {
        let row = self.rows() as u32;
        self.push_class(said.ok().map(|p| p.class));
        let p = match said {
            Ok(p) => p,
            Err(flaw) => return self.flaws.push((row, flaw)),
        };
        self.confidence.push(p.confidence);
        self.margin.push(p.margin);
        self.entropy.push(entropy);
        self.ties += u64::from(p.tie);
        if p.out_of_range {
            self.flaws.push((row, Flaw::OutOfRange));
        }
        if (p.sum - 1.0).abs() > tolerance {
            self.flaws.push((row, Flaw::NotNormalised));
        }
    }
}
