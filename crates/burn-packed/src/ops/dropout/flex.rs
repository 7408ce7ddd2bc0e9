//! Dropout on the CPU: one pass over the elements, in parallel.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::{DropoutSpec, fallback};
use crate::ops::host::{HostTensor, is_native, tensor};

/// Elements of a parallel task.
const CHUNK: usize = 1 << 15;

pub(crate) fn forward(input: FlexTensor, spec: DropoutSpec) -> FlexTensor {
    if !is_native(&input) {
        return fallback::forward::<Flex>(input, spec);
    }
    let dtype = input.dtype();
    let shape = input.layout().shape().clone();
    let input = HostTensor::new(input);
    let values = input.values();
    let mut out = vec![0.0f32; values.len()];
    out.par_chunks_mut(CHUNK)
        .zip(values.par_chunks(CHUNK))
        .enumerate()
        .for_each(|(chunk, (out, values))| fill((chunk * CHUNK) as u32, values, out, spec));
    let count = out.len();
    let out = tensor(out, [count], dtype);
    Flex::float_reshape(out, shape)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn fill(first: u32, values: &[f32], out: &mut [f32], spec: DropoutSpec) {
    let scale = spec.scale() as f32;
    for (i, (out, x)) in out.iter_mut().zip(values).enumerate() {
        // No overflow: `super::dropout` limits tensors to 2^32 - 1 elements.
        let kept = spec.keeps(first.wrapping_add(i as u32));
        *out = if kept { x * scale } else { 0.0 };
    }
}
