//! Residual addition fused with LayerNorm: both outputs, all gradients, unused outputs, both tensors that may be saved for backward.

use burn::tensor::{DType, FloatDType, Tensor};
use burn_packed::ops::layer_norm::{
    AddNormBackward, SavedNorm, add_layer_norm, add_layer_norm_backward, add_layer_norm_forward,
};
use proptest::prelude::*;

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, max_error, normals, read, read64,
    relative_error, tensor, tensor64, wide,
};

const EPS: f64 = 1e-5;

struct Inputs {
    rows: usize,
    width: usize,
    x: Vec<f32>,
    branch: Vec<f32>,
    weight: Vec<f32>,
    d_sum: Vec<f32>,
    d_normed: Vec<f32>,
}

/// Sum, norm, and gradients of x (the branch's is the same) and weight.
struct Expected {
    sum: Vec<f64>,
    normed: Vec<f64>,
    d_x: Vec<f64>,
    d_weight: Vec<f64>,
    terms: Terms,
}

/// Largest value over all rows of the terms whose rounding errors an output contains. In a narrow row whose elements are nearly equal,
/// `1 / std` is large and these terms cancel: `d_x` of a row of two elements is about `eps / variance` of them. The error is then
/// relative to the terms and not to the result.
#[derive(Default)]
struct Terms {
    normed: f64,
    d_x: f64,
    d_weight: f64,
}

impl Terms {
    /// Includes a row: its `1 / std`, its values, the gradient of its norm, and that gradient times the weight.
    fn include(&mut self, scale: f64, row: &[f64], d: &[f64], g: &[f64], weight: &[f64]) {
        let largest = |values: &[f64]| values.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
        // Error of a normalized value in units of `1e-6`: a device may contract `x · scale - mean · scale`, whose terms are this large.
        // The divisor leaves rows of ordinary variance (a largest term of 3 to 5) below one.
        let normalized = scale * largest(row) / 8.0;
        self.normed = self.normed.max(normalized * largest(weight));
        self.d_x = self.d_x.max(scale * largest(g) * normalized.max(1.0));
        self.d_weight = self.d_weight.max(largest(d) * normalized);
    }
}

/// Largest difference of found and expected values, relative to the larger of the largest expected value and `terms`.
fn assert_close_to_terms(found: &[f32], expected: &[f64], terms: f64, tolerance: f64, what: &str) {
    let largest = expected.iter().fold(terms, |a: f64, v| a.max(v.abs()));
    let error = max_error(&wide(found), expected) / largest;
    assert!(
        error <= tolerance,
        "{what}: error {error:e} relative to {largest}, allowed {tolerance:e}"
    );
}

fn forward(x: &[f64], branch: &[f64], weight: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let sum: Vec<f64> = x.iter().zip(branch).map(|(x, b)| x + b).collect();
    let n = weight.len() as f64;
    let normed = sum
        .chunks(weight.len())
        .flat_map(|row| {
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + EPS).sqrt();
            row.iter()
                .zip(weight)
                .map(move |(x, w)| (x - mean) * scale * w)
        })
        .collect();
    (sum, normed)
}

impl Inputs {
    fn new(rows: usize, width: usize) -> Self {
        Self {
            rows,
            width,
            x: normals(1, rows * width)
                .iter()
                .map(|x| 3.0 * x + 1.0)
                .collect(),
            branch: normals(2, rows * width),
            weight: normals(3, width).iter().map(|w| 1.0 + 0.3 * w).collect(),
            d_sum: normals(4, rows * width),
            d_normed: normals(5, rows * width),
        }
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows, self.width]
    }

    /// Expected values by the formula; the gradient of an unused output is 0.
    fn expected(&self, sum_used: bool, normed_used: bool) -> Expected {
        let used = |values: &[f32], used: bool| -> Vec<f64> {
            let scale = if used { 1.0 } else { 0.0 };
            values.iter().map(|&v| scale * f64::from(v)).collect()
        };
        let (d_sum, d_normed) = (
            used(&self.d_sum, sum_used),
            used(&self.d_normed, normed_used),
        );
        let weight = wide(&self.weight);
        let (sum, normed) = forward(&wide(&self.x), &wide(&self.branch), &weight);
        let n = self.width as f64;
        let (mut d_x, mut d_weight) = (vec![], vec![0.0; self.width]);
        let mut terms = Terms::default();
        for (row, (d_sum, d)) in sum
            .chunks(self.width)
            .zip(d_sum.chunks(self.width).zip(d_normed.chunks(self.width)))
        {
            let mean = row.iter().sum::<f64>() / n;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (variance + EPS).sqrt();
            let y: Vec<f64> = row.iter().map(|x| (x - mean) * scale).collect();
            let g: Vec<f64> = d.iter().zip(&weight).map(|(d, w)| d * w).collect();
            let mean_g = g.iter().sum::<f64>() / n;
            let mean_gy = g.iter().zip(&y).map(|(g, y)| g * y).sum::<f64>() / n;
            terms.include(scale, row, d, &g, &weight);
            for j in 0..self.width {
                d_x.push(d_sum[j] + scale * (g[j] - mean_g - y[j] * mean_gy));
                d_weight[j] += d[j] * y[j];
            }
        }
        Expected {
            sum,
            normed,
            d_x,
            d_weight,
            terms,
        }
    }

    /// Sum, norm, and gradients of x, branch and weight through autodiff.
    fn run(&self, sum_used: bool, normed_used: bool) -> [Option<Vec<f32>>; 5] {
        let device = autodiff_device();
        let x = tensor(&self.x, self.shape(), &device).require_grad();
        let branch = tensor(&self.branch, self.shape(), &device).require_grad();
        let weight = tensor(&self.weight, [self.width], &device).require_grad();
        let (sum, normed) =
            add_layer_norm(x.clone(), branch.clone(), weight.clone(), EPS, DType::F32);
        let times =
            |out: &Tensor<2>, d: &[f32]| (out.clone() * tensor(d, self.shape(), &device)).sum();
        let loss = match (sum_used, normed_used) {
            (true, true) => times(&sum, &self.d_sum) + times(&normed, &self.d_normed),
            (true, false) => times(&sum, &self.d_sum),
            _ => times(&normed, &self.d_normed),
        };
        let grads = loss.backward();
        [
            Some(read(sum.inner())),
            Some(read(normed.inner())),
            x.grad(&grads).map(read),
            branch.grad(&grads).map(read),
            weight.grad(&grads).map(read),
        ]
    }

    fn check(&self) {
        for (sum_used, normed_used) in [(true, true), (true, false), (false, true)] {
            let what = format!("{} x {}, {sum_used} {normed_used}", self.rows, self.width);
            let expected = self.expected(sum_used, normed_used);
            let [sum, normed, d_x, d_branch, d_weight] = self.run(sum_used, normed_used);
            assert_close(&sum.unwrap(), &expected.sum, 1e-6, &format!("sum, {what}"));
            assert_close_to_terms(
                &normed.unwrap(),
                &expected.normed,
                expected.terms.normed,
                5e-6,
                &format!("normed, {what}"),
            );
            let gradient = |name: &str, found: &[f32], expected: &[f64], terms: f64| {
                let what = format!("{name}, {what}");
                if self.width == 1 {
                    // A row of one element has no variance. A device that contracts `x · scale - mean · scale` has a rounding error of
                    // x, multiplied by 316 (the inverse root of epsilon).
                    let error = max_error(&wide(found), expected);
                    assert!(error < 1e-4, "{what}: error {error:e}");
                } else {
                    assert_close_to_terms(found, expected, terms, 5e-6, &what);
                }
            };
            let terms = &expected.terms;
            gradient("d_x", &d_x.unwrap(), &expected.d_x, terms.d_x);
            gradient("d_branch", &d_branch.unwrap(), &expected.d_x, terms.d_x);
            match d_weight {
                Some(found) => {
                    gradient("d_weight", &found, &expected.d_weight, terms.d_weight);
                }
                None => assert!(
                    !normed_used,
                    "the weight has a gradient where the norm is used"
                ),
            }
        }
    }
}

#[test]
fn outputs_and_gradients_equal_the_formula() {
    for (rows, width) in [
        (1, 1),
        (1, 3),
        (39, 2),
        (20, 2),
        (69, 3),
        (5, 16),
        (37, 33),
        (2, 768),
        (3, 1024),
        (3, 2052),
    ] {
        Inputs::new(rows, width).check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_shapes_equal_the_formula(rows in 1usize..70, width in 2usize..300) {
        Inputs::new(rows, width).check();
    }
}

/// Checks the expected gradients against finite differences of the expected outputs.
#[test]
fn expected_gradients_are_the_derivative() {
    let inputs = Inputs::new(2, 7);
    let expected = inputs.expected(true, true);
    let loss = |x: &[f64], weight: &[f64]| {
        let (sum, normed) = forward(x, &wide(&inputs.branch), weight);
        let dot =
            |a: &[f64], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, &b)| a * f64::from(b)).sum() };
        dot(&sum, &inputs.d_sum) + dot(&normed, &inputs.d_normed)
    };
    let (x, weight) = (wide(&inputs.x), wide(&inputs.weight));
    let step = 1e-5;
    for (i, &d) in expected.d_x.iter().enumerate() {
        let moved = |by: f64| {
            let mut x = x.clone();
            x[i] += by;
            loss(&x, &weight)
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        assert!((slope - d).abs() < 1e-7, "x[{i}]: {slope} {d}");
    }
    for (j, &d) in expected.d_weight.iter().enumerate() {
        let moved = |by: f64| {
            let mut weight = weight.clone();
            weight[j] += by;
            loss(&x, &weight)
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        assert!((slope - d).abs() < 1e-7, "weight[{j}]: {slope} {d}");
    }
}

#[test]
fn sum_may_be_used_twice() {
    let inputs = Inputs::new(4, 12);
    let device = autodiff_device();
    let x = tensor(&inputs.x, [4, 12], &device).require_grad();
    let branch = tensor(&inputs.branch, [4, 12], &device);
    let weight = tensor(&inputs.weight, [12], &device);
    let (sum, normed) = add_layer_norm(x.clone(), branch, weight, EPS, DType::F32);
    let d_sum = tensor(&inputs.d_sum, [4, 12], &device);
    // Once beside the norm, and once deeper in the graph.
    let behind = (sum.clone() + normed * tensor(&inputs.d_normed, [4, 12], &device)).sum();
    let grads = (behind + (sum * d_sum).sum()).backward();
    let mut twice = Inputs::new(4, 12);
    twice.d_sum.iter_mut().for_each(|d| *d += 1.0);
    let expected = twice.expected(true, true);
    assert_close(&read(x.grad(&grads).unwrap()), &expected.d_x, 5e-6, "d_x");
}

#[test]
fn saved_output_gives_the_gradients_of_the_saved_sum() {
    for (rows, width) in [(5, 24), (70, 33), (3, 768)] {
        let mut inputs = Inputs::new(rows, width);
        inputs.weight[1] = 0.0;
        let device = device();
        let of = |values: &[f32]| tensor(values, inputs.shape(), &device);
        let weight = tensor(&inputs.weight, [width], &device);
        let (sum, normed, inv_std) = add_layer_norm_forward(
            of(&inputs.x),
            of(&inputs.branch),
            weight.clone(),
            EPS,
            DType::F32,
        );
        for has_d_sum in [true, false] {
            let expected = inputs.expected(has_d_sum, true);
            for (saved, kept) in [(SavedNorm::Sum, &sum), (SavedNorm::Normed, &normed)] {
                let (d_x, d_branch, d_weight) = add_layer_norm_backward(
                    (of(&inputs.d_sum), of(&inputs.d_normed)),
                    (kept.clone(), inv_std.clone()),
                    weight.clone(),
                    AddNormBackward {
                        eps: EPS,
                        saved,
                        has_d_sum,
                        sum: DType::F32,
                        branch: DType::F32,
                    },
                );
                let what = format!("{rows} x {width}, {saved:?}, has_d_sum {has_d_sum}");
                let mut expected_weight = expected.d_weight.clone();
                let mut expected_x = expected.d_x.clone();
                if saved == SavedNorm::Normed {
                    // The documented exception: a column whose weight is 0.
                    expected_weight[1] = 0.0;
                    expected_x
                        .iter_mut()
                        .skip(1)
                        .step_by(width)
                        .for_each(|d| *d = 0.0);
                }
                let known = |values: Vec<f32>| -> Vec<f32> {
                    let blank = saved == SavedNorm::Normed;
                    let keep = |(i, v): (usize, f32)| {
                        if blank && i % width == 1 { 0.0 } else { v }
                    };
                    values.into_iter().enumerate().map(keep).collect()
                };
                assert_close(&known(read(d_x)), &expected_x, 1e-5, &what);
                assert_close(&known(read(d_branch)), &expected_x, 1e-5, &what);
                assert_close(&read(d_weight), &expected_weight, 1e-5, &what);
            }
        }
    }
}

#[test]
fn fallback_in_f64_equals_the_formula() {
    if !computes_in(DType::F64) {
        return;
    }
    let inputs = Inputs::new(6, 19);
    let expected = inputs.expected(true, true);
    let device = autodiff_device();
    let of = |values: &[f32]| tensor64(&wide(values), [6, 19], &device);
    let (x, branch) = (
        of(&inputs.x).require_grad(),
        of(&inputs.branch).require_grad(),
    );
    let weight = tensor64(&wide(&inputs.weight), [19], &device).require_grad();
    let (sum, normed) = add_layer_norm(x.clone(), branch.clone(), weight.clone(), EPS, DType::F64);
    let grads = ((sum * of(&inputs.d_sum)).sum() + (normed.clone() * of(&inputs.d_normed)).sum())
        .backward();
    let errors = [
        relative_error(&read64(normed.inner()), &expected.normed),
        relative_error(&read64(x.grad(&grads).unwrap()), &expected.d_x),
        relative_error(&read64(branch.grad(&grads).unwrap()), &expected.d_x),
        relative_error(&read64(weight.grad(&grads).unwrap()), &expected.d_weight),
    ];
    assert!(errors.iter().all(|&e| e < 1e-10), "{errors:?}");
}

/// With a half-precision branch and norm the residual stream stays f32; gradients are within the rounding of their dtypes.
#[test]
fn half_precision_rounds_only_branch_and_norm() {
    for (dtype, float, unit) in [
        (DType::BF16, FloatDType::BF16, 2f64.powi(-8)),
        (DType::F16, FloatDType::F16, 2f64.powi(-11)),
    ] {
        if !computes_in(dtype) {
            continue;
        }
        let mut inputs = Inputs::new(33, 96);
        let device = autodiff_device();
        let rounded = |values: &[f32]| tensor(values, [33, 96], &device).cast(float);
        // The formula gets the rounded inputs of the op.
        inputs.branch = read(rounded(&inputs.branch).inner());
        inputs.d_normed = read(rounded(&inputs.d_normed).inner());
        let expected = inputs.expected(true, true);
        let x = tensor(&inputs.x, [33, 96], &device).require_grad();
        let branch = rounded(&inputs.branch).require_grad();
        let weight = tensor(&inputs.weight, [96], &device).require_grad();
        let (sum, normed) = add_layer_norm(x.clone(), branch.clone(), weight.clone(), EPS, dtype);
        assert_eq!((sum.dtype(), normed.dtype()), (DType::F32, dtype));
        let loss = (sum.clone() * tensor(&inputs.d_sum, [33, 96], &device)).sum()
            + (normed.clone() * rounded(&inputs.d_normed))
                .cast(FloatDType::F32)
                .sum();
        let grads = loss.backward();
        let (d_x, d_branch) = (x.grad(&grads).unwrap(), branch.grad(&grads).unwrap());
        assert_eq!((d_x.dtype(), d_branch.dtype()), (DType::F32, dtype));
        assert_close(&read(sum.inner()), &expected.sum, 1e-6, "sum");
        assert_close(&read(normed.inner()), &expected.normed, unit, "normed");
        assert_close(&read(d_x), &expected.d_x, unit, "d_x");
        assert_close(&read(d_branch), &expected.d_x, 2.0 * unit, "d_branch");
        let d_weight = read(weight.grad(&grads).unwrap());
        assert_close(&d_weight, &expected.d_weight, unit, "d_weight");
    }
}

/// A half-precision residual stream: the sum is rounded to its dtype, the norm to its own.
#[test]
fn a_half_precision_stream_is_rounded_once() {
    for (dtype, float, unit) in [
        (DType::BF16, FloatDType::BF16, 2f64.powi(-8)),
        (DType::F16, FloatDType::F16, 2f64.powi(-11)),
    ] {
        if !computes_in(dtype) {
            continue;
        }
        let mut inputs = Inputs::new(33, 96);
        let device = autodiff_device();
        let rounded = |values: &[f32]| tensor(values, [33, 96], &device).cast(float);
        inputs.x = read(rounded(&inputs.x).inner());
        inputs.branch = read(rounded(&inputs.branch).inner());
        let expected = inputs.expected(true, true);
        let weight = tensor(&inputs.weight, [96], &device);
        let (x, branch) = (rounded(&inputs.x), rounded(&inputs.branch));
        for out in [dtype, DType::F32] {
            let (x, branch) = (x.clone().inner(), branch.clone().inner());
            let (sum, normed) = add_layer_norm(x, branch, weight.clone().inner(), EPS, out);
            assert_eq!((sum.dtype(), normed.dtype()), (dtype, out));
            assert_close(&read(sum), &expected.sum, unit, "sum");
            // Backends without a kernel normalize the rounded sum.
            assert_close(&read(normed), &expected.normed, 3.0 * unit, "normed");
        }
    }
}

#[test]
fn three_backward_runs_are_bit_identical() {
    let inputs = Inputs::new(300, 48);
    let run = || inputs.run(true, true).map(|values| bits(&values.unwrap()));
    let first = run();
    assert_eq!(run(), first);
    assert_eq!(run(), first);
}

#[test]
fn empty_input_gives_empty_outputs_and_a_zero_weight_gradient() {
    let device = autodiff_device();
    let x = tensor(&[], [0, 6], &device).require_grad();
    let branch = tensor(&[], [0, 6], &device).require_grad();
    let weight = tensor(&[1.0; 6], [6], &device).require_grad();
    let (sum, normed) = add_layer_norm(x, branch, weight.clone(), EPS, DType::F32);
    assert_eq!((sum.dims(), normed.dims()), ([0, 6], [0, 6]));
    let grads = (sum.sum() + normed.sum()).backward();
    assert_eq!(read(weight.grad(&grads).unwrap()), [0.0; 6]);
}
