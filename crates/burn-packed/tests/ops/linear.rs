//! Linear layers and GEMM: forward pass, both gradients, bias, mixed dtypes.

use burn::tensor::{DType, FloatDType};
use burn_packed::ops::linear::{Transpose, gemm, gemm_f32, linear};

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, normals, read, read64,
    relative_error, relative_rms_error, tensor, tensor64, wide,
};

/// `a [m, k] · b [k, n]` in f64; the operands are functions of their indices.
fn matmul(
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
            matmul([t, i, o], x, |r, c| weight(c, r)),
            matmul([t, o, i], d_out, weight),
            matmul([o, t, i], |r, c| d_out(c, r), x),
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
fn fallback_in_f64_equals_the_formula() {
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
fn operand_without_gradient_does_not_affect_the_other() {
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
fn bias_is_added_to_every_row_and_its_gradient_is_the_sum() {
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

/// f32 parameters in a bf16 pass: the output is bf16, the weight's gradient f32.
#[test]
fn f32_weight_serves_a_half_precision_input() {
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

/// GEMM in half precision, every transposition. The operands are rounded beforehand, so that only the rounding of the result remains,
/// or a few of them on processors that accumulate in parts in the operands' dtype. The sizes end in the middle of every tile that
/// kernels use. The last two are long and narrow, which some kernels split along K. Rows whose size is not a multiple of eight
/// elements cannot be addressed by TMA.
#[test]
fn half_precision_gemm_of_any_size_is_exact_up_to_the_last_rounding() {
    let sizes = [
        [1, 8, 8],
        [3, 24, 16],
        [64, 64, 64],
        [65, 72, 136],
        [129, 200, 264],
        [257, 40, 520],
        [5, 7, 9],
        [130, 65, 33],
        [136, 3000, 72],
        [24, 4104, 200],
    ];
    for (dtype, cast, rounding) in [
        (DType::BF16, FloatDType::BF16, 1.0 / 256.0),
        (DType::F16, FloatDType::F16, 1.0 / 512.0),
    ] {
        if !computes_in(dtype) {
            continue;
        }
        for (index, [m, k, n]) in sizes.into_iter().enumerate() {
            for transpose in [Transpose::None, Transpose::Lhs, Transpose::Rhs] {
                let device = device();
                let (left, right) = match transpose {
                    Transpose::None => ([m, k], [k, n]),
                    Transpose::Lhs => ([k, m], [k, n]),
                    Transpose::Rhs => ([m, k], [n, k]),
                };
                let seed = 10 * index as u64;
                let a = tensor(&normals(seed, m * k), left, &device).cast(cast);
                let b = tensor(&normals(seed + 1, k * n), right, &device).cast(cast);
                let (x, y) = (read(a.clone()), read(b.clone()));
                let expected = matmul(
                    [m, k, n],
                    |i, p| match transpose {
                        Transpose::Lhs => x[p * m + i],
                        _ => x[i * k + p],
                    },
                    |p, j| match transpose {
                        Transpose::Rhs => y[j * k + p],
                        _ => y[p * n + j],
                    },
                );
                let what = format!("{dtype:?}, {transpose:?}, {m} x {k} x {n}");
                let wide_result = gemm_f32(a.clone(), b.clone(), transpose);
                assert_eq!(
                    (wide_result.dtype(), wide_result.dims()),
                    (DType::F32, [m, n])
                );
                assert_close(&read(wide_result), &expected, 4e-6, &format!("{what}, f32"));
                let result = gemm(a, b, transpose);
                assert_eq!((result.dtype(), result.dims()), (dtype, [m, n]));
                assert_close(&read(result), &expected, rounding, &what);
            }
        }
    }
}

/// Rows are batch-invariant and deterministic.
#[test]
fn gemm_rows_are_batch_invariant() {
    for (dtype, cast) in [
        (DType::F32, FloatDType::F32),
        (DType::BF16, FloatDType::BF16),
    ] {
        if !computes_in(dtype) {
            continue;
        }
        let device = device();
        let (m, k, n) = (300, 136, 200);
        let a = tensor(&normals(5, m * k), [m, k], &device).cast(cast);
        let b = tensor(&normals(6, n * k), [n, k], &device).cast(cast);
        let all = read(gemm(a.clone(), b.clone(), Transpose::Rhs));
        let again = read(gemm(a.clone(), b.clone(), Transpose::Rhs));
        assert_eq!(bits(&all), bits(&again), "{dtype:?}: two runs");
        // The other rows change, their number does not.
        let others = tensor(&normals(7, (m - 150) * k), [m - 150, k], &device).cast(cast);
        let a = burn::tensor::Tensor::cat(vec![a.slice([0..150, 0..k]), others], 0);
        let mixed = read(gemm(a, b, Transpose::Rhs));
        assert_eq!(bits(&all[..150 * n]), bits(&mixed[..150 * n]), "{dtype:?}");
    }
}

#[test]
fn empty_gemm_gives_an_empty_result() {
    let out = linear(
        tensor(&[], [0, 6], &device()),
        tensor(&[1.0; 12], [2, 6], &device()),
        None,
    );
    assert_eq!(out.dims(), [0, 2]);
}

#[test]
fn empty_input_gives_empty_output_and_a_zero_weight_gradient() {
    let device = autodiff_device();
    let input = tensor::<2>(&[], [0, 3], &device).require_grad();
    let weight = tensor(&[1.0; 6], [2, 3], &device).require_grad();
    let out = linear(input.clone(), weight.clone(), None);
    assert_eq!(out.dims(), [0, 2]);
    let grads = out.sum().backward();
    assert_eq!(input.grad(&grads).unwrap().dims(), [0, 3]);
    assert_eq!(read(weight.grad(&grads).unwrap()), [0.0; 6]);
}
