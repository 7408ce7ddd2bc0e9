//! The optimizer step on the CPU: two passes over each tensor, in parallel and in place.
//!
//! The first pass updates the second moment and, for StableAdamW, sums `g² / max(v, ε²)`; the second pass updates the first moment and the weight.
//! AdamW needs no sum, but has the same two passes.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::{AdamWStep, GroupParameter, ParameterGroup, Stepped, SteppedGroup, fallback};
use crate::ops::host::{HostTensor, contiguous, elements, in_dtype};

/// Elements of a parallel task. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 14;

pub(crate) fn steps(group: ParameterGroup<Flex>, apply: Option<FlexTensor>) -> SteppedGroup<Flex> {
    // NaN is not above 0.
    let skips = apply.is_some_and(|flag| {
        let flag = HostTensor::new(flag);
        !flag.values().first().is_some_and(|flag| *flag > 0.0)
    });
    let stepped = group.0.into_iter().map(|parameter| match skips {
        true => Stepped {
            weight: parameter.weight,
            moment_1: parameter.moment_1,
            moment_2: parameter.moment_2,
        },
        false => step(parameter),
    });
    SteppedGroup(stepped.collect())
}

fn step(parameter: GroupParameter<Flex>) -> Stepped<Flex> {
    let GroupParameter {
        weight,
        grad,
        moment_1,
        moment_2,
        step,
    } = parameter;
    let is_f32 = |tensor: &FlexTensor| tensor.dtype() == DType::F32;
    if ![&weight, &moment_1, &moment_2].into_iter().all(is_f32) {
        let (weight, moment_1, moment_2) =
            fallback::step::<Flex>(weight, grad, (moment_1, moment_2), None, step);
        return Stepped {
            weight,
            moment_1,
            moment_2,
        };
    }
    let grad = contiguous(in_dtype(grad, DType::F32));
    let [mut weight, mut moment_1, mut moment_2] = [weight, moment_1, moment_2].map(contiguous);
    let grad = elements::<f32>(&grad);
    let factors = Factors::of(step);
    let sums = chunks(&mut moment_2, grad, |v, g| second_moment(v, g, factors));
    let eta = match step.stable && !grad.is_empty() {
        true => {
            let mean = sums.iter().sum::<f64>() / grad.len() as f64;
            (step.lr / mean.sqrt().max(1.0)) as f32
        }
        false => step.lr as f32,
    };
    let decayed = 1.0 - eta * step.decay as f32;
    {
        let moment_2 = elements::<f32>(&moment_2);
        let (weight, moment_1) = (make_mut(&mut weight), make_mut(&mut moment_1));
        weight
            .par_chunks_mut(CHUNK)
            .zip(moment_1.par_chunks_mut(CHUNK))
            .zip(moment_2.par_chunks(CHUNK))
            .zip(grad.par_chunks(CHUNK))
            .for_each(|(((w, m), v), g)| update(w, m, v, g, factors, [eta, decayed]));
    }
    Stepped {
        weight,
        moment_1,
        moment_2,
    }
}

/// Returns the elements of a contiguous tensor for writing; a tensor that shares its elements with another is copied first.
fn make_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, len) = (
        tensor.layout().start_offset(),
        tensor.layout().num_elements(),
    );
    &mut tensor.storage_mut::<f32>()[start..][..len]
}

/// Calls `task` for each chunk of the tensor and the gradient, and returns the results in order.
fn chunks(
    tensor: &mut FlexTensor,
    grad: &[f32],
    task: impl Fn(&mut [f32], &[f32]) -> f64 + Sync,
) -> Vec<f64> {
    make_mut(tensor)
        .par_chunks_mut(CHUNK)
        .zip(grad.par_chunks(CHUNK))
        .map(|(values, grad)| task(values, grad))
        .collect()
}

/// The hyperparameters in f32.
#[derive(Clone, Copy)]
struct Factors {
    /// 1 - b1.
    towards: f32,
    b2: f32,
    /// 1 - b2.
    square: f32,
    epsilon: f32,
    root_scale: f32,
    /// ε².
    floor: f32,
}

impl Factors {
    fn of(step: AdamWStep) -> Self {
        Self {
            towards: (1.0 - step.b1) as f32,
            b2: step.b2 as f32,
            square: (1.0 - step.b2) as f32,
            epsilon: step.epsilon as f32,
            root_scale: step.root_scale as f32,
            floor: (step.epsilon * step.epsilon) as f32,
        }
    }
}

/// Running sums of a reduction.
const LANES: usize = 16;

/// Updates the second moment; returns the sum of `g² / max(v, ε²)`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2", "x86_64+avx2"))]
fn second_moment(v: &mut [f32], g: &[f32], factors: Factors) -> f64 {
    let ratio = |v: &mut f32, g: f32| {
        let square = g * g;
        *v = *v * factors.b2 + square * factors.square;
        // Not `max`, which would hide a NaN.
        let divisor = if *v < factors.floor {
            factors.floor
        } else {
            *v
        };
        square / divisor
    };
    let mut lanes = [0.0f32; LANES];
    let whole = v.len() / LANES * LANES;
    let (v, v_rest) = v.split_at_mut(whole);
    let (g, g_rest) = g.split_at(whole);
    for (v, g) in v.chunks_exact_mut(LANES).zip(g.chunks_exact(LANES)) {
        for i in 0..LANES {
            lanes[i] += ratio(&mut v[i], g[i]);
        }
    }
    let rest: f32 = v_rest
        .iter_mut()
        .zip(g_rest)
        .map(|(v, g)| ratio(v, *g))
        .sum();
    lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>() + f64::from(rest)
}

/// Updates the first moment and the weight.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2", "x86_64+avx2"))]
fn update(
    w: &mut [f32],
    m: &mut [f32],
    v: &[f32],
    g: &[f32],
    factors: Factors,
    [eta, decayed]: [f32; 2],
) {
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        *m += (g - *m) * factors.towards;
        let direction = *m / (v.sqrt() * factors.root_scale + factors.epsilon);
        *w = *w * decayed - direction * eta;
    }
}
