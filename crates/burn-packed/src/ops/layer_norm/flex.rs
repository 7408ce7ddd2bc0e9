//! LayerNorm on the CPU: one pass over the rows, in parallel.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{AddNormBackward, Saved, fallback};
use crate::ops::host::{HostTensor, is_native, rows_per_task, tensor};
use crate::ops::primitive::converted;
use crate::ops::simd;

pub(crate) fn forward(input: FlexTensor, weight: FlexTensor, eps: f64, out: DType) -> FlexTensor {
    if !is_native(&input) {
        return fallback::forward::<Flex>(input, weight, eps, out);
    }
    let dtype = out;
    let [rows, width] = input.layout().shape().dims::<2>();
    let (input, weight) = (HostTensor::new(input), HostTensor::new(weight));
    let mut out = vec![0.0f32; rows * width];
    let step = rows_per_task(rows);
    if width > 0 {
        out.par_chunks_mut(step * width)
            .zip(input.values().par_chunks(step * width))
            .for_each(|(out, input)| {
                for (out, x) in out.chunks_exact_mut(width).zip(input.chunks_exact(width)) {
                    simd::layer_norm_row(x, weight.values(), eps as f32, out);
                }
            });
    }
    tensor(out, [rows, width], dtype)
}

/// Sum, normalized sum and inverse standard deviations.
pub(crate) fn add_forward(
    x: FlexTensor,
    branch: FlexTensor,
    weight: FlexTensor,
    eps: f64,
    out: DType,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    if x.dtype() != DType::F32 || !is_native(&branch) {
        return fallback::add_forward::<Flex>(x, branch, weight, eps, out);
    }
    let [rows, width] = x.layout().shape().dims::<2>();
    let [x, branch, weight] = [x, branch, weight].map(HostTensor::new);
    let mut sum = vec![0.0f32; rows * width];
    let mut normed = vec![0.0f32; rows * width];
    let mut inv_std = vec![0.0f32; rows];
    let step = rows_per_task(rows);
    if width > 0 {
        sum.par_chunks_mut(step * width)
            .zip(normed.par_chunks_mut(step * width))
            .zip(inv_std.par_chunks_mut(step))
            .zip(x.values().par_chunks(step * width))
            .zip(branch.values().par_chunks(step * width))
            .for_each(|((((sum, normed), inv_std), x), branch)| {
                for ((sum, x), branch) in sum.iter_mut().zip(x).zip(branch) {
                    *sum = x + branch;
                }
                let rows = sum.chunks_exact(width).zip(normed.chunks_exact_mut(width));
                for ((sum, normed), inv_std) in rows.zip(inv_std) {
                    *inv_std = simd::layer_norm_row(sum, weight.values(), eps as f32, normed);
                }
            });
    }
    (
        tensor(sum, [rows, width], DType::F32),
        tensor(normed, [rows, width], out),
        tensor(inv_std, [rows], DType::F32),
    )
}

/// Gradients of `x`, the branch and the weight.
pub(crate) fn add_backward(
    d_sum: FlexTensor,
    d_normed: FlexTensor,
    saved: FlexTensor,
    inv_std: FlexTensor,
    weight: FlexTensor,
    spec: &AddNormBackward,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    if !is_native(&saved) || spec.saved == Saved::Normed {
        return fallback::add_backward::<Flex>(d_sum, d_normed, saved, inv_std, weight, spec);
    }
    let (d_input, d_weight) = backward(d_normed, saved, weight, spec.eps);
    let d_x = if spec.has_d_sum {
        Flex::float_add(d_sum, converted::<Flex>(d_input, spec.sum))
    } else {
        converted::<Flex>(d_input, spec.sum)
    };
    (d_x.clone(), converted::<Flex>(d_x, spec.branch), d_weight)
}

pub(crate) fn backward(
    d_out: FlexTensor,
    input: FlexTensor,
    weight: FlexTensor,
    eps: f64,
) -> (FlexTensor, FlexTensor) {
    if !is_native(&input) {
        return fallback::backward::<Flex>(d_out, input, weight, eps);
    }
    let (dtype, weight_dtype) = (input.dtype(), weight.dtype());
    let [rows, width] = input.layout().shape().dims::<2>();
    let [d_out, input, weight] = [d_out, input, weight].map(HostTensor::new);
    let mut d_input = vec![0.0f32; rows * width];
    if width == 0 {
        return (
            tensor(d_input, [rows, width], dtype),
            tensor(vec![], [0], weight_dtype),
        );
    }
    // Each chunk sums its part of the weight gradient, and the parts are added in order. The chunk size is fixed, so the sum
    // does not depend on the number of threads.
    const STEP: usize = 128;
    let parts: Vec<Vec<f32>> = d_input
        .par_chunks_mut(STEP * width)
        .zip(input.values().par_chunks(STEP * width))
        .zip(d_out.values().par_chunks(STEP * width))
        .map(|((d_input, input), d_out)| {
            let mut d_weight = vec![0.0f32; width];
            let rows = d_input
                .chunks_exact_mut(width)
                .zip(input.chunks_exact(width))
                .zip(d_out.chunks_exact(width));
            for ((d_x, x), d_out) in rows {
                simd::layer_norm_backward_row(
                    x,
                    weight.values(),
                    d_out,
                    eps as f32,
                    d_x,
                    &mut d_weight,
                );
            }
            d_weight
        })
        .collect();
    let mut d_weight = vec![0.0f32; width];
    for part in parts {
        for (sum, x) in d_weight.iter_mut().zip(part) {
            *sum += x;
        }
    }
    (
        tensor(d_input, [rows, width], dtype),
        tensor(d_weight, [width], weight_dtype),
    )
}
