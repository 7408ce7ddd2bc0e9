//! Cross-entropy from operations that every backend has.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, IndexingUpdateOp, Scalar, Shape};

use crate::ops::primitive::{cast, reshape, widen};

pub(crate) fn forward<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>) -> FloatTensor<B> {
    let logits = widen::<B>(logits);
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
    let logits = widen::<B>(logits);
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
