//! Mixed precision: the dtype of each kind of computation.

use burn::tensor::{DType, FloatDType, Tensor};

use crate::ops::convert::convert;

/// Dtype of matrix multiplications and attention.
///
/// Parameters, the residual stream, norms, softmax and loss stay in f32 in any case. Burn has no automatic
/// casting, so this type defines the whole policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Everything in IEEE f32.
    #[default]
    F32,
    /// Matrix multiplications and attention in bf16, accumulated in f32.
    Bf16,
    /// Matrix multiplications and attention in f16, accumulated in f32.
    F16,
}

impl Precision {
    /// The dtype of matrix multiplications.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// `f32`, `bf16` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Casts the input of a matrix multiplication.
    pub(super) fn to_compute<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => tensor,
            Self::Bf16 => convert(tensor, FloatDType::BF16),
            Self::F16 => convert(tensor, FloatDType::F16),
        }
    }

    /// Casts what is added to the residual stream.
    pub(super) fn raise<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => tensor,
            Self::Bf16 | Self::F16 => convert(tensor, FloatDType::F32),
        }
    }
}

/// Reason why a text is no precision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown dtype `{0}`; known are f32, bf16 and f16")]
pub struct UnknownPrecision(String);

impl std::str::FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(UnknownPrecision(name.to_string())),
        }
    }
}
