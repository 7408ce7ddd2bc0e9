//! Sums from tensor operations that every backend has.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use crate::ops::primitive::cast_to_compute;

pub(crate) fn sum<B: Backend>(input: FloatTensor<B>, squared: bool) -> FloatTensor<B> {
    let input = cast_to_compute::<B>(input);
    match squared {
        true => B::float_sum(B::float_mul(input.clone(), input)),
        false => B::float_sum(input),
    }
}
