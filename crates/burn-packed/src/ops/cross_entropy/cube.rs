//! Cross-entropy on CubeCL devices: a cube to a row, two walks over it, the second out of the cache.
//!
//! The first walk takes maximum and sum of exponentials together, the second writes the gradient where the score stood. A row
//! of the vocabulary is 100 kB in bf16 and only as many rows are under way as the second-level cache holds, so that memory
//! sees one read and one write.

use burn::backend::TensorMetadata;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{DType, IntDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{ScoreSpec, fallback};
use crate::ops::primitive::cast;
use crate::ops::rows::{self, address, elem, empty, grid, own, vector_size};

/// Most units of a cube; a power of two.
const UNITS: usize = 512;
/// Vectors that a unit reads before it computes with them.
const VECTORS: usize = 4;
/// Stands for the largest score before any has been seen; finite, so that nothing ever computes `inf - inf`.
const LOWEST: f32 = -3.0e38;

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Walk {
    units: usize,
    /// Whether a bias is added to the scores.
    bias: bool,
    /// Whether rows have weights.
    weighted: bool,
    /// Whether the gradient is written over the scores.
    gradient: bool,
}

/// The scores of a vector in f32.
#[cube]
fn score<F: Float, N: Size>(
    logits: Vector<F, N>,
    bias: &[Vector<F, N>],
    at: usize,
    #[comptime] biased: bool,
) -> Vector<f32, N> {
    let mut x = Vector::<f32, N>::cast_from(logits);
    if comptime!(biased) {
        x += Vector::<f32, N>::cast_from(bias[at]);
    }
    x
}

/// Loss of each row times its weight, its weight where no class beats the target, and the gradient of the weighted loss.
#[cube(launch_unchecked, address_type = "dynamic")]
fn rows_kernel<F: Float, N: Size>(
    logits: &mut [Vector<F, N>],
    bias: &[Vector<F, N>],
    targets: &[i32],
    weights: &[f32],
    losses: &mut [f32],
    hits: &mut [f32],
    rows: usize,
    vectors: usize,
    #[comptime] walk: Walk,
    #[define(F)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    if row < rows {
        let units = comptime!(walk.units);
        let unit = UNIT_POS as usize;
        let mut tops = Shared::<[f32]>::new_slice(units);
        let mut sums = Shared::<[f32]>::new_slice(units);
        let mut beaten = Shared::<[f32]>::new_slice(units);
        let start = row * vectors;
        let target = usize::cast_from(targets[row]);
        let mut weight = 1.0f32;
        if comptime!(walk.weighted) {
            weight = weights[row];
        }
        let place = target / N::value();
        let reached = pick::<N>(
            score::<F, N>(logits[start + place], bias, place, walk.bias),
            target % N::value(),
        );

        let mut top = LOWEST.runtime();
        let mut sum = 0.0f32;
        let mut better = 0.0f32;
        let mut first = unit;
        let mut read = Array::<Vector<F, N>>::new(VECTORS);
        while first < vectors {
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * units);
                read[i] = logits[start + select(at < vectors, at, first)];
            }
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * units);
                if at < vectors {
                    let x = score::<F, N>(read[i], bias, at, walk.bias);
                    let mut highest = top;
                    #[unroll]
                    for k in 0..N::value() {
                        highest = max(highest, x.extract(k));
                    }
                    let mut added = 0.0f32;
                    #[unroll]
                    for k in 0..N::value() {
                        let value = x.extract(k);
                        added += (value - highest).exp();
                        let before = at * N::value() + k < target;
                        let beats = value > reached || (value == reached && before);
                        better += select(beats, 1.0f32, 0.0f32);
                    }
                    sum = sum * (top - highest).exp() + added;
                    top = highest;
                }
            }
            first += comptime!(VECTORS * units);
        }
        tops[unit] = top;
        sums[unit] = sum;
        beaten[unit] = better;
        sync_cube();
        #[unroll]
        for step in 0..comptime!(units.trailing_zeros() as usize) {
            let half = comptime!(units >> (step + 1));
            if unit < half {
                let a = tops[unit];
                let b = tops[unit + half];
                let highest = max(a, b);
                sums[unit] =
                    sums[unit] * (a - highest).exp() + sums[unit + half] * (b - highest).exp();
                tops[unit] = highest;
                beaten[unit] += beaten[unit + half];
            }
            sync_cube();
        }
        let top = tops[0];
        let sum = sums[0];
        if unit == 0 {
            losses[row] = weight * (top - reached + sum.ln());
            hits[row] = select(beaten[0] == 0.0f32, weight, 0.0f32);
        }
        if comptime!(walk.gradient) {
            // Normalised by the sum, not by its logarithm, whose rounding grows with the scores.
            let scale = weight / sum;
            let mut first = unit;
            while first < vectors {
                #[unroll]
                for i in 0..VECTORS {
                    let at = first + comptime!(i * units);
                    read[i] = logits[start + select(at < vectors, at, first)];
                }
                #[unroll]
                for i in 0..VECTORS {
                    let at = first + comptime!(i * units);
                    if at < vectors {
                        let x = score::<F, N>(read[i], bias, at, walk.bias);
                        let mut d = Vector::<f32, N>::empty();
                        #[unroll]
                        for k in 0..N::value() {
                            let p = (x.extract(k) - top).exp() * scale;
                            let hit = at * N::value() + k == target;
                            d.insert(k, p - select(hit, weight, 0.0f32));
                        }
                        logits[start + at] = Vector::cast_from(d);
                    }
                }
                first += comptime!(VECTORS * units);
            }
        }
    }
}

/// The element of a vector at a place known at run time only.
#[cube]
fn pick<N: Size>(vector: Vector<f32, N>, place: usize) -> f32 {
    let mut found = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        found = select(place == k, vector.extract(k), found);
    }
    found
}

/// Weighted losses, weighted hits, and the gradient of the scores (or the scores, where none is asked for).
///
/// The gradient lies where the scores lay if nobody else holds them.
pub(crate) fn scores(
    logits: CubeTensor,
    bias: CubeTensor,
    targets: CubeTensor,
    weights: CubeTensor,
    spec: ScoreSpec,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let Some(elem) = elem(logits.dtype) else {
        return fallback::scores::<CubeBackend>(logits, bias, targets, weights, spec);
    };
    run(
        logits,
        Some(bias).filter(|_| spec.bias),
        targets,
        Some(weights),
        spec.gradient,
        elem,
    )
}

pub(crate) fn forward(logits: CubeTensor, targets: CubeTensor) -> CubeTensor {
    match elem(logits.dtype) {
        Some(elem) => run(logits, None, targets, None, false, elem).0,
        None => fallback::forward::<CubeBackend>(logits, targets),
    }
}

pub(crate) fn backward(d_loss: CubeTensor, logits: CubeTensor, targets: CubeTensor) -> CubeTensor {
    match elem(logits.dtype) {
        Some(elem) => run(logits, None, targets, Some(d_loss), true, elem).2,
        None => fallback::backward::<CubeBackend>(d_loss, logits, targets),
    }
}

fn run(
    logits: CubeTensor,
    bias: Option<CubeTensor>,
    targets: CubeTensor,
    weights: Option<CubeTensor>,
    gradient: bool,
    elem: ElemType,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [rows, classes] = logits.shape().dims();
    let losses = empty(&logits, [rows], DType::F32);
    let hits = empty(&logits, [rows], DType::F32);
    if rows == 0 || classes == 0 {
        return (losses, hits, logits);
    }
    let dtype = logits.dtype;
    let logits = if gradient {
        own(logits)
    } else {
        into_contiguous(logits)
    };
    let client = logits.client.clone();
    let most = client.properties().hardware.max_units_per_cube as usize;
    let vector = vector_size(&client, classes, &[dtype]);
    let vectors = classes / vector;
    let mut units = UNITS;
    while units > 1 && (units > most || units / 2 >= vectors) {
        units /= 2;
    }
    let walk = Walk {
        units,
        bias: bias.is_some(),
        weighted: weights.is_some(),
        gradient,
    };
    // Arguments that a kernel isn't compiled to touch still want a buffer.
    let unused = |dtype| empty(&logits, [vector], dtype);
    let bias = match bias {
        Some(bias) => into_contiguous(cast::<CubeBackend>(bias, dtype)),
        None => unused(dtype),
    };
    let weights = match weights {
        Some(weights) => into_contiguous(cast::<CubeBackend>(weights, DType::F32)),
        None => unused(DType::F32),
    };
    let targets = into_contiguous(CubeBackend::int_cast(targets, IntDType::I32));
    // SAFETY: a cube reads and writes its own row, vectors beyond the row's last are not touched, and targets are classes.
    unsafe {
        rows_kernel::launch_unchecked(
            &client,
            grid(&client, rows),
            CubeDim::new_1d(units as u32),
            address(&[&logits]),
            vector,
            logits.clone().into_buffer_arg(),
            bias.into_buffer_arg(),
            targets.into_buffer_arg(),
            weights.into_buffer_arg(),
            losses.clone().into_buffer_arg(),
            hits.clone().into_buffer_arg(),
            rows,
            vectors,
            walk,
            elem,
        );
    }
    (losses, hits, logits)
}

/// Sum of each column, in f32.
pub(crate) fn column_sums(input: CubeTensor) -> CubeTensor {
    let [rows, width] = input.shape().dims();
    match elem(input.dtype) {
        Some(elem) if rows > 0 && width > 0 => {
            let vector = vector_size(&input.client, width, &[input.dtype]);
            rows::column_sums(into_contiguous(input), elem, vector)
        }
        _ => fallback::column_sums::<CubeBackend>(input),
    }
}
