//! PTX instructions of the Hopper GEMM: mbarriers, TMA loads and stores, the WGMMA main loop.
//!
//! CubeCL has no WGMMA. The main loop is a single inline PTX block, so that the accumulators stay in the same registers from
//! the first K slice to the last; its text is assembled on the host when the kernel is defined.

use std::fmt::Write as _;

use cubecl::prelude::*;

use super::hopper::TileConfig;
use crate::ops::ptx::{DESCRIPTOR_HIGH, mbarrier_arrive as arrive_in_block};
pub(super) use crate::ops::ptx::{
    ROW_BYTES, as_value, bulk_wait, fence_async_proxy, mbarrier_init, mbarrier_init_fence,
    mbarrier_wait, sync_warp,
};

/// Arrives once and announces the bytes that TMA loads will deliver in this phase.
#[cube]
pub(super) fn mbarrier_arrive_expect_tx(address: u32, bytes: u32) {
    gpu_asm!(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [{a}], {n};",
        a = in(_) address, n = in(_) bytes,
    );
}

/// TMA load of one box of a matrix into shared memory, `x` along the contiguous axis; its bytes count at `barrier`.
#[cube]
pub(super) fn tma_load(shared: u32, map: u64, x: u32, y: u32, barrier: u32) {
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [{d}], [{m}, {{{x}, {y}}}], [{b}];",
        d = in(_) shared, m = in(_) map, x = in(_) x, y = in(_) y, b = in(_) barrier,
    );
}

/// Multicast TMA load into the same address of every block of the cluster that has its bit in `blocks`; the bytes count at the
/// mbarrier at `barrier` of each of these blocks.
#[cube]
pub(super) fn tma_load_multicast(shared: u32, map: u64, x: u32, y: u32, barrier: u32, blocks: u16) {
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [{d}], [{m}, {{{x}, {y}}}], [{b}], {c};",
        d = in(_) shared, m = in(_) map, x = in(_) x, y = in(_) y, b = in(_) barrier, c = in(_) blocks,
    );
}

/// Maps an address in this block's shared memory to the same offset in the shared memory of the cluster's block `rank` (`mapa`).
#[cube]
pub(super) fn map_to_block(address: u32, rank: u32) -> u32 {
    let mapped: u32;
    gpu_asm!(
        "mapa.shared::cluster.u32 {o}, {a}, {r};",
        o = out(_) mapped, a = in(_) as_value(address), r = in(_) as_value(rank), options(pure, nomem)
    );
    mapped
}

/// Barrier for all threads of the cluster; earlier writes to shared memory are visible to all of them afterwards.
#[cube]
pub(super) fn sync_cluster() {
    gpu_asm!("barrier.cluster.arrive.release;");
    gpu_asm!("barrier.cluster.wait.acquire;");
}

/// TMA store of one box from shared memory into matrix `z` of a stack, committed as a bulk group of its own.
#[cube]
pub(super) fn tma_store(shared: u32, map: u64, x: u32, y: u32, z: u32) {
    gpu_asm!(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [{m}, {{{x}, {y}, {z}}}], [{s}];",
        m = in(_) map, x = in(_) x, y = in(_) y, z = in(_) z, s = in(_) shared,
    );
    gpu_asm!("cp.async.bulk.commit_group;");
}

/// Waits until at most `groups` of this thread's bulk groups still have to read shared memory.
#[cube]
pub(super) fn tma_store_wait_read(#[comptime] groups: u32) {
    gpu_asm!("cp.async.bulk.wait_group.read {n};", n = const groups);
}

/// Writes four 8 × 8 matrices of two-byte elements held across a warp; lane `l` gives the address of row `l % 8` of matrix `l / 8`.
#[cube]
pub(super) fn stmatrix_x4(address: u32, a: u32, b: u32, c: u32, d: u32) {
    gpu_asm!(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [{p}], {{{a}, {b}, {c}, {d}}};",
        p = in(_) as_value(address), a = in(_) as_value(a), b = in(_) as_value(b), c = in(_) as_value(c), d = in(_) as_value(d),
    );
}

/// Writes two floats to shared memory.
#[cube]
pub(super) fn store_pair(address: u32, a: f32, b: f32) {
    gpu_asm!("st.shared.v2.f32 [{p}], {{{a}, {b}}};", p = in(_) address, a = in(_) a, b = in(_) b);
}

/// Loads an f32 that no thread of the launch writes.
#[cube]
pub(super) fn load_global(address: u64) -> f32 {
    let loaded: f32;
    gpu_asm!("ld.global.nc.f32 {o}, [{a}];", o = out(_) loaded, a = in(_) address);
    loaded
}

/// Loads two f32 that no thread of the launch writes, from a multiple of eight bytes.
#[cube]
pub(super) fn load_global_pair(address: u64) -> Vector<f32, Const<2>> {
    let pair: Vector<f32, Const<2>>;
    // The two registers of the vector are operands 0 and 1.
    gpu_asm!(
        "ld.global.nc.v2.f32 {{%0, %1}}, [%2]; // {o} {a}",
        o = out(_) pair, a = in(_) address,
    );
    pair
}

/// Barrier for the 128 threads of warp group `group`.
#[cube]
pub(super) fn sync_warp_group(group: u32) {
    // Named barrier 0 is the one of `sync_cube`.
    // 128 threads arrive: the four warps of one warp group.
    gpu_asm!("bar.sync {i}, 128;", i = in(_) as_value(group + 1u32));
}

/// `x Φ(x)` with the distribution function of the standard normal to within 1e-6, by the approximate reciprocal and exponential.
///
/// `Φ(-|x|) = exp(-x² / 2) t Q(t) / 2` with `t = 1 / (1 + 0.4 |x| / √2)` and the polynomial of `simd::normal`.
#[cube]
pub(super) fn gelu(x: f32) -> f32 {
    let t: f32;
    let gauss: f32;
    // f32 constants in PTX's hexadecimal form: 0.4 / √2, 1, and further below -log2(e) / 2.
    gpu_asm!(
        "{{ .reg .f32 a, b; abs.f32 a, {x}; fma.rn.f32 b, a, 0f3E90D0C3, 0f3F800000; rcp.approx.ftz.f32 {t}, b; }}",
        t = out(_) t, x = in(_) x, options(pure, nomem)
    );
    gpu_asm!(
        "{{ .reg .f32 a, b; mul.f32 a, {x}, {x}; mul.f32 b, a, 0fBF38AA3B; ex2.approx.ftz.f32 {g}, b; }}",
        g = out(_) gauss, x = in(_) x, options(pure, nomem)
    );
    let mut q = 0.073_934_734f32;
    q = fma(q, t, -0.387_892_7f32);
    q = fma(q, t, 0.658_289_4f32);
    q = fma(q, t, -0.327_295_62f32);
    q = fma(q, t, 0.363_386_46f32);
    q = fma(q, t, 0.164_593_17f32);
    q = fma(q, t, 0.229_150_98f32);
    q = fma(q, t, 0.225_833_6f32);
    let tail = q * t * gauss * 0.5f32;
    x * select(x < 0.0f32, tail, 1.0f32 - tail)
}

/// Arrives at an mbarrier: of any block of the cluster (address from [`map_to_block`]), or of this block where `cluster` is 1.
#[cube]
pub(super) fn mbarrier_arrive(address: u32, #[comptime] cluster: u32) {
    if comptime!(cluster > 1) {
        gpu_asm!("mbarrier.arrive.shared::cluster.b64 _, [{a}];", a = in(_) as_value(address));
    } else {
        arrive_in_block(address);
    }
}

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
