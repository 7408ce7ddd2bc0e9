//! Sums from operations that every backend has.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::DType;

use crate::ops::primitive::cast;

pub(crate) fn total<B: Backend>(input: FloatTensor<B>, squared: bool) -> FloatTensor<B> {
    let dtype = match input.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let input = cast::<B>(input, dtype);
    match squared {
        true => B::float_sum(B::float_mul(input.clone(), input)),
        false => B::float_sum(input),
    }
}
