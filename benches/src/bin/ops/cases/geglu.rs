//! GeGLU, and its backward pass that also returns the output.

use burn::tensor::{DType, Tensor};
use modernbert::ops::geglu::{self as op, geglu_backward_with_output};

use super::{BatchSizes, CHECKED};
use crate::check::{close, first_rows, read, rounding_unit};
use crate::measure::{Meter, Work};

/// Measures `geglu`, forward, and `geglu+out`, backward.
pub(crate) fn geglu(meter: &mut Meter, shape: &BatchSizes) -> anyhow::Result<()> {
    if !meter.wants("geglu") {
        return Ok(());
    }
    let each = shape.dtype.size();
    let input = meter.normal([shape.tokens, 2 * shape.inner], shape.dtype);
    let d_out = meter.normal([shape.tokens, shape.inner], shape.dtype);
    let (d_input, out_again) = geglu_backward_with_output(d_out.clone(), input.clone());
    let out = op::geglu(input.clone());
    let wide = first_rows(&input, CHECKED).cast(DType::F32);
    let x = wide.clone().slice([0..CHECKED, 0..shape.inner]);
    let gate = wide.slice([0..CHECKED, shape.inner..2 * shape.inner]);
    let cdf = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
    let density = (x.clone() * x.clone() * -0.5).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let expected = read(x.clone() * cdf.clone() * gate.clone())?;
    let tolerance = 2.0 * rounding_unit(shape.dtype);
    close(
        "geglu",
        &read(first_rows(&out, CHECKED))?,
        &expected,
        tolerance,
    )?;
    close(
        "geglu+out, output",
        &read(first_rows(&out_again, CHECKED))?,
        &expected,
        tolerance,
    )?;
    let d = first_rows(&d_out, CHECKED).cast(DType::F32);
    let d_x = d.clone() * gate * (cdf.clone() + x.clone() * density);
    let expected = read(Tensor::cat(vec![d_x, d * x * cdf], 1))?;
    close(
        "geglu, d_input",
        &read(first_rows(&d_input, CHECKED))?,
        &expected,
        tolerance,
    )?;
    meter.row(
        &shape.name,
        ("geglu", "forward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.inner, 3 * each)),
        || drop(op::geglu(input.clone())),
    );
    meter.row(
        &shape.name,
        ("geglu+out", "backward"),
        shape.tokens,
        Work::Bytes(shape.bytes(shape.inner, 6 * each)),
        || {
            geglu_backward_with_output(d_out.clone(), input.clone());
        },
    );
    Ok(())
}
