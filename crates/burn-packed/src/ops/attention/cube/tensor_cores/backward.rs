//! The backward kernels: one for the gradient of the queries, which streams keys, and one for the gradients of keys and values,
//! which streams queries. Every gradient element is thus summed by one thread in a fixed order, without atomics, at the price of
//! computing the scores twice.

use cubecl::prelude::*;

use super::super::tile::{K, Q, Tile, V};
use super::family::{Family, Fragment, FragmentExpand};
use super::fragments::*;
use super::ptx::*;
use super::rows::{HeadRows, Rows, copy_stage};
use super::shape::{Args, Shape};

/// Gradient of the queries: part 0 of `d_qkv`.
///
/// Blocks, warps and stages are those of [`super::forward::attention_forward`]; the block's own rows are its queries and their
/// output gradients. `delta[heads, total]` is the sum of `out · d_out` of each row. RoPE is never applied inside.
#[allow(clippy::too_many_arguments)] // each tensor is an argument
#[cube(launch_unchecked)]
pub(in super::super) fn attention_queries<F: Family>(
    qk: &[u32],
    qkv: &[u32],
    d_out: &[u32],
    lse: &[f32],
    delta: &[f32],
    tiles: &[u32],
    rotary: &[f32],
    d_qkv: &mut [u32],
    args: &Args,
    #[comptime] shape: Shape,
) {
    let bytes = comptime!(shape.backward_bytes());
    let shared =
        Shared::<[u32]>::new_aligned_slice(comptime!(bytes as usize / 4), shape.alignment());
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    let queries = shared_address(unsafe { shared.as_ptr_unchecked() });
    let d_outs = queries + comptime!(shape.own_bytes());
    let stages = d_outs + comptime!(shape.own_bytes());

    let tile = Tile::of_block(tiles, args.half_window);
    let head = HeadRows::of_block(qk, qkv, args, shape);
    let d_out_rows = Rows::of_block(d_out, args, shape);
    let keys = comptime!(shape.keys as i32);
    let span = tile.visible_to_any(shape.rows);
    let steps = (span.last - span.first + keys) / keys;

    F::copy(
        &head.q, &tile, tile.first, queries, shape.rows, false, shape,
    );
    F::copy(
        &d_out_rows,
        &tile,
        tile.first,
        d_outs,
        shape.rows,
        false,
        shape,
    );
    copy_stage::<F>(&head.k, &head.v, &tile, span.first, stages, false, shape);
    copy_async_commit();
    if comptime!(!shape.wgmma) {
        await_copies(shape);
    }

    let place = Place::of_thread(&tile, shape);
    let own = own_group(shape) * comptime!(shape.group() * shape.pitch());
    let left_q = F::left(queries + own, shape);
    let left_d_out = F::left(d_outs + own, shape);
    let at = CUBE_POS_X * args.total + tile.sequence;
    let upper = (at + tile.clamped(place.row)) as usize;
    let lower = (at + tile.clamped(place.row + 8i32)) as usize;
    let shift = Pair {
        upper: lse[upper] * LOG2_E,
        lower: lse[lower] * LOG2_E,
    };
    let delta = Pair {
        upper: delta[upper],
        lower: delta[lower],
    };
    let mut d_q = F::zeros(comptime!(shape.dim_parts()));
    for step in 0..steps {
        let first = span.first + step * keys;
        let odd = u32::cast_from(step % 2i32);
        let stage = stages + odd * comptime!(shape.stage_bytes());
        await_copies(shape);
        if step + 1i32 < steps {
            let next = stages + (1u32 - odd) * comptime!(shape.stage_bytes());
            copy_stage::<F>(&head.k, &head.v, &tile, first + keys, next, false, shape);
            copy_async_commit();
        }
        if tile.meets(place.group, comptime!(shape.group()), first, shape.keys) {
            let mut s = F::scores(&left_q, stage, shape);
            let slopes = bound_and_mask::<F>(&mut s, &place, &tile, first, args, shape);
            let values = stage + comptime!(shape.tile_bytes());
            let d_p = F::scores(&left_d_out, values, shape);
            #[unroll]
            for part in 0..comptime!(shape.key_parts()) {
                #[unroll]
                for e in 0..4usize {
                    let p = exp2(s.get(part, e) * args.scale_log2 - shift.of(e));
                    let mut d_s = p * (d_p.get(part, e) - delta.of(e));
                    if comptime!(shape.capped) {
                        d_s *= slopes.get(part, e);
                    }
                    s.set(part, e, d_s);
                }
            }
            F::accumulate(&mut d_q, &s, stage, false, shape);
        }
    }
    if comptime!(shape.rope) {
        apply_rope_transposed::<F>(&mut d_q, rotary, &place, &tile, shape);
    }
    let scale = Pair::both(args.scale);
    store::<F>(
        d_qkv, &d_q, &scale, &place, &tile, CUBE_POS_X, args.heads, Q, shape,
    );
}

/// Gradients of keys and values: parts 1 and 2 of `d_qkv`.
///
/// As [`attention_queries`], with keys in the place of queries: the block's own rows are keys and values, and what it streams are
/// queries and their output gradients, with log-sum-exp and delta of these queries. Scores are transposed, `[keys, queries]`.
#[allow(clippy::too_many_arguments)] // each tensor is an argument
#[cube(launch_unchecked)]
pub(in super::super) fn attention_keys<F: Family>(
    qk: &[u32],
    qkv: &[u32],
    d_out: &[u32],
    lse: &[f32],
    delta: &[f32],
    tiles: &[u32],
    rotary: &[f32],
    d_qkv: &mut [u32],
    args: &Args,
    #[comptime] shape: Shape,
) {
    let bytes = comptime!(shape.backward_bytes());
    let shared =
        Shared::<[u32]>::new_aligned_slice(comptime!(bytes as usize / 4), shape.alignment());
    let statistics_length = comptime!(shape.statistics_bytes() as usize / 4);
    let statistics = Shared::<[f32]>::new_aligned_slice(statistics_length, 128usize);
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    let keys = shared_address(unsafe { shared.as_ptr_unchecked() });
    let values = keys + comptime!(shape.own_bytes());
    let stages = values + comptime!(shape.own_bytes());

    let tile = Tile::of_block(tiles, args.half_window);
    let head = HeadRows::of_block(qk, qkv, args, shape);
    let d_out_rows = Rows::of_block(d_out, args, shape);
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    let shared = shared_float_address(unsafe { statistics.as_ptr_unchecked() });
    let columns = Statistics::of_block(lse, delta, args, &tile, shared);
    let queries = comptime!(shape.keys as i32);
    let span = tile.visible_to_any(shape.rows);
    let steps = (span.last - span.first + queries) / queries;

    F::copy(&head.k, &tile, tile.first, keys, shape.rows, false, shape);
    F::copy(&head.v, &tile, tile.first, values, shape.rows, false, shape);
    copy_stage::<F>(
        &head.q,
        &d_out_rows,
        &tile,
        span.first,
        stages,
        false,
        shape,
    );
    columns.copy(&tile, span.first, 0u32, shape);
    copy_async_commit();
    if comptime!(!shape.wgmma) {
        await_copies(shape);
    }

    let place = Place::of_thread(&tile, shape);
    let own = own_group(shape) * comptime!(shape.group() * shape.pitch());
    let left_k = F::left(keys + own, shape);
    let left_v = F::left(values + own, shape);
    let mut d_k = F::zeros(comptime!(shape.dim_parts()));
    let mut d_v = F::zeros(comptime!(shape.dim_parts()));
    for step in 0..steps {
        let first = span.first + step * queries;
        let odd = u32::cast_from(step % 2i32);
        let stage = stages + odd * comptime!(shape.stage_bytes());
        await_copies(shape);
        if step + 1i32 < steps {
            let next = stages + (1u32 - odd) * comptime!(shape.stage_bytes());
            let position = first + queries;
            copy_stage::<F>(&head.q, &d_out_rows, &tile, position, next, false, shape);
            columns.copy(&tile, position, 1u32 - odd, shape);
            copy_async_commit();
        }
        if tile.meets(place.group, comptime!(shape.group()), first, shape.keys) {
            let d_outs = stage + comptime!(shape.tile_bytes());
            let column = odd * comptime!(shape.keys * 2) + place.column;
            let mut s = F::scores(&left_k, stage, shape);
            let slopes = bound_and_mask::<F>(&mut s, &place, &tile, first, args, shape);
            exp_shifted::<F>(&mut s, &statistics, column, args.scale_log2, shape);
            F::accumulate(&mut d_v, &s, d_outs, false, shape);
            let d_p = F::scores(&left_v, d_outs, shape);
            score_gradients::<F>(&mut s, &d_p, &slopes, &statistics, column, shape);
            F::accumulate(&mut d_k, &s, stage, false, shape);
        }
    }
    if comptime!(shape.rope) {
        apply_rope_transposed::<F>(&mut d_k, rotary, &place, &tile, shape);
    }
    let scale = Pair::both(args.scale);
    let one = Pair::both(1.0f32);
    store::<F>(
        d_qkv, &d_k, &scale, &place, &tile, CUBE_POS_X, args.heads, K, shape,
    );
    store::<F>(
        d_qkv, &d_v, &one, &place, &tile, CUBE_POS_X, args.heads, V, shape,
    );
}

/// Completes the tiles of a stage to which no RoPE is applied; see [`super::rows`].
#[cube]
fn await_copies(#[comptime] shape: Shape) {
    copy_async_wait(0u32);
    if comptime!(shape.wgmma) {
        fence_async_proxy();
    }
    sync_cube();
}

/// Softcap and mask of scores; returns the derivative of the softcap, of which nothing is read without a softcap.
#[cube]
fn bound_and_mask<F: Family>(
    s: &mut F::Fragment,
    place: &Place,
    tile: &Tile,
    other: i32,
    args: &Args,
    #[comptime] shape: Shape,
) -> F::Fragment {
    let mut slopes = F::zeros(comptime!(if shape.capped { shape.key_parts() } else { 1 }));
    if comptime!(shape.capped) {
        bound::<F>(s, &mut slopes, args.softcap, true, shape);
    }
    mask::<F>(s, place, tile, other, shape);
    slopes
}

/// Weights `exp2(score - log-sum-exp)` in place of scores `[keys, queries]`; `statistics[column]` is the log-sum-exp of this thread's
/// first query.
#[cube]
fn exp_shifted<F: Family>(
    s: &mut F::Fragment,
    statistics: &Shared<[f32]>,
    column: u32,
    scale_log2: f32,
    #[comptime] shape: Shape,
) {
    #[unroll]
    for part in 0..comptime!(shape.key_parts()) {
        #[unroll]
        for c in 0..2usize {
            let at = column + comptime!((part * 8 + c) as u32);
            let shift = statistics[at as usize] * LOG2_E;
            #[unroll]
            for row in 0..2usize {
                let e = comptime!(row * 2 + c);
                let weight = exp2(s.get(part, e) * scale_log2 - shift);
                s.set(part, e, weight);
            }
        }
    }
}

/// Gradients of scores `[keys, queries]` in place of weights, given the gradients of the weights; delta is `shape.keys` behind the
/// log-sum-exp.
#[cube]
fn score_gradients<F: Family>(
    s: &mut F::Fragment,
    d_p: &F::Fragment,
    slopes: &F::Fragment,
    statistics: &Shared<[f32]>,
    column: u32,
    #[comptime] shape: Shape,
) {
    #[unroll]
    for part in 0..comptime!(shape.key_parts()) {
        #[unroll]
        for c in 0..2usize {
            let at = column + comptime!(shape.keys + (part * 8 + c) as u32);
            let delta = statistics[at as usize];
            #[unroll]
            for row in 0..2usize {
                let e = comptime!(row * 2 + c);
                let mut d_s = s.get(part, e) * (d_p.get(part, e) - delta);
                if comptime!(shape.capped) {
                    d_s *= slopes.get(part, e);
                }
                s.set(part, e, d_s);
            }
        }
    }
}

/// Log-sum-exp and delta of streamed queries: addresses of the sequence's first query, and of stage 0 in shared memory. A stage is
/// `shape.keys` log-sum-exps and behind them as many deltas.
#[derive(CubeType, Clone, Copy)]
struct Statistics {
    lse: u64,
    delta: u64,
    shared: u32,
}

#[cube]
impl Statistics {
    fn of_block(lse: &[f32], delta: &[f32], args: &Args, tile: &Tile, shared: u32) -> Statistics {
        let row = u64::cast_from((CUBE_POS_X * args.total + tile.sequence) * 4u32);
        Statistics {
            // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
            lse: global_float_address(unsafe { lse.as_ptr_unchecked() }) + row,
            // SAFETY: as above.
            delta: global_float_address(unsafe { delta.as_ptr_unchecked() }) + row,
            shared,
        }
    }

    /// Starts the copy of a stage from position `first` on, a number by each of the first threads; zeros beyond the end of the
    /// sequence.
    fn copy(&self, tile: &Tile, first: i32, stage: u32, #[comptime] shape: Shape) {
        let keys = comptime!(shape.keys);
        if UNIT_POS < comptime!(2 * shape.keys) {
            let position = first + i32::cast_from(UNIT_POS % keys);
            let inside = position < tile.length;
            let offset = u64::cast_from(select(inside, u32::cast_from(position), 0u32) * 4u32);
            let from = select(UNIT_POS < keys, self.lse, self.delta) + offset;
            let to = self.shared + stage * comptime!(shape.keys * 8) + UNIT_POS * 4u32;
            copy_async_4(to, from, select(inside, 4u32, 0u32));
        }
    }
}
