//! GEMM by Burn's matmul of the backend.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape};

use super::Transpose;
use crate::ops::primitive::cast;

pub(crate) fn gemm<B: Backend>(
    lhs: FloatTensor<B>,
    rhs: FloatTensor<B>,
    transpose: Transpose,
) -> FloatTensor<B> {
    let (lhs, rhs) = match transpose {
        Transpose::None => (lhs, rhs),
        Transpose::Lhs => (B::float_swap_dims(lhs, 0, 1), rhs),
        Transpose::Rhs => (lhs, B::float_swap_dims(rhs, 0, 1)),
    };
    let ([m, k], [_, n]) = (lhs.shape().dims(), rhs.shape().dims());
    if m == 0 || k == 0 || n == 0 {
        // An empty sum is 0; Burn's CubeCL backends cannot launch a matmul without elements.
        let dtype = FloatDType::from(lhs.dtype());
        return B::float_zeros(Shape::new([m, n]), &lhs.device(), dtype);
    }
    B::float_matmul(lhs, rhs)
}

/// The same as [`gemm`] with the operands cast to f32 first.
pub(crate) fn gemm_f32<B: Backend>(
    lhs: FloatTensor<B>,
    rhs: FloatTensor<B>,
    transpose: Transpose,
) -> FloatTensor<B> {
    let [lhs, rhs] = [lhs, rhs].map(|tensor| cast::<B>(tensor, DType::F32));
    gemm::<B>(lhs, rhs, transpose)
}
