//! The forward pass of a head.
//!
//! Keys and values are packed as right operands for each task: keys as the columns of `Q Kᵀ`, values as the rows of `P V`. Blocks of 32 queries then
//! loop over chunks of keys with an online softmax:
//!
//! ```text
//! S [32, chunk] = Q [32, dim] · Kᵀ        the factor of the scores in Q
//! P, m, l       = softmax step of S       P rounded to the operands' dtype
//! O [32, dim]   = O · shrink + P · V      in f32
//! ```

use cpu_gemm::aligned::Aligned;
use cpu_gemm::kernel::MicrokernelArgs;
use cpu_gemm::pack::{Panel, step_len, transpose};
use cpu_gemm::{InstructionSet, PANEL, ROWS};

use super::{CHUNK, HeadView, pack_rows};
use crate::rows::{OnlineSoftmax, OperandDtype, accumulate};

/// A thread's buffers for heads of sequences up to a length.
pub struct Scratch<E: OperandDtype> {
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

impl<E: OperandDtype> Scratch<E> {
    /// Buffers for sequences of up to `longest` tokens and heads of `dim` elements.
    pub fn new(longest: usize, dim: usize) -> Self {
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

/// Maximum of a query's scores and the sum of their exponentials relative to it.
#[derive(Clone, Copy, Debug)]
pub struct Total {
    max: f32,
    sum: f32,
}

impl Total {
    /// One over the sum, by which a query's result is multiplied.
    pub fn inverse(self) -> f32 {
        1.0 / self.sum
    }

    /// The natural logarithm of the sum of the exponentials of the query's scores.
    pub fn log_sum_exp(self) -> f32 {
        self.max + self.sum.ln()
    }
}

impl<E: OperandDtype> HeadView<'_, E> {
    /// Computes the head; `finish(i, row, total)` receives the result of each token, to be multiplied by [`Total::inverse`].
    ///
    /// # Panics
    /// If the scratch is one of shorter sequences or smaller heads, or a slice ends before the sequence.
    ///
    /// # Safety
    /// `isa` is supported and the thread is inside [`InstructionSet::enter`].
    pub unsafe fn forward(
        &self,
        isa: InstructionSet,
        scratch: &mut Scratch<E>,
        mut finish: impl FnMut(usize, &[f32], Total),
    ) {
        self.pack(scratch);
        let (dim, padded) = (self.dim, self.dim.next_multiple_of(E::STEP));
        let key_panel = padded / E::STEP * step_len::<E>();
        let value_steps = self.length.div_ceil(E::STEP);
        let value_panel = value_steps * step_len::<E>();
        let dim_panels = dim.div_ceil(PANEL);
        let out_stride = dim_panels * PANEL;
        for first in (0..self.length).step_by(ROWS) {
            let rows = ROWS.min(self.length - first);
            E::rotate(
                self.rows(0, first, rows),
                self.table(first),
                self.scale,
                &mut scratch.queries,
                padded,
            );
            let mut state = OnlineSoftmax::new();
            for (index, columns) in self.chunks(first, rows).enumerate() {
                let (start, width) = (columns.start, columns.len());
                for panel in 0..width / PANEL {
                    let tile = MicrokernelArgs {
                        left: scratch.queries.as_ptr(),
                        left_stride: padded,
                        rows,
                        to: scratch.scores[panel * PANEL..].as_mut_ptr(),
                        to_stride: width,
                    };
                    let keys = &scratch.keys[(start / PANEL + panel) * key_panel..][..key_panel];
                    // SAFETY: queries and scores have 32 rows; the caller guarantees the unit.
                    unsafe { E::tile(isa, tile, Panel::of(keys)) }
                }
                let scores = &mut scratch.scores[..rows * width];
                self.bound(scores, None);
                self.hide(scores, first, rows, columns);
                E::softmax(
                    &scratch.scores,
                    width,
                    width,
                    rows,
                    &mut state,
                    &mut scratch.probabilities,
                );
                let is_first = index == 0;
                // Probabilities of keys beyond the sequence are zero; the values' panels end with the sequence.
                let steps = (width / E::STEP).min(value_steps - start / E::STEP);
                for panel in 0..dim_panels {
                    let to = match is_first {
                        true => &mut scratch.sums,
                        false => &mut scratch.added,
                    };
                    let tile = MicrokernelArgs {
                        left: scratch.probabilities.as_ptr(),
                        left_stride: width,
                        rows,
                        to: to[panel * PANEL..].as_mut_ptr(),
                        to_stride: out_stride,
                    };
                    let values = Panel::of(&scratch.values[panel * value_panel..][..value_panel]);
                    // SAFETY: probabilities and sums have 32 rows; the caller guarantees the unit.
                    unsafe { E::tile(isa, tile, values.steps(start / E::STEP, steps)) }
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
            }
            for i in 0..rows {
                let sums = &scratch.sums[i * out_stride..][..dim];
                let (max, sum) = (state.max[i], state.sum[i]);
                finish(first + i, sums, Total { max, sum });
            }
        }
    }

    /// Packs keys and values.
    fn pack(&self, scratch: &mut Scratch<E>) {
        let (dim, padded) = (self.dim, self.dim.next_multiple_of(E::STEP));
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
        let row = |token: usize| &self.qkv[token * self.stride + 2 * self.qkv_stride..][..dim];
        pack_rows(self.length, dim, row, &scratch.zeros, &mut scratch.values);
    }
}
