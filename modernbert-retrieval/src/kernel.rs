//! Scores of 16 vectors at a time: the inner loop of exact search and of MaxSim.
//!
//! A panel contains 16 vectors component by component, `[dimension, 16]` in f32. A score is the sum of the products (or differences) in the
//! order of the components, each added by a fused multiply-add, so its bits depend neither on the number of queries nor on the instruction set.

use multiversion::multiversion;

/// Vectors of a panel.
pub(crate) const LANES: usize = 16;

/// Queries per call: with 16 vectors, 12 accumulators of 8 lanes and the operands fill AVX2's 16 registers.
const GROUP: usize = 6;

/// The term that is summed over the components of two vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Products of the components.
    Product,
    /// Squares of their differences.
    SquaredDifference,
    /// Absolute differences.
    Difference,
}

/// Scores of one query with the vectors of a panel.
pub(crate) type PanelScores = [f32; LANES];

/// Query vectors in the layout of the inner loop: groups of 6, component by component, then the remaining ones singly.
pub(crate) struct PackedQueries {
    values: Vec<f32>,
    count: usize,
    dimension: usize,
}

impl PackedQueries {
    /// Packs `[count, dimension]` values.
    pub(crate) fn new(queries: &[f32], dimension: usize) -> Self {
        let count = queries.len() / dimension;
        let mut values = Vec::with_capacity(queries.len());
        for group in queries.chunks(GROUP * dimension) {
            if group.len() < GROUP * dimension {
                values.extend_from_slice(group);
                continue;
            }
            for component in 0..dimension {
                values.extend((0..GROUP).map(|query| group[query * dimension + component]));
            }
        }
        Self {
            values,
            count,
            dimension,
        }
    }

    /// Calls `visit(first query, panel number, scores)` for each group of queries with each panel. `panels` is `[n, dimension, 16]`. All panels
    /// of a group follow each other, so that its queries stay in the L1 cache.
    pub(crate) fn score(
        &self,
        comparison: Comparison,
        panels: &[f32],
        mut visit: impl FnMut(usize, usize, &[PanelScores]),
    ) {
        let (score_group, score_one): (ScoreFn<GROUP>, ScoreFn<1>) = match comparison {
            Comparison::Product => (products_of_group, products_of_one),
            Comparison::SquaredDifference => (squares_of_group, squares_of_one),
            Comparison::Difference => (differences_of_group, differences_of_one),
        };
        let size = self.dimension * LANES;
        let (groups, single) = self
            .values
            .split_at(self.count / GROUP * GROUP * self.dimension);
        for (i, group) in groups.chunks_exact(GROUP * self.dimension).enumerate() {
            for (number, panel) in panels.chunks_exact(size).enumerate() {
                visit(i * GROUP, number, &score_group(panel, group));
            }
        }
        for (i, query) in single.chunks_exact(self.dimension).enumerate() {
            for (number, panel) in panels.chunks_exact(size).enumerate() {
                visit(
                    self.count / GROUP * GROUP + i,
                    number,
                    &score_one(panel, query),
                );
            }
        }
    }
}

/// Sums of some queries with a panel.
type ScoreFn<const QUERIES: usize> = fn(&[f32], &[f32]) -> [PanelScores; QUERIES];

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn products_of_group(panel: &[f32], queries: &[f32]) -> [PanelScores; GROUP] {
    sums(panel, queries, |a, b, sum| a.mul_add(b, sum))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn products_of_one(panel: &[f32], query: &[f32]) -> [PanelScores; 1] {
    sums(panel, query, |a, b, sum| a.mul_add(b, sum))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn squares_of_group(panel: &[f32], queries: &[f32]) -> [PanelScores; GROUP] {
    sums(panel, queries, |a, b, sum| (a - b).mul_add(a - b, sum))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn squares_of_one(panel: &[f32], query: &[f32]) -> [PanelScores; 1] {
    sums(panel, query, |a, b, sum| (a - b).mul_add(a - b, sum))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn differences_of_group(panel: &[f32], queries: &[f32]) -> [PanelScores; GROUP] {
    sums(panel, queries, |a, b, sum| sum + (a - b).abs())
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn differences_of_one(panel: &[f32], query: &[f32]) -> [PanelScores; 1] {
    sums(panel, query, |a, b, sum| sum + (a - b).abs())
}

#[inline(always)]
fn sums<const QUERIES: usize>(
    panel: &[f32],
    queries: &[f32],
    add: impl Fn(f32, f32, f32) -> f32,
) -> [PanelScores; QUERIES] {
    let mut sums = [[0.0f32; LANES]; QUERIES];
    for (components, query) in panel.chunks_exact(LANES).zip(queries.chunks_exact(QUERIES)) {
        for (sums, &factor) in sums.iter_mut().zip(query) {
            for (sum, &component) in sums.iter_mut().zip(components) {
                *sum = add(component, factor, *sum);
            }
        }
    }
    sums
}

/// Packs up to 16 vectors of `dimension` components into a panel; absent ones become zeros.
pub(crate) fn pack_panel<'a>(
    vectors: impl Iterator<Item = &'a [f32]>,
    dimension: usize,
    panel: &mut Vec<f32>,
) {
    panel.clear();
    panel.resize(dimension * LANES, 0.0);
    for (lane, vector) in vectors.take(LANES).enumerate() {
        for (component, &value) in vector.iter().enumerate() {
            panel[component * LANES + lane] = value;
        }
    }
}
