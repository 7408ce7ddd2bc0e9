//! The product with a weight: forward, both gradients, bias, mixed dtypes.

use burn::tensor::{DType, FloatDType};
use modernbert::ops::linear::linear;

use crate::common::{
    assert_close, autodiff_device, computes_in, device, normals, read, read64, relative_error,
    relative_rms_error, tensor, tensor64, wide,
};

/// `a [m, k] · b [k, n]` in f64, each given by how to find an element.
fn product(
    [m, k, n]: [usize; 3],
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let element = |i, j| {
        (0..k)
            .map(|x| f64::from(a(i, x)) * f64::from(b(x, j)))
            .sum()
    };
    (0..m)
        .flat_map(|i| (0..n).map(move |j| (i, j)))
        .map(|(i, j)| element(i, j))
        .collect()
}

struct Inputs {
    tokens: usize,
    input: usize,
    output: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    d_out: Vec<f32>,
}

impl Inputs {
    fn new([tokens, input, output]: [usize; 3]) -> Self {
        Self {
            tokens,
            input,
            output,
            x: normals(1, tokens * input),
            weight: normals(2, output * input),
            d_out: normals(3, tokens * output),
        }
    }

    /// Output and gradients of input and weight in f64.
    fn expected(&self) -> [Vec<f64>; 3] {
        let (t, i, o) = (self.tokens, self.input, self.output);
        let x = |r: usize, c: usize| self.x[r * i + c];
        let weight = |r: usize, c: usize| self.weight[r * i + c];
        let d_out = |r: usize, c: usize| self.d_out[r * o + c];
        [
            product([t, i, o], x, |r, c| weight(c, r)),
            product([t, o, i], d_out, weight),
            product([o, t, i], |r, c| d_out(c, r), x),
        ]
    }
}

const SHAPES: [[usize; 3]; 6] = [
    [1, 1, 1],
    [3, 5, 7],
    [1, 64, 3],
    [17, 16, 33],
    [130, 48, 20],
    [2, 768, 65],
];

#[test]
fn output_and_gradients_equal_the_formula() {
    for shape in SHAPES {
        let inputs = Inputs::new(shape);
        let device = autodiff_device();
        let x = tensor(&inputs.x, [inputs.tokens, inputs.input], &device).require_grad();
        let weight = tensor(&inputs.weight, [inputs.output, inputs.input], &device).require_grad();
        let out = linear(x.clone(), weight.clone(), None);
        let d_out = tensor(&inputs.d_out, [inputs.tokens, inputs.output], &device);
        let grads = (out.clone() * d_out).sum().backward();
        let [expected_out, expected_x, expected_weight] = inputs.expected();
        assert_close(
            &read(out.inner()),
            &expected_out,
            2e-6,
            &format!("{shape:?}, output"),
        );
        assert_close(
            &read(x.grad(&grads).unwrap()),
            &expected_x,
            2e-6,
            &format!("{shape:?}, input"),
        );
        let d_weight = read(weight.grad(&grads).unwrap());
        assert_close(
            &d_weight,
            &expected_weight,
            2e-6,
            &format!("{shape:?}, weight"),
        );
    }
}

#[test]
fn portable_ops_in_f64_equal_the_formula() {
    if !computes_in(DType::F64) {
        return;
    }
    let inputs = Inputs::new([9, 13, 6]);
    let device = autodiff_device();
    let x = tensor64(&wide(&inputs.x), [9, 13], &device).require_grad();
    let weight = tensor64(&wide(&inputs.weight), [6, 13], &device).require_grad();
    let out = linear(x.clone(), weight.clone(), None);
    let grads = (out.clone() * tensor64(&wide(&inputs.d_out), [9, 6], &device))
        .sum()
        .backward();
    let found = [
        out.inner(),
        x.grad(&grads).unwrap(),
        weight.grad(&grads).unwrap(),
    ]
    .map(read64);
    for (found, expected) in found.iter().zip(inputs.expected()) {
        assert!(relative_error(found, &expected) < 1e-12);
    }
}

#[test]
fn a_side_without_gradient_leaves_the_other_its_own() {
    let inputs = Inputs::new([6, 10, 4]);
    let [_, expected_x, expected_weight] = inputs.expected();
    let device = autodiff_device();
    for input_tracked in [true, false] {
        let x = tensor(&inputs.x, [6, 10], &device).set_require_grad(input_tracked);
        let weight = tensor(&inputs.weight, [4, 10], &device).set_require_grad(!input_tracked);
        let d_out = tensor(&inputs.d_out, [6, 4], &device);
        let grads = (linear(x.clone(), weight.clone(), None) * d_out)
            .sum()
            .backward();
        if input_tracked {
            assert_close(
                &read(x.grad(&grads).unwrap()),
                &expected_x,
                2e-6,
                "input alone",
            );
            assert!(weight.grad(&grads).is_none());
        } else {
            assert_close(
                &read(weight.grad(&grads).unwrap()),
                &expected_weight,
                2e-6,
                "weight alone",
            );
            assert!(x.grad(&grads).is_none());
        }
    }
}

#[test]
fn a_bias_is_added_to_every_row_and_its_gradient_is_their_sum() {
    let inputs = Inputs::new([5, 8, 3]);
    let device = autodiff_device();
    let bias = [1.0, -2.0, 3.0];
    let x = tensor(&inputs.x, [5, 8], &device);
    let weight = tensor(&inputs.weight, [3, 8], &device);
    let b = tensor(&bias, [3], &device).require_grad();
    let out = linear(x, weight, Some(b.clone()));
    let grads = (out.clone() * tensor(&inputs.d_out, [5, 3], &device))
        .sum()
        .backward();
    let expected: Vec<f64> = inputs.expected()[0]
        .iter()
        .zip(bias.iter().cycle())
        .map(|(y, &b)| y + f64::from(b))
        .collect();
    assert_close(&read(out.inner()), &expected, 2e-6, "output");
    let sums: Vec<f64> = (0..3)
        .map(|j| (0..5).map(|i| f64::from(inputs.d_out[i * 3 + j])).sum())
        .collect();
    assert_close(
        &read(b.grad(&grads).unwrap()),
        &sums,
        1e-6,
        "gradient of the bias",
    );
}

/// Parameters stay f32 while the pass is in bf16: the product is bf16, the weight's gradient f32.
#[test]
fn a_half_precision_input_takes_an_f32_weight_along() {
    if !computes_in(DType::BF16) {
        return;
    }
    let inputs = Inputs::new([8, 32, 16]);
    let device = autodiff_device();
    let x = tensor(&inputs.x, [8, 32], &device)
        .cast(FloatDType::BF16)
        .require_grad();
    let weight = tensor(&inputs.weight, [16, 32], &device).require_grad();
    let bias = tensor(&[0.0; 16], [16], &device).require_grad();
    let out = linear(x.clone(), weight.clone(), Some(bias));
    assert_eq!(out.dtype(), DType::BF16);
    let d_out = tensor(&inputs.d_out, [8, 16], &device);
    let grads = (out.clone().cast(FloatDType::F32) * d_out).sum().backward();
    let [expected_out, expected_x, expected_weight] = inputs.expected();
    let (d_x, d_weight) = (x.grad(&grads).unwrap(), weight.grad(&grads).unwrap());
    assert_eq!((d_x.dtype(), d_weight.dtype()), (DType::BF16, DType::F32));
    let found = [read(out.inner()), read(d_x), read(d_weight)];
    for (found, expected) in found
        .iter()
        .zip([expected_out, expected_x, expected_weight])
    {
        let error = relative_rms_error(&wide(found), &expected);
        assert!(
            error < 0.006,
            "two roundings of the operands and one of the result, got {error}"
        );
    }
}

#[test]
fn no_rows_yield_no_rows() {
    let out = linear(
        tensor(&[], [0, 6], &device()),
        tensor(&[1.0; 12], [2, 6], &device()),
        None,
    );
    assert_eq!(out.dims(), [0, 2]);
}

#[test]
fn no_rows_yield_no_rows_and_a_zero_weight_gradient() {
    let device = autodiff_device();
    let input = tensor::<2>(&[], [0, 3], &device).require_grad();
    let weight = tensor(&[1.0; 6], [2, 3], &device).require_grad();
    let out = linear(input.clone(), weight.clone(), None);
    assert_eq!(out.dims(), [0, 2]);
    let grads = out.sum().backward();
    assert_eq!(input.grad(&grads).unwrap().dims(), [0, 3]);
    assert_eq!(read(weight.grad(&grads).unwrap()), [0.0; 6]);
}
