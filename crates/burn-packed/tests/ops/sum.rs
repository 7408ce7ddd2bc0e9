//! Sums over whole tensors: values, gradients, dtypes, determinism.

use burn::tensor::{DType, FloatDType, Tensor};
use burn_packed::ops::sum::{mean, sum, sum_of_squares};
use proptest::prelude::*;

use test_support::{
    assert_close, autodiff_device, bits, computes_in, device, normals, read, tensor, wide,
};

fn check(rows: usize, width: usize) {
    let x = normals(7, rows * width);
    let what = format!("{rows} x {width}");
    let found = |sum: fn(Tensor<2>) -> Tensor<1>| -> Vec<f64> {
        wide(&read(sum(tensor(&x, [rows, width], &device()))))
    };
    // Terms of both signs cancel, so the error is relative to the sum of their absolute values.
    let sizes: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
    let expected: f64 = x.iter().map(|&x| f64::from(x)).sum();
    let error = (found(sum)[0] - expected).abs();
    assert!(error <= 1e-6 * sizes, "{what}: sum off by {error:e}");
    let error = (found(mean)[0] - expected / x.len() as f64).abs();
    assert!(error <= 1e-6 * sizes, "{what}: mean off by {error:e}");
    let squares: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let error = (found(sum_of_squares)[0] - squares).abs();
    // A sequential sum loses a digit over millions of terms of one sign.
    assert!(error <= 1e-5 * squares, "{what}: squares off by {error:e}");
}

#[test]
fn values_equal_the_formula() {
    for (rows, width) in [
        (1, 1),
        (1, 3),
        (7, 5),
        (256, 4),
        (1025, 1),
        (300, 768),
        (2000, 1999),
    ] {
        check(rows, width);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn all_shapes_equal_the_formula(rows in 1usize..3000, width in 1usize..40) {
        check(rows, width);
    }
}

#[test]
fn empty_sum_is_zero() {
    let empty = Tensor::<2>::zeros([0, 5], &device());
    assert_eq!(read(sum(empty.clone())), [0.0]);
    assert_eq!(read(sum_of_squares(empty)), [0.0]);
}

#[test]
fn gradients_are_one_and_twice_the_value() {
    let values = normals(8, 21);
    let x = tensor(&values, [3, 7], &autodiff_device()).require_grad();
    let loss = sum(x.clone()) * 3.0 + sum_of_squares(x.clone()) * 0.5;
    let found = read(x.grad(&loss.backward()).unwrap());
    let expected: Vec<f64> = values.iter().map(|&x| 3.0 + f64::from(x)).collect();
    assert_close(&found, &expected, 1e-6, "gradient");
    let x = tensor(&values, [3, 7], &autodiff_device()).require_grad();
    let found = read(x.grad(&mean(x.clone()).backward()).unwrap());
    assert_close(&found, &[1.0 / 21.0; 21], 1e-6, "gradient of the mean");
}

#[test]
fn half_precision_is_summed_in_f32() {
    for dtype in [FloatDType::BF16, FloatDType::F16] {
        if !computes_in(DType::from(dtype)) {
            continue;
        }
        // More ones than either dtype can count.
        let ones = Tensor::<2>::ones([70, 1000], &device()).cast(dtype);
        let total = sum(ones);
        assert_eq!(total.dtype(), DType::F32);
        assert_eq!(read(total), [70_000.0]);
    }
}

#[test]
fn three_runs_are_bit_identical() {
    let x = tensor(&normals(9, 1_000_003), [1_000_003], &device());
    let first = bits(&read(sum(x.clone())));
    for _ in 0..10 {
        assert_eq!(bits(&read(sum(x.clone()))), first);
    }
}

#[test]
fn non_finite_values_reach_the_sum() {
    let mut values = normals(10, 5000);
    values[4321] = f32::NAN;
    assert!(read(sum_of_squares(tensor(&values, [5000], &device())))[0].is_nan());
}
