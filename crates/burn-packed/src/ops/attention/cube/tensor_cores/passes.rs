//! Kernels that run before the attention kernels: RoPE for queries and keys, and the sums `delta` for the backward pass.

use cubecl::prelude::*;

use super::super::tile::AttentionTile;
use super::config::dtype;
use super::rows::apply_rope;
use crate::ops::ptx::*;

/// Threads of a block of both kernels.
pub(in super::super) const THREADS: u32 = 256;
/// Rows of a block of [`rope_kernel`].
pub(super) const ROPE_ROWS: u32 = 32;
/// Threads per row of a head in [`delta_kernel`].
pub(super) const DELTA_LANES: u32 = 8;

/// Queries and keys with RoPE applied: `[total, 2, heads, head_dim]` from `qkv` `[total, 3, heads, head_dim]`, 16 bytes of each half
/// of a head at a time. Block (y, z) is a tile of [`ROPE_ROWS`] rows, block x a head.
#[cube(launch_unchecked)]
pub(in super::super) fn rope_kernel(
    qkv: &[Vector<u32, Const<4>>],
    rotary: &[Vector<f32, Const<4>>],
    tiles: &[u32],
    out: &mut [Vector<u32, Const<4>>],
    heads: u32,
    #[comptime] head_dim: u32,
    #[comptime] half: bool,
) {
    let ty = comptime!(dtype(half));
    let pairs = comptime!(head_dim / 16);
    let items = comptime!(ROPE_ROWS * 2 * pairs);
    let tile = AttentionTile::of_block(tiles, 0i32);
    #[unroll]
    for i in 0..comptime!(items.div_ceil(THREADS)) {
        // A row, query or key, and a pair of chunks, of head CUBE_POS_X.
        let item = UNIT_POS + comptime!(i * THREADS);
        let row = i32::cast_from(item / comptime!(2 * pairs));
        let projection = item / pairs % 2u32;
        let chunk = item % pairs;
        let position = tile.first + row;
        if row < comptime!(ROPE_ROWS as i32) && tile.has(position) {
            let packed_row = tile.sequence + u32::cast_from(position);
            let from = ((packed_row * 3u32 + projection) * heads + CUBE_POS_X)
                * comptime!(2 * pairs)
                + chunk;
            let to = ((packed_row * 2u32 + projection) * heads + CUBE_POS_X) * comptime!(2 * pairs)
                + chunk;
            let angle = u32::cast_from(position) * comptime!(head_dim / 4) + chunk * 2u32;
            let (first, second) = apply_rope(
                qkv[from as usize],
                qkv[(from + pairs) as usize],
                rotary[angle as usize],
                rotary[(angle + 1u32) as usize],
                rotary[(angle + comptime!(head_dim / 8)) as usize],
                rotary[(angle + comptime!(head_dim / 8 + 1)) as usize],
                ty,
            );
            out[to as usize] = first;
            out[(to + pairs) as usize] = second;
        }
    }
}

/// `delta[head, row] = sum_d out · d_out`, [`DELTA_LANES`] threads per row of a head.
#[cube(launch_unchecked)]
pub(in super::super) fn delta_kernel(
    out: &[Vector<u32, Const<4>>],
    d_out: &[Vector<u32, Const<4>>],
    delta: &mut [f32],
    heads: u32,
    total: u32,
    #[comptime] head_dim: u32,
    #[comptime] half: bool,
) {
    let ty = comptime!(dtype(half));
    let chunks = comptime!(head_dim / 8);
    let position = CUBE_POS_X * THREADS + UNIT_POS;
    let pair = position / DELTA_LANES;
    let lane = position % DELTA_LANES;
    let inside = pair < heads * total;
    let row = select(inside, pair, 0u32) * chunks;
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..comptime!(chunks.div_ceil(DELTA_LANES)) {
        let chunk = lane + comptime!(i * DELTA_LANES);
        if chunk < chunks {
            let at = row + chunk;
            let a = out[at as usize];
            let b = d_out[at as usize];
            #[unroll]
            for r in 0..4usize {
                sum += unpack_low(a.extract(r), ty) * unpack_low(b.extract(r), ty);
                sum += unpack_high(a.extract(r), ty) * unpack_high(b.extract(r), ty);
            }
        }
    }
    sum = quad_sum(sum);
    sum += plane_shuffle_xor(sum, 4u32);
    if inside && lane == 0u32 {
        delta[((pair % heads) * total + pair / heads) as usize] = sum;
    }
}
