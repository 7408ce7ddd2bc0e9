//! The product for every CubeCL device, dtype and size: tiles of 64 by 64 in shared memory, f32 arithmetic.
//!
//! Needs shared memory and a barrier, nothing else. On CUDA it serves f32, where the backend's own product would round its
//! operands to TF32, and sizes that the tensor-core product can't address.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Rows and columns of a tile.
pub(super) const TILE: usize = 64;
/// Inner elements of a step.
const INNER: usize = 16;
/// Rows and columns of a unit.
const EACH: usize = 4;
/// Units of a cube.
pub(super) const UNITS: u32 = ((TILE / EACH) * (TILE / EACH)) as u32;
/// Distance of inner elements in shared memory; the four more keep writes of neighbouring rows out of each other's banks.
const STRIDE: usize = TILE + EACH;

/// `out [rows, columns] = a · b`; element `(i, p)` of `a` stands at `i * a_row + p * a_inner`, `(p, j)` of `b` at
/// `p * b_inner + j * b_column`. Cube (x, y) is a tile.
#[allow(clippy::too_many_arguments)]
#[cube(launch, address_type = "dynamic")]
pub(super) fn tiled_gemm<F: Float, O: Float>(
    a: &[F],
    b: &[F],
    out: &mut [O],
    rows: usize,
    columns: usize,
    inner: usize,
    a_row: usize,
    a_inner: usize,
    b_inner: usize,
    b_column: usize,
    #[comptime] a_outer: bool,
    #[comptime] b_outer: bool,
    #[define(F)] _dtype: ElemType,
    #[define(O)] _out_dtype: ElemType,
) {
    let mut left = Shared::<[f32]>::new_slice(comptime!(INNER * STRIDE));
    let mut right = Shared::<[f32]>::new_slice(comptime!(INNER * STRIDE));
    let unit = UNIT_POS as usize;
    let first_row = CUBE_POS_X as usize * TILE;
    let first_column = CUBE_POS_Y as usize * TILE;
    // Units next to each other read elements next to each other.
    let (a_i, a_p) = places(unit, a_outer);
    let (b_j, b_p) = places(unit, b_outer);
    let row = unit / comptime!(TILE / EACH) * EACH;
    let column = unit % comptime!(TILE / EACH) * EACH;
    let mut sums = Array::<f32>::new(comptime!(EACH * EACH));
    #[unroll]
    for i in 0..comptime!(EACH * EACH) {
        sums[i] = 0.0f32;
    }
    let steps = inner.div_ceil(INNER);
    for step in 0..steps {
        let base = step * INNER;
        #[unroll]
        for i in 0..EACH {
            let (di, dp) = comptime!(shift(i, a_outer));
            let (r, p) = (a_i + di, a_p + dp);
            let mut x = 0.0f32;
            if first_row + r < rows && base + p < inner {
                x = f32::cast_from(a[(first_row + r) * a_row + (base + p) * a_inner]);
            }
            left[p * STRIDE + r] = x;
            let (dj, dp) = comptime!(shift(i, b_outer));
            let (c, p) = (b_j + dj, b_p + dp);
            let mut y = 0.0f32;
            if first_column + c < columns && base + p < inner {
                y = f32::cast_from(b[(base + p) * b_inner + (first_column + c) * b_column]);
            }
            right[p * STRIDE + c] = y;
        }
        sync_cube();
        for p in 0..INNER {
            let mut x = Array::<f32>::new(EACH);
            let mut y = Array::<f32>::new(EACH);
            #[unroll]
            for i in 0..EACH {
                x[i] = left[p * STRIDE + row + i];
                y[i] = right[p * STRIDE + column + i];
            }
            #[unroll]
            for i in 0..EACH {
                #[unroll]
                for j in 0..EACH {
                    let at = comptime!(i * EACH + j);
                    sums[at] = fma(x[i], y[j], sums[at]);
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..EACH {
        #[unroll]
        for j in 0..EACH {
            let (r, c) = (first_row + row + i, first_column + column + j);
            if r < rows && c < columns {
                out[r * columns + c] = O::cast_from(sums[comptime!(i * EACH + j)]);
            }
        }
    }
}

/// Outer and inner place in a tile of the first of a unit's [`EACH`] elements.
#[cube]
fn places(unit: usize, #[comptime] outer_contiguous: bool) -> (usize, usize) {
    if comptime!(outer_contiguous) {
        (unit % TILE, unit / TILE)
    } else {
        (unit / INNER, unit % INNER)
    }
}

/// How far element `i` of a unit stands from its first, outer and inner.
fn shift(i: usize, outer_contiguous: bool) -> (usize, usize) {
    if outer_contiguous {
        (0, i * (UNITS as usize / TILE))
    } else {
        (i * (UNITS as usize / INNER), 0)
    }
}
