//! Sums of the partials of a GEMM that was split along K. Parts are added in the order of the splits, in f32.

use cubecl::prelude::*;

use super::hopper::{TILE_M, TileConfig};
use super::plan::{TileSchedule, tile_origin};

/// `out[i] = Σ_split partials[split, i]`; a thread sums four elements. `partials [splits, quads]`, `out [quads]`.
#[cube(launch_unchecked)]
pub(super) fn sum_splits<F: Float>(
    partials: &[Vector<f32, Const<4>>],
    out: &mut [Vector<F, Const<4>>],
    splits: u32,
    quads: u32,
    #[define(F)] _dtype: cubecl::ir::ElemType,
) {
    let at = ABSOLUTE_POS as u32;
    if at < quads {
        let mut sum = partials[at as usize];
        for split in 1..splits {
            sum += partials[(split * quads + at) as usize];
        }
        out[at as usize] = Vector::cast_from(sum);
    }
}

/// Sums the partials of tiles that the GEMM stored [`TileConfig::stacked`], and writes each sum to its position in the matrix.
///
/// `partials [splits, tiles_per_split · cluster · TILE_M, tile_n]`, `out [rows, columns]`; a thread sums four elements.
#[cube(launch_unchecked)]
pub(super) fn sum_tiles<F: Float>(
    partials: &[Vector<f32, Const<4>>],
    out: &mut [Vector<F, Const<4>>],
    schedule: &TileSchedule,
    splits: u32,
    rows: u32,
    columns: u32,
    #[comptime] config: TileConfig,
    #[define(F)] _dtype: cubecl::ir::ElemType,
) {
    let row_quads = comptime!(config.tile_n / 4);
    let quads = schedule.tiles_per_split * comptime!(config.cluster * TILE_M) * row_quads;
    let at = ABSOLUTE_POS as u32;
    if at < quads {
        let stacked_row = at / row_quads;
        let tile = stacked_row / comptime!(TILE_M);
        let (first, column) = tile_origin(
            schedule.first_tile + tile / comptime!(config.cluster),
            schedule,
            tile % comptime!(config.cluster),
            config,
        );
        let row = first + stacked_row % comptime!(TILE_M);
        let column = column + at % row_quads * 4u32;
        if row < rows && column < columns {
            let mut sum = partials[at as usize];
            for split in 1..splits {
                sum += partials[(split * quads + at) as usize];
            }
            out[(row * (columns / 4u32) + column / 4u32) as usize] = Vector::cast_from(sum);
        }
    }
}
