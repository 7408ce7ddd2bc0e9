//! Compile-time parameters and launch arguments of the tensor-core kernels.

use cubecl::prelude::*;

/// Compile-time parameters of a kernel. Lengths, windows and the number of heads are launch arguments: they never recompile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(in super::super) struct KernelConfig {
    /// Size of a head: a multiple of 16, at most 128.
    pub(in super::super) head_dim: u32,
    /// Rows of the block's own tile, 16 to a warp.
    pub(in super::super) rows: u32,
    /// Rows of a streamed tile of keys (of queries in the kernel for the gradients of k and v): a multiple of 16.
    pub(in super::super) keys: u32,
    /// True for WGMMA, with operands in shared memory under the 128-byte swizzle; false for `mma.sync`.
    pub(in super::super) wgmma: bool,
    /// True if the block's own rows stay in registers, as operands for all streamed tiles.
    pub(in super::super) resident: bool,
    /// True if RoPE is applied to q and k in shared memory, after each tile's copy; otherwise an earlier kernel has applied RoPE.
    pub(in super::super) rope_inside: bool,
    /// True if q and k have RoPE at all: the gradients of q and k then pass through its transpose.
    pub(in super::super) rope: bool,
    /// True if scores have a softcap.
    pub(in super::super) capped: bool,
    /// f16 instead of bf16.
    pub(in super::super) half: bool,
}

impl KernelConfig {
    /// Threads of a block.
    pub(in super::super) fn threads(self) -> u32 {
        self.rows * 2
    }

    /// Rows of one matrix instruction, by whose window loops skip tiles: 64 of a warp group, 16 of a warp.
    pub(super) fn group(self) -> u32 {
        if self.wgmma { 64 } else { 16 }
    }

    /// PTX's name of the dtype.
    pub(super) fn ty(self) -> &'static str {
        dtype(self.half)
    }

    /// Bytes of a row in global memory.
    pub(super) fn row_bytes(self) -> u32 {
        self.head_dim * 2
    }

    /// Bytes from a row in shared memory to the next. For `ldmatrix`, 16 bytes of padding make a row an odd number of 16-byte
    /// chunks, so that the eight rows of a matrix are in different banks; for WGMMA the swizzle does that.
    pub(super) fn pitch(self) -> u32 {
        self.row_bytes() + if self.wgmma { 0 } else { 16 }
    }

    /// Bytes of a streamed tile.
    pub(super) fn tile_bytes(self) -> u32 {
        self.keys * self.pitch()
    }

    /// Bytes of a stage: tiles of the two streamed tensors.
    pub(super) fn stage_bytes(self) -> u32 {
        2 * self.tile_bytes()
    }

    /// Bytes of the block's own rows of one tensor.
    pub(super) fn own_bytes(self) -> u32 {
        self.rows * self.pitch()
    }

    /// Offsets in the forward kernel's shared memory: the block's queries, stages 0 and 1, the end. Queries that become resident
    /// are read before stage 1 is first filled, and use stage 1's memory until then.
    pub(super) fn forward_layout(self) -> (u32, u32, u32) {
        let (own, stages) = (self.own_bytes(), 2 * self.stage_bytes());
        if self.resident {
            let queries = self.stage_bytes();
            (queries, 0, stages.max(queries + own))
        } else {
            (0, own, own + stages)
        }
    }

    /// Bytes of a backward kernel's shared memory, without [`KernelConfig::statistics_bytes`]: the block's own rows of two tensors, and
    /// after them stages 0 and 1.
    pub(super) fn backward_bytes(self) -> u32 {
        2 * self.own_bytes() + 2 * self.stage_bytes()
    }

    /// Bytes of log-sum-exp and delta of the streamed queries of two stages.
    pub(super) fn statistics_bytes(self) -> u32 {
        2 * 2 * 4 * self.keys
    }

    /// Bytes of shared memory of the kernel that needs most.
    pub(super) fn most_shared_bytes(self) -> usize {
        let backward = self.backward_bytes() + self.statistics_bytes();
        self.forward_layout().2.max(backward) as usize
    }

    /// Alignment of tiles in shared memory: WGMMA's swizzle repeats after 1024 bytes.
    pub(super) fn alignment(self) -> usize {
        if self.wgmma { 1024 } else { 128 }
    }

    /// N-tiles (see [`super::family::Family`]) of a fragment `[group, keys]`.
    pub(super) fn score_n_tiles(self) -> usize {
        self.keys as usize / 8
    }

    /// N-tiles of a fragment `[group, head_dim]`.
    pub(super) fn head_n_tiles(self) -> usize {
        self.head_dim as usize / 8
    }
}

/// PTX's name of the dtype.
pub(super) fn dtype(half: bool) -> &'static str {
    if half { "f16" } else { "bf16" }
}

/// Launch arguments of the attention kernels besides tensors. Distances are in bytes.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(in super::super) struct Args {
    /// From a token to the next in the tensor of queries and keys.
    pub(in super::super) qk_row: u32,
    /// From a query to the key of the same token.
    pub(in super::super) k_offset: u32,
    /// From a token to the next in the tensor of values, `qkv`.
    pub(in super::super) v_row: u32,
    /// From element 0 of a token in `qkv` to its values.
    pub(in super::super) v_offset: u32,
    /// Number of heads.
    pub(in super::super) heads: u32,
    /// Tokens of the batch.
    pub(in super::super) total: u32,
    /// Rows visible on each side, inclusive; at most the longest sequence.
    pub(in super::super) half_window: i32,
    /// Factor on the scores.
    pub(in super::super) scale: f32,
    /// Factor on the scores in units of log2, as `exp2` takes them: `log2(e)` times the scale, or times the softcap, which
    /// multiplies the bounded scores.
    pub(in super::super) scale_log2: f32,
    /// Factor on the scores in the argument of the softcap's tanh; 0 without softcap.
    pub(in super::super) softcap: f32,
}
