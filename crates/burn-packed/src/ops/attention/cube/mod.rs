//! Attention on CubeCL devices: the choice of the kernels for a call, and the types that all kernels share.
//!
//! The choice depends on the dtype, the size of a head, window, softcap and RoPE, the device, and a sequence's own length. It never depends
//! on timings or on the other sequences of a batch: results are batch-invariant.
//!
//! | device | dtype | head size | kernels |
//! |---|---|---|---|
//! | CUDA, compute capability 9.0 | bf16, f16 | 64 | `tensor_cores`, with WGMMA; long sequences of global layers: `tensor_cores::pipelined` |
//! | CUDA, 8.0 and later | bf16, f16 | 16 to 128 in steps of 16 | `tensor_cores`, with `mma.sync` |
//! | any with enough shared memory | f32, bf16, f16 | up to 256 | `portable` |
//! | any | all, f64 too | any | fallback, in the parent module |
//!
//! The portable kernels need only shared memory and a barrier: they run on wgpu (Vulkan, Metal, WebGPU) and on CUDA. The
//! lengths from which `pipelined` is used, and the windows for which RoPE is applied inside the tensor-core kernels, are `DispatchThresholds::CHOSEN`.

mod portable;
#[cfg(feature = "ptx")]
mod tensor_cores;
mod tile;
pub(crate) mod tile_table;

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubeCount;

use super::{AttentionSpec, fallback};
use crate::ops::primitive::cast;
use crate::ops::rows::empty;
#[cfg(feature = "ptx")]
use tensor_cores::{DispatchThresholds, Instructions};
use tile_table::{ALL_LENGTHS, TileTable, tile_table};

/// The kernels that compute a call.
enum Kernels {
    #[cfg(feature = "ptx")]
    TensorCores(Instructions),
    Portable(portable::KernelConfig),
    Fallback,
}

/// Returns the kernels of a call, by the table in the module documentation.
fn choose(qkv: &CubeTensor, spec: &AttentionSpec) -> Kernels {
    #[cfg(feature = "ptx")]
    if let Some(instructions) = Instructions::choose(qkv) {
        return Kernels::TensorCores(instructions);
    }
    portable::KernelConfig::choose(qkv, spec).map_or(Kernels::Fallback, Kernels::Portable)
}

/// Returns output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
pub(crate) fn forward(
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> (CubeTensor, CubeTensor) {
    match choose(&qkv, spec) {
        #[cfg(feature = "ptx")]
        Kernels::TensorCores(instructions) => {
            instructions.forward(DispatchThresholds::CHOSEN, &Call::new(qkv, rotary, spec))
        }
        Kernels::Portable(config) => portable::forward(config, &Call::new(qkv, rotary, spec)),
        Kernels::Fallback => fallback::forward::<CubeBackend>(qkv, rotary, spec),
    }
}

/// Returns the gradient `[total, 3, heads, head_dim]` of `qkv`.
pub(crate) fn backward(
    d_out: CubeTensor,
    qkv: CubeTensor,
    out: CubeTensor,
    lse: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> CubeTensor {
    let kernels = choose(&qkv, spec);
    if let Kernels::Fallback = kernels {
        return fallback::backward::<CubeBackend>(d_out, qkv, out, lse, rotary, spec);
    }
    let saved = SavedAttention::new(d_out, out, lse, qkv.dtype);
    let call = Call::new(qkv, rotary, spec);
    match kernels {
        #[cfg(feature = "ptx")]
        Kernels::TensorCores(instructions) => {
            instructions.backward(DispatchThresholds::CHOSEN, &call, &saved)
        }
        Kernels::Portable(config) => portable::backward(config, &call, &saved),
        Kernels::Fallback => unreachable!(),
    }
}

/// Returns the shape of `qkv`.
fn dims(qkv: &CubeTensor) -> [usize; 4] {
    qkv.shape().dims()
}

/// Inputs that all kernels of this folder share: contiguous tensors and their sizes.
struct Call<'a> {
    qkv: CubeTensor,
    /// The rotary table, in f32.
    rotary: CubeTensor,
    spec: &'a AttentionSpec,
    total: usize,
    heads: usize,
    head_dim: usize,
    /// Rows visible on each side, at most the length of the longest sequence: a wider window hides no key.
    half_window: i32,
}

impl<'a> Call<'a> {
    fn new(qkv: CubeTensor, rotary: CubeTensor, spec: &'a AttentionSpec) -> Self {
        let [total, _, heads, head_dim] = dims(&qkv);
        let longest = spec.layout.max_seqlen();
        Self {
            qkv: into_contiguous(qkv),
            rotary: into_contiguous(cast::<CubeBackend>(rotary, DType::F32)),
            spec,
            total,
            heads,
            head_dim,
            half_window: spec.half_window.map_or(longest, |w| w.min(longest)) as i32,
        }
    }

    /// Returns the table of the tiles of `rows` rows of all sequences.
    fn tiles(&self, rows: usize) -> TileTable {
        self.tiles_of(ALL_LENGTHS, rows)
            .expect("a call has at least one token")
    }

    /// Returns the table of the tiles of `rows` rows of the sequences whose length is one of `lengths`; `None` if there are none.
    fn tiles_of(&self, lengths: Range<usize>, rows: usize) -> Option<TileTable> {
        tile_table(&self.spec.layout, lengths, rows, &self.qkv)
    }

    /// Returns the grid: one thread block for every head and tile.
    fn count(&self, tiles: &TileTable) -> CubeCount {
        CubeCount::Static(self.heads as u32, tiles.y, tiles.z)
    }

    /// Allocates the output.
    fn output(&self) -> CubeTensor {
        let shape = [self.total, self.heads, self.head_dim];
        empty(&self.qkv, shape, self.qkv.dtype)
    }

    /// Allocates the log-sum-exp, or another f32 value per row and head.
    fn lse(&self) -> CubeTensor {
        empty(&self.qkv, [self.heads, self.total], DType::F32)
    }

    /// Allocates the gradient of `qkv`.
    fn gradient(&self) -> CubeTensor {
        let shape = [self.total, 3, self.heads, self.head_dim];
        empty(&self.qkv, shape, self.qkv.dtype)
    }
}

/// Tensors that the backward pass reads besides the inputs of the forward pass, contiguous.
struct SavedAttention {
    /// Gradient of the output, in the dtype of `qkv`.
    d_out: CubeTensor,
    out: CubeTensor,
    lse: CubeTensor,
}

impl SavedAttention {
    fn new(d_out: CubeTensor, out: CubeTensor, lse: CubeTensor, dtype: DType) -> Self {
        Self {
            d_out: into_contiguous(cast::<CubeBackend>(d_out, dtype)),
            out: into_contiguous(out),
            lse: into_contiguous(lse),
        }
    }
}

#[cfg(all(test, any(feature = "cuda", feature = "wgpu")))]
mod tests;

#[cfg(all(test, feature = "kernel-sources"))]
mod sources;

#[cfg(all(test, feature = "cuda"))]
mod families;
