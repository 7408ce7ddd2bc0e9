//! The backward kernels: `delta` of each row, then one kernel for the gradients of keys and values and one for that of the
//! queries.
//!
//! Both recompute the softmax weights from the log-sum-exp. Each gradient element belongs to one thread of one block and is summed in
//! a fixed order: no atomics, and results are bit-identical in every run.

use cubecl::prelude::*;

use super::super::tile::{K, OUT, Q, Span, Tile, V};
use super::tile::{Args, LANES, Memory, ROWS, Rows, Shape, bounded, own_column, own_row, zeros};

/// `delta[head, row] = sum_d out · d_out`, the term that the derivative of the softmax subtracts. One thread per head and row.
#[cube(launch, address_type = "dynamic")]
pub(in super::super) fn delta_kernel<F: Float>(
    out: &[F],
    d_out: &[F],
    delta: &mut [f32],
    args: &Args,
    #[comptime] head_dim: usize,
    #[define(F)] _dtype: ElemType,
) {
    let index = ABSOLUTE_POS;
    if index < args.heads * args.total {
        let row = index / args.heads;
        let head = index % args.heads;
        let mut sum = 0.0f32;
        for d in 0..head_dim {
            sum += f32::cast_from(out[index * head_dim + d])
                * f32::cast_from(d_out[index * head_dim + d]);
        }
        delta[head * args.total + row] = sum;
    }
}

/// Returns the softmax weight of a query and a key, and the derivative of the softcap at their score, from the dot product of their
/// rows. `seen` are the positions visible to one of the two, `other` is the position of the other one.
#[cube]
fn weight_and_slope(
    product: f32,
    lse: f32,
    seen: &Span,
    other: i32,
    args: &Args,
    #[comptime] shape: Shape,
) -> (f32, f32) {
    let (score, slope) = bounded(product, args, shape);
    let seen = seen.contains(other);
    // A hidden key's score may be above the log-sum-exp of the visible keys: its exponential could overflow.
    let exponent = select(seen, score - lse, 0.0f32);
    (select(seen, exponent.exp(), 0.0f32), slope)
}

/// Returns the value of `position` in `values [heads, total]` for this block's head; 0 beyond the end of the sequence.
#[cube]
fn number(values: &[f32], tile: &Tile, position: i32, args: &Args) -> f32 {
    let mut number = 0.0f32;
    if position < tile.length {
        let row = CUBE_POS_X as usize * args.total + tile.sequence as usize;
        number = values[row + usize::cast_from(position)];
    }
    number
}

/// Gradients of keys and values: block x is a head, block (y, z) a tile of keys, given by `tiles`. The block loops over the tiles of
/// queries that see its keys.
#[cube(launch, address_type = "dynamic")]
pub(in super::super) fn keys_kernel<F: Float>(
    qkv: &[F],
    rotary: &[f32],
    tiles: &[u32],
    d_out: &[F],
    lse: &[f32],
    delta: &[f32],
    d_qkv: &mut [F],
    args: &Args,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let columns = comptime!(shape.columns());
    let tile = Tile::of_block(tiles, args.half_window);
    let k_rows = Rows::new(&tile, tile.first, args.heads, K, shape);
    let v_rows = Rows::new(&tile, tile.first, args.heads, V, shape);
    let mut memory = Memory::new(shape);
    let mut p = Array::<f32>::new(comptime!(ROWS * columns));
    let mut slopes = Array::<f32>::new(comptime!(ROWS * columns));
    let mut d_k = zeros(comptime!(ROWS * shape.dims()));
    let mut d_v = zeros(comptime!(ROWS * shape.dims()));

    let size = comptime!(shape.tile as i32);
    let span = tile.visible_to_any(comptime!(shape.tile as u32));
    let mut first = span.first / size * size;
    while first <= span.last {
        let q_rows = Rows::new(&tile, first, args.heads, Q, shape);
        let d_out_rows = Rows::new(&tile, first, args.heads, OUT, shape);
        let block = memory.scores::<F>(qkv, &k_rows, qkv, &q_rows, rotary, shape);
        #[unroll]
        for c in 0..columns {
            let query = first + i32::cast_from(own_column() + comptime!(c * LANES));
            let query_lse = number(lse, &tile, query, args);
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                let seen = tile.visible(tile.first + i32::cast_from(own_row() + r));
                let (weight, slope) =
                    weight_and_slope(block[at], query_lse, &seen, query, args, shape);
                p[at] = weight;
                slopes[at] = slope;
                memory.set_weight(r, c, weight, shape);
            }
        }
        memory.accumulate::<F>(&mut d_v, d_out, &d_out_rows, rotary, shape);
        let d_p = memory.scores::<F>(qkv, &v_rows, d_out, &d_out_rows, rotary, shape);
        #[unroll]
        for c in 0..columns {
            let query = first + i32::cast_from(own_column() + comptime!(c * LANES));
            let query_delta = number(delta, &tile, query, args);
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                let d_s = p[at] * (d_p[at] - query_delta) * slopes[at] * args.scale;
                memory.set_weight(r, c, d_s, shape);
            }
        }
        memory.accumulate::<F>(&mut d_k, qkv, &q_rows, rotary, shape);
        first += size;
    }
    memory.store::<F>(d_qkv, &d_k, &k_rows, rotary, shape);
    memory.store::<F>(d_qkv, &d_v, &v_rows, rotary, shape);
}

/// Gradient of the queries: block x is a head, block (y, z) a tile of queries, given by `tiles`. The block loops over the tiles of
/// keys that its queries see.
#[cube(launch, address_type = "dynamic")]
pub(in super::super) fn queries_kernel<F: Float>(
    qkv: &[F],
    rotary: &[f32],
    tiles: &[u32],
    d_out: &[F],
    lse: &[f32],
    delta: &[f32],
    d_qkv: &mut [F],
    args: &Args,
    #[comptime] shape: Shape,
    #[define(F)] _dtype: ElemType,
) {
    let columns = comptime!(shape.columns());
    let tile = Tile::of_block(tiles, args.half_window);
    let q_rows = Rows::new(&tile, tile.first, args.heads, Q, shape);
    let d_out_rows = Rows::new(&tile, tile.first, args.heads, OUT, shape);
    let mut memory = Memory::new(shape);
    let mut p = Array::<f32>::new(comptime!(ROWS * columns));
    let mut d_q = zeros(comptime!(ROWS * shape.dims()));
    let mut row_lse = Array::<f32>::new(ROWS);
    let mut row_delta = Array::<f32>::new(ROWS);
    #[unroll]
    for r in 0..ROWS {
        let row = tile.first + i32::cast_from(own_row() + r);
        row_lse[r] = number(lse, &tile, row, args);
        row_delta[r] = number(delta, &tile, row, args);
    }

    let size = comptime!(shape.tile as i32);
    let span = tile.visible_to_any(comptime!(shape.tile as u32));
    let mut first = span.first / size * size;
    while first <= span.last {
        let k_rows = Rows::new(&tile, first, args.heads, K, shape);
        let v_rows = Rows::new(&tile, first, args.heads, V, shape);
        let block = memory.scores::<F>(qkv, &q_rows, qkv, &k_rows, rotary, shape);
        #[unroll]
        for c in 0..columns {
            let key = first + i32::cast_from(own_column() + comptime!(c * LANES));
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                let seen = tile.visible(tile.first + i32::cast_from(own_row() + r));
                let (weight, slope) =
                    weight_and_slope(block[at], row_lse[r], &seen, key, args, shape);
                p[at] = weight * slope * args.scale;
            }
        }
        let d_p = memory.scores::<F>(d_out, &d_out_rows, qkv, &v_rows, rotary, shape);
        #[unroll]
        for c in 0..columns {
            #[unroll]
            for r in 0..ROWS {
                let at = comptime!(r * columns + c);
                memory.set_weight(r, c, p[at] * (d_p[at] - row_delta[r]), shape);
            }
        }
        memory.accumulate::<F>(&mut d_q, qkv, &k_rows, rotary, shape);
        first += size;
    }
    memory.store::<F>(d_qkv, &d_q, &q_rows, rotary, shape);
}
