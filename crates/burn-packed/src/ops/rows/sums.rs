//! Sums over the threads of a block and over the columns of a matrix, in an order that is fixed by the sizes alone.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{address, empty, grid};

/// Returns the sum of `x` over a block of `threads`, a power of two, by a binary tree in shared memory; the same in each thread.
#[cube]
pub(crate) fn block_sum(x: f32, #[comptime] threads: usize) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(threads);
    let thread = UNIT_POS as usize;
    shared[thread] = x;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(threads.trailing_zeros() as usize) {
        let half = comptime!(threads >> (step + 1));
        if thread < half {
            shared[thread] += shared[thread + half];
        }
        sync_cube();
    }
    shared[0]
}

/// Threads that share a column (a vector of elements) in kernels that sum columns, and columns of a block. Thread `t` has column
/// `t % COLUMN_BLOCK` and slice `t / COLUMN_BLOCK`.
pub(crate) const COLUMN_SLICES: usize = 8;
pub(crate) const COLUMN_BLOCK: usize = 32;
/// Sums that a thread accumulates independently, so that its loads overlap.
const CHAINS: usize = 4;

/// Returns the sum of a column over its slices, valid in the threads of slice 0. Every thread of the block must call it.
#[cube]
pub(crate) fn sum_of_slices<N: Size>(sum: Vector<f32, N>) -> Vector<f32, N> {
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(COLUMN_SLICES * COLUMN_BLOCK));
    shared[UNIT_POS as usize] = sum;
    sync_cube();
    let thread = UNIT_POS as usize;
    let mut total = Vector::<f32, N>::new(0.0f32);
    if thread < COLUMN_BLOCK {
        #[unroll]
        for slice in 0..COLUMN_SLICES {
            total += shared[thread + comptime!(slice * COLUMN_BLOCK)];
        }
    }
    total
}

/// `sums[c] = Σ_r input[r, c]` for `input [rows, vectors]`; a block has [`COLUMN_BLOCK`] columns.
#[cube(launch_unchecked, address_type = "dynamic")]
fn columns_kernel<F: Float, N: Size>(
    input: &[Vector<F, N>],
    sums: &mut [Vector<f32, N>],
    rows: usize,
    vectors: usize,
    #[define(F)] _dtype: ElemType,
) {
    let slice = UNIT_POS as usize / COLUMN_BLOCK;
    let column = CUBE_POS * COLUMN_BLOCK + UNIT_POS as usize % COLUMN_BLOCK;
    let inside = column < vectors;
    let mut chains = Array::<Vector<f32, N>>::new(CHAINS);
    #[unroll]
    for chain in 0..CHAINS {
        chains[chain] = Vector::new(0.0f32);
    }
    if inside {
        let mut read = Array::<Vector<F, N>>::new(CHAINS);
        let mut row = slice;
        while row < rows {
            #[unroll]
            for chain in 0..CHAINS {
                let at = row + comptime!(chain * COLUMN_SLICES);
                read[chain] = input[select(at < rows, at, row) * vectors + column];
            }
            #[unroll]
            for chain in 0..CHAINS {
                let at = row + comptime!(chain * COLUMN_SLICES);
                if at < rows {
                    chains[chain] += Vector::<f32, N>::cast_from(read[chain]);
                }
            }
            row += comptime!(CHAINS * COLUMN_SLICES);
        }
    }
    let mut sum = chains[0];
    #[unroll]
    for chain in 1..CHAINS {
        sum += chains[chain];
    }
    let total = sum_of_slices::<N>(sum);
    if inside && slice == 0 {
        sums[column] = total;
    }
}

/// Returns the sum of each column of a contiguous `[rows, width]` of type `elem`, read in vectors of `vector`: `[width]` in f32.
pub(crate) fn column_sums(input: CubeTensor, elem: ElemType, vector: usize) -> CubeTensor {
    let (rows, width) = (input.meta.shape()[0], input.meta.shape()[1]);
    let sums = empty(&input, [width], DType::F32);
    let client = input.client.clone();
    let vectors = width / vector;
    // SAFETY: columns and rows beyond the last are neither read nor written.
    unsafe {
        columns_kernel::launch_unchecked(
            &client,
            grid(&client, vectors.div_ceil(COLUMN_BLOCK)),
            CubeDim::new_1d((COLUMN_SLICES * COLUMN_BLOCK) as u32),
            address(&[&input]),
            vector,
            input.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            rows,
            vectors,
            elem,
        );
    }
    sums
}
