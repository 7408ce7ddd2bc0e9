//! Helpers for launches of CubeCL kernels: element types, vector sizes, grids, buffers.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::*;

/// Multiprocessors assumed for a device that does not report their number.
const FEW_MULTIPROCESSORS: u32 = 16;

/// Returns whether kernels of this client run on CUDA.
pub(crate) fn is_cuda(client: &Client) -> bool {
    client.properties().identity.fingerprint.starts_with("ptx")
}

/// Returns the widest vector that divides a row of `width` elements and that the device loads at once in the widest of these dtypes.
pub(crate) fn vector_size(client: &Client, width: usize, dtypes: &[DType]) -> usize {
    let bytes = dtypes.iter().map(|dtype| dtype.size()).max().unwrap_or(4);
    let most = client.properties().hardware.max_vector_size;
    client
        .io_optimized_vector_sizes(bytes)
        .find(|&vector| width.is_multiple_of(vector) && vector <= most)
        .unwrap_or(1)
}

/// Returns the tensor contiguous and uniquely owned, so that a kernel may write to it: a copy if it is shared.
pub(crate) fn uniquely_owned(tensor: CubeTensor) -> CubeTensor {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() {
        return tensor;
    }
    // A copy of a matrix may get padded rows from the backend; a copy of a single row does not.
    let shape = tensor.shape();
    let flat = reshape(tensor, Shape::new([shape.num_elements()]));
    reshape(flat.copy(), shape)
}

/// Returns a grid of at least `blocks` blocks within the device's limits. Kernels number them by `CUBE_POS` and ignore the excess.
pub(crate) fn grid(client: &Client, blocks: usize) -> CubeCount {
    let (most, _, _) = client.properties().hardware.max_cube_count;
    let y = blocks.div_ceil(most as usize).max(1);
    CubeCount::Static(blocks.div_ceil(y) as u32, y as u32, 1)
}

/// Returns the number of blocks that are resident with `per_multiprocessor` of them on each multiprocessor.
pub(crate) fn resident_blocks(client: &Client, per_multiprocessor: usize) -> usize {
    let hardware = &client.properties().hardware;
    let multiprocessors = hardware
        .num_streaming_multiprocessors
        .unwrap_or(FEW_MULTIPROCESSORS);
    per_multiprocessor * multiprocessors as usize
}

/// Returns the element type of a dtype in kernels; `None` for dtypes that the kernels do not support.
pub(crate) fn elem(dtype: DType) -> Option<ElemType> {
    match dtype {
        DType::F32 => Some(ElemType::Float(FloatKind::F32)),
        DType::F16 => Some(ElemType::Float(FloatKind::F16)),
        DType::BF16 => Some(ElemType::Float(FloatKind::BF16)),
        _ => None,
    }
}

/// Returns the element types of several dtypes; `None` if kernels do not support one of them.
pub(crate) fn elems<const N: usize>(dtypes: [DType; N]) -> Option<[ElemType; N]> {
    let found: Vec<ElemType> = dtypes.into_iter().map(elem).collect::<Option<_>>()?;
    found.try_into().ok()
}

/// Returns an uninitialized contiguous tensor on the device of `like`.
pub(crate) fn empty<const D: usize>(
    like: &CubeTensor,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        Shape::new(shape),
        dtype,
    )
}

/// Returns the buffer for a kernel argument: the contiguous tensor, or one vector of memory if the kernel is compiled not to use it
/// (every argument needs a buffer).
pub(crate) fn placeholder(
    tensor: Option<CubeTensor>,
    like: &CubeTensor,
    vector: usize,
    dtype: DType,
) -> CubeTensor {
    match tensor {
        Some(tensor) => into_contiguous(tensor),
        None => empty(like, [vector], dtype),
    }
}

/// Returns the width of indices that can address all of these tensors.
pub(crate) fn address(tensors: &[&CubeTensor]) -> AddressType {
    tensors
        .iter()
        .map(|tensor| tensor.required_address_type())
        .max()
        .unwrap_or_default()
}
