//! GeGLU from tensor operations that every backend has.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Scalar, Shape};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

use crate::ops::primitive::{cast, cast_to_compute, narrow};

pub(crate) fn forward<B: Backend>(input: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = input.dtype();
    let [rows, width] = input.shape().dims();
    // Burn's CubeCL backends cannot slice a tensor without rows.
    if rows == 0 {
        let shape = Shape::new([0, width / 2]);
        return B::float_zeros(shape, &input.device(), FloatDType::from(dtype));
    }
    let (activated, gate) = halves::<B>(cast_to_compute::<B>(input));
    let gelu = B::float_mul(activated.clone(), cdf::<B>(activated));
    cast::<B>(B::float_mul(gelu, gate), dtype)
}

pub(crate) fn backward<B: Backend>(d_out: FloatTensor<B>, input: FloatTensor<B>) -> FloatTensor<B> {
    if input.shape()[0] == 0 {
        return input;
    }
    let dtype = input.dtype();
    let d_out = cast_to_compute::<B>(d_out);
    let (x, gate) = halves::<B>(cast_to_compute::<B>(input));
    let cdf = cdf::<B>(x.clone());
    let exponent = B::float_mul_scalar(B::float_mul(x.clone(), x.clone()), Scalar::from(-0.5));
    let density = B::float_mul_scalar(
        B::float_exp(exponent),
        Scalar::from(1.0 / (2.0 * PI).sqrt()),
    );
    let slope = B::float_add(cdf.clone(), B::float_mul(x.clone(), density));
    let d_activated = B::float_mul(B::float_mul(d_out.clone(), gate), slope);
    let d_gate = B::float_mul(d_out, B::float_mul(x, cdf));
    cast::<B>(B::float_cat(vec![d_activated, d_gate], 1), dtype)
}

fn halves<B: Backend>(input: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let width = input.shape()[1] / 2;
    (
        narrow::<B>(input.clone(), 1, 0..width),
        narrow::<B>(input, 1, width..2 * width),
    )
}

/// Distribution function of the standard normal.
fn cdf<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(x, Scalar::from(FRAC_1_SQRT_2)));
    B::float_mul_scalar(
        B::float_add_scalar(erf, Scalar::from(1.0)),
        Scalar::from(0.5),
    )
}
