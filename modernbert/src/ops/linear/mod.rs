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
//! so a backend with a product of its own overrides [`ModernBertBackend::gemm`] alone and serves all three.

pub(super) mod autodiff;
pub(super) mod portable;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::ModernBertBackend;

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
    let weight = match_dtype(weight, dtype);
    let out = Tensor::from_dispatch(<Dispatch as ModernBertBackend>::linear_weight(
        input.into_dispatch(),
        weight.into_dispatch(),
    ));
    match bias {
        Some(bias) => out + match_dtype(bias, dtype).unsqueeze(),
        None => out,
    }
}

fn match_dtype<const D: usize>(tensor: Tensor<D>, dtype: burn::tensor::DType) -> Tensor<D> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        tensor.cast(dtype)
    }
}

/// Shape of a product, which a lazy backend needs before it runs.
#[cfg(feature = "cube")]
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

/// Shape of `linear`, which a lazy backend needs before it runs.
#[cfg(feature = "cube")]
pub(super) fn linear_spec(
    input: &burn::backend::fusion::custom::TensorSpec,
    weight: &burn::backend::fusion::custom::TensorSpec,
) -> burn::backend::fusion::custom::TensorSpec {
    gemm_spec(input, weight, &Transpose::Rhs)
}
