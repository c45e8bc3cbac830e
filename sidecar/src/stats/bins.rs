//! How many values of every column lie above each of its frozen edges, over every row.
//!
//! A column's edges ascend: the first stands just below the least value of the reference, the last is its largest, and between them
//! stand its deciles, each different from the others. Bin i holds edge[i−1] < x ≤ edge[i]; the outer bins are open, and ±∞ falls
//! into them. NaN is above nothing: whoever counts missing values takes them out of the first bin.
//!
//! Values that come in another rounding than the edges' are compared with edges that are moved up, the first down, by as much as that
//! may be: whatever lay at or below an edge lies at or below it still.

use super::dispatch::{Kernel, dispatch, prefetch};
use super::scalar::Lane;
use super::{Columns, Element, Elements, Made, Scalar, packed};
use serde::{Deserialize, Serialize};
use std::array::from_fn;
use std::sync::{Arc, OnceLock};

/// Below the least, nine deciles, the largest.
pub const MOST_EDGES: usize = 11;
/// Columns of what is left that are compared together.
const FEW: usize = 4;
/// Bytes of a block of rows.
const BLOCK_BYTES: usize = 16 << 10;
/// Rows of a block, if they are wide: edges are loaded and counts stored once in so many.
const LEAST_ROWS: usize = 32;

/// The edges of all columns of a matrix.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    columns: usize,
    of: Vec<(Vec<f64>, Elements, Made)>,
    /// For each type of elements that came, edge by edge, each for all columns; +∞ where a column has fewer. f32 for what is computed
    /// with in f32: the largest that is not above the edge, so that no comparison differs.
    wide: [OnceLock<Vec<f64>>; Element::ALL.len()],
    narrow: [OnceLock<Vec<f32>>; Element::ALL.len()],
}

/// The edges of a column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnEdges<'a> {
    /// Ascending, at most [`MOST_EDGES`], the first just below the least value; none of a column without a reference.
    pub edges: &'a [f64],
    /// What the values were that they were taken from.
    pub elements: Elements,
    /// How these came about.
    pub made: Made,
}

impl ColumnEdges<'_> {
    /// For values that are what the edges were taken from.
    pub fn as_they_are(edges: &[f64]) -> ColumnEdges<'_> {
        ColumnEdges { edges, elements: Elements::default(), made: Made::Read }
    }
}

impl Edges {
    /// Of each column its edges.
    pub fn new(columns: &[ColumnEdges<'_>]) -> Edges {
        let of = columns.iter().map(|column| {
            let edges = column.edges;
            assert!(edges.len() <= MOST_EDGES && edges.is_sorted(), "checked where they were read");
            (edges.to_vec(), column.elements, column.made)
        });
        Edges { columns: columns.len(), of: of.collect(), ..Edges::default() }
    }

    fn len(&self) -> usize {
        MOST_EDGES * self.columns
    }

    /// For values of this type.
    fn wide(&self, element: Element) -> &[f64] {
        self.wide[element as usize].get_or_init(|| self.against(element))
    }

    fn narrow(&self, element: Element) -> &[f32] {
        self.narrow[element as usize].get_or_init(|| self.against(element).into_iter().map(below_or_at).collect())
    }

    fn against(&self, element: Element) -> Vec<f64> {
        let mut all = vec![f64::INFINITY; self.len()];
        for (column, (edges, elements, made)) in self.of.iter().enumerate() {
            let slack = elements.slack(Elements::of(element), *made);
            for (e, &edge) in edges.iter().enumerate() {
                all[e * self.columns + column] = match e {
                    _ if slack.is_none() => edge,
                    0 => slack.below(edge.next_up()).next_down(),
                    _ => slack.above(edge),
                };
            }
        }
        all
    }
}

/// The largest f32 that is not above `x`.
fn below_or_at(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}

/// Counts over the rows of one matrix. Serialized without the edges.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BinCounts {
    #[serde(skip)]
    edges: Arc<Edges>,
    /// As the edges lie.
    above: Vec<u64>,
}

impl BinCounts {
    /// Of nothing yet.
    pub fn new(edges: Arc<Edges>) -> BinCounts {
        BinCounts { above: vec![0; edges.len()], edges }
    }

    /// What was serialized, with the edges it was counted at. `None` if these are others.
    pub fn with_edges(self, edges: Arc<Edges>) -> Option<BinCounts> {
        (self.above.len() == edges.len()).then_some(BinCounts { edges, ..self })
    }

    /// Adds every row of `matrix`.
    pub fn update(&mut self, matrix: &Columns<'_>) {
        assert_eq!(matrix.width(), self.edges.columns, "the schema fixes the number of columns");
        let (edges, above, element) = (&*self.edges, &mut self.above, matrix.element());
        match matrix {
            Columns::F32(view) => count(packed(view), edges.narrow(element), edges.columns, above),
            Columns::F16(view) => count(packed(view), edges.narrow(element), edges.columns, above),
            Columns::BF16(view) => count(packed(view), edges.narrow(element), edges.columns, above),
            Columns::F64(view) => count(packed(view), edges.wide(element), edges.columns, above),
        }
    }

    /// Adds what was computed from the rows of a matrix of such elements, one column.
    pub fn update_computed(&mut self, values: &[f64], element: Element) {
        assert_eq!(self.edges.columns, 1, "of one column");
        count(values, self.edges.wide(element), 1, &mut self.above);
    }

    /// As if `other`'s rows, counted at the same edges, had been seen too.
    pub fn merge(&mut self, other: &BinCounts) {
        self.above.iter_mut().zip(&other.above).for_each(|(count, more)| *count += more);
    }

    /// How many values of a column lie above each of its first `edges` edges.
    pub fn above(&self, column: usize, edges: usize) -> Vec<u64> {
        (0..edges).map(|e| self.above[e * self.edges.columns + column]).collect()
    }
}

fn count<T: Scalar>(values: &[T], edges: &[T::Lane], columns: usize, above: &mut [u64]) {
    if columns == 0 {
        return;
    }
    // As many lanes as fill a register.
    match size_of::<T::Lane>() {
        4 => dispatch(Count::<T, 8> { values, edges, columns, above }),
        _ => dispatch(Count::<T, 4> { values, edges, columns, above }),
    }
}

/// Rows are walked block by block, a block once for every `W` columns.
struct Count<'a, T: Scalar, const W: usize> {
    values: &'a [T],
    edges: &'a [T::Lane],
    columns: usize,
    above: &'a mut [u64],
}

impl<T: Scalar, const W: usize> Kernel for Count<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Count { values, edges, columns, above } = self;
        let block_rows = (BLOCK_BYTES / (columns * size_of::<T>())).max(LEAST_ROWS);
        let (whole, few) = (columns - columns % W, columns - columns % FEW);
        for block in values.chunks(block_rows * columns) {
            for first in (0..whole).step_by(W) {
                count_lanes::<T, W>(block, columns, first, edges, above);
            }
            for first in (whole..few).step_by(FEW) {
                count_lanes::<T, FEW>(block, columns, first, edges, above);
            }
            for column in few..columns {
                count_lanes::<T, 1>(block, columns, column, edges, above);
            }
        }
    }
}

/// `W` columns of a block: each value is read once and compared with all edges, whose counts stay in registers.
#[inline(always)]
fn count_lanes<T: Scalar, const W: usize>(
    block: &[T],
    columns: usize,
    first: usize,
    edges: &[T::Lane],
    above: &mut [u64],
) {
    let edges: [[T::Lane; W]; MOST_EDGES] = from_fn(|e| *edges[e * columns + first..].first_chunk().expect("W lanes"));
    let mut counts = [[T::Lane::ZERO_COUNT; W]; MOST_EDGES];
    for row in block.chunks_exact(columns) {
        // Of the next block: lanes that lie a row apart come in too slowly.
        prefetch(row, first + block.len());
        let row: &[T; W] = row[first..].first_chunk().expect("W lanes");
        for (counts, edges) in counts.iter_mut().zip(&edges) {
            for lane in 0..W {
                counts[lane] += (row[lane].lane() > edges[lane]).into();
            }
        }
    }
    for (counts, above) in counts.iter().zip(above.chunks_exact_mut(columns)) {
        above[first..first + W].iter_mut().zip(counts).for_each(|(above, count)| *above += (*count).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::ArrayView2;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => (-8i32..8).prop_map(|x| x as f32 / 4.0),
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(0.1f32),
        ]
    }

    proptest! {
        #[test]
        fn equal_comparing_one_by_one_whatever_the_type(
            columns in 1..40usize,
            values in proptest::collection::vec(value(), 1..600),
            mut edges in proptest::collection::vec(prop_oneof![(-8i32..8).prop_map(|x| f64::from(x) / 4.0), Just(0.1)], 0..MOST_EDGES),
        ) {
            edges.sort_by(f64::total_cmp);
            let rows = values.len() / columns;
            let values = &values[..rows * columns];
            let wide: Vec<f64> = values.iter().map(|&x| x.into()).collect();
            // Every column its own.
            let edges_of = |column: usize| edges.iter().map(|edge| edge + column as f64 / 8.0).collect::<Vec<f64>>();
            let every: Vec<Vec<f64>> = (0..columns).map(edges_of).collect();
            let all = Arc::new(Edges::new(&every.iter().map(|edges| ColumnEdges::as_they_are(edges)).collect::<Vec<_>>()));
            let (mut narrow, mut double) = (BinCounts::new(all.clone()), BinCounts::new(all.clone()));
            let mut halves = BinCounts::new(all);
            narrow.update(&Columns::F32(ArrayView2::from_shape((rows, columns), values).unwrap()));
            double.update(&Columns::F64(ArrayView2::from_shape((rows, columns), &wide).unwrap()));
            for part in wide.chunks(columns * 3) {
                let mut one = BinCounts::new(halves.edges.clone());
                one.update(&Columns::F64(ArrayView2::from_shape((part.len() / columns, columns), part).unwrap()));
                halves.merge(&one);
            }
            for (column, edges) in every.iter().enumerate() {
                let want: Vec<u64> = edges.iter().map(|edge| {
                    wide.iter().skip(column).step_by(columns).filter(|x| *x > edge).count() as u64
                }).collect();
                prop_assert_eq!(&narrow.above(column, edges.len()), &want);
                prop_assert_eq!(&double.above(column, edges.len()), &want);
                prop_assert_eq!(&halves.above(column, edges.len()), &want);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_lay_at_or_below_an_edge_lies_there_in_any_rounding(
            mut values in proptest::collection::vec(prop_oneof![(-30..30i32).prop_map(|x| f64::from(x) / 10.0), -9.0..9.0f64], 2..60),
            then in prop::sample::select(Element::ALL.to_vec()),
            now in prop::sample::select(Element::ALL.to_vec()),
        ) {
            values.sort_by(f64::total_cmp);
            let kept: Vec<f64> = values.iter().map(|x| then.round(*x)).collect();
            let mut edges = vec![kept[0].next_down(), kept[kept.len() / 2], kept[kept.len() - 1]];
            edges.dedup();
            let all = Edges::new(&[ColumnEdges { edges: &edges, elements: Elements::of(then), made: Made::Read }]);
            let come: Vec<f64> = values.iter().map(|x| now.round(*x)).collect();
            let view = ArrayView2::from_shape((come.len(), 1), &come).unwrap();
            let mut counts = BinCounts::new(all.into());
            match now {
                Element::F64 => counts.update(&Columns::F64(view)),
                Element::F32 => counts.update(&Columns::F32(view.mapv(|x| x as f32).view())),
                Element::F16 => counts.update(&Columns::F16(view.mapv(half::f16::from_f64).view())),
                Element::BF16 => counts.update(&Columns::BF16(view.mapv(half::bf16::from_f64).view())),
            }
            let above = counts.above(0, edges.len());
            prop_assert_eq!((above[0], above[edges.len() - 1]), (come.len() as u64, 0), "none is out of range");
            for (edge, above) in edges.iter().zip(above) {
                prop_assert!(above <= kept.iter().filter(|x| *x > edge).count() as u64);
            }
        }
    }

    #[test]
    fn an_edge_between_two_f32_values_is_rounded_towards_the_lower() {
        assert_eq!(below_or_at(0.1), 0.1f32.next_down());
        assert_eq!(below_or_at(-0.1), -0.1f32);
        assert_eq!(below_or_at(1.0), 1.0);
        assert_eq!(below_or_at(1e300), f32::MAX);
        assert_eq!(below_or_at(-1e300), f32::NEG_INFINITY);
        assert_eq!(below_or_at(f64::INFINITY), f32::INFINITY);
    }
}
