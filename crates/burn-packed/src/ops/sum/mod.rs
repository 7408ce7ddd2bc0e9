//! Sums over all elements of a tensor, in a fixed order.
//!
//! In Burn's own `sum` the thread blocks of a GPU add to one number with atomics, in the order in which they finish: the last digit
//! differs from run to run, and with it a logged loss and every step after a gradient was clipped by its norm. Here each block
//! writes its partial sum, and one block adds the partial sums.
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
#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::PackedBackend;

/// Sum of all elements, `[1]`, in f32 (f64 for f64); 0 for no elements.
pub fn sum<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::sum(x.into_dispatch(), false))
}

/// Sum of the squares of all elements, `[1]`, in f32 (f64 for f64); 0 for no elements.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::sum(x.into_dispatch(), true))
}

/// Mean of all elements, `[1]`, in f32 (f64 for f64); NaN for no elements.
pub fn mean<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let elements = x.shape().num_elements() as f64;
    sum(x) / elements
}

/// Shape and dtype of the result, which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(super) fn spec(
    input: &burn::backend::fusion::custom::TensorSpec,
    _squared: &bool,
) -> burn::backend::fusion::custom::TensorSpec {
    let dtype = super::primitive::widened(input.dtype);
    burn::backend::fusion::custom::TensorSpec::new(burn::tensor::Shape::new([1]), dtype)
}
