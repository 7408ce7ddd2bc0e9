//! Attention on tensor cores: kernels written once over a [`family::Family`] of instructions, and their launches.
//!
//! | file | content |
//! |---|---|
//! | `forward.rs`, `backward.rs` | the three attention kernels |
//! | `pipelined/` | warp-specialized kernels for long sequences of global layers on Hopper |
//! | `passes.rs` | kernels before them: RoPE for queries and keys, and `delta` |
//! | `rows.rs` | copies of rows to shared memory, RoPE in shared memory; the life of a stage and its barriers |
//! | `fragments.rs` | a thread's results in registers: their rows and columns, mask, stores |
//! | `softmax.rs` | on results in registers: softcap, online softmax, weights and their gradients |
//! | `family.rs` | the trait of a family; the layout of results, drawn |
//! | `hopper.rs`, `ampere.rs` | the families |
//! | `config.rs` | compile-time parameters and launch arguments of a kernel |
//!
//! Scores, weights and accumulators are f32 in registers. The backward pass saves output and log-sum-exp only. RoPE is applied
//! in shared memory in the forward pass of windowed layers. Otherwise `rope_kernel` applies RoPE before, and runs again in the backward pass, so that
//! its result is not saved: the kernel reads and writes two thirds of `qkv` at memory speed.

pub(super) mod ampere;
pub(super) mod backward;
pub(super) mod config;
pub(super) mod family;
pub(super) mod forward;
mod fragments;
pub(super) mod hopper;
pub(super) mod passes;
pub(super) mod pipelined;
mod rows;
mod softmax;

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubeDim;

use super::super::AttentionSpec;
use super::tile_table::{ALL_LENGTHS, TileTable};
use super::{Call, CubeCount, SavedAttention};
use crate::ops::rows::empty;
use ampere::Ampere;
use backward::InputsLaunch;
use config::{ArgsLaunch, KernelConfig};
use family::{Family, HostFamily};
use hopper::Hopper;

/// The windows and lengths that decide between kernels. They depend on the layer's window and a sequence's own length alone, so that
/// results are batch-invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DispatchThresholds {
    /// Below this window, RoPE is applied after a tile's copy. This repeats RoPE for each tile of queries that sees a tile of keys: a few
    /// times within a window, but in a global layer as often as the sequence has tiles. There a kernel that applies RoPE once
    /// costs less.
    pub(super) rope_inside: usize,
    /// From this length on, the warp-specialized kernels compute a sequence of a global layer on Hopper, forward and backward.
    pub(super) pipelined_forward: usize,
    pub(super) pipelined_backward: usize,
}

impl DispatchThresholds {
    /// The limits outside tests and measurements, from an H200 (docs/lab-log.md): the warp-specialized kernels are faster from 384 tokens
    /// on in the forward pass, whose tiles of 192 queries and 128 keys are mostly padding in shorter sequences, and between 1024 and 2048
    /// in the backward pass.
    pub(super) const CHOSEN: Self = Self {
        rope_inside: 256,
        pipelined_forward: 384,
        pipelined_backward: 2048,
    };
}

/// The attention kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelKind {
    /// Output.
    Forward,
    /// Gradient of the queries.
    Queries,
    /// Gradients of keys and values.
    Keys,
}

/// The families, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instructions {
    /// WGMMA.
    Hopper,
    /// `mma.sync`.
    Ampere,
}

impl Instructions {
    /// The family that computes attention of `qkv`, if any.
    pub(super) fn choose(qkv: &CubeTensor) -> Option<Self> {
        [Self::Hopper, Self::Ampere]
            .into_iter()
            .find(|family| family.supports(qkv))
    }

    pub(super) fn supports(self, qkv: &CubeTensor) -> bool {
        let properties = qkv.client.properties();
        let capability = properties.identity.fingerprint.strip_prefix("ptx_sm");
        let Some(capability) = capability.and_then(|c| c.parse().ok()) else {
            return false;
        };
        let [total, three, heads, head_dim] = super::dims(qkv);
        // Kernels address words of four bytes with 32 bits, and differences of such addresses.
        let words = total * three * heads * head_dim / 2;
        let shared_bytes = properties.hardware.max_shared_memory_size;
        let supports = match self {
            Self::Hopper => Hopper::supports,
            Self::Ampere => Ampere::supports,
        };
        matches!(qkv.dtype, DType::BF16 | DType::F16)
            && words < u32::MAX as usize / 2
            && supports(head_dim as u32, capability, shared_bytes)
    }

    /// Output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`. The thresholds are [`DispatchThresholds::CHOSEN`], except in tests.
    pub(super) fn forward(
        self,
        thresholds: DispatchThresholds,
        call: &Call,
    ) -> (CubeTensor, CubeTensor) {
        match self {
            Self::Hopper => call.forward::<Hopper>(thresholds),
            Self::Ampere => call.forward::<Ampere>(thresholds),
        }
    }

    /// Gradient `[total, 3, heads, head_dim]` of `qkv`.
    pub(super) fn backward(
        self,
        thresholds: DispatchThresholds,
        call: &Call,
        saved: &SavedAttention,
    ) -> CubeTensor {
        match self {
            Self::Hopper => call.backward::<Hopper>(thresholds, saved),
            Self::Ampere => call.backward::<Ampere>(thresholds, saved),
        }
    }
}

/// Queries and keys with RoPE applied; `qkv` itself where the attention kernels apply RoPE or the call has none.
struct QkInput {
    qk: CubeTensor,
    /// True if queries and keys are in a tensor of their own instead of `qkv`.
    apart: bool,
}

impl Call<'_> {
    fn config<F: HostFamily>(&self, kind: KernelKind, rope_inside: bool) -> KernelConfig {
        KernelConfig {
            rope_inside,
            rope: self.spec.rope,
            capped: self.spec.softcap.is_some(),
            half: self.half(),
            ..F::config(kind, self.head_dim as u32)
        }
    }

    fn half(&self) -> bool {
        self.qkv.dtype == DType::F16
    }

    fn qk_input(&self, rope_inside: bool) -> QkInput {
        let apart = self.spec.rope && !rope_inside;
        let qk = match apart {
            true => self.with_rope(),
            false => self.qkv.clone(),
        };
        QkInput { qk, apart }
    }

    /// The launch arguments for `qkv` and the tensor of queries and keys.
    fn args(&self, qk_input: &QkInput) -> ArgsLaunch {
        let head_bytes = (self.heads * self.head_dim * 2) as u32;
        let AttentionSpec { scale, softcap, .. } = *self.spec;
        ArgsLaunch::new(
            if qk_input.apart { 2 } else { 3 } * head_bytes,
            head_bytes,
            3 * head_bytes,
            2 * head_bytes,
            self.heads as u32,
            self.total as u32,
            self.half_window,
            scale as f32,
            (softcap.unwrap_or(scale) * std::f64::consts::LOG2_E) as f32,
            softcap.map_or(0.0, |softcap| scale / softcap) as f32,
        )
    }

    fn forward<F: Family + HostFamily>(
        &self,
        thresholds: DispatchThresholds,
    ) -> (CubeTensor, CubeTensor) {
        let window = self.spec.half_window;
        let rope_inside = self.spec.rope && window.is_some_and(|w| w < thresholds.rope_inside);
        let qk_input = self.qk_input(rope_inside);
        let (out, lse) = (self.output(), self.lse());
        let mut lengths = ALL_LENGTHS;
        if F::PIPELINED && pipelined::supports(self) {
            lengths.end = thresholds.pipelined_forward;
            pipelined::forward(self, lengths.end..usize::MAX, &qk_input, &out, &lse);
        }
        let config = self.config::<F>(KernelKind::Forward, rope_inside);
        let Some(tiles) = self.tiles_of(lengths, config.rows as usize) else {
            return (out, lse);
        };
        // SAFETY: every row read or written is inside its sequence (rows outside are replaced by zeros or not stored), the tile
        // table's rows are inside the batch, and loops run over at most the sequence.
        unsafe {
            forward::attention_forward::launch_unchecked::<F>(
                &self.qkv.client,
                self.count(&tiles),
                CubeDim::new_1d(config.threads()),
                qk_input.qk.clone().into_buffer_arg(),
                self.qkv.clone().into_buffer_arg(),
                tiles.entries.into_buffer_arg(),
                self.rotary.clone().into_buffer_arg(),
                out.clone().into_buffer_arg(),
                lse.clone().into_buffer_arg(),
                self.args(&qk_input),
                config,
            );
        }
        (out, lse)
    }

    fn backward<F: Family + HostFamily>(
        &self,
        thresholds: DispatchThresholds,
        saved: &SavedAttention,
    ) -> CubeTensor {
        let qk_input = self.qk_input(false);
        let delta = self.delta(saved);
        let d_qkv = self.gradient();
        let inputs = |tiles: &TileTable| {
            InputsLaunch::new(
                qk_input.qk.clone().into_buffer_arg(),
                self.qkv.clone().into_buffer_arg(),
                saved.d_out.clone().into_buffer_arg(),
                saved.lse.clone().into_buffer_arg(),
                delta.clone().into_buffer_arg(),
                tiles.entries.clone().into_buffer_arg(),
                self.rotary.clone().into_buffer_arg(),
                self.args(&qk_input),
            )
        };
        let mut lengths = ALL_LENGTHS;
        if F::PIPELINED && pipelined::supports(self) {
            lengths.end = thresholds.pipelined_backward;
            pipelined::backward(self, lengths.end..usize::MAX, &qk_input, inputs, &d_qkv);
        }
        macro_rules! launch {
            ($kernel:ident, $kind:expr) => {{
                let config = self.config::<F>($kind, false);
                let Some(tiles) = self.tiles_of(lengths.clone(), config.rows as usize) else {
                    return d_qkv;
                };
                // SAFETY: as in the forward pass.
                unsafe {
                    backward::$kernel::launch_unchecked::<F>(
                        &self.qkv.client,
                        self.count(&tiles),
                        CubeDim::new_1d(config.threads()),
                        inputs(&tiles),
                        d_qkv.clone().into_buffer_arg(),
                        config,
                    )
                }
            }};
        }
        launch!(attention_queries, KernelKind::Queries);
        launch!(attention_keys, KernelKind::Keys);
        d_qkv
    }

    /// Queries and keys with RoPE applied, `[total, 2, heads, head_dim]`.
    fn with_rope(&self) -> CubeTensor {
        let shape = [self.total, 2, self.heads, self.head_dim];
        let rotated = empty(&self.qkv, shape, self.qkv.dtype);
        let tiles = self.tiles(passes::ROPE_ROWS as usize);
        // SAFETY: rows outside the sequence are left out; a thread writes its own eight elements of each half.
        unsafe {
            passes::rope_kernel::launch_unchecked(
                &self.qkv.client,
                self.count(&tiles),
                CubeDim::new_1d(passes::THREADS),
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

    /// `sum_d out · d_out` of every row and head, `[heads, total]` in f32.
    fn delta(&self, saved: &SavedAttention) -> CubeTensor {
        let delta = self.lse();
        let threads = self.heads * self.total * passes::DELTA_LANES as usize;
        // SAFETY: the kernel stays below `heads * total` rows.
        unsafe {
            passes::delta_kernel::launch_unchecked(
                &self.qkv.client,
                CubeCount::Static(threads.div_ceil(passes::THREADS as usize) as u32, 1, 1),
                CubeDim::new_1d(passes::THREADS),
                saved.out.clone().into_buffer_arg(),
                saved.d_out.clone().into_buffer_arg(),
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
