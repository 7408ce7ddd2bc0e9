//! Attention of one head of one sequence, and its gradients.
//!
//! Blocks of 32 queries loop over chunks of keys. Scores keep the model's units, and exponentials are `2^((s - m) log2(e))`: with a factor of log2(e) in the
//! queries, each query would be rounded once more, and large scores would lose a digit.
//!
//! Chunks begin at multiples of 32 keys of the sequence, so that the order of every sum depends on the sequence alone.

mod backward;
mod forward;

use std::ops::Range;

use cpu_gemm::PANEL;
use cpu_gemm::pack::{pack_group, step_len, transpose};

use crate::rows::{HeadRows, cap_scores};
pub use crate::rows::{OperandDtype, TileMut};
pub use backward::{BackwardScratch, Gradients};
pub use forward::{Scratch, Total};

/// Columns of scores of one step: with 32 rows of f32, a block's scores take 64 KB.
const CHUNK: usize = 512;

/// One head of one sequence of the projection to queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a, E> {
    /// Queries from the sequence's first token on; keys and values follow at `qkv_stride` and `2 * qkv_stride` elements.
    pub qkv: &'a [E],
    /// Elements from the queries to the keys, and on to the values.
    pub qkv_stride: usize,
    /// Elements from one token to the next.
    pub stride: usize,
    /// Tokens.
    pub length: usize,
    /// Elements of a head.
    pub dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Bound on the scores, if any: `softcap * tanh(score / softcap)`.
    pub softcap: Option<f32>,
    /// Number of keys that a query sees on each side, without its own; `None` for all.
    pub half_window: Option<usize>,
    /// Cosines and sines of each position, `[positions, dim]`; `None` without RoPE.
    pub rotary: Option<&'a [f32]>,
}

impl<E: OperandDtype> HeadView<'_, E> {
    /// Bounds scores where the head has a bound; writes the derivative of the bound to `slopes`.
    fn bound(&self, scores: &mut [f32], slopes: Option<&mut [f32]>) {
        if let Some(cap) = self.softcap {
            cap_scores(scores, cap, slopes);
        }
    }

    /// Keys that the queries `first..=last` see together.
    fn keys(&self, first: usize, last: usize) -> Range<usize> {
        match self.half_window {
            None => 0..self.length,
            Some(half) => {
                first.saturating_sub(half)..(last + 1).saturating_add(half).min(self.length)
            }
        }
    }

    /// Rows of a projection: 0 for queries, 1 for keys.
    fn rows(&self, projection: usize, first: usize, rows: usize) -> HeadRows<'_, E> {
        HeadRows {
            values: &self.qkv[first * self.stride + projection * self.qkv_stride..],
            stride: self.stride,
            rows,
            dim: self.dim,
        }
    }

    /// The rotary table from a token on.
    fn table(&self, first: usize) -> &[f32] {
        self.rotary.map_or(&[], |table| &table[first * self.dim..])
    }

    /// Hides the columns that the rows of a block do not see, with scores of minus infinity. The window is symmetric, so that it does not matter which of
    /// them are queries.
    fn hide(&self, scores: &mut [f32], first: usize, rows: usize, columns: Range<usize>) {
        let width = columns.len();
        for (i, scores) in scores.chunks_exact_mut(width).take(rows).enumerate() {
            let seen = self.keys(first + i, first + i);
            let low = seen.start.clamp(columns.start, columns.end) - columns.start;
            let high = seen.end.clamp(columns.start, columns.end) - columns.start;
            scores[..low].fill(f32::NEG_INFINITY);
            scores[high.max(low)..].fill(f32::NEG_INFINITY);
        }
    }

    /// The columns that a block of rows sees, in chunks that begin at multiples of 32.
    fn chunks(&self, first: usize, rows: usize) -> impl Iterator<Item = Range<usize>> + use<E> {
        let visible = self.keys(first, first + rows - 1);
        let start = visible.start / PANEL * PANEL;
        let end = visible.end.next_multiple_of(PANEL);
        let starts = (start..end).step_by(CHUNK);
        starts.map(move |start| start..(start + CHUNK).min(end))
    }
}

/// Packs rows `[length, dim]`, `stride` elements apart, as the columns of right operands: panel j has rows 32 j to 32 j + 32, each of `stride` elements.
fn pack_columns<E: OperandDtype>(rows: &[E], stride: usize, panels: &mut [E]) {
    let panel = stride / E::STEP * step_len::<E>();
    for (rows, panel) in rows
        .chunks_exact(PANEL * stride)
        .zip(panels.chunks_exact_mut(panel))
    {
        transpose(rows, panel);
    }
}

/// Packs rows as those of a right operand `[length, dim]`, with zeros up to a whole step. `row(i)` has `dim` elements.
fn pack_rows<'a, E: OperandDtype>(
    length: usize,
    dim: usize,
    row: impl Fn(usize) -> &'a [E],
    zeros: &'a [E],
    panels: &mut [E],
) {
    let steps = length.div_ceil(E::STEP);
    for first in (0..steps * E::STEP).step_by(E::GROUP) {
        // At most four rows of the operands' dtypes make a group.
        let rows: [&[E]; 4] = std::array::from_fn(|lane| match first + lane < length {
            true => row(first + lane),
            false => &zeros[..dim],
        });
        pack_group(panels, steps, first, &rows, dim);
    }
}
