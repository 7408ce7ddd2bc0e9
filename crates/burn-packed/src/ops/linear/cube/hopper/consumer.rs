//! The consumers of the Hopper GEMM: two warp groups that compute with WGMMA.

use cubecl::prelude::*;

use super::super::plan::{TileSchedule, tile_at};
use super::epilogue::{Destination, TileScales, store_accumulator};
use super::main_loop::mma_main_loop;
use super::{
    BLOCK_BYTES, PRIVATE_STAGING, Pipeline, STAGING_BYTES, STAGING_ROWS, Scales, TILE_M, TileConfig,
};
use crate::ops::ptx::wgmma::descriptor_low;
use crate::ops::ptx::*;

/// Consumer warp group: for every tile of this block, the main loop over its K steps and the epilogue.
///
/// A thread's accumulator is the first `tile_n / 2` f32 of a vector of `N`; its layout is drawn in `epilogue.rs`. The two
/// groups run independently of each other; a group waits for the other only through the pipeline's mbarriers.
#[cube]
pub(super) fn consumer_warp_group<N: Size>(
    pipeline: &Pipeline,
    out_map: u64,
    scales: &Scales,
    schedule: &TileSchedule,
    #[comptime] config: TileConfig,
) {
    let stages = comptime!(config.stages);
    let cluster = comptime!(config.cluster);
    let rank = CUBE_POS_X % cluster;
    let lane = UNIT_POS % 32u32;
    // Lanes 0..cluster of each warp release stages, each at the `empty` mbarriers of another block of the cluster.
    let releases = select(lane < cluster, 1u32, 0u32);
    let empty = if comptime!(cluster > 1) {
        map_to_block(pipeline.empty, (rank + lane) % cluster)
    } else {
        pipeline.empty
    };
    let group = UNIT_POS / 128u32;
    let warp = UNIT_POS / 32u32;
    let a_desc = descriptor_low(pipeline.stages + group * BLOCK_BYTES, BLOCK_BYTES);
    let b_desc = descriptor_low(pipeline.stages + comptime!(config.a_bytes()), BLOCK_BYTES);
    let staging = pipeline.stages
        + comptime!(stages * config.stage_bytes())
        + warp * comptime!(PRIVATE_STAGING * STAGING_BYTES);
    let mut stage = 0u32;
    let mut parity = 0u32;
    let mut index = CUBE_POS_X / cluster;
    while index < schedule.tiles {
        let tile = tile_at(index, schedule, rank, config);
        // Requested before the main loop, which hides the latency of the loads.
        let tile_scales = TileScales::new(
            scales,
            tile.row + warp * comptime!(STAGING_ROWS) + lane / 4u32,
            tile.column,
            schedule.gate,
            config,
        );
        let acc = mma_main_loop::<N>(
            a_desc,
            b_desc,
            pipeline.full,
            empty,
            stage,
            parity,
            tile.k_steps,
            releases,
            config,
        );
        // The main loop advances its own copies of stage and parity in registers; this advances the variables here by the same `k_steps`.
        let passed = stage + tile.k_steps;
        let last = (passed + comptime!(stages - 1)) % stages;
        parity = (parity + passed / stages) % 2u32;
        stage = passed % stages;
        let mut row = tile.row;
        let mut column = tile.column;
        if comptime!(config.stacked) {
            row = (index % schedule.tiles_per_split * cluster + rank) * comptime!(TILE_M);
            column = 0u32;
        }
        let last_empty = empty + last * 8u32;
        if comptime!(config.geglu) {
            column = column / 2u32;
        }
        let slices = comptime!(config.output_columns() / config.staging_columns());
        let borrows_stage = comptime!(slices > PRIVATE_STAGING);
        if comptime!(borrows_stage) {
            // The group's half of the A tile is divided into staging buffers of its four warps, so all four must have read it. The
            // other group reads the other half and need not be waited for.
            sync_warp_group(group);
        } else if releases == 1u32 {
            mbarrier_arrive_cluster(last_empty, cluster);
        }
        let destination = Destination {
            staging,
            borrowed: pipeline.stages
                + last * comptime!(config.stage_bytes())
                + warp * STAGING_BYTES,
            map: out_map,
            column,
            row: row + warp * comptime!(STAGING_ROWS),
            split: tile.split,
        };
        store_accumulator::<N>(&acc, &destination, &tile_scales, config);
        if comptime!(borrows_stage) {
            // The producer may refill the stage once TMA has read what was staged there: every store up to the last one from
            // the borrowed buffer. Later stores may still be pending.
            if lane == 0u32 {
                tma_store_wait_read(comptime!(slices % (PRIVATE_STAGING + 1)));
            }
            sync_warp();
            if releases == 1u32 {
                mbarrier_arrive_cluster(last_empty, cluster);
            }
        }
        index += CUBE_COUNT_X / cluster;
    }
    // Shared memory must outlive the last stores.
    if lane == 0u32 {
        bulk_wait();
    }
}
