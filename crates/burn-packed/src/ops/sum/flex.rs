//! Sums on the CPU, in parallel and in a fixed order.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::fallback;
use crate::ops::host::{HostTensor, is_native, tensor};

/// Elements of a parallel task. Fixed, so that a sum does not depend on the number of threads.
const CHUNK: usize = 1 << 15;

/// Running sums of a task.
const LANES: usize = 16;

pub(crate) fn sum(input: FlexTensor, squared: bool) -> FlexTensor {
    if !is_native(&input) {
        return fallback::sum::<Flex>(input, squared);
    }
    let input = HostTensor::new(input);
    let values = input.values();
    let partials: Vec<f64> = match values.len() <= CHUNK {
        true => vec![partial_sum(values, squared)],
        false => values
            .par_chunks(CHUNK)
            .map(|values| partial_sum(values, squared))
            .collect(),
    };
    let sum = partials.iter().sum::<f64>() as f32;
    tensor(vec![sum], [1], DType::F32)
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2", "x86_64+avx2"))]
fn partial_sum(values: &[f32], squared: bool) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += if squared { x * x } else { x };
        }
    }
    let rest: f32 = rest.iter().map(|x| if squared { x * x } else { *x }).sum();
    lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + f64::from(rest)
}
