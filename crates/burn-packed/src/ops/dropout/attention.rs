//! Attention with dropout of its probabilities.
//!
//! No published ModernBERT is trained this way, so there is no kernel: this is [`crate::ops::attention`] with [`dropout`] between
//! softmax and the matmul with V, from tensor operations that Burn differentiates. The probabilities of all query blocks are saved
//! for backward.

use burn::tensor::{Int, Tensor, TensorData, activation};

use super::{DropoutSpec, dropout};
use crate::ops::attention::{AttentionSpec, Block, QUERY_BLOCK};
use crate::ops::linear::linear;

/// Added to the scores of masked keys; finite, so that no difference is `inf - inf`.
const MASKED: f32 = -1e30;

/// [`crate::ops::attention::attention`] with dropout of the probabilities; arguments and result as there, without a softcap.
///
/// The key of a probability depends on the sequence's index in the batch, the head, the query and the key.
///
/// # Panics
/// As there, and if `spec` has a softcap.
pub fn attention_with_dropout(
    qkv: Tensor<4>,
    rotary: Option<Tensor<2>>,
    spec: &AttentionSpec,
    drop: DropoutSpec,
) -> Tensor<3> {
    let [total, three, heads, head_dim] = qkv.dims();
    assert_eq!(
        (three, total),
        (3, spec.layout.total_tokens()),
        "qkv is [total, 3, heads, head_dim]"
    );
    assert!(
        spec.softcap.is_none(),
        "attention_with_dropout: a softcap is not supported"
    );
    if total == 0 {
        return Tensor::zeros([0, heads, head_dim], (&qkv.device(), qkv.dtype()));
    }
    let dtype = qkv.dtype();
    let wide = match dtype {
        burn::tensor::DType::F64 => qkv,
        _ => qkv.cast(burn::tensor::FloatDType::F32),
    };
    // [heads, total, head_dim]
    let part = |i: usize| -> Tensor<3> {
        wide.clone()
            .narrow(1, i, 1)
            .reshape([total, heads, head_dim])
            .swap_dims(0, 1)
    };
    let (mut q, mut k, v) = (part(0), part(1), part(2));
    if let Some(table) = rotary {
        let positions = spec.layout.positions();
        let positions: Tensor<1, Int> =
            Tensor::from_data(TensorData::new(positions, [total]), &table.device());
        let angles = table
            .cast(burn::tensor::FloatDType::from(q.dtype()))
            .select(0, positions)
            .reshape([1, total, head_dim]);
        q = apply_rope(q, &angles);
        k = apply_rope(k, &angles);
    }
    let mut outs = Vec::new();
    for (sequence, range) in spec.layout.ranges().enumerate() {
        for block in spec.blocks(range.len(), QUERY_BLOCK) {
            let queries =
                q.clone()
                    .narrow(1, range.start + block.queries.start, block.queries.len());
            let at = |x: &Tensor<3>| {
                x.clone()
                    .narrow(1, range.start + block.keys.start, block.keys.len())
            };
            let scores = matmul_heads(queries, at(&k)) * spec.scale;
            let scores = match mask(&block, spec) {
                Some(mask) => {
                    let mask = Tensor::<3>::from_data(
                        TensorData::new(mask, [1, block.queries.len(), block.keys.len()]),
                        (&scores.device(), burn::tensor::DType::F32),
                    );
                    let dtype = burn::tensor::FloatDType::from(scores.dtype());
                    scores + mask.cast(dtype)
                }
                None => scores,
            };
            let part = drop.part([sequence as u64, block.queries.start as u64]);
            let kept = dropout(activation::softmax(scores, 2), part);
            outs.push(matmul_heads(kept, at(&v).swap_dims(1, 2)));
        }
    }
    Tensor::cat(outs, 1)
        .swap_dims(0, 1)
        .cast(burn::tensor::FloatDType::from(dtype))
}

/// `a · bᵀ` of each head, `[heads, m, k]` and `[heads, n, k]`. Burn's own batched matmul rounds f32 to TF32 on some devices.
fn matmul_heads(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    let heads = (0..a.dims()[0]).map(|head| {
        let of = |x: &Tensor<3>| -> Tensor<2> { x.clone().narrow(0, head, 1).squeeze_dim(0) };
        linear(of(&a), of(&b), None).unsqueeze()
    });
    Tensor::cat(heads.collect(), 0)
}

/// Returns the mask to add to the scores of a block, row by row; `None` if all keys are visible.
fn mask(block: &Block, spec: &AttentionSpec) -> Option<Vec<f32>> {
    let columns = block.keys.len();
    let mut visible = block.queries.clone().map(|i| spec.visible_in(block, i));
    if visible.clone().all(|keys| keys == (0..columns)) {
        return None;
    }
    let mut mask = vec![MASKED; block.queries.len() * columns];
    for (row, keys) in mask.chunks_mut(columns).zip(&mut visible) {
        row[keys].fill(0.0);
    }
    Some(mask)
}

/// Applies RoPE to `x [heads, total, head_dim]`; the halves of `angles [1, total, head_dim]` are the cosines and sines.
fn apply_rope(x: Tensor<3>, angles: &Tensor<3>) -> Tensor<3> {
    let half = x.dims()[2] / 2;
    let halves = |x: &Tensor<3>| {
        (
            x.clone().narrow(2, 0, half),
            x.clone().narrow(2, half, half),
        )
    };
    let ((a, b), (cos, sin)) = (halves(&x), halves(angles));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    Tensor::cat(vec![first, b * cos + a * sin], 2)
}
