//! Attention of one head of one sequence.
//!
//! Keys and values are packed as right operands for each task: keys as the columns of `Q Kᵀ`, values as the rows of `P V`. Blocks of 32 queries then go
//! through chunks of keys with an online softmax in base 2:
//!
//! ```text
//! S [32, chunk] = Q [32, dim] · Kᵀ        factor scale · log2(e) in Q
//! P, m, l       = softmax step of S       P rounded to the operands' dtype
//! O [32, dim]   = O · shrink + P · V      in f32
//! ```
//!
//! Chunks begin at multiples of 32 keys of the sequence, so that the order of every sum depends on the sequence alone.

use std::ops::Range;

use cpu_gemm::aligned::Aligned;
use cpu_gemm::kernel::Tile;
use cpu_gemm::pack::{Panel, pack_group, step_len, transpose};
use cpu_gemm::{PANEL, ROWS, Unit};

use crate::rows::{Activation, Rows, Softmax, accumulate};

/// Keys of one softmax step: a block's scores take 64 KB.
const CHUNK: usize = 512;

/// One head of one sequence of the projection to queries, keys and values.
pub(crate) struct Head<'a, E> {
    /// Queries from the sequence's first token on; keys and values follow at `part` and `2 * part` elements.
    pub(crate) qkv: &'a [E],
    /// Elements from one part to the next.
    pub(crate) part: usize,
    /// Elements from one token to the next.
    pub(crate) stride: usize,
    /// Tokens.
    pub(crate) length: usize,
    /// Elements of a head.
    pub(crate) dim: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// Keys on each side of a query that it sees, itself apart; `None` for all.
    pub(crate) half_window: Option<usize>,
    /// Cosines and sines of each position, `[positions, dim]`; `None` without RoPE.
    pub(crate) rotary: Option<&'a [f32]>,
}

/// A thread's buffers for heads of sequences up to a length.
pub(crate) struct Scratch<E: Activation> {
    keys: Aligned<E>,
    values: Aligned<E>,
    queries: Aligned<E>,
    scores: Aligned<f32>,
    probabilities: Aligned<E>,
    sums: Aligned<f32>,
    added: Aligned<f32>,
    /// Rows of 32 keys.
    block: Aligned<E>,
    /// A row of zeros.
    zeros: Vec<E>,
}

impl<E: Activation> Scratch<E> {
    pub(crate) fn new(longest: usize, dim: usize) -> Self {
        let keys = longest.div_ceil(PANEL) * dim.div_ceil(E::STEP) * step_len::<E>();
        let dim_panels = dim.div_ceil(PANEL);
        let values = dim_panels * longest.div_ceil(E::STEP) * step_len::<E>();
        let width = CHUNK.min(longest.next_multiple_of(PANEL) + PANEL);
        Self {
            keys: Aligned::zeros(keys),
            values: Aligned::zeros(values),
            queries: Aligned::zeros(ROWS * dim.next_multiple_of(E::STEP)),
            scores: Aligned::zeros(ROWS * width),
            probabilities: Aligned::zeros(ROWS * width),
            sums: Aligned::zeros(ROWS * dim_panels * PANEL),
            added: Aligned::zeros(ROWS * dim_panels * PANEL),
            block: Aligned::zeros(PANEL * dim.next_multiple_of(E::STEP)),
            zeros: vec![E::of(0.0); dim],
        }
    }
}

impl<E: Activation> Head<'_, E> {
    /// Computes the head; `finish(i, row, factor)` receives the result of each token, to be multiplied by a factor.
    ///
    /// # Safety
    /// `unit` is supported and the thread is inside [`Unit::enter`].
    pub(crate) unsafe fn forward(
        &self,
        unit: Unit,
        scratch: &mut Scratch<E>,
        mut finish: impl FnMut(usize, &[f32], f32),
    ) {
        self.pack(scratch);
        let (dim, padded) = (self.dim, self.dim.next_multiple_of(E::STEP));
        let key_panel = padded / E::STEP * step_len::<E>();
        let value_steps = self.length.div_ceil(E::STEP);
        let value_panel = value_steps * step_len::<E>();
        let dim_panels = dim.div_ceil(PANEL);
        let out_stride = dim_panels * PANEL;
        let factor = self.scale * std::f32::consts::LOG2_E;
        for first in (0..self.length).step_by(ROWS) {
            let rows = ROWS.min(self.length - first);
            E::rotate(
                self.rows(0, first, rows),
                self.table(first),
                factor,
                &mut scratch.queries,
                padded,
            );
            let visible = self.keys(first, first + rows - 1);
            let mut state = Softmax::new();
            let mut start = visible.start / PANEL * PANEL;
            while start < visible.end {
                let end = (start + CHUNK).min(visible.end.next_multiple_of(PANEL));
                let width = end - start;
                for panel in 0..width / PANEL {
                    let tile = Tile {
                        left: scratch.queries.as_ptr(),
                        left_stride: padded,
                        rows,
                        to: scratch.scores[panel * PANEL..].as_mut_ptr(),
                        to_stride: width,
                    };
                    let keys = &scratch.keys[(start / PANEL + panel) * key_panel..][..key_panel];
                    // SAFETY: queries and scores have 32 rows; the caller guarantees the unit.
                    unsafe { E::tile(unit, tile, Panel::of(keys)) }
                }
                for i in 0..rows {
                    let seen = self.keys(first + i, first + i);
                    let low = seen.start.clamp(start, end) - start;
                    let high = seen.end.clamp(start, end) - start;
                    let scores = &mut scratch.scores[i * width..][..width];
                    scores[..low].fill(f32::NEG_INFINITY);
                    scores[high.max(low)..].fill(f32::NEG_INFINITY);
                }
                E::softmax(
                    &scratch.scores,
                    width,
                    width,
                    rows,
                    &mut state,
                    &mut scratch.probabilities,
                );
                let is_first = start <= visible.start;
                // Probabilities of keys beyond the sequence are zero; the values' panels end with the sequence.
                let steps = (width / E::STEP).min(value_steps - start / E::STEP);
                for panel in 0..dim_panels {
                    let to = match is_first {
                        true => &mut scratch.sums,
                        false => &mut scratch.added,
                    };
                    let tile = Tile {
                        left: scratch.probabilities.as_ptr(),
                        left_stride: width,
                        rows,
                        to: to[panel * PANEL..].as_mut_ptr(),
                        to_stride: out_stride,
                    };
                    let values = Panel::of(&scratch.values[panel * value_panel..][..value_panel]);
                    // SAFETY: probabilities and sums have 32 rows; the caller guarantees the unit.
                    unsafe { E::tile(unit, tile, values.steps(start / E::STEP, steps)) }
                }
                if !is_first {
                    accumulate(
                        &mut scratch.sums,
                        &scratch.added,
                        out_stride,
                        rows,
                        &state.shrink,
                    );
                }
                start = end;
            }
            for i in 0..rows {
                let inverse = 1.0 / state.sum[i];
                let sums = &scratch.sums[i * out_stride..][..dim];
                finish(first + i, sums, inverse);
            }
        }
    }

    /// Keys that the queries `first..=last` see together.
    fn keys(&self, first: usize, last: usize) -> Range<usize> {
        match self.half_window {
            None => 0..self.length,
            Some(half) => {
                first.saturating_sub(half)..last.saturating_add(half + 1).min(self.length)
            }
        }
    }

    /// Rows of a part: 0 for queries, 1 for keys.
    fn rows(&self, part: usize, first: usize, rows: usize) -> Rows<'_, E> {
        Rows {
            values: &self.qkv[first * self.stride + part * self.part..],
            stride: self.stride,
            rows,
            dim: self.dim,
        }
    }

    /// The rotary table from a token on.
    fn table(&self, first: usize) -> &[f32] {
        self.rotary.map_or(&[], |table| &table[first * self.dim..])
    }

    /// Packs keys and values.
    fn pack(&self, scratch: &mut Scratch<E>) {
        let (dim, padded) = (self.dim, self.dim.next_multiple_of(E::STEP));
        let steps = self.length.div_ceil(E::STEP);
        let key_panel = padded / E::STEP * step_len::<E>();
        for (first, panel) in (0..self.length)
            .step_by(PANEL)
            .zip(scratch.keys.chunks_exact_mut(key_panel))
        {
            let rows = PANEL.min(self.length - first);
            let keys = &mut scratch.block[..PANEL * padded];
            E::rotate(
                self.rows(1, first, rows),
                self.table(first),
                1.0,
                keys,
                padded,
            );
            keys[rows * padded..].fill(E::of(0.0));
            transpose(keys, panel);
        }
        for first in (0..steps * E::STEP).step_by(E::GROUP) {
            let row = |token: usize| match token < self.length {
                true => &self.qkv[token * self.stride + 2 * self.part..][..dim],
                false => &scratch.zeros[..dim],
            };
            // At most four rows of the operands' dtypes make a group.
            let rows: [&[E]; 4] = std::array::from_fn(|lane| row(first + lane));
            pack_group(&mut scratch.values, steps, first, &rows, dim);
        }
    }
}
