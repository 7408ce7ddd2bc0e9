//! LayerNorm from operations that every backend has.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Scalar};

use crate::ops::primitive::{cast, reshape, widen};

pub(crate) fn forward<B: Backend>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    // Burn's CubeCL backends can't start a kernel on no elements.
    if input.shape()[0] == 0 {
        return input;
    }
    let dtype = input.dtype();
    let (normed, _) = normalize::<B>(widen::<B>(input), eps);
    let weight = row::<B>(cast::<B>(weight, normed.dtype()));
    cast::<B>(B::float_mul(normed, weight), dtype)
}

pub(crate) fn backward<B: Backend>(
    d_out: FloatTensor<B>,
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    eps: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    if input.shape()[0] == 0 {
        let weight_dtype = FloatDType::from(weight.dtype());
        return (
            input,
            B::float_zeros(weight.shape(), &weight.device(), weight_dtype),
        );
    }
    let (dtype, weight_dtype) = (input.dtype(), weight.dtype());
    let (y, inv_std) = normalize::<B>(widen::<B>(input), eps);
    let d_out = cast::<B>(d_out, y.dtype());
    let width = weight.shape()[0];
    let d_weight = B::float_sum_dim(B::float_mul(d_out.clone(), y.clone()), 0);

    let g = B::float_mul(d_out, row::<B>(cast::<B>(weight, y.dtype())));
    let mean_g = B::float_mean_dim(g.clone(), 1);
    let mean_gy = B::float_mean_dim(B::float_mul(g.clone(), y.clone()), 1);
    let centred = B::float_sub(B::float_sub(g, mean_g), B::float_mul(y, mean_gy));
    let d_input = B::float_mul(centred, inv_std);
    (
        cast::<B>(d_input, dtype),
        cast::<B>(reshape::<B, 1>(d_weight, [width]), weight_dtype),
    )
}

/// Normalised rows, and the inverse standard deviation `[tokens, 1]`.
fn normalize<B: Backend>(x: FloatTensor<B>, eps: f64) -> (FloatTensor<B>, FloatTensor<B>) {
    let mean = B::float_mean_dim(x.clone(), 1);
    let centred = B::float_sub(x, mean);
    let variance = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    let inv_std = B::float_recip(B::float_sqrt(B::float_add_scalar(
        variance,
        Scalar::from(eps),
    )));
    (B::float_mul(centred, inv_std.clone()), inv_std)
}

fn row<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    let width = weight.shape()[0];
    reshape::<B, 2>(weight, [1, width])
}
