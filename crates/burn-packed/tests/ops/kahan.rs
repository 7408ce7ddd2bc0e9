//! Kahan summation of bf16 weights against the same steps in f64.

use burn::tensor::{DType, Device, Tensor};
use burn_packed::ops::optimizer::{AdamWStep, KahanStepped, adamw_kahan};

use test_support::{bits, computes_in, device, normals, read, tensor};

const SHAPE: [usize; 2] = [24, 40];
const COUNT: usize = 960;

/// Settings of step `t` (from 1): updates of about 1e-4, far below the spacing of bf16 numbers near 1.
fn settings(t: i32, stable: bool) -> AdamWStep {
    let folded = |beta: f64| (beta.powi(t) - beta) / (beta.powi(t) - 1.0);
    AdamWStep {
        lr: 1e-4,
        b1: folded(0.9),
        b2: folded(0.98),
        epsilon: 1e-6,
        root_scale: 1.0,
        stable,
        decay: 0.1,
    }
}

fn gradient(t: i32) -> Vec<f32> {
    // A drift in addition to the noise, so that weights change in one direction; sometimes a larger drift.
    let size = if t % 50 == 0 { 8.0 } else { 1.0 };
    let noise = normals(100 + t as u64, COUNT);
    let each = noise.iter().enumerate();
    each.map(|(i, g)| size * (0.3 * g + if i % 2 == 0 { 0.5 } else { -0.5 }))
        .collect()
}

fn begin(device: &Device, moments: DType) -> KahanStepped<2> {
    let weight = tensor(&normals(1, COUNT), SHAPE, device).cast(DType::BF16);
    let zeros = |dtype: DType| Tensor::<2>::zeros(SHAPE, device).cast(dtype);
    KahanStepped {
        compensation: zeros(DType::BF16),
        moment_1: zeros(moments),
        moment_2: zeros(moments),
        weight,
    }
}

fn wide(x: &Tensor<2>) -> Vec<f64> {
    read(x.clone().cast(DType::F32))
        .into_iter()
        .map(f64::from)
        .collect()
}

/// Root mean square of the differences.
fn rms(a: &[f64], b: &[f64]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b));
    (squares.sum::<f64>() / a.len() as f64).sqrt()
}

/// 200 steps in f64, with compensation and without it, from the same weights in bf16: `(f64, compensated weights, compensated sums, plain)`.
fn run(stable: bool, moments: DType) -> [Vec<f64>; 4] {
    let device = device();
    let mut kahan = begin(&device, moments);
    let mut plain = begin(&device, moments);
    let mut weight = wide(&kahan.weight);
    let (mut m, mut v) = (vec![0.0; COUNT], vec![0.0; COUNT]);
    for t in 1..=200 {
        let (g, s) = (gradient(t), settings(t, stable));
        let mut ratio = 0.0;
        for i in 0..COUNT {
            let g = f64::from(g[i]);
            m[i] += (1.0 - s.b1) * (g - m[i]);
            v[i] = s.b2 * v[i] + (1.0 - s.b2) * g * g;
            ratio += g * g / f64::max(v[i], s.epsilon * s.epsilon);
        }
        let eta = s.lr
            / if stable {
                (ratio / COUNT as f64).sqrt().max(1.0)
            } else {
                1.0
            };
        for i in 0..COUNT {
            weight[i] -= eta * (m[i] / (v[i].sqrt() + s.epsilon) + s.decay * weight[i]);
        }
        let grad = tensor(&g, SHAPE, &device);
        kahan = adamw_kahan(kahan, grad.clone(), s, None);
        plain = adamw_kahan(plain, grad, s, None);
        // Without Kahan summation no compensation is kept.
        plain.compensation = plain.compensation.zeros_like();
    }
    assert_eq!(kahan.weight.dtype(), DType::BF16);
    let sums = wide(&kahan.weight)
        .iter()
        .zip(wide(&kahan.compensation))
        .map(|(w, k)| w + k)
        .collect();
    [weight, wide(&kahan.weight), sums, wide(&plain.weight)]
}

#[test]
fn compensated_bf16_weights_follow_f64() {
    if !computes_in(DType::BF16) {
        return;
    }
    let device = device();
    for stable in [true, false] {
        for (moments, limit) in [(DType::F32, 0.01), (DType::BF16, 0.05)] {
            let [exact, rounded, sums, plain] = run(stable, moments);
            let moved = rms(&exact, &wide(&begin(&device, moments).weight));
            assert!(moved > 0.01, "{moved}");
            // Weight and compensation together equal the f64 weight within a hundredth of its change; the weight alone within its own rounding;
            // without compensation most of the change is lost.
            let (sums, rounded, plain) = (
                rms(&sums, &exact),
                rms(&rounded, &exact),
                rms(&plain, &exact),
            );
            assert!(sums < limit * moved, "{sums} of {moved}");
            assert!(rounded < 0.003, "{rounded}");
            assert!(
                plain > 0.5 * moved && plain > 4.0 * rounded,
                "{plain} {rounded} of {moved}"
            );
        }
    }
}

#[test]
fn a_closed_gate_leaves_every_bit() {
    if !computes_in(DType::BF16) {
        return;
    }
    let device = device();
    let before = adamw_kahan(
        begin(&device, DType::F32),
        tensor(&gradient(1), SHAPE, &device),
        settings(1, true),
        None,
    );
    let state = |s: &KahanStepped<2>| {
        [&s.weight, &s.moment_1, &s.moment_2, &s.compensation]
            .map(|x| bits(&read(x.clone().cast(DType::F32))))
    };
    let step = |go: Option<f32>, gradient: &[f32]| {
        let go = go.map(|go| Tensor::from_floats([go], &device));
        adamw_kahan(
            before.clone(),
            tensor(gradient, SHAPE, &device),
            settings(2, true),
            go,
        )
    };
    let mut poisoned = gradient(2);
    poisoned[5] = f32::NAN;
    for go in [0.0, -1.0, f32::NAN] {
        assert_eq!(state(&step(Some(go), &poisoned)), state(&before));
    }
    let fine = gradient(2);
    assert_eq!(state(&step(Some(1.0), &fine)), state(&step(None, &fine)));
    assert_ne!(state(&step(None, &fine)), state(&before));
}
