//! WGMMA, the warp-group matrix multiplication, as inline PTX.
//!
//! CubeCL has no such instruction. Its text is assembled on the host while the kernel is being defined (see the `*_text`
//! functions), because its list of registers depends on the shape. Every function here waits for its result.

use std::fmt::Write as _;

use cubecl::prelude::*;

/// Bytes in a row of a shared-memory tile: 64 elements of two bytes, one period of the 128-byte swizzle.
pub(super) const ROW_BYTES: u32 = 128;

/// Descriptor of a tile in shared memory with 128-byte rows under the 128-byte swizzle, one block wide.
#[cube]
pub(super) fn descriptor(address: u32) -> u64 {
    crate::ops::ptx::descriptor(address, 16u32)
}

/// `A · B` over `steps` slices of 16 along the inner dimension, both operands in shared memory, given by their descriptors: A has
/// 64 rows, B is stored `[columns, inner]` with `2 N` columns.
#[cube]
pub(super) fn multiply<N: Size>(
    a: u64,
    b: u64,
    #[comptime] steps: usize,
    #[comptime] ty: &str,
) -> Vector<f32, N> {
    let text = comptime!(shared_text(N::value(), steps, ty));
    let d: Vector<f32, N>;
    gpu_asm!("{text} // {d} {a} {b}", text = const text, d = out(_) d, a = in(_) a, b = in(_) b);
    d
}

/// `c + A · B` with A in registers, `[64, 64]` as four slices of 16 columns, and B stored `[inner, columns]`. The product has registers
/// of its own and is then added: faster than [`add_product`] where other instructions have just changed `c`.
#[cube]
pub(super) fn sum_with_product<N: Size>(
    c: Vector<f32, N>,
    a: &Sequence<Vector<u32, Const<4>>>,
    b: u64,
    #[comptime] ty: &str,
) -> Vector<f32, N> {
    let text = comptime!(registers_text(N::value(), 4, false, ty));
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
    c + d
}

/// As [`sum_with_product`], accumulating in the registers of `c`.
#[cube]
pub(super) fn add_product<N: Size>(
    c: Vector<f32, N>,
    a: &Sequence<Vector<u32, Const<4>>>,
    b: u64,
    #[comptime] ty: &str,
) -> Vector<f32, N> {
    let text = comptime!(registers_text(N::value(), 4, true, ty));
    let d: Vector<f32, N>;
    // Through a sequence: inline assembly passes a mutable variable by its address.
    let mut held = Sequence::<Vector<f32, N>>::new();
    held.push(c);
    let c = *held.index(0);
    let a0 = *a.index(0);
    let a1 = *a.index(1);
    let a2 = *a.index(2);
    let a3 = *a.index(3);
    gpu_asm!(
        "{text} // {d} {c} {a0} {a1} {a2} {a3} {b}",
        text = const text, d = out(_) d, c = in(_) c,
        a0 = in(_) a0, a1 = in(_) a1, a2 = in(_) a2, a3 = in(_) a3, b = in(_) b,
    );
    d
}

/// Distance between slices of 16 along the inner dimension, in a descriptor's units of 16 bytes: along a row, or down 16 rows.
const ALONG: usize = 2;
const DOWN: usize = 16 * ROW_BYTES as usize / 16;

fn instruction(n: usize, ty: &str) -> String {
    format!(
        "wgmma.mma_async.sync.aligned.m64n{}k16.f32.{ty}.{ty}",
        2 * n
    )
}

/// Operands of the text: the result's registers `%0 … %(n-1)`, then A's and B's descriptors.
fn shared_text(n: usize, steps: usize, ty: &str) -> String {
    let name = instruction(n, ty);
    let (a, b) = (n, n + 1);
    let mut text = OPEN.to_owned();
    for step in 0..steps {
        let _ = write!(
            text,
            "add.s64 da, %{a}, {0}; add.s64 db, %{b}, {0}; {name} {1}, da, db, p{2}, 1, 1, 0, 0; ",
            ALONG * step,
            accumulator(n),
            u8::from(step > 0),
        );
    }
    text + CLOSE
}

/// Operands of the text: the result's registers; those of `c`, if `added`; four registers of A per slice; B's descriptor. CubeCL's
/// inline assembly has no operand that is both read and written: `c` is moved to the result's registers first, and the assembler
/// allocates one register for both.
fn registers_text(n: usize, steps: usize, added: bool, ty: &str) -> String {
    let name = instruction(n, ty);
    let first = if added { 2 * n } else { n };
    let b = first + 4 * steps;
    let mut text = if added { moves(n) } else { String::new() } + OPEN;
    for step in 0..steps {
        let a = first + 4 * step;
        let _ = write!(
            text,
            "add.s64 db, %{b}, {}; {name} {}, {{%{a}, %{}, %{}, %{}}}, db, p{}, 1, 1, 1; ",
            DOWN * step,
            accumulator(n),
            a + 1,
            a + 2,
            a + 3,
            u8::from(added || step > 0),
        );
    }
    text + CLOSE
}

fn moves(n: usize) -> String {
    (0..n)
        .map(|i| format!("mov.f32 %{i}, %{}; ", n + i))
        .collect()
}

const OPEN: &str = "{ .reg .pred p0, p1; .reg .b64 da, db; setp.ne.b32 p0, 0, 0; setp.ne.b32 p1, 1, 0; wgmma.fence.sync.aligned; ";
const CLOSE: &str = "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; }";

fn accumulator(n: usize) -> String {
    let registers: Vec<String> = (0..n).map(|i| format!("%{i}")).collect();
    format!("{{{}}}", registers.join(", "))
}
