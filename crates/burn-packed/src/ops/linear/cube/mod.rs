//! The matrix product on CubeCL devices: which kernel computes what.
//!
//! | device | operands | kernel |
//! |---|---|---|
//! | CUDA, compute capability 9.0 | bf16, f16; contiguous axes of whole 16 bytes | `hopper`: tensor cores |
//! | CUDA, otherwise | f32, bf16, f16 | `tiled`: f32 arithmetic, any size |
//! | wgpu, Vulkan, Metal | f16 | `tiled`: the backend's own product sums up in f16 |
//! | wgpu, Vulkan, Metal | f32 | the backend's own product |
//! | any | f64 | the backend's own product |
//!
//! The backend's own product isn't used on CUDA: it rounds f32 to TF32, and some of its kernels don't run at this model's
//! sizes. Nothing is chosen by timing, so results don't change from run to run.

#[cfg(feature = "ptx")]
mod hopper;
#[cfg(feature = "ptx")]
mod launch;
#[cfg(feature = "ptx")]
mod plan;
#[cfg(all(test, feature = "cuda"))]
mod plans;
#[cfg(feature = "ptx")]
mod ptx;
#[cfg(all(test, feature = "kernel-sources"))]
mod sources;
#[cfg(feature = "ptx")]
mod sums;
mod tiled;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::{CubeCount, CubeDim};

use super::{Transpose, fallback};
use crate::ops::rows::{address, elems, empty};

/// Rows, columns and inner dimension of a product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    rows: usize,
    columns: usize,
    inner: usize,
}

impl Sizes {
    fn of(lhs: &CubeTensor, rhs: &CubeTensor, transpose: Transpose) -> Self {
        let [l0, l1] = lhs.shape().dims();
        let [r0, r1] = rhs.shape().dims();
        let (rows, inner, columns) = match transpose {
            Transpose::None => (l0, l1, r1),
            Transpose::Lhs => (l1, l0, r1),
            Transpose::Rhs => (l0, l1, r0),
        };
        Self {
            rows,
            columns,
            inner,
        }
    }
}

/// See [`super::Transpose`]; the result has the dtype of `lhs`, or f32 where `wide`.
pub(crate) fn gemm(
    lhs: CubeTensor,
    rhs: CubeTensor,
    transpose: Transpose,
    wide: bool,
) -> CubeTensor {
    let dtype = if wide { DType::F32 } else { lhs.dtype };
    let sizes = Sizes::of(&lhs, &rhs, transpose);
    // No kernel can be started on nothing.
    if sizes.rows * sizes.columns == 0 {
        return empty(&lhs, [sizes.rows, sizes.columns], dtype);
    }
    if sizes.inner == 0 {
        return burn_cubecl::ops::numeric::zeros_client(
            lhs.client.clone(),
            lhs.device.clone(),
            Shape::new([sizes.rows, sizes.columns]),
            dtype,
        );
    }
    let elements = elems([lhs.dtype, dtype]);
    let own = (is_cuda(&lhs) || lhs.dtype != DType::F32) && lhs.dtype == rhs.dtype;
    let Some(elements) = elements.filter(|_| own) else {
        let out = fallback::gemm::<CubeBackend>(lhs, rhs, transpose);
        return crate::ops::primitive::cast::<CubeBackend>(out, dtype);
    };
    // Rows may stand further apart than they are long, as the backend's own operations leave them on CUDA.
    #[cfg(feature = "ptx")]
    if launch::serves(&lhs, &rhs, sizes) {
        return launch::gemm(lhs, rhs, transpose, sizes, (dtype, elements[1]));
    }
    let (lhs, rhs) = (into_contiguous(lhs), into_contiguous(rhs));
    tiled(lhs, rhs, transpose, sizes, dtype, elements)
}

/// Whether a tensor lives on a CUDA device.
fn is_cuda(tensor: &CubeTensor) -> bool {
    tensor
        .client
        .properties()
        .identity
        .fingerprint
        .starts_with("ptx")
}

fn tiled(
    lhs: CubeTensor,
    rhs: CubeTensor,
    transpose: Transpose,
    sizes: Sizes,
    dtype: DType,
    [operands, result]: [ElemType; 2],
) -> CubeTensor {
    let Sizes {
        rows,
        columns,
        inner,
    } = sizes;
    let (a_row, a_inner) = match transpose {
        Transpose::Lhs => (1, rows),
        _ => (inner, 1),
    };
    let (b_inner, b_column) = match transpose {
        Transpose::Rhs => (1, inner),
        _ => (columns, 1),
    };
    let out = empty(&lhs, [rows, columns], dtype);
    let address = address(&[&lhs, &rhs, &out]);
    tiled::tiled_gemm::launch(
        &lhs.client,
        CubeCount::Static(
            rows.div_ceil(tiled::TILE) as u32,
            columns.div_ceil(tiled::TILE) as u32,
            1,
        ),
        CubeDim::new_1d(tiled::UNITS),
        address,
        lhs.clone().into_buffer_arg(),
        rhs.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        rows,
        columns,
        inner,
        a_row,
        a_inner,
        b_inner,
        b_column,
        transpose == Transpose::Lhs,
        transpose != Transpose::Rhs,
        operands,
        result,
    );
    out
}
