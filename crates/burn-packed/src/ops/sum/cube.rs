//! Sums on CubeCL devices: each cube its part, then one cube the parts.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::fallback;
use crate::ops::rows::{address, elem, empty, resident, sum_of_cube, vector_size};

/// Units of a cube; a power of two.
const UNITS: usize = 256;
/// Vectors that a unit reads before it adds them.
const VECTORS: usize = 4;
/// Cubes per multiprocessor that sum at the same time.
const SUMMING: usize = 4;

/// Each cube's part of the sum of `total` vectors.
#[cube(launch_unchecked, address_type = "dynamic")]
fn parts_kernel<F: Float, N: Size>(
    input: &[Vector<F, N>],
    parts: &mut [f32],
    total: usize,
    #[comptime] squared: bool,
    #[define(F)] _elem: ElemType,
) {
    let mut sum = 0.0f32;
    let mut first = CUBE_POS * comptime!(UNITS * VECTORS) + UNIT_POS as usize;
    let mut read = Array::<Vector<F, N>>::new(VECTORS);
    while first < total {
        #[unroll]
        for i in 0..VECTORS {
            let at = first + comptime!(i * UNITS);
            let at = select(at < total, at, first);
            read[i] = input[at];
        }
        #[unroll]
        for i in 0..VECTORS {
            if first + comptime!(i * UNITS) < total {
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
        first += CUBE_COUNT * comptime!(UNITS * VECTORS);
    }
    let of_cube = sum_of_cube(sum, UNITS);
    if UNIT_POS == 0 {
        parts[CUBE_POS] = of_cube;
    }
}

pub(crate) fn total(input: CubeTensor, squared: bool) -> CubeTensor {
    let elements = input.shape().num_elements();
    let Some(found) = elem(input.dtype).filter(|_| elements > 0) else {
        return fallback::total::<CubeBackend>(input, squared);
    };
    let input = into_contiguous(input);
    let vector = vector_size(&input.client, elements, &[input.dtype]);
    let vectors = elements / vector;
    let cubes = vectors.div_ceil(UNITS * VECTORS);
    let parts = launch(&input, (vectors, vector, found), cubes, squared);
    match parts.shape().num_elements() {
        1 => parts,
        count => {
            let float = ElemType::Float(cubecl::ir::FloatKind::F32);
            launch(&parts, (count, 1, float), 1, false)
        }
    }
}

/// Parts of the sum by at most `cubes` cubes, `[parts]`.
fn launch(
    input: &CubeTensor,
    (total, vector, elem): (usize, usize, ElemType),
    cubes: usize,
    squared: bool,
) -> CubeTensor {
    let client = input.client.clone();
    let cubes = cubes.min(resident(&client, SUMMING));
    let parts = empty(input, [cubes], DType::F32);
    // SAFETY: vectors beyond the last are read at the unit's first place and not added, and each cube writes its own part.
    unsafe {
        parts_kernel::launch_unchecked(
            &client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            address(&[input]),
            vector,
            input.clone().into_buffer_arg(),
            parts.clone().into_buffer_arg(),
            total,
            squared,
            elem,
        );
    }
    parts
}
