//! Attention over packed sequences, global or within a two-sided window, with rotary embeddings applied inside.
//!
//! For every sequence of the batch and every head, with q, k, v `[length, head_dim]`:
//!
//! ```text
//! q', k'  = apply_rope(q), apply_rope(k)          positions restart at 0 in each sequence; v has no position
//! s_ij    = scale * q'_i · k'_j                   then softcap * tanh(s_ij / softcap) where a softcap is set
//! visible = |i - j| <= half_window                all keys of the sequence where half_window is None
//! out_i   = sum_j softmax_j(s_ij) v_j             over visible j
//! lse_i   = log sum_j exp(s_ij)
//! ```
//!
//! `apply_rope` rotates the pair of elements d and d + head_dim / 2 by the angle `position * theta^(-2d / head_dim)` (half-split
//! convention, the one Hugging Face checkpoints are trained with). A query sees no key of another sequence. A sequence of
//! length zero costs nothing and has no output.
//!
//! Scores exist for one block of queries at a time, in the forward and in the backward pass: memory is linear in tokens. A
//! windowed layer costs O(tokens × window), because no block reads keys outside its window. The backward pass saves the output
//! and the log-sum-exp only and recomputes the scores. It is deterministic: every gradient element is summed in a fixed
//! order. Results are batch-invariant: a sequence's output and gradient depend on that sequence alone.

pub(super) mod autodiff;
mod composed;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;
pub mod reference;

pub use composed::{Composed, Positions, attention_composed};

use crate::batch::SequenceLayout;
use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::ops::Range;

use super::{PackedBackend, refuse_f64};

/// All arguments of an attention call that are not tensors.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// Boundaries of the sequences.
    pub layout: SequenceLayout,
    /// Number of keys visible on each side of a query, inclusive: 64 for a `local_attention` of 128, 0 for the token alone.
    /// `None` makes every key of the sequence visible.
    pub half_window: Option<usize>,
    /// Factor on the scores, `1 / sqrt(head_dim)` in the model.
    pub scale: f64,
    /// Bound on the scores, if any.
    pub softcap: Option<f64>,
    /// True if the call has a rotary table, so that kernels apply RoPE to q and k. [`attention`] sets the field, so that it cannot
    /// contradict the table argument.
    pub(crate) rope: bool,
}

/// Number of queries in a block of the fallback: scores in memory are `QUERY_BLOCK × keys` per head.
pub(crate) const QUERY_BLOCK: usize = 64;

/// A block of queries and the keys that at least one of these queries sees, as rows of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryBlock {
    pub(crate) queries: Range<usize>,
    pub(crate) keys: Range<usize>,
}

impl AttentionSpec {
    /// Returns the arguments of attention within `half_window` keys on each side, or global where `half_window` is `None` (deliberately
    /// without a default), with `scale` as the factor on the scores and no softcap.
    pub fn new(layout: SequenceLayout, half_window: Option<usize>, scale: f64) -> Self {
        Self {
            layout,
            half_window,
            scale,
            softcap: None,
            rope: false,
        }
    }

    /// Bounds the scores to ±`softcap`, where it is set.
    #[must_use]
    pub fn with_softcap(mut self, softcap: Option<f64>) -> Self {
        self.softcap = softcap;
        self
    }

    /// Returns the keys that at least one of `queries` sees in a sequence of `length` tokens; since the window is symmetric, these are also
    /// the queries that see at least one of the keys `queries`. On CPUs `cpu_encoder::attention` states the same rule.
    pub(crate) fn visible(&self, queries: Range<usize>, length: usize) -> Range<usize> {
        match self.half_window {
            None => 0..length,
            Some(w) => queries.start.saturating_sub(w)..queries.end.saturating_add(w).min(length),
        }
    }

    /// Returns the blocks of `size` queries of a sequence of `length` tokens.
    pub(crate) fn blocks(
        &self,
        length: usize,
        size: usize,
    ) -> impl Iterator<Item = QueryBlock> + '_ {
        (0..length).step_by(size).map(move |start| {
            let queries = start..(start + size).min(length);
            let keys = self.visible(queries.clone(), length);
            QueryBlock { queries, keys }
        })
    }

    /// Returns the keys of `block` that `query` (a row of the sequence) sees, relative to the block's first key.
    pub(crate) fn visible_in(&self, block: &QueryBlock, query: usize) -> Range<usize> {
        let keys = self.visible(query..query + 1, block.keys.end);
        keys.start - block.keys.start..keys.end - block.keys.start
    }
}

/// Returns cosines and sines of the rotary embedding: `[positions, head_dim]` in f32, cosines in the first half of a row and sines in
/// the second.
///
/// Frequencies and angles are rounded to f32 where transformers rounds them: at position 8192, one unit in the
/// last place of a frequency changes the angle by 5e-4 radians, more than a model may differ by. The table is computed on
/// the host, so that it is the same on every backend.
pub fn rotary_table(positions: usize, head_dim: usize, theta: f64, device: &Device) -> Tensor<2> {
    let frequencies: Vec<f32> = (0..head_dim / 2)
        .map(|d| {
            let exponent = (2 * d) as f32 / head_dim as f32;
            1.0 / (theta as f32 as f64).powf(f64::from(exponent)) as f32
        })
        .collect();
    rotary_table_of(positions, head_dim, &frequencies, 1.0, device)
}

/// Returns the table of [`rotary_table`] for frequencies of the caller: pair d of a head, elements d and d + head_dim / 2, is rotated by
/// `position * frequencies[d]` and multiplied by `magnitude`. Pairs without a frequency stay as they are.
///
/// # Panics
/// If there are more frequencies than pairs.
pub fn rotary_table_of(
    positions: usize,
    head_dim: usize,
    frequencies: &[f32],
    magnitude: f32,
    device: &Device,
) -> Tensor<2> {
    let rest = rest_of_pairs(head_dim, frequencies);
    let mut values = Vec::with_capacity(positions * head_dim);
    for position in 0..positions {
        push_angles(&mut values, position, frequencies, |_| magnitude, rest);
    }
    table_of(values, positions, head_dim, device)
}

/// Returns tables with a row for each token of a batch, `[total, head_dim]` in f32, for queries and for keys.
///
/// `of_sequence` takes the number of tokens of a sequence and returns its frequencies and the factor on cosines and sines. `decay` takes a position
/// and the number of tokens of its sequence, and returns for each frequency the factor on queries, by which keys are divided.
///
/// # Panics
/// If there are more frequencies than pairs.
pub fn rotary_rows(
    layout: &SequenceLayout,
    head_dim: usize,
    of_sequence: impl Fn(usize) -> (Vec<f32>, f32),
    decay: impl Fn(usize, usize) -> Vec<f32>,
    device: &Device,
) -> [Tensor<2>; 2] {
    let total = layout.total_tokens();
    let mut values = [
        Vec::with_capacity(total * head_dim),
        Vec::with_capacity(total * head_dim),
    ];
    for length in layout.lengths() {
        let (frequencies, magnitude) = of_sequence(length);
        let rest = rest_of_pairs(head_dim, &frequencies);
        for position in 0..length {
            let decay = decay(position, length);
            let [queries, keys] = &mut values;
            let of_query = |d: usize| magnitude * decay[d];
            push_angles(queries, position, &frequencies, of_query, rest);
            let of_key = |d: usize| magnitude / decay[d];
            push_angles(keys, position, &frequencies, of_key, rest);
        }
    }
    values.map(|values| table_of(values, total, head_dim, device))
}

fn rest_of_pairs(head_dim: usize, frequencies: &[f32]) -> usize {
    let rest = (head_dim / 2).checked_sub(frequencies.len());
    rest.unwrap_or_else(|| {
        panic!(
            "{} frequencies for the {} pairs of a head of {head_dim}",
            frequencies.len(),
            head_dim / 2
        )
    })
}

/// Adds a row of a table: cosines, then sines; `rest` pairs are not rotated.
fn push_angles(
    values: &mut Vec<f32>,
    position: usize,
    frequencies: &[f32],
    magnitude: impl Fn(usize) -> f32,
    rest: usize,
) {
    // As in transformers: the product of position and frequency in f32, then cosine and sine of that angle.
    let angles = frequencies.iter().map(|f| position as f32 * f).enumerate();
    let cosines = angles.clone();
    values.extend(cosines.map(|(d, a)| f64::from(a).cos() as f32 * magnitude(d)));
    values.extend(std::iter::repeat_n(1.0, rest));
    values.extend(angles.map(|(d, a)| f64::from(a).sin() as f32 * magnitude(d)));
    values.extend(std::iter::repeat_n(0.0, rest));
}

fn table_of(values: Vec<f32>, rows: usize, head_dim: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(values, [rows, head_dim]),
        (device, DType::F32),
    )
}

/// Packed attention.
///
/// # Arguments
/// - `qkv`: `[total, 3, heads, head_dim]`, f32, f16 or bf16; q, k and v of every token.
/// - `rotary`: a table from [`rotary_table`] with at least `max_seqlen` rows; without it q and k have no positions.
/// - `spec`: sequence boundaries, window, scale, softcap.
///
/// # Returns
/// `[total, heads, head_dim]` in the dtype of `qkv`; softmax and accumulation are in f32.
///
/// # Panics
/// If shapes contradict each other, or in f64 where [`crate::device::computes_in`] returns false: both are mistakes of the calling
/// code, not of its input.
pub fn attention(qkv: Tensor<4>, rotary: Option<Tensor<2>>, spec: AttentionSpec) -> Tensor<3> {
    let [total, _, heads, head_dim] = qkv.dims();
    let (table, spec) = checked(&qkv, rotary, spec);
    if total == 0 {
        return Tensor::zeros([0, heads, head_dim], (&qkv.device(), qkv.dtype()));
    }
    Tensor::from_dispatch(<Dispatch as PackedBackend>::packed_attention(
        qkv.into_dispatch(),
        table.into_dispatch(),
        spec,
    ))
}

/// Returns output `[total, heads, head_dim]` and log-sum-exp `[heads, total]` of at least one token, without a node in the autodiff
/// graph; arguments and panics as for [`attention`].
pub fn attention_forward(
    qkv: Tensor<4>,
    rotary: Option<Tensor<2>>,
    spec: AttentionSpec,
) -> (Tensor<3>, Tensor<2>) {
    let (table, spec) = checked(&qkv, rotary, spec);
    let (out, lse) = <Dispatch as PackedBackend>::packed_attention_forward(
        qkv.into_dispatch(),
        table.into_dispatch(),
        spec,
    );
    (Tensor::from_dispatch(out), Tensor::from_dispatch(lse))
}

/// Returns the gradient of `qkv`, given the gradient of the output and the results of [`attention_forward`] for the same arguments.
pub fn attention_backward(
    d_out: Tensor<3>,
    qkv: Tensor<4>,
    (out, lse): (Tensor<3>, Tensor<2>),
    rotary: Option<Tensor<2>>,
    spec: AttentionSpec,
) -> Tensor<4> {
    let (table, spec) = checked(&qkv, rotary, spec);
    Tensor::from_dispatch(<Dispatch as PackedBackend>::packed_attention_backward(
        d_out.into_dispatch(),
        qkv.into_dispatch(),
        out.into_dispatch(),
        lse.into_dispatch(),
        table.into_dispatch(),
        spec,
    ))
}

/// Checks the arguments and returns the arguments of the backend's op. The op always has a table as argument: without RoPE a row of zeros that is
/// not read.
fn checked(
    qkv: &Tensor<4>,
    rotary: Option<Tensor<2>>,
    mut spec: AttentionSpec,
) -> (Tensor<2>, AttentionSpec) {
    let [total, three, _, head_dim] = qkv.dims();
    assert_eq!(
        three,
        3,
        "qkv is [total, 3, heads, head_dim], got {:?}",
        qkv.dims()
    );
    let tokens = spec.layout.total_tokens();
    assert_eq!(
        total, tokens,
        "qkv holds {total} tokens, the layout {tokens}"
    );
    refuse_f64(&qkv.device(), qkv.dtype(), "attention");
    spec.rope = rotary.is_some();
    let table = rotary.unwrap_or_else(|| Tensor::zeros([1, head_dim], (&qkv.device(), DType::F32)));
    let ([rows, width], longest) = (table.dims(), spec.layout.max_seqlen());
    assert!(
        !spec.rope || (rows >= longest && width == head_dim),
        "rotary table [{rows}, {width}] is too small for sequences of {longest} tokens with head_dim {head_dim}"
    );
    (table, spec)
}

/// Shapes and dtypes of the forward pass's results, which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(super) fn forward_specs(
    qkv: &burn::backend::fusion::custom::TensorSpec,
    _rotary: &burn::backend::fusion::custom::TensorSpec,
    _spec: &AttentionSpec,
) -> (
    burn::backend::fusion::custom::TensorSpec,
    burn::backend::fusion::custom::TensorSpec,
) {
    let (total, heads, head_dim) = (qkv.shape[0], qkv.shape[2], qkv.shape[3]);
    let mut out = qkv.clone();
    out.shape = burn::tensor::Shape::new([total, heads, head_dim]);
    let mut lse = qkv.clone();
    lse.shape = burn::tensor::Shape::new([heads, total]);
    if qkv.dtype != DType::F64 {
        lse.dtype = DType::F32;
    }
    (out, lse)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Blocks of queries, and the pairs of a query and a key that they compute: the loop of the CPU versions and of the fallback.
    fn blocks_and_pairs(half_window: Option<usize>, length: usize, size: usize) -> (usize, usize) {
        let layout = SequenceLayout::from_lengths([length]).unwrap();
        let spec = AttentionSpec::new(layout, half_window, 1.0);
        let blocks: Vec<QueryBlock> = spec.blocks(length, size).collect();
        let pairs = blocks
            .iter()
            .map(|block| block.queries.len() * block.keys.len());
        (blocks.len(), pairs.sum())
    }

    #[test]
    fn blocks_read_the_keys_of_their_band_and_no_others() {
        for (half_window, length, size) in
            [(64, 1024, 64), (64, 200, 64), (0, 130, 16), (5, 33, 64)]
        {
            let layout = SequenceLayout::from_lengths([length]).unwrap();
            let spec = AttentionSpec::new(layout, Some(half_window), 1.0);
            for block in spec.blocks(length, size) {
                let seen = |key: &usize| {
                    block
                        .queries
                        .clone()
                        .any(|query| query.abs_diff(*key) <= half_window)
                };
                let band: Vec<usize> = (0..length).filter(seen).collect();
                assert_eq!(
                    block.keys.clone().collect::<Vec<_>>(),
                    band,
                    "{:?}",
                    block.queries
                );
            }
        }
    }

    /// With blocks of 64 queries a local layer computes 192 keys for each query, less at both ends of the sequence: linear in the length.
    #[test]
    fn local_layers_do_linear_work_and_global_layers_quadratic() {
        for length in [1024, 2048, 4096, 8192] {
            assert_eq!(
                blocks_and_pairs(Some(64), length, 64),
                (length / 64, 192 * length - 2 * 64 * 64)
            );
            assert_eq!(
                blocks_and_pairs(None, length, 64),
                (length / 64, length * length)
            );
        }
    }
}
