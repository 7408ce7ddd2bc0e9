//! A thread's elements of results of matrix multiplications: their rows and columns, mask, stores, the transpose of RoPE. The layout of
//! fragments is drawn in [`super::family`].

use cubecl::prelude::*;

use super::super::tile::{OUT, Tile};
use super::family::{Family, Fragment, FragmentExpand};
use super::ptx::*;
use super::shape::{Args, Shape};
use super::softmax::{NEG_INF, bound};

const LN_2: f32 = std::f32::consts::LN_2;

/// The rows and columns of a thread's elements of a fragment, in the block's tile of a head.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Place {
    pub(super) tile: Tile,
    pub(super) head: u32,
    /// Position of the first row of this thread's warp or warp group.
    group: i32,
    /// Position of the upper row; the lower row is eight rows below.
    pub(super) row: i32,
    /// First of the two columns in a part.
    pub(super) column: u32,
    args: Args,
    #[cube(comptime)]
    shape: Shape,
}

/// Index of this thread's warp group, or warp, in the block.
#[cube]
pub(super) fn own_group(#[comptime] shape: Shape) -> u32 {
    UNIT_POS / comptime!(shape.group() * 2)
}

/// A number for each of a thread's two rows, or for its two columns of a part.
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
impl Place {
    pub(super) fn of_thread(tile: Tile, head: u32, args: Args, #[comptime] shape: Shape) -> Place {
        let lane = UNIT_POS % 32u32;
        Place {
            tile,
            head,
            group: tile.first + i32::cast_from(own_group(shape) * comptime!(shape.group())),
            row: tile.first + i32::cast_from(UNIT_POS / 32u32 * 16u32 + lane / 4u32),
            column: lane % 4u32 * 2u32,
            args,
            shape,
        }
    }

    /// Returns whether any row of this thread's warp or warp group sees any of the streamed rows from `other` on: the same for all
    /// threads of a matrix instruction.
    pub(super) fn meets(&self, other: i32) -> bool {
        let (rows, others) = comptime!((self.shape.group(), self.shape.keys));
        self.tile.meets(self.group, rows, other, others)
    }

    /// Hides scores outside the window or the sequence, of a tile whose first row is at position `other`.
    pub(super) fn mask<F: Family>(&self, s: &mut F::Fragment, other: i32) {
        let (rows, others) = comptime!((self.shape.group(), self.shape.keys));
        if self.tile.needs_mask(self.group, rows, other, others) {
            let upper = self.tile.visible(self.row);
            let lower = self.tile.visible(self.row + 8i32);
            let first = other + i32::cast_from(self.column);
            #[unroll]
            for part in 0..comptime!(self.shape.key_parts()) {
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

    /// Softcap and mask of scores; returns the derivative of the softcap, of which nothing is read without a softcap.
    pub(super) fn bound_and_mask<F: Family>(
        &self,
        s: &mut F::Fragment,
        other: i32,
        #[comptime] with_slopes: bool,
    ) -> F::Fragment {
        let shape = comptime!(self.shape);
        let parts = comptime!(if with_slopes && shape.capped {
            shape.key_parts()
        } else {
            1
        });
        let mut slopes = F::zeros(parts);
        if comptime!(shape.capped) {
            bound::<F::Fragment>(s, &mut slopes, self.args.softcap, with_slopes, shape);
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

    /// Writes the gradient of queries or keys, part `of` of `d_qkv`, given that of the rows after RoPE, without the scale.
    pub(super) fn store_gradient<F: Family>(
        &self,
        d_qkv: &mut [u32],
        mut grad: F::Fragment,
        rotary: &[f32],
        #[comptime] of: (usize, usize),
    ) {
        if comptime!(self.shape.rope) {
            self.apply_rope_transposed::<F>(&mut grad, rotary);
        }
        let scale = self.args.scale;
        self.store::<F>(d_qkv, &grad, Pair::of_rows(scale, scale), of);
    }

    /// Writes this thread's elements of `[rows, head_dim]`, times their row's factor and rounded, to part `of.0` of a tensor
    /// `[total, of.1, heads, head_dim]`; rows outside the sequence are left out.
    pub(super) fn store<F: Family>(
        &self,
        out: &mut [u32],
        sums: &F::Fragment,
        factor: Pair,
        #[comptime] of: (usize, usize),
    ) {
        let shape = comptime!(self.shape);
        // Words of two elements.
        let words = comptime!(shape.head_dim / 2);
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
                for part in 0..comptime!(shape.dim_parts()) {
                    let low = sums.get(part, comptime!(half * 2)) * factor;
                    let high = sums.get(part, comptime!(half * 2 + 1)) * factor;
                    out[(at + comptime!(part as u32 * 4)) as usize] =
                        pack(low, high, comptime!(shape.ty()));
                }
            }
        }
    }

    /// The transpose of RoPE on `[rows, head_dim]`, RoPE by the negative angles: computes the gradient of the rows from that of the
    /// rotated rows.
    fn apply_rope_transposed<F: Family>(&self, grad: &mut F::Fragment, rotary: &[f32]) {
        let shape = comptime!(self.shape);
        let width = comptime!(shape.head_dim);
        let upper = self.tile.clamped(self.row) * width + self.column;
        let lower = self.tile.clamped(self.row + 8i32) * width + self.column;
        #[unroll]
        for part in 0..comptime!(shape.dim_parts() / 2) {
            // Elements d and d + head_dim / 2 have the same index in parts half a head apart.
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
}

/// Parts of a fragment from `first` on, rounded to 16 bits, as left operand of a multiplication: four registers to a slice of 16 columns.
#[cube]
pub(super) fn left_operand<S: Fragment, M: Size>(
    s: &S,
    #[comptime] first: usize,
    #[comptime] ty: &str,
) -> Vector<u32, M> {
    let mut a = Vector::<u32, M>::empty();
    #[unroll]
    for i in 0..M::value() {
        let (part, e) = comptime!((first + i / 2, i % 2 * 2));
        a.insert(i, pack(s.get(part, e), s.get(part, comptime!(e + 1)), ty));
    }
    a
}
