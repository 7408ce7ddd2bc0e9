//! Asynchronous WGMMA of the warp-specialized kernels.
//!
//! A WGMMA that is *started* runs while its thread continues. Its result is valid after [`await_result`], which returns the result in a new
//! value: nothing may read the value of the `start_…` function itself. The functions are few and large because of two limits of inline
//! PTX. Inline PTX has no operand that is both read and written, so an accumulator is moved to the result's registers first, and
//! `ptxas` serializes all WGMMAs if such a move is between two of them. One function therefore starts all WGMMAs that run at the same time.

use std::fmt::Write as _;

use cubecl::prelude::*;

use crate::ops::ptx::wgmma::{
    ALONG, COMMIT, DOWN, FENCE, OPEN, moves, multiply_slices, registers, sum_slices,
};
use crate::ops::ptx::{ROW_BYTES, as_value, unchanged};

/// Starts `A · Bᵀ`, `[64, 2 N]`, over 64 inner elements; both operands in shared memory, given by descriptors, with 64 elements a row.
#[cube]
pub(super) fn start_multiply<N: Size>(a: u64, b: u64, #[comptime] ty: &str) -> Vector<f32, N> {
    let text = comptime!(multiply_text(N::value(), ty));
    let d: Vector<f32, N>;
    gpu_asm!("{text} // {d} {a} {b}", text = const text, d = out(_) d, a = in(_) a, b = in(_) b);
    d
}

/// Results of the WGMMAs that one function starts. Inline PTX has one output, a vector whose length is a power of two.
pub(super) type Started = Vector<f32, Const<128>>;

/// Elements of a sum `[64, 64]`.
pub(super) type Accumulator = Vector<f32, Const<32>>;

/// Operand A of the functions that follow: 8 slices of 16 columns.
pub(super) type OperandA = Vector<u32, Const<32>>;

/// Starts `q · kᵀ`, `[64, 128]`, and then `sums + weights · v`, `[64, 64]`, as two groups: elements 0 to 63 and 64 to 95 of the result.
/// `q`, `k` and `v` are descriptors, `v` is stored `[inner, columns]`.
#[cube]
pub(super) fn start_scores_and_sum(
    sums: Accumulator,
    weights: OperandA,
    q: u64,
    k: u64,
    v: u64,
    #[comptime] ty: &str,
) -> Started {
    let text = comptime!(scores_and_sum_text(ty));
    let d: Vector<f32, Const<128>>;
    let (c, w) = (
        unchanged::<Accumulator>(sums),
        unchanged::<OperandA>(weights),
    );
    gpu_asm!(
        "{text} // {d} {c} {w} {q} {k} {v}",
        text = const text, d = out(_) d, c = in(_) c, w = in(_) w, q = in(_) q, k = in(_) k, v = in(_) v,
    );
    d
}

/// Starts `sums + weights · v`, as in [`start_scores_and_sum`].
#[cube]
pub(super) fn start_sum(
    sums: Accumulator,
    weights: OperandA,
    v: u64,
    #[comptime] ty: &str,
) -> Accumulator {
    let text = comptime!(sum_text(ty));
    let d: Accumulator;
    let (c, w) = (
        unchanged::<Accumulator>(sums),
        unchanged::<OperandA>(weights),
    );
    gpu_asm!("{text} // {d} {c} {w} {v}", text = const text, d = out(_) d, c = in(_) c, w = in(_) w, v = in(_) v);
    d
}

/// Starts all gradients of a step of the backward pass, as three groups, each 32 elements of the result, in this order:
///
/// 1. `d_v + p · d_out`;
/// 2. `d_k + e · q`, the last group to complete;
/// 3. this consumer's 64 rows of `d_scores · all_k`, the second group to complete.
///
/// All operands but `p` and `e` are descriptors. Between the first group and the others, `e` is stored transposed at `transposed` (see
/// `stmatrix`), and named barrier 1 makes both consumers' parts of `d_scores` visible.
#[allow(clippy::too_many_arguments)] // operands of inline PTX
#[cube]
pub(super) fn start_gradients(
    d_v: Accumulator,
    d_k: Accumulator,
    p: OperandA,
    e: OperandA,
    d_out: u64,
    q: u64,
    d_scores0: u64,
    d_scores1: u64,
    all_k: u64,
    transposed: u32,
    #[comptime] ty: &str,
) -> Started {
    let text = comptime!(gradients_text(ty));
    let d: Vector<f32, Const<128>>;
    let (c_v, c_k) = (unchanged::<Accumulator>(d_v), unchanged::<Accumulator>(d_k));
    let (p, e) = (unchanged::<OperandA>(p), unchanged::<OperandA>(e));
    gpu_asm!(
        "{text} // {d} {c_v} {c_k} {p} {e} {d_out} {q} {s0} {s1} {all_k} {at}",
        text = const text, d = out(_) d, c_v = in(_) c_v, c_k = in(_) c_k, p = in(_) p, e = in(_) e,
        d_out = in(_) d_out, q = in(_) q, s0 = in(_) d_scores0, s1 = in(_) d_scores1, all_k = in(_) all_k, at = in(_) as_value(transposed),
    );
    d
}

/// Waits until at most `pending` of this warp group's WGMMA groups are incomplete and returns `x`, a result of one that is complete.
#[cube]
pub(super) fn await_result<N: Size>(x: Vector<f32, N>, #[comptime] pending: u32) -> Vector<f32, N> {
    let text = comptime!(await_text(N::value(), pending));
    let d: Vector<f32, N>;
    let c = unchanged::<Vector<f32, N>>(x);
    gpu_asm!("{text} // {d} {c}", text = const text, d = out(_) d, c = in(_) c);
    d
}

/// As [`await_result`], for elements `from … from + N - 1` of the results that one function started.
#[cube]
pub(super) fn await_slice<N: Size>(
    x: Started,
    #[comptime] from: usize,
    #[comptime] pending: u32,
) -> Vector<f32, N> {
    let text = comptime!(await_slice_text(N::value(), from, pending));
    let d: Vector<f32, N>;
    let c = unchanged::<Started>(x);
    gpu_asm!("{text} // {d} {c}", text = const text, d = out(_) d, c = in(_) c);
    d
}

/// WGMMAs over the inner dimension, 16 elements each, of a tile of 128 rows.
const SLICES: usize = 8;
/// The same of a head of 64.
const HEAD_SLICES: usize = 4;

fn multiply_text(n: usize, ty: &str) -> String {
    format!(
        "{OPEN}{FENCE}{}}}",
        multiply_slices(0, n, (n, n + 1), HEAD_SLICES, ty)
    )
}

fn scores_and_sum_text(ty: &str) -> String {
    let (s, d, c, w) = (0, 64, 128, 160);
    let q = w + 4 * SLICES;
    format!(
        "{OPEN}{}{FENCE}{}{}}}",
        moves(d, c, 32),
        multiply_slices(s, 64, (q, q + 1), HEAD_SLICES, ty),
        sum_slices(d, 32, (w, q + 2), SLICES, true, ty)
    )
}

fn sum_text(ty: &str) -> String {
    let (d, c, w) = (0, 32, 64);
    format!(
        "{OPEN}{}{FENCE}{}}}",
        moves(d, c, 32),
        sum_slices(d, 32, (w, w + 4 * SLICES), SLICES, true, ty)
    )
}

fn await_slice_text(n: usize, from: usize, pending: u32) -> String {
    format!(
        "wgmma.wait_group.sync.aligned {pending}; {}",
        moves(0, n + from, n)
    )
}

fn await_text(n: usize, pending: u32) -> String {
    format!(
        "wgmma.wait_group.sync.aligned {pending}; {}",
        moves(0, n, n)
    )
}

fn gradients_text(ty: &str) -> String {
    let (v, k, x, c, p) = (0, 32, 64, 128, 192);
    let e = p + 4 * SLICES;
    let d_out = e + 4 * SLICES;
    let (q, d0, d1, all_k, at) = (d_out + 1, d_out + 2, d_out + 3, d_out + 4, d_out + 5);
    let mut text = format!(
        "{OPEN}.reg .b32 at; {}{FENCE}{}",
        moves(v, c, 64),
        sum_slices(v, 32, (p, d_out), SLICES, true, ty)
    );
    for slice in 0..SLICES {
        let _ = write!(
            text,
            "add.u32 at, %{at}, {}; stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [at], {}; ",
            slice * 16 * ROW_BYTES as usize,
            registers(e + 4 * slice, 4),
        );
    }
    // 256: the threads of both consumers.
    text += "fence.proxy.async.shared::cta; bar.sync 1, 256; ";
    // Operands after the descriptors: scale-d, the signs of A and B, and the layouts of A (0: K-major) and B (1: stored `[inner, columns]`). A has two
    // blocks of 64 keys, each with its own descriptor.
    for slice in 0..SLICES {
        let _ = write!(
            text,
            "add.s64 da, %{}, {}; add.s64 db, %{all_k}, {}; \
             wgmma.mma_async.sync.aligned.m64n64k16.f32.{ty}.{ty} {}, da, db, p{}, 1, 1, 0, 1; ",
            if slice < SLICES / 2 { d0 } else { d1 },
            ALONG * (slice % (SLICES / 2)),
            DOWN * slice,
            registers(x, 32),
            u8::from(slice > 0),
        );
    }
    text += COMMIT;
    text + &sum_slices(k, 32, (e, q), SLICES, true, ty) + "}"
}
