//! Conversion to another dtype.
//!
//! Burn's `cast` converts one element after the other on CPUs, on one thread; a training step in bf16 converts every activation and every weight. Here
//! conversions between f32 and bf16 are vectorized and shared by threads on `flex`; elsewhere, and between other dtypes, this is Burn's `cast`. The results are
//! the same: bf16 is rounded to nearest, ties to even.
//!
//! The derivative is converted back to the dtype of the input.

pub(super) mod autodiff;
#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::Dispatch;
use burn::tensor::{FloatDType, Tensor};

use super::PackedBackend;

/// `x` in another dtype.
pub fn convert<const D: usize>(x: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    Tensor::from_dispatch(<Dispatch as PackedBackend>::convert(
        x.into_dispatch(),
        dtype,
    ))
}
