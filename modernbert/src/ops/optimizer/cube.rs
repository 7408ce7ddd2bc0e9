//! The step on CubeCL devices: a launch for the mean, a launch for the update.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{StableAdamWStep, portable};
use crate::ops::rows::{address, empty, grid, resident, sum_of_cube};

/// Units of a cube; a power of two.
const UNITS: usize = 256;
/// Vectors that a unit reads before it computes with them.
const VECTORS: usize = 2;
/// Cubes per multiprocessor that sum at the same time.
const SUMMING: usize = 4;

/// Each cube's part of `sum(g² / max(v, ε²))`, v after the step.
#[cube(launch_unchecked, address_type = "dynamic")]
fn ratio_kernel<N: Size>(
    grad: &[Vector<f32, N>],
    moment_2: &[Vector<f32, N>],
    partials: &mut [f32],
    total: usize,
    b2: f32,
    not_b2: f32,
    floor: f32,
) {
    let mut sum = 0.0f32;
    let mut first = CUBE_POS * comptime!(UNITS * VECTORS) + UNIT_POS as usize;
    let mut gs = Array::<Vector<f32, N>>::new(VECTORS);
    let mut vs = Array::<Vector<f32, N>>::new(VECTORS);
    while first < total {
        #[unroll]
        for i in 0..VECTORS {
            let at = first + comptime!(i * UNITS);
            let at = select(at < total, at, first);
            gs[i] = grad[at];
            vs[i] = moment_2[at];
        }
        #[unroll]
        for i in 0..VECTORS {
            if first + comptime!(i * UNITS) < total {
                let square = gs[i] * gs[i];
                let v = vs[i] * Vector::new(b2) + square * Vector::new(not_b2);
                #[unroll]
                for k in 0..N::value() {
                    sum += square.extract(k) / max(v.extract(k), floor);
                }
            }
        }
        first += CUBE_COUNT * comptime!(UNITS * VECTORS);
    }
    let total_of_cube = sum_of_cube(sum, UNITS);
    if UNIT_POS == 0 {
        partials[CUBE_POS] = total_of_cube;
    }
}

/// Whether a place within the tensor is to be written: without a gate it is, with one if its number says so.
#[cube]
fn writes(inside: bool, go: &[f32], #[comptime] gated: bool) -> bool {
    if comptime!(gated) {
        inside && go[0] > 0.0f32
    } else {
        inside
    }
}

/// Weight and moments after the step.
#[cube(launch_unchecked, address_type = "dynamic")]
fn update_kernel<N: Size>(
    grad: &[Vector<f32, N>],
    partials: &[f32],
    go: &[f32],
    weight: &mut [Vector<f32, N>],
    moment_1: &mut [Vector<f32, N>],
    moment_2: &mut [Vector<f32, N>],
    total: usize,
    parts: usize,
    elements: f32,
    lr: f32,
    not_b1: f32,
    b2: f32,
    not_b2: f32,
    epsilon: f32,
    decay: f32,
    #[comptime] gated: bool,
) {
    let first = CUBE_POS * comptime!(UNITS * VECTORS) + UNIT_POS as usize;
    let mut gs = Array::<Vector<f32, N>>::new(VECTORS);
    let mut ms = Array::<Vector<f32, N>>::new(VECTORS);
    let mut vs = Array::<Vector<f32, N>>::new(VECTORS);
    let mut ws = Array::<Vector<f32, N>>::new(VECTORS);
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * UNITS);
        let at = select(at < total, at, 0usize);
        gs[i] = grad[at];
        ms[i] = moment_1[at];
        vs[i] = moment_2[at];
        ws[i] = weight[at];
    }
    let mut part = UNIT_POS as usize;
    let mut ratio = 0.0f32;
    while part < parts {
        ratio += partials[part];
        part += UNITS;
    }
    let rms = (sum_of_cube(ratio, UNITS) / elements).sqrt();
    let eta = lr / max(rms, 1.0f32);
    let keep = 1.0f32 - eta * decay;
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * UNITS);
        if writes(at < total, go, gated) {
            let g = gs[i];
            let m = ms[i] + (g - ms[i]) * Vector::new(not_b1);
            let v = vs[i] * Vector::new(b2) + g * g * Vector::new(not_b2);
            let root = v.sqrt() + Vector::new(epsilon);
            weight[at] = ws[i] * Vector::new(keep) - m / root * Vector::new(eta);
            moment_1[at] = m;
            moment_2[at] = v;
        }
    }
}

pub(crate) fn step(
    weight: CubeTensor,
    grad: CubeTensor,
    (moment_1, moment_2): (CubeTensor, CubeTensor),
    go: CubeTensor,
    step: StableAdamWStep,
    gated: bool,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let elements = weight.shape().num_elements();
    let single = [&weight, &grad, &moment_1, &moment_2, &go]
        .iter()
        .all(|tensor| tensor.dtype == DType::F32);
    if !single || elements == 0 {
        return portable::step::<CubeBackend>(
            weight,
            grad,
            (moment_1, moment_2),
            gated.then_some(go),
            step,
        );
    }
    let grad = into_contiguous(grad);
    // What nobody else holds is updated where it lies.
    let [weight, moment_1, moment_2] = [weight, moment_1, moment_2].map(|tensor| {
        let tensor = into_contiguous(tensor);
        if tensor.can_mut() {
            tensor
        } else {
            tensor.copy()
        }
    });
    let client = weight.client.clone();
    let most = client.properties().hardware.max_vector_size;
    let vector = client
        .io_optimized_vector_sizes(4)
        .find(|&vector| elements.is_multiple_of(vector) && vector <= most)
        .unwrap_or(1);
    let total = elements / vector;
    let cubes = total.div_ceil(UNITS * VECTORS);
    let parts = cubes.min(resident(&client, SUMMING));
    let partials = empty(&weight, [parts], DType::F32);
    let index = address(&[&weight]);
    // SAFETY: vectors beyond the last read others and write nothing, and each unit alone writes what it has read.
    unsafe {
        ratio_kernel::launch_unchecked(
            &client,
            CubeCount::Static(parts as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            index,
            vector,
            grad.clone().into_buffer_arg(),
            moment_2.clone().into_buffer_arg(),
            partials.clone().into_buffer_arg(),
            total,
            step.b2 as f32,
            (1.0 - step.b2) as f32,
            (step.epsilon * step.epsilon) as f32,
        );
        update_kernel::launch_unchecked(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(UNITS as u32),
            index,
            vector,
            grad.into_buffer_arg(),
            partials.into_buffer_arg(),
            go.into_buffer_arg(),
            weight.clone().into_buffer_arg(),
            moment_1.clone().into_buffer_arg(),
            moment_2.clone().into_buffer_arg(),
            total,
            parts,
            elements as f32,
            step.lr as f32,
            (1.0 - step.b1) as f32,
            step.b2 as f32,
            (1.0 - step.b2) as f32,
            step.epsilon as f32,
            step.decay as f32,
            gated,
        );
    }
    (weight, moment_1, moment_2)
}
