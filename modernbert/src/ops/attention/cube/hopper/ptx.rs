//! The PTX that these kernels are made of: warp-group matrix products, asynchronous copies and a few conversions.
//!
//! CubeCL has no warp-group products of its own, so they are written as inline PTX. An instruction's text is put together on
//! the host while the kernel is being defined (see the `*_text` functions), because its register list depends on the shape.

use std::fmt::Write as _;

use cubecl::prelude::*;

/// Bytes in a row of a shared-memory tile: 64 elements of two bytes, one period of the 128-byte swizzle.
pub(super) const ROW_BYTES: u32 = 128;

/// Descriptor of a tile in shared memory with 128-byte rows under the 128-byte swizzle, at byte address `address`
/// (PTX ISA, "matrix descriptor"): stride between groups of eight rows 1024 bytes, leading dimension unused.
#[cube]
pub(super) fn descriptor(address: u32) -> u64 {
    let low = u64::cast_from((address & 0x3FFFFu32) >> 4u32);
    let strides = u64::cast_from(comptime!((1024u32 >> 4) | (1 << 30))) << 32u64;
    low | strides | 65536u64
}

/// Address of a shared allocation in the shared state space.
#[cube]
pub(super) fn shared_address(pointer: *const u32) -> u32 {
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 t; cvta.to.shared.u64 t, {p}; cvt.u32.u64 {o}, t; }}",
        o = out(_) address, p = in(_) pointer,
    );
    address
}

/// As [`shared_address`], of floats.
#[cube]
pub(super) fn shared_float_address(pointer: *const f32) -> u32 {
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 t; cvta.to.shared.u64 t, {p}; cvt.u32.u64 {o}, t; }}",
        o = out(_) address, p = in(_) pointer,
    );
    address
}

/// Address of a buffer in the global state space.
#[cube]
pub(super) fn global_address(pointer: *const u32) -> u64 {
    let address: u64;
    gpu_asm!("cvta.to.global.u64 {o}, {p};", o = out(_) address, p = in(_) pointer);
    address
}

/// Sixteen bytes from global to shared memory without passing through registers; zeros where `bytes` is 0.
#[cube]
pub(super) fn copy_async_16(shared: u32, global: u64, bytes: u32) {
    gpu_asm!(
        "cp.async.cg.shared.global [{d}], [{s}], 16, {n};",
        d = in(_) shared, s = in(_) global, n = in(_) bytes,
    );
}

#[cube]
pub(super) fn copy_async_commit() {
    gpu_asm!("cp.async.commit_group;");
}

/// Waits until at most `pending` groups of copies are under way.
#[cube]
pub(super) fn copy_async_wait(#[comptime] pending: u32) {
    gpu_asm!("cp.async.wait_group {n};", n = const pending);
}

/// Makes writes to shared memory visible to the tensor cores, which read it through another proxy.
#[cube]
pub(super) fn fence_tensor_cores() {
    gpu_asm!("fence.proxy.async.shared::cta;");
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

/// The two numbers of type `ty` in a register, as floats.
#[cube]
pub(super) fn unpack_low(packed: u32, #[comptime] ty: &str) -> f32 {
    let x: f32;
    gpu_asm!(
        "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {p}; cvt.f32.{ty} {x}, l; }}",
        x = out(_) x, p = in(_) packed, options(pure, nomem)
    );
    x
}

/// The upper half of a register, as [`unpack_low`].
#[cube]
pub(super) fn unpack_high(packed: u32, #[comptime] ty: &str) -> f32 {
    let x: f32;
    gpu_asm!(
        "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {p}; cvt.f32.{ty} {x}, h; }}",
        x = out(_) x, p = in(_) packed, options(pure, nomem)
    );
    x
}

/// Four bytes from global to shared memory, as [`copy_async_16`].
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

/// `A · B` over `steps` slices of 16 along the inner dimension, both operands in shared memory; rows of A are 64, columns of
/// B are 2 × the size of the result. With `transposed`, B is stored `[inner, columns]`, otherwise `[columns, inner]`.
#[cube]
pub(super) fn product_shared<N: Size>(
    a: u64,
    b: u64,
    #[comptime] steps: usize,
    #[comptime] transposed: bool,
    #[comptime] ty: &str,
) -> Vector<f32, N> {
    let text = comptime!(shared_text(N::value(), steps, transposed, ty));
    let d: Vector<f32, N>;
    gpu_asm!("{text} // {d} {a} {b}", text = const text, d = out(_) d, a = in(_) a, b = in(_) b);
    d
}

/// `A · B` with A in registers, `[64, 64]` as four slices of 16 columns.
#[cube]
pub(super) fn product_registers<N: Size>(
    a: &Sequence<Vector<u32, Const<4>>>,
    b: u64,
    #[comptime] transposed: bool,
    #[comptime] ty: &str,
) -> Vector<f32, N> {
    let text = comptime!(registers_text(N::value(), 4, transposed, ty));
    let d: Vector<f32, N>;
    let a0 = *a.index(0);
    let a1 = *a.index(1);
    let a2 = *a.index(2);
    let a3 = *a.index(3);
    gpu_asm!(
        "{text} // {d} {a0} {a1} {a2} {a3} {b}",
        text = const text, d = out(_) d,
        a0 = in(_) a0, a1 = in(_) a1, a2 = in(_) a2, a3 = in(_) a3, b = in(_) b,
    );
    d
}

/// How far a descriptor moves per slice of 16 along the inner dimension, in its units of 16 bytes.
fn slice_stride(transposed: bool) -> usize {
    if transposed {
        16 * ROW_BYTES as usize / 16
    } else {
        2
    }
}

fn instruction(n: usize, ty: &str) -> String {
    format!(
        "wgmma.mma_async.sync.aligned.m64n{}k16.f32.{ty}.{ty}",
        2 * n
    )
}

/// Outputs are registers `%0 … %(n-1)`, then A's and B's descriptors.
fn shared_text(n: usize, steps: usize, transposed: bool, ty: &str) -> String {
    let name = instruction(n, ty);
    let (a, b, trans) = (n, n + 1, u8::from(transposed));
    let mut text = open(n);
    for step in 0..steps {
        let _ = write!(
            text,
            "add.s64 da, %{a}, {}; add.s64 db, %{b}, {}; {name} {}, da, db, p{}, 1, 1, 0, {trans}; ",
            2 * step,
            slice_stride(transposed) * step,
            accumulator(n),
            u8::from(step > 0),
        );
    }
    close(text)
}

/// Outputs first, then four registers of A per slice, then B's descriptor.
fn registers_text(n: usize, steps: usize, transposed: bool, ty: &str) -> String {
    let name = instruction(n, ty);
    let (b, trans) = (n + 4 * steps, u8::from(transposed));
    let mut text = open(n);
    for step in 0..steps {
        let a = n + 4 * step;
        let _ = write!(
            text,
            "add.s64 db, %{b}, {}; {name} {}, {{%{a}, %{}, %{}, %{}}}, db, p{}, 1, 1, {trans}; ",
            slice_stride(transposed) * step,
            accumulator(n),
            a + 1,
            a + 2,
            a + 3,
            u8::from(step > 0),
        );
    }
    close(text)
}

fn open(_n: usize) -> String {
    "{ .reg .pred p0, p1; .reg .b64 da, db; setp.ne.b32 p0, 0, 0; setp.ne.b32 p1, 1, 0; wgmma.fence.sync.aligned; ".into()
}

fn close(mut text: String) -> String {
    text.push_str("wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; }");
    text
}

fn accumulator(n: usize) -> String {
    let registers: Vec<String> = (0..n).map(|i| format!("%{i}")).collect();
    format!("{{{}}}", registers.join(", "))
}
