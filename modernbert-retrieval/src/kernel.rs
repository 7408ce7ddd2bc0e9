//! Scores of 16 vectors at a time: the inner loop of exact search and of MaxSim.
//!
//! A panel contains 16 vectors component by component, `[dimension, 16]` in f32. A score is the sum of the products in the order of the
//! components, each added by a fused multiply-add, so its bits depend neither on the number of queries nor on the instruction set.

use multiversion::multiversion;

/// Vectors of a panel.
pub(crate) const LANES: usize = 16;

/// Queries per call: with 16 vectors, 12 accumulators of 8 lanes and the operands fill AVX2's 16 registers.
const GROUP: usize = 6;

/// Scores of one query with the vectors of a panel.
pub(crate) type Scores = [f32; LANES];

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
    pub(crate) fn score(&self, panels: &[f32], mut visit: impl FnMut(usize, usize, &[Scores])) {
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

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn score_group(panel: &[f32], queries: &[f32]) -> [Scores; GROUP] {
    products(panel, queries)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn score_one(panel: &[f32], query: &[f32]) -> [Scores; 1] {
    products(panel, query)
}

#[inline(always)]
fn products<const QUERIES: usize>(panel: &[f32], queries: &[f32]) -> [Scores; QUERIES] {
    let mut sums = [[0.0f32; LANES]; QUERIES];
    for (components, query) in panel.chunks_exact(LANES).zip(queries.chunks_exact(QUERIES)) {
        for (sums, &factor) in sums.iter_mut().zip(query) {
            for (sum, &component) in sums.iter_mut().zip(components) {
                *sum = component.mul_add(factor, *sum);
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
