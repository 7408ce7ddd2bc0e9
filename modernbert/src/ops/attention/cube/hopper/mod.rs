//! The tensor-core kernels for Hopper (compute capability 9.0): heads of 64, bf16 and f16.
//!
//! Products are warp-group products (`wgmma`) on tiles that arrive through asynchronous copies; scores, probabilities and
//! accumulators stay in registers, in f32. Windowed layers turn queries and keys as they arrive; global ones have them turned
//! by a pass before, which is repeated in the backward rather than kept: it moves four tensors at memory speed. The
//! log-sum-exp is all that is kept beside the output.

pub(super) mod ahead;
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
use super::call::{Call, addressable};
use super::{empty, shape_of};
use crate::ops::primitive::cast;

/// The only head size these kernels serve.
const HEAD_DIM: usize = 64;
/// Forward over whole sequences with the next tile's scores under way during the softmax, instead of the windowed kernel.
const AHEAD: bool = false;
/// The backward's sums in the tensor cores' own registers.
const IN_PLACE: bool = false;
/// The widest window on each side for which keys are turned inside the kernels rather than by a pass before them; 0 is none. To be
/// [`super::call::WIDEST_INSIDE`] once that has been measured.
const TURNED_INSIDE: usize = 0;

/// The kernels of this family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Forward, any window.
    Forward,
    /// Forward over whole sequences.
    Ahead,
    /// Gradient of the queries.
    Queries,
    /// Gradients of keys and values.
    Keys,
}

/// The kernel of a pass, for bf16 without a soft cap. Warp groups of a cube are chosen so that registers let two to three
/// cubes share a multiprocessor; `Ahead` fills it with one.
pub(super) fn shape(pass: Pass, rotary: bool, inside: bool) -> Shape {
    let (groups, in_place) = match pass {
        Pass::Forward => (2, false),
        Pass::Ahead => (3, true),
        Pass::Queries | Pass::Keys => (1, IN_PLACE),
    };
    Shape {
        groups,
        inside,
        rotated: rotary,
        capped: false,
        half: false,
        in_place,
    }
}

fn shape_for(call: &Call, pass: Pass) -> Shape {
    Shape {
        capped: call.spec.softcap.is_some(),
        half: call.half(),
        ..shape(pass, call.spec.rotary, call.inside())
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
    forward_by(AHEAD, TURNED_INSIDE, qkv, rotary, spec)
}

/// As [`forward`], by a chosen one of its versions.
pub(super) fn forward_by(
    ahead: bool,
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
    let ahead = ahead && spec.half_window.is_none();
    let shape = shape_for(&call, if ahead { Pass::Ahead } else { Pass::Forward });
    let tiles = call.tiles(shape.rows());
    // SAFETY: every row read or written lies inside its sequence (rows outside are replaced by zeros or left out), the table's
    // rows lie inside the batch, and the loops run over at most the sequence.
    unsafe {
        if ahead {
            ahead::hopper_global_forward::launch_unchecked(
                &call.qkv.client,
                call.count(&tiles),
                CubeDim::new_1d(shape.units()),
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
                call.scale_log2,
                call.softcap,
                shape,
            );
        } else {
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
    backward_by(
        IN_PLACE,
        TURNED_INSIDE,
        d_out,
        qkv,
        (out, lse),
        rotary,
        spec,
    )
}

/// As [`backward`], by a chosen one of its versions.
pub(super) fn backward_by(
    in_place: bool,
    widest_inside: usize,
    d_out: CubeTensor,
    qkv: CubeTensor,
    (out, lse): (CubeTensor, CubeTensor),
    rotary: CubeTensor,
    spec: &AttentionSpec,
) -> CubeTensor {
    let dtype = qkv.dtype;
    let call = Call::new(qkv, rotary, spec, widest_inside);
    let d_out = into_contiguous(cast::<CubeBackend>(d_out, dtype));
    let out = into_contiguous(out);
    let lse = into_contiguous(lse);
    let source = call.source();
    let delta = call.delta(&out, &d_out);
    let d_qkv = empty(&call.qkv, [call.total, 3, call.heads, HEAD_DIM], dtype);
    macro_rules! walk {
        ($kernel:ident, $pass:expr) => {{
            let shape = Shape {
                in_place,
                ..shape_for(&call, $pass)
            };
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
