//! StableAdamW over all parameters of the model.

use burn::tensor::{DType, Tensor};
use modernbert::ops::optimizer::{AdamWStep, Parameter, adamw, adamw_all};

use super::BatchSizes;
use crate::check::{close, read};
use crate::measure::{Meter, Work};

/// Measures `adamw`: one step of tensors with the sizes of the model's parameters.
pub(crate) fn optimizer(meter: &mut Meter, shape: &BatchSizes) -> anyhow::Result<()> {
    if !meter.wants("adamw") {
        return Ok(());
    }
    let (h, i) = (shape.hidden, shape.inner);
    let mut sizes = vec![
        [shape.vocab, h],
        [1, shape.vocab],
        [h, h],
        [1, h],
        [1, h],
        [1, h],
    ];
    for _ in 0..shape.layers {
        sizes.extend([[3 * h, h], [h, h], [2 * i, h], [h, i], [1, h], [1, h]]);
    }
    let elements: usize = sizes.iter().map(|[a, b]| a * b).sum();
    let step = AdamWStep {
        lr: 1e-4,
        b1: 0.9,
        b2: 0.98,
        epsilon: 1e-6,
        root_scale: 1.0,
        stable: true,
        decay: 1e-2,
    };
    let tensors: Vec<[Tensor<2>; 2]> = sizes
        .iter()
        .map(|&size| {
            [
                meter.normal(size, DType::F32),
                meter.normal(size, DType::F32),
            ]
        })
        .collect();
    check_step(&tensors[2], step)?;
    let grads: Vec<Tensor<2>> = tensors.iter().map(|[_, grad]| grad.clone()).collect();
    let mut state: Vec<[Tensor<2>; 3]> = tensors
        .into_iter()
        .map(|[weight, _]| {
            let (m, v) = (weight.zeros_like(), weight.zeros_like());
            [weight, m, v]
        })
        .collect();
    meter.row(
        &shape.name,
        ("adamw", "step"),
        shape.tokens,
        Work::Bytes(28.0 * elements as f64),
        || {
            let parameters = std::mem::take(&mut state).into_iter().zip(&grads);
            let parameters = parameters
                .map(|([weight, m, v], grad)| Parameter::new(weight, grad.clone(), (m, v), step));
            let stepped = adamw_all(parameters.collect(), None).into_iter();
            state = stepped
                .map(|stepped| {
                    let (weight, m, v) = stepped.into_tensors();
                    [weight, m, v]
                })
                .collect();
        },
    );
    Ok(())
}

/// Checks one step from zero moments against host arithmetic.
fn check_step([weight, grad]: &[Tensor<2>; 2], step: AdamWStep) -> anyhow::Result<()> {
    let moments = (weight.zeros_like(), weight.zeros_like());
    let (found, ..) = adamw(weight.clone(), grad.clone(), moments, step, None);
    let (weight, grad) = (read(weight.clone())?, read(grad.clone())?);
    let v: Vec<f64> = grad.iter().map(|g| (1.0 - step.b2) * g * g).collect();
    let floor = step.epsilon * step.epsilon;
    let ratio: f64 = grad.iter().zip(&v).map(|(g, v)| g * g / v.max(floor)).sum();
    let eta = step.lr / (ratio / grad.len() as f64).sqrt().max(1.0);
    let expected: Vec<f64> = weight
        .iter()
        .zip(grad.iter().zip(&v))
        .map(|(w, (g, v))| {
            w * (1.0 - eta * step.decay) - eta * (1.0 - step.b1) * g / (v.sqrt() + step.epsilon)
        })
        .collect();
    close("adamw", &read(found)?, &expected, 1e-6)
}
