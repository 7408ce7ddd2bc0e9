//! The PTX that the tensor-core product is made of: barriers in shared memory, bulk copies of tiles, warp-group products.
//!
//! CubeCL has no warp-group products of its own. The main loop is one piece of inline PTX, so that the accumulators stay in
//! their registers from the first slice of the inner dimension to the last; its text is put together on the host while the
//! kernel is being defined.

use std::fmt::Write as _;

use cubecl::prelude::*;

use super::hopper::Tiling;
use crate::ops::ptx::DESCRIPTOR_HIGH;

/// Bytes in a row of a shared-memory tile: one period of the 128-byte swizzle.
pub(super) const ROW_BYTES: u32 = 128;

/// The value of a variable, which inline PTX would otherwise take the address of where the variable can change.
#[allow(clippy::identity_op)] // the sum is what makes a value of it
#[cube]
fn value(x: u32) -> u32 {
    x + 0u32
}

/// A barrier at `address` that completes a phase when `count` arrivals (and the bytes expected) have come.
#[cube]
pub(super) fn barrier_init(address: u32, count: u32) {
    gpu_asm!("mbarrier.init.shared::cta.b64 [{a}], {n};", a = in(_) address, n = in(_) count);
}

/// Makes initialised barriers visible to the copy engine.
#[cube]
pub(super) fn barrier_fence() {
    gpu_asm!("fence.mbarrier_init.release.cluster;");
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// Waits for the end of the phase of this parity.
#[cube]
pub(super) fn barrier_wait(address: u32, parity: u32) {
    gpu_asm!(
        "{{ .reg .pred p; WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [{a}], {ph}; @!p bra WAIT; }}",
        a = in(_) value(address), ph = in(_) value(parity),
    );
}

/// Arrives, and announces the bytes that copies will bring.
#[cube]
pub(super) fn barrier_expect(address: u32, bytes: u32) {
    gpu_asm!(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [{a}], {n};",
        a = in(_) address, n = in(_) bytes,
    );
}

/// Starts the copy of a box of a matrix into shared memory; `x` counts along the contiguous axis.
#[cube]
pub(super) fn load_box(shared: u32, map: u64, x: u32, y: u32, barrier: u32) {
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [{d}], [{m}, {{{x}, {y}}}], [{b}];",
        d = in(_) shared, m = in(_) map, x = in(_) x, y = in(_) y, b = in(_) barrier,
    );
}

/// The same copy into this place of every cube of the cluster that `cubes` has a bit for; each one's barrier at `barrier` hears of it.
#[cube]
pub(super) fn load_box_for(shared: u32, map: u64, x: u32, y: u32, barrier: u32, cubes: u16) {
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [{d}], [{m}, {{{x}, {y}}}], [{b}], {c};",
        d = in(_) shared, m = in(_) map, x = in(_) x, y = in(_) y, b = in(_) barrier, c = in(_) cubes,
    );
}

/// What `address` in this cube's shared memory is in that of cube `rank` of its cluster.
#[cube]
pub(super) fn address_in_cube(address: u32, rank: u32) -> u32 {
    let there: u32;
    gpu_asm!(
        "mapa.shared::cluster.u32 {o}, {a}, {r};",
        o = out(_) there, a = in(_) value(address), r = in(_) value(rank), options(pure, nomem)
    );
    there
}

/// Barrier among all units of a cluster; what they wrote to shared memory before is seen after it.
#[cube]
pub(super) fn sync_cluster() {
    gpu_asm!("barrier.cluster.arrive.release;");
    gpu_asm!("barrier.cluster.wait.acquire;");
}

/// Starts the copy of a box from shared memory to a stack of matrices, and closes a group of copies.
#[cube]
pub(super) fn store_box(shared: u32, map: u64, x: u32, y: u32, z: u32) {
    gpu_asm!(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [{m}, {{{x}, {y}, {z}}}], [{s}];",
        m = in(_) map, x = in(_) x, y = in(_) y, z = in(_) z, s = in(_) shared,
    );
    gpu_asm!("cp.async.bulk.commit_group;");
}

/// Waits until at most `groups` groups of this unit's stores still read shared memory.
#[cube]
pub(super) fn stores_wait_read(#[comptime] groups: u32) {
    gpu_asm!("cp.async.bulk.wait_group.read {n};", n = const groups);
}

/// Waits until all of this unit's stores have been written.
#[cube]
pub(super) fn stores_wait() {
    gpu_asm!("cp.async.bulk.wait_group 0;");
}

/// Makes writes to shared memory visible to the copy engine.
#[cube]
pub(super) fn fence_copies() {
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// Barrier among the units of a warp.
#[cube]
pub(super) fn sync_warp() {
    gpu_asm!("bar.warp.sync 0xffffffff;");
}

/// Writes four 8 by 8 matrices of two-byte elements held across a warp; lane `l` gives the address of row `l % 8` of matrix `l / 8`.
#[cube]
pub(super) fn store_matrices(address: u32, a: u32, b: u32, c: u32, d: u32) {
    gpu_asm!(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [{p}], {{{a}, {b}, {c}, {d}}};",
        p = in(_) value(address), a = in(_) value(a), b = in(_) value(b), c = in(_) value(c), d = in(_) value(d),
    );
}

/// Writes two floats to shared memory.
#[cube]
pub(super) fn store_pair(address: u32, a: f32, b: f32) {
    gpu_asm!("st.shared.v2.f32 [{p}], {{{a}, {b}}};", p = in(_) address, a = in(_) a, b = in(_) b);
}

/// Barrier among the units of a warp group, whose number is `group`.
#[cube]
pub(super) fn sync_warp_group(group: u32) {
    // Barrier 0 is that of all units.
    gpu_asm!("bar.sync {i}, 128;", i = in(_) value(group + 1u32));
}

/// Arrives at a barrier of a cube of the cluster, or of this cube where the cluster is one cube.
#[cube]
pub(super) fn barrier_arrive(address: u32, #[comptime] cluster: u32) {
    if comptime!(cluster > 1) {
        gpu_asm!("mbarrier.arrive.shared::cluster.b64 _, [{a}];", a = in(_) value(address));
    } else {
        gpu_asm!("mbarrier.arrive.shared::cta.b64 _, [{a}];", a = in(_) value(address));
    }
}

/// The main loop of a warp group: for `steps` stages from `stage` on, waits until the stage is full, multiplies, and gives
/// the stage before back; the last one stays with the caller. Units with `releases` 1 give back, at the barriers from `empty`
/// on. `a` and `b` are lower halves of descriptors of the first stage. Returns the accumulator.
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn multiply<N: Size>(
    a: u32,
    b: u32,
    full: u32,
    empty: u32,
    stage: u32,
    parity: u32,
    steps: u32,
    releases: u32,
    #[comptime] tiling: Tiling,
) -> Vector<f32, N> {
    let text = comptime!(main_loop(N::value(), tiling));
    let d: Vector<f32, N>;
    gpu_asm!(
        "{text} // {d} {a} {b} {full} {empty} {stage} {parity} {steps} {releases}",
        text = const text, d = out(_) d, a = in(_) value(a), b = in(_) value(b), full = in(_) value(full), empty = in(_) value(empty),
        stage = in(_) value(stage), parity = in(_) value(parity), steps = in(_) value(steps), releases = in(_) value(releases),
    );
    d
}

/// Outputs are registers `%0 … %(n-1)`, then the inputs in the order of [`multiply`]. Vectors have sizes that are powers of two: of a
/// tile of 192 columns the last outputs are never written, and never read.
///
/// Two warp groups share the tensor cores, product by product, so that each has the time of one product of the other to
/// bring its next one. Descriptors are therefore counted in 32 bits beside a constant upper half: with 64-bit sums the
/// instructions in between took longer than that (docs/lab-log.md).
fn main_loop(n: usize, tiling: Tiling) -> String {
    let input = |i: usize| format!("%{}", n + i);
    let ty = if tiling.half { "f16" } else { "bf16" };
    let columns = tiling.columns as usize;
    let registers: Vec<String> = (0..columns / 2).map(|i| format!("%{i}")).collect();
    let accumulator = format!("{{{}}}", registers.join(", "));
    // How far a descriptor moves per slice of 16, in its units of 16 bytes.
    let slice = |transposed: bool| {
        if transposed {
            16 * ROW_BYTES / 16
        } else {
            16 * 2 / 16
        }
    };
    let (slice_a, slice_b) = (slice(tiling.a_outer), slice(tiling.b_outer));
    let (trans_a, trans_b) = (u8::from(tiling.a_outer), u8::from(tiling.b_outer));
    // Not `release.cluster`: nothing was written that the other cube reads, and the fence it stands for costs half a stage's time.
    let arrive = if tiling.cluster > 1 {
        "mbarrier.arrive.shared::cluster.b64"
    } else {
        "mbarrier.arrive.shared::cta.b64"
    };
    let places = format!(
        "mad.lo.u32 bar, st, 8, {}; mad.lo.u32 sa, st, {words}, {}; mad.lo.u32 sb, st, {words}, {}; ",
        input(2),
        input(0),
        input(1),
        words = tiling.stage_bytes() / 16,
    );
    // One stage; the first one starts the accumulator and has none before it to give back.
    let stage = |first: bool| {
        let label = if first { "FIRST" } else { "READY" };
        let mut text = format!(
            "{label}: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], ph; @!p bra {label}; wgmma.fence.sync.aligned; "
        );
        for k in 0..4 {
            let scale = if first && k == 0 { "never" } else { "always" };
            let _ = write!(
                text,
                "add.u32 x, sa, {}; add.u32 y, sb, {}; mov.b64 da, {{x, {high}}}; mov.b64 db, {{y, {high}}}; \
                 wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{ty}.{ty} {accumulator}, da, db, {scale}, 1, 1, {trans_a}, {trans_b}; ",
                k * slice_a,
                k * slice_b,
                high = DESCRIPTOR_HIGH,
            );
        }
        text += "wgmma.commit_group.sync.aligned; ";
        if !first {
            let _ = write!(
                text,
                "wgmma.wait_group.sync.aligned 1; @lead {arrive} _, [prev]; "
            );
        }
        let _ = write!(
            text,
            "mad.lo.u32 prev, st, 8, {}; \
             add.u32 st, st, 1; setp.eq.u32 p, st, {}; @p mov.b32 st, 0; @p xor.b32 ph, ph, 1; {places}\
             sub.u32 left, left, 1; setp.eq.u32 q, left, 0; @q bra DONE; ",
            input(3),
            tiling.stages,
        );
        text
    };
    format!(
        "{{ .reg .pred p, q, lead, never, always; .reg .b64 da, db; .reg .b32 sa, sb, x, y, st, ph, bar, prev, left; \
         mov.b32 st, {}; mov.b32 ph, {}; mov.b32 left, {}; setp.ne.b32 lead, {}, 0; setp.ne.b32 never, 1, 1; setp.ne.b32 always, 1, 0; \
         {places}{}STEP: {}bra STEP; DONE: wgmma.wait_group.sync.aligned 0; }}",
        input(4),
        input(5),
        input(6),
        input(7),
        stage(true),
        stage(false),
    )
}
