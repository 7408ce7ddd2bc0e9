//! PTX instructions that both tensor-core families use: addresses, asynchronous copies, conversions and a few functions.

use cubecl::prelude::*;

pub(super) use crate::ops::ptx::{
    ROW_BYTES, as_value, fence_async_proxy, pack, shared_address, sync_warp,
};

/// Allocates shared memory and returns its address in the shared state space.
#[cube]
pub(super) fn shared_memory(#[comptime] bytes: u32, #[comptime] alignment: usize) -> u32 {
    let memory = Shared::<[u32]>::new_aligned_slice(comptime!(bytes as usize / 4), alignment);
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    shared_address::<u32>(unsafe { memory.as_ptr_unchecked() })
}

/// Address of a buffer in the global state space.
#[cube]
pub(super) fn global_address<T: CubePrimitive>(buffer: &[T]) -> u64 {
    // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
    global_pointer::<T>(unsafe { buffer.as_ptr_unchecked() })
}

/// As [`global_address`], of a pointer.
#[cube]
pub(super) fn global_pointer<T: CubePrimitive>(pointer: *const T) -> u64 {
    let address: u64;
    gpu_asm!("cvta.to.global.u64 {o}, {p};", o = out(_) address, p = in(_) pointer);
    address
}

/// A value of a vector that may be a mutable variable: inline PTX would take the variable's address.
#[cube]
pub(super) fn unchanged<E: CubePrimitive>(x: E) -> E {
    let mut held = Sequence::<E>::new();
    held.push(x);
    *held.index(0)
}

/// Starts the copy of 16 bytes from global to shared memory; writes zeros where `bytes` is 0.
#[cube]
pub(super) fn copy_async_16(shared: u32, global: u64, bytes: u32) {
    gpu_asm!(
        "cp.async.cg.shared.global [{d}], [{s}], 16, {n};",
        d = in(_) shared, s = in(_) global, n = in(_) bytes,
    );
}

/// Makes the copies that this thread started since the last commit a group.
#[cube]
pub(super) fn copy_async_commit() {
    gpu_asm!("cp.async.commit_group;");
}

/// Waits until at most `pending` groups of this thread's copies are incomplete.
#[cube]
pub(super) fn copy_async_wait(#[comptime] pending: u32) {
    gpu_asm!("cp.async.wait_group {n};", n = const pending);
}

/// `2^x`, to within 2 ulp; minus infinity gives 0.
#[cube]
pub(super) fn exp2(x: f32) -> f32 {
    let y: f32;
    gpu_asm!("ex2.approx.ftz.f32 {y}, {x};", y = out(_) y, x = in(_) x, options(pure, nomem));
    y
}

/// `log2(x)` for positive normal x.
#[cube]
pub(super) fn log2(x: f32) -> f32 {
    let y: f32;
    gpu_asm!("lg2.approx.ftz.f32 {y}, {x};", y = out(_) y, x = in(_) x, options(pure, nomem));
    y
}

/// `1 / x` to within 1 ulp.
#[cube]
pub(super) fn reciprocal(x: f32) -> f32 {
    let y: f32;
    gpu_asm!("rcp.approx.ftz.f32 {y}, {x};", y = out(_) y, x = in(_) x, options(pure, nomem));
    y
}

/// The lower half of a register, a number of type `ty`, as f32.
#[cube]
pub(super) fn unpack_low(packed: u32, #[comptime] ty: &str) -> f32 {
    let x: f32;
    gpu_asm!(
        "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {p}; cvt.f32.{ty} {x}, l; }}",
        x = out(_) x, p = in(_) packed, options(pure, nomem)
    );
    x
}

/// As [`unpack_low`], the upper half.
#[cube]
pub(super) fn unpack_high(packed: u32, #[comptime] ty: &str) -> f32 {
    let x: f32;
    gpu_asm!(
        "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {p}; cvt.f32.{ty} {x}, h; }}",
        x = out(_) x, p = in(_) packed, options(pure, nomem)
    );
    x
}

/// As [`copy_async_16`], 4 bytes.
#[cube]
pub(super) fn copy_async_4(shared: u32, global: u64, bytes: u32) {
    gpu_asm!(
        "cp.async.ca.shared.global [{d}], [{s}], 4, {n};",
        d = in(_) shared, s = in(_) global, n = in(_) bytes,
    );
}

/// Largest value among the four lanes that share a row of an accumulator.
#[cube]
pub(super) fn quad_max(x: f32) -> f32 {
    let a = max(x, plane_shuffle_xor(x, 1u32));
    max(a, plane_shuffle_xor(a, 2u32))
}

/// Sum over the four lanes that share a row of an accumulator; the same in each of them.
#[cube]
pub(super) fn quad_sum(x: f32) -> f32 {
    let a = x + plane_shuffle_xor(x, 1u32);
    a + plane_shuffle_xor(a, 2u32)
}

/// Reads 16 bytes of shared memory.
#[cube]
pub(super) fn load_shared_16(address: u32) -> Vector<u32, Const<4>> {
    let x: Vector<u32, Const<4>>;
    gpu_asm!("ld.shared.v4.b32 {x}, [{a}];", x = out(_) x, a = in(_) address);
    x
}

/// Writes 16 bytes of shared memory.
#[cube]
pub(super) fn store_shared_16(address: u32, x: Vector<u32, Const<4>>) {
    let x = unchanged::<Vector<u32, Const<4>>>(x);
    gpu_asm!("st.shared.v4.b32 [{a}], {x};", a = in(_) address, x = in(_) x);
}

/// Reads four floats of a buffer that no running kernel writes.
#[cube]
pub(super) fn load_global_floats(address: u64) -> Vector<f32, Const<4>> {
    let x: Vector<f32, Const<4>>;
    gpu_asm!("ld.global.nc.v4.f32 {x}, [{a}];", x = out(_) x, a = in(_) address);
    x
}
