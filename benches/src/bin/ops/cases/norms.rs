//! LayerNorm, alone and fused with the residual addition.

use burn::tensor::{DType, Tensor};
use modernbert::ops::layer_norm::{
    AddNormBackward, SavedNorm, add_layer_norm, add_layer_norm_backward, add_layer_norm_forward,
    layer_norm_backward, layer_norm_to,
};

use super::{BatchSizes, CHECKED};
use crate::check::{close, first_rows, read, rounding_unit};
use crate::measure::{Meter, Work};

const EPS: f64 = 1e-5;

/// Normalized rows and inverse standard deviations, from Burn's tensor operations.
fn normalized(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let centered = x.clone() - x.mean_dim(1);
    let variance = (centered.clone() * centered.clone()).mean_dim(1);
    let inv_std = (variance + EPS).sqrt().recip();
    (centered * inv_std.clone(), inv_std)
}

/// Measures `norm` and `add+norm`, forward and backward.
pub(crate) fn norms(meter: &mut Meter, shape: &BatchSizes) -> anyhow::Result<()> {
    let (size, dtype) = ([shape.tokens, shape.hidden], shape.dtype);
    let each = dtype.size();
    let x = meter.normal(size, DType::F32);
    let weight = meter.normal([shape.hidden], DType::F32) * 0.1 + 1.0;
    if meter.wants("norm") {
        let out = layer_norm_to(x.clone(), weight.clone(), EPS, dtype);
        let (y, inv_std) = normalized(first_rows(&x, CHECKED));
        let expected = read(y.clone() * weight.clone().unsqueeze())?;
        close(
            "norm",
            &read(first_rows(&out, CHECKED))?,
            &expected,
            2.0 * rounding_unit(dtype),
        )?;
        meter.row(
            &shape.name,
            ("norm", "forward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 4 + each)),
            || drop(layer_norm_to(x.clone(), weight.clone(), EPS, dtype)),
        );
        let d_out = meter.normal(size, DType::F32);
        let (d_x, d_weight) = layer_norm_backward(d_out.clone(), x.clone(), weight.clone(), EPS);
        let g = first_rows(&d_out, CHECKED) * weight.clone().unsqueeze();
        let expected =
            (g.clone() - g.clone().mean_dim(1) - y.clone() * (g * y).mean_dim(1)) * inv_std;
        close(
            "norm, d_x",
            &read(first_rows(&d_x, CHECKED))?,
            &read(expected)?,
            1e-4,
        )?;
        let expected = read((d_out.clone() * normalized(x.clone()).0).sum_dim(0))?;
        close("norm, d_weight", &read(d_weight)?, &expected, 1e-4)?;
        meter.row(
            &shape.name,
            ("norm", "backward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 12)),
            || {
                layer_norm_backward(d_out.clone(), x.clone(), weight.clone(), EPS);
            },
        );
    }
    if meter.wants("add+norm") {
        let branch = meter.normal(size, dtype);
        let (sum, normed, inv_std) =
            add_layer_norm_forward(x.clone(), branch.clone(), weight.clone(), EPS, dtype);
        let expected = first_rows(&x, CHECKED) + first_rows(&branch, CHECKED).cast(DType::F32);
        close(
            "sum",
            &read(first_rows(&sum, CHECKED))?,
            &read(expected.clone())?,
            1e-5,
        )?;
        let (y, scale) = normalized(expected);
        let expected = read(y.clone() * weight.clone().unsqueeze())?;
        close(
            "add+norm",
            &read(first_rows(&normed, CHECKED))?,
            &expected,
            2.0 * rounding_unit(dtype),
        )?;
        meter.row(
            &shape.name,
            ("add+norm", "forward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 8 + 2 * each)),
            || {
                add_layer_norm(x.clone(), branch.clone(), weight.clone(), EPS, dtype);
            },
        );
        let d_sum = meter.normal(size, DType::F32);
        let d_normed = meter.normal(size, dtype);
        let spec = AddNormBackward {
            eps: EPS,
            saved: SavedNorm::for_output(dtype),
            has_d_sum: true,
            sum: DType::F32,
            branch: dtype,
        };
        let (saved, saved_bytes) = match spec.saved {
            SavedNorm::Sum => (sum, 4),
            SavedNorm::Normed => (normed, each),
        };
        let backward = || {
            add_layer_norm_backward(
                (d_sum.clone(), d_normed.clone()),
                (saved.clone(), inv_std.clone()),
                weight.clone(),
                spec,
            )
        };
        let (d_x, d_branch, d_weight) = backward();
        let d = first_rows(&d_normed, CHECKED).cast(DType::F32);
        let g = d * weight.clone().unsqueeze();
        let d_input = (g.clone() - g.clone().mean_dim(1) - y.clone() * (g * y).mean_dim(1)) * scale;
        let expected = read(first_rows(&d_sum, CHECKED) + d_input)?;
        close(
            "add+norm, d_x",
            &read(first_rows(&d_x, CHECKED))?,
            &expected,
            2.0 * rounding_unit(dtype),
        )?;
        let found = read(first_rows(&d_branch, CHECKED))?;
        close(
            "add+norm, d_branch",
            &found,
            &expected,
            2.0 * rounding_unit(dtype),
        )?;
        let all = normalized(x.clone() + branch.clone().cast(DType::F32)).0;
        let expected = read((d_normed.clone().cast(DType::F32) * all).sum_dim(0))?;
        close(
            "add+norm, d_weight",
            &read(d_weight)?,
            &expected,
            rounding_unit(dtype),
        )?;
        let second = if dtype == DType::F32 { 0 } else { each };
        meter.row(
            &shape.name,
            ("add+norm", "backward"),
            shape.tokens,
            Work::Bytes(shape.bytes(shape.hidden, 8 + each + saved_bytes + second)),
            || {
                backward();
            },
        );
    }
    Ok(())
}
