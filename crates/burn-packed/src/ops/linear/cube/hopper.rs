//! The tensor-core product for Hopper (compute capability 9.0): bf16 and f16, f32 accumulation.
//!
//! A grid of as many cubes as the device has multiprocessors walks over the tiles of the result. In each cube one unit keeps the
//! copy engine busy, filling stages of shared memory; two warp groups multiply, 64 rows each, and write their results through
//! shared memory and the copy engine again, while the next tile's stages are filling. Rows, columns and inner dimension
//! beyond the matrices are zeros on the way in and left out on the way back, so that any size is served.
//!
//! Cubes may work in clusters of two, on tiles one below the other: of what these share, the columns of the right operand, each
//! cube reads half and the copy engine hands it to both.

use cubecl::prelude::*;
use cubecl_cpp::cuda::ptx::tensor_map_address;

use super::plan::{Walk, tile_at};
use super::ptx::*;
use crate::ops::ptx::{descriptor_low, pack, shared_address};

/// Rows of a tile: 64 for each of two warp groups.
pub(super) const ROWS: u32 = 128;
/// Inner elements of a stage.
pub(super) const INNER: u32 = 64;
/// Units that multiply; one more warp feeds them.
pub(super) const MULTIPLIERS: u32 = 256;
pub(super) const UNITS: u32 = MULTIPLIERS + 32;
/// Rows of a box on its way out: what a warp holds of an accumulator.
pub(super) const BOX_ROWS: u32 = 16;
const BOX_BYTES: u32 = BOX_ROWS * ROW_BYTES;
/// Boxes of its own that each warp may have on their way out. A third one is its rows of the left operand's last stage, which
/// nobody reads any more.
const BOXES: u32 = 2;
const BOXES_IN_TURN: u32 = BOXES + 1;

/// What is known when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tiling {
    /// Columns of a tile: 128, 192 or 256.
    pub(super) columns: u32,
    pub(super) stages: u32,
    /// The left operand is stored `[inner, rows]`.
    pub(super) a_outer: bool,
    /// The right operand is stored `[inner, columns]`; otherwise `[columns, inner]`.
    pub(super) b_outer: bool,
    /// f16 instead of bf16.
    pub(super) half: bool,
    /// The result is f32 instead of the operands' dtype.
    pub(super) wide: bool,
    /// Tiles are stored one below the other, in the order of their numbers, instead of where they belong.
    pub(super) packed: bool,
    /// Cubes of a cluster, whose tiles lie one below the other: 1 or 2.
    pub(super) cluster: u32,
}

impl Tiling {
    pub(super) fn new(
        (columns, cluster): (u32, u32),
        a_outer: bool,
        b_outer: bool,
        half: bool,
        wide: bool,
    ) -> Self {
        Self {
            columns,
            // What fits beside the boxes on their way out.
            stages: if columns == 128 { 6 } else { 4 },
            a_outer,
            b_outer,
            half,
            wide,
            packed: false,
            cluster,
        }
    }

    pub(super) fn a_bytes(&self) -> u32 {
        ROWS * INNER * 2
    }

    pub(super) fn stage_bytes(&self) -> u32 {
        self.a_bytes() + self.columns * INNER * 2
    }

    fn shared_words(&self) -> usize {
        ((self.stages * self.stage_bytes() + MULTIPLIERS / 32 * BOXES * BOX_BYTES) / 4) as usize
    }

    /// Columns of a box on its way out.
    pub(super) fn box_columns(&self) -> u32 {
        if self.wide { 32 } else { 64 }
    }
}

/// `out[split] = a · b` over that split's share of the inner dimension.
///
/// `a`, `b`, `out`: tensor maps whose boxes are those of `launch` in this folder.
#[cube(launch_unchecked, cluster_dim = CubeDim::new_1d(tiling.cluster))]
pub(super) fn hopper_gemm(
    a: &TensorMap<u16, Tiled>,
    b: &TensorMap<u16, Tiled>,
    out: &TensorMap<u32, Tiled>,
    walk: &Walk,
    #[comptime] tiling: Tiling,
) {
    let shared = Shared::<[u32]>::new_aligned_slice(comptime!(tiling.shared_words()), 1024usize);
    let barriers =
        Shared::<[u32]>::new_aligned_slice(comptime!(tiling.stages as usize * 4), 16usize);
    let base = shared_address(unsafe { shared.as_ptr_unchecked() });
    let full = shared_address(unsafe { barriers.as_ptr_unchecked() });
    let empty = full + comptime!(tiling.stages * 8);
    let out_map = tensor_map_address(out);

    if UNIT_POS == 0u32 {
        #[unroll]
        for i in 0..comptime!(tiling.stages) {
            barrier_init(full + comptime!(i * 8), 1u32);
            // One arrival from each warp that multiplies, in all cubes that the stage is filled for.
            barrier_init(
                empty + comptime!(i * 8),
                comptime!(tiling.cluster * MULTIPLIERS / 32).runtime(),
            );
        }
        barrier_fence();
    }
    if comptime!(tiling.cluster > 1) {
        sync_cluster();
    } else {
        sync_cube();
    }

    if UNIT_POS >= comptime!(MULTIPLIERS) {
        if UNIT_POS == comptime!(MULTIPLIERS) {
            feed_tiles(
                base,
                full,
                empty,
                tensor_map_address(a),
                tensor_map_address(b),
                walk,
                tiling,
            );
        }
    } else if comptime!(tiling.columns > 128) {
        multiply_tiles::<Const<128>>(base, full, empty, out_map, walk, tiling);
    } else {
        multiply_tiles::<Const<64>>(base, full, empty, out_map, walk, tiling);
    }
    // A cube's memory must stay while others of its cluster may still write to it.
    if comptime!(tiling.cluster > 1) {
        sync_cluster();
    }
}

/// What one unit does: fills stage after stage, each as soon as it is empty.
#[cube]
fn feed_tiles(
    base: u32,
    full: u32,
    empty: u32,
    a_map: u64,
    b_map: u64,
    walk: &Walk,
    #[comptime] tiling: Tiling,
) {
    let stage_bytes = comptime!(tiling.stage_bytes());
    let rank = CUBE_POS_X % comptime!(tiling.cluster);
    let mut stage = 0u32;
    let mut parity = 1u32;
    let mut index = CUBE_POS_X / comptime!(tiling.cluster);
    while index < walk.tiles {
        let tile = tile_at(index, walk, rank, tiling);
        for step in 0..tile.steps {
            let inner = (tile.first_step + step) * comptime!(INNER);
            let barrier = full + stage * 8u32;
            let a_at = base + stage * stage_bytes;
            let b_at = a_at + comptime!(tiling.a_bytes());
            barrier_wait(empty + stage * 8u32, parity);
            barrier_expect(barrier, stage_bytes.runtime());
            if comptime!(tiling.a_outer) {
                #[unroll]
                for i in 0..comptime!(ROWS / 64) {
                    load_box(
                        a_at + comptime!(i * 8192),
                        a_map,
                        tile.row + comptime!(i * 64),
                        inner,
                        barrier,
                    );
                }
            } else {
                load_box(a_at, a_map, inner, tile.row, barrier);
            }
            feed_right(b_at, b_map, inner, tile.column, barrier, rank, tiling);
            stage += 1u32;
            if stage == comptime!(tiling.stages) {
                stage = 0u32;
                parity = 1u32 - parity;
            }
        }
        index += CUBE_COUNT_X / comptime!(tiling.cluster);
    }
}

/// The right operand's part of a stage; in a cluster, this cube's share of it for all.
#[cube]
fn feed_right(
    at: u32,
    map: u64,
    inner: u32,
    column: u32,
    barrier: u32,
    rank: u32,
    #[comptime] tiling: Tiling,
) {
    let columns = comptime!(tiling.columns);
    let cubes = comptime!((1u16 << tiling.cluster) - 1);
    if comptime!(tiling.b_outer) {
        #[unroll]
        for i in 0..comptime!(columns / 64) {
            let place = at + comptime!(i * 8192);
            let first = column + comptime!(i * 64);
            if comptime!(tiling.cluster > 1) {
                if rank == comptime!(i % tiling.cluster) {
                    load_box_for(place, map, first, inner, barrier, cubes.runtime());
                }
            } else {
                load_box(place, map, first, inner, barrier);
            }
        }
    } else if comptime!(tiling.cluster > 1) {
        let share = rank * comptime!(columns / tiling.cluster);
        load_box_for(
            at + share * comptime!(ROW_BYTES),
            map,
            inner,
            column + share,
            barrier,
            cubes.runtime(),
        );
    } else {
        load_box(at, map, inner, column, barrier);
    }
}

/// What the two warp groups do: each tile's product and its way out. The accumulator of a unit is the first `columns / 2`
/// of `N` numbers.
#[cube]
fn multiply_tiles<N: Size>(
    base: u32,
    full: u32,
    empty: u32,
    out_map: u64,
    walk: &Walk,
    #[comptime] tiling: Tiling,
) {
    let stages = comptime!(tiling.stages);
    let cluster = comptime!(tiling.cluster);
    let rank = CUBE_POS_X % cluster;
    let lane = UNIT_POS % 32u32;
    // Each of a warp's first units gives stages back to one cube of the cluster.
    let releases = select(lane < cluster, 1u32, 0u32);
    let give_back = if comptime!(cluster > 1) {
        address_in_cube(empty, (rank + lane) % cluster)
    } else {
        empty
    };
    let group = UNIT_POS / 128u32;
    let warp = UNIT_POS / 32u32;
    let a_desc = descriptor_low(base + group * 8192u32, 8192u32);
    let b_desc = descriptor_low(base + comptime!(tiling.a_bytes()), 8192u32);
    let boxes =
        base + comptime!(stages * tiling.stage_bytes()) + warp * comptime!(BOXES * BOX_BYTES);
    let mut stage = 0u32;
    let mut parity = 0u32;
    let mut index = CUBE_POS_X / cluster;
    while index < walk.tiles {
        let tile = tile_at(index, walk, rank, tiling);
        let acc = multiply::<N>(
            a_desc, b_desc, full, give_back, stage, parity, tile.steps, releases, tiling,
        );
        let passed = stage + tile.steps;
        let last = (passed + comptime!(stages - 1)) % stages;
        parity = (parity + passed / stages) % 2u32;
        stage = passed % stages;
        let mut row = tile.row;
        let mut column = tile.column;
        if comptime!(tiling.packed) {
            row = (index % walk.per_split * cluster + rank) * comptime!(ROWS);
            column = 0u32;
        }
        let last_empty = give_back + last * 8u32;
        let parts = comptime!(tiling.columns / tiling.box_columns());
        let borrows = comptime!(parts > BOXES);
        if comptime!(borrows) {
            // All warps of the group have read the stage.
            sync_warp_group(group);
        } else if releases == 1u32 {
            barrier_arrive(last_empty, cluster);
        }
        store_tile::<N>(
            &acc,
            boxes,
            base + last * comptime!(tiling.stage_bytes()) + warp * BOX_BYTES,
            out_map,
            column,
            row + warp * comptime!(BOX_ROWS),
            tile.split,
            tiling,
        );
        if comptime!(borrows) {
            if lane == 0u32 {
                // As many parts left after the last one that went through the stage.
                stores_wait_read(comptime!(parts % BOXES_IN_TURN));
            }
            sync_warp();
            if releases == 1u32 {
                barrier_arrive(last_empty, cluster);
            }
        }
        index += CUBE_COUNT_X / cluster;
    }
    if lane == 0u32 {
        stores_wait();
    }
}

/// Writes a warp's part of an accumulator, 16 rows from `row` on, in boxes of 128 bytes a row: two from `boxes` on and the one at
/// `borrowed` in turn. Warps don't wait for each other.
#[allow(clippy::too_many_arguments)]
#[cube]
fn store_tile<N: Size>(
    acc: &Vector<f32, N>,
    boxes: u32,
    borrowed: u32,
    map: u64,
    column: u32,
    row: u32,
    split: u32,
    #[comptime] tiling: Tiling,
) {
    let ty = comptime!(if tiling.half { "f16" } else { "bf16" });
    let lane = UNIT_POS % 32u32;
    let width = comptime!(tiling.box_columns());
    #[unroll]
    for part in 0..comptime!(tiling.columns / width) {
        let turn = comptime!(part % BOXES_IN_TURN);
        let place = if comptime!(turn < BOXES) {
            boxes + comptime!(turn * BOX_BYTES)
        } else {
            borrowed
        };
        if lane == 0u32 {
            // All that the tile before left behind, a whole product ago; then the box before the last two.
            if comptime!(part == 0) {
                stores_wait_read(0u32);
            } else if comptime!(part >= BOXES_IN_TURN) {
                stores_wait_read(comptime!(BOXES));
            }
        }
        sync_warp();
        if comptime!(tiling.wide) {
            let r = lane / 4u32;
            // Column pairs of this unit: chunk of 16 bytes and half of it.
            let at0 = place + r * comptime!(ROW_BYTES) + lane % 2u32 * 8u32;
            let at1 = at0 + comptime!(8 * ROW_BYTES);
            #[unroll]
            for j in 0..4u32 {
                let i = comptime!(((part * 4 + j) * 4) as usize);
                let chunk = ((comptime!(j * 2) + lane % 4u32 / 2u32) ^ (r % 8u32)) * 16u32;
                store_pair(at0 + chunk, acc.extract(i), acc.extract(comptime!(i + 1)));
                store_pair(
                    at1 + chunk,
                    acc.extract(comptime!(i + 2)),
                    acc.extract(comptime!(i + 3)),
                );
            }
        } else {
            let r = lane % 16u32;
            let at = place + r * comptime!(ROW_BYTES);
            #[unroll]
            for pair in 0..4u32 {
                let i = comptime!(((part * 8 + pair * 2) * 4) as usize);
                let chunk = ((comptime!(pair * 2) + lane / 16u32) ^ (r % 8u32)) * 16u32;
                store_matrices(
                    at + chunk,
                    pack(acc.extract(i), acc.extract(comptime!(i + 1)), ty),
                    pack(
                        acc.extract(comptime!(i + 2)),
                        acc.extract(comptime!(i + 3)),
                        ty,
                    ),
                    pack(
                        acc.extract(comptime!(i + 4)),
                        acc.extract(comptime!(i + 5)),
                        ty,
                    ),
                    pack(
                        acc.extract(comptime!(i + 6)),
                        acc.extract(comptime!(i + 7)),
                        ty,
                    ),
                );
            }
        }
        fence_copies();
        sync_warp();
        if lane == 0u32 {
            store_box(place, map, column + comptime!(part * width), row, split);
        }
    }
}
