//! Addresses, loads and stores, and copies by threads (`cp.async`).

use cubecl::prelude::*;

/// Copies a variable into a value. Inline PTX takes the address of a mutable variable instead of its value.
#[allow(clippy::identity_op)] // the addition forces the copy
#[cube]
pub(in crate::ops) fn as_value(x: u32) -> u32 {
    x + 0u32
}

/// A value of a vector that may be a mutable variable: inline PTX would take the variable's address.
#[cube]
pub(in crate::ops) fn unchanged<E: CubePrimitive>(x: E) -> E {
    let mut held = Sequence::<E>::new();
    held.push(x);
    *held.index(0)
}

/// Address of a shared allocation in the shared state space.
#[cube]
pub(in crate::ops) fn shared_address<T: CubePrimitive>(pointer: *const T) -> u32 {
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 t; cvta.to.shared.u64 t, {p}; cvt.u32.u64 {o}, t; }}",
        o = out(_) address, p = in(_) pointer,
    );
    address
}

/// Allocates shared memory and returns its address in the shared state space.
#[cube]
pub(in crate::ops) fn shared_memory(#[comptime] bytes: u32, #[comptime] alignment: usize) -> u32 {
    let memory = Shared::<[u32]>::new_aligned_slice(comptime!(bytes as usize / 4), alignment);
    // SAFETY: the allocation has elements and only its address is used; the PTX that accesses it stays inside the layout.
    shared_address::<u32>(unsafe { memory.as_ptr_unchecked() })
}

/// As [`global_address`], of a pointer.
#[cube]
pub(in crate::ops) fn global_pointer<T: CubePrimitive>(pointer: *const T) -> u64 {
    let address: u64;
    gpu_asm!("cvta.to.global.u64 {o}, {p};", o = out(_) address, p = in(_) pointer);
    address
}

/// Address of a buffer in the global state space.
#[cube]
pub(in crate::ops) fn global_address<T: CubePrimitive>(buffer: &[T]) -> u64 {
    // SAFETY: buffers of a launch have elements and only their addresses are used; rows outside a sequence are not read.
    global_pointer::<T>(unsafe { buffer.as_ptr_unchecked() })
}

/// Reads a number of shared memory.
#[cube]
pub(in crate::ops) fn load_shared(address: u32) -> u32 {
    let x: u32;
    gpu_asm!("ld.shared.u32 {x}, [{a}];", x = out(_) x, a = in(_) address);
    x
}

/// Reads two floats of shared memory.
#[cube]
pub(in crate::ops) fn load_shared_pair(address: u32) -> Vector<f32, Const<2>> {
    let x: Vector<f32, Const<2>>;
    gpu_asm!("ld.shared.v2.f32 {x}, [{a}];", x = out(_) x, a = in(_) as_value(address));
    x
}

/// Reads 16 bytes of shared memory.
#[cube]
pub(in crate::ops) fn load_shared_16(address: u32) -> Vector<u32, Const<4>> {
    let x: Vector<u32, Const<4>>;
    gpu_asm!("ld.shared.v4.b32 {x}, [{a}];", x = out(_) x, a = in(_) address);
    x
}

/// Writes a number to shared memory.
#[cube]
pub(in crate::ops) fn store_shared(address: u32, x: u32) {
    gpu_asm!("st.shared.u32 [{a}], {x};", a = in(_) as_value(address), x = in(_) as_value(x));
}

/// Writes two floats to shared memory.
#[cube]
pub(in crate::ops) fn store_shared_pair(address: u32, a: f32, b: f32) {
    gpu_asm!("st.shared.v2.f32 [{p}], {{{a}, {b}}};", p = in(_) address, a = in(_) a, b = in(_) b);
}

/// Writes four floats to shared memory.
#[cube]
pub(in crate::ops) fn store_shared_floats(address: u32, a: f32, b: f32, c: f32, d: f32) {
    gpu_asm!(
        "st.shared.v4.f32 [{p}], {{{a}, {b}, {c}, {d}}};",
        p = in(_) as_value(address), a = in(_) a, b = in(_) b, c = in(_) c, d = in(_) d,
    );
}

/// Writes 16 bytes of shared memory.
#[cube]
pub(in crate::ops) fn store_shared_16(address: u32, x: Vector<u32, Const<4>>) {
    let x = unchanged::<Vector<u32, Const<4>>>(x);
    gpu_asm!("st.shared.v4.b32 [{a}], {x};", a = in(_) address, x = in(_) x);
}

/// Writes four 8 × 8 matrices of two-byte elements held across a warp; lane `l` gives the address of row `l % 8` of matrix `l / 8`.
#[cube]
pub(in crate::ops) fn stmatrix_x4(address: u32, a: u32, b: u32, c: u32, d: u32) {
    gpu_asm!(
        "stmatrix.sync.aligned.m8n8.x4.shared.b16 [{p}], {{{a}, {b}, {c}, {d}}};",
        p = in(_) as_value(address), a = in(_) as_value(a), b = in(_) as_value(b), c = in(_) as_value(c), d = in(_) as_value(d),
    );
}

/// Loads an f32 that no thread of the launch writes.
#[cube]
pub(in crate::ops) fn load_global(address: u64) -> f32 {
    let loaded: f32;
    gpu_asm!("ld.global.nc.f32 {o}, [{a}];", o = out(_) loaded, a = in(_) address);
    loaded
}

/// Loads two f32 that no thread of the launch writes, from a multiple of eight bytes.
#[cube]
pub(in crate::ops) fn load_global_pair(address: u64) -> Vector<f32, Const<2>> {
    let pair: Vector<f32, Const<2>>;
    // The two registers of the vector are operands 0 and 1.
    gpu_asm!(
        "ld.global.nc.v2.f32 {{%0, %1}}, [%2]; // {o} {a}",
        o = out(_) pair, a = in(_) address,
    );
    pair
}

/// Reads four floats of a buffer that no running kernel writes.
#[cube]
pub(in crate::ops) fn load_global_floats(address: u64) -> Vector<f32, Const<4>> {
    let x: Vector<f32, Const<4>>;
    gpu_asm!("ld.global.nc.v4.f32 {x}, [{a}];", x = out(_) x, a = in(_) address);
    x
}

/// Starts the copy of 16 bytes from global to shared memory; writes zeros where `bytes` is 0.
#[cube]
pub(in crate::ops) fn copy_async_16(shared: u32, global: u64, bytes: u32) {
    gpu_asm!(
        "cp.async.cg.shared.global [{d}], [{s}], 16, {n};",
        d = in(_) shared, s = in(_) global, n = in(_) bytes,
    );
}

/// As [`copy_async_16`], 4 bytes.
#[cube]
pub(in crate::ops) fn copy_async_4(shared: u32, global: u64, bytes: u32) {
    gpu_asm!(
        "cp.async.ca.shared.global [{d}], [{s}], 4, {n};",
        d = in(_) shared, s = in(_) global, n = in(_) bytes,
    );
}

/// Makes the copies that this thread started since the last commit a group.
#[cube]
pub(in crate::ops) fn copy_async_commit() {
    gpu_asm!("cp.async.commit_group;");
}

/// Waits until at most `pending` groups of this thread's copies are incomplete.
#[cube]
pub(in crate::ops) fn copy_async_wait(#[comptime] pending: u32) {
    gpu_asm!("cp.async.wait_group {n};", n = const pending);
}
