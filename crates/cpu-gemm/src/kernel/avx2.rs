//! AVX2 with FMA: 4 rows by 16 columns of a result in 8 registers.

use std::arch::x86_64::*;

use half::bf16;

use super::MicrokernelArgs;
use crate::element::Element;
use crate::pack::Panel;

/// Rows of one pass over a half of a panel. In i8 four rows have 16 accumulators, the number of registers of AVX2; in f32 and bf16 they have 8.
const BLOCK: usize = 4;

/// Splits the rows of a tile into blocks of 4 and the rest, and the panel into its two halves of 16 columns.
macro_rules! by_rows {
    ($name:ident, $kernel:ident, $element:ty) => {
        /// # Safety
        /// As [`super::Multiply::tile`].
        pub(super) unsafe fn $name(tile: MicrokernelArgs<$element>, panel: Panel<'_, $element>) {
            for half in 0..2 {
                let mut first = 0;
                while first < tile.rows {
                    let rows = (tile.rows - first).min(BLOCK);
                    let block = MicrokernelArgs {
                        left: tile.left.wrapping_add(first * tile.left_stride),
                        to: tile.to.wrapping_add(first * tile.to_stride + half * 16),
                        rows,
                        ..tile
                    };
                    // SAFETY: rows and columns of the caller's tile.
                    unsafe {
                        match rows {
                            1 => $kernel::<1>(block, panel, half),
                            2 => $kernel::<2>(block, panel, half),
                            3 => $kernel::<3>(block, panel, half),
                            _ => $kernel::<4>(block, panel, half),
                        }
                    }
                    first += rows;
                }
            }
        }
    };
}

by_rows!(f32_tile, f32_rows, f32);
by_rows!(bf16_tile, bf16_rows, bf16);
by_rows!(i8_tile, i8_rows, i8);

/// # Safety
/// As [`super::Multiply::tile`], with `N` rows and the 16 columns of a half.
#[target_feature(enable = "avx2,fma")]
unsafe fn f32_rows<const N: usize>(tile: MicrokernelArgs<f32>, panel: Panel<'_, f32>, half: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let (mut left, mut right) = (tile.left, panel.data.as_ptr().wrapping_add(half * 16));
    for _ in 0..panel.data.len() / 32 {
        // SAFETY: the caller guarantees N rows for all steps; a step of the panel is 32 floats.
        unsafe {
            let b = [_mm256_loadu_ps(right), _mm256_loadu_ps(right.add(8))];
            for (row, sum) in sums.iter_mut().enumerate() {
                let a = _mm256_set1_ps(*left.add(row * tile.left_stride));
                sum[0] = _mm256_fmadd_ps(a, b[0], sum[0]);
                sum[1] = _mm256_fmadd_ps(a, b[1], sum[1]);
            }
            left = left.wrapping_add(1);
            right = right.wrapping_add(32);
        }
    }
    // SAFETY: the caller guarantees the result's rows.
    unsafe { store(&sums, &tile) }
}

/// # Safety
/// N rows of 16 floats of the result are writable.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn store<const N: usize, E: Element<Sum = f32>>(
    sums: &[[__m256; 2]; N],
    tile: &MicrokernelArgs<E>,
) {
    for (row, sum) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(tile.to.add(row * tile.to_stride), sum[0]);
            _mm256_storeu_ps(tile.to.add(row * tile.to_stride + 8), sum[1]);
        }
    }
}

/// Calls `add(line, row, group)` for every group of 4 bytes of the left operand and the 64 bytes of the panel that belong to it.
///
/// # Safety
/// As [`super::Multiply::tile`], with `N` rows.
#[inline(always)]
unsafe fn groups<const N: usize, E: Element>(
    tile: &MicrokernelArgs<E>,
    panel: Panel<'_, E>,
    half: usize,
    mut add: impl FnMut(*const u8, usize, i32),
) {
    let stride = tile.left_stride * size_of::<E>();
    let (left, right) = (tile.left.cast::<u8>(), panel.data.as_ptr().cast::<u8>());
    for step in 0..size_of_val(panel.data) / 2048 {
        for line in 0..16 {
            // SAFETY: the caller guarantees the rows for all steps, and a step has 2 × 16 lines of 64 bytes.
            unsafe {
                let lines = right.add(step * 2048 + half * 1024 + line * 64);
                for row in 0..N {
                    let group = left.add(row * stride + step * 64 + line * 4).cast::<i32>();
                    add(lines, row, group.read_unaligned());
                }
            }
        }
    }
}

/// Pairs of bf16 widened to f32: the first of a pair is the lower half of its 32 bits.
///
/// # Safety
/// As [`f32_rows`].
#[target_feature(enable = "avx2,fma")]
unsafe fn bf16_rows<const N: usize>(
    tile: MicrokernelArgs<bf16>,
    panel: Panel<'_, bf16>,
    half: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let high_half = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    // SAFETY: the caller guarantees operands and result; the closure reads the 64 bytes it is given.
    unsafe {
        groups::<N, _>(&tile, panel, half, |line, row, group| {
            let first = _mm256_set1_ps(f32::from_bits((group as u32) << 16));
            let second = _mm256_set1_ps(f32::from_bits(group as u32 & 0xffff_0000));
            for (i, sum) in sums[row].iter_mut().enumerate() {
                let pairs = _mm256_loadu_si256(line.add(i * 32).cast());
                let b = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
                *sum = _mm256_fmadd_ps(first, b, *sum);
                let b = _mm256_castsi256_ps(_mm256_and_si256(pairs, high_half));
                *sum = _mm256_fmadd_ps(second, b, *sum);
            }
        });
        store(&sums, &tile);
    }
}

/// Quads of bytes widened to 16 bits; `VPMADDWD` sums pairs, which are added at the end.
///
/// # Safety
/// As [`f32_rows`].
#[target_feature(enable = "avx2,fma")]
unsafe fn i8_rows<const N: usize>(tile: MicrokernelArgs<i8>, panel: Panel<'_, i8>, half: usize) {
    // Each of four registers holds the pairs of 4 columns.
    let mut sums = [[_mm256_setzero_si256(); 4]; N];
    // SAFETY: as in `bf16_rows`.
    unsafe {
        groups::<N, _>(&tile, panel, half, |line, row, group| {
            let a = _mm256_cvtepi8_epi16(_mm_set1_epi32(group));
            for (i, sum) in sums[row].iter_mut().enumerate() {
                let quads = _mm_loadu_si128(line.add(i * 16).cast());
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, _mm256_cvtepi8_epi16(quads)));
            }
        });
    }
    for (row, sum) in sums.iter().enumerate() {
        for (i, sum) in sum.iter().enumerate() {
            // Adds the two pairs of a column, the halves of 64 bits; then takes the lower halves of the four columns.
            let both = _mm256_add_epi32(*sum, _mm256_srli_epi64::<32>(*sum));
            let order = _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0);
            let columns = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(both, order));
            // SAFETY: the caller guarantees the result's rows.
            unsafe { _mm_storeu_si128(tile.to.add(row * tile.to_stride + i * 4).cast(), columns) }
        }
    }
}
