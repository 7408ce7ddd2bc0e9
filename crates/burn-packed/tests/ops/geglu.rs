//! GeGLU: golden values, the order of the halves, the exact derivative.

use burn::tensor::{DType, FloatDType};
use burn_packed::ops::geglu::{geglu, geglu_backward_with_output, geglu_mlp};
use burn_packed::ops::linear::linear;

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, normals, read, read64,
    relative_error, tensor, tensor64, wide,
};

/// erf by a series of positive terms, `2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (2n+1)!!`.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    if x.abs() > 6.0 {
        x.signum()
    } else {
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    }
}

fn cdf(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

fn slope(x: f64) -> f64 {
    cdf(x) + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Rows of `width` activated and `width` gate values, in the range where GELU is nonlinear.
fn input(rows: usize, width: usize) -> Vec<f32> {
    normals(1, rows * 2 * width)
        .iter()
        .map(|x| 2.0 * x)
        .collect()
}

/// Output and gradient in f64.
fn expected(input: &[f64], d_out: &[f64], width: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut grad) = (vec![], vec![]);
    for (row, d_out) in input.chunks(2 * width).zip(d_out.chunks(width)) {
        let (x, gate) = row.split_at(width);
        out.extend((0..width).map(|j| x[j] * cdf(x[j]) * gate[j]));
        grad.extend((0..width).map(|j| d_out[j] * gate[j] * slope(x[j])));
        grad.extend((0..width).map(|j| d_out[j] * x[j] * cdf(x[j])));
    }
    (out, grad)
}

#[test]
fn values_equal_the_golden_values() {
    let golden = [
        (-3.0, -0.004_049_69),
        (-2.0, -0.045_500_26),
        (-1.0, -0.158_655_25),
        (-0.5, -0.154_268_77),
        (0.5, 0.345_731_23),
        (1.0, 0.841_344_7),
        (2.0, 1.954_499_7),
        (3.0, 2.995_950_3),
    ];
    for (x, expected) in golden {
        let found = read(geglu(tensor(&[x, 1.0], [1, 2], &device())))[0];
        assert!(
            (found - expected).abs() < 5e-7,
            "gelu({x}) = {found}, expected {expected}"
        );
    }
}

#[test]
fn the_first_half_is_activated_and_the_second_is_the_gate() {
    let found = read(geglu(tensor(&[1.0, 2.0, -3.0, 4.0], [1, 4], &device())));
    assert_close(
        &found,
        &[-3.0 * 0.841_344_75, 4.0 * 1.954_499_74],
        1e-6,
        "gelu of the first half",
    );
}

#[test]
fn output_and_gradient_equal_the_formula() {
    for (rows, width) in [(1, 1), (3, 7), (5, 16), (70, 33), (2, 1152)] {
        let (values, d_out) = (input(rows, width), normals(2, rows * width));
        let device = autodiff_device();
        let x = tensor(&values, [rows, 2 * width], &device).require_grad();
        let out = geglu(x.clone());
        let grads = (out.clone() * tensor(&d_out, [rows, width], &device))
            .sum()
            .backward();
        let (expected_out, expected_grad) = expected(&wide(&values), &wide(&d_out), width);
        assert_close(&read(out.inner()), &expected_out, 1e-6, "output");
        assert_close(
            &read(x.grad(&grads).unwrap()),
            &expected_grad,
            1e-6,
            "gradient",
        );
    }
}

/// The derivative of the tanh approximation would be off by up to 9e-4.
#[test]
fn derivative_is_that_of_the_exact_gelu() {
    let values: Vec<f32> = (-600..=600).map(|i| i as f32 / 100.0).collect();
    let rows: Vec<f32> = values.iter().flat_map(|&x| [x, 1.0]).collect();
    let device = autodiff_device();
    let x = tensor(&rows, [values.len(), 2], &device).require_grad();
    let grads = geglu(x.clone()).sum().backward();
    let grad = read(x.grad(&grads).unwrap());
    for (i, &x) in values.iter().enumerate() {
        let error = (f64::from(grad[2 * i]) - slope(f64::from(x))).abs();
        assert!(error < 1e-6, "slope at {x} is off by {error:e}");
    }
}

#[test]
fn fallback_in_f64_equals_the_formula() {
    if !computes_in(DType::F64) {
        return;
    }
    let (rows, width) = (9, 17);
    let (values, d_out) = (wide(&input(rows, width)), wide(&normals(2, rows * width)));
    let device = autodiff_device();
    let x = tensor64(&values, [rows, 2 * width], &device).require_grad();
    let out = geglu(x.clone());
    let grads = (out.clone() * tensor64(&d_out, [rows, width], &device))
        .sum()
        .backward();
    let (expected_out, expected_grad) = expected(&values, &d_out, width);
    let errors = [
        relative_error(&read64(out.inner()), &expected_out),
        relative_error(&read64(x.grad(&grads).unwrap()), &expected_grad),
    ];
    assert!(errors.iter().all(|&e| e < 1e-10), "{errors:?}");
}

#[test]
fn large_inputs_saturate() {
    let rows = [1e4, 2.0, -1e4, 2.0, 88.0, 1.0, -88.0, 1.0, 0.0, 5.0];
    let device = autodiff_device();
    let x = tensor(&rows, [5, 2], &device).require_grad();
    let out = geglu(x.clone());
    let grads = out.clone().sum().backward();
    assert_close(
        &read(out.inner()),
        &[2e4, 0.0, 88.0, 0.0, 0.0],
        1e-7,
        "output",
    );
    let grad = read(x.grad(&grads).unwrap());
    assert_close(
        &grad,
        &[2.0, 1e4, 0.0, 0.0, 1.0, 88.0, 0.0, 0.0, 2.5, 0.0],
        1e-7,
        "gradient",
    );
}

#[test]
fn bf16_is_the_rounded_f32_result() {
    if !computes_in(DType::BF16) {
        return;
    }
    let x = tensor(&input(4, 9), [4, 18], &device()).cast(FloatDType::BF16);
    let expected = geglu(x.clone().cast(FloatDType::F32)).cast(FloatDType::BF16);
    assert_eq!(bits(&read(geglu(x))), bits(&read(expected)));
}

#[test]
fn empty_input_gives_empty_output() {
    let input = tensor(&[], [0, 6], &autodiff_device()).require_grad();
    let out = geglu(input.clone());
    assert_eq!(out.dims(), [0, 3]);
    let grads = out.clone().sum().backward();
    // Read back, because Fusion computes nothing before.
    assert!(read(out.inner()).is_empty());
    assert!(read(input.grad(&grads).unwrap()).is_empty());
}

#[test]
fn backward_with_output_returns_the_output() {
    for (rows, width) in [(3, 7), (40, 33), (5, 64)] {
        let (values, d_out) = (input(rows, width), normals(2, rows * width));
        let x = tensor(&values, [rows, 2 * width], &device());
        let (d_input, out) =
            geglu_backward_with_output(tensor(&d_out, [rows, width], &device()), x);
        let (expected_out, expected_grad) = expected(&wide(&values), &wide(&d_out), width);
        assert_close(&read(out), &expected_out, 1e-6, "output");
        assert_close(&read(d_input), &expected_grad, 1e-6, "gradient");
    }
}

/// Output, and gradients of input and weights, through one node of the autodiff graph or through three.
fn mlp(one_node: bool, dtype: DType) -> [Vec<f32>; 4] {
    let (rows, hidden, width, out_width) = (9, 12, 20, 14);
    let device = autodiff_device();
    let x = tensor(&normals(1, rows * hidden), [rows, hidden], &device).cast(dtype);
    let x = x.require_grad();
    let wi = tensor(
        &normals(2, 2 * width * hidden),
        [2 * width, hidden],
        &device,
    );
    let wi = (wi * 0.3).require_grad();
    let wo = tensor(&normals(3, out_width * width), [out_width, width], &device);
    let wo = (wo * 0.3).require_grad();
    let out = if one_node {
        geglu_mlp(x.clone(), wi.clone(), wo.clone())
    } else {
        linear(geglu(linear(x.clone(), wi.clone(), None)), wo.clone(), None)
    };
    assert_eq!(out.dtype(), dtype);
    let d_out = tensor(&normals(4, rows * out_width), [rows, out_width], &device);
    let grads = (out.clone() * d_out.cast(dtype)).sum().backward();
    [
        read(out.inner()),
        read(x.grad(&grads).unwrap()),
        read(wi.grad(&grads).unwrap()),
        read(wo.grad(&grads).unwrap()),
    ]
}

#[test]
fn mlp_in_one_node_equals_its_three_parts() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        if dtype != DType::F32 && !computes_in(dtype) {
            continue;
        }
        for (found, expected) in mlp(true, dtype).iter().zip(mlp(false, dtype)) {
            // The same operations in the same order give the same bits.
            assert_close(found, &wide(&expected), 1e-6, "one node and three");
        }
    }
}

#[test]
fn mlp_of_an_empty_input_has_zero_gradients() {
    let device = autodiff_device();
    let x = tensor(&[], [0, 6], &device).require_grad();
    let wi = tensor(&[0.5; 48], [8, 6], &device).require_grad();
    let wo = tensor(&[0.5; 24], [6, 4], &device).require_grad();
    let out = geglu_mlp(x, wi, wo);
    assert_eq!(out.dims(), [0, 6]);
}
