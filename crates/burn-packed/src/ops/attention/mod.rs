//! Attention over packed sequences, global or within a two-sided window, with rotary positions applied inside.
//!
//! For every sequence of the batch and every head, with q, k, v `[length, head_dim]`:
//!
//! ```text
//! q', k'  = rotate(q), rotate(k)                  positions restart at 0 in each sequence; v is not rotated
//! s_ij    = scale * q'_i · k'_j                   then softcap * tanh(s_ij / softcap) where a softcap is set
//! visible = |i - j| <= half_window                all keys of the sequence where half_window is None
//! out_i   = sum_j softmax_j(s_ij) v_j             over visible j
//! lse_i   = log sum_j exp(s_ij)
//! ```
//!
//! `rotate` pairs element d with d + head_dim / 2 and turns the pair by `position * theta^(-2d / head_dim)` (half-split
//! convention, the one Hugging Face checkpoints are trained with). Sequences never see each other; a sequence of length
//! zero costs nothing and yields nothing.
//!
//! Scores exist one block of queries at a time, in forward and in backward: memory is linear in tokens, and a windowed
//! layer costs O(tokens × window) because keys outside the window of a block are never visited. Backward keeps the
//! output and the log-sum-exp alone and recomputes the rest. It is deterministic: every gradient element is summed in a
//! fixed order.

pub(super) mod autodiff;
#[cfg(all(feature = "flex", target_arch = "x86_64"))]
mod avx512;
#[cfg(feature = "cube")]
pub(super) mod cube;
#[cfg(feature = "flex")]
pub(super) mod flex;
pub(super) mod portable;
pub mod reference;

use crate::batch::SequenceLayout;
use burn::backend::Dispatch;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use std::ops::Range;

use super::{PackedBackend, refuse_f64};

/// Everything about an attention call that is not a tensor.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// Boundaries of the sequences, as the host knows them; the tensor `cu_seqlens` holds the same on the device.
    pub layout: SequenceLayout,
    /// Keys visible on each side of a query, inclusive: 64 for a `local_attention` of 128, 0 for the token alone.
    /// `None` makes every key of the sequence visible. Deliberately without a default.
    pub half_window: Option<usize>,
    /// Factor on the scores, `1 / sqrt(head_dim)` in the model.
    pub scale: f64,
    /// Bound on the scores, if any.
    pub softcap: Option<f64>,
    /// Whether q and k are rotated; without it the table argument is ignored.
    pub rotary: bool,
}

/// Queries handled at once. Their scores are the only ones in memory: `block × keys` per head.
pub(crate) const QUERY_BLOCK: usize = 64;

/// A block of queries and the keys that any of them can see, as rows of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) queries: Range<usize>,
    pub(crate) keys: Range<usize>,
}

impl AttentionSpec {
    /// Blocks of queries of a sequence of `length` tokens, with the keys each can see.
    pub(crate) fn blocks(&self, length: usize, size: usize) -> impl Iterator<Item = Block> + '_ {
        let half_window = self.half_window;
        (0..length).step_by(size).map(move |start| {
            let end = (start + size).min(length);
            let keys = match half_window {
                None => 0..length,
                Some(w) => start.saturating_sub(w)..(end.saturating_add(w)).min(length),
            };
            Block {
                queries: start..end,
                keys,
            }
        })
    }

    /// Keys of `block` that `query` (a row of the sequence) can see, relative to the block's first key.
    pub(crate) fn visible(&self, block: &Block, query: usize) -> Range<usize> {
        match self.half_window {
            None => 0..block.keys.len(),
            Some(w) => {
                let first = query.saturating_sub(w).max(block.keys.start);
                let last = query
                    .saturating_add(w)
                    .saturating_add(1)
                    .min(block.keys.end);
                first - block.keys.start..last - block.keys.start
            }
        }
    }
}

/// Cosines and sines of the rotary positions: `[positions, head_dim]` in f32, cosines in the first half of a row and
/// sines in the second.
///
/// Frequencies and angles are rounded to f32 where the reference implementation rounds them: at position 8192 one unit in
/// the last place of a frequency is 5e-4 of a turn's radius, more than a model may differ by. The table is computed on the
/// host, so that it is the same on every backend.
pub fn rotary_table(positions: usize, head_dim: usize, theta: f64, device: &Device) -> Tensor<2> {
    let half = head_dim / 2;
    let mut values = Vec::with_capacity(positions * head_dim);
    let frequencies: Vec<f32> = (0..half)
        .map(|d| {
            let exponent = (2 * d) as f32 / head_dim as f32;
            1.0 / (theta as f32 as f64).powf(f64::from(exponent)) as f32
        })
        .collect();
    for position in 0..positions {
        // The reference multiplies position and frequency in f32; so do we, and take cosine and sine of that angle.
        let angles = frequencies.iter().map(|f| position as f32 * f);
        values.extend(angles.clone().map(|a| f64::from(a).cos() as f32));
        values.extend(angles.map(|a| f64::from(a).sin() as f32));
    }
    Tensor::from_data(
        TensorData::new(values, [positions, head_dim]),
        (device, DType::F32),
    )
}

/// Packed attention.
///
/// # Arguments
/// - `qkv`: `[total, 3, heads, head_dim]`, f32, f16 or bf16; q, k and v of every token.
/// - `cu_seqlens`: `[sequences + 1]`, the boundaries of `spec.layout` on the device.
/// - `rotary`: a table from [`rotary_table`] with at least `max_seqlen` rows; `None` leaves q and k as they are.
/// - `spec`: window, scale and boundaries; its `rotary` field is set from the argument.
///
/// # Returns
/// `[total, heads, head_dim]` in the dtype of `qkv`; softmax and accumulation are in f32.
///
/// # Panics
/// When shapes contradict each other, or in f64 where [`crate::device::computes_in`] says no: these are mistakes of the
/// calling code, not of its input.
pub fn attention(
    qkv: Tensor<4>,
    cu_seqlens: Tensor<1, Int>,
    rotary: Option<Tensor<2>>,
    mut spec: AttentionSpec,
) -> Tensor<3> {
    let [total, three, heads, head_dim] = qkv.dims();
    assert_eq!(
        three,
        3,
        "qkv is [total, 3, heads, head_dim], got {:?}",
        qkv.dims()
    );
    assert_eq!(
        total,
        spec.layout.total_tokens(),
        "qkv holds {total} tokens, the layout {}",
        spec.layout.total_tokens()
    );
    refuse_f64(&qkv.device(), qkv.dtype(), "attention");
    if total == 0 {
        return Tensor::zeros([0, heads, head_dim], (&qkv.device(), qkv.dtype()));
    }
    spec.rotary = rotary.is_some();
    let table = match rotary {
        Some(table) => {
            let [rows, width] = table.dims();
            assert!(
                rows >= spec.layout.max_seqlen() && width == head_dim,
                "rotary table [{rows}, {width}] is too small for sequences of {} tokens with head_dim {head_dim}",
                spec.layout.max_seqlen()
            );
            table
        }
        None => Tensor::zeros([1, head_dim], (&qkv.device(), DType::F32)),
    };
    Tensor::from_dispatch(<Dispatch as PackedBackend>::packed_attention(
        qkv.into_dispatch(),
        table.into_dispatch(),
        cu_seqlens.into_dispatch(),
        spec,
    ))
}

/// Output and log-sum-exp `[heads, total]` of an attention that is not part of a graph; arguments as for [`attention`].
pub fn attention_forward(
    qkv: Tensor<4>,
    cu_seqlens: Tensor<1, Int>,
    rotary: Tensor<2>,
    spec: AttentionSpec,
) -> (Tensor<3>, Tensor<2>) {
    let (out, lse) = <Dispatch as PackedBackend>::packed_attention_forward(
        qkv.into_dispatch(),
        rotary.into_dispatch(),
        cu_seqlens.into_dispatch(),
        spec,
    );
    (Tensor::from_dispatch(out), Tensor::from_dispatch(lse))
}

/// Gradient of `qkv`, given the gradient of the output and what [`attention_forward`] returned.
pub fn attention_backward(
    d_out: Tensor<3>,
    qkv: Tensor<4>,
    (out, lse): (Tensor<3>, Tensor<2>),
    cu_seqlens: Tensor<1, Int>,
    rotary: Tensor<2>,
    spec: AttentionSpec,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::packed_attention_backward(
        d_out.into_dispatch(),
        qkv.into_dispatch(),
        out.into_dispatch(),
        lse.into_dispatch(),
        rotary.into_dispatch(),
        cu_seqlens.into_dispatch(),
        spec,
    ))
}

/// Shapes of the forward's results, which a lazy backend needs before it runs.
#[cfg(feature = "fusion")]
pub(super) fn forward_specs(
    qkv: &burn::backend::fusion::custom::TensorSpec,
    _rotary: &burn::backend::fusion::custom::TensorSpec,
    _cu_seqlens: &burn::backend::fusion::custom::TensorSpec,
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
