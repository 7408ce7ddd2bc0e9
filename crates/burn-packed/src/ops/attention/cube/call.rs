//! What a call of the tensor-core kernels is made of, and the passes over rows that both families start.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeDim};

use super::super::AttentionSpec;
use super::tiles::{Table, table};
use super::{empty, rows, shape_of};
use crate::ops::primitive::cast;

/// The widest window whose tiles are turned as they arrive. A tile is turned once by every tile of queries that sees it: few
/// times within a window, but in a global layer as often as the sequence has tiles, where a pass that turns each row once
/// costs less.
pub(super) const WIDEST_INSIDE: usize = 256;

/// What forward and backward pass to every kernel.
pub(super) struct Call<'a> {
    pub(super) qkv: CubeTensor,
    pub(super) rotary: CubeTensor,
    pub(super) spec: &'a AttentionSpec,
    pub(super) total: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) half_window: i32,
    pub(super) scale_log2: f32,
    pub(super) softcap: f32,
    inside: bool,
}

/// Where queries and keys are read from: `qkv` itself, or their rotated copies.
pub(super) struct Source {
    pub(super) qk: CubeTensor,
    /// Bytes from one token to the next.
    pub(super) qk_row: u32,
    /// Bytes from a query to the key of the same token.
    pub(super) k_offset: u32,
}

/// Whether the kernels' 32-bit addresses, in units of four bytes, reach everywhere in `qkv`.
pub(super) fn addressable(qkv: &CubeTensor) -> bool {
    let words = shape_of(qkv).iter().product::<usize>() / 2;
    words < u32::MAX as usize / 2
}

impl<'a> Call<'a> {
    /// Windows narrower than `widest_inside` are turned as they arrive: [`WIDEST_INSIDE`] but in measurements.
    pub(super) fn new(
        qkv: CubeTensor,
        rotary: CubeTensor,
        spec: &'a AttentionSpec,
        widest_inside: usize,
    ) -> Self {
        let [total, _, heads, head_dim] = shape_of(&qkv);
        let longest = spec.layout.max_seqlen();
        let log2_e = std::f64::consts::LOG2_E;
        Self {
            qkv: into_contiguous(qkv),
            rotary: into_contiguous(cast::<CubeBackend>(rotary, DType::F32)),
            spec,
            total,
            heads,
            head_dim,
            // A window wider than the longest sequence hides nothing.
            half_window: spec.half_window.map_or(longest, |w| w.min(longest)) as i32,
            // Bounded scores are `bound * tanh(scale * s / bound)`: the kernels see tanh first and the factor after it.
            scale_log2: (spec.softcap.unwrap_or(spec.scale) * log2_e) as f32,
            softcap: spec.softcap.map_or(0.0, |bound| spec.scale / bound) as f32,
            // Decided by the layer's window alone, so that a sequence's result is the same in any company.
            inside: spec.rope && spec.half_window.is_some_and(|w| w < widest_inside),
        }
    }

    pub(super) fn half(&self) -> bool {
        self.qkv.dtype == DType::F16
    }

    /// Bytes from one token of `qkv` to the next.
    pub(super) fn v_row(&self) -> u32 {
        3 * self.head_bytes()
    }

    /// Bytes from a query to the value of the same token.
    pub(super) fn v_offset(&self) -> u32 {
        2 * self.head_bytes()
    }

    /// Bytes of all heads of a query.
    fn head_bytes(&self) -> u32 {
        (self.heads * self.head_dim * 2) as u32
    }

    pub(super) fn tiles(&self, rows: u32) -> Table {
        table(&self.spec.layout, rows as usize, &self.qkv)
    }

    pub(super) fn count(&self, tiles: &Table) -> CubeCount {
        CubeCount::Static(self.heads as u32, tiles.y, tiles.z)
    }

    /// Whether the kernels turn queries and keys as they arrive.
    pub(super) fn inside(&self) -> bool {
        self.inside
    }

    pub(super) fn source(&self) -> Source {
        let rotated = (self.spec.rope && !self.inside()).then(|| self.rotated());
        let parts = if rotated.is_some() { 2 } else { 3 };
        Source {
            qk: rotated.unwrap_or_else(|| self.qkv.clone()),
            qk_row: parts * self.head_bytes(),
            k_offset: self.head_bytes(),
        }
    }

    /// Rotated queries and keys, `[total, 2, heads, head_dim]`.
    fn rotated(&self) -> CubeTensor {
        let rotated = empty(
            &self.qkv,
            [self.total, 2, self.heads, self.head_dim],
            self.qkv.dtype,
        );
        let tiles = self.tiles(rows::ROTATED_ROWS);
        // SAFETY: rows outside the sequence are left out; a unit writes its own eight elements of each half.
        unsafe {
            rows::rotate_kernel::launch_unchecked(
                &self.qkv.client,
                self.count(&tiles),
                CubeDim::new_1d(rows::UNITS),
                self.qkv.clone().into_buffer_arg(),
                self.rotary.clone().into_buffer_arg(),
                tiles.entries.into_buffer_arg(),
                rotated.clone().into_buffer_arg(),
                self.heads as u32,
                self.head_dim as u32,
                self.half(),
            );
        }
        rotated
    }

    /// `sum_d out * d_out` of every row and head, `[heads, total]` in f32.
    pub(super) fn delta(&self, out: &CubeTensor, d_out: &CubeTensor) -> CubeTensor {
        let delta = empty(&self.qkv, [self.heads, self.total], DType::F32);
        let units = self.heads * self.total * rows::DELTA_LANES as usize;
        // SAFETY: the pass stays below `heads * total` pairs.
        unsafe {
            rows::delta_kernel::launch_unchecked(
                &self.qkv.client,
                CubeCount::Static(units.div_ceil(rows::UNITS as usize) as u32, 1, 1),
                CubeDim::new_1d(rows::UNITS),
                out.clone().into_buffer_arg(),
                d_out.clone().into_buffer_arg(),
                delta.clone().into_buffer_arg(),
                self.heads as u32,
                self.total as u32,
                self.head_dim as u32,
                self.half(),
            );
        }
        delta
    }
}
