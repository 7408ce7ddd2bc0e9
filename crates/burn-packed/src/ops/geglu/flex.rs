//! GeGLU on the CPU: one pass over the rows, in parallel.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::fallback;
use crate::ops::host::{HostTensor, is_native, rows_per_task, tensor};
use crate::ops::simd;

pub(crate) fn forward(input: FlexTensor) -> FlexTensor {
    if !is_native(&input) {
        return fallback::forward::<Flex>(input);
    }
    let dtype = input.dtype();
    let [rows, width] = input.layout().shape().dims::<2>();
    let half = width / 2;
    let input = HostTensor::new(input);
    let mut out = vec![0.0f32; rows * half];
    let step = rows_per_task(rows);
    if half > 0 {
        out.par_chunks_mut(step * half)
            .zip(input.values().par_chunks(step * width))
            .for_each(|(out, input)| {
                for (out, row) in out.chunks_exact_mut(half).zip(input.chunks_exact(width)) {
                    let (activated, gate) = row.split_at(half);
                    simd::geglu_row(activated, gate, out);
                }
            });
    }
    tensor(out, [rows, half], dtype)
}

pub(crate) fn backward(d_out: FlexTensor, input: FlexTensor) -> FlexTensor {
    if !is_native(&input) {
        return fallback::backward::<Flex>(d_out, input);
    }
    let dtype = input.dtype();
    let [rows, width] = input.layout().shape().dims::<2>();
    let half = width / 2;
    let (input, d_out) = (HostTensor::new(input), HostTensor::new(d_out));
    let mut d_input = vec![0.0f32; rows * width];
    let step = rows_per_task(rows);
    if half > 0 {
        d_input
            .par_chunks_mut(step * width)
            .zip(input.values().par_chunks(step * width))
            .zip(d_out.values().par_chunks(step * half))
            .for_each(|((d_input, input), d_out)| {
                let rows = d_input
                    .chunks_exact_mut(width)
                    .zip(input.chunks_exact(width))
                    .zip(d_out.chunks_exact(half));
                for ((d_row, row), d_out) in rows {
                    let (activated, gate) = row.split_at(half);
                    let (d_activated, d_gate) = d_row.split_at_mut(half);
                    simd::geglu_backward_row(activated, gate, d_out, d_activated, d_gate);
                }
            });
    }
    tensor(d_input, [rows, width], dtype)
}
