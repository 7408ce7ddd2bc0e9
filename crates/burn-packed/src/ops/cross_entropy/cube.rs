//! Cross-entropy on CubeCL devices: one thread block per row, two passes over the row.
//!
//! The first pass computes maximum and sum of exponentials together (online softmax), the second writes the gradient in place of the
//! scores. A row of the vocabulary takes 100 kB in bf16, and only as many rows are in flight as fit into the L2 cache, so global
//! memory sees one read and one write.

use burn::backend::TensorMetadata;
use burn::backend::ops::IntTensorOps;
use burn::tensor::{DType, IntDType};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{ScoreSpec, fallback};
use crate::ops::primitive::cast;
use crate::ops::rows::{
    self, address, elem, empty, grid, placeholder, uniquely_owned, vector_size,
};

/// Threads of a block, at most; a power of two.
const THREADS: usize = 512;
/// Vectors that a thread loads before it computes with them, so that the loads overlap.
const VECTORS: usize = 4;
/// Initial maximum; finite, so that no difference is `inf - inf`.
const LOWEST: f32 = -3.0e38;

/// Compile-time configuration of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RowConfig {
    /// Threads of a block; a power of two.
    threads: usize,
    /// True if a bias is added to the scores.
    bias: bool,
    /// True if rows have weights; otherwise each weight is 1.
    weighted: bool,
    /// True if the gradient overwrites the scores.
    gradient: bool,
}

/// Returns the scores of a vector in f32, with the bias if there is one.
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

/// Computes for each row its weighted loss, its weighted hit (the weight if no class beats the target, else 0), and the gradient of the
/// weighted loss.
///
/// Grid: one block per row. `logits` is `[rows, vectors]`, `bias` `[vectors]`, the others `[rows]`; `bias` and `weights` are
/// placeholders where `config` does not use them.
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
    #[comptime] config: RowConfig,
    #[define(F)] _dtype: ElemType,
) {
    let row = CUBE_POS;
    if row < rows {
        let threads = comptime!(config.threads);
        let thread = UNIT_POS as usize;
        let start = row * vectors;
        let target = usize::cast_from(targets[row]);
        let mut weight = 1.0f32;
        if comptime!(config.weighted) {
            weight = weights[row];
        }
        let target_vector = target / N::value();
        let target_score = element::<N>(
            score::<F, N>(
                logits[start + target_vector],
                bias,
                target_vector,
                config.bias,
            ),
            target % N::value(),
        );

        // First pass. `sum` is relative to `top`; `better` counts the classes that beat the target.
        let mut top = LOWEST.runtime();
        let mut sum = 0.0f32;
        let mut better = 0.0f32;
        let mut first = thread;
        let mut read = Array::<Vector<F, N>>::new(VECTORS);
        while first < vectors {
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * threads);
                read[i] = logits[start + select(at < vectors, at, first)];
            }
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * threads);
                if at < vectors {
                    let x = score::<F, N>(read[i], bias, at, config.bias);
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
                        let beats = value > target_score || (value == target_score && before);
                        better += select(beats, 1.0f32, 0.0f32);
                    }
                    sum = sum * (top - highest).exp() + added;
                    top = highest;
                }
            }
            first += comptime!(VECTORS * threads);
        }
        let (top, sum, better) = combine(top, sum, better, threads);
        if thread == 0 {
            losses[row] = weight * (top - target_score + sum.ln());
            hits[row] = select(better == 0.0f32, weight, 0.0f32);
        }
        if comptime!(config.gradient) {
            let softmax = OnlineSoftmax { top, sum };
            write_gradient::<F, N>(
                logits, bias, start, vectors, target, weight, &softmax, config,
            );
        }
    }
}

/// Combines the maxima, sums relative to them, and counts of all threads of the block, by a binary tree in shared memory.
#[cube]
fn combine(top: f32, sum: f32, better: f32, #[comptime] threads: usize) -> (f32, f32, f32) {
    let thread = UNIT_POS as usize;
    let mut tops = Shared::<[f32]>::new_slice(threads);
    let mut sums = Shared::<[f32]>::new_slice(threads);
    let mut counts = Shared::<[f32]>::new_slice(threads);
    tops[thread] = top;
    sums[thread] = sum;
    counts[thread] = better;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(threads.trailing_zeros() as usize) {
        let half = comptime!(threads >> (step + 1));
        if thread < half {
            let a = tops[thread];
            let b = tops[thread + half];
            let highest = max(a, b);
            sums[thread] =
                sums[thread] * (a - highest).exp() + sums[thread + half] * (b - highest).exp();
            tops[thread] = highest;
            counts[thread] += counts[thread + half];
        }
        sync_cube();
    }
    (tops[0], sums[0], counts[0])
}

/// Maximum of a row's scores, and the sum of their exponentials relative to it.
#[derive(CubeType)]
struct OnlineSoftmax {
    top: f32,
    sum: f32,
}

/// Second pass: overwrites the scores of a row with `weight * (softmax - onehot(target))`.
#[cube]
fn write_gradient<F: Float, N: Size>(
    logits: &mut [Vector<F, N>],
    bias: &[Vector<F, N>],
    start: usize,
    vectors: usize,
    target: usize,
    weight: f32,
    softmax: &OnlineSoftmax,
    #[comptime] config: RowConfig,
) {
    let threads = comptime!(config.threads);
    // Normalized by the sum, not by its logarithm, whose rounding error grows with the scores.
    let scale = weight / softmax.sum;
    let mut read = Array::<Vector<F, N>>::new(VECTORS);
    let mut first = UNIT_POS as usize;
    while first < vectors {
        #[unroll]
        for i in 0..VECTORS {
            let at = first + comptime!(i * threads);
            read[i] = logits[start + select(at < vectors, at, first)];
        }
        #[unroll]
        for i in 0..VECTORS {
            let at = first + comptime!(i * threads);
            if at < vectors {
                let x = score::<F, N>(read[i], bias, at, config.bias);
                let mut d = Vector::<f32, N>::empty();
                #[unroll]
                for k in 0..N::value() {
                    let p = (x.extract(k) - softmax.top).exp() * scale;
                    let is_target = at * N::value() + k == target;
                    d.insert(k, p - select(is_target, weight, 0.0f32));
                }
                logits[start + at] = Vector::cast_from(d);
            }
        }
        first += comptime!(VECTORS * threads);
    }
}

/// Returns the element of a vector at an index known at run time only.
#[cube]
fn element<N: Size>(vector: Vector<f32, N>, index: usize) -> f32 {
    let mut found = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        found = select(index == k, vector.extract(k), found);
    }
    found
}

/// Weighted losses, weighted hits, and the gradient of the scores (the scores, if `spec.gradient` is false).
///
/// The gradient overwrites the scores if they are uniquely owned.
pub(crate) fn scores(
    logits: CubeTensor,
    bias: CubeTensor,
    targets: CubeTensor,
    weights: CubeTensor,
    spec: ScoreSpec,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    match elem(logits.dtype) {
        Some(elem) => RowArguments {
            logits,
            bias: Some(bias).filter(|_| spec.bias),
            targets,
            weights: Some(weights),
            gradient: spec.gradient,
            elem,
        }
        .launch(),
        None => fallback::scores::<CubeBackend>(logits, bias, targets, weights, spec),
    }
}

pub(crate) fn forward(logits: CubeTensor, targets: CubeTensor) -> CubeTensor {
    match elem(logits.dtype) {
        Some(elem) => {
            let arguments = RowArguments {
                logits,
                bias: None,
                targets,
                weights: None,
                gradient: false,
                elem,
            };
            arguments.launch().0
        }
        None => fallback::forward::<CubeBackend>(logits, targets),
    }
}

pub(crate) fn backward(d_loss: CubeTensor, logits: CubeTensor, targets: CubeTensor) -> CubeTensor {
    match elem(logits.dtype) {
        Some(elem) => {
            let arguments = RowArguments {
                logits,
                bias: None,
                targets,
                weights: Some(d_loss),
                gradient: true,
                elem,
            };
            arguments.launch().2
        }
        None => fallback::backward::<CubeBackend>(d_loss, logits, targets),
    }
}

/// Arguments of a launch.
struct RowArguments {
    logits: CubeTensor,
    bias: Option<CubeTensor>,
    targets: CubeTensor,
    weights: Option<CubeTensor>,
    gradient: bool,
    elem: ElemType,
}

impl RowArguments {
    /// Launches the kernel: losses, hits, and the gradient or the scores.
    fn launch(self) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [rows, classes] = self.logits.shape().dims();
        let losses = empty(&self.logits, [rows], DType::F32);
        let hits = empty(&self.logits, [rows], DType::F32);
        if rows == 0 || classes == 0 {
            return (losses, hits, self.logits);
        }
        let dtype = self.logits.dtype;
        let logits = if self.gradient {
            uniquely_owned(self.logits)
        } else {
            into_contiguous(self.logits)
        };
        let client = logits.client.clone();
        let vector = vector_size(&client, classes, &[dtype]);
        let vectors = classes / vector;
        let most = client.properties().hardware.max_units_per_cube as usize;
        let mut threads = THREADS;
        while threads > 1 && (threads > most || threads / 2 >= vectors) {
            threads /= 2;
        }
        let config = RowConfig {
            threads,
            bias: self.bias.is_some(),
            weighted: self.weights.is_some(),
            gradient: self.gradient,
        };
        let bias = self.bias.map(|bias| cast::<CubeBackend>(bias, dtype));
        let bias = placeholder(bias, &logits, vector, dtype);
        let weights = self.weights.map(|w| cast::<CubeBackend>(w, DType::F32));
        let weights = placeholder(weights, &logits, vector, DType::F32);
        let targets = into_contiguous(CubeBackend::int_cast(self.targets, IntDType::I32));
        // SAFETY: a block reads and writes its own row, vectors beyond the row's last are not touched, and targets are classes.
        unsafe {
            rows_kernel::launch_unchecked(
                &client,
                grid(&client, rows),
                CubeDim::new_1d(threads as u32),
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
                config,
                self.elem,
            );
        }
        (losses, hits, logits)
    }
}

/// Returns the sum of each column, in f32.
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
