//! Shared by tests: the device under test, reproducible numbers, error measures, reports of skipped tests.
#![allow(clippy::unwrap_used)] // a test may fail loudly

#[cfg(feature = "device")]
mod device;
mod skip;

#[cfg(feature = "device")]
pub use device::*;
pub use skip::*;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

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
