//! LayerNorm: output and both gradients, extreme inputs, determinism.

use burn::tensor::{DType, FloatDType};
use burn_packed::ops::layer_norm::layer_norm;

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, max_error, normals, read, read64,
    relative_error, tensor, tensor64, wide,
};

const EPS: f64 = 1e-5;

/// Output and gradients of input and weight in f64.
fn expected(x: &[f64], weight: &[f64], d_out: &[f64]) -> [Vec<f64>; 3] {
    let width = weight.len();
    let n = width as f64;
    let (mut out, mut d_x, mut d_weight) = (vec![], vec![], vec![0.0; width]);
    for (x, d_out) in x.chunks(width).zip(d_out.chunks(width)) {
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let std = (variance + EPS).sqrt();
        let y: Vec<f64> = x.iter().map(|x| (x - mean) / std).collect();
        let g: Vec<f64> = d_out.iter().zip(weight).map(|(d, w)| d * w).collect();
        let mean_g = g.iter().sum::<f64>() / n;
        let mean_gy = g.iter().zip(&y).map(|(g, y)| g * y).sum::<f64>() / n;
        out.extend(y.iter().zip(weight).map(|(y, w)| y * w));
        d_x.extend(
            g.iter()
                .zip(&y)
                .map(|(g, y)| (g - mean_g - y * mean_gy) / std),
        );
        for j in 0..width {
            d_weight[j] += d_out[j] * y[j];
        }
    }
    [out, d_x, d_weight]
}

struct Inputs {
    rows: usize,
    width: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    d_out: Vec<f32>,
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
            weight: normals(2, width).iter().map(|w| 1.0 + 0.5 * w).collect(),
            d_out: normals(3, rows * width),
        }
    }

    /// Output and gradients of input and weight from the op.
    fn run(&self) -> [Vec<f32>; 3] {
        let device = autodiff_device();
        let x = tensor(&self.x, [self.rows, self.width], &device).require_grad();
        let weight = tensor(&self.weight, [self.width], &device).require_grad();
        let out = layer_norm(x.clone(), weight.clone(), None, EPS);
        let d_out = tensor(&self.d_out, [self.rows, self.width], &device);
        let grads = (out.clone() * d_out).sum().backward();
        [
            read(out.inner()),
            read(x.grad(&grads).unwrap()),
            read(weight.grad(&grads).unwrap()),
        ]
    }

    fn expected(&self) -> [Vec<f64>; 3] {
        expected(&wide(&self.x), &wide(&self.weight), &wide(&self.d_out))
    }
}

#[test]
fn output_and_gradients_equal_the_formula() {
    for (rows, width) in [
        (1, 3),
        (3, 15),
        (5, 16),
        (4, 17),
        (127, 8),
        (300, 33),
        (2, 768),
    ] {
        let inputs = Inputs::new(rows, width);
        for ((found, expected), what) in inputs
            .run()
            .iter()
            .zip(inputs.expected())
            .zip(["output", "input", "weight"])
        {
            assert_close(found, &expected, 5e-6, &format!("{rows} x {width}, {what}"));
        }
    }
}

#[test]
fn fallback_in_f64_equals_the_formula() {
    if !computes_in(DType::F64) {
        return;
    }
    let inputs = Inputs::new(7, 19);
    let device = autodiff_device();
    let x = tensor64(&wide(&inputs.x), [7, 19], &device).require_grad();
    let weight = tensor64(&wide(&inputs.weight), [19], &device).require_grad();
    let out = layer_norm(x.clone(), weight.clone(), None, EPS);
    let grads = (out.clone() * tensor64(&wide(&inputs.d_out), [7, 19], &device))
        .sum()
        .backward();
    let found = [out.inner(), x.grad(&grads).unwrap()].map(read64);
    let [expected_out, expected_x, expected_weight] = inputs.expected();
    let errors = [
        relative_error(&found[0], &expected_out),
        relative_error(&found[1], &expected_x),
        relative_error(&read64(weight.grad(&grads).unwrap()), &expected_weight),
    ];
    assert!(errors.iter().all(|&e| e < 1e-10), "{errors:?}");
}

#[test]
fn bias_is_added_and_its_gradient_is_the_sum_over_rows() {
    let inputs = Inputs::new(6, 10);
    let device = autodiff_device();
    let bias = normals(4, 10);
    let x = tensor(&inputs.x, [6, 10], &device).require_grad();
    let weight = tensor(&inputs.weight, [10], &device);
    let b = tensor(&bias, [10], &device).require_grad();
    let out = layer_norm(x.clone(), weight, Some(b.clone()), EPS);
    let grads = (out.clone() * tensor(&inputs.d_out, [6, 10], &device))
        .sum()
        .backward();
    let [plain, d_x, _] = inputs.expected();
    let shifted: Vec<f64> = plain
        .iter()
        .zip(bias.iter().cycle())
        .map(|(y, &b)| y + f64::from(b))
        .collect();
    assert_close(&read(out.inner()), &shifted, 5e-6, "output");
    assert_close(
        &read(x.grad(&grads).unwrap()),
        &d_x,
        5e-6,
        "gradient of the input, weight untracked",
    );
    let sums: Vec<f64> = (0..10)
        .map(|j| (0..6).map(|i| f64::from(inputs.d_out[i * 10 + j])).sum())
        .collect();
    assert_close(
        &read(b.grad(&grads).unwrap()),
        &sums,
        1e-6,
        "gradient of the bias",
    );
}

#[test]
fn row_without_variance_gives_zeros_and_finite_gradients() {
    let mut inputs = Inputs::new(3, 32);
    inputs.x[32..64].fill(7.0);
    let [out, d_x, _] = inputs.run();
    assert_eq!(out[32..64], [0.0; 32]);
    assert!(d_x.iter().all(|d| d.is_finite()));
}

#[test]
fn large_mean_costs_three_digits_at_most() {
    let mut inputs = Inputs::new(4, 256);
    inputs.x = normals(5, 4 * 256).iter().map(|x| x + 1000.0).collect();
    let [out, ..] = inputs.run();
    let error = max_error(&wide(&out), &inputs.expected()[0]);
    assert!(error < 1e-3, "{error:e}");
}

#[test]
fn three_backward_runs_are_bit_identical() {
    let inputs = Inputs::new(300, 48);
    let first = inputs.run().map(|values| bits(&values));
    for _ in 0..2 {
        assert_eq!(inputs.run().map(|values| bits(&values)), first);
    }
}

#[test]
fn bf16_is_the_rounded_f32_result() {
    if !computes_in(DType::BF16) {
        return;
    }
    let inputs = Inputs::new(5, 24);
    let x = tensor(&inputs.x, [5, 24], &device()).cast(FloatDType::BF16);
    let weight = tensor(&inputs.weight, [24], &device());
    let expected = layer_norm(x.clone().cast(FloatDType::F32), weight.clone(), None, EPS);
    let found = layer_norm(x, weight, None, EPS);
    assert_eq!(
        bits(&read(found)),
        bits(&read(expected.cast(FloatDType::BF16)))
    );
}

#[test]
fn empty_input_gives_empty_output_and_a_zero_weight_gradient() {
    let device = autodiff_device();
    let x = tensor(&[], [0, 6], &device).require_grad();
    let weight = tensor(&[1.0; 6], [6], &device).require_grad();
    let out = layer_norm(x, weight.clone(), None, EPS);
    assert_eq!(out.dims(), [0, 6]);
    let grads = out.sum().backward();
    assert_eq!(read(weight.grad(&grads).unwrap()), [0.0; 6]);
}
