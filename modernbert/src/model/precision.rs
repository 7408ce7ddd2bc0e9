//! Which numbers are computed in which dtype.

use burn::tensor::{DType, FloatDType, Tensor};

/// Dtype of matrix products and attention.
///
/// Parameters, the residual stream, norms, softmax and loss stay in f32 whatever is chosen here; Burn has no automatic
/// casting, so this small type is the whole policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Everything in IEEE f32.
    #[default]
    F32,
    /// Products and attention in bf16, accumulated in f32.
    Bf16,
    /// Products and attention in f16, accumulated in f32.
    F16,
}

impl Precision {
    /// The dtype products are computed in.
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

    /// What enters a matrix product.
    pub(super) fn lower<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => tensor,
            Self::Bf16 => tensor.cast(FloatDType::BF16),
            Self::F16 => tensor.cast(FloatDType::F16),
        }
    }

    /// What joins the residual stream.
    pub(super) fn raise<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        match self {
            Self::F32 => tensor,
            Self::Bf16 | Self::F16 => tensor.cast(FloatDType::F32),
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(format!(
                "unknown dtype `{name}`; known are f32, bf16 and f16"
            )),
        }
    }
}
