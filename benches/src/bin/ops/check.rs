//! Checks of a part of an op's result against expected values.

use anyhow::{bail, ensure};
use burn::tensor::{DType, Tensor};

/// Reads the values of a tensor as f64.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> anyhow::Result<Vec<f64>> {
    let data = tensor.cast(DType::F32).try_into_data()?;
    let values: Vec<f32> = data
        .try_to_vec()
        .map_err(|error| anyhow::anyhow!("cannot read the result: {error:?}"))?;
    Ok(values.into_iter().map(f64::from).collect())
}

/// Fails if the largest difference exceeds `tolerance` times the largest expected value, or if a value is not finite.
pub(crate) fn close(
    what: &str,
    found: &[f64],
    expected: &[f64],
    tolerance: f64,
) -> anyhow::Result<()> {
    ensure!(
        found.len() == expected.len(),
        "{what}: {} values, expected {}",
        found.len(),
        expected.len()
    );
    let largest = expected.iter().fold(0.0f64, |max, x| max.max(x.abs()));
    let mut worst = 0.0f64;
    for (found, expected) in found.iter().zip(expected) {
        if !found.is_finite() {
            bail!("{what}: the result contains {found}");
        }
        worst = worst.max((found - expected).abs());
    }
    ensure!(
        worst <= tolerance * largest,
        "{what}: the largest error is {worst:e}, of values up to {largest:e}; the relative tolerance is {tolerance:e}"
    );
    Ok(())
}

/// Returns the first `count` rows.
pub(crate) fn first_rows(tensor: &Tensor<2>, count: usize) -> Tensor<2> {
    let [rows, width] = tensor.dims();
    tensor.clone().slice([0..count.min(rows), 0..width])
}

/// Relative tolerance for a dtype: its rounding error, 1e-5 for f32.
pub(crate) fn rounding_unit(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 1e-5,
    }
}
