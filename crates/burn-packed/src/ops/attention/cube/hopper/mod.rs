//! The tensor-core kernels for Hopper (compute capability 9.0): heads of 64, bf16 and f16.
//!
//! Products are warp-group products (`wgmma`) on tiles that arrive through asynchronous copies; scores, probabilities and
//! accumulators stay in registers, in f32. The forward of windowed layers turns queries and keys as they arrive; everything
//! else has them turned by a pass before, which is repeated in the backward rather than kept: it moves four tensors at memory
//! speed. The log-sum-exp is all that is kept beside the output.

pub(super) mod backward;
pub(super) mod forward;
mod ptx;
mod tile;

pub(super) use tile::Shape;

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubeDim;

use super::super::AttentionSpec;
use super::call::{Call, WIDEST_INSIDE, addressable};
use super::{empty, shape_of};
use crate::ops::primitive::cast;

/// The only head size these kernels serve.
const HEAD_DIM: usize = 64;
/// The kernels of this family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Forward.
    Forward,
    /// Gradient of the queries.
    Queries,
    /// Gradients of keys and values.
    Keys,
}

/// The kernel of a pass, for bf16 without a soft cap. Warp groups of a cube are chosen so that registers let two to three
/// cubes share a multiprocessor.
pub(super) fn shape(pass: Pass, rotary: bool, inside: bool) -> Shape {
    Shape {
        groups: if pass == Pass::Forward { 2 } else { 1 },
        inside,
        rotated: rotary,
        capped: false,
        half: false,
    }
}

fn shape_for(call: &Call, pass: Pass) -> Shape {
    Shape {
        capped: call.spec.softcap.is_some(),
        half: call.half(),
        ..shape(pass, call.spec.rope, call.inside())
    }
}

/// Whether these kernels serve a call.
pub(super) fn serves(qkv: &CubeTensor) -> bool {
    shape_of(qkv)[3] == HEAD_DIM
        && matches!(qkv.dtype, DType::BF16 | DType::F16)
        && addressable(qkv)
        && qkv.client.properties().identity.fingerprint == "ptx_sm90"
}

/// Output `[total, heads, 64]` and log-sum-exp `[heads, total]`.
pub(super) fn forward(
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> (CubeTensor, CubeTensor) {
    forward_by(WIDEST_INSIDE, qkv, rotary, spec)
}

/// As [`forward`], windows up to another width turned as they arrive.
pub(super) fn forward_by(
    widest_inside: usize,
    qkv: CubeTensor,
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> (CubeTensor, CubeTensor) {
    let call = Call::new(qkv, rotary, spec, widest_inside);
    let source = call.source();
    let out = empty(
        &call.qkv,
        [call.total, call.heads, HEAD_DIM],
        call.qkv.dtype,
    );
    let lse = empty(&call.qkv, [call.heads, call.total], DType::F32);
    let shape = shape_for(&call, Pass::Forward);
    let tiles = call.tiles(shape.rows());
    // SAFETY: every row read or written lies inside its sequence (rows outside are replaced by zeros or left out), the table's
    // rows lie inside the batch, and the loops run over at most the sequence.
    unsafe {
        forward::hopper_forward::launch_unchecked(
            &call.qkv.client,
            call.count(&tiles),
            CubeDim::new_1d(shape.units()),
            source.qk.into_buffer_arg(),
            call.qkv.clone().into_buffer_arg(),
            tiles.entries.into_buffer_arg(),
            call.rotary.clone().into_buffer_arg(),
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
            shape,
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
    let call = Call::new(qkv, rotary, spec, 0);
    let d_out = into_contiguous(cast::<CubeBackend>(d_out, dtype));
    let out = into_contiguous(out);
    let lse = into_contiguous(lse);
    let source = call.source();
    let delta = call.delta(&out, &d_out);
    let d_qkv = empty(&call.qkv, [call.total, 3, call.heads, HEAD_DIM], dtype);
    macro_rules! walk {
        ($kernel:ident, $pass:expr) => {{
            let shape = shape_for(&call, $pass);
            let tiles = call.tiles(shape.rows());
            // SAFETY: as in the forward.
            unsafe {
                backward::$kernel::launch_unchecked(
                    &call.qkv.client,
                    call.count(&tiles),
                    CubeDim::new_1d(shape.units()),
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
                    shape,
                )
            }
        }};
    }
    walk!(hopper_queries, Pass::Queries);
    walk!(hopper_keys, Pass::Keys);
    d_qkv
}
