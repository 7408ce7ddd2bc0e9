//! Sums over all elements of a tensor, taken in one order.
//!
//! Burn's own `sum` lets the cubes of a GPU add to one number in whatever order they end: the last digit differs from run to run, and
//! with it a logged loss, and everything behind a gradient that was clipped by its norm. Here each cube writes its part, and one
//! cube adds the parts.
//!
//! | function | result | derivative |
//! |---|---|---|
//! | [`sum`] | `Σ x` | 1 for every element |
//! | [`sum_of_squares`] | `Σ x²` | `2 x` |
//!
//! Results are `[1]`, in f32 (in f64 for f64). Elements are summed in the result's dtype.

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::PackedBackend;

/// Sum of all elements, `[1]`, in f32 (f64 for f64); 0 of none.
pub fn sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::total(x.into_dispatch(), false))
}

/// Sum of the squares of all elements, `[1]`, in f32 (f64 for f64); 0 of none.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::total(x.into_dispatch(), true))
}

/// Mean of all elements, `[1]`, in f32 (f64 for f64); not a number of none.
pub fn mean<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let elements = x.shape().num_elements() as f64;
    sum(x) / elements
}

/// Shape and dtype of the result, which a lazy backend needs before it runs.
#[cfg(feature = "fusion")]
pub(super) fn spec(
    input: &burn::backend::fusion::custom::TensorSpec,
    _squared: &bool,
) -> burn::backend::fusion::custom::TensorSpec {
    use burn::tensor::{DType, Shape};
    let dtype = match input.dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    burn::backend::fusion::custom::TensorSpec::new(Shape::new([1]), dtype)
}
