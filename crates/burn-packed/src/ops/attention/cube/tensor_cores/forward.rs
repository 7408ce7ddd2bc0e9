//! The forward kernel.

use cubecl::prelude::*;

use super::super::tile::AttentionTile;
use super::config::{Args, KernelConfig};
use super::family::Family;
use super::fragments::{FragmentCoords, own_group};
use super::rows::{QkvRows, TileStream};
use super::softmax::{OnlineSoftmax, rescale};
use crate::ops::ptx::*;

/// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
///
/// Block x is a head, block (y, z) a tile of `config.rows` queries, 16 to a warp, given by `tiles`. All warps have the same role: copy keys
/// and values, tile by tile, through two stages of shared memory (whose life is described in [`super::rows`]), compute the scores of
/// their own queries, and keep scores, online softmax and output in registers.
///
/// `qk` holds queries and keys: `qkv` itself `[total, 3, heads, head_dim]`, with `config.rope_inside` or without RoPE, and otherwise
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
    args: Args,
    #[comptime] config: KernelConfig,
) {
    let (queries_at, stages_at, bytes) = comptime!(config.forward_layout());
    let base = shared_memory(bytes, config.alignment());
    let queries = base + queries_at;
    let stages = base + stages_at;

    let tile = AttentionTile::of_block(tiles, args.half_window);
    let (qk, qkv) = (global_address(qk), global_address(qkv));
    let head = QkvRows::new(qk, qkv, tile, CUBE_POS_X, args, config);
    let rotary = global_address(rotary);
    let rope_inside = comptime!(config.rope_inside);
    let stream = TileStream::new(head.k, head.v, stages);

    F::copy(&head.q, tile.first, queries, config.rows, rope_inside);
    stream.copy::<F>(stream.start, stages, rope_inside);
    copy_async_commit();
    if comptime!(!config.wgmma) {
        // The warps read their queries into registers before the loop.
        head.q.await_tile(rotary, queries, tile.first, config.rows);
    } else if comptime!(rope_inside) {
        // The first barrier of the loop makes the queries visible.
        head.q.apply_rope(rotary, queries, tile.first, config.rows);
    }

    let coords = FragmentCoords::of_thread(tile, CUBE_POS_X, args, config);
    let own = own_group(config) * comptime!(config.group() * config.pitch());
    let operand_a = F::operand_a(queries + own, config);
    let mut softmax = OnlineSoftmax::new(args.scale_log2);
    let mut sums = F::zeros(comptime!(config.head_n_tiles()));
    for step in 0..stream.steps {
        let position = stream.position(step);
        let odd = u32::cast_from(step % 2i32);
        let stage = stream.stage(odd);
        head.k.await_tile(rotary, stage, position, config.keys);
        if step + 1i32 < stream.steps {
            let next = stream.stage(1u32 - odd);
            stream.copy::<F>(position + comptime!(config.keys as i32), next, rope_inside);
            copy_async_commit();
        }
        // Tiles that none of the queries of a matrix instruction sees are skipped.
        if coords.meets(position) {
            let mut s = F::scores(&operand_a, stage, config);
            coords.bound_and_mask::<F>(&mut s, position, false);
            let factor = softmax.update::<F::Fragment>(&mut s, config);
            rescale::<F::Fragment>(&mut sums, factor, config);
            let values = stage + comptime!(config.tile_bytes());
            F::accumulate(&mut sums, &s, values, true, config);
        }
    }
    let (weights, shift) = softmax.finish();
    coords.store_output::<F>(out, lse, &sums, weights, shift);
}
