//! Backward: the softmax's mean of each row, then a walk over tiles of keys and one over tiles of queries.
//!
//! Both walks recompute the weights from the log-sum-exp. Each gradient element belongs to one unit of one cube and is
//! summed in a fixed order, so that no atomics are needed and every run gives the same bits.

use cubecl::prelude::*;

use super::tile::{LANES, ROWS, Rows, Shape, accumulate, product, store, tanh, visible};

/// `delta[head, row] = sum_d out · d_out`, one unit each: what the derivative of the softmax subtracts.
#[cube(launch, address_type = "dynamic")]
pub(super) fn delta_kernel<F: Float>(
    out: &[F],
    d_out: &[F],
    delta: &mut [f32],
    heads: usize,
    total: usize,
    #[comptime] head_dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index < heads * total {
        let row = index / heads;
        let head = index % heads;
        let mut sum = 0.0f32;
        for d in 0..head_dim {
            sum += f32::cast_from(out[index * head_dim + d])
                * f32::cast_from(d_out[index * head_dim + d]);
        }
        delta[head * total + row] = sum;
    }
}

/// Weight of a visible key and the derivative of the bound on its score, from the product of query and key.
#[cube]
fn weight_and_slope(
    dot: f32,
    scale: f32,
    softcap: f32,
    lse: f32,
    seen: bool,
    #[comptime] shape: Shape,
) -> (f32, f32) {
    let mut score = dot * scale;
    let mut slope = 1.0f32;
    if comptime!(shape.softcap) {
        let bound = tanh(score / softcap);
        score = bound * softcap;
        slope = 1.0f32 - bound * bound;
    }
    // A hidden key's score may lie above the log-sum-exp of the visible ones: its exponential is not taken.
    let exponent = select(seen, score - lse, 0.0f32);
    (select(seen, exponent.exp(), 0.0f32), slope)
}

/// Gradients of k and v: a cube per tile of keys and head, which visits the tiles of queries that see them.
#[cube(launch, address_type = "dynamic")]
pub(super) fn keys_kernel<F: Float>(
    qkv: &[F],
    rotary: &[f32],
    tiles: &[u32],
    d_out: &[F],
    lse: &[f32],
    delta: &[f32],
    d_qkv: &mut [F],
    heads: usize,
    total: usize,
    half_window: usize,
    scale: f32,
    softcap: f32,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let columns = comptime!(shape.columns());
    let dims = comptime!(shape.dims());
    let head = CUBE_POS_X as usize;
    let entry = (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) as usize * 3;
    let first = tiles[entry] as usize;
    let start = tiles[entry + 1] as usize;
    let end = tiles[entry + 2] as usize;
    let length = end - start;
    let position = first - start;
    let width = heads * comptime!(shape.head_dim);
    let place = head * comptime!(shape.head_dim);
    let count = min(end - first, shape.tile);
    let k_rows = Rows {
        start: (first * 3 + 1) * width + place,
        stride: 3 * width,
        count,
        position,
    };
    let v_rows = Rows {
        start: (first * 3 + 2) * width + place,
        stride: 3 * width,
        count,
        position,
    };

    let mut stage = Shared::<[f32]>::new_slice(shape.stage());
    let mut weights = Shared::<[f32]>::new_slice(shape.weights());
    let mut block = Array::<f32>::new(comptime!(ROWS * columns));
    let mut p = Array::<f32>::new(comptime!(ROWS * columns));
    let mut slopes = Array::<f32>::new(comptime!(ROWS * columns));
    let mut d_k = Array::<f32>::new(comptime!(ROWS * dims));
    let mut d_v = Array::<f32>::new(comptime!(ROWS * dims));
    #[unroll]
    for i in 0..comptime!(ROWS * dims) {
        d_k[i] = 0.0f32;
        d_v[i] = 0.0f32;
    }
    let row = UNIT_POS as usize / LANES * ROWS;
    let lane = UNIT_POS as usize % LANES;

    // The window is as wide on both sides: the queries that see a key are those it would see.
    let mut queries = (position - min(position, half_window)) / shape.tile * shape.tile;
    let last = min(position + count + half_window, length);
    while queries < last {
        let seen = min(length - queries, shape.tile);
        let q_rows = Rows {
            start: (start + queries) * 3 * width + place,
            stride: 3 * width,
            count: seen,
            position: queries,
        };
        let d_out_rows = Rows {
            start: (start + queries) * width + place,
            stride: width,
            count: seen,
            position: queries,
        };
        product::<F>(
            qkv,
            &k_rows,
            qkv,
            &q_rows,
            rotary,
            &mut stage,
            &mut block,
            shape.rotary,
            shape,
        );
        #[unroll]
        for c in 0..columns {
            let i = queries + lane + comptime!(c * LANES);
            let mut i_lse = 0.0f32;
            if i < length {
                i_lse = lse[head * total + start + i];
            }
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                let (weight, slope) = weight_and_slope(
                    block[at],
                    scale,
                    softcap,
                    i_lse,
                    visible(i, position + row + r, length, half_window),
                    shape,
                );
                p[at] = weight;
                slopes[at] = slope;
                weights[(row + r) * comptime!(shape.tile + 1) + lane + comptime!(c * LANES)] =
                    weight;
            }
        }
        accumulate::<F>(
            d_out,
            &d_out_rows,
            rotary,
            &mut stage,
            &weights,
            &mut d_v,
            false,
            shape,
        );
        product::<F>(
            qkv,
            &v_rows,
            d_out,
            &d_out_rows,
            rotary,
            &mut stage,
            &mut block,
            false,
            shape,
        );
        #[unroll]
        for c in 0..columns {
            let i = queries + lane + comptime!(c * LANES);
            let mut i_delta = 0.0f32;
            if i < length {
                i_delta = delta[head * total + start + i];
            }
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                weights[(row + r) * comptime!(shape.tile + 1) + lane + comptime!(c * LANES)] =
                    p[at] * (block[at] - i_delta) * slopes[at] * scale;
            }
        }
        accumulate::<F>(
            qkv,
            &q_rows,
            rotary,
            &mut stage,
            &weights,
            &mut d_k,
            shape.rotary,
            shape,
        );
        queries += shape.tile;
    }
    store::<F>(
        &d_k,
        &mut stage,
        d_qkv,
        &k_rows,
        rotary,
        shape.rotary,
        shape,
    );
    store::<F>(&d_v, &mut stage, d_qkv, &v_rows, rotary, false, shape);
}

/// Gradient of q: a cube per tile of queries and head, which visits the tiles of keys it can see.
#[cube(launch, address_type = "dynamic")]
pub(super) fn queries_kernel<F: Float>(
    qkv: &[F],
    rotary: &[f32],
    tiles: &[u32],
    d_out: &[F],
    lse: &[f32],
    delta: &[f32],
    d_qkv: &mut [F],
    heads: usize,
    total: usize,
    half_window: usize,
    scale: f32,
    softcap: f32,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let columns = comptime!(shape.columns());
    let dims = comptime!(shape.dims());
    let head = CUBE_POS_X as usize;
    let entry = (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) as usize * 3;
    let first = tiles[entry] as usize;
    let start = tiles[entry + 1] as usize;
    let end = tiles[entry + 2] as usize;
    let length = end - start;
    let position = first - start;
    let width = heads * comptime!(shape.head_dim);
    let place = head * comptime!(shape.head_dim);
    let count = min(end - first, shape.tile);
    let q_rows = Rows {
        start: first * 3 * width + place,
        stride: 3 * width,
        count,
        position,
    };
    let d_out_rows = Rows {
        start: first * width + place,
        stride: width,
        count,
        position,
    };

    let mut stage = Shared::<[f32]>::new_slice(shape.stage());
    let mut weights = Shared::<[f32]>::new_slice(shape.weights());
    let mut block = Array::<f32>::new(comptime!(ROWS * columns));
    let mut p = Array::<f32>::new(comptime!(ROWS * columns));
    let mut d_q = Array::<f32>::new(comptime!(ROWS * dims));
    let mut row_lse = Array::<f32>::new(ROWS);
    let mut row_delta = Array::<f32>::new(ROWS);
    #[unroll]
    for i in 0..comptime!(ROWS * dims) {
        d_q[i] = 0.0f32;
    }
    let row = UNIT_POS as usize / LANES * ROWS;
    let lane = UNIT_POS as usize % LANES;
    #[unroll]
    for r in 0..ROWS {
        row_lse[r] = 0.0f32;
        row_delta[r] = 0.0f32;
        if row + r < count {
            row_lse[r] = lse[head * total + first + row + r];
            row_delta[r] = delta[head * total + first + row + r];
        }
    }

    let mut keys = (position - min(position, half_window)) / shape.tile * shape.tile;
    let last = min(position + count + half_window, length);
    while keys < last {
        let seen = min(length - keys, shape.tile);
        let k_rows = Rows {
            start: ((start + keys) * 3 + 1) * width + place,
            stride: 3 * width,
            count: seen,
            position: keys,
        };
        let v_rows = Rows {
            start: ((start + keys) * 3 + 2) * width + place,
            stride: 3 * width,
            count: seen,
            position: keys,
        };
        product::<F>(
            qkv,
            &q_rows,
            qkv,
            &k_rows,
            rotary,
            &mut stage,
            &mut block,
            shape.rotary,
            shape,
        );
        #[unroll]
        for c in 0..columns {
            let j = keys + lane + comptime!(c * LANES);
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                let (weight, slope) = weight_and_slope(
                    block[at],
                    scale,
                    softcap,
                    row_lse[r],
                    visible(position + row + r, j, length, half_window),
                    shape,
                );
                p[at] = weight * slope * scale;
            }
        }
        product::<F>(
            d_out,
            &d_out_rows,
            qkv,
            &v_rows,
            rotary,
            &mut stage,
            &mut block,
            false,
            shape,
        );
        #[unroll]
        for c in 0..columns {
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                weights[(row + r) * comptime!(shape.tile + 1) + lane + comptime!(c * LANES)] =
                    p[at] * (block[at] - row_delta[r]);
            }
        }
        accumulate::<F>(
            qkv,
            &k_rows,
            rotary,
            &mut stage,
            &weights,
            &mut d_q,
            shape.rotary,
            shape,
        );
        keys += shape.tile;
    }
    store::<F>(
        &d_q,
        &mut stage,
        d_qkv,
        &q_rows,
        rotary,
        shape.rotary,
        shape,
    );
}
