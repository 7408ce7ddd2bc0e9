//! GEMM on CubeCL devices: the choice of the kernel for a call.
//!
//! | device | operands | kernel |
//! |---|---|---|
//! | CUDA, compute capability 9.0 | bf16, f16; rows and base at multiples of 16 bytes | `hopper`: tensor cores |
//! | CUDA, compute capability 9.0 | e4m3 codes of [`crate::ops::fp8`] | `hopper`, launched by `fp8` |
//! | CUDA, otherwise | f32, bf16, f16 | `portable`: f32 arithmetic, any size |
//! | wgpu, Vulkan, Metal | f16 | `portable`: Burn's matmul accumulates in f16 |
//! | wgpu, Vulkan, Metal | f32 | Burn's matmul (CubeK) |
//! | any | f64 | Burn's matmul (CubeK) |
//!
//! Burn's matmul is not used on CUDA in other dtypes: it rounds f32 operands to TF32, and some of its kernels never return at this
//! model's sizes. The choice depends on dtypes, sizes and the device, never on timings, so results do not change from run to run.

#[cfg(feature = "ptx")]
mod fp8;
#[cfg(feature = "ptx")]
mod hopper;
#[cfg(feature = "ptx")]
mod launch;
#[cfg(feature = "ptx")]
mod plan;
#[cfg(all(test, feature = "cuda"))]
mod plan_tests;
mod portable;
#[cfg(feature = "ptx")]
#[cfg(all(test, feature = "kernel-sources"))]
mod source_tests;
#[cfg(feature = "ptx")]
mod sums;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;

#[cfg(feature = "ptx")]
pub(in crate::ops) use self::{fp8::Fp8Gemm, launch::is_hopper};
use super::{Transpose, fallback};
use crate::ops::rows::{elem, empty, is_cuda};

/// Sizes of a GEMM: `[m, k] · [k, n]`.
#[derive(Clone, Copy, Debug)]
struct GemmShape {
    m: usize,
    n: usize,
    k: usize,
}

impl GemmShape {
    fn of(lhs: &CubeTensor, rhs: &CubeTensor, transpose: Transpose) -> Self {
        let [l0, l1] = lhs.shape().dims();
        let [r0, r1] = rhs.shape().dims();
        let (m, k, n) = match transpose {
            Transpose::None => (l0, l1, r1),
            Transpose::Lhs => (l1, l0, r1),
            Transpose::Rhs => (l0, l1, r0),
        };
        Self { m, n, k }
    }
}

/// Arguments of a GEMM that a kernel of this module supports.
struct Gemm {
    lhs: CubeTensor,
    rhs: CubeTensor,
    transpose: Transpose,
    shape: GemmShape,
    /// Dtype of the output.
    out: DType,
    /// Element types of operands and output in kernels.
    operand_element: ElemType,
    out_element: ElemType,
}

/// Returns `lhs · rhs`, with one operand transposed as [`Transpose`] states; the result is in the dtype of `lhs`, or in f32 if `f32_out`.
pub(crate) fn gemm(
    lhs: CubeTensor,
    rhs: CubeTensor,
    transpose: Transpose,
    f32_out: bool,
) -> CubeTensor {
    let out = if f32_out { DType::F32 } else { lhs.dtype };
    let shape = GemmShape::of(&lhs, &rhs, transpose);
    // A grid cannot be empty.
    if shape.m * shape.n == 0 {
        return empty(&lhs, [shape.m, shape.n], out);
    }
    if shape.k == 0 {
        return burn_cubecl::ops::numeric::zeros_client(
            lhs.client.clone(),
            lhs.device.clone(),
            Shape::new([shape.m, shape.n]),
            out,
        );
    }
    let has_kernel = (is_cuda(&lhs.client) || lhs.dtype != DType::F32) && lhs.dtype == rhs.dtype;
    let (Some(operand_element), Some(out_element), true) = (elem(lhs.dtype), elem(out), has_kernel)
    else {
        let product = fallback::gemm::<CubeBackend>(lhs, rhs, transpose);
        return crate::ops::primitive::cast::<CubeBackend>(product, out);
    };
    let gemm = Gemm {
        lhs,
        rhs,
        transpose,
        shape,
        out,
        operand_element,
        out_element,
    };
    // Checked before the operands are made contiguous: Burn's operations leave padded rows on CUDA, which TMA can address.
    #[cfg(feature = "ptx")]
    if gemm.fits_hopper() {
        return gemm.run_hopper();
    }
    gemm.run_portable()
}

/// Returns `geglu(input · weightᵀ)` computed in one kernel, or `None` where no kernel does; see [`crate::ops::geglu`]. Input `[tokens, in]` and weight
/// `[2 * width, in]` in one dtype of 16 bits.
pub(crate) fn geglu_gemm(input: &CubeTensor, weight: &CubeTensor) -> Option<CubeTensor> {
    #[cfg(feature = "ptx")]
    {
        let shape = GemmShape::of(input, weight, Transpose::Rhs);
        if shape.m * shape.n * shape.k == 0
            || !shape.n.is_multiple_of(16)
            || input.dtype != weight.dtype
        {
            return None;
        }
        let element = elem(input.dtype)?;
        let gemm = Gemm {
            lhs: input.clone(),
            rhs: weight.clone(),
            transpose: Transpose::Rhs,
            shape,
            out: input.dtype,
            operand_element: element,
            out_element: element,
        };
        gemm.fits_hopper().then(|| gemm.run_geglu())
    }
    #[cfg(not(feature = "ptx"))]
    {
        let _ = (input, weight);
        None
    }
}
