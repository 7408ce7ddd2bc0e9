//! Warp-level matrix products and the loads of their operands, as inline PTX (`mma.sync` and `ldmatrix`, compute capability
//! 8.0 and later).
//!
//! A product is `[16, 16] · [16, 8]`. Unit `l` of a warp holds, with row `g = l / 4` and column `t = 2 · (l % 4)`:
//!
//! | operand | registers |
//! |---|---|
//! | left `[16, 16]` | pairs at (g, t), (g + 8, t), (g, t + 8), (g + 8, t + 8) |
//! | right `[16, 8]` | pairs along the inner dimension: (t, g), (t + 8, g) |
//! | result `[16, 8]` | (g, t), (g, t + 1), (g + 8, t), (g + 8, t + 1) |

use cubecl::prelude::*;

/// Four registers of a unit: four pairs of half-precision numbers.
pub(super) type Packed = Vector<u32, Const<4>>;
/// A unit's part of a `[16, 8]` result.
pub(super) type Part = Vector<f32, Const<4>>;

/// `c + a · b`.
#[cube]
pub(super) fn mma(a: Packed, b0: u32, b1: u32, c: Part, #[comptime] ty: &str) -> Part {
    // Element by element: inline assembly takes a variable that was written to by its address.
    let (a0, a1, a2, a3) = (
        a.extract(0usize),
        a.extract(1usize),
        a.extract(2usize),
        a.extract(3usize),
    );
    let (c0, c1, c2, c3) = (
        c.extract(0usize),
        c.extract(1usize),
        c.extract(2usize),
        c.extract(3usize),
    );
    let d: Vector<f32, Const<4>>;
    gpu_asm!(
        "mma.sync.aligned.m16n8k16.row.col.f32.{ty}.{ty}.f32 {d}, {{{a0}, {a1}, {a2}, {a3}}}, {{{b0}, {b1}}}, {{{c0}, {c1}, {c2}, {c3}}};",
        d = out(_) d,
        a0 = in(_) a0, a1 = in(_) a1, a2 = in(_) a2, a3 = in(_) a3, b0 = in(_) b0, b1 = in(_) b1,
        c0 = in(_) c0, c1 = in(_) c1, c2 = in(_) c2, c3 = in(_) c3,
        options(pure, nomem)
    );
    d
}

/// Four `[8, 8]` matrices of shared memory, one register each; lanes 0–7 name the rows of the first, 8–15 of the second, and so on.
#[cube]
pub(super) fn load_matrices(address: u32) -> Packed {
    let x: Vector<u32, Const<4>>;
    gpu_asm!(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {x}, [{a}];",
        x = out(_) x, a = in(_) address
    );
    x
}

/// As [`load_matrices`], each matrix transposed.
#[cube]
pub(super) fn load_matrices_transposed(address: u32) -> Packed {
    let x: Vector<u32, Const<4>>;
    gpu_asm!(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {x}, [{a}];",
        x = out(_) x, a = in(_) address
    );
    x
}
