//! WGMMA, the warp-group matrix multiplication, as inline PTX.
//!
//! CubeCL has no such instruction. The text of the instructions is assembled on the host while the kernel is being defined (see the `*_text`
//! functions), because the list of registers depends on the shape. [`multiply`] and [`sum_with_product`] wait for their results; the texts of groups, which
//! kernels with asynchronous WGMMAs assemble too, do not.

use std::fmt::Write as _;

use cubecl::prelude::*;

use super::ROW_BYTES;
use super::memory::unchanged;

/// WGMMA's descriptor of a tile at byte address `address` of shared memory under the 128-byte swizzle (PTX ISA, "matrix descriptor"): groups
/// of eight rows are 1024 bytes apart. For tiles whose outer dimension is contiguous, `block` is the distance in bytes of blocks of 64
/// elements along it.
#[cube]
pub(in crate::ops) fn tile_descriptor(address: u32, #[comptime] block: u32) -> u64 {
    u64::cast_from(descriptor_low(address, block))
        | (u64::cast_from(comptime!(DESCRIPTOR_HIGH)) << 32u64)
}

/// Upper half of every [`tile_descriptor`]. Bits 32 to 45 of the descriptor are the distance of groups of eight rows (8 × 128 bytes, in units of 16
/// bytes); bits 62 and 63 are the swizzle mode, 1 for 128 bytes, the mode with which TMA writes the tiles.
pub(in crate::ops) const DESCRIPTOR_HIGH: u32 = (1024 >> 4) | (1 << 30);

/// Lower half of a [`tile_descriptor`]: in bits 0 to 13 the address of the tile, of which the descriptor has 18 bits in units of 16 bytes; in bits 16 to 29
/// the distance of blocks, also in units of 16 bytes.
#[cube]
pub(in crate::ops) fn descriptor_low(address: u32, #[comptime] block: u32) -> u32 {
    ((address & 0x3FFFFu32) >> 4u32) | comptime!((block >> 4) << 16)
}

/// Descriptor of a tile in shared memory with 128-byte rows under the 128-byte swizzle, one block of 64 elements wide: the distance of blocks is never
/// used, and 16 bytes make its field 1, as the PTX ISA asks for K-major operands under a swizzle.
#[cube]
pub(in crate::ops) fn descriptor(address: u32) -> u64 {
    tile_descriptor(address, 16u32)
}

/// `A · B` over `steps` slices of 16 along the inner dimension, both operands in shared memory, given by their descriptors: A has
/// 64 rows, B is stored `[columns, inner]` with `2 N` columns.
#[cube]
pub(in crate::ops) fn multiply<N: Size>(
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

/// Operand A of [`sum_with_product`]: `[64, 64]`, four registers to a slice of 16 columns.
pub(in crate::ops) type OperandA = Vector<u32, Const<16>>;

/// `c + A · B` with A in registers and B stored `[inner, columns]`. Accumulates in the registers of `c`; if `rescaled`, which says that
/// other instructions have just changed `c`, the product has registers of its own and is then added, which is faster.
#[cube]
pub(in crate::ops) fn sum_with_product<N: Size>(
    c: Vector<f32, N>,
    a: OperandA,
    b: u64,
    #[comptime] rescaled: bool,
    #[comptime] ty: &str,
) -> Vector<f32, N> {
    let text = comptime!(registers_text(N::value(), 4, !rescaled, ty));
    let d: Vector<f32, N>;
    let a = unchanged::<OperandA>(a);
    if comptime!(rescaled) {
        gpu_asm!("{text} // {d} {a} {b}", text = const text, d = out(_) d, a = in(_) a, b = in(_) b);
        c + d
    } else {
        let c = unchanged::<Vector<f32, N>>(c);
        gpu_asm!(
            "{text} // {d} {c} {a} {b}",
            text = const text, d = out(_) d, c = in(_) c, a = in(_) a, b = in(_) b,
        );
        d
    }
}

/// Distance between slices of 16 along the inner dimension, in a descriptor's units of 16 bytes: along a row, or down 16 rows.
pub(in crate::ops) const ALONG: usize = 2;
pub(in crate::ops) const DOWN: usize = 16 * ROW_BYTES as usize / 16;

/// Beginning of a text: names for two descriptors, and the predicates for scale-d: `p0` (false) overwrites the accumulator, `p1` (true) adds to it.
pub(in crate::ops) const OPEN: &str =
    "{ .reg .pred p0, p1; .reg .b64 da, db; setp.ne.b32 p0, 0, 0; setp.ne.b32 p1, 1, 0; ";
/// Orders earlier accesses to registers before the WGMMAs that follow.
pub(in crate::ops) const FENCE: &str = "wgmma.fence.sync.aligned; ";
/// Ends a group of WGMMAs.
pub(in crate::ops) const COMMIT: &str = "wgmma.commit_group.sync.aligned; ";
const WAIT_AND_CLOSE: &str = "wgmma.wait_group.sync.aligned 0; }";

/// Registers `%first … %(first + count - 1)` in braces.
pub(in crate::ops) fn registers(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|i| format!("%{i}")).collect();
    format!("{{{}}}", names.join(", "))
}

/// Moves `count` f32 registers from `%from` on to `%to` on. CubeCL's inline assembly has no operand that is both read and written: an
/// accumulator is moved to the result's registers first, and the assembler allocates one register for both.
pub(in crate::ops) fn moves(to: usize, from: usize, count: usize) -> String {
    (0..count)
        .map(|i| format!("mov.f32 %{}, %{}; ", to + i, from + i))
        .collect()
}

fn instruction(n: usize, ty: &str) -> String {
    format!(
        "wgmma.mma_async.sync.aligned.m64n{}k16.f32.{ty}.{ty}",
        2 * n
    )
}

/// A group of WGMMAs `d = A · Bᵀ` over `steps` slices of 16 inner elements; descriptors at `%a` and `%b`, `d` the `n` registers from
/// `%d` on. Operands after scale-d: the signs of A and B (1: not negated) and their layouts (0: K-major).
pub(in crate::ops) fn multiply_slices(
    d: usize,
    n: usize,
    (a, b): (usize, usize),
    steps: usize,
    ty: &str,
) -> String {
    let name = instruction(n, ty);
    (0..steps).fold(String::new(), |mut text, step| {
        let _ = write!(
            text,
            "add.s64 da, %{a}, {0}; add.s64 db, %{b}, {0}; {name} {1}, da, db, p{2}, 1, 1, 0, 0; ",
            ALONG * step,
            registers(d, n),
            u8::from(step > 0),
        );
        text
    }) + COMMIT
}

/// A group of WGMMAs `d += A · B`, or `d = A · B` unless `added`, over `steps` slices of 16 inner elements: A in four registers a slice
/// from `%a` on, B stored `[inner, columns]` with its descriptor at `%b`, `d` the `n` registers from `%d` on. Operands after scale-d: the signs of A
/// and B (1: not negated) and the layout of B (1: N-major; A in registers has none).
pub(in crate::ops) fn sum_slices(
    d: usize,
    n: usize,
    (a, b): (usize, usize),
    steps: usize,
    added: bool,
    ty: &str,
) -> String {
    let name = instruction(n, ty);
    (0..steps).fold(String::new(), |mut text, step| {
        let _ = write!(
            text,
            "add.s64 db, %{b}, {}; {name} {}, {}, db, p{}, 1, 1, 1; ",
            DOWN * step,
            registers(d, n),
            registers(a + 4 * step, 4),
            u8::from(added || step > 0),
        );
        text
    }) + COMMIT
}

/// Operands of the text: the result's registers `%0 … %(n-1)`, then A's and B's descriptors.
fn shared_text(n: usize, steps: usize, ty: &str) -> String {
    let slices = multiply_slices(0, n, (n, n + 1), steps, ty);
    format!("{OPEN}{FENCE}{slices}{WAIT_AND_CLOSE}")
}

/// Operands of the text: the result's registers; those of `c`, if `added`; four registers of A per slice; B's descriptor.
fn registers_text(n: usize, steps: usize, added: bool, ty: &str) -> String {
    let a = if added { 2 * n } else { n };
    let moved = if added { moves(0, n, n) } else { String::new() };
    let slices = sum_slices(0, n, (a, a + 4 * steps), steps, added, ty);
    format!("{moved}{OPEN}{FENCE}{slices}{WAIT_AND_CLOSE}")
}
