//! Sums on CubeCL devices, in two launches: each thread block computes a partial sum, then one block sums them.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::fallback;
use crate::ops::rows::{address, block_sum, elem, empty, resident_blocks, vector_size};

/// Threads of a block; a power of two.
const THREADS: usize = 256;
/// Vectors that a thread loads before it adds them, so that the loads overlap.
const VECTORS: usize = 4;
/// Blocks per multiprocessor.
const BLOCKS: usize = 4;

/// `partials[block]`: the sum of the block's share of `total` vectors, or of their squares.
#[cube(launch_unchecked, address_type = "dynamic")]
fn parts_kernel<F: Float, N: Size>(
    input: &[Vector<F, N>],
    partials: &mut [f32],
    total: usize,
    #[comptime] squared: bool,
    #[define(F)] _elem: ElemType,
) {
    let mut sum = 0.0f32;
    let mut first = CUBE_POS * comptime!(THREADS * VECTORS) + UNIT_POS as usize;
    let mut read = Array::<Vector<F, N>>::new(VECTORS);
    while first < total {
        #[unroll]
        for i in 0..VECTORS {
            let at = first + comptime!(i * THREADS);
            let at = select(at < total, at, first);
            read[i] = input[at];
        }
        #[unroll]
        for i in 0..VECTORS {
            if first + comptime!(i * THREADS) < total {
                #[unroll]
                for k in 0..N::value() {
                    let x = f32::cast_from(read[i].extract(k));
                    if comptime!(squared) {
                        sum += x * x;
                    } else {
                        sum += x;
                    }
                }
            }
        }
        first += CUBE_COUNT * comptime!(THREADS * VECTORS);
    }
    let partial = block_sum(sum, THREADS);
    if UNIT_POS == 0 {
        partials[CUBE_POS] = partial;
    }
}

pub(crate) fn sum(input: CubeTensor, squared: bool) -> CubeTensor {
    let elements = input.shape().num_elements();
    let Some(found) = elem(input.dtype).filter(|_| elements > 0) else {
        return fallback::sum::<CubeBackend>(input, squared);
    };
    let input = into_contiguous(input);
    let vector = vector_size(&input.client, elements, &[input.dtype]);
    let vectors = elements / vector;
    let blocks = vectors.div_ceil(THREADS * VECTORS);
    let partials = launch(&input, (vectors, vector, found), blocks, squared);
    match partials.shape().num_elements() {
        1 => partials,
        count => {
            let float = ElemType::Float(cubecl::ir::FloatKind::F32);
            launch(&partials, (count, 1, float), 1, false)
        }
    }
}

/// Sums `total` vectors of `vector` elements with at most `blocks` blocks: `[partials]` in f32.
fn launch(
    input: &CubeTensor,
    (total, vector, elem): (usize, usize, ElemType),
    blocks: usize,
    squared: bool,
) -> CubeTensor {
    let client = input.client.clone();
    let blocks = blocks.min(resident_blocks(&client, BLOCKS));
    let partials = empty(input, [blocks], DType::F32);
    // SAFETY: instead of vectors beyond the last, a thread reads its first one and does not add it; each block writes its own partial sum.
    unsafe {
        parts_kernel::launch_unchecked(
            &client,
            CubeCount::Static(blocks as u32, 1, 1),
            CubeDim::new_1d(THREADS as u32),
            address(&[input]),
            vector,
            input.clone().into_buffer_arg(),
            partials.clone().into_buffer_arg(),
            total,
            squared,
            elem,
        );
    }
    partials
}
