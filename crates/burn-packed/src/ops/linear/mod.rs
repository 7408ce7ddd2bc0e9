//! Matrix product with a weight: `out = input · weightᵀ (+ bias)`, weights stored `[out, in]` as in checkpoints.
//!
//! Forward, input gradient and weight gradient are the same product with other operands transposed:
//!
//! ```text
//! out      = input · weightᵀ       [tokens, in] · [out, in]ᵀ
//! d_input  = d_out · weight        [tokens, out] · [out, in]
//! d_weight = d_outᵀ · input        [tokens, out]ᵀ · [tokens, in]
//! ```
//!
//! so a backend with a product of its own overrides [`PackedBackend::gemm`] alone and serves all three. Where f32 weights meet a
//! half-precision pass, the weight is cast once per pass and its gradient comes out of the product in f32
//! ([`PackedBackend::gemm_f32`]).

pub(super) mod autodiff;
#[cfg(feature = "cube")]
pub(super) mod cube;
pub(super) mod fallback;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::PackedBackend;

/// Which operand of a product is read transposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transpose {
    /// `[m, k] · [k, n]`
    None,
    /// `[k, m]ᵀ · [k, n]`
    Lhs,
    /// `[m, k] · [n, k]ᵀ`
    Rhs,
}

/// `input [tokens, in]` times `weight [out, in]` transposed, plus `bias [out]`: `[tokens, out]`.
///
/// The weight is cast to the dtype of the input where they differ, so that f32 parameters serve a half-precision pass.
///
/// # Panics
/// When the widths differ.
pub fn linear(input: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let ([_, width], [_, expected]) = (input.dims(), weight.dims());
    assert_eq!(
        width,
        expected,
        "a weight {:?} takes {expected} columns, got {width}",
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

/// `lhs` times `rhs`, read transposed as asked: the bare product that [`linear`] and its gradients are made of, without a derivative of
/// its own. The result has the operands' dtype.
///
/// # Panics
/// When the inner sizes differ, or the dtypes.
pub fn gemm(lhs: Tensor<2>, rhs: Tensor<2>, transpose: Transpose) -> Tensor<2> {
    check(&lhs, &rhs, transpose);
    Tensor::from_dispatch(<Dispatch as PackedBackend>::gemm(
        lhs.into_dispatch(),
        rhs.into_dispatch(),
        transpose,
    ))
}

/// As [`gemm()`], with the result in f32.
///
/// # Panics
/// As [`gemm()`].
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
        "{transpose:?}: {:?} by {:?}",
        lhs.dims(),
        rhs.dims()
    );
    assert_eq!(lhs.dtype(), rhs.dtype(), "both operands need one dtype");
}

fn match_dtype<const D: usize>(tensor: Tensor<D>, dtype: burn::tensor::DType) -> Tensor<D> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        tensor.cast(dtype)
    }
}

/// Shape of a product, which a lazy backend needs before it runs.
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

/// As [`gemm_spec`], in f32.
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

/// Shape of `linear`, which a lazy backend needs before it runs.
#[cfg(feature = "fusion")]
pub(super) fn linear_spec(
    input: &burn::backend::fusion::custom::TensorSpec,
    weight: &burn::backend::fusion::custom::TensorSpec,
) -> burn::backend::fusion::custom::TensorSpec {
    gemm_spec(input, weight, &Transpose::Rhs)
}
