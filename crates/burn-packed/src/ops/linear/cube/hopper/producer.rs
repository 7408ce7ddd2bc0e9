//! The producer of the Hopper GEMM: one thread that issues TMA loads.

use cubecl::prelude::*;

use super::super::plan::{TileSchedule, tile_at};
use super::{BLOCK_BYTES, Pipeline, TILE_K, TILE_M, TileConfig};
use crate::ops::ptx::*;

/// Producer thread: for every tile of this block and every K step, waits until the stage is empty, announces its bytes at
/// `full[stage]` and issues the loads of both operands.
#[cube]
pub(super) fn producer_thread(
    pipeline: &Pipeline,
    a_map: u64,
    b_map: u64,
    schedule: &TileSchedule,
    #[comptime] config: TileConfig,
) {
    let stage_bytes = comptime!(config.stage_bytes());
    let rank = CUBE_POS_X % comptime!(config.cluster);
    let mut stage = 0u32;
    // On new mbarriers the phase of parity 1 counts as complete, so that the first waits pass at once.
    let mut parity = 1u32;
    let mut index = CUBE_POS_X / comptime!(config.cluster);
    while index < schedule.tiles {
        let tile = tile_at(index, schedule, rank, config);
        for step in 0..tile.k_steps {
            let k = (tile.first_k_step + step) * comptime!(TILE_K);
            let full = pipeline.full + stage * 8u32;
            let a_tile = pipeline.stages + stage * stage_bytes;
            let b_tile = a_tile + comptime!(config.a_bytes());
            mbarrier_wait(pipeline.empty + stage * 8u32, parity);
            // The announced bytes include those beyond the matrices' edges: TMA fills them with zeros and counts them.
            mbarrier_arrive_expect_tx(full, stage_bytes.runtime());
            if comptime!(config.a_m_major) {
                #[unroll]
                for i in 0..comptime!(TILE_M / 64) {
                    tma_load(
                        a_tile + comptime!(i * BLOCK_BYTES),
                        a_map,
                        tile.row + comptime!(i * 64),
                        k,
                        full,
                    );
                }
            } else {
                tma_load(a_tile, a_map, k, tile.row, full);
            }
            if comptime!(config.geglu) {
                load_b_halves(
                    b_tile,
                    b_map,
                    k,
                    tile.column / 2u32,
                    schedule.gate,
                    full,
                    rank,
                    config,
                );
            } else {
                load_b(b_tile, b_map, k, tile.column, full, rank, config);
            }
            stage += 1u32;
            if stage == comptime!(config.stages) {
                stage = 0u32;
                parity = 1u32 - parity;
            }
        }
        index += CUBE_COUNT_X / comptime!(config.cluster);
    }
}

/// Loads the B tile of a stage; in a cluster, this block's half of the columns, multicast to both blocks.
#[cube]
fn load_b(
    b_tile: u32,
    map: u64,
    k: u32,
    column: u32,
    full: u32,
    rank: u32,
    #[comptime] config: TileConfig,
) {
    let tile_n = comptime!(config.tile_n);
    let all_blocks = comptime!((1u16 << config.cluster) - 1);
    if comptime!(config.b_n_major) {
        #[unroll]
        for i in 0..comptime!(tile_n / 64) {
            let block = b_tile + comptime!(i * BLOCK_BYTES);
            let first = column + comptime!(i * 64);
            if comptime!(config.cluster > 1) {
                // Ranks alternate from one block of 64 columns to the next.
                if rank == comptime!(i % config.cluster) {
                    tma_load_multicast(block, map, first, k, full, all_blocks.runtime());
                }
            } else {
                tma_load(block, map, first, k, full);
            }
        }
    } else if comptime!(config.cluster > 1) {
        let share = rank * comptime!(tile_n / config.cluster);
        tma_load_multicast(
            b_tile + share * comptime!(ROW_BYTES),
            map,
            k,
            column + share,
            full,
            all_blocks.runtime(),
        );
    } else {
        tma_load(b_tile, map, k, column, full);
    }
}

/// Loads the B tile of a stage for GeGLU: `tile_n / 2` columns of activations, from `column` on, and behind them in shared memory `tile_n / 2`
/// columns of gates, from `gate + column` on. In a cluster, the first block loads the activations and the second the gates, multicast to both.
#[allow(clippy::too_many_arguments)] // operands of inline PTX
#[cube]
fn load_b_halves(
    b_tile: u32,
    map: u64,
    k: u32,
    column: u32,
    gate: u32,
    full: u32,
    rank: u32,
    #[comptime] config: TileConfig,
) {
    let bytes = comptime!(config.b_box() * ROW_BYTES);
    if comptime!(config.cluster > 1) {
        let all_blocks = comptime!((1u16 << config.cluster) - 1);
        tma_load_multicast(
            b_tile + rank * bytes,
            map,
            k,
            column + rank * gate,
            full,
            all_blocks.runtime(),
        );
    } else {
        tma_load(b_tile, map, k, column, full);
        tma_load(b_tile + bytes, map, k, column + gate, full);
    }
}
