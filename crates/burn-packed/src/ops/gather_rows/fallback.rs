//! Row gather from tensor operations that every backend has.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Shape};

use crate::ops::primitive::cast_to_compute;

pub(crate) fn forward<B: Backend>(table: FloatTensor<B>, ids: IntTensor<B>) -> FloatTensor<B> {
    B::float_select(table, 0, ids)
}

pub(crate) fn backward<B: Backend>(
    d_out: FloatTensor<B>,
    ids: IntTensor<B>,
    rows: usize,
) -> FloatTensor<B> {
    let d_out = cast_to_compute::<B>(d_out);
    let shape = Shape::new([rows, d_out.shape()[1]]);
    let zeros = B::float_zeros(shape, &d_out.device(), d_out.dtype().into());
    B::float_select_assign(zeros, 0, ids, d_out, IndexingUpdateOp::Add)
}
