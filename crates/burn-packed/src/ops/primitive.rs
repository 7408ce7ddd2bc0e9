//! Short names for operations on backend primitives, which otherwise take a line each.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, FloatDType, Shape, Slice};
use std::ops::Range;

/// Rows `range` of axis `axis`, every other axis whole.
pub(super) fn narrow<B: Backend>(
    tensor: FloatTensor<B>,
    axis: usize,
    range: Range<usize>,
) -> FloatTensor<B> {
    let slices = slices(tensor.shape().num_dims(), axis, range);
    B::float_slice(tensor, &slices)
}

/// `tensor` with rows `range` of axis `axis` replaced by `value`.
pub(super) fn assign<B: Backend>(
    tensor: FloatTensor<B>,
    axis: usize,
    range: Range<usize>,
    value: FloatTensor<B>,
) -> FloatTensor<B> {
    let slices = slices(tensor.shape().num_dims(), axis, range);
    B::float_slice_assign(tensor, &slices, value)
}

fn slices(rank: usize, axis: usize, range: Range<usize>) -> Vec<Slice> {
    let mut slices = vec![Slice::full(); rank];
    slices[axis] = Slice::new(range.start as isize, Some(range.end as isize), 1);
    slices
}

pub(super) fn reshape<B: Backend, const D: usize>(
    tensor: FloatTensor<B>,
    shape: [usize; D],
) -> FloatTensor<B> {
    B::float_reshape(tensor, Shape::new(shape))
}

/// The tensor in f32; half-precision inputs are computed in f32, f64 stays what it is.
pub(super) fn widen<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    match tensor.dtype() {
        DType::F32 | DType::F64 => tensor,
        _ => B::float_cast(tensor, FloatDType::F32),
    }
}

/// The tensor in `dtype`, untouched when it already is.
pub(super) fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        B::float_cast(tensor, dtype.into())
    }
}
