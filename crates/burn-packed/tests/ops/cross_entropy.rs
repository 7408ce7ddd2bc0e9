//! Cross-entropy of rows: losses, gradients, large logits.

use burn::tensor::{DType, Device, FloatDType, Int, Tensor};
use burn_packed::batch::int_tensor;
use burn_packed::ops::cross_entropy::cross_entropy;

use test_support::{
    assert_close, autodiff_device, computes_in, device, ids, normals, read, read64, relative_error,
    tensor, tensor64, wide,
};

fn class_tensor(classes: &[u32], device: &Device) -> Tensor<1, Int> {
    int_tensor(classes.iter().map(|&t| t as i32), device)
}

/// Losses, and the gradient of the logits for the gradient `d_loss` of the losses.
fn expected(logits: &[f64], targets: &[u32], d_loss: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let classes = logits.len() / targets.len();
    let (mut losses, mut grad) = (vec![], vec![]);
    for ((row, &target), d) in logits.chunks(classes).zip(targets).zip(d_loss) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + row.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
        losses.push(lse - row[target as usize]);
        let one = |v: usize| if v == target as usize { 1.0 } else { 0.0 };
        grad.extend((0..classes).map(|v| d * ((row[v] - lse).exp() - one(v))));
    }
    (losses, grad)
}

/// Losses and gradient from the op.
fn run(logits: &[f32], targets: &[u32], d_loss: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let device = autodiff_device();
    let (rows, classes) = (targets.len(), logits.len() / targets.len());
    let x = tensor(logits, [rows, classes], &device).require_grad();
    let losses = cross_entropy(x.clone(), class_tensor(targets, &device));
    let grads = (losses.clone() * tensor(d_loss, [rows], &device))
        .sum()
        .backward();
    (read(losses.inner()), read(x.grad(&grads).unwrap()))
}

#[test]
fn loss_and_gradient_equal_the_formula() {
    for (rows, classes) in [(1, 2), (7, 5), (6, 17), (3, 64), (5, 1000)] {
        let logits: Vec<f32> = normals(1, rows * classes).iter().map(|x| 4.0 * x).collect();
        let (targets, d_loss) = (ids(2, rows, classes as u32), normals(3, rows));
        let (losses, grad) = run(&logits, &targets, &d_loss);
        let (expected_losses, expected_grad) = expected(&wide(&logits), &targets, &wide(&d_loss));
        assert_close(
            &losses,
            &expected_losses,
            1e-6,
            &format!("losses, {classes} classes"),
        );
        assert_close(
            &grad,
            &expected_grad,
            3e-6,
            &format!("gradient, {classes} classes"),
        );
    }
}

#[test]
fn loss_equals_values_computed_by_hand() {
    // Equal logits: the logarithm of the number of classes. One class: 0.
    let (losses, grad) = run(&[0.5; 8], &[3, 0], &[1.0, 1.0]);
    assert_close(&losses, &[4f64.ln(); 2], 1e-7, "losses");
    assert_close(
        &grad,
        &[0.25, 0.25, 0.25, -0.75, -0.75, 0.25, 0.25, 0.25],
        1e-6,
        "gradient",
    );
    let (losses, grad) = run(&[3.0], &[0], &[1.0]);
    assert_eq!((losses, grad), (vec![0.0], vec![0.0]));
}

#[test]
fn large_logits_stay_finite() {
    let logits = [1e4, 0.0, -1e4, -1e4, 1e4, 1e4, -1e30, 1e30, 0.0];
    let targets = [0, 0, 1];
    let (losses, grad) = run(&logits, &targets, &[1.0; 3]);
    let (expected_losses, expected_grad) = expected(&wide(&logits), &targets, &[1.0; 3]);
    assert_close(&losses, &expected_losses, 1e-6, "losses");
    assert_close(&grad, &expected_grad, 1e-6, "gradient");
    let (losses, grad) = run(&[1e4, 0.0, -1e4], &[2], &[1.0]);
    assert_eq!((losses, grad), (vec![2e4], vec![1.0, 0.0, -1.0]));
}

#[test]
fn rows_of_weight_zero_have_no_gradient() {
    let logits = normals(4, 3 * 11);
    let (_, grad) = run(&logits, &[1, 2, 3], &[1.0, 0.0, 2.0]);
    assert!(
        grad[11..22].iter().all(|&g| g == 0.0),
        "filling rows must not matter"
    );
    assert!(grad[..11].iter().chain(&grad[22..]).all(|&g| g != 0.0));
}

#[test]
fn gradient_of_a_row_sums_to_zero() {
    let (_, grad) = run(&normals(5, 4 * 500), &[1, 2, 3, 499], &[1.0; 4]);
    for row in grad.chunks(500) {
        assert!(row.iter().sum::<f32>().abs() < 1e-5);
    }
}

#[test]
fn fallback_in_f64_equals_the_formula() {
    if !computes_in(DType::F64) {
        return;
    }
    let (logits, targets, d_loss) = (
        wide(&normals(6, 5 * 13)),
        ids(7, 5, 13),
        wide(&normals(8, 5)),
    );
    let device = autodiff_device();
    let x = tensor64(&logits, [5, 13], &device).require_grad();
    let losses = cross_entropy(x.clone(), class_tensor(&targets, &device));
    let grads = (losses.clone() * tensor64(&d_loss, [5], &device))
        .sum()
        .backward();
    let (expected_losses, expected_grad) = expected(&logits, &targets, &d_loss);
    let errors = [
        relative_error(&read64(losses.inner()), &expected_losses),
        relative_error(&read64(x.grad(&grads).unwrap()), &expected_grad),
    ];
    assert!(errors.iter().all(|&e| e < 1e-10), "{errors:?}");
}

#[test]
fn half_precision_logits_give_an_f32_loss() {
    if !computes_in(DType::BF16) {
        return;
    }
    let logits = tensor(&normals(9, 2 * 30), [2, 30], &device()).cast(FloatDType::BF16);
    let targets = class_tensor(&[4, 29], &device());
    let losses = cross_entropy(logits.clone(), targets);
    assert_eq!(losses.dtype(), DType::F32);
    let expected = expected(&wide(&read(logits)), &[4, 29], &[1.0; 2]).0;
    assert_close(
        &read(losses),
        &expected,
        1e-6,
        "losses of the rounded logits",
    );
}

#[test]
fn empty_input_gives_no_losses() {
    let device = autodiff_device();
    let logits = tensor(&[], [0, 6], &device).require_grad();
    let losses = cross_entropy(logits.clone(), class_tensor(&[], &device));
    assert_eq!(losses.dims(), [0]);
    let grads = losses.clone().sum().backward();
    // Read back, because Fusion computes nothing before.
    assert!(read(losses.inner()).is_empty());
    assert!(read(logits.grad(&grads).unwrap()).is_empty());
}
