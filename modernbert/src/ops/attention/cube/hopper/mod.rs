//! The tensor-core kernels for Hopper (compute capability 9.0): heads of 64, bf16 and f16.
//!
//! Products are warp-group products (`wgmma`) on tiles that arrive through asynchronous copies; scores, probabilities and
//! accumulators stay in registers, in f32. Rotary positions are applied by a pass of their own before, which is repeated in the
//! backward rather than kept: it moves four tensors at memory speed. The log-sum-exp is all that is kept beside the output.

mod backward;
mod forward;
mod ptx;
mod rows;
mod tile;

use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeDim};

use super::super::AttentionSpec;
use super::tiles::{Table, table};
use super::{empty, shape_of};
use crate::ops::primitive::cast;

/// The only head size these kernels serve.
const HEAD_DIM: usize = 64;
/// Warp groups of a cube, each with 64 rows: chosen so that registers let two to three cubes share a multiprocessor.
const FORWARD_GROUPS: u32 = 2;
const QUERIES_GROUPS: u32 = 1;
const KEYS_GROUPS: u32 = 1;

/// Whether these kernels serve a call.
pub(super) fn serves(qkv: &CubeTensor) -> bool {
    let [total, three, heads, head_dim] = shape_of(qkv);
    // Addresses inside a tensor are computed in 32 bits, in units of four bytes.
    let words = total * three * heads * head_dim / 2;
    head_dim == HEAD_DIM
        && matches!(qkv.dtype, DType::BF16 | DType::F16)
        && words < u32::MAX as usize / 2
        && qkv.client.properties().identity.fingerprint == "ptx_sm90"
}

/// Output `[total, heads, 64]` and log-sum-exp `[heads, total]`.
pub(super) fn forward(
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> (CubeTensor, CubeTensor) {
    let call = Call::new(qkv, rotary, spec);
    let rotated = call.rotated();
    let tiles = call.tiles(FORWARD_GROUPS);
    let out = empty(
        &call.qkv,
        [call.total, call.heads, HEAD_DIM],
        call.qkv.dtype,
    );
    let lse = empty(&call.qkv, [call.heads, call.total], DType::F32);
    let source = call.source(&rotated);
    // SAFETY: every row read or written lies inside its sequence (rows outside are replaced by zeros or left out), the table's
    // rows lie inside the batch, and the loops run over at most the sequence.
    unsafe {
        forward::hopper_forward::launch_unchecked(
            &call.qkv.client,
            call.count(&tiles),
            CubeDim::new_1d(FORWARD_GROUPS * 128),
            source.qk.into_buffer_arg(),
            call.qkv.clone().into_buffer_arg(),
            tiles.entries.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            lse.clone().into_buffer_arg(),
            source.qk_row,
            source.k_offset,
            call.v_row(),
            call.v_offset(),
            call.heads as u32,
            call.total as u32,
            call.half_window,
            call.scale_log2,
            call.softcap,
            FORWARD_GROUPS,
            spec.softcap.is_some(),
            call.half(),
        );
    }
    (out, lse)
}

/// Gradient `[total, 3, heads, 64]` of `qkv`.
pub(super) fn backward(
    d_out: CubeTensor,
    qkv: CubeTensor,
    out: CubeTensor,
    lse: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> CubeTensor {
    let dtype = qkv.dtype;
    let call = Call::new(qkv, rotary, spec);
    let client = &call.qkv.client;
    let d_out = into_contiguous(cast::<burn_cubecl::CubeBackend>(d_out, dtype));
    let out = into_contiguous(out);
    let lse = into_contiguous(lse);
    let rotated = call.rotated();
    let source = call.source(&rotated);
    let delta = empty(&call.qkv, [call.heads, call.total], DType::F32);
    let d_qkv = empty(&call.qkv, [call.total, 3, call.heads, HEAD_DIM], dtype);
    let cubes = (call.heads * call.total * 8).div_ceil(rows::UNITS as usize) as u32;
    // SAFETY: as in the forward; the pass over rows stays below `heads * total` pairs.
    unsafe {
        rows::delta_kernel::launch_unchecked(
            client,
            CubeCount::Static(cubes, 1, 1),
            CubeDim::new_1d(rows::UNITS),
            out.into_buffer_arg(),
            d_out.clone().into_buffer_arg(),
            delta.clone().into_buffer_arg(),
            call.heads as u32,
            call.total as u32,
            call.half(),
        );
        macro_rules! walk {
            ($kernel:ident, $groups:ident) => {{
                let tiles = call.tiles($groups);
                backward::$kernel::launch_unchecked(
                    client,
                    call.count(&tiles),
                    CubeDim::new_1d($groups * 128),
                    source.qk.clone().into_buffer_arg(),
                    call.qkv.clone().into_buffer_arg(),
                    d_out.clone().into_buffer_arg(),
                    lse.clone().into_buffer_arg(),
                    delta.clone().into_buffer_arg(),
                    tiles.entries.into_buffer_arg(),
                    call.rotary.clone().into_buffer_arg(),
                    d_qkv.clone().into_buffer_arg(),
                    source.qk_row,
                    source.k_offset,
                    call.v_row(),
                    call.v_offset(),
                    call.heads as u32,
                    call.total as u32,
                    call.half_window,
                    spec.scale as f32,
                    call.scale_log2,
                    call.softcap,
                    $groups,
                    spec.rotary,
                    spec.softcap.is_some(),
                    call.half(),
                )
            }};
        }
        walk!(hopper_queries, QUERIES_GROUPS);
        walk!(hopper_keys, KEYS_GROUPS);
    }
    d_qkv
}

/// What forward and backward pass to every kernel.
struct Call<'a> {
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &'a AttentionSpec,
    total: usize,
    heads: usize,
    half_window: i32,
    scale_log2: f32,
    softcap: f32,
}

/// Where queries and keys are read from: `qkv` itself, or their rotated copies.
struct Source {
    qk: CubeTensor,
    /// Bytes from one token to the next.
    qk_row: u32,
    /// Bytes from a query to the key of the same token.
    k_offset: u32,
}

impl<'a> Call<'a> {
    fn new(qkv: CubeTensor, rotary: CubeTensor, spec: &'a AttentionSpec) -> Self {
        let [total, _, heads, _] = shape_of(&qkv);
        let longest = spec.layout.max_seqlen();
        let log2_e = std::f64::consts::LOG2_E;
        Self {
            qkv: into_contiguous(qkv),
            rotary: into_contiguous(cast::<burn_cubecl::CubeBackend>(rotary, DType::F32)),
            spec,
            total,
            heads,
            // A window wider than the longest sequence hides nothing.
            half_window: spec.half_window.map_or(longest, |w| w.min(longest)) as i32,
            // Bounded scores are `bound * tanh(scale * s / bound)`: the kernels see tanh first and the factor after it.
            scale_log2: (spec.softcap.unwrap_or(spec.scale) * log2_e) as f32,
            softcap: spec.softcap.map_or(0.0, |bound| spec.scale / bound) as f32,
        }
    }

    fn half(&self) -> bool {
        self.qkv.dtype == DType::F16
    }

    fn v_row(&self) -> u32 {
        (3 * self.heads * HEAD_DIM * 2) as u32
    }

    fn v_offset(&self) -> u32 {
        (2 * self.heads * HEAD_DIM * 2) as u32
    }

    fn tiles(&self, groups: u32) -> Table {
        table(&self.spec.layout, groups as usize * 64, &self.qkv)
    }

    fn count(&self, tiles: &Table) -> CubeCount {
        CubeCount::Static(self.heads as u32, tiles.y, tiles.z)
    }

    /// `[total, 2, heads, 64]`, where the call rotates.
    fn rotated(&self) -> Option<CubeTensor> {
        if !self.spec.rotary {
            return None;
        }
        let rotated = empty(
            &self.qkv,
            [self.total, 2, self.heads, HEAD_DIM],
            self.qkv.dtype,
        );
        let tiles = table(&self.spec.layout, rows::ROTATED_ROWS as usize, &self.qkv);
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
                self.half(),
            );
        }
        Some(rotated)
    }

    fn source(&self, rotated: &Option<CubeTensor>) -> Source {
        let head_bytes = (self.heads * HEAD_DIM * 2) as u32;
        match rotated {
            Some(qk) => Source {
                qk: qk.clone(),
                qk_row: 2 * head_bytes,
                k_offset: head_bytes,
            },
            None => Source {
                qk: self.qkv.clone(),
                qk_row: 3 * head_bytes,
                k_offset: head_bytes,
            },
        }
    }
}
