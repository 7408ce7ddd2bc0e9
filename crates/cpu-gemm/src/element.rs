//! Operand types and their conversions.

use half::bf16;
use multiversion::multiversion;

use crate::aligned::Zero;

/// Type of a left operand's elements and of the panels it is multiplied with.
pub trait Element: Zero + Default + Send + Sync + PartialEq + std::fmt::Debug + 'static {
    /// Type of an element of the result before any scale.
    type Sum: Zero + Default + Send + Sync + std::fmt::Debug;
    /// Elements of the inner dimension in one step of a panel: the inner dimension is padded with zeros to a multiple of it, in the left
    /// operand too.
    const STEP: usize;
    /// Elements of the inner dimension that a panel stores next to each other for each column: 4 bytes of them.
    const GROUP: usize;
    /// True for integers, whose columns have scales.
    const IS_QUANTIZED: bool = false;
}

impl Element for f32 {
    type Sum = f32;
    const STEP: usize = 1;
    const GROUP: usize = 1;
}

impl Element for bf16 {
    type Sum = f32;
    const STEP: usize = 32;
    const GROUP: usize = 2;
}

impl Element for i8 {
    type Sum = i32;
    const STEP: usize = 64;
    const GROUP: usize = 4;
    const IS_QUANTIZED: bool = true;
}

/// Float operands: those that an activation can be stored in without a scale.
pub trait Float: Element<Sum = f32> {
    /// Rounds to the nearest value, ties to even.
    fn slice_from_f32(from: &[f32], to: &mut [Self]);
    /// Converts exactly.
    fn slice_to_f32(from: &[Self], to: &mut [f32]);
    /// Converts one value, as [`Float::slice_from_f32`].
    fn of(x: f32) -> Self;
}

impl Float for f32 {
    fn slice_from_f32(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn slice_to_f32(from: &[f32], to: &mut [f32]) {
        to.copy_from_slice(from);
    }

    fn of(x: f32) -> f32 {
        x
    }
}

impl Float for bf16 {
    fn slice_from_f32(from: &[f32], to: &mut [bf16]) {
        round_bf16(from, to);
    }

    fn slice_to_f32(from: &[bf16], to: &mut [f32]) {
        widen_bf16(from, to);
    }

    fn of(x: f32) -> bf16 {
        to_bf16(x)
    }
}

/// Rounds to nearest, ties to even; a NaN stays one. Without branches, so that loops over it are vectorized.
#[inline(always)]
pub fn to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16;
    // The addition could carry a NaN's payload into its sign and exponent.
    let quiet = (bits >> 16) | 0x40;
    bf16::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
}

/// Elements of a block of a conversion, whose loop has a fixed length: the compiler makes vector instructions of it without a scalar rest.
const BLOCK: usize = 32;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn round_bf16(from: &[f32], to: &mut [bf16]) {
    let (mut to, mut from) = (to.chunks_exact_mut(BLOCK), from.chunks_exact(BLOCK));
    for (to, from) in to.by_ref().zip(from.by_ref()) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = to_bf16(*from);
        }
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder()) {
        *to = to_bf16(*from);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn widen_bf16(from: &[bf16], to: &mut [f32]) {
    let widen = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
    let (mut to, mut from) = (to.chunks_exact_mut(BLOCK), from.chunks_exact(BLOCK));
    for (to, from) in to.by_ref().zip(from.by_ref()) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = widen(*from);
        }
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder()) {
        *to = widen(*from);
    }
}

/// Quantizes a row symmetrically to -127..=127 and returns the scale: `row[i] ≈ scale * to[i]`. A row of zeros (magnitudes below 1e-30) has the scale 0. A
/// row with a NaN or an infinity gives a scale that is not finite, so that the result is not finite either.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn quantize_row(row: &[f32], to: &mut [i8]) -> f32 {
    const LANES: usize = 16;
    // Running maxima of the magnitudes' bits, which order as the magnitudes do, with NaN above infinity.
    let mut lanes = [0u32; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail = chunks
        .remainder()
        .iter()
        .fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff));
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = (*lane).max(x.to_bits() & 0x7fff_ffff);
        }
    }
    let most = f32::from_bits(lanes.into_iter().fold(tail, u32::max));
    // Below this magnitude the inverse of the scale would not be finite.
    let tiny = most < 1e-30;
    if tiny || !most.is_finite() {
        to[..row.len()].fill(0);
        return if tiny { 0.0 } else { f32::NAN };
    }
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even.
    const MAGIC: f32 = 12_582_912.0;
    let inverse = 127.0 / most;
    for (to, x) in to.iter_mut().zip(row) {
        let rounded = (x * inverse).clamp(-127.0, 127.0) + MAGIC;
        *to = (rounded.to_bits() & 0xff) as u8 as i8;
    }
    most / 127.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bf16_is_rounded_as_the_half_crate_rounds(bits in any::<u32>()) {
            let x = f32::from_bits(bits);
            let (found, expected) = (to_bf16(x), bf16::from_f32(x));
            prop_assert!(found == expected || (found.is_nan() && expected.is_nan()), "{x:e}: {found} {expected}");
        }

        #[test]
        fn a_quantized_row_is_within_half_a_step(row in proptest::collection::vec(-1e3f32..1e3, 1..200)) {
            let mut codes = vec![0i8; row.len()];
            let scale = quantize_row(&row, &mut codes);
            for (x, code) in row.iter().zip(&codes) {
                prop_assert!((x - scale * f32::from(*code)).abs() <= 0.5001 * scale);
                prop_assert!(*code >= -127);
            }
        }
    }

    #[test]
    fn a_row_that_is_not_finite_has_a_scale_that_is_not() {
        let mut codes = [1i8; 20];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 17] {
                let mut row = [1.0f32; 20];
                row[place] = bad;
                assert!(quantize_row(&row, &mut codes).is_nan());
            }
        }
        assert_eq!(quantize_row(&[0.0; 20], &mut codes), 0.0);
        assert_eq!(codes, [0; 20]);
    }
}
