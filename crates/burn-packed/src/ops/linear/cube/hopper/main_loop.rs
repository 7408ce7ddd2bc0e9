//! The main loop of the Hopper GEMM.
//!
//! It is a single inline PTX block, so that the accumulators stay in the same registers from the first K slice to the last; its text is assembled on the
//! host when the kernel is defined.

use std::fmt::Write as _;

use cubecl::prelude::*;

use super::TileConfig;
use crate::ops::ptx::wgmma::DESCRIPTOR_HIGH;
use crate::ops::ptx::{ROW_BYTES, as_value};

/// Main loop of a consumer warp group over the `steps` stages of a tile, the first of them `stage`. Returns the accumulator.
///
/// For each stage: waits at `full + 8 · stage` for `parity` (which flips when the ring starts again), issues the four WGMMAs of
/// the stage, then waits for the WGMMAs of the stage before and releases that stage: threads with `releases == 1` arrive at `empty + 8 ·
/// stage`. The caller releases the last stage. `a` and `b` are the lower halves of the matrix descriptors of stage 0.
#[allow(clippy::too_many_arguments)] // operands of inline PTX
#[cube]
pub(super) fn mma_main_loop<N: Size>(
    a: u32,
    b: u32,
    full: u32,
    empty: u32,
    stage: u32,
    parity: u32,
    steps: u32,
    releases: u32,
    #[comptime] config: TileConfig,
) -> Vector<f32, N> {
    let text = comptime!(main_loop_text(N::value(), config));
    let d: Vector<f32, N>;
    gpu_asm!(
        "{text} // {d} {a} {b} {full} {empty} {stage} {parity} {steps} {releases}",
        text = const text, d = out(_) d, a = in(_) as_value(a), b = in(_) as_value(b), full = in(_) as_value(full), empty = in(_) as_value(empty),
        stage = in(_) as_value(stage), parity = in(_) as_value(parity), steps = in(_) as_value(steps), releases = in(_) as_value(releases),
    );
    d
}

/// PTX of [`mma_main_loop`].
///
/// Operands: outputs `%0 … %(n-1)`, then the inputs in the order of its parameters. The accumulator is a vector of a power of
/// two: for a tile of 192 columns the last 32 outputs are neither written nor read.
///
/// The two consumer warp groups alternate on the tensor cores, WGMMA by WGMMA, so that a group has the duration of the other
/// group's WGMMA to issue its next one. Descriptors are therefore updated in 32 bits, with a constant upper half: 64-bit
/// additions made the instructions in between take longer than that (measured: docs/lab-log.md).
fn main_loop_text(n: usize, config: TileConfig) -> String {
    let input = |i: usize| format!("%{}", n + i);
    let ty = match (config.fp8, config.f16) {
        (true, _) => "e4m3",
        (false, true) => "f16",
        (false, false) => "bf16",
    };
    // 32 bytes of the inner dimension. Operands of 8 bits are always K-major, and their instruction has no transposition.
    let inner = if config.fp8 { 32 } else { 16 };
    let columns = config.tile_n as usize;
    let registers: Vec<String> = (0..columns / 2).map(|i| format!("%{i}")).collect();
    let accumulator = format!("{{{}}}", registers.join(", "));
    // Distance of K slices of 16 elements (32 codes of e4m3) in a descriptor, which counts 16 bytes.
    let slice = |mn_major: bool| {
        if mn_major {
            16 * ROW_BYTES / 16
        } else {
            16 * 2 / 16
        }
    };
    let (slice_a, slice_b) = (slice(config.a_m_major), slice(config.b_n_major));
    let transposed = if config.fp8 {
        String::new()
    } else {
        format!(
            ", {}, {}",
            u8::from(config.a_m_major),
            u8::from(config.b_n_major)
        )
    };
    // Not `release.cluster`: this thread has written nothing that the other block reads, and the fence would cost half the time
    // of a stage.
    let arrive = if config.cluster > 1 {
        "mbarrier.arrive.shared::cluster.b64"
    } else {
        "mbarrier.arrive.shared::cta.b64"
    };
    let addresses = format!(
        "mad.lo.u32 bar, st, 8, {}; mad.lo.u32 sa, st, {words}, {}; mad.lo.u32 sb, st, {words}, {}; ",
        input(2),
        input(0),
        input(1),
        words = config.stage_bytes() / 16,
    );
    // One stage. The first one overwrites the accumulator (scale-d is false) and has no stage before it to release.
    let stage = |first: bool| {
        let label = if first { "FIRST" } else { "READY" };
        let mut text = format!(
            "{label}: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], ph; @!p bra {label}; wgmma.fence.sync.aligned; "
        );
        // A stage has TILE_K = 64 inner elements: four WGMMAs of K = 16. Operands after the descriptors: scale-d (false overwrites the accumulator
        // instead of adding to it), the signs of A and B (1: not negated), and 1 for each operand that is M- or N-major, 0 for K-major ones.
        for k in 0..4 {
            let scale = if first && k == 0 { "never" } else { "always" };
            let _ = write!(
                text,
                "add.u32 x, sa, {}; add.u32 y, sb, {}; mov.b64 da, {{x, {high}}}; mov.b64 db, {{y, {high}}}; \
                 wgmma.mma_async.sync.aligned.m64n{columns}k{inner}.f32.{ty}.{ty} {accumulator}, da, db, {scale}, 1, 1{transposed}; ",
                k * slice_a,
                k * slice_b,
                high = DESCRIPTOR_HIGH,
            );
        }
        text += "wgmma.commit_group.sync.aligned; ";
        if !first {
            // At most one group pending: the WGMMAs of the stage before are complete, those of this stage may still run.
            let _ = write!(
                text,
                "wgmma.wait_group.sync.aligned 1; @lead {arrive} _, [prev]; "
            );
        }
        let _ = write!(
            text,
            "mad.lo.u32 prev, st, 8, {}; \
             add.u32 st, st, 1; setp.eq.u32 p, st, {}; @p mov.b32 st, 0; @p xor.b32 ph, ph, 1; {addresses}\
             sub.u32 left, left, 1; setp.eq.u32 q, left, 0; @q bra DONE; ",
            input(3),
            config.stages,
        );
        text
    };
    format!(
        "{{ .reg .pred p, q, lead, never, always; .reg .b64 da, db; .reg .b32 sa, sb, x, y, st, ph, bar, prev, left; \
         mov.b32 st, {}; mov.b32 ph, {}; mov.b32 left, {}; setp.ne.b32 lead, {}, 0; setp.ne.b32 never, 1, 1; setp.ne.b32 always, 1, 0; \
         {addresses}{}STEP: {}bra STEP; DONE: wgmma.wait_group.sync.aligned 0; }}",
        input(4),
        input(5),
        input(6),
        input(7),
        stage(true),
        stage(false),
    )
}
