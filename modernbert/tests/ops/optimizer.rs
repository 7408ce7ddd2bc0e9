//! StableAdamW's step against its formula in f64, over several steps, sizes and shapes.

use burn::tensor::Tensor;
use modernbert::ops::optimizer::{StableAdamWStep, stable_adamw};

use crate::common::{assert_close, bits, device, normals, read, tensor, wide};

/// The settings of step `t` (from 1).
fn settings(t: i32) -> StableAdamWStep {
    let folded = |beta: f64| (beta.powi(t) - beta) / (beta.powi(t) - 1.0);
    StableAdamWStep {
        lr: 0.01 / f64::from(t),
        b1: folded(0.9),
        b2: folded(0.98),
        epsilon: 1e-6,
        decay: 0.5,
    }
}

struct State {
    weight: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl State {
    fn step(&mut self, grad: &[f64], s: StableAdamWStep) {
        let mut ratio = 0.0;
        for (i, g) in grad.iter().enumerate() {
            self.m[i] += (1.0 - s.b1) * (g - self.m[i]);
            self.v[i] = s.b2 * self.v[i] + (1.0 - s.b2) * g * g;
            ratio += g * g / self.v[i].max(s.epsilon * s.epsilon);
        }
        let eta = s.lr / (ratio / grad.len() as f64).sqrt().max(1.0);
        for i in 0..grad.len() {
            self.weight[i] *= 1.0 - eta * s.decay;
            self.weight[i] -= eta * self.m[i] / (self.v[i].sqrt() + s.epsilon);
        }
    }
}

/// A gradient whose size jumps in the third step, so that the divisor is not 1.
fn gradient(t: u64, count: usize) -> Vec<f32> {
    let size = if t == 3 { 8.0 } else { 0.1 };
    normals(10 + t, count).iter().map(|g| size * g).collect()
}

fn run(rows: usize, width: usize) -> [Vec<f32>; 3] {
    let device = device();
    let shape = [rows, width];
    let mut weight = tensor(&normals(1, rows * width), shape, &device);
    let mut moments: (Tensor<2>, Tensor<2>) = (weight.zeros_like(), weight.zeros_like());
    for t in 1..=4 {
        let grad = tensor(&gradient(t as u64, rows * width), shape, &device);
        let (new, m, v) = stable_adamw(weight, grad, moments, settings(t), None);
        (weight, moments) = (new, (m, v));
    }
    [read(weight), read(moments.0), read(moments.1)]
}

#[test]
fn four_steps_equal_the_formula() {
    for (rows, width) in [(1, 1), (3, 7), (16, 16), (65, 130), (300, 100)] {
        let count = rows * width;
        let mut state = State {
            weight: wide(&normals(1, count)),
            m: vec![0.0; count],
            v: vec![0.0; count],
        };
        for t in 1..=4 {
            state.step(&wide(&gradient(t as u64, count)), settings(t));
        }
        let [weight, m, v] = run(rows, width);
        let what = format!("{rows} x {width}");
        assert_close(&weight, &state.weight, 1e-6, &format!("weight, {what}"));
        assert_close(&m, &state.m, 1e-6, &format!("first moment, {what}"));
        assert_close(&v, &state.v, 1e-6, &format!("second moment, {what}"));
    }
}

#[test]
fn two_runs_are_bit_identical() {
    assert_eq!(
        run(70, 129).map(|v| bits(&v)),
        run(70, 129).map(|v| bits(&v))
    );
}

/// What somebody else still holds must not change under their hands.
#[test]
fn tensors_that_are_held_elsewhere_keep_their_values() {
    let device = device();
    let weight = tensor(&normals(1, 64), [8, 8], &device);
    let (m, v) = (weight.zeros_like(), weight.zeros_like());
    let held = (weight.clone(), m.clone(), v.clone());
    let grad = tensor(&normals(2, 64), [8, 8], &device);
    let (new, ..) = stable_adamw(weight, grad, (m, v), settings(1), None);
    assert_ne!(bits(&read(new)), bits(&read(held.0.clone())));
    assert_eq!(bits(&read(held.0)), bits(&normals(1, 64)));
    assert_eq!(read(held.1), [0.0; 64]);
    assert_eq!(read(held.2), [0.0; 64]);
}

#[test]
fn a_shut_gate_changes_nothing_and_an_open_one_is_no_other_step() {
    let device = device();
    let shape = [33, 65];
    let count = shape[0] * shape[1];
    let start = || {
        let of = |seed| tensor(&normals(seed, count), shape, &device);
        let v: Tensor<2> = of(3).abs();
        (of(1), (of(2), v))
    };
    let step = |grad: &[f32], go: Option<f32>| {
        let (weight, moments) = start();
        let grad = tensor(grad, shape, &device);
        let go = go.map(|go| Tensor::from_floats([go], &device));
        let (weight, m, v) = stable_adamw(weight, grad, moments, settings(2), go);
        [weight, m, v].map(|t| bits(&read(t)))
    };
    let (weight, (m, v)) = start();
    let before = [weight, m, v].map(|t| bits(&read(t)));
    let mut poisoned = normals(4, count);
    poisoned[count - 1] = f32::NAN;
    poisoned[7] = f32::INFINITY;
    for go in [0.0, f32::NAN, -1.0] {
        assert_eq!(step(&poisoned, Some(go)), before, "gate {go}");
    }
    let fine = normals(4, count);
    assert_eq!(step(&fine, Some(1.0)), step(&fine, None));
    assert_ne!(step(&fine, Some(1.0)), before);
}
