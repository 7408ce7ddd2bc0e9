//! Attention from tensor operations that Burn differentiates, for the options that no kernel has: ALiBi, rotary angles of each token, dropout of
//! the probabilities.
//!
//! ```text
//! q', k'  = apply_rope(q), apply_rope(k)          by a table of positions, or by a row for each token
//! s_ij    = softcap(scale * q'_i · k'_j) - slope * |i - j|
//! out_i   = sum_j dropout(softmax_j(s_ij)) v_j    over visible j
//! ```
//!
//! The probabilities of all query blocks are saved for backward: memory grows with tokens × keys per query.

use burn::tensor::{FloatDType, Int, Tensor, TensorData, activation};

use super::{AttentionSpec, QUERY_BLOCK, QueryBlock};
use crate::ops::dropout::{DropoutSpec, dropout};
use crate::ops::linear::linear;

/// Added to the scores of masked keys; finite, so that no difference is `inf - inf`.
const MASKED: f32 = -1e30;

/// Rotary embeddings of a call.
#[allow(clippy::large_enum_variant)] // one value in a call
#[derive(Clone, Debug)]
pub enum Positions {
    /// None.
    None,
    /// A row for each position of a sequence, as [`super::rotary_table`] makes it.
    Table(Tensor<2>),
    /// A row for each token of the batch, for queries and for keys, as [`super::rotary_rows`] makes them.
    Tokens(Box<[Tensor<2>; 2]>),
}

/// Options of attention that no kernel has.
#[derive(Clone, Debug)]
pub struct Composed {
    /// Rotary embeddings.
    pub positions: Positions,
    /// ALiBi's slope of each head.
    pub slopes: Option<Vec<f64>>,
    /// Dropout of the probabilities.
    pub dropout: Option<DropoutSpec>,
}

/// [`super::attention`] with the positions, the slopes and the dropout of `composed`.
///
/// `qkv` is `[total, 3, heads, head_dim]`, the result `[total, heads, head_dim]` in its dtype, computed in f32 (f64 in f64). The key of a dropped
/// probability depends on the sequence's index in the batch, the head, the query and the key.
///
/// # Panics
/// If the shapes contradict each other.
pub fn attention_composed(qkv: Tensor<4>, spec: &AttentionSpec, composed: Composed) -> Tensor<3> {
    let [total, three, heads, head_dim] = qkv.dims();
    assert_eq!(
        (three, total),
        (3, spec.layout.total_tokens()),
        "qkv is [total, 3, heads, head_dim]"
    );
    if total == 0 {
        return Tensor::zeros([0, heads, head_dim], (&qkv.device(), qkv.dtype()));
    }
    let dtype = qkv.dtype();
    let wide: Tensor<4> = match dtype {
        burn::tensor::DType::F64 => qkv,
        _ => qkv.cast(FloatDType::F32),
    };
    // [heads, total, head_dim]
    let projection = |i: usize| -> Tensor<3> {
        wide.clone()
            .narrow(1, i, 1)
            .reshape([total, heads, head_dim])
            .swap_dims(0, 1)
    };
    let (mut q, mut k, v) = (projection(0), projection(1), projection(2));
    let rows = |table: Tensor<2>| -> Tensor<3> {
        table
            .cast(FloatDType::from(wide.dtype()))
            .reshape([1, total, head_dim])
    };
    match composed.positions {
        Positions::None => {}
        Positions::Table(table) => {
            let positions: Tensor<1, Int> = Tensor::from_data(
                TensorData::new(spec.layout.positions(), [total]),
                &table.device(),
            );
            let angles = rows(table.select(0, positions));
            q = apply_rope(q, &angles);
            k = apply_rope(k, &angles);
        }
        Positions::Tokens(of_tokens) => {
            let [of_queries, of_keys] = *of_tokens;
            q = apply_rope(q, &rows(of_queries));
            k = apply_rope(k, &rows(of_keys));
        }
    }
    let slopes = composed.slopes.map(|slopes| {
        assert_eq!(slopes.len(), heads, "a slope for each head");
        let slopes: Vec<f32> = slopes.into_iter().map(|slope| slope as f32).collect();
        constant(slopes, [heads, 1, 1], &q)
    });
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
            let shape = [1, block.queries.len(), block.keys.len()];
            let mut scores = matmul_heads(queries, at(&k)) * spec.scale;
            if let Some(cap) = spec.softcap {
                scores = (scores / cap).tanh() * cap;
            }
            if let Some(slopes) = &slopes {
                scores = scores - constant(distances(&block), shape, &q) * slopes.clone();
            }
            if let Some(mask) = mask(&block, spec) {
                scores = scores + constant(mask, shape, &q);
            }
            let mut p = activation::softmax(scores, 2);
            if let Some(drop) = &composed.dropout {
                p = dropout(
                    p,
                    drop.derived([sequence as u64, block.queries.start as u64]),
                );
            }
            outs.push(matmul_heads(p, at(&v).swap_dims(1, 2)));
        }
    }
    Tensor::cat(outs, 1)
        .swap_dims(0, 1)
        .cast(FloatDType::from(dtype))
}

/// Host values as a tensor on the device and in the dtype of `like`.
fn constant(values: Vec<f32>, shape: [usize; 3], like: &Tensor<3>) -> Tensor<3> {
    let made: Tensor<3> = Tensor::from_data(
        TensorData::new(values, shape),
        (&like.device(), burn::tensor::DType::F32),
    );
    made.cast(FloatDType::from(like.dtype()))
}

/// `a · bᵀ` of each head, `[heads, m, k]` and `[heads, n, k]`. Burn's own batched matmul rounds f32 to TF32 on some devices.
fn matmul_heads(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    let heads = (0..a.dims()[0]).map(|head| {
        let of = |x: &Tensor<3>| -> Tensor<2> { x.clone().narrow(0, head, 1).squeeze_dim(0) };
        linear(of(&a), of(&b), None).unsqueeze()
    });
    Tensor::cat(heads.collect(), 0)
}

/// Returns the distance of each query of a block to each of its keys, row by row.
fn distances(block: &QueryBlock) -> Vec<f32> {
    let rows = block.queries.clone();
    rows.flat_map(|i| block.keys.clone().map(move |j| i.abs_diff(j) as f32))
        .collect()
}

/// Returns the mask to add to the scores of a block, row by row; `None` if all keys are visible.
fn mask(block: &QueryBlock, spec: &AttentionSpec) -> Option<Vec<f32>> {
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
