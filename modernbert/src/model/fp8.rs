//! The matrix multiplications of a layer in fp8: see [`crate::ops::fp8`].

use burn::tensor::{Device, FloatDType, Tensor};

use super::precision::Precision;
use super::published::is_published;
use crate::config::flexbert::LayerSpec;
use crate::ops::fp8::{Product, Quantized, WIDTH_MULTIPLE, has_kernels, linear};

/// The quantized matrices of a layer whose attention and MLP follow each other.
#[derive(Clone, Debug)]
pub(super) struct Fp8Weights {
    pub(super) wqkv: Quantized,
    pub(super) attention_out: Quantized,
    pub(super) wi: Quantized,
    pub(super) mlp_out: Quantized,
}

/// Returns whether layers of these specifications can be computed in fp8 on the device, with attention in `precision`.
pub(super) fn supports(specs: &[LayerSpec], device: &Device, precision: Precision) -> bool {
    let widths = |spec: &LayerSpec| {
        let (attention, mlp) = (&spec.attention, &spec.mlp);
        [spec.norm.width, attention.width(), mlp.inner]
    };
    precision != Precision::F32
        && is_published(specs)
        && specs
            .iter()
            .flat_map(widths)
            .all(|width| width.is_multiple_of(WIDTH_MULTIPLE))
        && has_kernels(device)
}

/// `input · weightᵀ` in the dtype of `precision`.
pub(super) fn project(input: &Quantized, weight: &Quantized, precision: Precision) -> Tensor<2> {
    let product = Product {
        geglu: false,
        dtype: FloatDType::from(precision.dtype()),
    };
    linear(input, weight, product)
}

/// GeGLU of `input · weightᵀ`, in the dtype of `precision`.
pub(super) fn project_geglu(
    input: &Quantized,
    weight: &Quantized,
    precision: Precision,
) -> Tensor<2> {
    let product = Product {
        geglu: true,
        dtype: FloatDType::from(precision.dtype()),
    };
    linear(input, weight, product)
}
