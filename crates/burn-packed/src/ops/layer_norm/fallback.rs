//! LayerNorm from tensor operations that every backend has.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, Scalar, Shape};

use super::{AddNormBackward, SavedNorm};
use crate::ops::primitive::{cast, cast_to_compute, reshape, widened};

pub(crate) fn forward<B: Backend>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
    out: DType,
) -> FloatTensor<B> {
    // Burn's CubeCL backends cannot launch a kernel without elements.
    if input.shape()[0] == 0 {
        return zeros::<B>(&input, input.shape(), out);
    }
    let (normed, _) = normalize::<B>(cast_to_compute::<B>(input), eps);
    cast::<B>(weighted::<B>(normed, weight), out)
}

pub(crate) fn add_forward<B: Backend>(
    x: FloatTensor<B>,
    branch: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
    out: DType,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let rows = x.shape()[0];
    if rows == 0 {
        let normed = zeros::<B>(&x, x.shape(), out);
        let inv_std = zeros::<B>(&x, Shape::new([0]), widened(x.dtype()));
        return (x, normed, inv_std);
    }
    let branch = cast::<B>(branch, x.dtype());
    let sum = B::float_add(x, branch);
    let (normed, inv_std) = normalize::<B>(cast_to_compute::<B>(sum.clone()), eps);
    (
        sum,
        cast::<B>(weighted::<B>(normed, weight), out),
        reshape::<B, 1>(inv_std, [rows]),
    )
}

pub(crate) fn backward<B: Backend>(
    d_out: FloatTensor<B>,
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if input.shape()[0] == 0 {
        let d_weight = zeros::<B>(&weight, weight.shape(), weight.dtype());
        return (input, d_weight);
    }
    let dtype = input.dtype();
    let (y, inv_std) = normalize::<B>(cast_to_compute::<B>(input), eps);
    let (d_input, d_weight) = norm_backward::<B>(d_out, y, inv_std, weight);
    (cast::<B>(d_input, dtype), d_weight)
}

pub(crate) fn add_backward<B: Backend>(
    d_sum: FloatTensor<B>,
    d_normed: FloatTensor<B>,
    saved: FloatTensor<B>,
    inv_std: FloatTensor<B>,
    weight: FloatTensor<B>,
    spec: &AddNormBackward,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let rows = saved.shape()[0];
    if rows == 0 {
        return (
            zeros::<B>(&saved, saved.shape(), spec.sum),
            zeros::<B>(&saved, saved.shape(), spec.branch),
            zeros::<B>(&weight, weight.shape(), weight.dtype()),
        );
    }
    let saved = cast_to_compute::<B>(saved);
    let (y, inv_std) = match spec.saved {
        SavedNorm::Sum => normalize::<B>(saved, spec.eps),
        SavedNorm::Normed => {
            // A weight of 0 is replaced by 1: the output is 0 there, and so is y.
            let weight = cast::<B>(weight.clone(), saved.dtype());
            let sign = B::float_sign(weight.clone());
            let is_zero = B::float_add_scalar(
                B::float_neg(B::float_mul(sign.clone(), sign)),
                Scalar::from(1.0),
            );
            let y = B::float_div(saved, row::<B>(B::float_add(weight, is_zero)));
            (y, reshape::<B, 2>(inv_std, [rows, 1]))
        }
    };
    let (mut d_x, d_weight) = norm_backward::<B>(d_normed, y, inv_std, weight);
    if spec.has_d_sum {
        d_x = B::float_add(cast::<B>(d_sum, d_x.dtype()), d_x);
    }
    (
        cast::<B>(d_x.clone(), spec.sum),
        cast::<B>(d_x, spec.branch),
        d_weight,
    )
}

/// Gradients of the input (in f32 or f64) and the weight, from normalized rows and inverse standard deviations `[tokens, 1]`.
fn norm_backward<B: Backend>(
    d_out: FloatTensor<B>,
    y: FloatTensor<B>,
    inv_std: FloatTensor<B>,
    weight: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let d_out = cast::<B>(d_out, y.dtype());
    let (width, weight_dtype) = (weight.shape()[0], weight.dtype());
    let d_weight = B::float_sum_dim(B::float_mul(d_out.clone(), y.clone()), 0);
    let g = weighted::<B>(d_out, weight);
    let mean_g = B::float_mean_dim(g.clone(), 1);
    let mean_gy = B::float_mean_dim(B::float_mul(g.clone(), y.clone()), 1);
    let centered = B::float_sub(B::float_sub(g, mean_g), B::float_mul(y, mean_gy));
    (
        B::float_mul(centered, inv_std),
        cast::<B>(reshape::<B, 1>(d_weight, [width]), weight_dtype),
    )
}

/// Normalized rows and inverse standard deviations `[tokens, 1]`.
fn normalize<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let mean = B::float_mean_dim(x.clone(), 1);
    let centered = B::float_sub(x, mean);
    let variance = B::float_mean_dim(B::float_mul(centered.clone(), centered.clone()), 1);
    let inv_std = B::float_recip(B::float_sqrt(B::float_add_scalar(
        variance,
        Scalar::from(eps),
    )));
    (B::float_mul(centered, inv_std.clone()), inv_std)
}

fn weighted<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let weight = row::<B>(cast::<B>(weight, x.dtype()));
    B::float_mul(x, weight)
}

fn row<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    let width = weight.shape()[0];
    reshape::<B, 2>(weight, [1, width])
}

/// Zeros on the device of `like`.
fn zeros<B: Backend>(like: &FloatTensor<B>, shape: Shape, dtype: DType) -> FloatTensor<B> {
    B::float_zeros(shape, &like.device(), FloatDType::from(dtype))
}
