//! Passes over rows that go before the tensor-core kernels: rotated queries and keys, and the backward's row sums.

use cubecl::prelude::*;

use super::ptx::*;
use super::tile::*;

/// Units of a cube in both passes.
pub(super) const UNITS: u32 = 256;
/// Rows of a tile in [`rotate_kernel`].
pub(super) const ROTATED_ROWS: u32 = 32;

/// Rotated queries and keys: `[total, 2, heads, 64]` from `qkv` `[total, 3, heads, 64]`, sixteen bytes of each half at a time.
/// Cube (y, z) is a tile of [`ROTATED_ROWS`] rows, cube x one of `heads` shares of its work.
#[cube(launch_unchecked)]
pub(super) fn rotate_kernel(
    qkv: &[Vector<u32, Const<4>>],
    rotary: &[Vector<f32, Const<4>>],
    tiles: &[u32],
    out: &mut [Vector<u32, Const<4>>],
    heads: u32,
    #[comptime] half: bool,
) {
    let ty = comptime!(if half { "f16" } else { "bf16" });
    let tile = tile_of(tiles);
    // Work items of a tile: row, query or key, head, eighth: here of head CUBE_POS_X alone.
    let row = i32::cast_from(UNIT_POS / 8u32);
    let part = (UNIT_POS / 4u32) % 2u32;
    let chunk = UNIT_POS % 4u32;
    let position = tile.first + row;
    if position < tile.length {
        let packed_row = tile.sequence + u32::cast_from(position);
        let from = ((packed_row * 3u32 + part) * heads + CUBE_POS_X) * 8u32 + chunk;
        let to = ((packed_row * 2u32 + part) * heads + CUBE_POS_X) * 8u32 + chunk;
        let angle = u32::cast_from(position) * 16u32 + chunk * 2u32;
        let a = qkv[from as usize];
        let b = qkv[(from + 4u32) as usize];
        let mut first = Vector::<u32, Const<4>>::empty();
        let mut second = Vector::<u32, Const<4>>::empty();
        #[unroll]
        for i in 0..2usize {
            let cos = rotary[(angle + comptime!(i as u32)) as usize];
            let sin = rotary[(angle + comptime!(i as u32 + 8)) as usize];
            #[unroll]
            for k in 0..2usize {
                let r = comptime!(i * 2 + k);
                let (c0, c1) = (
                    cos.extract(comptime!(k * 2)),
                    cos.extract(comptime!(k * 2 + 1)),
                );
                let (s0, s1) = (
                    sin.extract(comptime!(k * 2)),
                    sin.extract(comptime!(k * 2 + 1)),
                );
                let (a0, a1) = (unpack_low(a.extract(r), ty), unpack_high(a.extract(r), ty));
                let (b0, b1) = (unpack_low(b.extract(r), ty), unpack_high(b.extract(r), ty));
                first.insert(r, pack(a0 * c0 - b0 * s0, a1 * c1 - b1 * s1, ty));
                second.insert(r, pack(b0 * c0 + a0 * s0, b1 * c1 + a1 * s1, ty));
            }
        }
        out[to as usize] = first;
        out[(to + 4u32) as usize] = second;
    }
}

/// `delta[head, row] = sum_d out * d_out`, eight units to a row of a head.
#[cube(launch_unchecked)]
pub(super) fn delta_kernel(
    out: &[Vector<u32, Const<4>>],
    d_out: &[Vector<u32, Const<4>>],
    delta: &mut [f32],
    heads: u32,
    total: u32,
    #[comptime] half: bool,
) {
    let ty = comptime!(if half { "f16" } else { "bf16" });
    let position = CUBE_POS_X * UNITS + UNIT_POS;
    let pair = position / 8u32;
    let inside = pair < heads * total;
    let at = select(inside, position, 0u32);
    let a = out[at as usize];
    let b = d_out[at as usize];
    let mut sum = 0.0f32;
    #[unroll]
    for r in 0..4usize {
        sum += unpack_low(a.extract(r), ty) * unpack_low(b.extract(r), ty);
        sum += unpack_high(a.extract(r), ty) * unpack_high(b.extract(r), ty);
    }
    sum = quad_sum(sum);
    sum += plane_shuffle_xor(sum, 4u32);
    if inside && UNIT_POS % 8u32 == 0u32 {
        delta[((pair % heads) * total + pair / heads) as usize] = sum;
    }
}
