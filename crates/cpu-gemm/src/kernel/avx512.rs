//! AVX-512: 12 rows by 32 columns of a result in 24 registers.

use std::arch::x86_64::*;

use half::bf16;

use super::MicrokernelArgs;
use crate::element::Element;
use crate::pack::Panel;

/// Rows of one pass over a panel: 24 accumulators, two registers of the panel and one broadcast.
const BLOCK: usize = 12;

/// Splits the rows of a tile into blocks of 12 and the rest, each with a kernel for its number of rows.
macro_rules! by_rows {
    ($name:ident, $kernel:ident, $element:ty) => {
        /// # Safety
        /// As [`super::Multiply::tile`].
        pub(super) unsafe fn $name(tile: MicrokernelArgs<$element>, panel: Panel<'_, $element>) {
            let mut first = 0;
            while first < tile.rows {
                let rows = (tile.rows - first).min(BLOCK);
                let block = MicrokernelArgs {
                    left: tile.left.wrapping_add(first * tile.left_stride),
                    to: tile.to.wrapping_add(first * tile.to_stride),
                    rows,
                    ..tile
                };
                // SAFETY: rows of the caller's tile.
                unsafe {
                    match rows {
                        1 => $kernel::<1>(block, panel),
                        2 => $kernel::<2>(block, panel),
                        3 => $kernel::<3>(block, panel),
                        4 => $kernel::<4>(block, panel),
                        5 => $kernel::<5>(block, panel),
                        6 => $kernel::<6>(block, panel),
                        7 => $kernel::<7>(block, panel),
                        8 => $kernel::<8>(block, panel),
                        9 => $kernel::<9>(block, panel),
                        10 => $kernel::<10>(block, panel),
                        11 => $kernel::<11>(block, panel),
                        _ => $kernel::<12>(block, panel),
                    }
                }
                first += rows;
            }
        }
    };
}

by_rows!(f32_tile, f32_rows, f32);
by_rows!(bf16_tile, bf16_rows, bf16);
by_rows!(widened_bf16_tile, widened_bf16_rows, bf16);
by_rows!(i8_tile, i8_rows, i8);
by_rows!(widened_i8_tile, widened_i8_rows, i8);

/// Bytes of a row of a tile of a panel, which one register holds.
const LINE: usize = 64;

/// # Safety
/// As [`super::Multiply::tile`], with `N` rows.
#[target_feature(enable = "avx512f")]
unsafe fn f32_rows<const N: usize>(tile: MicrokernelArgs<f32>, panel: Panel<'_, f32>) {
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    let (mut left, mut right) = (tile.left, panel.data.as_ptr());
    for _ in 0..panel.data.len() / 32 {
        // SAFETY: the caller guarantees N rows for all steps; a step of the panel is 32 floats.
        unsafe {
            let b = [_mm512_loadu_ps(right), _mm512_loadu_ps(right.add(16))];
            // 1024 floats are 4 KB, 32 steps ahead: measured to be faster than no prefetch where the panel comes from memory (docs/lab-log.md).
            _mm_prefetch::<_MM_HINT_T0>(right.wrapping_add(1024).cast());
            _mm_prefetch::<_MM_HINT_T0>(right.wrapping_add(1040).cast());
            for (row, sum) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*left.add(row * tile.left_stride));
                sum[0] = _mm512_fmadd_ps(a, b[0], sum[0]);
                sum[1] = _mm512_fmadd_ps(a, b[1], sum[1]);
            }
            left = left.add(1);
            right = right.add(32);
        }
    }
    // SAFETY: the caller guarantees the result's rows.
    unsafe { store(&sums, tile.to, tile.to_stride) }
}

/// # Safety
/// N rows of 32 floats from `to` on are writable.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<const N: usize>(sums: &[[__m512; 2]; N], to: *mut f32, stride: usize) {
    for (row, sum) in sums.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe {
            _mm512_storeu_ps(to.add(row * stride), sum[0]);
            _mm512_storeu_ps(to.add(row * stride + 16), sum[1]);
        }
    }
}

/// Calls `add(lines, row, group)` for every group of 4 bytes of the left operand and the two lines of the panel that belong to it. The steps of a
/// panel are two tiles of 16 lines.
///
/// # Safety
/// As [`super::Multiply::tile`], with `N` rows.
#[inline(always)]
unsafe fn groups<const N: usize, E: Element>(
    tile: &MicrokernelArgs<E>,
    panel: Panel<'_, E>,
    mut add: impl FnMut(*const u8, *const u8, usize, i32),
) {
    let (mut left, mut right) = (tile.left.cast::<u8>(), panel.data.as_ptr().cast::<u8>());
    let stride = tile.left_stride * size_of::<E>();
    for _ in 0..size_of_val(panel.data) / (32 * LINE) {
        for line in 0..16 {
            // SAFETY: the caller guarantees the rows for all steps, and a step has 2 × 16 lines.
            unsafe {
                let low = right.add(line * LINE);
                let high = low.add(16 * LINE);
                for row in 0..N {
                    let group = left.add(row * stride + line * 4).cast::<i32>();
                    add(low, high, row, group.read_unaligned());
                }
            }
        }
        // SAFETY: at most one past the end.
        unsafe {
            left = left.add(LINE);
            right = right.add(32 * LINE);
        }
    }
}

/// `VDPBF16PS`.
///
/// # Safety
/// As [`super::Multiply::tile`], with `N` rows.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_rows<const N: usize>(tile: MicrokernelArgs<bf16>, panel: Panel<'_, bf16>) {
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    // SAFETY: the caller guarantees operands and result; the closure reads the two lines it is given.
    unsafe {
        groups::<N, _>(&tile, panel, |low, high, row, group| {
            let a: __m512bh = std::mem::transmute(_mm512_set1_epi32(group));
            let b: [__m512bh; 2] = std::mem::transmute([
                _mm512_loadu_si512(low.cast()),
                _mm512_loadu_si512(high.cast()),
            ]);
            sums[row][0] = _mm512_dpbf16_ps(sums[row][0], a, b[0]);
            sums[row][1] = _mm512_dpbf16_ps(sums[row][1], a, b[1]);
        });
        store(&sums, tile.to, tile.to_stride);
    }
}

/// Pairs of bf16 widened to f32: the first of a pair is the lower half of its 32 bits.
///
/// # Safety
/// As [`super::Multiply::tile`], with `N` rows.
#[target_feature(enable = "avx512f")]
unsafe fn widened_bf16_rows<const N: usize>(tile: MicrokernelArgs<bf16>, panel: Panel<'_, bf16>) {
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    let high_half = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    // SAFETY: as in `bf16_rows`.
    unsafe {
        groups::<N, _>(&tile, panel, |low, high, row, group| {
            let first = _mm512_set1_ps(f32::from_bits((group as u32) << 16));
            let second = _mm512_set1_ps(f32::from_bits(group as u32 & 0xffff_0000));
            for (sum, line) in sums[row].iter_mut().zip([low, high]) {
                let pairs = _mm512_loadu_si512(line.cast());
                let b = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs));
                *sum = _mm512_fmadd_ps(first, b, *sum);
                let b = _mm512_castsi512_ps(_mm512_and_si512(pairs, high_half));
                *sum = _mm512_fmadd_ps(second, b, *sum);
            }
        });
        store(&sums, tile.to, tile.to_stride);
    }
}

/// `VPDPBUSD`, whose left operand is unsigned: 128 is added to it, and 128 times the column's sum is subtracted at the end.
///
/// # Safety
/// As [`super::Multiply::tile`], with `N` rows.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn i8_rows<const N: usize>(tile: MicrokernelArgs<i8>, panel: Panel<'_, i8>) {
    let mut sums = [[_mm512_setzero_si512(); 2]; N];
    // SAFETY: as in `bf16_rows`.
    unsafe {
        groups::<N, _>(&tile, panel, |low, high, row, group| {
            let a = _mm512_set1_epi32(group ^ 0x8080_8080_u32 as i32);
            let [sum_low, sum_high] = &mut sums[row];
            *sum_low = _mm512_dpbusd_epi32(*sum_low, a, _mm512_loadu_si512(low.cast()));
            *sum_high = _mm512_dpbusd_epi32(*sum_high, a, _mm512_loadu_si512(high.cast()));
        });
    }
    for (row, sum) in sums.iter().enumerate() {
        for (half, &sum) in sum.iter().enumerate() {
            // SAFETY: the caller guarantees the result's rows; a panel of i8 has 32 sums.
            unsafe {
                let columns = _mm512_loadu_si512(panel.column_sums.as_ptr().add(half * 16).cast());
                let sum = _mm512_sub_epi32(sum, _mm512_slli_epi32::<7>(columns));
                _mm512_storeu_si512(tile.to.add(row * tile.to_stride + half * 16).cast(), sum);
            }
        }
    }
}

/// Quads of bytes widened to 16 bits; `VPMADDWD` sums pairs, which are added at the end.
///
/// # Safety
/// As [`super::Multiply::tile`], with `N` rows.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn widened_i8_rows<const N: usize>(tile: MicrokernelArgs<i8>, panel: Panel<'_, i8>) {
    // Each of four registers holds the pairs of 8 columns.
    let mut sums = [[_mm512_setzero_si512(); 4]; N];
    // SAFETY: as in `bf16_rows`.
    unsafe {
        groups::<N, _>(&tile, panel, |low, high, row, group| {
            let a = _mm512_cvtepi8_epi16(_mm256_set1_epi32(group));
            for (i, sum) in sums[row].iter_mut().enumerate() {
                let line = if i < 2 { low } else { high };
                let quads = _mm256_loadu_si256(line.add(i % 2 * 32).cast());
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(a, _mm512_cvtepi8_epi16(quads)));
            }
        });
    }
    for (row, sum) in sums.iter().enumerate() {
        for (i, sum) in sum.iter().enumerate() {
            // Adds neighbors: the two pairs of a column are the two halves of 64 bits.
            let both = _mm512_add_epi32(*sum, _mm512_srli_epi64::<32>(*sum));
            let columns = _mm512_cvtepi64_epi32(both);
            // SAFETY: the caller guarantees the result's rows.
            unsafe {
                _mm256_storeu_si256(tile.to.add(row * tile.to_stride + i * 8).cast(), columns);
            }
        }
    }
}
