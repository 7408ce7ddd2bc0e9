//! Bulk copies between global and shared memory: TMA by tensor maps, and ranges of bytes.

use cubecl::prelude::*;

use super::memory::as_value;

/// TMA load of one box of a matrix into shared memory, `x` along the contiguous axis; its bytes count at `barrier`.
#[cube]
pub(in crate::ops) fn tma_load(shared: u32, map: u64, x: u32, y: u32, barrier: u32) {
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [{d}], [{m}, {{{x}, {y}}}], [{b}];",
        d = in(_) shared, m = in(_) map, x = in(_) x, y = in(_) y, b = in(_) barrier,
    );
}

/// Multicast TMA load into the same address of every block of the cluster that has its bit in `blocks`; the bytes count at the
/// mbarrier at `barrier` of each of these blocks.
#[cube]
pub(in crate::ops) fn tma_load_multicast(
    shared: u32,
    map: u64,
    x: u32,
    y: u32,
    barrier: u32,
    blocks: u16,
) {
    gpu_asm!(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [{d}], [{m}, {{{x}, {y}}}], [{b}], {c};",
        d = in(_) shared, m = in(_) map, x = in(_) x, y = in(_) y, b = in(_) barrier, c = in(_) blocks,
    );
}

/// TMA store of one box from shared memory into matrix `z` of a stack, committed as a bulk group of its own.
#[cube]
pub(in crate::ops) fn tma_store(shared: u32, map: u64, x: u32, y: u32, z: u32) {
    gpu_asm!(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [{m}, {{{x}, {y}, {z}}}], [{s}];",
        m = in(_) map, x = in(_) x, y = in(_) y, z = in(_) z, s = in(_) shared,
    );
    gpu_asm!("cp.async.bulk.commit_group;");
}

/// Waits until at most `groups` of this thread's bulk groups still have to read shared memory.
#[cube]
pub(in crate::ops) fn tma_store_wait_read(#[comptime] groups: u32) {
    gpu_asm!("cp.async.bulk.wait_group.read {n};", n = const groups);
}

/// Starts a copy from shared to global memory.
#[cube]
pub(in crate::ops) fn bulk_store(global: u64, shared: u32, #[comptime] bytes: u32) {
    gpu_asm!(
        "cp.async.bulk.global.shared::cta.bulk_group [{g}], [{s}], {n};",
        g = in(_) global, s = in(_) as_value(shared), n = const bytes,
    );
}

/// Starts the addition of f32 numbers in shared memory to those in global memory, `bytes` in all.
#[cube]
pub(in crate::ops) fn bulk_add(global: u64, shared: u32, #[comptime] bytes: u32) {
    gpu_asm!(
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [{g}], [{s}], {n};",
        g = in(_) global, s = in(_) as_value(shared), n = const bytes,
    );
}

/// Ends a group of bulk operations and waits until all of this thread's have read shared memory.
#[cube]
pub(in crate::ops) fn bulk_wait_read() {
    gpu_asm!("cp.async.bulk.commit_group;");
    gpu_asm!("cp.async.bulk.wait_group.read 0;");
}

/// Waits until all groups of bulk operations of this thread, TMA stores among them, are complete.
#[cube]
pub(in crate::ops) fn bulk_wait() {
    gpu_asm!("cp.async.bulk.wait_group 0;");
}
