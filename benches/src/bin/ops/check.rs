//! Whether an op gave the right numbers, on a part of its result.

use anyhow::{bail, ensure};
use burn::tensor::{DType, Tensor};

/// Values of a tensor, as f64.
pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> anyhow::Result<Vec<f64>> {
    let data = tensor.cast(DType::F32).try_into_data()?;
    let values: Vec<f32> = data
        .try_to_vec()
        .map_err(|error| anyhow::anyhow!("can't read the result: {error:?}"))?;
    Ok(values.into_iter().map(f64::from).collect())
}

/// The largest difference must be at most `tolerance` of the largest expected value.
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
            bail!("{what}: the result holds {found}");
        }
        worst = worst.max((found - expected).abs());
    }
    ensure!(
        worst <= tolerance * largest,
        "{what}: off by {worst:e} where values reach {largest:e}; allowed is a share of {tolerance:e}"
    );
    Ok(())
}

/// The first `count` rows.
pub(crate) fn head(tensor: &Tensor<2>, count: usize) -> Tensor<2> {
    let [rows, width] = tensor.dims();
    tensor.clone().slice([0..count.min(rows), 0..width])
}

/// Relative rounding of a dtype.
pub(crate) fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 1e-5,
    }
}
