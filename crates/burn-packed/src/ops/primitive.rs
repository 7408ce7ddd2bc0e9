//! Short forms of operations on backend primitives.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{DType, Shape, Slice};
use std::ops::Range;

use super::PackedBackend;

/// Returns indices `range` of axis `axis`.
pub(super) fn narrow<B: Backend>(
    tensor: FloatTensor<B>,
    axis: usize,
    range: Range<usize>,
) -> FloatTensor<B> {
    let slices = slices(tensor.shape().num_dims(), axis, range);
    B::float_slice(tensor, &slices)
}

/// Returns `tensor` with indices `range` of axis `axis` replaced by `value`.
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

/// Returns the dtype that ops compute and accumulate in: f64 for f64, f32 for everything else.
pub(super) fn widened(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// Casts the tensor to the dtype that ops compute in; see [`widened`].
pub(super) fn cast_to_compute<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = widened(tensor.dtype());
    cast::<B>(tensor, dtype)
}

/// [`cast`] by this crate's own op, which is faster on CPUs.
pub(super) fn converted<B: PackedBackend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    match tensor.dtype() == dtype {
        true => tensor,
        false => B::convert(tensor, dtype.into()),
    }
}

/// Casts the tensor to `dtype`; does nothing if it has that dtype.
pub(super) fn cast<B: Backend>(tensor: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        B::float_cast(tensor, dtype.into())
    }
}
