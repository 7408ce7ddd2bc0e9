//! Parts that the row-wise CubeCL kernels share: the assignment of rows to threads and sums over a row (here), sums over a block and
//! over columns (`sums.rs`), launch helpers (`launch.rs`).
//!
//! A row belongs to `lanes` neighboring threads of a block. Lane `l` holds the vectors `l`, `l + lanes`, … of the row in
//! registers, so that neighboring threads read neighboring vectors and each row is read once. Where the device has warps of one
//! known size, a row belongs to a warp and sums use its shuffles; elsewhere they go through shared memory. The order of a sum
//! does not depend on the number of rows, so results are batch-invariant.

mod launch;
mod sums;

use cubecl::features::Plane;
use cubecl::prelude::*;

pub(crate) use launch::{
    address, elem, elems, empty, grid, is_cuda, placeholder, resident_blocks, uniquely_owned,
    vector_size,
};
pub(crate) use sums::{COLUMN_BLOCK, COLUMN_SLICES, block_sum, column_sums, sum_of_slices};

/// Lanes of a row: the warp size of NVIDIA's and Apple's GPUs.
const LANES: usize = 32;
/// Lanes of a row that is too wide for the registers of one warp.
const WIDE_LANES: usize = 256;

/// Assignment of rows to the threads of a block. It is a compile-time parameter of kernels, so it does not contain the number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RowPartition {
    /// Elements of a row.
    pub(crate) width: usize,
    /// Vectors of a row.
    pub(crate) vectors: usize,
    /// Threads of a row.
    pub(crate) lanes: usize,
    /// Rows that a block works on at the same time.
    pub(crate) block_rows: usize,
    /// True if the lanes of a row are a warp, so that sums can use shuffles.
    pub(crate) shuffles: bool,
}

impl RowPartition {
    /// Partition for rows of `width` elements in vectors of `vector`, with about `threads` threads per block, each of which holds
    /// at most `held` elements of a row. `None` if a row is too wide for that, or the device does not support such a block.
    pub(crate) fn new(
        client: &Client,
        width: usize,
        vector: usize,
        threads: usize,
        held: usize,
    ) -> Option<Self> {
        let properties = client.properties();
        let hardware = &properties.hardware;
        let lanes = [LANES, WIDE_LANES]
            .into_iter()
            .find(|lanes| width.div_ceil(lanes * vector) * vector <= held)?;
        let partition = Self {
            width,
            vectors: width / vector,
            lanes,
            block_rows: (threads / lanes).max(1),
            shuffles: properties.features.plane.contains(Plane::Ops)
                && hardware.plane_size_min as usize == lanes
                && hardware.plane_size_max as usize == lanes,
        };
        let threads = partition.threads();
        let fits = threads <= hardware.max_units_per_cube as usize
            && threads <= hardware.max_cube_dim.0 as usize
            && 4 * (width + threads) <= hardware.max_shared_memory_size;
        (width > 0 && fits).then_some(partition)
    }

    /// Threads of a block.
    pub(crate) fn threads(self) -> usize {
        self.lanes * self.block_rows
    }

    /// Vectors of a row that a lane holds, at most.
    pub(crate) fn held(self) -> usize {
        self.vectors.div_ceil(self.lanes)
    }

    /// Elements of the shared memory that [`row_sum`] needs.
    pub(crate) fn exchange(self) -> usize {
        if self.shuffles { 1 } else { self.threads() }
    }

    /// Block size for a launch.
    pub(crate) fn block_dim(self) -> CubeDim {
        CubeDim::new_1d(self.threads() as u32)
    }
}

/// Returns the sum of `x` over the lanes of a row, the same in each of them. Every thread of the block must call it.
#[cube]
pub(crate) fn row_sum(
    x: f32,
    exchange: &mut Shared<[f32]>,
    #[comptime] partition: RowPartition,
) -> f32 {
    if comptime!(partition.shuffles) {
        let mut sum = x;
        #[unroll]
        for step in 0..comptime!(partition.lanes.trailing_zeros() as usize) {
            sum += plane_shuffle_xor(sum, comptime!(partition.lanes as u32 >> (step + 1)));
        }
        sum
    } else {
        // `exchange` may still be read by the sum before.
        sync_cube();
        exchange[UNIT_POS as usize] = x;
        sync_cube();
        let first = UNIT_POS as usize / partition.lanes * partition.lanes;
        let mut sum = 0.0f32;
        for lane in 0..partition.lanes {
            sum += exchange[first + lane];
        }
        sum
    }
}

/// Returns the largest `x`, which is not negative, over the lanes of a row, the same in each of them. Every thread of the block must call it.
#[cfg(feature = "ptx")]
#[cube]
pub(crate) fn row_max(
    x: f32,
    exchange: &mut Shared<[f32]>,
    #[comptime] partition: RowPartition,
) -> f32 {
    if comptime!(partition.shuffles) {
        let mut most = x;
        #[unroll]
        for step in 0..comptime!(partition.lanes.trailing_zeros() as usize) {
            let other = plane_shuffle_xor(most, comptime!(partition.lanes as u32 >> (step + 1)));
            most = max(most, other);
        }
        most
    } else {
        // `exchange` may still be read by the sum before.
        sync_cube();
        exchange[UNIT_POS as usize] = x;
        sync_cube();
        let first = UNIT_POS as usize / partition.lanes * partition.lanes;
        let mut most = 0.0f32;
        for lane in 0..partition.lanes {
            most = max(most, exchange[first + lane]);
        }
        most
    }
}

/// Returns the sum of the elements of a vector.
#[cube]
pub(crate) fn vector_sum<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        sum += vector.extract(k);
    }
    sum
}
