//! The forward kernel.

use cubecl::prelude::*;

use super::super::tile::{OUT, Tile};
use super::family::Family;
use super::fragments::*;
use super::ptx::*;
use super::rows::{HeadRows, apply_rope_to_tile, await_tile, copy_stage};
use super::shape::{Args, Shape};

/// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
///
/// Block x is a head, block (y, z) a tile of `shape.rows` queries, 16 to a warp, given by `tiles`. All warps do the same: copy keys
/// and values, tile by tile, through two stages of shared memory (whose life is described in [`super::rows`]), multiply them with
/// their own queries, and keep scores, online softmax and output in registers.
///
/// `qk` holds queries and keys: `qkv` itself `[total, 3, heads, head_dim]`, with `shape.rope_inside` or without RoPE, and otherwise
/// `[total, 2, heads, head_dim]` with RoPE applied.
#[allow(clippy::too_many_arguments)] // each tensor is an argument
#[cube(launch_unchecked)]
pub(in super::super) fn attention_forward<F: Family>(
    qk: &[u32],
    qkv: &[u32],
    tiles: &[u32],
    rotary: &[f32],
    out: &mut [u32],
    lse: &mut [f32],
    args: &Args,
    #[comptime] shape: Shape,
) {
    let (queries_at, stages_at, bytes) = comptime!(shape.forward_layout());
    let shared =
        Shared::<[u32]>::new_aligned_slice(comptime!(bytes as usize / 4), shape.alignment());
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    let base = shared_address(unsafe { shared.as_ptr_unchecked() });
    let queries = base + queries_at;
    let stages = base + stages_at;

    let tile = Tile::of_block(tiles, args.half_window);
    let head = HeadRows::of_block(qk, qkv, args, shape);
    // SAFETY: the table has at least one row, and one for every position where RoPE is applied here.
    let rotary = global_float_address(unsafe { rotary.as_ptr_unchecked() });
    let rope = comptime!(shape.rope_inside);
    let keys = comptime!(shape.keys as i32);
    let span = tile.visible_to_any(shape.rows);
    let steps = (span.last - span.first + keys) / keys;

    F::copy(&head.q, &tile, tile.first, queries, shape.rows, rope, shape);
    copy_stage::<F>(&head.k, &head.v, &tile, span.first, stages, rope, shape);
    copy_async_commit();
    if comptime!(!shape.wgmma) {
        // The warps read their queries into registers before the loop.
        await_tile(queries, rotary, &tile, tile.first, shape.rows, rope, shape);
    } else if comptime!(rope) {
        // The first barrier of the loop makes the queries visible.
        apply_rope_to_tile(queries, rotary, &tile, tile.first, shape.rows, shape);
    }

    let place = Place::of_thread(&tile, shape);
    let own = own_group(shape) * comptime!(shape.group() * shape.pitch());
    let left = F::left(queries + own, shape);
    let mut softmax = OnlineSoftmax::new();
    let mut sums = F::zeros(comptime!(shape.dim_parts()));
    for step in 0..steps {
        let first = span.first + step * keys;
        let odd = u32::cast_from(step % 2i32);
        let stage = stages + odd * comptime!(shape.stage_bytes());
        await_tile(stage, rotary, &tile, first, shape.keys, rope, shape);
        if step + 1i32 < steps {
            let next = stages + (1u32 - odd) * comptime!(shape.stage_bytes());
            copy_stage::<F>(&head.k, &head.v, &tile, first + keys, next, rope, shape);
            copy_async_commit();
        }
        // The same for all threads of a matrix instruction: tiles that none of its queries sees are skipped.
        if tile.meets(place.group, comptime!(shape.group()), first, shape.keys) {
            let mut s = F::scores(&left, stage, shape);
            if comptime!(shape.capped) {
                let mut unused = F::zeros(1usize);
                bound::<F>(&mut s, &mut unused, args.softcap, false, shape);
            }
            mask::<F>(&mut s, &place, &tile, first, shape);
            let factor = softmax.update::<F>(&mut s, args.scale_log2, shape);
            rescale::<F>(&mut sums, &factor, shape);
            let values = stage + comptime!(shape.tile_bytes());
            F::accumulate(&mut sums, &s, values, true, shape);
        }
    }

    let weights = softmax.sums();
    let factor = Pair {
        upper: reciprocal(weights.upper),
        lower: reciprocal(weights.lower),
    };
    store::<F>(
        out, &sums, &factor, &place, &tile, CUBE_POS_X, args.heads, OUT, shape,
    );
    softmax.store_lse(lse, &weights, &place, &tile, args);
}
