//! What the tests share: the device under test, numbers that are the same in every run, and errors.
//!
//! The suite is the same on every backend. `MODERNBERT_TEST_DEVICE` names the device (`flex` without it) among those
//! compiled in, in the words of [`burn_packed::device::select`]; anything else ends the run.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The device under test.
pub fn device() -> Device {
    let name = std::env::var("MODERNBERT_TEST_DEVICE").unwrap_or_else(|_| "flex".to_owned());
    match burn_packed::device::select(Some(&name)) {
        Ok(selected) => selected.device,
        Err(error) => panic!("MODERNBERT_TEST_DEVICE: {error}"),
    }
}

/// The device under test with gradients.
pub fn autodiff_device() -> Device {
    device().autodiff()
}

/// Whether the device under test computes in `dtype`; where it doesn't, a test says so and passes.
pub fn computes_in(dtype: DType) -> bool {
    let supported = burn_packed::device::computes_in(&device(), dtype);
    if !supported {
        eprintln!("skipped: the device doesn't compute in {dtype:?}");
    }
    supported
}

/// Whether a tensor of so many f32 values fits the device under test; where it doesn't, a test says so and passes.
/// (WebGPU promises 128 MiB per buffer, and software drivers give no more.)
pub fn holds(values: usize) -> bool {
    let probe = Tensor::<1>::ones([values], &device()).slice(0..1);
    let held = probe.try_into_data().is_ok();
    if !held {
        eprintln!("skipped: the device doesn't hold {values} values in one tensor");
    }
    held
}

/// A generator that is the same in every run.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Standard normal numbers (Box–Muller).
pub fn normals(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = rng(seed);
    let mut normal = || {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()) as f32
    };
    (0..count).map(|_| normal()).collect()
}

/// Token ids below `vocab`.
pub fn ids(seed: u64, count: usize, vocab: u32) -> Vec<u32> {
    let mut rng = rng(seed);
    (0..count).map(|_| rng.random_range(0..vocab)).collect()
}

/// The values in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// An f32 tensor of these values.
pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        (device, DType::F32),
    )
}

/// An f64 tensor of these values.
pub fn tensor64<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        (device, DType::F64),
    )
}

/// The values of a tensor of any float dtype.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .cast(FloatDType::F32)
        .into_data()
        .try_to_vec()
        .unwrap()
}

/// The values of an f64 tensor.
pub fn read64<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Bit patterns, for comparisons that allow nothing.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Largest absolute value; 0 for no values.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, x| x.abs().max(max))
}

/// Largest absolute difference; infinite where one side is not a number.
pub fn max_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values as expected");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, x| {
        if x.is_nan() {
            f64::INFINITY
        } else {
            x.max(max)
        }
    })
}

/// Largest difference as a share of the largest expected value.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    max_error(found, expected) / largest(expected).max(f64::MIN_POSITIVE)
}

/// Root of the summed squared differences as a share of that of the expected values.
pub fn relative_rms_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values as expected");
    let squares = found.iter().zip(expected).map(|(a, b)| (a - b) * (a - b));
    let norm: f64 = expected.iter().map(|x| x * x).sum();
    (squares.sum::<f64>() / norm).sqrt()
}

/// Panics where the relative error exceeds `tolerance`; see [`relative_error`].
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let error = relative_error(&wide(found), expected);
    assert!(
        error <= tolerance,
        "{what}: relative error {error:e}, allowed {tolerance:e}"
    );
}
