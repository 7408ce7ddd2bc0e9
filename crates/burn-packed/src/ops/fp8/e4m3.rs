//! The number format e4m3, and rows of its codes, on the host.

use rayon::prelude::*;

use super::SMALLEST;

/// The largest number of e4m3.
const LARGEST: f32 = 448.0;
const NAN: u8 = 0x7F;

/// The code of the number nearest to `x`, of two equally near ones the even one; 448 for larger numbers, NaN for NaN.
pub(super) fn code(x: f32) -> u8 {
    let sign = (x.to_bits() >> 24) as u8 & 0x80;
    let size = x.abs();
    if size.is_nan() {
        return sign | NAN;
    }
    if size >= LARGEST {
        return sign | 0x7E;
    }
    // Numbers of one exponent are 2^(exponent - 3) apart; below 2^-6 the distance stays that of 2^-6.
    let exponent = ((size.to_bits() >> 23) as i32 - 127).max(-6);
    let steps =
        (size * f32::from_bits(((3 - exponent + 127) as u32) << 23)).round_ties_even() as u32;
    // A normal number has 8 to 16 steps: 16 carry into the exponent. A subnormal one has fewer than 8, and the exponent field 0.
    let code = ((exponent + 6) as u32) * 8 + steps;
    sign | code as u8
}

/// The number that a code stands for.
pub(super) fn value(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let size = match (exponent, code & 0x7F) {
        (_, NAN) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { size } else { -size }
}

/// Quantizes the rows of a matrix: elements of four codes, and a scale for each row.
pub(super) fn quantize(values: &[f32], width: usize) -> (Vec<i32>, Vec<f32>) {
    let mut codes = vec![0; values.len() / 4];
    let mut scales = vec![0.0; values.len() / width.max(1)];
    codes
        .par_chunks_mut((width / 4).max(1))
        .zip(values.par_chunks(width.max(1)))
        .zip(&mut scales)
        .for_each(|((codes, row), scale)| {
            let most = row.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let factor = if most > SMALLEST { LARGEST / most } else { 0.0 };
            *scale = most * (1.0 / LARGEST);
            for (element, four) in codes.iter_mut().zip(row.chunks_exact(4)) {
                let bytes = [0, 1, 2, 3].map(|i| code(four[i] * factor));
                *element = i32::from_le_bytes(bytes);
            }
        });
    (codes, scales)
}

/// The values of a quantized matrix.
pub(super) fn values(codes: &[i32], scales: &[f32]) -> Vec<f32> {
    let words = codes.len() / scales.len().max(1);
    codes
        .par_chunks(words.max(1))
        .zip(scales)
        .flat_map_iter(|(row, &scale)| {
            row.iter()
                .flat_map(|element| element.to_le_bytes())
                .map(move |code| value(code) * scale)
        })
        .collect()
}

/// `left · rightᵀ` of rows of `width` values, a multiple of 16. The order of a sum's additions depends on the width alone.
pub(super) fn products(left: &[f32], right: &[f32], width: usize) -> Vec<f32> {
    const LANES: usize = 16;
    let dot = |a: &[f32], b: &[f32]| {
        let mut lanes = [0.0f32; LANES];
        for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane += a * b;
            }
        }
        lanes.iter().sum::<f32>()
    };
    left.par_chunks(width.max(1))
        .flat_map_iter(|a| right.chunks(width.max(1)).map(move |b| dot(a, b)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_that_of_its_number() {
        for bits in 0..=255u8 {
            let number = value(bits);
            match bits & 0x7F {
                NAN => assert!(number.is_nan()),
                _ => assert_eq!(code(number), bits, "{number}"),
            }
        }
        assert_eq!(value(0x7E), 448.0);
        assert_eq!(value(0x01), 2f32.powi(-9));
        assert_eq!(value(0x08), 2f32.powi(-6));
    }

    #[test]
    fn numbers_between_two_codes_take_the_nearest() {
        for low in 0..0x7Eu8 {
            let (a, b) = (value(low), value(low + 1));
            let middle = (a + b) / 2.0;
            let even = if low % 2 == 0 { low } else { low + 1 };
            assert_eq!(code(middle), even, "{middle}");
            assert_eq!(code(-middle), 0x80 | even);
            assert_eq!(code(f32::from_bits(middle.to_bits() - 1)), low);
            assert_eq!(code(f32::from_bits(middle.to_bits() + 1)), low + 1);
        }
        assert_eq!(code(1e9), 0x7E);
        assert_eq!(code(f32::INFINITY), 0x7E);
        assert_eq!(code(f32::NAN) & 0x7F, NAN);
    }

    #[test]
    fn a_row_keeps_its_largest_number_and_shows_what_is_not_finite() {
        let row = [-3.5f32, 0.25, 1.0, 0.0];
        let (codes, scales) = quantize(&row, 4);
        assert_eq!(values(&codes, &scales)[0], -3.5);
        let (codes, scales) = quantize(&[1e-38, 0.0, 0.0, -1e-38], 4);
        assert_eq!(
            (codes, scales[0]),
            (vec![i32::from_le_bytes([0, 0, 0, 0x80])], 1e-38 / 448.0)
        );
        for bad in [f32::NAN, f32::INFINITY] {
            let (codes, scales) = quantize(&[1.0, bad, 2.0, 3.0], 4);
            assert!(values(&codes, &scales)[1].is_nan(), "{bad}");
        }
    }
}
