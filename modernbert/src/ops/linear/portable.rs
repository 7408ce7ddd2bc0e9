//! The product through the backend's own matrix multiplication.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::Transpose;

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
    B::float_matmul(lhs, rhs)
}
