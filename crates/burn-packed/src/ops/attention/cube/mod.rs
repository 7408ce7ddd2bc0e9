//! Attention on CubeCL devices: the kernels, and which of them computes what.
//!
//! The choice depends on what is known before anything runs: the dtype, the size of a head, the device's limits, and a sequence's own
//! length. It never depends on the other sequences of a batch: results are batch-invariant.
//!
//! | device | dtype | head size | kernels |
//! |---|---|---|---|
//! | CUDA, compute capability 9.0 | bf16, f16 | 64 | `tensor_cores`, with WGMMA; long sequences of global layers: `tensor_cores::pipelined` |
//! | CUDA, 8.0 and later | bf16, f16 | 16 to 128 in steps of 16 | `tensor_cores`, with `mma.sync` |
//! | any with enough shared memory | f32, bf16, f16 | up to 256 | `portable` |
//! | any | all, f64 too | any | fallback, in the parent module |
//!
//! The portable kernels need shared memory and a barrier, nothing else: they run on wgpu (Vulkan, Metal, WebGPU) and on CUDA.

mod portable;
#[cfg(feature = "ptx")]
mod tensor_cores;
mod tile;
mod tile_table;

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
use tensor_cores::{Instructions, Limits};
use tile_table::{ALL_LENGTHS, TileTable, tile_table};

/// What computes a call.
enum Kernels {
    #[cfg(feature = "ptx")]
    TensorCores(Instructions),
    Portable(portable::Shape),
    Fallback,
}

/// The table in the module documentation.
fn choose(qkv: &CubeTensor, spec: &AttentionSpec) -> Kernels {
    #[cfg(feature = "ptx")]
    if let Some(instructions) = Instructions::choose(qkv) {
        return Kernels::TensorCores(instructions);
    }
    portable::Shape::choose(qkv, spec).map_or(Kernels::Fallback, Kernels::Portable)
}

/// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
pub(crate) fn forward(
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> (CubeTensor, CubeTensor) {
    match choose(&qkv, spec) {
        #[cfg(feature = "ptx")]
        Kernels::TensorCores(instructions) => {
            instructions.forward(Limits::CHOSEN, qkv, rotary, spec)
        }
        Kernels::Portable(shape) => portable::forward(shape, qkv, rotary, spec),
        Kernels::Fallback => fallback::forward::<CubeBackend>(qkv, rotary, spec),
    }
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
        Kernels::TensorCores(instructions) => {
            instructions.backward(Limits::CHOSEN, d_out, qkv, out, lse, rotary, spec)
        }
        Kernels::Portable(shape) => portable::backward(shape, d_out, qkv, out, lse, rotary, spec),
        Kernels::Fallback => fallback::backward::<CubeBackend>(d_out, qkv, out, lse, rotary, spec),
    }
}

/// The shape of `qkv`.
fn dims(qkv: &CubeTensor) -> [usize; 4] {
    qkv.shape().dims()
}

/// A call of any kernels of this folder: contiguous inputs and their sizes.
struct Call<'a> {
    qkv: CubeTensor,
    /// The rotary table, in f32.
    rotary: CubeTensor,
    spec: &'a AttentionSpec,
    total: usize,
    heads: usize,
    head_dim: usize,
    /// Rows visible on each side, at most the longest sequence: a wider window hides nothing.
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

    /// The tiles of `rows` rows of all sequences.
    fn tiles(&self, rows: usize) -> TileTable {
        self.tiles_of(ALL_LENGTHS, rows)
            .expect("a call has at least one token")
    }

    /// The tiles of `rows` rows of the sequences of some lengths, if there are any.
    fn tiles_of(&self, lengths: Range<usize>, rows: usize) -> Option<TileTable> {
        tile_table(&self.spec.layout, lengths, rows, &self.qkv)
    }

    /// A block for every head and tile.
    fn count(&self, tiles: &TileTable) -> CubeCount {
        CubeCount::Static(self.heads as u32, tiles.y, tiles.z)
    }

    /// Memory for the output.
    fn output(&self) -> CubeTensor {
        let shape = [self.total, self.heads, self.head_dim];
        empty(&self.qkv, shape, self.qkv.dtype)
    }

    /// Memory for the log-sum-exp, or another f32 number per row and head.
    fn lse(&self) -> CubeTensor {
        empty(&self.qkv, [self.heads, self.total], DType::F32)
    }

    /// Memory for the gradient of `qkv`.
    fn gradient(&self) -> CubeTensor {
        let shape = [self.total, 3, self.heads, self.head_dim];
        empty(&self.qkv, shape, self.qkv.dtype)
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;

#[cfg(all(test, feature = "kernel-sources"))]
mod sources;

#[cfg(all(test, feature = "cuda"))]
mod families;
