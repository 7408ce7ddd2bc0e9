//! Attention kernels for any GPU: f32 arithmetic, shared memory and barriers, no tensor cores.

pub(super) mod backward;
pub(super) mod forward;
mod tile;

#[cfg(all(test, feature = "kernel-sources"))]
pub(super) use tile::ArgsCompilationArg;
pub(super) use tile::KernelConfig;

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{AddressType, ElemType};
use cubecl::prelude::CubeDim;

use super::super::AttentionSpec;
use super::tile_table::TileTable;
use super::{Call, SavedAttention, dims};
use crate::ops::rows::{address, elem};
use tile::ArgsLaunch;

/// Candidates for the rows of a tile, the preferred one first; the first that fits the device's limits is used.
pub(super) const TILES: [usize; 2] = [64, 32];
/// The largest head whose gradients fit the registers of a thread.
const LARGEST_HEAD: usize = 256;
/// Tensors of the kernel that has the most of them. WebGPU guarantees eight bindings, of which CubeCL uses one for the other arguments.
const BUFFERS: u32 = 7;

impl KernelConfig {
    /// Returns the kernels for `qkv`; `None` if no tile size fits its dtype, its head size and the device.
    pub(super) fn choose(qkv: &CubeTensor, spec: &AttentionSpec) -> Option<Self> {
        let head_dim = dims(qkv)[3];
        let dtype = matches!(qkv.dtype, DType::F32 | DType::F16 | DType::BF16);
        let unpaired = spec.rope && !head_dim.is_multiple_of(2);
        if !dtype || unpaired || head_dim > LARGEST_HEAD {
            return None;
        }
        let hardware = &qkv.client.properties().hardware;
        let configs = TILES.map(|tile| Self {
            tile,
            head_dim,
            rope: spec.rope,
            softcap: spec.softcap.is_some(),
        });
        configs.into_iter().find(|config| {
            BUFFERS <= hardware.max_bindings
                && config.threads() <= hardware.max_units_per_cube as usize
                && config.threads() <= hardware.max_cube_dim.0 as usize
                && config.shared_bytes() <= hardware.max_shared_memory_size
        })
    }
}

/// Returns output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
pub(super) fn forward(config: KernelConfig, call: &Call) -> (CubeTensor, CubeTensor) {
    let tiles = call.tiles(config.tile);
    let (out, lse) = (call.output(), call.lse());
    forward::forward_kernel::launch(
        &call.qkv.client,
        call.count(&tiles),
        CubeDim::new_1d(config.threads() as u32),
        call.address(&tiles),
        call.qkv.clone().into_buffer_arg(),
        call.rotary.clone().into_buffer_arg(),
        tiles.entries.clone().into_buffer_arg(),
        out.clone().into_buffer_arg(),
        lse.clone().into_buffer_arg(),
        call.scalars(),
        config,
        call.elem(),
    );
    (out, lse)
}

/// Returns the gradient `[total, 3, heads, head_dim]` of `qkv`.
pub(super) fn backward(config: KernelConfig, call: &Call, saved: &SavedAttention) -> CubeTensor {
    let client = &call.qkv.client;
    let tiles = call.tiles(config.tile);
    let (delta, d_qkv) = (call.lse(), call.gradient());
    let rows = call.heads * call.total;
    let dim = CubeDim::new(client, rows);
    backward::delta_kernel::launch(
        client,
        cubecl::calculate_cube_count_elemwise(client, rows, dim),
        dim,
        call.address(&tiles),
        saved.out.clone().into_buffer_arg(),
        saved.d_out.clone().into_buffer_arg(),
        delta.clone().into_buffer_arg(),
        call.scalars(),
        config.head_dim,
        call.elem(),
    );
    for keys in [true, false] {
        backward::backward_kernel::launch(
            client,
            call.count(&tiles),
            CubeDim::new_1d(config.threads() as u32),
            call.address(&tiles),
            call.qkv.clone().into_buffer_arg(),
            call.rotary.clone().into_buffer_arg(),
            tiles.entries.clone().into_buffer_arg(),
            saved.d_out.clone().into_buffer_arg(),
            saved.lse.clone().into_buffer_arg(),
            delta.clone().into_buffer_arg(),
            d_qkv.clone().into_buffer_arg(),
            call.scalars(),
            keys,
            config,
            call.elem(),
        );
    }
    d_qkv
}

impl Call<'_> {
    fn scalars(&self) -> ArgsLaunch {
        ArgsLaunch::new(
            self.heads,
            self.total,
            self.half_window,
            self.spec.scale as f32,
            self.spec.softcap.unwrap_or(1.0) as f32,
        )
    }

    fn elem(&self) -> ElemType {
        elem(self.qkv.dtype).expect("the configuration was chosen for the dtype")
    }

    /// Returns the width of indices that can address every tensor; `qkv` and its gradient are the largest.
    fn address(&self, tiles: &TileTable) -> AddressType {
        address(&[&self.qkv, &self.rotary, &tiles.entries])
    }
}
