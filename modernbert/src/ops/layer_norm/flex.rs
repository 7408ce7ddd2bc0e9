//! LayerNorm on the CPU: one pass over the rows, shared among threads.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::portable;
use crate::ops::host::{HostTensor, is_native, rows_per_task, tensor};
use crate::ops::simd;

pub(crate) fn forward(input: FlexTensor, weight: FlexTensor, eps: f64) -> FlexTensor {
    if !is_native(&input) {
        return portable::forward::<Flex>(input, weight, eps);
    }
    let dtype = input.dtype();
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

pub(crate) fn backward(
    d_out: FlexTensor,
    input: FlexTensor,
    weight: FlexTensor,
    eps: f64,
) -> (FlexTensor, FlexTensor) {
    if !is_native(&input) {
        return portable::backward::<Flex>(d_out, input, weight, eps);
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
    // Each chunk sums its own part of the weight gradient and the parts are added in order. The chunk size depends on
    // nothing but the input, so the sum is the same on any number of threads.
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
