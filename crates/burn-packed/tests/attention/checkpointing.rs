//! Activation checkpointing: gradients with recomputed inputs equal those with saved inputs.

use burn::tensor::{Device, FloatDType, Tensor};

use crate::case::Case;
use test_support::{autodiff_device, bits, device, read, tensor};

/// The device under test with gradients and checkpointing.
fn checkpointing() -> Device {
    device().autodiff().gradient_checkpointing()
}

#[test]
fn checkpointing_changes_no_bit() {
    let case = Case::new(&[5, 0, 70, 129], 2, 32, 600).theta(10_000.0);
    for case in [case.clone(), case.clone().window(16), case.softcap(2.0)] {
        let saved = case.run_on(&autodiff_device(), FloatDType::F32);
        let recomputed = case.run_on(&checkpointing(), FloatDType::F32);
        assert_eq!(bits(&saved.0), bits(&recomputed.0));
        assert_eq!(bits(&saved.1), bits(&recomputed.1));
    }
}

/// q, k and v are outputs of operations that checkpointing recomputes, and the output is an input of other operations: the op
/// requests inputs that were dropped, twice in a chain.
#[test]
fn recomputed_inputs_reach_the_backward_pass() {
    let case = Case::new(&[3, 66], 2, 16, 610).theta(10_000.0).window(8);
    let gradient = |device: &Device| -> Vec<f32> {
        let shape = [69, 3, 2, 16];
        let leaf = tensor(&case.qkv, shape, device).require_grad();
        let attend = |x: Tensor<4>| case.attend(x.tanh() * 2.0, device);
        let first = attend(leaf.clone());
        // The output of the first call is q, k and v of the second.
        let second = first.unsqueeze_dim::<4>(1).repeat_dim(1, 3) + leaf.clone();
        let out = attend(second).exp();
        read(leaf.grad(&out.sum().backward()).unwrap())
    };
    let (saved, recomputed) = (gradient(&autodiff_device()), gradient(&checkpointing()));
    assert!(saved.iter().any(|&g| g != 0.0));
    for (a, b) in saved.iter().zip(&recomputed) {
        // Fused and unfused elementwise operations may round differently.
        assert!((a - b).abs() <= 1e-5 * (1.0 + a.abs()), "{a} {b}");
    }
}
