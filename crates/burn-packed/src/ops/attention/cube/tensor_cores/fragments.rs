//! A thread's elements of results of matrix multiplications: their rows and columns, mask, stores, the transpose of RoPE. The layout of
//! fragments is drawn in [`super::family`].

use cubecl::prelude::*;

use super::super::tile::{AttentionTile, OUT};
use super::config::{Args, KernelConfig};
use super::family::{Family, Fragment, FragmentExpand};
use super::softmax::{NEG_INF, bound};
use crate::ops::ptx::*;

const LN_2: f32 = std::f32::consts::LN_2;

/// The rows and columns of a thread's elements of a fragment, in the block's tile of a head.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct FragmentCoords {
    pub(super) tile: AttentionTile,
    pub(super) head: u32,
    /// Position of the first row of this thread's warp or warp group.
    group: i32,
    /// Position of the upper row; the lower row is eight rows below.
    pub(super) row: i32,
    /// First of the two columns in an n-tile.
    pub(super) column: u32,
    args: Args,
    #[cube(comptime)]
    config: KernelConfig,
}

/// Index of this thread's warp group, or warp, in the block.
#[cube]
pub(super) fn own_group(#[comptime] config: KernelConfig) -> u32 {
    UNIT_POS / comptime!(config.group() * 2)
}

/// A number for each of a thread's two rows, or for its two columns of an n-tile.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Pair {
    /// Value of the upper row, or of the first column.
    pub(super) a: f32,
    /// Value of the lower row, or of the second column.
    pub(super) b: f32,
    #[cube(comptime)]
    columns: bool,
}

#[cube]
impl Pair {
    pub(super) fn of_rows(upper: f32, lower: f32) -> Pair {
        Pair {
            a: upper,
            b: lower,
            columns: false,
        }
    }

    pub(super) fn of_columns(a: f32, b: f32) -> Pair {
        Pair {
            a,
            b,
            columns: true,
        }
    }

    /// The number of the row or column of element `e`.
    pub(super) fn of(&self, #[comptime] e: usize) -> f32 {
        if comptime!(if self.columns {
            e.is_multiple_of(2)
        } else {
            e < 2
        }) {
            self.a
        } else {
            self.b
        }
    }
}

#[cube]
impl FragmentCoords {
    pub(super) fn of_thread(
        tile: AttentionTile,
        head: u32,
        args: Args,
        #[comptime] config: KernelConfig,
    ) -> FragmentCoords {
        let lane = UNIT_POS % 32u32;
        FragmentCoords {
            tile,
            head,
            group: tile.first + i32::cast_from(own_group(config) * comptime!(config.group())),
            row: tile.first + i32::cast_from(UNIT_POS / 32u32 * 16u32 + lane / 4u32),
            column: lane % 4u32 * 2u32,
            args,
            config,
        }
    }

    /// Returns whether any row of this thread's warp or warp group sees any of the streamed rows from `other` on: the same for all
    /// threads of a matrix instruction.
    pub(super) fn meets(&self, other: i32) -> bool {
        let (rows, others) = comptime!((self.config.group(), self.config.keys));
        self.tile.meets(self.group, rows, other, others)
    }

    /// Hides scores outside the window or the sequence, of a tile whose first row is at position `other`.
    pub(super) fn mask<F: Family>(&self, s: &mut F::Fragment, other: i32) {
        let (rows, others) = comptime!((self.config.group(), self.config.keys));
        if self.tile.needs_mask(self.group, rows, other, others) {
            let upper = self.tile.visible(self.row);
            let lower = self.tile.visible(self.row + 8i32);
            let first = other + i32::cast_from(self.column);
            #[unroll]
            for n_tile in 0..comptime!(self.config.score_n_tiles()) {
                #[unroll]
                for e in 0..4usize {
                    let key = first + comptime!((n_tile * 8 + e % 2) as i32);
                    let seen = if comptime!(e < 2) {
                        upper.contains(key)
                    } else {
                        lower.contains(key)
                    };
                    let score = select(seen, s.get(n_tile, e), f32::new(NEG_INF));
                    s.set(n_tile, e, score);
                }
            }
        }
    }

    /// Softcap and mask of scores; returns the derivative of the softcap, of which nothing is read without a softcap.
    pub(super) fn bound_and_mask<F: Family>(
        &self,
        s: &mut F::Fragment,
        other: i32,
        #[comptime] with_slopes: bool,
    ) -> F::Fragment {
        let config = comptime!(self.config);
        let n_tiles = comptime!(if with_slopes && config.capped {
            config.score_n_tiles()
        } else {
            1
        });
        let mut slopes = F::zeros(n_tiles);
        if comptime!(config.capped) {
            bound::<F::Fragment>(s, &mut slopes, self.args.softcap, with_slopes, config);
        }
        self.mask::<F>(s, other);
        slopes
    }

    /// The numbers of this thread's rows in `values [heads, total]`.
    pub(super) fn load(&self, values: &[f32]) -> Pair {
        let at = self.head * self.args.total + self.tile.sequence;
        let upper = (at + self.tile.clamped(self.row)) as usize;
        let lower = (at + self.tile.clamped(self.row + 8i32)) as usize;
        Pair::of_rows(values[upper], values[lower])
    }

    /// Writes output and log-sum-exp, given the sums of weighted values, the sums of weights, and the shift that was subtracted from the
    /// exponents of the weights, in units of log2.
    pub(super) fn store_output<F: Family>(
        &self,
        out: &mut [u32],
        lse: &mut [f32],
        sums: &F::Fragment,
        weights: Pair,
        shift: Pair,
    ) {
        let factor = Pair::of_rows(reciprocal(weights.a), reciprocal(weights.b));
        self.store::<F>(out, sums, factor, OUT);
        let upper = shift.a + log2(weights.a);
        let lower = shift.b + log2(weights.b);
        if self.column == 0u32 {
            let at = self.head * self.args.total + self.tile.sequence;
            if self.tile.has(self.row) {
                lse[(at + u32::cast_from(self.row)) as usize] = upper * LN_2;
            }
            if self.tile.has(self.row + 8i32) {
                lse[(at + u32::cast_from(self.row + 8i32)) as usize] = lower * LN_2;
            }
        }
    }

    /// Writes the gradient of queries or keys, projection `of` of `d_qkv`, given that of the rows after RoPE, without the scale.
    pub(super) fn store_gradient<F: Family>(
        &self,
        d_qkv: &mut [u32],
        mut grad: F::Fragment,
        rotary: &[f32],
        #[comptime] of: (usize, usize),
    ) {
        if comptime!(self.config.rope) {
            self.apply_rope_transposed::<F>(&mut grad, rotary);
        }
        let scale = self.args.scale;
        self.store::<F>(d_qkv, &grad, Pair::of_rows(scale, scale), of);
    }

    /// Writes this thread's elements of `[rows, head_dim]`, times their row's factor and rounded, to projection `of.0` of a tensor
    /// `[total, of.1, heads, head_dim]`; rows outside the sequence are left out.
    pub(super) fn store<F: Family>(
        &self,
        out: &mut [u32],
        sums: &F::Fragment,
        factor: Pair,
        #[comptime] of: (usize, usize),
    ) {
        let config = comptime!(self.config);
        // Words of two elements.
        let words = comptime!(config.head_dim / 2);
        let head_words = self.args.heads * words;
        let word = self.head * words + self.column / 2u32 + head_words * comptime!(of.0 as u32);
        #[unroll]
        for half in 0..2usize {
            let row = self.row + comptime!(half as i32 * 8);
            let factor = factor.of(comptime!(half * 2));
            if self.tile.has(row) {
                let row = self.tile.sequence + u32::cast_from(row);
                let at = row * (head_words * comptime!(of.1 as u32)) + word;
                #[unroll]
                for n_tile in 0..comptime!(config.head_n_tiles()) {
                    let low = sums.get(n_tile, comptime!(half * 2)) * factor;
                    let high = sums.get(n_tile, comptime!(half * 2 + 1)) * factor;
                    out[(at + comptime!(n_tile as u32 * 4)) as usize] =
                        pack(low, high, comptime!(config.ty()));
                }
            }
        }
    }

    /// The transpose of RoPE on `[rows, head_dim]`, RoPE by the negative angles: computes the gradient of the rows from that of the
    /// rotated rows.
    fn apply_rope_transposed<F: Family>(&self, grad: &mut F::Fragment, rotary: &[f32]) {
        let config = comptime!(self.config);
        let width = comptime!(config.head_dim);
        let upper = self.tile.clamped(self.row) * width + self.column;
        let lower = self.tile.clamped(self.row + 8i32) * width + self.column;
        #[unroll]
        for n_tile in 0..comptime!(config.head_n_tiles() / 2) {
            // Elements d and d + head_dim / 2 have the same index in n-tiles half a head apart.
            let other = comptime!(n_tile + config.head_n_tiles() / 2);
            #[unroll]
            for e in 0..4usize {
                let row = if comptime!(e < 2) { upper } else { lower };
                let at = row + comptime!((n_tile * 8 + e % 2) as u32);
                let cos = rotary[at as usize];
                let sin = rotary[(at + comptime!(config.head_dim / 2)) as usize];
                let (a, b) = (grad.get(n_tile, e), grad.get(other, e));
                grad.set(n_tile, e, a * cos + b * sin);
                grad.set(other, e, b * cos - a * sin);
            }
        }
    }
}

/// N-tiles of a fragment from `first` on, rounded to 16 bits, as operand A of a multiplication: four registers to a slice of 16 columns.
#[cube]
pub(super) fn as_operand_a<S: Fragment, M: Size>(
    s: &S,
    #[comptime] first: usize,
    #[comptime] ty: &str,
) -> Vector<u32, M> {
    let mut a = Vector::<u32, M>::empty();
    #[unroll]
    for i in 0..M::value() {
        let (n_tile, e) = comptime!((first + i / 2, i % 2 * 2));
        a.insert(
            i,
            pack(s.get(n_tile, e), s.get(n_tile, comptime!(e + 1)), ty),
        );
    }
    a
}
