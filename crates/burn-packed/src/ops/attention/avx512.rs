//! The forward pass of CPU attention for processors with AVX-512.
//!
//! A vector lane is a query, and a tile is 32 queries. Scores of a tile are stored transposed, `[keys, 32]`: the maximum, the
//! exponentials and the sum of the softmax need no operation across lanes, and the probabilities have the layout of the
//! second GEMM's left operand. Keys are processed in chunks whose scores fit the L1 cache; an online softmax (running maximum
//! and sum) joins the chunks, so that memory doesn't grow with the length.
//!
//! The order of every sum depends on the sequence alone: results are batch-invariant.

use std::arch::x86_64::*;
use std::ops::Range;

use super::AttentionSpec;

/// Queries of a tile: two vectors.
const TILE: usize = 32;
/// Keys whose scores are computed at once: their sums take 24 of the 32 vector registers.
const KEYS: usize = 12;
/// Output columns computed at once.
const COLUMNS: usize = 8;
/// Keys of a chunk, a multiple of [`KEYS`]: 30 KiB of scores.
const CHUNK: usize = 240;

/// Inputs and outputs of one head of one sequence.
pub(super) struct Head<'a> {
    /// q of the sequence's first token; element `(token, d)` is at `token * stride + d`.
    pub(super) q: &'a [f32],
    /// k in the same way.
    pub(super) k: &'a [f32],
    /// v in the same way.
    pub(super) v: &'a [f32],
    pub(super) stride: usize,
    pub(super) length: usize,
    pub(super) dim: usize,
    /// The rotary table, `[positions, dim]`.
    pub(super) rotary: &'a [f32],
    /// First output element of the sequence and head, rows `out_stride` apart.
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
    /// Log-sum-exp of the sequence's tokens, one after the other.
    pub(super) lse: *mut f32,
}

/// Returns whether [`forward`] supports this head size and spec on this processor.
pub(super) fn serves(dim: usize, spec: &AttentionSpec) -> bool {
    dim > 0
        && dim.is_multiple_of(16)
        && spec.softcap.is_none()
        && is_x86_feature_detected!("avx512f")
}

/// Attention of one head of one sequence.
///
/// # Safety
/// [`serves`] must have returned true; `q`, `k`, `v` and the table must hold `length` rows; `out` and `lse` must be valid for `length` rows
/// that no other thread accesses.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn forward(head: &Head, spec: &AttentionSpec) {
    let (length, dim) = (head.length, head.dim);
    // The first GEMM reads whole groups of keys: zeros follow the last key.
    let mut keys = vec![0.0f32; (length + KEYS) * dim];
    for (i, row) in keys.chunks_exact_mut(dim).take(length).enumerate() {
        head.copy_row(head.k, i, spec.rope, row);
    }
    let mut rows = vec![0.0f32; TILE * dim];
    let mut queries = vec![0.0f32; TILE * dim];
    let mut sums = vec![0.0f32; TILE * dim];
    let mut scores = vec![0.0f32; CHUNK * TILE];
    for block in spec.blocks(length, TILE) {
        let first = block.queries.start;
        let count = block.queries.len();
        rows[count * dim..].fill(0.0);
        for (row, i) in rows.chunks_exact_mut(dim).zip(block.queries.clone()) {
            head.copy_row(head.q, i, spec.rope, row);
            row.iter_mut().for_each(|x| *x *= spec.scale as f32);
        }
        for half in (0..TILE).step_by(16) {
            for d in (0..dim).step_by(16) {
                // SAFETY: `rows` is [32, dim] and `queries` [dim, 32]; every block of 16 by 16 is inside both.
                unsafe {
                    transpose(
                        rows.as_ptr().add(half * dim + d),
                        dim,
                        queries.as_mut_ptr().add(d * TILE + half),
                        TILE,
                        [_mm512_set1_ps(1.0); 16],
                        16,
                    );
                }
            }
        }
        let mut max = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
        let mut sum = [_mm512_setzero_ps(); 2];
        for start in block.keys.clone().step_by(CHUNK) {
            let chunk = start..(start + CHUNK).min(block.keys.end);
            for key in (0..chunk.len()).step_by(KEYS) {
                // SAFETY: `keys` holds at least KEYS rows from every key of the sequence on, and `scores` a whole number of groups.
                unsafe {
                    multiply::<KEYS>(
                        dim,
                        queries.as_ptr(),
                        keys.as_ptr().add((start + key) * dim),
                        (dim, 1),
                        scores.as_mut_ptr().add(key * TILE),
                        false,
                    );
                }
            }
            if spec.half_window.is_some() {
                for (row, key) in scores.chunks_exact_mut(TILE).zip(chunk.clone()) {
                    // The window is symmetric: key `key` is seen by the queries at the positions that query `key` sees.
                    hide(row, &spec.visible(key..key + 1, length), first);
                }
            }
            let seen = &mut scores[..chunk.len() * TILE];
            let shrink = softmax(seen, &mut max, &mut sum);
            if start > block.keys.start {
                for row in sums.chunks_exact_mut(TILE) {
                    for (half, factor) in row.chunks_exact_mut(16).zip(shrink) {
                        // SAFETY: `half` holds 16 elements.
                        unsafe {
                            let x = _mm512_loadu_ps(half.as_ptr());
                            _mm512_storeu_ps(half.as_mut_ptr(), _mm512_mul_ps(x, factor));
                        }
                    }
                }
            }
            for d in (0..dim).step_by(COLUMNS) {
                // SAFETY: v holds `dim` elements, a multiple of COLUMNS, for every key of the chunk; `sums` is [dim, 32].
                unsafe {
                    multiply::<COLUMNS>(
                        chunk.len(),
                        scores.as_ptr(),
                        head.v[start * head.stride..].as_ptr().add(d),
                        (1, head.stride),
                        sums.as_mut_ptr().add(d * TILE),
                        start > block.keys.start,
                    );
                }
            }
        }
        let (mut maxima, mut totals) = ([0.0f32; TILE], [0.0f32; TILE]);
        for half in 0..2 {
            // SAFETY: both arrays hold 32 elements.
            unsafe {
                _mm512_storeu_ps(maxima.as_mut_ptr().add(half * 16), max[half]);
                _mm512_storeu_ps(totals.as_mut_ptr().add(half * 16), sum[half]);
            }
        }
        for i in 0..count {
            // SAFETY: `first + i` is below the length, for which the caller guarantees `lse` to be valid.
            unsafe { *head.lse.add(first + i) = maxima[i] + totals[i].ln() };
        }
        for half in (0..TILE).step_by(16).filter(|half| *half < count) {
            let factors = std::array::from_fn(|i| _mm512_set1_ps(1.0 / totals[half + i]));
            for d in (0..dim).step_by(16) {
                // SAFETY: at most `count - half` rows are written, all of them rows of this sequence and head.
                unsafe {
                    transpose(
                        sums.as_ptr().add(d * TILE + half),
                        TILE,
                        head.out.add((first + half) * head.out_stride + d),
                        head.out_stride,
                        factors,
                        (count - half).min(16),
                    );
                }
            }
        }
    }
}

impl Head<'_> {
    /// Copies row `i` of q or k, with RoPE applied if `rope`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn copy_row(&self, part: &[f32], i: usize, rope: bool, target: &mut [f32]) {
        let source = &part[i * self.stride..][..self.dim];
        if !rope {
            target.copy_from_slice(source);
            return;
        }
        let half = self.dim / 2;
        let (cos, sin) = self.rotary[i * self.dim..][..2 * half].split_at(half);
        let (a, b) = source.split_at(half);
        let (left, right) = target.split_at_mut(half);
        for d in 0..half {
            left[d] = a[d] * cos[d] - b[d] * sin[d];
            right[d] = b[d] * cos[d] + a[d] * sin[d];
        }
    }
}

/// Hides a key from the queries of the tile (which begins at query `first`) that are not among `queries`.
#[inline]
#[target_feature(enable = "avx512f")]
fn hide(row: &mut [f32], queries: &Range<usize>, first: usize) {
    let low = queries.start.saturating_sub(first).min(TILE);
    let high = queries.end.saturating_sub(first).min(TILE);
    row[..low].fill(f32::NEG_INFINITY);
    row[high..].fill(f32::NEG_INFINITY);
}

/// One step of the online softmax: replaces scores `[keys, 32]` by `exp(score - max)`, updates maximum and sum, and returns the
/// factor for the sums over earlier chunks.
#[inline]
#[target_feature(enable = "avx512f")]
fn softmax(scores: &mut [f32], max: &mut [__m512; 2], sum: &mut [__m512; 2]) -> [__m512; 2] {
    let mut shrink = [_mm512_setzero_ps(); 2];
    for half in 0..2 {
        // SAFETY: `row` has 32 elements, of which 16 begin at `half * 16`, in each call below.
        let load = |row: &[f32]| unsafe { _mm512_loadu_ps(row.as_ptr().add(half * 16)) };
        // Four chains of comparisons and of additions, so that their latencies overlap; joined in a fixed order.
        let mut tops = [max[half]; 4];
        for (j, row) in scores.chunks_exact(TILE).enumerate() {
            tops[j % 4] = _mm512_max_ps(tops[j % 4], load(row));
        }
        let top = _mm512_max_ps(
            _mm512_max_ps(tops[0], tops[1]),
            _mm512_max_ps(tops[2], tops[3]),
        );
        // A query without a visible key so far has a maximum of minus infinity; subtracting that would give NaN.
        let hidden = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(top, _mm512_set1_ps(f32::NEG_INFINITY));
        let shift = _mm512_mask_mov_ps(top, hidden, _mm512_setzero_ps());
        shrink[half] = exp(_mm512_sub_ps(max[half], shift));
        let mut sums = [_mm512_setzero_ps(); 4];
        for (j, row) in scores.chunks_exact_mut(TILE).enumerate() {
            let p = exp(_mm512_sub_ps(load(row), shift));
            sums[j % 4] = _mm512_add_ps(sums[j % 4], p);
            // SAFETY: `row` has 32 elements, of which 16 begin at `half * 16`.
            unsafe { _mm512_storeu_ps(row.as_mut_ptr().add(half * 16), p) };
        }
        let added = _mm512_add_ps(
            _mm512_add_ps(sums[0], sums[1]),
            _mm512_add_ps(sums[2], sums[3]),
        );
        sum[half] = _mm512_fmadd_ps(sum[half], shrink[half], added);
        max[half] = top;
    }
    shrink
}

/// `exp(x)` for x ≤ 0 in every lane, by the method of [`crate::ops::simd::exp`]; 0 below -87.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    let low = _mm512_set1_ps(-87.0);
    let tiny = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, low);
    // This order of operands propagates NaN.
    let x = _mm512_max_ps(low, x);
    let n = _mm512_roundscale_ps::<0>(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)));
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), r);
    let mut p = _mm512_set1_ps(1.0 / 5040.0);
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
    }
    _mm512_mask_mov_ps(_mm512_scalef_ps(p, n), tiny, _mm512_setzero_ps())
}

/// `target[j, lane] (+)= sum over i below depth of left[i, lane] * right[j * strides.0 + i * strides.1]` for N values of j and 32 lanes.
///
/// # Safety
/// `left` must hold `[depth, 32]`, `target` `[N, 32]` and `right` every element that the strides reach.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiply<const N: usize>(
    depth: usize,
    left: *const f32,
    right: *const f32,
    strides: (usize, usize),
    target: *mut f32,
    accumulate: bool,
) {
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    for i in 0..depth {
        // SAFETY: the caller guarantees these elements.
        unsafe {
            let a = [
                _mm512_loadu_ps(left.add(i * TILE)),
                _mm512_loadu_ps(left.add(i * TILE + 16)),
            ];
            let right = right.add(i * strides.1);
            for (j, sum) in sums.iter_mut().enumerate() {
                let b = _mm512_set1_ps(*right.add(j * strides.0));
                sum[0] = _mm512_fmadd_ps(a[0], b, sum[0]);
                sum[1] = _mm512_fmadd_ps(a[1], b, sum[1]);
            }
        }
    }
    for (j, sum) in sums.iter().enumerate() {
        for (half, &sum) in sum.iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                let place = target.add(j * TILE + half * 16);
                let sum = if accumulate {
                    _mm512_add_ps(_mm512_loadu_ps(place), sum)
                } else {
                    sum
                };
                _mm512_storeu_ps(place, sum);
            }
        }
    }
}

/// Writes the first `rows` rows of the transpose of a 16 by 16 block, each times its factor.
///
/// # Safety
/// All rows of `source` and the first `rows` of `target` must be valid for 16 elements.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transpose(
    source: *const f32,
    source_stride: usize,
    target: *mut f32,
    target_stride: usize,
    factors: [__m512; 16],
    rows: usize,
) {
    // SAFETY: the caller guarantees 16 elements in each row.
    let x: [__m512; 16] =
        std::array::from_fn(|i| unsafe { _mm512_loadu_ps(source.add(i * source_stride)) });
    // Pairs of rows, then groups of four, within the four quarters of each vector ...
    let mut quads = [_mm512_setzero_ps(); 16];
    for group in 0..4 {
        let [a, b, c, d] = [
            x[group * 4],
            x[group * 4 + 1],
            x[group * 4 + 2],
            x[group * 4 + 3],
        ];
        let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        quads[group * 4] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
        quads[group * 4 + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
        quads[group * 4 + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
        quads[group * 4 + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
    }
    // ... then the quarters. `quads[4g + c]` holds column 4q + c of rows 4g..4g+4 in quarter q.
    for c in 0..4 {
        let [a, b, d, e] = [quads[c], quads[4 + c], quads[8 + c], quads[12 + c]];
        let ab_low = _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b);
        let ab_high = _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b);
        let de_low = _mm512_shuffle_f32x4::<0b01_00_01_00>(d, e);
        let de_high = _mm512_shuffle_f32x4::<0b11_10_11_10>(d, e);
        let columns = [
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_low, de_low),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_low, de_low),
            _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_high, de_high),
            _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_high, de_high),
        ];
        for (quarter, column) in columns.into_iter().enumerate() {
            let row = quarter * 4 + c;
            if row < rows {
                // SAFETY: the caller guarantees the first `rows` rows of `target`.
                unsafe {
                    _mm512_storeu_ps(
                        target.add(row * target_stride),
                        _mm512_mul_ps(column, factors[row]),
                    );
                }
            }
        }
    }
}
