//! The tensor-core kernels in warp-level products (`mma.sync`): bf16 and f16, heads of 16 to 128 in steps of 16, compute
//! capability 8.0 and later. On Hopper they serve the head sizes that the warp-group kernels don't.
//!
//! Products, probabilities and accumulators stay in registers, in f32; tiles arrive through asynchronous copies. Rotations
//! and what is kept for the backward are as in the Hopper family.

pub(super) mod backward;
pub(super) mod forward;
mod ptx;
mod tile;

pub(super) use tile::{Shape, UNITS};

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubeDim;

use super::super::AttentionSpec;
use super::call::{Call, WIDEST_INSIDE, addressable};
use super::{empty, shape_of};
use crate::ops::primitive::cast;
use tile::ROWS;

/// The largest head whose accumulators fit the registers of a warp.
const LARGEST_HEAD: u32 = 128;
/// The oldest compute capability with asynchronous copies and bf16 products.
const OLDEST: u32 = 80;

/// The kernel of a pass.
///
/// Tiles of 64 keys where they leave room for two cubes in the 100 KiB of compute capability 8.6, of 32 otherwise. The
/// backward holds twice as many rows of its own, and keeps them in registers where accumulators leave room there.
pub(super) fn shape(head_dim: u32, backward: bool, rotary: bool, inside: bool) -> Shape {
    let small = head_dim <= 64;
    Shape {
        head_dim,
        keys: if small && !backward { 64 } else { 32 },
        resident: small || !backward,
        inside,
        rotated: rotary,
        capped: false,
        half: false,
    }
}

/// Whether these kernels serve a call.
pub(super) fn serves(qkv: &CubeTensor) -> bool {
    let head_dim = shape_of(qkv)[3] as u32;
    let properties = qkv.client.properties();
    let capability = properties.identity.fingerprint.strip_prefix("ptx_sm");
    head_dim.is_multiple_of(16)
        && (16..=LARGEST_HEAD).contains(&head_dim)
        && matches!(qkv.dtype, DType::BF16 | DType::F16)
        && addressable(qkv)
        && capability.is_some_and(|c| c.parse().is_ok_and(|c: u32| c >= OLDEST))
        && shape(head_dim, true, true, true).most_shared_bytes()
            <= properties.hardware.max_shared_memory_size
}

fn shape_for(call: &Call, backward: bool) -> Shape {
    Shape {
        capped: call.spec.softcap.is_some(),
        half: call.half(),
        ..shape(
            call.head_dim as u32,
            backward,
            call.spec.rope,
            call.inside(),
        )
    }
}

/// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`.
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
    let tiles = call.tiles(ROWS);
    let out = empty(
        &call.qkv,
        [call.total, call.heads, call.head_dim],
        call.qkv.dtype,
    );
    let lse = empty(&call.qkv, [call.heads, call.total], DType::F32);
    // SAFETY: every row read or written lies inside its sequence (rows outside are replaced by zeros or left out), the table's
    // rows lie inside the batch, and the loops run over at most the sequence.
    unsafe {
        forward::ampere_forward::launch_unchecked(
            &call.qkv.client,
            call.count(&tiles),
            CubeDim::new_1d(UNITS),
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
            shape_for(&call, false),
        );
    }
    (out, lse)
}

/// Gradient `[total, 3, heads, head_dim]` of `qkv`.
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
    let d_qkv = empty(&call.qkv, [call.total, 3, call.heads, call.head_dim], dtype);
    let tiles = call.tiles(ROWS);
    macro_rules! walk {
        ($kernel:ident) => {
            // SAFETY: as in the forward.
            unsafe {
                backward::$kernel::launch_unchecked(
                    &call.qkv.client,
                    call.count(&tiles),
                    CubeDim::new_1d(UNITS),
                    source.qk.clone().into_buffer_arg(),
                    call.qkv.clone().into_buffer_arg(),
                    d_out.clone().into_buffer_arg(),
                    lse.clone().into_buffer_arg(),
                    delta.clone().into_buffer_arg(),
                    tiles.entries.clone().into_buffer_arg(),
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
                    shape_for(&call, true),
                )
            }
        };
    }
    walk!(ampere_queries);
    walk!(ampere_keys);
    d_qkv
}
