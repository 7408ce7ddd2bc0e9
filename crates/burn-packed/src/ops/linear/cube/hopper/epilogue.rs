//! The epilogue of the Hopper GEMM: accumulator → staging buffer in shared memory → TMA store.
//!
//! Each warp stores its 16 rows of the tile by itself, in slices of 128 bytes per row (64 columns of bf16 or f16, 32 of f32);
//! warps do not wait for each other.
//!
//! # Accumulator layout
//!
//! Contents of the registers `d` of a warp group after one WGMMA of shape m64nNk16 (PTX ISA, "wgmma accumulator"). Warp `w` of the
//! group holds rows `16 w .. 16 w + 16`; of these, lane `l` holds, for every eight columns `8 j .. 8 j + 8`:
//!
//! ```text
//!                  column 8j + 2(l % 4)    8j + 2(l % 4) + 1
//! row l / 4             d[4j]                   d[4j + 1]
//! row l / 4 + 8         d[4j + 2]               d[4j + 3]
//! ```
//!
//! # GeGLU
//!
//! With `geglu` the left half of the tile holds activations and the right half their gates, so that an activation and its gate are registers of
//! one thread. The epilogue stores `gelu(activation) * gate`: half the columns of the tile.
//!
//! # Scales
//!
//! With `fp8` every register is multiplied by the scales of its row and its column as it leaves the accumulator. A lane has two rows, whose scales it
//! loads before the main loop, and a pair of every eight columns, whose scales it loads here: eight lanes read the same pair, and all warps of
//! the block the same kilobyte, so that these loads hit the L1 cache.
//!
//! # Staging buffers
//!
//! 16 rows of 128 bytes under the 128-byte swizzle that the tensor map names: the 16-byte chunk `c` of row `r` is at chunk
//! `c ^ (r % 8)`. Slice `p` goes through buffer `p % 3`: two private ones, and the warp's 2 KiB of the A tile in the stage that
//! the main loop read last. Before a buffer is overwritten, the warp's lane 0, which issues the stores, waits until TMA has
//! read what was staged there before.

use cubecl::prelude::*;

use super::{PRIVATE_STAGING, STAGING_BYTES, Scales, TileConfig};
use crate::ops::ptx::*;

/// Staging buffers of a warp, including the borrowed one; consecutive slices of a tile use them cyclically.
const STAGING: u32 = PRIVATE_STAGING + 1;

/// Destination of a warp's rows, and the staging buffers of the warp.
#[derive(CubeType)]
pub(super) struct Destination {
    /// Address of the warp's private staging buffers.
    pub(super) staging: u32,
    /// Address of the borrowed one.
    pub(super) borrowed: u32,
    /// Tensor map of the output.
    pub(super) map: u64,
    /// First column, first row and matrix of the stack.
    pub(super) column: u32,
    pub(super) row: u32,
    pub(super) split: u32,
}

/// What a lane multiplies its part of an accumulator of e4m3 products with.
#[derive(CubeType, Clone, Copy)]
pub(super) struct TileScales {
    /// Scales of the lane's two rows, `lane / 4` and `lane / 4 + 8` of its warp.
    upper: f32,
    lower: f32,
    /// Address of the scale of column 0 of the output, and of the scale of its gate.
    column: u64,
    gate: u64,
    /// The tile's first column of the output, and the columns of the output.
    first: u32,
    columns: u32,
}

#[cube]
impl TileScales {
    /// Loads the scales of the rows `row` and `row + 8`. `column` is the tile's first column of B and `gate` B's column with the first gate.
    pub(super) fn new(
        scales: &Scales,
        row: u32,
        column: u32,
        gate: u32,
        #[comptime] config: TileConfig,
    ) -> TileScales {
        let mut upper = 1.0f32;
        let mut lower = 1.0f32;
        let mut first = column;
        let mut columns = scales.columns;
        if comptime!(config.geglu) {
            first = column / 2u32;
            columns = scales.columns / 2u32;
        }
        if comptime!(config.fp8) {
            upper = row_scale(scales, row);
            lower = row_scale(scales, row + 8u32);
        }
        TileScales {
            upper,
            lower,
            column: scales.column,
            gate: scales.column + u64::cast_from(gate * 4u32),
            first,
            columns,
        }
    }
}

/// The scale of a row of A; of the last row for rows beyond it, which are not stored.
#[cube]
fn row_scale(scales: &Scales, row: u32) -> f32 {
    let row = min(row, scales.rows - 1u32);
    load_global(scales.row + u64::cast_from(row) * 4u64)
}

/// Multiplies registers `i` and `i + 1` of the accumulator by the scale of their row and by those of their columns in `columns_at`.
#[cube]
fn scaled<N: Size>(
    acc: &Vector<f32, N>,
    scales: &TileScales,
    columns_at: u64,
    #[comptime] register: usize,
    #[comptime] i: usize,
    lane: u32,
) -> (f32, f32) {
    // Registers 4j + 2 and 4j + 3 belong to the lower row; `i` numbers the columns of the output, whose gates are further registers.
    let row = if comptime!(i % 4 == 0) {
        scales.upper
    } else {
        scales.lower
    };
    let column = scales.first + comptime!((i / 4 * 8) as u32) + lane % 4u32 * 2u32;
    // Columns beyond the last are not stored; the number of columns is even.
    let column = min(column, scales.columns - 2u32);
    let pair = load_global_pair(columns_at + u64::cast_from(column * 4u32));
    (
        acc.extract(register) * (row * pair.extract(0usize)),
        acc.extract(comptime!(register + 1)) * (row * pair.extract(1usize)),
    )
}

/// Stores a warp's 16 rows of the accumulator.
#[cube]
pub(super) fn store_accumulator<N: Size>(
    acc: &Vector<f32, N>,
    to: &Destination,
    scales: &TileScales,
    #[comptime] config: TileConfig,
) {
    let lane = UNIT_POS % 32u32;
    let columns = comptime!(config.staging_columns());
    #[unroll]
    for slice in 0..comptime!(config.output_columns() / columns) {
        let buffer = comptime!(slice % STAGING);
        let staging = if comptime!(buffer < PRIVATE_STAGING) {
            to.staging + comptime!(buffer * STAGING_BYTES)
        } else {
            to.borrowed
        };
        if lane == 0u32 {
            if comptime!(slice == 0) {
                // All stores of the previous tile: they were issued a whole main loop ago, so this does not wait in practice.
                tma_store_wait_read(0u32);
            } else if comptime!(slice >= STAGING) {
                // The store that read this buffer; the two later stores may be pending.
                tma_store_wait_read(comptime!(STAGING - 1));
            }
        }
        sync_warp();
        if comptime!(config.f32_out) {
            stage_f32::<N>(acc, staging, slice, lane);
        } else {
            stage_half::<N>(acc, scales, staging, slice, lane, config);
        }
        // TMA reads through the async proxy; ordinary writes are visible there only after a fence by the threads that wrote.
        fence_async_proxy();
        sync_warp();
        if lane == 0u32 {
            tma_store(
                staging,
                to.map,
                to.column + comptime!(slice * columns),
                to.row,
                to.split,
            );
        }
    }
}

/// Writes 32 columns of the accumulator as f32: four groups of eight columns, of which a lane holds two pairs.
#[cube]
fn stage_f32<N: Size>(acc: &Vector<f32, N>, staging: u32, #[comptime] slice: u32, lane: u32) {
    let r = lane / 4u32;
    // A pair takes half of a chunk of 16 bytes: the lower half for even lanes.
    let at0 = staging + r * comptime!(ROW_BYTES) + lane % 2u32 * 8u32;
    let at1 = at0 + comptime!(8 * ROW_BYTES);
    #[unroll]
    for j in 0..4u32 {
        let i = comptime!(((slice * 4 + j) * 4) as usize);
        let chunk = ((comptime!(j * 2) + lane % 4u32 / 2u32) ^ (r % 8u32)) * 16u32;
        store_shared_pair(at0 + chunk, acc.extract(i), acc.extract(comptime!(i + 1)));
        store_shared_pair(
            at1 + chunk,
            acc.extract(comptime!(i + 2)),
            acc.extract(comptime!(i + 3)),
        );
    }
}

/// Writes the columns of a slice in bf16 or f16, 16 at a time with `stmatrix`, whose fragments are those of the accumulator rounded and packed in
/// pairs. A row takes 128 bytes also where a slice has 32 columns: TMA pads rows to the span of the swizzle.
#[cube]
fn stage_half<N: Size>(
    acc: &Vector<f32, N>,
    scales: &TileScales,
    staging: u32,
    #[comptime] slice: u32,
    lane: u32,
    #[comptime] config: TileConfig,
) {
    let ty = comptime!(if config.f16 { "f16" } else { "bf16" });
    // Lanes give row addresses: 0..16 for the left eight columns, 16..32 for the right ones.
    let r = lane % 16u32;
    let at = staging + r * comptime!(ROW_BYTES);
    #[unroll]
    for pair in 0..comptime!(config.staging_columns() / 16) {
        let i = comptime!(((slice * 8 + pair * 2) * 4) as usize);
        let chunk = ((comptime!(pair * 2) + lane / 16u32) ^ (r % 8u32)) * 16u32;
        stmatrix_x4(
            at + chunk,
            packed::<N>(acc, scales, i, lane, ty, config),
            packed::<N>(acc, scales, comptime!(i + 2), lane, ty, config),
            packed::<N>(acc, scales, comptime!(i + 4), lane, ty, config),
            packed::<N>(acc, scales, comptime!(i + 6), lane, ty, config),
        );
    }
}

/// Two neighboring columns of the output, rounded: registers `i` and `i + 1` of the accumulator. For GeGLU these are activations; the gate of
/// each is the register `tile_n / 4` further on, since the gates are the right half of the tile.
#[cube]
fn packed<N: Size>(
    acc: &Vector<f32, N>,
    scales: &TileScales,
    #[comptime] i: usize,
    lane: u32,
    #[comptime] ty: &str,
    #[comptime] config: TileConfig,
) -> u32 {
    let (left, right) = if comptime!(config.fp8) {
        scaled::<N>(acc, scales, scales.column, i, i, lane)
    } else {
        (acc.extract(i), acc.extract(comptime!(i + 1)))
    };
    if comptime!(config.geglu) {
        let register = comptime!(i + config.tile_n as usize / 4);
        let (left_gate, right_gate) = if comptime!(config.fp8) {
            scaled::<N>(acc, scales, scales.gate, register, i, lane)
        } else {
            (acc.extract(register), acc.extract(comptime!(register + 1)))
        };
        pack(gelu(left) * left_gate, gelu(right) * right_gate, ty)
    } else {
        pack(left, right, ty)
    }
}
