//! Barriers, fences, counters in global memory, and the reallocation of registers.

use cubecl::prelude::*;

use super::memory::as_value;

/// Initializes the mbarrier at `address`: a phase completes after `count` arrivals and all announced bytes.
#[cube]
pub(in crate::ops) fn mbarrier_init(address: u32, #[comptime] count: u32) {
    gpu_asm!("mbarrier.init.shared::cta.b64 [{a}], {n};", a = in(_) as_value(address), n = const count);
}

/// Makes initialized mbarriers visible to all threads of the block and to the other blocks of the cluster; a barrier of the block or of
/// the cluster must follow.
#[cube]
pub(in crate::ops) fn mbarrier_init_fence() {
    gpu_asm!("fence.mbarrier_init.release.cluster;");
}

/// Arrives at an mbarrier of this block.
#[cube]
pub(in crate::ops) fn mbarrier_arrive(address: u32) {
    gpu_asm!("mbarrier.arrive.shared::cta.b64 _, [{a}];", a = in(_) as_value(address));
}

/// Arrives at an mbarrier: of any block of the cluster (address from [`map_to_block`]), or of this block where `cluster` is 1.
#[cube]
pub(in crate::ops) fn mbarrier_arrive_cluster(address: u32, #[comptime] cluster: u32) {
    if comptime!(cluster > 1) {
        gpu_asm!("mbarrier.arrive.shared::cluster.b64 _, [{a}];", a = in(_) as_value(address));
    } else {
        mbarrier_arrive(address);
    }
}

/// Arrives once and announces the bytes that TMA loads will deliver in this phase.
#[cube]
pub(in crate::ops) fn mbarrier_arrive_expect_tx(address: u32, bytes: u32) {
    gpu_asm!(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [{a}], {n};",
        a = in(_) address, n = in(_) bytes,
    );
}

/// Waits until the phase of this parity has completed.
#[cube]
pub(in crate::ops) fn mbarrier_wait(address: u32, parity: u32) {
    gpu_asm!(
        "{{ .reg .pred p; WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [{a}], {ph}; @!p bra WAIT; }}",
        a = in(_) as_value(address), ph = in(_) as_value(parity),
    );
}

/// 1 if the phase of this parity has completed for every lane of the warp, else 0.
#[cube]
pub(in crate::ops) fn mbarrier_test(address: u32, parity: u32) -> u32 {
    let done: u32;
    gpu_asm!(
        "{{ .reg .pred p, q; mbarrier.test_wait.parity.shared::cta.b64 p, [{a}], {ph}; \
         vote.sync.all.pred q, p, 0xffffffff; selp.u32 {o}, 1, 0, q; }}",
        o = out(_) done, a = in(_) as_value(address), ph = in(_) as_value(parity),
    );
    done
}

/// Barrier for the threads of a warp.
#[cube]
pub(in crate::ops) fn sync_warp() {
    gpu_asm!("bar.warp.sync 0xffffffff;");
}

/// Barrier for the 128 threads of warp group `group`.
#[cube]
pub(in crate::ops) fn sync_warp_group(group: u32) {
    // Named barrier 0 is the one of `sync_cube`.
    // 128 threads arrive: the four warps of one warp group.
    gpu_asm!("bar.sync {i}, 128;", i = in(_) as_value(group + 1u32));
}

/// Waits at named barrier `id` until `threads` threads have arrived. Barrier 0 is the one of `sync_cube`.
#[cube]
pub(in crate::ops) fn named_barrier_sync(id: u32, #[comptime] threads: u32) {
    gpu_asm!("bar.sync {i}, {n};", i = in(_) as_value(id), n = const threads);
}

/// Arrives at named barrier `id` without waiting.
#[cube]
pub(in crate::ops) fn named_barrier_arrive(id: u32, #[comptime] threads: u32) {
    gpu_asm!("bar.arrive {i}, {n};", i = in(_) as_value(id), n = const threads);
}

/// Barrier for all threads of the cluster; earlier writes to shared memory are visible to all of them afterwards.
#[cube]
pub(in crate::ops) fn sync_cluster() {
    gpu_asm!("barrier.cluster.arrive.release;");
    gpu_asm!("barrier.cluster.wait.acquire;");
}

/// Maps an address in this block's shared memory to the same offset in the shared memory of the cluster's block `rank` (`mapa`).
#[cube]
pub(in crate::ops) fn map_to_block(address: u32, rank: u32) -> u32 {
    let mapped: u32;
    gpu_asm!(
        "mapa.shared::cluster.u32 {o}, {a}, {r};",
        o = out(_) mapped, a = in(_) as_value(address), r = in(_) as_value(rank), options(pure, nomem)
    );
    mapped
}

/// Orders this thread's writes to shared memory before reads of the async proxy, through which TMA and WGMMA read it.
#[cube]
pub(in crate::ops) fn fence_async_proxy() {
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// Adds 1 to the counter at global address `address` and returns the previous value.
#[cube]
pub(in crate::ops) fn take_ticket(address: u64) -> u32 {
    let ticket: u32;
    gpu_asm!("atom.global.add.u32 {o}, [{a}], 1;", o = out(_) ticket, a = in(_) address);
    ticket
}

/// Waits until the counter at global address `address` is `count`; earlier writes of the counter's writer are then visible.
#[cube]
pub(in crate::ops) fn wait_for_count(address: u64, count: u32) {
    gpu_asm!(
        "{{ .reg .pred p; .reg .u32 x; POLL: ld.acquire.gpu.global.u32 x, [{a}]; setp.ne.u32 p, x, {t}; @p bra POLL; }}",
        a = in(_) address, t = in(_) as_value(count),
    );
}

/// Sets the counter at global address `address`, after everything that this thread has written.
#[cube]
pub(in crate::ops) fn publish_count(address: u64, count: u32) {
    gpu_asm!("fence.acq_rel.gpu; st.release.gpu.global.u32 [{a}], {t};", a = in(_) address, t = in(_) as_value(count));
}

/// Releases registers of this warp group, down to `count` for each thread.
#[cube]
pub(in crate::ops) fn decrease_registers(#[comptime] count: u32) {
    gpu_asm!("setmaxnreg.dec.sync.aligned.u32 {n};", n = const count);
}

/// Requests registers for this warp group, up to `count` for each thread; waits until they are available.
#[cube]
pub(in crate::ops) fn increase_registers(#[comptime] count: u32) {
    gpu_asm!("setmaxnreg.inc.sync.aligned.u32 {n};", n = const count);
}
