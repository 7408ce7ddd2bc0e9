//! The gradients of a head.
//!
//! With the probabilities P of the forward pass (computed again from the scores and the log-sum-exp) and δ = Σ_d dO · O of each query:
//!
//! ```text
//! dP = dO · Vᵀ        dS = P (dP - δ)        dQ = scale dS · K        dK = scale dSᵀ · Q        dV = Pᵀ · dO
//! ```
//!
//! The gradient of the queries is computed by blocks of 32 queries, the gradients of keys and values by blocks of 32 keys, whose scores are computed
//! again, transposed: `Sᵀ = K · Qᵀ`, `dPᵀ = V · dOᵀ`. So every sum belongs to one block, and no operand is transposed in memory. Seven GEMMs instead of
//! five cost little: with heads of 64 exponentials and conversions take most of the time, and both are computed twice, for the two orders of the scores.

use std::ops::Range;

use cpu_gemm::aligned::Aligned;
use cpu_gemm::kernel::MicrokernelArgs;
use cpu_gemm::pack::{Panel, step_len};
use cpu_gemm::{InstructionSet, PANEL, ROWS};

use super::{CHUNK, HeadView, pack_columns, pack_rows};
use crate::rows::{HeadRows, OperandDtype, ScoreRows, TileMut, accumulate};

/// Arguments of the backward pass of a head.
#[derive(Clone, Copy, Debug)]
pub struct Gradients<'a, E> {
    /// Operands of the forward pass.
    pub head: HeadView<'a, E>,
    /// Gradient of the result, from the sequence's first token on.
    pub d_out: &'a [E],
    /// The result.
    pub out: &'a [E],
    /// Elements from one token to the next of both.
    pub out_stride: usize,
    /// Log-sum-exp of each token; see [`super::Total::log_sum_exp`].
    pub lse: &'a [f32],
}

/// An operand of 32-row blocks: rows as left operand and as the columns of a right one.
struct PackedOperand<E: OperandDtype> {
    /// `[length, padded]`, zeros up to a multiple of 32 rows.
    rows: Aligned<E>,
    columns: Aligned<E>,
}

/// A thread's buffers for gradients of sequences up to a length.
pub struct BackwardScratch<E: OperandDtype> {
    /// Queries times the factor of the scores, keys, gradients of the result, values.
    operands: [PackedOperand<E>; 4],
    /// Right operands of the sums over tokens: queries, keys, gradients of the result.
    summed: [Aligned<E>; 3],
    /// Log-sum-exp and δ.
    lse: Vec<f32>,
    delta: Vec<f32>,
    steps: BlockScratch<E>,
    zeros: Vec<E>,
}

/// Buffers of a block.
struct BlockScratch<E: OperandDtype> {
    scores: Aligned<f32>,
    d_p: Aligned<f32>,
    slopes: Vec<f32>,
    p: Aligned<E>,
    d_s: Aligned<E>,
    /// Results of up to two sums over tokens, and their next chunks.
    sums: [Aligned<f32>; 2],
    added: Aligned<f32>,
}

/// Indices of [`BackwardScratch::operands`]; those before the values are indices of [`BackwardScratch::summed`] too.
const QUERIES: usize = 0;
const KEYS: usize = 1;
const D_OUT: usize = 2;
const VALUES: usize = 3;

impl<E: OperandDtype> BackwardScratch<E> {
    /// Buffers for sequences of up to `longest` tokens and heads of `dim` elements.
    pub fn new(longest: usize, dim: usize) -> Self {
        let rows = longest.next_multiple_of(PANEL);
        let padded = dim.next_multiple_of(E::STEP);
        let dim_panels = dim.div_ceil(PANEL);
        let width = CHUNK.min(rows);
        let summed = dim_panels * longest.div_ceil(E::STEP) * step_len::<E>();
        let sums = || Aligned::zeros(ROWS * dim_panels * PANEL);
        Self {
            operands: std::array::from_fn(|_| PackedOperand {
                rows: Aligned::zeros(rows * padded),
                columns: Aligned::zeros(rows * padded),
            }),
            summed: std::array::from_fn(|_| Aligned::zeros(summed)),
            lse: vec![0.0; rows],
            delta: vec![0.0; rows],
            steps: BlockScratch {
                scores: Aligned::zeros(ROWS * width),
                d_p: Aligned::zeros(ROWS * width),
                slopes: vec![0.0; ROWS * width],
                p: Aligned::zeros(ROWS * width),
                d_s: Aligned::zeros(ROWS * width),
                sums: [sums(), sums()],
                added: sums(),
            },
            zeros: vec![E::of(0.0); dim],
        }
    }
}

/// Operands of a block's scores and sums: indices of [`BackwardScratch::operands`].
struct BlockOperands {
    /// Left operands of the scores and of the gradients of the probabilities.
    left: [usize; 2],
    /// Their right operands.
    right: [usize; 2],
    /// Right operands of its sums: of the first one, whose left operand is dS, and of the second one, whose left operand is P.
    sums: &'static [usize],
    /// True if the block's rows are keys.
    rows_are_keys: bool,
}

impl<E: OperandDtype> Gradients<'_, E> {
    /// Computes the gradients of all tokens' queries (projection 0), keys (1) and values (2). `tile_mut(projection, rows)` returns the destination of the gradients of up
    /// to 32 tokens, with a row of [`HeadView::dim`] elements for each.
    ///
    /// # Panics
    /// If the scratch is one of shorter sequences or smaller heads, or a slice ends before the sequence.
    ///
    /// # Safety
    /// `isa` is supported and the thread is inside [`InstructionSet::enter`]. The places are inside of their matrix, and nothing else uses their elements.
    pub unsafe fn compute(
        &self,
        isa: InstructionSet,
        scratch: &mut BackwardScratch<E>,
        tile_mut: impl Fn(usize, Range<usize>) -> TileMut<E>,
    ) {
        self.pack(scratch);
        let head = &self.head;
        let of_queries = BlockOperands {
            left: [QUERIES, D_OUT],
            right: [KEYS, VALUES],
            sums: &[KEYS],
            rows_are_keys: false,
        };
        let of_keys = BlockOperands {
            left: [KEYS, VALUES],
            right: [QUERIES, D_OUT],
            sums: &[QUERIES, D_OUT],
            rows_are_keys: true,
        };
        for first in (0..head.length).step_by(ROWS) {
            let rows = first..(first + ROWS).min(head.length);
            // SAFETY: the caller's promise.
            unsafe { self.block(isa, scratch, &of_queries, rows.clone()) }
            // SAFETY: the caller's promise.
            unsafe {
                self.store(
                    &scratch.steps.sums[0],
                    head.scale,
                    true,
                    &rows,
                    tile_mut(0, rows.clone()),
                )
            }
            // SAFETY: the caller's promise.
            unsafe {
                self.block(isa, scratch, &of_keys, rows.clone());
                // dK is a sum over queries that have the factor of the scores already.
                let [d_k, d_v] = &scratch.steps.sums;
                self.store(d_k, 1.0, true, &rows, tile_mut(1, rows.clone()));
                self.store(d_v, 1.0, false, &rows, tile_mut(2, rows.clone()));
            }
        }
    }

    /// Sums of a block of rows: `dS · K` of queries; `dSᵀ · Q` and `Pᵀ · dO` of keys.
    ///
    /// # Safety
    /// As [`Self::compute`].
    unsafe fn block(
        &self,
        isa: InstructionSet,
        scratch: &mut BackwardScratch<E>,
        block: &BlockOperands,
        rows: Range<usize>,
    ) {
        let head = &self.head;
        let (first, count) = (rows.start, rows.len());
        for (index, columns) in head.chunks(first, count).enumerate() {
            let width = columns.len();
            for (which, is_scores) in [(0, true), (1, false)] {
                let (left, right) = (block.left[which], block.right[which]);
                // SAFETY: the caller's promise.
                unsafe { self.products(isa, scratch, [left, right], &rows, &columns, is_scores) }
            }
            let BackwardScratch {
                steps, lse, delta, ..
            } = scratch;
            let scores = &mut steps.scores[..count * width];
            let d_p = &mut steps.d_p[..count * width];
            let of = if block.rows_are_keys { &columns } else { &rows };
            let (lse, delta) = (&lse[of.clone()], &delta[of.clone()]);
            if head.softcap.is_some() {
                let slopes = &mut steps.slopes[..count * width];
                head.bound(scores, Some(slopes));
                for (i, d_p) in d_p.iter_mut().enumerate() {
                    let delta = delta[if block.rows_are_keys {
                        i % width
                    } else {
                        i / width
                    }];
                    // dS is P (dP - δ) times the slope of the bound.
                    *d_p = (*d_p - delta) * slopes[i] + delta;
                }
            }
            head.hide(scores, first, count, columns.clone());
            let rows = ScoreRows {
                scores,
                d_p,
                width,
                lse,
                delta,
            };
            let (p, d_s) = (&mut steps.p, &mut steps.d_s);
            match block.rows_are_keys {
                false => E::score_gradients(rows, d_s),
                true => E::transposed_score_gradients(rows, p, d_s),
            }
            for (sum, operand) in block.sums.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { self.sum(isa, scratch, [sum, *operand], count, &columns, index == 0) }
                if index > 0 {
                    let BlockScratch { sums, added, .. } = &mut scratch.steps;
                    accumulate(&mut sums[sum], added, self.stride(), count, &[1.0; ROWS]);
                }
            }
        }
    }

    /// Scores or gradients of probabilities: rows of the left operand times columns of the right one.
    ///
    /// # Safety
    /// As [`Self::compute`].
    unsafe fn products(
        &self,
        isa: InstructionSet,
        scratch: &mut BackwardScratch<E>,
        [left, right]: [usize; 2],
        rows: &Range<usize>,
        columns: &Range<usize>,
        is_scores: bool,
    ) {
        let padded = self.head.dim.next_multiple_of(E::STEP);
        let len = PANEL * padded;
        let to = match is_scores {
            true => &mut scratch.steps.scores,
            false => &mut scratch.steps.d_p,
        };
        let left = &scratch.operands[left].rows[rows.start * padded..];
        for (panel, column) in columns.clone().step_by(PANEL).enumerate() {
            let tile = MicrokernelArgs {
                left: left.as_ptr(),
                left_stride: padded,
                rows: rows.len(),
                to: to[panel * PANEL..].as_mut_ptr(),
                to_stride: columns.len(),
            };
            let right = &scratch.operands[right].columns[column / PANEL * len..][..len];
            // SAFETY: operands and results have multiples of 32 rows; the caller guarantees the unit.
            unsafe { E::tile(isa, tile, Panel::of(right)) }
        }
    }

    /// Elements from one row of a sum to the next.
    fn stride(&self) -> usize {
        self.head.dim.next_multiple_of(PANEL)
    }

    /// GEMM of a block's dS (sum 0) or P (sum 1) with the rows `columns` of a summed operand: into the sum for the first chunk, into `added` for others.
    ///
    /// # Safety
    /// As [`Self::compute`].
    unsafe fn sum(
        &self,
        isa: InstructionSet,
        scratch: &mut BackwardScratch<E>,
        [sum, operand]: [usize; 2],
        rows: usize,
        columns: &Range<usize>,
        is_first: bool,
    ) {
        let stride = self.stride();
        let total = self.head.length.div_ceil(E::STEP);
        let len = total * step_len::<E>();
        let steps = &mut scratch.steps;
        let left = if sum == 0 { &steps.d_s } else { &steps.p };
        let to = match is_first {
            true => &mut steps.sums[sum],
            false => &mut steps.added,
        };
        // Probabilities of tokens beyond the sequence are zero; the operand's panels end with the sequence.
        let first = columns.start / E::STEP;
        let count = (columns.len() / E::STEP).min(total - first);
        for panel in 0..stride / PANEL {
            let tile = MicrokernelArgs {
                left: left.as_ptr(),
                left_stride: columns.len(),
                rows,
                to: to[panel * PANEL..].as_mut_ptr(),
                to_stride: stride,
            };
            let right = &scratch.summed[operand][panel * len..][..len];
            // SAFETY: operands and sums have 32 rows; the caller guarantees the unit.
            unsafe { E::tile(isa, tile, Panel::of(right).steps(first, count)) }
        }
    }

    /// Stores the gradients of the tokens `rows` times `factor`, with the inverse of RoPE where `rotated`.
    ///
    /// # Safety
    /// As [`Self::compute`].
    unsafe fn store(
        &self,
        sums: &[f32],
        factor: f32,
        rotated: bool,
        rows: &Range<usize>,
        to: TileMut<E>,
    ) {
        let table = match rotated {
            true => self.head.table(rows.start),
            false => &[],
        };
        // SAFETY: the caller's promise.
        unsafe { E::store_unrotated(sums, self.stride(), table, factor, &to) }
    }

    /// Packs the operands, and computes δ.
    fn pack(&self, scratch: &mut BackwardScratch<E>) {
        let head = &self.head;
        let (length, dim, padded) = (head.length, head.dim, head.dim.next_multiple_of(E::STEP));
        let rows = length.next_multiple_of(PANEL);
        let d_out = HeadRows {
            values: self.d_out,
            stride: self.out_stride,
            rows: length,
            dim,
        };
        let operands = [
            (head.rows(0, 0, length), head.table(0), head.scale),
            (head.rows(1, 0, length), head.table(0), 1.0),
            (d_out, &[][..], 1.0),
            (head.rows(2, 0, length), &[][..], 1.0),
        ];
        for (operand, (from, table, factor)) in scratch.operands.iter_mut().zip(operands) {
            let to = &mut operand.rows[..rows * padded];
            E::rotate(from, table, factor, to, padded);
            to[length * padded..].fill(E::of(0.0));
            pack_columns(to, padded, &mut operand.columns);
        }
        for (operand, summed) in scratch.operands.iter().zip(&mut scratch.summed) {
            let rows = &operand.rows;
            let row = |token: usize| &rows[token * padded..][..dim];
            pack_rows(length, dim, row, &scratch.zeros, summed);
        }
        // Columns of queries beyond the sequence are read too: their gradients are zero only if these are finite.
        scratch.lse[..length].copy_from_slice(self.lse);
        scratch.lse[length..rows].fill(0.0);
        scratch.delta[length..rows].fill(0.0);
        for (i, delta) in scratch.delta.iter_mut().enumerate().take(length) {
            let start = i * self.out_stride;
            *delta = E::dot(&self.d_out[start..][..dim], &self.out[start..][..dim]);
        }
    }
}
