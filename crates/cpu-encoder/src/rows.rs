//! Loops over rows, vectorized by the compiler for several instruction sets.
//!
//! [`OperandDtype`] has the loops whose arithmetic depends on the operands' dtype: with bf16 operands, whose rounding error is 2e-3, exponential and GELU
//! are polynomials of a lower degree.

use cpu_gemm::element::{Float, quantize_row};
use cpu_gemm::kernel::Multiply;
use cpu_gemm::{PANEL, ROWS};
use half::bf16;
use multiversion::multiversion;
use std::f32::consts::LOG2_E;

/// A tile of a result, `[32, 32]`, row-major.
pub(crate) type TileValues = [f32; ROWS * PANEL];

/// The destination of a tile in a matrix: a strided view. Other threads write other columns of the same rows.
#[derive(Debug)]
pub struct TileMut<T> {
    /// The first element.
    pub(crate) start: *mut T,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    /// Rows, up to 32.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) width: usize,
}

impl<T> TileMut<T> {
    /// Up to 32 rows of up to 32 columns (for gradients: of a head's elements) from `start` on.
    pub fn new(start: *mut T, stride: usize, rows: usize, width: usize) -> Self {
        Self {
            start,
            stride,
            rows,
            width,
        }
    }

    /// Elements of row `row`.
    ///
    /// # Safety
    /// The destination is inside of its matrix, and nothing else uses its elements.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // the caller's promise makes the borrow exclusive
    unsafe fn row(&self, row: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.width) }
    }
}

/// Running maximum and sum of a softmax for each of 32 queries, and the factor by which the last step rescales earlier sums.
#[derive(Debug)]
pub struct OnlineSoftmax {
    pub(crate) max: [f32; ROWS],
    pub(crate) sum: [f32; ROWS],
    pub(crate) shrink: [f32; ROWS],
}

impl OnlineSoftmax {
    pub(crate) fn new() -> Self {
        Self {
            max: [f32::NEG_INFINITY; ROWS],
            sum: [0.0; ROWS],
            shrink: [0.0; ROWS],
        }
    }
}

/// Dtype of the operands of GEMMs and attention.
pub trait OperandDtype: Float + Multiply {
    /// Rounds a tile.
    ///
    /// # Safety
    /// `to` is inside of its matrix, and nothing else uses its elements.
    unsafe fn store(tile: &TileValues, to: &TileMut<Self>);
    /// `gelu(column j) * column (16 + j)` of a tile, rounded.
    ///
    /// # Safety
    /// As [`OperandDtype::store`].
    unsafe fn store_geglu(tile: &TileValues, to: &TileMut<Self>);
    /// One step of an online softmax over rows of scores: replaces them by rounded probabilities relative to the running maximum. Rows without
    /// a finite score have zeros.
    fn softmax(
        scores: &[f32],
        stride: usize,
        width: usize,
        rows: usize,
        state: &mut OnlineSoftmax,
        to: &mut [Self],
    );
    /// RoPE of rows of a head: `dim` elements each, from one row to the next `stride` elements in `x` and `to_stride` in `to`. `table` has the cosines and sines
    /// of each row, `[rows, dim]`, and is empty without RoPE. All elements are multiplied by `factor`.
    fn rotate(x: HeadRows<'_, Self>, table: &[f32], factor: f32, to: &mut [Self], to_stride: usize);
    /// A row times a factor, rounded.
    fn scale(row: &[f32], factor: f32, to: &mut [Self]);
    /// Rows of gradients times `factor`, `stride` elements apart in `sums`, with RoPE's inverse; `table` is as in [`OperandDtype::rotate`].
    ///
    /// # Safety
    /// As [`OperandDtype::store`].
    unsafe fn store_unrotated(
        sums: &[f32],
        stride: usize,
        table: &[f32],
        factor: f32,
        to: &TileMut<Self>,
    );
    /// Sum of the products of two rows.
    fn dot(a: &[Self], b: &[Self]) -> f32;
    /// Gradients of the scores of queries, `exp(S - lse) (dP - δ)` with one `lse` and δ for each row, rounded to `d_s`.
    fn score_gradients(rows: ScoreRows<'_>, d_s: &mut [Self]);
    /// As [`OperandDtype::score_gradients`] for transposed scores, whose columns are queries; also writes the probabilities.
    fn transposed_score_gradients(rows: ScoreRows<'_>, p: &mut [Self], d_s: &mut [Self]);
}

/// Scores of a block and the gradients of their probabilities, `[rows, width]` with a width that is a multiple of 32.
#[derive(Clone, Copy, Debug)]
pub struct ScoreRows<'a> {
    pub(crate) scores: &'a [f32],
    pub(crate) d_p: &'a [f32],
    pub(crate) width: usize,
    /// Log-sum-exp of each query.
    pub(crate) lse: &'a [f32],
    /// Sum over the head of the result times its gradient, of each query.
    pub(crate) delta: &'a [f32],
}

/// Rows of a head in a larger matrix.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows<'a, E> {
    /// From the first row's first element on.
    pub(crate) values: &'a [E],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) dim: usize,
}

/// `2^x` for x ≤ 0 by a polynomial in the fraction, relative error 3e-6 (`p` of degree 4) or 2e-7 (degree 7); 0 below -126.
#[inline(always)]
fn exp2<const N: usize>(x: f32, p: &[f32; N]) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const MAGIC: f32 = 12_582_912.0;
    let clamped = if x < -126.0 { -126.0 } else { x };
    let shifted = clamped + MAGIC;
    let f = clamped - (shifted - MAGIC);
    let mut sum = p[N - 1];
    for c in p[..N - 1].iter().rev() {
        sum = sum * f + c;
    }
    // The integer is in the lowest bits of the shifted number; its higher bits leave the word.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -126.0 { 0.0 } else { sum * power }
}

/// Minimax polynomial of `2^f` for |f| ≤ 1/2, relative error 2.6e-6.
const EXP2_LOW: [f32; 5] = [
    0.999_999_3,
    0.693_121_8,
    0.240_247_46,
    0.055_917_91,
    0.009_570_04,
];
/// Taylor polynomial of `2^f`, `(f ln 2)^i / i!`; the remainder for |f| ≤ 1/2 is 5e-9.
const EXP2_HIGH: [f32; 8] = [
    1.0,
    std::f32::consts::LN_2,
    0.240_226_5,
    0.055_504_11,
    0.009_618_13,
    0.001_333_355_8,
    1.540_353e-4,
    1.525_273e-5,
];

/// GELU with `Φ(x) - 1/2 = x P(x²)`, absolute error of Φ 7e-6 for |x| ≤ 4; beyond, Φ is 0 or 1 (off by 3e-5 at most).
#[inline(always)]
fn gelu_low(x: f32) -> f32 {
    const P: [f32; 9] = [
        0.398_881,
        -0.066_323_63,
        0.009_815_799,
        -0.001_112_855_4,
        9.494_012e-5,
        -5.860_584e-6,
        2.440_834_5e-7,
        -6.066_868_5e-9,
        6.740_339e-11,
    ];
    let square = x * x;
    let mut sum = P[8];
    for c in P[..8].iter().rev() {
        sum = sum * square + c;
    }
    let inside = x * (x * sum + 0.5);
    let outside = if x > 0.0 { x } else { 0.0 };
    // The comparison is false for NaN, which `inside` propagates.
    if square > 16.0 { outside } else { inside }
}

/// GELU with `erfc(z) = exp(-z²) Q(1 / (1 + 0.4 z))`, Q of degree eight; absolute error of Φ below 4e-7.
#[inline(always)]
fn gelu_high(x: f32) -> f32 {
    const Q: [f32; 8] = [
        0.225_833_6,
        0.229_150_98,
        0.164_593_17,
        0.363_386_46,
        -0.327_295_62,
        0.658_289_4,
        -0.387_892_7,
        0.073_934_734,
    ];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.4 * z);
    let mut q = Q[7];
    for c in Q[..7].iter().rev() {
        q = q * t + c;
    }
    let gauss = exp2(-z * z * LOG2_E, &EXP2_HIGH);
    let tail = 0.5 * q * t * gauss;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    x * cdf
}

/// Running values of a reduction: several of them let the operations overlap and vectorize. The order of a sum is that of the lanes in every
/// instruction set.
const LANES: usize = 16;

/// Calls `block(first, length)` for blocks of 16 elements and then for single ones. In a call with 16 the length is a constant, so that its loops become vector
/// instructions; a loop of unknown length has several vectors per round and leaves up to 63 elements to scalar instructions.
#[inline(always)]
fn blocks(len: usize, mut block: impl FnMut(usize, usize)) {
    let whole = len / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        block(first, LANES);
    }
    for first in whole..len {
        block(first, 1);
    }
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in row.chunks_exact(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, larger)
}

macro_rules! activation {
    ($element:ty, $store:ident, $geglu:ident, $softmax:ident, $gelu:ident, $exp2:ident, $round:expr, $wide:expr, $rotate:ident, $scale:ident, $dot:ident, $gradients:ident, $transposed:ident, $unrotate:ident) => {
        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        unsafe fn $store(tile: &TileValues, to: &TileMut<$element>) {
            for (row, tile) in tile.chunks_exact(PANEL).take(to.rows).enumerate() {
                // SAFETY: the caller's promise.
                let to = unsafe { to.row(row) };
                if let Ok(to) = <&mut [$element; PANEL]>::try_from(&mut *to) {
                    for (to, x) in to.iter_mut().zip(tile) {
                        *to = $round(*x);
                    }
                } else {
                    for (to, x) in to.iter_mut().zip(tile) {
                        *to = $round(*x);
                    }
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        unsafe fn $geglu(tile: &TileValues, to: &TileMut<$element>) {
            for (row, tile) in tile.chunks_exact(PANEL).take(to.rows).enumerate() {
                let mut out = [$round(0.0f32); PANEL / 2];
                for ((out, x), gate) in out
                    .iter_mut()
                    .zip(&tile[..PANEL / 2])
                    .zip(&tile[PANEL / 2..])
                {
                    *out = $round($gelu(*x) * gate);
                }
                // SAFETY: the caller's promise.
                let to = unsafe { to.row(row) };
                match <&mut [$element; PANEL / 2]>::try_from(&mut *to) {
                    Ok(to) => *to = out,
                    Err(_) => to.copy_from_slice(&out[..to.len()]),
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $softmax(
            scores: &[f32],
            stride: usize,
            width: usize,
            rows: usize,
            state: &mut OnlineSoftmax,
            to: &mut [$element],
        ) {
            for row in 0..rows {
                let scores = &scores[row * stride..][..width];
                let to = &mut to[row * stride..][..width];
                let before = state.max[row];
                let found = largest(scores);
                let max = if found > before { found } else { before };
                // A query without a visible key so far: subtracting minus infinity would give NaN.
                let shift = if max == f32::NEG_INFINITY { 0.0 } else { max };
                let mut lanes = [0.0f32; LANES];
                for (scores, to) in scores.chunks_exact(LANES).zip(to.chunks_exact_mut(LANES)) {
                    for ((lane, score), to) in lanes.iter_mut().zip(scores).zip(to) {
                        let p = exp2((*score - shift) * LOG2_E, &$exp2);
                        *lane += p;
                        *to = $round(p);
                    }
                }
                let shrink = exp2((before - shift) * LOG2_E, &$exp2);
                state.shrink[row] = shrink;
                state.sum[row] = state.sum[row] * shrink + lanes.iter().sum::<f32>();
                state.max[row] = max;
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $rotate(
            x: HeadRows<'_, $element>,
            table: &[f32],
            factor: f32,
            to: &mut [$element],
            to_stride: usize,
        ) {
            let (dim, half) = (x.dim, x.dim / 2);
            for row in 0..x.rows {
                let from = &x.values[row * x.stride..][..dim];
                let to = &mut to[row * to_stride..][..dim];
                if table.is_empty() && factor == 1.0 {
                    to.copy_from_slice(from);
                    continue;
                }
                if table.is_empty() {
                    for (to, x) in to.iter_mut().zip(from) {
                        *to = $round($wide(*x) * factor);
                    }
                    continue;
                }
                let (cos, sin) = table[row * dim..][..dim].split_at(half);
                let (a, b) = from.split_at(half);
                let (left, right) = to.split_at_mut(half);
                blocks(half, |d, block| {
                    let mut out = [[$round(0.0f32); LANES]; 2];
                    let (a, b) = (&a[d..d + block], &b[d..d + block]);
                    let (cos, sin) = (&cos[d..d + block], &sin[d..d + block]);
                    for i in 0..block {
                        let (a, b) = ($wide(a[i]), $wide(b[i]));
                        out[0][i] = $round((a * cos[i] - b * sin[i]) * factor);
                        out[1][i] = $round((b * cos[i] + a * sin[i]) * factor);
                    }
                    left[d..d + block].copy_from_slice(&out[0][..block]);
                    right[d..d + block].copy_from_slice(&out[1][..block]);
                });
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $scale(row: &[f32], factor: f32, to: &mut [$element]) {
            for (to, x) in to.iter_mut().zip(row) {
                *to = $round(x * factor);
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $dot(a: &[$element], b: &[$element]) -> f32 {
            let mut lanes = [0.0f32; LANES];
            let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let rest = left.remainder().iter().zip(right.remainder());
            let rest: f32 = rest.map(|(a, b)| $wide(*a) * $wide(*b)).sum();
            for (a, b) in left.zip(right) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += $wide(*a) * $wide(*b);
                }
            }
            lanes.iter().sum::<f32>() + rest
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $gradients(rows: ScoreRows<'_>, d_s: &mut [$element]) {
            let of_rows = rows.scores.chunks_exact(rows.width);
            let of_rows = of_rows.zip(rows.d_p.chunks_exact(rows.width));
            let of_rows = of_rows.zip(d_s.chunks_exact_mut(rows.width));
            let of_queries = rows.lse.iter().zip(rows.delta);
            for (((scores, d_p), d_s), (lse, delta)) in of_rows.zip(of_queries) {
                let blocks = scores.chunks_exact(LANES).zip(d_p.chunks_exact(LANES));
                for ((scores, d_p), d_s) in blocks.zip(d_s.chunks_exact_mut(LANES)) {
                    for ((score, d_p), d_s) in scores.iter().zip(d_p).zip(d_s) {
                        *d_s = $round(exp2((*score - lse) * LOG2_E, &$exp2) * (d_p - delta));
                    }
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $transposed(rows: ScoreRows<'_>, p: &mut [$element], d_s: &mut [$element]) {
            let width = rows.width;
            let (lse, delta) = (&rows.lse[..width], &rows.delta[..width]);
            let of_rows = rows.scores.chunks_exact(width);
            let of_rows = of_rows.zip(rows.d_p.chunks_exact(width));
            let of_rows = of_rows.zip(p.chunks_exact_mut(width).zip(d_s.chunks_exact_mut(width)));
            for ((scores, d_p), (p, d_s)) in of_rows {
                for first in (0..width).step_by(LANES) {
                    let (lse, delta) = (&lse[first..][..LANES], &delta[first..][..LANES]);
                    let (scores, d_p) = (&scores[first..][..LANES], &d_p[first..][..LANES]);
                    let (p, d_s) = (&mut p[first..][..LANES], &mut d_s[first..][..LANES]);
                    for i in 0..LANES {
                        let probability = exp2((scores[i] - lse[i]) * LOG2_E, &$exp2);
                        p[i] = $round(probability);
                        d_s[i] = $round(probability * (d_p[i] - delta[i]));
                    }
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        unsafe fn $unrotate(
            sums: &[f32],
            stride: usize,
            table: &[f32],
            factor: f32,
            to: &TileMut<$element>,
        ) {
            let (dim, half) = (to.width, to.width / 2);
            for (i, row) in sums.chunks_exact(stride).take(to.rows).enumerate() {
                // SAFETY: the caller's promise.
                let to = unsafe { to.row(i) };
                if table.is_empty() {
                    for (to, x) in to.iter_mut().zip(row) {
                        *to = $round(x * factor);
                    }
                    continue;
                }
                let (cos, sin) = table[i * dim..][..dim].split_at(half);
                let (a, b) = row[..dim].split_at(half);
                let (left, right) = to.split_at_mut(half);
                blocks(half, |d, block| {
                    let mut out = [[$round(0.0f32); LANES]; 2];
                    let (a, b) = (&a[d..d + block], &b[d..d + block]);
                    let (cos, sin) = (&cos[d..d + block], &sin[d..d + block]);
                    for i in 0..block {
                        out[0][i] = $round((a[i] * cos[i] + b[i] * sin[i]) * factor);
                        out[1][i] = $round((b[i] * cos[i] - a[i] * sin[i]) * factor);
                    }
                    left[d..d + block].copy_from_slice(&out[0][..block]);
                    right[d..d + block].copy_from_slice(&out[1][..block]);
                });
            }
        }

        impl OperandDtype for $element {
            unsafe fn store_unrotated(
                sums: &[f32],
                stride: usize,
                table: &[f32],
                factor: f32,
                to: &TileMut<Self>,
            ) {
                // SAFETY: the caller's promise.
                unsafe { $unrotate(sums, stride, table, factor, to) }
            }

            fn dot(a: &[Self], b: &[Self]) -> f32 {
                $dot(a, b)
            }

            fn score_gradients(rows: ScoreRows<'_>, d_s: &mut [Self]) {
                $gradients(rows, d_s);
            }

            fn transposed_score_gradients(rows: ScoreRows<'_>, p: &mut [Self], d_s: &mut [Self]) {
                $transposed(rows, p, d_s);
            }

            fn rotate(
                x: HeadRows<'_, Self>,
                table: &[f32],
                factor: f32,
                to: &mut [Self],
                to_stride: usize,
            ) {
                $rotate(x, table, factor, to, to_stride);
            }

            fn scale(row: &[f32], factor: f32, to: &mut [Self]) {
                $scale(row, factor, to);
            }

            unsafe fn store(tile: &TileValues, to: &TileMut<Self>) {
                // SAFETY: the caller's promise.
                unsafe { $store(tile, to) }
            }

            unsafe fn store_geglu(tile: &TileValues, to: &TileMut<Self>) {
                // SAFETY: the caller's promise.
                unsafe { $geglu(tile, to) }
            }

            fn softmax(
                scores: &[f32],
                stride: usize,
                width: usize,
                rows: usize,
                state: &mut OnlineSoftmax,
                to: &mut [Self],
            ) {
                $softmax(scores, stride, width, rows, state, to);
            }
        }
    };
}

activation!(
    f32,
    store_f32,
    geglu_f32,
    softmax_f32,
    gelu_high,
    EXP2_HIGH,
    std::convert::identity,
    std::convert::identity,
    rotate_f32,
    scale_f32,
    dot_f32,
    score_gradients_f32,
    transposed_score_gradients_f32,
    unrotate_f32
);
activation!(
    bf16,
    store_bf16,
    geglu_bf16,
    softmax_bf16,
    gelu_low,
    EXP2_LOW,
    cpu_gemm::element::to_bf16,
    wide,
    rotate_bf16,
    scale_bf16,
    dot_bf16,
    score_gradients_bf16,
    transposed_score_gradients_bf16,
    unrotate_bf16
);

/// A bf16 in f32, without branches, so that loops over it are vectorized.
#[inline(always)]
fn wide(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Adds a tile to a matrix of f32.
///
/// # Safety
/// As [`OperandDtype::store`].
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) unsafe fn add_tile(tile: &TileValues, to: &TileMut<f32>) {
    for (row, tile) in tile.chunks_exact(PANEL).take(to.rows).enumerate() {
        // SAFETY: the caller's promise.
        let to = unsafe { to.row(row) };
        if let Ok(to) = <&mut [f32; PANEL]>::try_from(&mut *to) {
            for (to, x) in to.iter_mut().zip(tile) {
                *to += x;
            }
        } else {
            for (to, x) in to.iter_mut().zip(tile) {
                *to += x;
            }
        }
    }
}

/// Sums of i8 products to f32: times the row's and the column's scale.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn scale_tile(
    sums: &[i32; ROWS * PANEL],
    row_scales: &[f32],
    column_scales: &[f32],
    to: &mut TileValues,
) {
    for ((sums, to), scale) in sums
        .chunks_exact(PANEL)
        .zip(to.chunks_exact_mut(PANEL))
        .zip(row_scales)
    {
        for ((to, sum), column) in to.iter_mut().zip(sums).zip(column_scales) {
            *to = *sum as f32 * (scale * column);
        }
    }
}

/// Adds the products of a row's second code to the row of a tile: see [`quantize`].
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn add_scaled_row(sums: &[i32], scale: f32, column_scales: &[f32], to: &mut [f32]) {
    for ((to, sum), column) in to.iter_mut().zip(sums).zip(column_scales) {
        *to += *sum as f32 * (scale * column);
    }
}

/// Ratio of a row's largest magnitude to its root mean square above which the row gets a second code.
///
/// The value follows from the rounding error, not from a measurement. A code has steps of `largest / 127`, so the root mean square of the error is
/// `largest / (127 √12)`: 0.7 to 0.9 % of the row's root mean square at the ratios of normally distributed rows (3 to 4), 2.7 % at 12. A lower value
/// gives more rows a second GEMM, a higher one larger errors. The accuracies in docs/cpu.md are those of this value; no other was measured.
const OUTLIER: f32 = 12.0;

/// Quantizes a row to bytes with a scale. Where one value is far beyond the others, the rounding errors are quantized to a second code, whose steps are
/// 254 times finer. Returns both scales; the second scale is 0 without a second code. `rest` is as long as the row.
pub(crate) fn quantize(
    row: &[f32],
    codes: &mut [i8],
    more: &mut [i8],
    rest: &mut [f32],
) -> [f32; 2] {
    let scale = quantize_row(row, codes);
    // False for a row that is not finite.
    let has_outlier = scale * 127.0 > OUTLIER * root_mean_square(row);
    if !has_outlier {
        return [scale, 0.0];
    }
    subtract_code(row, codes, scale, rest);
    [scale, quantize_row(rest, more)]
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn root_mean_square(row: &[f32]) -> f32 {
    let whole = row.len() / LANES * LANES;
    let mut lanes = [0.0f32; LANES];
    for chunk in row[..whole].chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x * x;
        }
    }
    let tail: f32 = row[whole..].iter().map(|x| x * x).sum();
    ((lanes.iter().sum::<f32>() + tail) / row.len() as f32).sqrt()
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn subtract_code(row: &[f32], codes: &[i8], scale: f32, rest: &mut [f32]) {
    for ((rest, x), code) in rest.iter_mut().zip(row).zip(codes) {
        *rest = x - scale * f32::from(*code);
    }
}

/// LayerNorm without bias of one row, in f32.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2", "x86_64+avx2"))]
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let whole = x.len() / LANES * LANES;
    let mut lanes = [0.0f32; LANES];
    for chunk in x[..whole].chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    let mean = (lanes.iter().sum::<f32>() + x[whole..].iter().sum::<f32>()) / n;
    let mut lanes = [0.0f32; LANES];
    for chunk in x[..whole].chunks_exact(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += (x - mean) * (x - mean);
        }
    }
    let tail: f32 = x[whole..].iter().map(|x| (x - mean) * (x - mean)).sum();
    let variance = (lanes.iter().sum::<f32>() + tail) / n;
    let inverse = 1.0 / (variance + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = (x - mean) * inverse * weight;
    }
}

/// Bounds scores to ±`cap`, `cap tanh(score / cap)`; writes the derivative of the bound to `slopes`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn cap_scores(scores: &mut [f32], cap: f32, slopes: Option<&mut [f32]>) {
    let inverse = 1.0 / cap;
    if let Some(slopes) = slopes {
        for (slope, score) in slopes.iter_mut().zip(scores.iter()) {
            let tanh = tanh(score * inverse);
            *slope = 1.0 - tanh * tanh;
        }
    }
    for score in scores {
        *score = cap * tanh(*score * inverse);
    }
}

/// Hyperbolic tangent, absolute error 3e-7; a series near 0, where the quotient would lose digits.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let power = exp2(-2.0 * LOG2_E * size, &EXP2_HIGH);
    let quotient = (1.0 - power) / (1.0 + power);
    let square = x * x;
    let series = size * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0)));
    let value = if size < 0.05 { series } else { quotient };
    if x < 0.0 { -value } else { value }
}

/// `sum = sum * shrink + added` for rows of 32-column tiles side by side.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn accumulate(
    sums: &mut [f32],
    added: &[f32],
    stride: usize,
    rows: usize,
    shrink: &[f32; ROWS],
) {
    for ((sum, added), shrink) in sums
        .chunks_exact_mut(stride)
        .zip(added.chunks_exact(stride))
        .zip(shrink)
        .take(rows)
    {
        for (sum, added) in sum.iter_mut().zip(added) {
            *sum = *sum * shrink + added;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Φ(x)` by Simpson's rule over the density.
    fn normal(x: f64) -> f64 {
        let (steps, density) = (2000, |t: f64| {
            (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt()
        });
        let h = x / f64::from(steps);
        let inner: f64 = (1..steps)
            .map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 })
            .sum();
        0.5 + (density(0.0) + inner + density(x)) * h / 3.0
    }

    #[test]
    fn gelu_is_that_of_the_normal_distribution() {
        for i in -900..900 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x) * normal(f64::from(x));
            let high = (f64::from(gelu_high(x)) - exact).abs();
            assert!(
                high <= 5e-7 * (1.0 + f64::from(x.abs())),
                "gelu_high({x}) is off by {high:e}"
            );
            let low = (f64::from(gelu_low(x)) - exact).abs();
            assert!(low <= 1.5e-4, "gelu_low({x}) is off by {low:e}");
        }
        assert!(gelu_low(f32::NAN).is_nan() && gelu_high(f32::NAN).is_nan());
        assert_eq!(gelu_low(f32::INFINITY), f32::INFINITY);
    }

    #[test]
    fn a_row_with_an_outlier_has_a_second_code() {
        let mut row: Vec<f32> = (0..768)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0)
            .collect();
        let (mut codes, mut more, mut rest) = (vec![0; 768], vec![0; 768], vec![0.0; 768]);
        assert_eq!(quantize(&row, &mut codes, &mut more, &mut rest)[1], 0.0);
        row[100] = 500.0;
        let scales = quantize(&row, &mut codes, &mut more, &mut rest);
        for ((x, code), more) in row.iter().zip(&codes).zip(&more) {
            let found = scales[0] * f32::from(*code) + scales[1] * f32::from(*more);
            // Half a step of the first code is 2, of the second 0.008.
            assert!((x - found).abs() < 0.009, "{x}: {found}");
        }
    }

    #[test]
    fn powers_of_two_have_small_relative_errors() {
        for i in 0..125_000 {
            let x = -(i as f32) / 1000.0;
            let exact = f64::from(x).exp2();
            let error = |y: f32| (f64::from(y) - exact).abs() / exact;
            assert!(error(exp2(x, &EXP2_HIGH)) < 2e-7, "2^{x}");
            assert!(error(exp2(x, &EXP2_LOW)) < 3e-6, "2^{x}");
        }
        assert_eq!(exp2(f32::NEG_INFINITY, &EXP2_LOW), 0.0);
        assert!(exp2(f32::NAN, &EXP2_LOW).is_nan());
    }
}
