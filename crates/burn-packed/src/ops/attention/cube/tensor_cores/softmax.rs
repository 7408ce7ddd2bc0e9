//! Scores to softmax weights and to their gradients, in registers: softcap, online softmax, weights from a saved log-sum-exp.
//!
//! Exponents are in units of log2, as `ex2` takes them.

use cubecl::prelude::*;

use super::config::KernelConfig;
use super::family::{Fragment, FragmentExpand};
use super::fragments::Pair;
use crate::ops::ptx::*;

/// The score of a hidden key.
pub(super) const NEG_INF: f32 = f32::NEG_INFINITY;
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// Applies the softcap to scores: replaces them by tanh of `score · softcap`. The softcap itself, as a factor, is part of
/// `args.scale_log2`. With `with_slopes`, `slopes` get the derivative, 1 - tanh².
#[cube]
pub(super) fn bound<S: Fragment>(
    s: &mut S,
    slopes: &mut S,
    softcap: f32,
    #[comptime] with_slopes: bool,
    #[comptime] config: KernelConfig,
) {
    #[unroll]
    for n_tile in 0..comptime!(config.score_n_tiles()) {
        #[unroll]
        for e in 0..4usize {
            // tanh(y) = 1 - 2 / (e^2y + 1), exact at both ends because e^2y goes to 0 and to infinity.
            let exp = exp2(s.get(n_tile, e) * softcap * comptime!(2.0 * LOG2_E));
            let tanh = 1.0f32 - 2.0f32 * reciprocal(exp + 1.0f32);
            s.set(n_tile, e, tanh);
            if comptime!(with_slopes) {
                slopes.set(n_tile, e, 1.0f32 - tanh * tanh);
            }
        }
    }
}

/// Returns, for both rows, the largest of this thread's scores and of `start`.
#[cube]
pub(super) fn row_maxima<S: Fragment>(
    s: &mut S,
    start: Pair,
    #[comptime] config: KernelConfig,
) -> Pair {
    let mut upper = start.a;
    let mut lower = start.b;
    #[unroll]
    for n_tile in 0..comptime!(config.score_n_tiles()) {
        upper = max(upper, max(s.get(n_tile, 0usize), s.get(n_tile, 1usize)));
        lower = max(lower, max(s.get(n_tile, 2usize), s.get(n_tile, 3usize)));
    }
    Pair::of_rows(upper, lower)
}

/// Replaces scores by their weights `2^(score · scale - shift)` and returns, for both rows, `start` plus the sum of the weights.
#[cube]
pub(super) fn weights_and_sums<S: Fragment>(
    s: &mut S,
    scale_log2: f32,
    shift: Pair,
    start: Pair,
    #[comptime] config: KernelConfig,
) -> Pair {
    let mut upper = start.a;
    let mut lower = start.b;
    #[unroll]
    for n_tile in 0..comptime!(config.score_n_tiles()) {
        #[unroll]
        for e in 0..4usize {
            let weight = exp2(s.get(n_tile, e) * scale_log2 - shift.of(e));
            if comptime!(e < 2) {
                upper += weight;
            } else {
                lower += weight;
            }
            s.set(n_tile, e, weight);
        }
    }
    Pair::of_rows(upper, lower)
}

/// Multiplies both rows' elements by their factors.
#[cube]
pub(super) fn rescale<S: Fragment>(sums: &mut S, factor: Pair, #[comptime] config: KernelConfig) {
    #[unroll]
    for n_tile in 0..comptime!(config.head_n_tiles()) {
        #[unroll]
        for e in 0..4usize {
            sums.set(n_tile, e, sums.get(n_tile, e) * factor.of(e));
        }
    }
}

/// Online softmax of a thread's two rows: the maximum of each row and this thread's share of the sum of `exp2(score - maximum)`
/// over the tiles so far.
#[derive(CubeType)]
pub(super) struct OnlineSoftmax {
    max: Pair,
    sum: Pair,
    scale_log2: f32,
}

#[cube]
impl OnlineSoftmax {
    pub(super) fn new(scale_log2: f32) -> OnlineSoftmax {
        OnlineSoftmax {
            max: Pair::of_rows(f32::new(NEG_INF), f32::new(NEG_INF)),
            sum: Pair::of_rows(0.0f32, 0.0f32),
            scale_log2,
        }
    }

    /// Replaces a tile's scores by their weights `exp2(score - maximum)` and returns the factors for the sums over earlier tiles.
    pub(super) fn update<S: Fragment>(
        &mut self,
        s: &mut S,
        #[comptime] config: KernelConfig,
    ) -> Pair {
        let scale = self.scale_log2;
        let hidden = Pair::of_rows(f32::new(NEG_INF), f32::new(NEG_INF));
        let top = row_maxima::<S>(s, hidden, config);
        let upper = max(self.max.a, quad_max(top.a));
        let lower = max(self.max.b, quad_max(top.b));
        let shift = Pair::of_rows(shift_of(upper, scale), shift_of(lower, scale));
        let factor = Pair::of_rows(
            exp2(self.max.a * scale - shift.a),
            exp2(self.max.b * scale - shift.b),
        );
        self.max.a = upper;
        self.max.b = lower;
        let earlier = Pair::of_rows(self.sum.a * factor.a, self.sum.b * factor.b);
        let sum = weights_and_sums::<S>(s, scale, shift, earlier, config);
        self.sum.a = sum.a;
        self.sum.b = sum.b;
        factor
    }

    /// Returns the sums over all tiles, complete in each lane of a quad, and the shifts that were subtracted from the exponents.
    pub(super) fn finish(&self) -> (Pair, Pair) {
        let sums = Pair::of_rows(quad_sum(self.sum.a), quad_sum(self.sum.b));
        let scale = self.scale_log2;
        (sums, Pair::of_rows(self.max.a * scale, self.max.b * scale))
    }
}

/// Returns the maximum in units of log2, or 0 for a row whose keys were all masked so far: the weights of such a row are 0.
#[cube]
fn shift_of(top: f32, scale_log2: f32) -> f32 {
    select(top == f32::new(NEG_INF), 0.0f32, top * scale_log2)
}

/// Log-sum-exp and delta of the queries of a thread's elements of an n-tile.
#[cube]
pub(super) trait Statistics {
    /// In units of log2.
    fn lse(&self, #[comptime] n_tile: usize) -> Pair;

    fn delta(&self, #[comptime] n_tile: usize) -> Pair;
}

/// Statistics of queries that are rows of scores: the same for all n-tiles.
#[derive(CubeType)]
pub(super) struct RowStatistics {
    lse: Pair,
    delta: Pair,
}

#[cube]
impl RowStatistics {
    pub(super) fn new(lse: Pair, delta: Pair) -> RowStatistics {
        RowStatistics {
            lse: Pair::of_rows(lse.a * LOG2_E, lse.b * LOG2_E),
            delta,
        }
    }
}

#[cube]
impl Statistics for RowStatistics {
    fn lse(&self, #[comptime] _part: usize) -> Pair {
        self.lse
    }

    fn delta(&self, #[comptime] _part: usize) -> Pair {
        self.delta
    }
}

/// Replaces scores by their weights `exp(score - log-sum-exp)`.
#[cube]
pub(super) fn weights<S: Fragment, T: Statistics>(
    s: &mut S,
    statistics: &T,
    scale_log2: f32,
    #[comptime] config: KernelConfig,
) {
    #[unroll]
    for n_tile in 0..comptime!(config.score_n_tiles()) {
        let lse = statistics.lse(n_tile);
        #[unroll]
        for e in 0..4usize {
            let weight = exp2(s.get(n_tile, e) * scale_log2 - lse.of(e));
            s.set(n_tile, e, weight);
        }
    }
}

/// Replaces weights by the gradients of their scores, `weight · (gradient of the weight - delta)`, times the softcap's derivative if
/// there is a softcap.
#[cube]
pub(super) fn score_gradients<S: Fragment, T: Statistics>(
    s: &mut S,
    d_p: &S,
    slopes: &S,
    statistics: &T,
    #[comptime] config: KernelConfig,
) {
    #[unroll]
    for n_tile in 0..comptime!(config.score_n_tiles()) {
        let delta = statistics.delta(n_tile);
        #[unroll]
        for e in 0..4usize {
            let mut d_s = s.get(n_tile, e) * (d_p.get(n_tile, e) - delta.of(e));
            if comptime!(config.capped) {
                d_s *= slopes.get(n_tile, e);
            }
            s.set(n_tile, e, d_s);
        }
    }
}
