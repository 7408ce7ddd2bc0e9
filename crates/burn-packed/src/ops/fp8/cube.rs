//! The choice between the kernels and the host on CubeCL devices.

use burn_cubecl::CubeBackend;
#[cfg(feature = "ptx")]
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;

use super::{Product, fallback};
#[cfg(feature = "ptx")]
use crate::ops::{
    layer_norm,
    linear::cube::{Fp8Gemm, is_hopper},
};

pub(crate) fn linear(
    [(codes, scales), (weight, weight_scales)]: [(CubeTensor, CubeTensor); 2],
    product: Product,
) -> CubeTensor {
    #[cfg(feature = "ptx")]
    if is_hopper(&codes) && codes.meta.num_elements() > 0 {
        let gemm = Fp8Gemm {
            codes: into_contiguous(codes),
            scales: into_contiguous(scales),
            weight: into_contiguous(weight),
            weight_scales: into_contiguous(weight_scales),
            product,
        };
        return gemm.run();
    }
    fallback::linear::<CubeBackend>([(codes, scales), (weight, weight_scales)], product)
}

pub(crate) fn quantize(input: CubeTensor) -> (CubeTensor, CubeTensor) {
    #[cfg(feature = "ptx")]
    if is_hopper(&input) {
        if let Some(quantized) = super::kernels::quantize(&input) {
            return quantized;
        }
    }
    fallback::quantize::<CubeBackend>(input)
}

pub(crate) fn add_layer_norm(
    x: CubeTensor,
    branch: CubeTensor,
    weight: CubeTensor,
    eps: f64,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    #[cfg(feature = "ptx")]
    if is_hopper(&x) {
        if let Some(results) = layer_norm::cube::add_forward_fp8(&x, &branch, &weight, eps) {
            return results;
        }
    }
    fallback::add_layer_norm::<CubeBackend>(x, branch, weight, eps)
}
