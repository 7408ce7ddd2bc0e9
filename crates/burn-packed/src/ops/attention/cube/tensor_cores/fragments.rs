//! Operations on results of matrix multiplications in registers: softcap, mask, online softmax, stores. The layout of
//! fragments is drawn in [`super::family`].

use cubecl::prelude::*;

use super::super::tile::Tile;
use super::family::{Family, Fragment, FragmentExpand};
use super::ptx::*;
use super::shape::{Args, Shape};

/// The score of a hidden key.
const NEG_INF: f32 = f32::NEG_INFINITY;
const LN_2: f32 = std::f32::consts::LN_2;
pub(super) const LOG2_E: f32 = std::f32::consts::LOG2_E;

/// The rows and columns of this thread's elements of a fragment.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    /// Position of the first row of this thread's warp or warp group.
    pub(super) group: i32,
    /// Position of the upper row; the lower row is eight rows below.
    pub(super) row: i32,
    /// First of the two columns in a part.
    pub(super) column: u32,
}

#[cube]
impl Place {
    pub(super) fn of_thread(tile: &Tile, #[comptime] shape: Shape) -> Place {
        let lane = UNIT_POS % 32u32;
        Place {
            group: tile.first + i32::cast_from(own_group(shape) * comptime!(shape.group())),
            row: tile.first + i32::cast_from(UNIT_POS / 32u32 * 16u32 + lane / 4u32),
            column: lane % 4u32 * 2u32,
        }
    }
}

/// Index of this thread's warp group, or warp, in the block.
#[cube]
pub(super) fn own_group(#[comptime] shape: Shape) -> u32 {
    UNIT_POS / comptime!(shape.group() * 2)
}

/// A number for each of a thread's two rows, or for the two rows' elements.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Pair {
    pub(super) upper: f32,
    pub(super) lower: f32,
}

#[cube]
impl Pair {
    /// The same number for both rows.
    pub(super) fn both(x: f32) -> Pair {
        Pair { upper: x, lower: x }
    }

    /// The number of the row of element `e`.
    pub(super) fn of(&self, #[comptime] e: usize) -> f32 {
        if comptime!(e < 2) {
            self.upper
        } else {
            self.lower
        }
    }
}

/// Online softmax of a thread's two rows: the maximum of each row and this thread's share of the sum of `exp2(score - maximum)`
/// over the tiles so far.
#[derive(CubeType)]
pub(super) struct OnlineSoftmax {
    max: Pair,
    sum: Pair,
}

#[cube]
impl OnlineSoftmax {
    pub(super) fn new() -> OnlineSoftmax {
        OnlineSoftmax {
            max: Pair::both(f32::new(NEG_INF)),
            sum: Pair::both(0.0f32),
        }
    }

    /// Replaces a tile's scores by their weights `exp2(score - maximum)` and returns the factors for the sums over earlier tiles.
    pub(super) fn update<F: Family>(
        &mut self,
        s: &mut F::Fragment,
        scale_log2: f32,
        #[comptime] shape: Shape,
    ) -> Pair {
        let mut upper = f32::new(NEG_INF);
        let mut lower = f32::new(NEG_INF);
        #[unroll]
        for part in 0..comptime!(shape.key_parts()) {
            let (s0, s1) = (s.get(part, 0usize), s.get(part, 1usize));
            upper = max(upper, max(s0, s1));
            let (s2, s3) = (s.get(part, 2usize), s.get(part, 3usize));
            lower = max(lower, max(s2, s3));
        }
        let upper = max(self.max.upper, quad_max(upper));
        let lower = max(self.max.lower, quad_max(lower));
        let shift = Pair {
            upper: shift_of(upper, scale_log2),
            lower: shift_of(lower, scale_log2),
        };
        let factor = Pair {
            upper: exp2(self.max.upper * scale_log2 - shift.upper),
            lower: exp2(self.max.lower * scale_log2 - shift.lower),
        };
        self.max.upper = upper;
        self.max.lower = lower;
        self.sum.upper *= factor.upper;
        self.sum.lower *= factor.lower;
        #[unroll]
        for part in 0..comptime!(shape.key_parts()) {
            #[unroll]
            for e in 0..4usize {
                let weight = exp2(s.get(part, e) * scale_log2 - shift.of(e));
                if comptime!(e < 2) {
                    self.sum.upper += weight;
                } else {
                    self.sum.lower += weight;
                }
                s.set(part, e, weight);
            }
        }
        factor
    }

    /// The sums over all tiles, complete in each lane of a quad.
    pub(super) fn sums(&self) -> Pair {
        Pair {
            upper: quad_sum(self.sum.upper),
            lower: quad_sum(self.sum.lower),
        }
    }

    /// Writes the log-sum-exp of this thread's rows, given [`OnlineSoftmax::sums`].
    pub(super) fn store_lse(
        &self,
        lse: &mut [f32],
        sums: &Pair,
        place: &Place,
        tile: &Tile,
        args: &Args,
    ) {
        let log = Pair {
            upper: self.max.upper * args.scale_log2 + log2(sums.upper),
            lower: self.max.lower * args.scale_log2 + log2(sums.lower),
        };
        store_lse(lse, &log, place, tile, CUBE_POS_X, args);
    }
}

/// Writes the log-sum-exp of this thread's rows, `[heads, total]`, given in units of log2.
#[cube]
pub(super) fn store_lse(
    lse: &mut [f32],
    log: &Pair,
    place: &Place,
    tile: &Tile,
    head: u32,
    args: &Args,
) {
    if place.column == 0u32 {
        let at = head * args.total + tile.sequence;
        if place.row < tile.length {
            lse[(at + u32::cast_from(place.row)) as usize] = log.upper * LN_2;
        }
        if place.row + 8i32 < tile.length {
            lse[(at + u32::cast_from(place.row + 8i32)) as usize] = log.lower * LN_2;
        }
    }
}

/// The maximum in units of log2; 0 for a row whose keys were all hidden so far, whose weights then stay 0.
#[cube]
fn shift_of(top: f32, scale_log2: f32) -> f32 {
    select(top == f32::new(NEG_INF), 0.0f32, top * scale_log2)
}

/// Multiplies both rows' elements by their factors.
#[cube]
pub(super) fn rescale<F: Family>(sums: &mut F::Fragment, factor: &Pair, #[comptime] shape: Shape) {
    #[unroll]
    for part in 0..comptime!(shape.dim_parts()) {
        #[unroll]
        for e in 0..4usize {
            sums.set(part, e, sums.get(part, e) * factor.of(e));
        }
    }
}

/// Applies the softcap to scores: replaces them by tanh of `score · args.softcap`. The softcap itself, as a factor, is part of
/// `args.scale_log2`. With `slopes`, these get the derivative, 1 - tanh².
#[cube]
pub(super) fn bound<F: Family>(
    s: &mut F::Fragment,
    slopes: &mut F::Fragment,
    softcap: f32,
    #[comptime] with_slopes: bool,
    #[comptime] shape: Shape,
) {
    #[unroll]
    for part in 0..comptime!(shape.key_parts()) {
        #[unroll]
        for e in 0..4usize {
            // tanh(y) = 1 - 2 / (e^2y + 1), exact at both ends because e^2y goes to 0 and to infinity.
            let exp = exp2(s.get(part, e) * softcap * comptime!(2.0 * LOG2_E));
            let tanh = 1.0f32 - 2.0f32 * reciprocal(exp + 1.0f32);
            s.set(part, e, tanh);
            if comptime!(with_slopes) {
                slopes.set(part, e, 1.0f32 - tanh * tanh);
            }
        }
    }
}

/// Hides scores outside the window or the sequence, of a tile whose first row is at position `other`.
#[cube]
pub(super) fn mask<F: Family>(
    s: &mut F::Fragment,
    place: &Place,
    tile: &Tile,
    other: i32,
    #[comptime] shape: Shape,
) {
    let (rows, others) = comptime!((shape.group(), shape.keys));
    if tile.needs_mask(place.group, rows, other, others) {
        let upper = tile.visible(place.row);
        let lower = tile.visible(place.row + 8i32);
        let first = other + i32::cast_from(place.column);
        #[unroll]
        for part in 0..comptime!(shape.key_parts()) {
            #[unroll]
            for e in 0..4usize {
                let key = first + comptime!((part * 8 + e % 2) as i32);
                let seen = if comptime!(e < 2) {
                    upper.contains(key)
                } else {
                    lower.contains(key)
                };
                let score = select(seen, s.get(part, e), f32::new(NEG_INF));
                s.set(part, e, score);
            }
        }
    }
}

/// Writes this thread's elements of `[rows, head_dim]`, times their row's factor and rounded, as far as their rows exist, to part
/// `of.0` of `of.1` of a tensor `[total, of.1, heads, head_dim]`.
#[allow(clippy::too_many_arguments)] // two of them are known at compile time
#[cube]
pub(super) fn store<F: Family>(
    out: &mut [u32],
    sums: &F::Fragment,
    factor: &Pair,
    place: &Place,
    tile: &Tile,
    head: u32,
    heads: u32,
    #[comptime] of: (usize, usize),
    #[comptime] shape: Shape,
) {
    // Words of two elements.
    let words = comptime!(shape.head_dim / 2);
    let head_words = heads * words;
    let word = head * words + place.column / 2u32 + head_words * comptime!(of.0 as u32);
    #[unroll]
    for half in 0..2usize {
        let row = place.row + comptime!(half as i32 * 8);
        let factor = factor.of(comptime!(half * 2));
        if row < tile.length {
            let at = (tile.sequence + u32::cast_from(row)) * (head_words * comptime!(of.1 as u32))
                + word;
            #[unroll]
            for part in 0..comptime!(shape.dim_parts()) {
                let low = sums.get(part, comptime!(half * 2)) * factor;
                let high = sums.get(part, comptime!(half * 2 + 1)) * factor;
                out[(at + comptime!(part as u32 * 4)) as usize] =
                    pack(low, high, comptime!(shape.ty()));
            }
        }
    }
}

/// The transpose of RoPE on `[rows, head_dim]`, RoPE by the negative angles: computes the gradient of the rows from that of the rotated rows.
#[cube]
pub(super) fn apply_rope_transposed<F: Family>(
    grad: &mut F::Fragment,
    rotary: &[f32],
    place: &Place,
    tile: &Tile,
    #[comptime] shape: Shape,
) {
    let upper = tile.clamped(place.row) * comptime!(shape.head_dim) + place.column;
    let lower = tile.clamped(place.row + 8i32) * comptime!(shape.head_dim) + place.column;
    #[unroll]
    for part in 0..comptime!(shape.dim_parts() / 2) {
        // Elements d and d + head_dim / 2 are in the same place of parts half a head apart.
        let other = comptime!(part + shape.dim_parts() / 2);
        #[unroll]
        for e in 0..4usize {
            let row = if comptime!(e < 2) { upper } else { lower };
            let at = row + comptime!((part * 8 + e % 2) as u32);
            let cos = rotary[at as usize];
            let sin = rotary[(at + comptime!(shape.head_dim / 2)) as usize];
            let (a, b) = (grad.get(part, e), grad.get(other, e));
            grad.set(part, e, a * cos + b * sin);
            grad.set(other, e, b * cos - a * sin);
        }
    }
}
