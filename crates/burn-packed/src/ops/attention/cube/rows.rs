//! Passes over rows that go before the tensor-core kernels: rotated queries and keys, and the backward's row sums.

use cubecl::prelude::*;

use super::ptx::*;
use super::tensor_cores::*;

/// Units of a cube in both passes.
pub(super) const UNITS: u32 = 256;
/// Rows of a tile in [`rotate_kernel`].
pub(super) const ROTATED_ROWS: u32 = 32;
/// Units that add up a row of a head in [`delta_kernel`].
pub(super) const DELTA_LANES: u32 = 8;

/// Rotated queries and keys: `[total, 2, heads, head_dim]` from `qkv` `[total, 3, heads, head_dim]`, sixteen bytes of each
/// half at a time. Cube (y, z) is a tile of [`ROTATED_ROWS`] rows, cube x a head.
#[cube(launch_unchecked)]
pub(super) fn rotate_kernel(
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
    let items = comptime!(ROTATED_ROWS * 2 * pairs);
    let tile = tile_of(tiles);
    #[unroll]
    for i in 0..comptime!(items.div_ceil(UNITS)) {
        // A row, its query or key, a pair of chunks: of head CUBE_POS_X alone.
        let item = UNIT_POS + comptime!(i * UNITS);
        let row = i32::cast_from(item / comptime!(2 * pairs));
        let part = item / pairs % 2u32;
        let chunk = item % pairs;
        let position = tile.first + row;
        if row < comptime!(ROTATED_ROWS as i32) && position < tile.length {
            let packed_row = tile.sequence + u32::cast_from(position);
            let from =
                ((packed_row * 3u32 + part) * heads + CUBE_POS_X) * comptime!(2 * pairs) + chunk;
            let to =
                ((packed_row * 2u32 + part) * heads + CUBE_POS_X) * comptime!(2 * pairs) + chunk;
            let angle = u32::cast_from(position) * comptime!(head_dim / 4) + chunk * 2u32;
            let (first, second) = turn(
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

/// `delta[head, row] = sum_d out * d_out`, [`DELTA_LANES`] units to a row of a head.
#[cube(launch_unchecked)]
pub(super) fn delta_kernel(
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
    let position = CUBE_POS_X * UNITS + UNIT_POS;
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
