//! Linear layer: `out = input · weightᵀ (+ bias)`, weights stored `[out, in]` as in checkpoints.
//!
//! The forward pass, the input gradient and the weight gradient are GEMMs that differ in which operand is transposed:
//!
//! ```text
//! out      = input · weightᵀ       [tokens, in] · [out, in]ᵀ
//! d_input  = d_out · weight        [tokens, out] · [out, in]
//! d_weight = d_outᵀ · input        [tokens, out]ᵀ · [tokens, in]
//! ```
//!
//! so a backend with its own GEMM overrides [`PackedBackend::gemm`] for all three. If weights are f32 and the pass
//! is in half precision, the weight is cast once per pass, and its gradient is accumulated and returned in f32
//! ([`PackedBackend::gemm_f32`]).

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;
#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::PackedBackend;

/// The operand of a GEMM that is read transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transpose {
    /// `[m, k] · [k, n]`
    None,
    /// `[k, m]ᵀ · [k, n]`
    Lhs,
    /// `[m, k] · [n, k]ᵀ`
    Rhs,
}

/// `input [tokens, in] · weight [out, in]ᵀ + bias [out]`, of shape `[tokens, out]` in the dtype of the input.
///
/// The weight is cast to the dtype of the input, so that f32 parameters can be used in a half-precision pass.
///
/// # Panics
/// If the widths of input and weight differ.
pub fn linear(input: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let ([_, width], [_, expected]) = (input.dims(), weight.dims());
    assert_eq!(
        width,
        expected,
        "linear: the weight {:?} takes inputs of width {expected}, got {width}",
        weight.dims()
    );
    let dtype = input.dtype();
    let out = Tensor::from_dispatch(<Dispatch as PackedBackend>::linear_weight(
        input.into_dispatch(),
        weight.into_dispatch(),
    ));
    match bias {
        Some(bias) => out + match_dtype(bias, dtype).unsqueeze(),
        None => out,
    }
}

/// Returns `lhs · rhs` with one operand transposed as `transpose` states, in the operands' dtype. Not differentiable; [`linear`] is.
///
/// # Panics
/// If the inner dimensions or the dtypes differ.
pub fn gemm(lhs: Tensor<2>, rhs: Tensor<2>, transpose: Transpose) -> Tensor<2> {
    check(&lhs, &rhs, transpose);
    Tensor::from_dispatch(<Dispatch as PackedBackend>::gemm(
        lhs.into_dispatch(),
        rhs.into_dispatch(),
        transpose,
    ))
}

/// The same as [`gemm()`] with an f32 result.
///
/// # Panics
/// If the inner dimensions or the dtypes differ.
pub fn gemm_f32(lhs: Tensor<2>, rhs: Tensor<2>, transpose: Transpose) -> Tensor<2> {
    check(&lhs, &rhs, transpose);
    Tensor::from_dispatch(<Dispatch as PackedBackend>::gemm_f32(
        lhs.into_dispatch(),
        rhs.into_dispatch(),
        transpose,
    ))
}

fn check(lhs: &Tensor<2>, rhs: &Tensor<2>, transpose: Transpose) {
    let ([l0, l1], [r0, r1]) = (lhs.dims(), rhs.dims());
    let (left, right) = match transpose {
        Transpose::None => (l1, r0),
        Transpose::Lhs => (l0, r0),
        Transpose::Rhs => (l1, r1),
    };
    assert_eq!(
        left,
        right,
        "gemm, Transpose::{transpose:?}: the inner dimensions of {:?} and {:?} differ",
        lhs.dims(),
        rhs.dims()
    );
    assert_eq!(
        lhs.dtype(),
        rhs.dtype(),
        "gemm: the operands' dtypes differ"
    );
}

fn match_dtype<const D: usize>(tensor: Tensor<D>, dtype: burn::tensor::DType) -> Tensor<D> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        tensor.cast(dtype)
    }
}

/// Shape and dtype of a GEMM's result, which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(super) fn gemm_spec(
    lhs: &burn::backend::fusion::custom::TensorSpec,
    rhs: &burn::backend::fusion::custom::TensorSpec,
    transpose: &Transpose,
) -> burn::backend::fusion::custom::TensorSpec {
    let (m, n) = match transpose {
        Transpose::None => (lhs.shape[0], rhs.shape[1]),
        Transpose::Lhs => (lhs.shape[1], rhs.shape[1]),
        Transpose::Rhs => (lhs.shape[0], rhs.shape[0]),
    };
    burn::backend::fusion::custom::TensorSpec::new(burn::tensor::Shape::new([m, n]), lhs.dtype)
}

/// The same as [`gemm_spec`] in f32.
#[cfg(feature = "fusion")]
pub(super) fn gemm_f32_spec(
    lhs: &burn::backend::fusion::custom::TensorSpec,
    rhs: &burn::backend::fusion::custom::TensorSpec,
    transpose: &Transpose,
) -> burn::backend::fusion::custom::TensorSpec {
    let mut spec = gemm_spec(lhs, rhs, transpose);
    spec.dtype = burn::tensor::DType::F32;
    spec
}

/// Shape and dtype of a linear layer's result, which Fusion needs before the op runs.
#[cfg(feature = "fusion")]
pub(super) fn linear_spec(
    input: &burn::backend::fusion::custom::TensorSpec,
    weight: &burn::backend::fusion::custom::TensorSpec,
) -> burn::backend::fusion::custom::TensorSpec {
    gemm_spec(input, weight, &Transpose::Rhs)
}
