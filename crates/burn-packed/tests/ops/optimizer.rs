//! StableAdamW against its formula in f64, over several steps, sizes and shapes.

use burn::tensor::Tensor;
use burn_packed::ops::optimizer::{AdamWStep, Parameter, adamw, adamw_all};

use test_support::{assert_close, bits, device, normals, read, tensor, wide};

/// Hyperparameters of step `t` (from 1).
fn settings(t: i32) -> AdamWStep {
    let folded = |beta: f64| (beta.powi(t) - beta) / (beta.powi(t) - 1.0);
    AdamWStep {
        lr: 0.01 / f64::from(t),
        b1: folded(0.9),
        b2: folded(0.98),
        epsilon: 1e-6,
        root_scale: 1.0,
        stable: true,
        decay: 0.5,
    }
}

struct State {
    weight: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl State {
    fn step(&mut self, grad: &[f64], s: AdamWStep) {
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

/// A gradient that grows in the third step, so that the divisor of the learning rate is not 1.
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
        let (new, m, v) = adamw(weight, grad, moments, settings(t), None);
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

/// The update is in place only for uniquely owned tensors.
#[test]
fn shared_tensors_are_not_overwritten() {
    let device = device();
    let weight = tensor(&normals(1, 64), [8, 8], &device);
    let (m, v) = (weight.zeros_like(), weight.zeros_like());
    let held = (weight.clone(), m.clone(), v.clone());
    let grad = tensor(&normals(2, 64), [8, 8], &device);
    let (new, ..) = adamw(weight, grad, (m, v), settings(1), None);
    assert_ne!(bits(&read(new)), bits(&read(held.0.clone())));
    assert_eq!(bits(&read(held.0)), bits(&normals(1, 64)));
    assert_eq!(read(held.1), [0.0; 64]);
    assert_eq!(read(held.2), [0.0; 64]);
}

/// Rows whose size is no multiple of 512 bytes: a backend may pad them in a copy.
#[test]
fn step_of_shared_tensors_gives_the_same_result() {
    let device = device();
    let shape = [5, 1000];
    let of = |seed| {
        let values = normals(seed, 5000);
        let flat = tensor(&values, [5000], &device);
        // Read back before the reshape, or Fusion makes one kernel of both and pads the rows.
        assert_eq!(bits(&read(flat.clone())), bits(&values));
        let x: Tensor<2> = flat.reshape(shape);
        x
    };
    let run = |held: bool| {
        let (weight, grad, m, v) = (of(1), of(2), of(3), of(4) * 0.0 + 0.5);
        let keep = held.then(|| (weight.clone(), m.clone(), v.clone()));
        let (weight, m, v) = adamw(weight, grad, (m, v), settings(2), None);
        let found = [weight, m, v].map(|x| bits(&read(x)));
        drop(keep);
        found
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn the_flag_skips_the_step_or_leaves_it_unchanged() {
    let device = device();
    let shape = [33, 65];
    let count = shape[0] * shape[1];
    let start = || {
        let of = |seed| tensor(&normals(seed, count), shape, &device);
        let v: Tensor<2> = of(3).abs();
        (of(1), (of(2), v))
    };
    let step = |grad: &[f32], apply: Option<f32>| {
        let (weight, moments) = start();
        let grad = tensor(grad, shape, &device);
        let apply = apply.map(|apply| Tensor::from_floats([apply], &device));
        let (weight, m, v) = adamw(weight, grad, moments, settings(2), apply);
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

/// More parameters than one launch takes, with sizes that are and are not multiples of a vector, of one and two axes, with different
/// decays, and one with different hyperparameters.
#[test]
fn joint_step_equals_single_steps() {
    let device = device();
    let sizes: Vec<usize> = (0..45u64)
        .map(|i| match i {
            7 => 70_001,
            11 => 1,
            12 => 40_000,
            _ => 4 + (i as usize * 37) % 300,
        })
        .collect();
    let step = |i: usize| AdamWStep {
        decay: if i.is_multiple_of(3) { 0.0 } else { 0.5 },
        root_scale: if (21..=30).contains(&i) { 3.0 } else { 1.0 },
        stable: !(21..=30).contains(&i),
        ..settings(if i == 20 { 3 } else { 2 })
    };
    let of = |kind: usize, i: usize| {
        let x = tensor(
            &normals((100 * kind + i) as u64, sizes[i]),
            [sizes[i]],
            &device,
        );
        if kind == 3 { x.abs() } else { x }
    };
    for go in [None, Some(1.0f32), Some(0.0)] {
        let gate = || go.map(|go| Tensor::from_floats([go], &device));
        let parameters = (0..sizes.len()).map(|i| {
            let (weight, grad, moments) = (of(0, i), of(1, i), (of(2, i), of(3, i)));
            if i.is_multiple_of(2) {
                return Parameter::new(weight, grad, moments, step(i));
            }
            let row = |x: Tensor<1>| x.reshape([1, sizes[i]]);
            let moments = (row(moments.0), row(moments.1));
            Parameter::new(row(weight), row(grad), moments, step(i))
        });
        let stepped = adamw_all(parameters.collect(), gate());
        assert_eq!(stepped.len(), sizes.len());
        for (i, stepped) in stepped.into_iter().enumerate() {
            let found = if i.is_multiple_of(2) {
                let (weight, m, v) = stepped.into_tensors::<1>();
                [weight, m, v]
            } else {
                let (weight, m, v) = stepped.into_tensors::<2>();
                [weight, m, v].map(|x| x.reshape([sizes[i]]))
            };
            let moments = (of(2, i), of(3, i));
            let (weight, m, v) = adamw(of(0, i), of(1, i), moments, step(i), gate());
            let expected = [weight, m, v].map(|x| bits(&read(x)));
            let found = found.map(|x| bits(&read(x)));
            assert_eq!(
                found, expected,
                "parameter {i} of {} numbers, gate {go:?}",
                sizes[i]
            );
        }
    }
    assert!(adamw_all(Vec::new(), None).is_empty());
}
