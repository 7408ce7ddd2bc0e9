//! Traces of other implementations: weights after ten steps of torch-optimi's StableAdamW (0.3.3) and of torch's AdamW (2.9.0), printed by
//! `scripts/parity/optimizers.py` on 2026-11-29. torch's AdamW with decay 0.01 / 0.02 is Composer's DecoupledAdamW with 0.01.

use super::*;
use burn::tensor::{DType, Tensor, TensorData};

const PEAK: f64 = 0.02;
const DECAY: f64 = 0.01;

const STABLE_ADAMW: [f64; 41] = [
    -0.386192863290,
    -0.153061216469,
    0.170552268278,
    -0.452303016721,
    -0.108389485961,
    0.216590148574,
    0.489436611191,
    -0.243303540826,
    0.072073327732,
    0.412452269973,
    -0.160247149238,
    0.125913058835,
    0.395845995000,
    -0.223991417186,
    -0.010469329602,
    0.310304070255,
    -0.316396435519,
    0.071389722184,
    0.359671021040,
    -0.318268595166,
    -0.099494326736,
    0.213730958776,
    -0.398072030359,
    -0.060182072759,
    0.268509530902,
    -0.357899944067,
    -0.082229928146,
    0.132527821926,
    -0.498799302653,
    -0.178861805368,
    0.216629162292,
    0.502543106847,
    -0.176360683545,
    0.044663753927,
    0.366228334281,
    -0.407019610026,
    -0.159562497821,
    0.179635612241,
    -0.477047787057,
    -0.114336688843,
    0.226481431795,
];
const ADAMW: [f64; 41] = [
    -0.387581760612,
    -0.155497637729,
    0.167417400550,
    -0.453283436220,
    -0.105679654157,
    0.219014236947,
    0.490611952198,
    -0.245802568030,
    0.068764729233,
    0.408961745891,
    -0.156684963883,
    0.128235993192,
    0.396994611142,
    -0.220220257252,
    -0.013510062720,
    0.306532467876,
    -0.318454829143,
    0.074718384384,
    0.361505822822,
    -0.314519856361,
    -0.102558605293,
    0.209818364368,
    -0.399100606740,
    -0.058417112024,
    0.270195428505,
    -0.353455052829,
    -0.079034277555,
    0.128896257993,
    -0.500044859007,
    -0.181528592490,
    0.219328511457,
    0.503777164044,
    -0.173190856139,
    0.041044397957,
    0.362086742520,
    -0.409486899555,
    -0.163064172264,
    0.177620023623,
    -0.478783420226,
    -0.112383250945,
    0.229937818038,
];

fn start(count: usize) -> Vec<f64> {
    (0..count)
        .map(|i| ((i * 31 + 7) % 97) as f64 / 97.0 - 0.5)
        .collect()
}

fn gradient(count: usize, step: usize) -> Vec<f64> {
    let spike = if step == 5 { 30.0 } else { 1.0 };
    (0..count)
        .map(|i| (((i * 7919 + step * 104_729) % 1009) as f64 / 1009.0 * 2.0 - 1.0) * spike)
        .collect()
}

fn tensor<const D: usize>(values: Vec<f64>, shape: [usize; D], dtype: DType) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(values, shape),
        (&test_support::device(), dtype),
    )
}

/// Weights after ten steps, of a matrix and then of a vector.
fn trace(rule: &UpdateRule, dtype: DType) -> Vec<f64> {
    let mut matrix = tensor(start(35), [7, 5], dtype);
    let mut vector = tensor(start(6), [6], dtype);
    let (mut of_matrix, mut of_vector) = (None, None);
    for step in 0..10 {
        let rate = PEAK * (1.0 - 0.1 * step as f64);
        let grads = (
            tensor(gradient(35, step), [7, 5], dtype),
            tensor(gradient(6, step), [6], dtype),
        );
        (matrix, of_matrix) = rule.step_one(rate, matrix, grads.0, of_matrix);
        (vector, of_vector) = rule.step_one(rate, vector, grads.1, of_vector);
    }
    let read = |values: TensorData| values.convert::<f64>().try_to_vec::<f64>().unwrap();
    [read(matrix.into_data()), read(vector.into_data())].concat()
}

fn assert_follows(rule: &UpdateRule, expected: &[f64; 41]) {
    for (dtype, tolerance) in [(DType::F64, 1e-8), (DType::F32, 1e-6)] {
        for (i, (found, expected)) in trace(rule, dtype).iter().zip(expected).enumerate() {
            let off = (found - expected).abs();
            assert!(off < tolerance, "{dtype:?} [{i}]: {found} {expected}");
        }
    }
}

#[test]
fn stable_adamw_follows_torch_optimi() {
    let config = StableAdamWConfig {
        weight_decay: DECAY,
        ..StableAdamWConfig::new(PEAK)
    };
    assert_follows(&config.into(), &STABLE_ADAMW);
}

#[test]
fn decoupled_adamw_follows_torch() {
    assert_follows(&DecoupledAdamW::new(PEAK, DECAY).into(), &ADAMW);
}
