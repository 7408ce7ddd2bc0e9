//! GEMM with tensor cores for Hopper (compute capability 9.0): bf16, f16 or e4m3 operands, f32 accumulation.
//!
//! The kernel is persistent and warp-specialized: the grid has as many thread blocks as the device has multiprocessors, and
//! each block loops over output tiles of [`TILE_M`] × `tile_n` in the order of its [`TileSchedule`].
//!
//! | threads | role | file |
//! |---|---|---|
//! | 0..128 | consumer warp group 0: WGMMA on rows 0..64 of the tile, then the epilogue of these rows | `consumer.rs`, `epilogue.rs` |
//! | 128..256 | consumer warp group 1: the same for rows 64..128 | |
//! | 256..288 | producer warp, of which only the first thread works: issues the TMA loads | `producer.rs` |
//!
//! Producer and consumers share a ring of `stages` buffers in shared memory. A stage holds [`TILE_K`] elements of the inner dimension of
//! both operands; a tile takes `k_steps` stages. The ring is not drained between tiles, so that the loads of a tile overlap the
//! epilogue of the tile before.
//!
//! # mbarriers
//!
//! Two per stage, 8 bytes each, initialized once by thread 0:
//!
//! | mbarrier | arrivals per phase | completes when | who waits |
//! |---|---|---|---|
//! | `full[s]` | 1: the producer, which also announces `stage_bytes` | TMA has written all bytes of the stage | both consumer warp groups, before their WGMMAs |
//! | `empty[s]` | one lane of each consumer warp of every block in the cluster | all warps have finished reading the stage | the producer, before it loads into the stage again |
//!
//! Producer and consumers count phases by parity, which flips whenever the ring wraps around to stage 0. Consumers begin with parity 0. The
//! producer begins with parity 1: on a new mbarrier the phase of parity 1 counts as complete, so the first round of waits
//! passes at once. Consumers release a stage one step late, when the next stage's WGMMAs are in flight. The last stage of a
//! tile is released by the epilogue, which may first use it as a staging buffer.
//!
//! # Shared memory
//!
//! ```text
//! stage 0          stage 1     …  stage S-1    staging buffers of the epilogue
//! ┌──────┬───────┬──────┬───────┬─────────────┬────────────────────────────────┐
//! │ A 0  │ B 0   │ A 1  │ B 1   │ …           │ 8 warps × 2 buffers × 2 KiB    │
//! └──────┴───────┴──────┴───────┴─────────────┴────────────────────────────────┘
//! A: 16 KiB        B: tile_n × 128 bytes        then full[0..S], empty[0..S]
//! ```
//!
//! Operand tiles have rows of 128 bytes (64 elements) under the 128-byte swizzle. Where an operand is K-major (its inner
//! dimension is contiguous), a row is 64 inner elements of one row of A or one column of B. Where it is M- or N-major, the tile
//! is a sequence of 8 KiB blocks, each of 64 inner elements (rows) by 64 elements of the other dimension.
//!
//! # Clusters
//!
//! With `cluster == 2` two blocks work on tiles one below the other and need the same columns of B. Each block loads half of
//! them and TMA multicasts that half to both. A multicast load signals `full[s]` of every destination block, so each block
//! still announces all of `stage_bytes`. A stage can be overwritten by the peer as well; that is why a consumer warp arrives at
//! `empty[s]` of both blocks.

//! # e4m3
//!
//! With `fp8` a 16-bit element of the operands is a pair of e4m3 codes, so that tensor maps, tiles and stages are the same; a WGMMA then multiplies
//! 32 inner codes instead of 16 inner elements. The epilogue multiplies each row by the scale of its row of A and each column by the scale of its
//! column of B ([`Scales`]).

mod consumer;
mod epilogue;
mod main_loop;
mod producer;

use cubecl::prelude::*;
use cubecl_cpp::cuda::ptx::tensor_map_address;

use super::plan::TileSchedule;
use crate::ops::ptx::*;
use consumer::consumer_warp_group;
use producer::producer_thread;

/// Rows of an output tile: 64, the M of one WGMMA, for each of two consumer warp groups.
pub(super) const TILE_M: u32 = 128;
/// Inner elements of a stage: 128 bytes, one period of the swizzle, and four WGMMAs of K = 16.
pub(super) const TILE_K: u32 = 64;
/// Threads of the two consumer warp groups.
const CONSUMER_THREADS: u32 = 256;
const CONSUMER_WARPS: u32 = CONSUMER_THREADS / 32;
/// Threads of a block: the consumers and one producer warp.
pub(super) const THREADS: u32 = CONSUMER_THREADS + 32;
/// Bytes of a block of 64 inner by 64 outer elements in an M- or N-major tile; also half of a K-major A tile.
const BLOCK_BYTES: u32 = 64 * ROW_BYTES;
/// Rows of a staging buffer for the TMA store: the rows of the accumulator that one warp holds.
pub(super) const STAGING_ROWS: u32 = 16;
const STAGING_BYTES: u32 = STAGING_ROWS * ROW_BYTES;
/// Private staging buffers per warp. The epilogue uses a drained pipeline stage as one more; a third private one would not fit
/// beside four stages.
const PRIVATE_STAGING: u32 = 2;

/// Compile-time configuration of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TileConfig {
    /// Columns of an output tile: 32 (if B is K-major), 64, 128, 192 or 256. With `geglu`, the columns that are computed: twice those of the output.
    pub(super) tile_n: u32,
    /// Stages of the pipeline.
    pub(super) stages: u32,
    /// True if A is stored `[k, m]` (M-major) instead of `[m, k]`.
    pub(super) a_m_major: bool,
    /// True if B is stored `[k, n]` (N-major) instead of `[n, k]`.
    pub(super) b_n_major: bool,
    /// True if the operands are f16 instead of bf16.
    pub(super) f16: bool,
    /// True if the output is f32 instead of the operands' dtype.
    pub(super) f32_out: bool,
    /// True if output tiles are stored one below the other, in the order of their numbers, instead of at their position in the
    /// matrix. The buffer is then `[splits, tiles · TILE_M, tile_n]`; `sums.rs` writes the sums to their positions.
    pub(super) stacked: bool,
    /// Thread blocks of a cluster: 1 or 2.
    pub(super) cluster: u32,
    /// True if the epilogue computes GeGLU: the output has half as many columns as B.
    pub(super) geglu: bool,
    /// True if the operands' 16-bit elements are pairs of e4m3 codes; both are K-major then, and the output is in 16 bits.
    pub(super) fp8: bool,
}

impl TileConfig {
    pub(super) fn new(
        (tile_n, cluster): (u32, u32),
        a_m_major: bool,
        b_n_major: bool,
        f16: bool,
        f32_out: bool,
    ) -> Self {
        Self {
            tile_n,
            // The number that fits beside 32 KiB of staging buffers into 227 KiB, the limit of a block's shared memory on Hopper: a stage takes 20, 24,
            // 32, and for 192 and 256 columns 40 and 48 KiB.
            stages: match tile_n {
                32 => 9,
                64 => 8,
                128 => 6,
                _ => 4,
            },
            a_m_major,
            b_n_major,
            f16,
            f32_out,
            stacked: false,
            cluster,
            geglu: false,
            fp8: false,
        }
    }

    /// Bytes of the A tile of a stage.
    pub(super) fn a_bytes(&self) -> u32 {
        TILE_M * TILE_K * 2
    }

    /// Bytes of a stage, both operands.
    pub(super) fn stage_bytes(&self) -> u32 {
        self.a_bytes() + self.tile_n * TILE_K * 2
    }

    /// 32-bit words of shared memory without the mbarriers.
    fn shared_words(&self) -> usize {
        ((self.stages * self.stage_bytes() + CONSUMER_WARPS * PRIVATE_STAGING * STAGING_BYTES) / 4)
            as usize
    }

    /// Columns of an output tile.
    pub(super) fn output_columns(&self) -> u32 {
        if self.geglu {
            self.tile_n / 2
        } else {
            self.tile_n
        }
    }

    /// Columns of B that one TMA load brings: a block of a cluster loads its share, and GeGLU loads activations and gates apart.
    pub(super) fn b_box(&self) -> u32 {
        if self.geglu {
            self.tile_n / 2
        } else {
            self.tile_n / self.cluster
        }
    }

    /// Columns of a staging buffer: 128 bytes, half of which are used where a tile of 16-bit elements is narrower.
    pub(super) fn staging_columns(&self) -> u32 {
        if self.f32_out {
            32
        } else {
            self.output_columns().min(64)
        }
    }
}

/// Addresses in the shared state space of the block.
#[derive(CubeType, Clone, Copy)]
struct Pipeline {
    /// First byte of stage 0.
    stages: u32,
    /// `full[0]`, and `empty[0]` behind the last `full`.
    full: u32,
    empty: u32,
}

/// Scales of the rows of A and the columns of B. Not read without [`TileConfig::fp8`].
#[derive(CubeType, Clone, Copy)]
struct Scales {
    /// Addresses of the first row's and the first column's scale, in f32.
    row: u64,
    column: u64,
    /// Rows of A and columns of B.
    rows: u32,
    columns: u32,
}

/// `out[split] = A · B` over that split's share of the inner dimension, for every tile of `schedule`.
///
/// Grid: `clusters · cluster` blocks of [`THREADS`] threads; roles, mbarriers and shared memory are described in the module's
/// docs. `a`, `b` and `out` are tensor maps with the boxes that `launch.rs` gives them; `out` is a stack of matrices, one per
/// split.
#[cube(launch_unchecked, cluster_dim = CubeDim::new_1d(config.cluster))]
pub(super) fn hopper_gemm(
    a: &TensorMap<u16, Tiled>,
    b: &TensorMap<u16, Tiled>,
    out: &TensorMap<u32, Tiled>,
    schedule: &TileSchedule,
    #[comptime] config: TileConfig,
) {
    let scales = Scales {
        row: 0u64,
        column: 0u64,
        rows: 0u32,
        columns: 0u32,
    };
    gemm_block(
        tensor_map_address(a),
        tensor_map_address(b),
        tensor_map_address(out),
        &scales,
        schedule,
        config,
    );
}

/// [`hopper_gemm`] with operands of e4m3 codes: `out[r, c] = row_scales[r] · column_scales[c] · Σ_k A[r, k] · B[k, c]`.
#[cube(launch_unchecked, cluster_dim = CubeDim::new_1d(config.cluster))]
#[allow(clippy::too_many_arguments)] // buffers and sizes of a launch
pub(super) fn hopper_fp8_gemm(
    a: &TensorMap<u16, Tiled>,
    b: &TensorMap<u16, Tiled>,
    out: &TensorMap<u32, Tiled>,
    row_scales: &[f32],
    column_scales: &[f32],
    rows: u32,
    columns: u32,
    schedule: &TileSchedule,
    #[comptime] config: TileConfig,
) {
    let scales = Scales {
        // SAFETY: only the address is used, by loads below `rows`.
        row: global_pointer::<f32>(unsafe { row_scales.as_ptr_unchecked() }),
        // SAFETY: as above, below `columns`.
        column: global_pointer::<f32>(unsafe { column_scales.as_ptr_unchecked() }),
        rows,
        columns,
    };
    gemm_block(
        tensor_map_address(a),
        tensor_map_address(b),
        tensor_map_address(out),
        &scales,
        schedule,
        config,
    );
}

/// The work of a thread block: initializes the mbarriers and takes the role of each warp.
#[cube]
fn gemm_block(
    a_map: u64,
    b_map: u64,
    out_map: u64,
    scales: &Scales,
    schedule: &TileSchedule,
    #[comptime] config: TileConfig,
) {
    // The swizzle repeats every 1024 bytes, so tiles must start at multiples of that.
    let shared = Shared::<[u32]>::new_aligned_slice(comptime!(config.shared_words()), 1024usize);
    let barriers =
        Shared::<[u32]>::new_aligned_slice(comptime!(config.stages as usize * 4), 16usize);
    // SAFETY: both allocations have elements, and only their addresses are used: the PTX that accesses them stays inside `shared_words`
    // and inside the `2 · stages` mbarriers of 8 bytes.
    let stages = shared_address::<u32>(unsafe { shared.as_ptr_unchecked() });
    // SAFETY: as above.
    let full = shared_address::<u32>(unsafe { barriers.as_ptr_unchecked() });
    let empty = full + comptime!(config.stages * 8);
    let pipeline = Pipeline {
        stages,
        full,
        empty,
    };

    if UNIT_POS == 0u32 {
        #[unroll]
        for i in 0..comptime!(config.stages) {
            mbarrier_init(full + comptime!(i * 8), 1u32);
            mbarrier_init(
                empty + comptime!(i * 8),
                comptime!(config.cluster * CONSUMER_WARPS),
            );
        }
        mbarrier_init_fence();
        fence_async_proxy();
    }
    // No block may load into its peer, or arrive there, before the peer's mbarriers exist.
    if comptime!(config.cluster > 1) {
        sync_cluster();
    } else {
        sync_cube();
    }

    if UNIT_POS >= comptime!(CONSUMER_THREADS) {
        if UNIT_POS == comptime!(CONSUMER_THREADS) {
            producer_thread(&pipeline, a_map, b_map, schedule, config);
        }
    // The accumulator is a vector, whose size must be a power of two: 16 f32 for 32 columns, … 128 for 192 and 256.
    } else if comptime!(config.tile_n > 128) {
        consumer_warp_group::<Const<128>>(&pipeline, out_map, scales, schedule, config);
    } else if comptime!(config.tile_n > 64) {
        consumer_warp_group::<Const<64>>(&pipeline, out_map, scales, schedule, config);
    } else if comptime!(config.tile_n > 32) {
        consumer_warp_group::<Const<32>>(&pipeline, out_map, scales, schedule, config);
    } else {
        consumer_warp_group::<Const<16>>(&pipeline, out_map, scales, schedule, config);
    }
    // A block's shared memory must outlive multicast loads and arrivals of its peer.
    if comptime!(config.cluster > 1) {
        sync_cluster();
    }
}
