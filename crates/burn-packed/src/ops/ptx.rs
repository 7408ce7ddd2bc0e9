//! PTX instructions that GEMM and attention kernels share.

use cubecl::prelude::*;

/// CubeCL's name of the architecture of compute capability 9.0.
pub(super) const HOPPER: &str = "ptx_sm90";

/// Bytes in a row of a tile in shared memory: 64 elements of two bytes, the span of the 128-byte swizzle.
pub(super) const ROW_BYTES: u32 = 128;

/// Copies a variable into a value. Inline PTX takes the address of a mutable variable instead of its value.
#[allow(clippy::identity_op)] // the addition forces the copy
#[cube]
pub(super) fn as_value(x: u32) -> u32 {
    x + 0u32
}

/// Initializes the mbarrier at `address`: a phase completes after `count` arrivals and all announced bytes.
#[cube]
pub(super) fn mbarrier_init(address: u32, #[comptime] count: u32) {
    gpu_asm!("mbarrier.init.shared::cta.b64 [{a}], {n};", a = in(_) as_value(address), n = const count);
}

/// Makes initialized mbarriers visible to all threads of the block and to the other blocks of the cluster; a barrier of the block or of
/// the cluster must follow.
#[cube]
pub(super) fn mbarrier_init_fence() {
    gpu_asm!("fence.mbarrier_init.release.cluster;");
}

/// Arrives at an mbarrier of this block.
#[cube]
pub(super) fn mbarrier_arrive(address: u32) {
    gpu_asm!("mbarrier.arrive.shared::cta.b64 _, [{a}];", a = in(_) as_value(address));
}

/// Waits until the phase of this parity has completed.
#[cube]
pub(super) fn mbarrier_wait(address: u32, parity: u32) {
    gpu_asm!(
        "{{ .reg .pred p; WAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [{a}], {ph}; @!p bra WAIT; }}",
        a = in(_) as_value(address), ph = in(_) as_value(parity),
    );
}

/// Orders this thread's writes to shared memory before reads of the async proxy, through which TMA and WGMMA read it.
#[cube]
pub(super) fn fence_async_proxy() {
    gpu_asm!("fence.proxy.async.shared::cta;");
}

/// Barrier for the threads of a warp.
#[cube]
pub(super) fn sync_warp() {
    gpu_asm!("bar.warp.sync 0xffffffff;");
}

/// Waits until all groups of bulk operations of this thread, TMA stores among them, are complete.
#[cube]
pub(super) fn bulk_wait() {
    gpu_asm!("cp.async.bulk.wait_group 0;");
}

/// Address of a shared allocation in the shared state space.
#[cube]
pub(super) fn shared_address<T: CubePrimitive>(pointer: *const T) -> u32 {
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 t; cvta.to.shared.u64 t, {p}; cvt.u32.u64 {o}, t; }}",
        o = out(_) address, p = in(_) pointer,
    );
    address
}

/// Address of a buffer in the global state space.
#[cube]
pub(super) fn global_address<T: CubePrimitive>(pointer: *const T) -> u64 {
    let address: u64;
    gpu_asm!(
        "cvta.to.global.u64 {o}, {p};",
        o = out(_) address, p = in(_) pointer,
    );
    address
}

/// Two floats rounded to `ty` (`bf16` or `f16`) in one register, `low` in the lower half.
#[cube]
pub(super) fn pack(low: f32, high: f32, #[comptime] ty: &str) -> u32 {
    let packed: u32;
    gpu_asm!(
        "cvt.rn.{ty}x2.f32 {o}, {h}, {l};",
        o = out(_) packed, h = in(_) high, l = in(_) low, options(pure, nomem)
    );
    packed
}

/// WGMMA's descriptor of a tile at byte address `address` of shared memory under the 128-byte swizzle (PTX ISA, "matrix descriptor"): groups
/// of eight rows are 1024 bytes apart. For tiles whose outer dimension is contiguous, `block` is the distance in bytes of blocks of 64
/// elements along it.
#[cube]
pub(super) fn descriptor(address: u32, #[comptime] block: u32) -> u64 {
    u64::cast_from(descriptor_low(address, block))
        | (u64::cast_from(comptime!(DESCRIPTOR_HIGH)) << 32u64)
}

/// Upper half of every [`descriptor`]. Bits 32 to 45 of the descriptor are the distance of groups of eight rows (8 × 128 bytes, in units of 16
/// bytes); bits 62 and 63 are the swizzle mode, 1 for 128 bytes, the mode with which TMA writes the tiles.
pub(super) const DESCRIPTOR_HIGH: u32 = (1024 >> 4) | (1 << 30);

/// Lower half of a [`descriptor`]: in bits 0 to 13 the address of the tile, of which the descriptor has 18 bits in units of 16 bytes; in bits 16 to 29
/// the distance of blocks, also in units of 16 bytes.
#[cube]
pub(super) fn descriptor_low(address: u32, #[comptime] block: u32) -> u32 {
    ((address & 0x3FFFFu32) >> 4u32) | comptime!((block >> 4) << 16)
}
