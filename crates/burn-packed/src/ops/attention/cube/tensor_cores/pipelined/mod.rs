//! Warp-specialized kernels for Hopper: global layers, heads of 64, no softcap, long sequences.
//!
//! One warp group (the producer) copies tiles to shared memory, the others (consumers) compute. Each consumer overlaps its softmax with
//! WGMMAs that run asynchronously. Which sequences these kernels compute depends on a sequence's own length (see
//! [`DispatchThresholds`](super::DispatchThresholds)), so that results stay batch-invariant. The kernels that all families share compute the other sequences of a batch.
//!
//! | file | content |
//! |---|---|
//! | `forward.rs` | output and log-sum-exp |
//! | `backward.rs` | all gradients |
//! | `producer.rs` | rings of stages, the life of their mbarriers, copies |
//! | `wgmma.rs` | asynchronous WGMMA |
// Kernels have no `is_multiple_of`.
#![allow(clippy::manual_is_multiple_of)]

pub(in super::super) mod backward;
pub(in super::super) mod forward;
mod producer;
mod wgmma;

use std::ops::Range;

use burn::tensor::DType;
use burn_cubecl::ops::numeric::zeros_client;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::{CubeCount, CubeDim};

use super::super::tile_table::TileTable;
use super::super::{AttentionSpec, Call};
use super::backward::InputsLaunch;
use super::config::KernelConfig;
use super::family::HostFamily;
use super::hopper::Hopper;
use super::{KernelKind, QkInput};
use crate::ops::rows::{empty, resident_blocks};

/// Dimensions of a head, for which the layouts in shared memory are written.
const HEAD_DIM: u32 = 64;

/// True if these kernels compute what a call asks for, on Hopper.
pub(super) fn supports(call: &Call) -> bool {
    let AttentionSpec {
        half_window,
        softcap,
        ..
    } = call.spec;
    call.head_dim == HEAD_DIM as usize && half_window.is_none() && softcap.is_none()
}

/// Returns the compile-time parameters of fragments and their stores, 16 rows to a warp: tiles of `rows` queries and `keys` keys.
fn fragment_config(rows: u32, keys: u32, rope: bool, half: bool) -> KernelConfig {
    KernelConfig {
        rows,
        keys,
        rope,
        half,
        ..Hopper::config(KernelKind::Forward, HEAD_DIM)
    }
}

/// Writes output and log-sum-exp of the sequences of some lengths.
pub(super) fn forward(
    call: &Call,
    lengths: Range<usize>,
    qk_input: &QkInput,
    out: &CubeTensor,
    lse: &CubeTensor,
) {
    let Some(tiles) = call.tiles_of(lengths, forward::QUERIES as usize) else {
        return;
    };
    let work = tiles.len() * call.heads as u32;
    // SAFETY: rows beyond a sequence's end are not read (zeros take their place) and not stored, the tile table's rows are inside
    // the batch, and loops run over the sequence. Blocks don't wait for each other.
    unsafe {
        forward::pipelined_forward::launch_unchecked(
            &call.qkv.client,
            CubeCount::Static(work.min(resident_blocks(&call.qkv.client, 1) as u32), 1, 1),
            CubeDim::new_1d(forward::THREADS),
            qk_input.qk.clone().into_buffer_arg(),
            call.qkv.clone().into_buffer_arg(),
            tiles.entries.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            lse.clone().into_buffer_arg(),
            call.args(qk_input),
            work,
            call.half(),
        );
    }
}

/// Writes the gradients of the sequences of some lengths.
pub(super) fn backward(
    call: &Call,
    lengths: Range<usize>,
    qk_input: &QkInput,
    inputs: impl Fn(&TileTable) -> InputsLaunch,
    d_qkv: &CubeTensor,
) {
    let Some(tiles) = call.tiles_of(lengths, backward::ROWS as usize) else {
        return;
    };
    let work = tiles.len() * call.heads as u32;
    let places = work as usize;
    let numbers = backward::TILE_NUMBERS as usize;
    let sums = empty(&call.qkv, [2 * places * numbers], DType::F32);
    let counters = zeros_client(
        call.qkv.client.clone(),
        call.qkv.device.clone(),
        burn::tensor::Shape::new([2 * places + 1]),
        DType::U32,
    );
    // SAFETY: as in the forward pass; a block waits only for blocks that started before it.
    unsafe {
        backward::pipelined_backward::launch_unchecked(
            &call.qkv.client,
            CubeCount::Static(work, 1, 1),
            CubeDim::new_1d(backward::THREADS),
            inputs(&tiles),
            sums.clone().into_buffer_arg(),
            counters.into_buffer_arg(),
            d_qkv.clone().into_buffer_arg(),
            call.spec.rope,
            call.half(),
        );
        backward::finish_queries::launch_unchecked(
            &call.qkv.client,
            call.count(&tiles),
            CubeDim::new_1d(backward::FINISH_THREADS),
            sums.into_buffer_arg(),
            tiles.entries.into_buffer_arg(),
            call.rotary.clone().into_buffer_arg(),
            d_qkv.clone().into_buffer_arg(),
            call.args(qk_input),
            call.spec.rope,
            call.half(),
        );
    }
}
