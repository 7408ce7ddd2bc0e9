//! Attention from tensor operations that every backend has: the fallback of a backend without an attention kernel, and the readable
//! form of forward and backward pass.
//!
//! The loop is over blocks of queries of one sequence, all heads together; see the parent module for the definition.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Scalar, Shape, TensorData};

use super::{AttentionSpec, QUERY_BLOCK, QueryBlock};
use crate::ops::primitive::{assign, cast, cast_to_compute, narrow, reshape};

/// Added to the scores of hidden keys in place of minus infinity: finite, so that no row computes `inf - inf`.
const HIDDEN: f32 = -1e30;

/// Returns output `[total, heads, head_dim]` in the dtype of `qkv` and log-sum-exp `[heads, total]` in f32 (f64 for f64 input).
pub(crate) fn forward<B: Backend>(
    qkv: FloatTensor<B>,
    rotary: FloatTensor<B>,
    spec: &AttentionSpec,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dtype = qkv.dtype();
    let [q, k, v] = heads_first::<B>(qkv, rotary, spec);
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for_each_block(spec, |block, first_row| {
        let (out, lse) = block_forward::<B>(&q, &k, &v, &block, first_row, spec);
        outs.push(out);
        lses.push(lse);
    });
    let out = B::float_swap_dims(B::float_cat(outs, 1), 0, 1);
    let lse = B::float_cat(lses, 1);
    let [heads, total] = lse.shape().dims();
    let head_dim = out.shape()[2];
    (
        cast::<B>(reshape::<B, 3>(out, [total, heads, head_dim]), dtype),
        lse,
    )
}

/// Returns the gradient `[total, 3, heads, head_dim]` of `qkv`.
pub(crate) fn backward<B: Backend>(
    d_out: FloatTensor<B>,
    qkv: FloatTensor<B>,
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    rotary: FloatTensor<B>,
    spec: &AttentionSpec,
) -> FloatTensor<B> {
    let dtype = qkv.dtype();
    let [q, k, v] = heads_first::<B>(qkv, rotary.clone(), spec);
    let d_out = B::float_swap_dims(cast_to_compute::<B>(d_out), 0, 1);
    let out = B::float_swap_dims(cast_to_compute::<B>(out), 0, 1);
    // delta_i = sum_d out_id * d_out_id = sum_j p_ij (d_out_i · v_j), which the derivative of the softmax subtracts.
    let delta = B::float_sum_dim(B::float_mul(d_out.clone(), out), 2);

    let zeros = B::float_mul_scalar(q.clone(), Scalar::from(0.0));
    let (mut d_q, mut d_k, mut d_v) = (zeros.clone(), zeros.clone(), zeros);
    for_each_block(spec, |block, first_row| {
        let queries = first_row + block.queries.start..first_row + block.queries.end;
        let keys = first_row + block.keys.start..first_row + block.keys.end;
        let (q, k, v) = (
            narrow::<B>(q.clone(), 1, queries.clone()),
            narrow::<B>(k.clone(), 1, keys.clone()),
            narrow::<B>(v.clone(), 1, keys.clone()),
        );
        let d_out = narrow::<B>(d_out.clone(), 1, queries.clone());
        let [heads, rows, _] = q.shape().dims();
        let lse = reshape::<B, 3>(
            narrow::<B>(lse.clone(), 1, queries.clone()),
            [heads, rows, 1],
        );

        let (scores, cap) = capped_scores::<B>(q.clone(), k.clone(), spec);
        let p = B::float_exp(B::float_sub(masked::<B>(scores, &block, spec), lse));
        add_at::<B>(
            &mut d_v,
            keys.clone(),
            transposed_matmul::<B>(p.clone(), d_out.clone()),
        );

        let d_p = B::float_matmul(d_out, B::float_swap_dims(v, 1, 2));
        let delta = narrow::<B>(delta.clone(), 1, queries.clone());
        let mut d_scores = B::float_mul(p, B::float_sub(d_p, delta));
        if let Some(tanh) = cap {
            // d/ds of c tanh(s / c) is 1 - tanh².
            let slope = B::float_add_scalar(
                B::float_neg(B::float_mul(tanh.clone(), tanh)),
                Scalar::from(1.0),
            );
            d_scores = B::float_mul(d_scores, slope);
        }
        let d_scores = B::float_mul_scalar(d_scores, Scalar::from(spec.scale));
        add_at::<B>(&mut d_q, queries, B::float_matmul(d_scores.clone(), k));
        add_at::<B>(&mut d_k, keys, transposed_matmul::<B>(d_scores, q));
    });

    if spec.rope {
        let (cos, sin) = angles::<B>(rotary, spec, d_q.dtype());
        // RoPE is orthogonal: its gradient is RoPE by the negative angles.
        let sin = B::float_neg(sin);
        d_q = apply_rope::<B>(d_q, cos.clone(), sin.clone());
        d_k = apply_rope::<B>(d_k, cos, sin);
    }
    let [heads, total, head_dim] = d_q.shape().dims();
    let projections = [d_q, d_k, d_v]
        .map(|d| reshape::<B, 4>(B::float_swap_dims(d, 0, 1), [total, 1, heads, head_dim]));
    cast::<B>(B::float_cat(projections.into(), 1), dtype)
}

/// Returns q, k, v as `[heads, total, head_dim]` in f32 (or f64), with RoPE applied to q and k.
fn heads_first<B: Backend>(
    qkv: FloatTensor<B>,
    rotary: FloatTensor<B>,
    spec: &AttentionSpec,
) -> [FloatTensor<B>; 3] {
    let qkv = cast_to_compute::<B>(qkv);
    let [total, _, heads, head_dim] = qkv.shape().dims();
    let projection = |i: usize| {
        let projection = narrow::<B>(qkv.clone(), 1, i..i + 1);
        B::float_swap_dims(reshape::<B, 3>(projection, [total, heads, head_dim]), 0, 1)
    };
    let (q, k, v) = (projection(0), projection(1), projection(2));
    if !spec.rope {
        return [q, k, v];
    }
    let (cos, sin) = angles::<B>(rotary, spec, q.dtype());
    [
        apply_rope::<B>(q, cos.clone(), sin.clone()),
        apply_rope::<B>(k, cos, sin),
        v,
    ]
}

/// Returns cosine and sine of every token's angle, each `[1, total, head_dim / 2]`.
fn angles<B: Backend>(
    rotary: FloatTensor<B>,
    spec: &AttentionSpec,
    dtype: DType,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let device = rotary.device();
    let positions = spec.layout.positions();
    let total = positions.len();
    let positions = B::int_from_data(TensorData::new(positions, [total]), &device);
    let rows = cast::<B>(B::float_select(rotary, 0, positions), dtype);
    let head_dim = rows.shape()[1];
    let rows = reshape::<B, 3>(rows, [1, total, head_dim]);
    (
        narrow::<B>(rows.clone(), 2, 0..head_dim / 2),
        narrow::<B>(rows, 2, head_dim / 2..head_dim),
    )
}

/// Returns `x [heads, total, head_dim]` with RoPE applied.
fn apply_rope<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
) -> FloatTensor<B> {
    let head_dim = x.shape()[2];
    let a = narrow::<B>(x.clone(), 2, 0..head_dim / 2);
    let b = narrow::<B>(x, 2, head_dim / 2..head_dim);
    let first = B::float_sub(
        B::float_mul(a.clone(), cos.clone()),
        B::float_mul(b.clone(), sin.clone()),
    );
    let second = B::float_add(B::float_mul(b, cos), B::float_mul(a, sin));
    B::float_cat(vec![first, second], 2)
}

/// Returns output `[heads, queries, head_dim]` and log-sum-exp `[heads, queries]` of a block, whose sequence starts at `first_row`.
fn block_forward<B: Backend>(
    q: &FloatTensor<B>,
    k: &FloatTensor<B>,
    v: &FloatTensor<B>,
    block: &QueryBlock,
    first_row: usize,
    spec: &AttentionSpec,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let queries = first_row + block.queries.start..first_row + block.queries.end;
    let keys = first_row + block.keys.start..first_row + block.keys.end;
    let q = narrow::<B>(q.clone(), 1, queries);
    let k = narrow::<B>(k.clone(), 1, keys.clone());
    let v = narrow::<B>(v.clone(), 1, keys);
    let [heads, rows, _] = q.shape().dims();

    let scores = masked::<B>(capped_scores::<B>(q, k, spec).0, block, spec);
    let max = B::float_max_dim(scores.clone(), 2);
    let p = B::float_exp(B::float_sub(scores, max.clone()));
    let sum = B::float_sum_dim(p.clone(), 2);
    let out = B::float_div(B::float_matmul(p, v), sum.clone());
    let lse = B::float_add(B::float_log(sum), max);
    (out, reshape::<B, 2>(lse, [heads, rows]))
}

/// Returns the scaled scores, bounded where the spec has a softcap, and the tanh of the softcap, which the backward pass needs.
fn capped_scores<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    spec: &AttentionSpec,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let scores = B::float_matmul(q, B::float_swap_dims(k, 1, 2));
    let scores = B::float_mul_scalar(scores, Scalar::from(spec.scale));
    match spec.softcap {
        None => (scores, None),
        Some(cap) => {
            let tanh = B::float_tanh(B::float_div_scalar(scores, Scalar::from(cap)));
            (
                B::float_mul_scalar(tanh.clone(), Scalar::from(cap)),
                Some(tanh),
            )
        }
    }
}

/// Hides the keys of a block that are outside the window of a query; most blocks of a long sequence have such keys.
fn masked<B: Backend>(
    scores: FloatTensor<B>,
    block: &QueryBlock,
    spec: &AttentionSpec,
) -> FloatTensor<B> {
    let (rows, columns) = (block.queries.len(), block.keys.len());
    if block
        .queries
        .clone()
        .all(|i| spec.visible_in(block, i) == (0..columns))
    {
        return scores;
    }
    let mut mask = vec![HIDDEN; rows * columns];
    for (row, i) in mask.chunks_mut(columns).zip(block.queries.clone()) {
        row[spec.visible_in(block, i)].fill(0.0);
    }
    let mask = B::float_from_data(
        TensorData::new(mask, Shape::new([1, rows, columns])),
        &scores.device(),
    );
    let mask = cast::<B>(mask, scores.dtype());
    B::float_add(scores, mask)
}

fn transposed_matmul<B: Backend>(lhs: FloatTensor<B>, rhs: FloatTensor<B>) -> FloatTensor<B> {
    B::float_matmul(B::float_swap_dims(lhs, 1, 2), rhs)
}

/// Adds `value` to `rows` of `sum`.
fn add_at<B: Backend>(
    sum: &mut FloatTensor<B>,
    rows: std::ops::Range<usize>,
    value: FloatTensor<B>,
) {
    let old = narrow::<B>(sum.clone(), 1, rows.clone());
    *sum = assign::<B>(sum.clone(), 1, rows, B::float_add(old, value));
}

fn for_each_block(spec: &AttentionSpec, mut visit: impl FnMut(QueryBlock, usize)) {
    for range in spec.layout.ranges() {
        for block in spec.blocks(range.len(), QUERY_BLOCK) {
            visit(block, range.start);
        }
    }
}
