//! Attention on CubeCL devices: which kernel computes what, and the kernels.
//!
//! The choice is a small table on what is known before anything runs: the dtype, the size of a head and the limits the
//! device states. Lengths don't enter it, so that a sequence's result is the same in any company.
//!
//! | device | dtype | head size | kernels |
//! |---|---|---|---|
//! | CUDA, compute capability 9.0 | bf16, f16 | 64 | `hopper`: warp-group products |
//! | CUDA, 8.0 and later | bf16, f16 | 16 to 128 in steps of 16 | `ampere`: warp products |
//! | any with the shared memory for it | f32, bf16, f16 | up to 256 | portable |
//! | any | all, f64 too | any | operations every backend has |
//!
//! The portable kernels need shared memory and a barrier, nothing else: they run on wgpu (Vulkan, Metal, WebGPU) and on
//! CUDA.

#[cfg(feature = "ptx")]
mod ampere;
#[cfg(feature = "ptx")]
mod call;
#[cfg(feature = "ptx")]
mod hopper;
mod portable_backward;
mod portable_forward;
#[cfg(feature = "ptx")]
mod ptx;
#[cfg(feature = "ptx")]
mod rows;
#[cfg(feature = "ptx")]
mod tensor_cores;
mod tile;
mod tiles;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape as TensorShape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::{CubeCount, CubeDim};

use super::AttentionSpec;
use crate::ops::primitive::cast;
use tile::Shape;
use tiles::{Table, table};

/// Sides of a tile, the one to be preferred first: the device's limits decide between them.
const TILES: [usize; 2] = [64, 32];
/// The largest head whose gradients still fit the registers of a unit.
const LARGEST_HEAD: usize = 256;

/// Tensors of the kernel that has the most; WebGPU promises eight, and CubeCL takes one for the other arguments.
const BUFFERS: u32 = 7;

/// What computes a call.
enum Kernel {
    /// Tensor-core kernels for compute capability 9.0.
    #[cfg(feature = "ptx")]
    Hopper,
    /// Tensor-core kernels for compute capability 8.0 and later.
    #[cfg(feature = "ptx")]
    Ampere,
    /// The kernels of this folder.
    Portable(Shape),
    /// Operations every backend has.
    Operations,
}

/// The table.
fn choose(qkv: &CubeTensor, spec: &AttentionSpec) -> Kernel {
    #[cfg(feature = "ptx")]
    if hopper::serves(qkv) {
        return Kernel::Hopper;
    }
    #[cfg(feature = "ptx")]
    if ampere::serves(qkv) {
        return Kernel::Ampere;
    }
    let head_dim = qkv.shape()[3];
    let half_or_single = matches!(qkv.dtype, DType::F32 | DType::F16 | DType::BF16);
    let unpaired = spec.rope && !head_dim.is_multiple_of(2);
    if !half_or_single || unpaired || head_dim > LARGEST_HEAD {
        return Kernel::Operations;
    }
    let hardware = &qkv.client.properties().hardware;
    TILES
        .map(|tile| Shape {
            tile,
            head_dim,
            rotary: spec.rope,
            softcap: spec.softcap.is_some(),
        })
        .into_iter()
        .find(|shape| {
            BUFFERS <= hardware.max_bindings
                && shape.units() <= hardware.max_units_per_cube as usize
                && shape.units() <= hardware.max_cube_dim.0 as usize
                && shape.shared_bytes() <= hardware.max_shared_memory_size
        })
        .map_or(Kernel::Operations, Kernel::Portable)
}

/// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
pub(crate) fn forward(
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> (CubeTensor, CubeTensor) {
    match choose(&qkv, spec) {
        #[cfg(feature = "ptx")]
        Kernel::Hopper => hopper::forward(qkv, rotary, spec),
        #[cfg(feature = "ptx")]
        Kernel::Ampere => ampere::forward(qkv, rotary, spec),
        Kernel::Portable(shape) => forward_in(shape, qkv, rotary, spec),
        Kernel::Operations => super::fallback::forward::<CubeBackend>(qkv, rotary, spec),
    }
}

fn forward_in(
    shape: Shape,
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> (CubeTensor, CubeTensor) {
    let call = Call::new(qkv, rotary, shape, spec);
    let out = call.empty([call.total, call.heads, shape.head_dim], call.qkv.dtype);
    let lse = call.empty([call.heads, call.total], DType::F32);
    portable_forward::forward_kernel::launch(
        &call.qkv.client,
        call.count(),
        call.dim(),
        call.address(),
        call.qkv.clone().into_buffer_arg(),
        call.rotary.clone().into_buffer_arg(),
        call.tiles.entries.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        lse.clone().into_buffer_arg(),
        call.heads,
        call.total,
        call.half_window,
        call.scale,
        call.softcap,
        shape,
        call.elem(),
    );
    (out, lse)
}

/// Gradient `[total, 3, heads, head_dim]` of `qkv`.
pub(crate) fn backward(
    d_out: CubeTensor,
    qkv: CubeTensor,
    out: CubeTensor,
    lse: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> CubeTensor {
    match choose(&qkv, spec) {
        #[cfg(feature = "ptx")]
        Kernel::Hopper => hopper::backward(d_out, qkv, out, lse, rotary, spec),
        #[cfg(feature = "ptx")]
        Kernel::Ampere => ampere::backward(d_out, qkv, out, lse, rotary, spec),
        Kernel::Portable(shape) => backward_in(shape, d_out, qkv, out, lse, rotary, spec),
        Kernel::Operations => {
            super::fallback::backward::<CubeBackend>(d_out, qkv, out, lse, rotary, spec)
        }
    }
}

fn backward_in(
    shape: Shape,
    d_out: CubeTensor,
    qkv: CubeTensor,
    out: CubeTensor,
    lse: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> CubeTensor {
    let dtype = qkv.dtype;
    let call = Call::new(qkv, rotary, shape, spec);
    let client = &call.qkv.client;
    let d_out = into_contiguous(cast::<CubeBackend>(d_out, dtype));
    let out = into_contiguous(out);
    let lse = into_contiguous(lse);
    let delta = call.empty([call.heads, call.total], DType::F32);
    let d_qkv = call.empty([call.total, 3, call.heads, shape.head_dim], dtype);

    let pairs = call.heads * call.total;
    let dim = CubeDim::new(client, pairs);
    portable_backward::delta_kernel::launch(
        client,
        cubecl::calculate_cube_count_elemwise(client, pairs, dim),
        dim,
        call.address(),
        out.into_buffer_arg(),
        d_out.clone().into_buffer_arg(),
        delta.clone().into_buffer_arg(),
        call.heads,
        call.total,
        shape.head_dim,
        call.elem(),
    );
    macro_rules! walk {
        ($kernel:ident) => {
            portable_backward::$kernel::launch(
                client,
                call.count(),
                call.dim(),
                call.address(),
                call.qkv.clone().into_buffer_arg(),
                call.rotary.clone().into_buffer_arg(),
                call.tiles.entries.clone().into_buffer_arg(),
                d_out.clone().into_buffer_arg(),
                lse.clone().into_buffer_arg(),
                delta.clone().into_buffer_arg(),
                d_qkv.clone().into_buffer_arg(),
                call.heads,
                call.total,
                call.half_window,
                call.scale,
                call.softcap,
                shape,
                call.elem(),
            )
        };
    }
    walk!(keys_kernel);
    walk!(queries_kernel);
    d_qkv
}

/// An uninitialised tensor on the device of `like`.
fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        TensorShape::new(shape),
        dtype,
    )
}

/// The shape of `qkv`.
#[cfg(feature = "ptx")]
fn shape_of(qkv: &CubeTensor) -> [usize; 4] {
    qkv.shape().dims()
}

/// What forward and backward pass to every kernel.
struct Call {
    qkv: CubeTensor,
    rotary: CubeTensor,
    tiles: Table,
    shape: Shape,
    total: usize,
    heads: usize,
    half_window: usize,
    scale: f32,
    softcap: f32,
}

impl Call {
    fn new(qkv: CubeTensor, rotary: CubeTensor, shape: Shape, spec: &AttentionSpec) -> Self {
        let [total, _, heads, _] = qkv.shape().dims();
        let longest = spec.layout.max_seqlen();
        Self {
            tiles: table(&spec.layout, shape.tile, &qkv),
            qkv: into_contiguous(qkv),
            rotary: into_contiguous(cast::<CubeBackend>(rotary, DType::F32)),
            shape,
            total,
            heads,
            // A window wider than the longest sequence hides nothing.
            half_window: spec.half_window.map_or(longest, |w| w.min(longest)),
            scale: spec.scale as f32,
            softcap: spec.softcap.unwrap_or(1.0) as f32,
        }
    }

    fn count(&self) -> CubeCount {
        CubeCount::Static(self.heads as u32, self.tiles.y, self.tiles.z)
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_1d(self.shape.units() as u32)
    }

    fn elem(&self) -> ElemType {
        ElemType::Float(match self.qkv.dtype {
            DType::F16 => FloatKind::F16,
            DType::BF16 => FloatKind::BF16,
            _ => FloatKind::F32,
        })
    }

    /// Width of the indices; the gradient of `qkv`, as large as `qkv`, is the largest tensor of a call.
    fn address(&self) -> AddressType {
        self.qkv
            .required_address_type()
            .max(self.rotary.required_address_type())
            .max(self.tiles.entries.required_address_type())
    }

    fn empty<const D: usize>(&self, shape: [usize; D], dtype: DType) -> CubeTensor {
        empty(&self.qkv, shape, dtype)
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;

#[cfg(all(test, feature = "kernel-sources"))]
mod sources;

#[cfg(all(test, feature = "cuda"))]
mod families;
