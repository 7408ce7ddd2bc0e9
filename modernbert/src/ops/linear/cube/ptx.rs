//! The PTX that the tensor-core product is made of: barriers in shared memory, bulk copies of tiles, warp-group products.
//!
//! CubeCL has no warp-group products of its own. The main loop is one piece of inline PTX, so that the accumulators stay in
//! their registers from the first slice of the inner dimension to the last; its text is put together on the host while the
//! kernel is being defined.

use std::fmt::Write as _;

use cubecl::prelude::*;

use super::hopper::Tiling;

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

/// Waits until at most one group of this unit's stores still reads shared memory.
#[cube]
pub(super) fn stores_wait_read_1() {
    gpu_asm!("cp.async.bulk.wait_group.read 1;");
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

/// The main loop of a warp group: for `steps` stages from `stage` on, waits until the stage is full, multiplies, and gives
/// the stage before back. Units with `releases` 1 do that, at the barriers from `empty` on. Returns the accumulator.
#[allow(clippy::too_many_arguments)]
#[cube]
pub(super) fn multiply<N: Size>(
    a: u64,
    b: u64,
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
        text = const text, d = out(_) d, a = in(_) a, b = in(_) b, full = in(_) value(full), empty = in(_) value(empty),
        stage = in(_) value(stage), parity = in(_) value(parity), steps = in(_) value(steps), releases = in(_) value(releases),
    );
    d
}

/// Outputs are registers `%0 … %(n-1)`, then the inputs in the order of [`multiply`]. Vectors have sizes that are powers of two: of a
/// tile of 192 columns the last outputs are never written, and never read.
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
    let mut text = String::from(
        "{ .reg .pred p, q, lead, first, always; .reg .b64 da, db, offset; .reg .b32 st, ph, it, bar, prev; ",
    );
    let _ = write!(
        text,
        "mov.b32 st, {}; mov.b32 ph, {}; mov.b32 it, 0; mov.b32 prev, 0; setp.ne.b32 lead, {}, 0; setp.ne.b32 always, 1, 0; ",
        input(4),
        input(5),
        input(7),
    );
    let _ = write!(
        text,
        "STEP: mad.lo.u32 bar, st, 8, {}; \
         READY: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], ph; @!p bra READY; \
         mul.wide.u32 offset, st, {}; add.s64 da, {}, offset; add.s64 db, {}, offset; \
         setp.ne.b32 first, it, 0; wgmma.fence.sync.aligned; ",
        input(2),
        tiling.stage_bytes() / 16,
        input(0),
        input(1),
    );
    for k in 0..4 {
        let scale = if k == 0 { "first" } else { "always" };
        let _ = write!(
            text,
            "wgmma.mma_async.sync.aligned.m64n{}k16.f32.{ty}.{ty} {accumulator}, da, db, {scale}, 1, 1, {trans_a}, {trans_b}; ",
            columns,
        );
        if k < 3 {
            let _ = write!(
                text,
                "add.s64 da, da, {slice_a}; add.s64 db, db, {slice_b}; "
            );
        }
    }
    let _ = write!(
        text,
        "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1; \
         and.pred q, lead, first; @q {arrive} _, [prev]; \
         mad.lo.u32 prev, st, 8, {}; \
         add.u32 st, st, 1; setp.eq.u32 p, st, {}; @p mov.b32 st, 0; @p xor.b32 ph, ph, 1; \
         add.u32 it, it, 1; setp.lt.u32 p, it, {}; @p bra STEP; \
         wgmma.wait_group.sync.aligned 0; @lead {arrive} _, [prev]; }}",
        input(3),
        tiling.stages,
        input(6),
    );
    text
}
