//! Cross-entropy from tensor operations that every backend has.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings};
use burn::tensor::{FloatDType, IndexingUpdateOp, Scalar, Shape};

use super::ScoreSpec;
use crate::ops::primitive::{cast, cast_to_compute, reshape};

pub(crate) fn forward<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>) -> FloatTensor<B> {
    let logits = cast_to_compute::<B>(logits);
    let rows = logits.shape()[0];
    if rows == 0 {
        let dtype = FloatDType::from(logits.dtype());
        return B::float_zeros(Shape::new([0]), &logits.device(), dtype);
    }
    let (exp, max) = shifted_exp::<B>(logits.clone());
    let lse = B::float_add(B::float_log(B::float_sum_dim(exp, 1)), max);
    let targets = B::int_reshape(targets, Shape::new([rows, 1]));
    let picked = B::float_gather(1, logits, targets);
    reshape::<B, 1>(B::float_sub(lse, picked), [rows])
}

pub(crate) fn backward<B: Backend>(
    d_loss: FloatTensor<B>,
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
) -> FloatTensor<B> {
    if logits.shape()[0] == 0 {
        return logits;
    }
    let dtype = logits.dtype();
    let logits = cast_to_compute::<B>(logits);
    let rows = logits.shape()[0];
    let d_loss = reshape::<B, 2>(cast::<B>(d_loss, logits.dtype()), [rows, 1]);
    let (exp, _) = shifted_exp::<B>(logits);
    let sum = B::float_sum_dim(exp.clone(), 1);
    let d_logits = B::float_mul(B::float_div(exp, sum), d_loss.clone());
    let targets = B::int_reshape(targets, Shape::new([rows, 1]));
    let minus = B::float_mul_scalar(d_loss, Scalar::from(-1.0));
    cast::<B>(
        B::float_scatter(1, d_logits, targets, minus, IndexingUpdateOp::Add),
        dtype,
    )
}

/// `exp(logits - max)` and the maximum `[rows, 1]`.
fn shifted_exp<B: Backend>(logits: FloatTensor<B>) -> (FloatTensor<B>, FloatTensor<B>) {
    let max = B::float_max_dim(logits.clone(), 1);
    (B::float_exp(B::float_sub(logits, max.clone())), max)
}

/// Weighted losses, weighted hits, and the gradient of the scores (the scores, if `spec.gradient` is false).
pub(crate) fn scores<B: Backend>(
    logits: FloatTensor<B>,
    bias: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    spec: ScoreSpec,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (dtype, rows) = (logits.dtype(), logits.shape()[0]);
    if rows == 0 {
        let wide = cast_to_compute::<B>(logits.clone()).dtype();
        let none = B::float_zeros(Shape::new([0]), &logits.device(), wide.into());
        return (none.clone(), none, logits);
    }
    let mut x = cast_to_compute::<B>(logits);
    if spec.bias {
        let classes = bias.shape()[0];
        let bias = cast::<B>(bias, x.dtype());
        x = B::float_add(x, reshape::<B, 2>(bias, [1, classes]));
    }
    let weights = cast::<B>(weights, x.dtype());
    let losses = B::float_mul(forward::<B>(x.clone(), targets.clone()), weights.clone());
    let settings = get_or_init_device_settings::<B>(&x.device());
    let best = B::int_reshape(
        B::float_argmax(x.clone(), 1, settings.int_dtype),
        Shape::new([rows]),
    );
    let same = B::int_equal(
        best,
        B::int_cast(targets.clone(), settings.int_dtype),
        settings.bool_dtype,
    );
    let hits = B::float_mul(B::bool_into_float(same, x.dtype().into()), weights.clone());
    let last = if spec.gradient {
        backward::<B>(weights, x, targets)
    } else {
        x
    };
    (losses, hits, cast::<B>(last, dtype))
}

/// Sum of each column, in f32 (f64 for f64).
pub(crate) fn column_sums<B: Backend>(input: FloatTensor<B>) -> FloatTensor<B> {
    let input = cast_to_compute::<B>(input);
    let [rows, width] = input.shape().dims();
    if rows == 0 {
        return B::float_zeros(Shape::new([width]), &input.device(), input.dtype().into());
    }
    reshape::<B, 1>(B::float_sum_dim(input, 0), [width])
}
