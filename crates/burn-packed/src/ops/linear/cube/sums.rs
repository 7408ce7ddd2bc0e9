//! Sums of what was multiplied in parts along the inner dimension.

use cubecl::prelude::*;

use super::hopper::{ROWS, Tiling};
use super::plan::{Walk, place_of};

/// `out[i] = sum over splits of parts[split, i]`, in order; four elements a unit.
#[cube(launch_unchecked)]
pub(super) fn sum_splits<F: Float>(
    parts: &[Vector<f32, Const<4>>],
    out: &mut [Vector<F, Const<4>>],
    splits: u32,
    quads: u32,
    #[define(F)] _dtype: cubecl::ir::ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < quads {
        let mut sum = parts[at as usize];
        for split in 1..splits {
            sum += parts[(split * quads + at) as usize];
        }
        out[at as usize] = Vector::cast_from(sum);
    }
}

/// `out = sum over splits of parts[split]`, in order, of tiles stored [`Tiling::packed`]; four elements a unit.
///
/// `parts` `[splits, per_split · cluster · ROWS, tiling.columns]`, `out` `[rows, columns]`.
#[cube(launch_unchecked)]
pub(super) fn sum_tiles<F: Float>(
    parts: &[Vector<f32, Const<4>>],
    out: &mut [Vector<F, Const<4>>],
    walk: &Walk,
    splits: u32,
    rows: u32,
    columns: u32,
    #[comptime] tiling: Tiling,
    #[define(F)] _dtype: cubecl::ir::ElemType,
) {
    let row_quads = comptime!(tiling.columns / 4);
    let quads = walk.per_split * comptime!(tiling.cluster * ROWS) * row_quads;
    let at = ABSOLUTE_POS as u32;
    if at < quads {
        let line = at / row_quads;
        let tile = line / comptime!(ROWS);
        let (first, column) = place_of(
            walk.first + tile / comptime!(tiling.cluster),
            walk,
            tile % comptime!(tiling.cluster),
            tiling,
        );
        let row = first + line % comptime!(ROWS);
        let column = column + at % row_quads * 4u32;
        if row < rows && column < columns {
            let mut sum = parts[at as usize];
            for split in 1..splits {
                sum += parts[(split * quads + at) as usize];
            }
            out[(row * (columns / 4u32) + column / 4u32) as usize] = Vector::cast_from(sum);
        }
    }
}
