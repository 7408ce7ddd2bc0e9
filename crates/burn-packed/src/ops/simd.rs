//! Vectorized loops of the CPU versions.
//!
//! The standard library's `exp` is a call per element, which would take longer than the matmuls around it. The functions here are
//! branch-free, so that the compiler vectorizes loops over slices; [`multiversion`] compiles each loop for several instruction sets
//! and selects one at run time.

use multiversion::multiversion;

/// `exp(x)` in f32, relative error below 2e-7 for x in [-87, 88]; smaller arguments give 0, larger ones `exp(88)`.
///
/// Splits x into `n ln 2 + r` with |r| ≤ ln 2 / 2 and sums the Taylor series to the seventh power (remainder 5e-9).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that n * LN2_HI is exact for every n that can occur.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer without a call.
    const MAGIC: f32 = 12_582_912.0;

    let clamped = x.clamp(-87.0, 88.0);
    let n = (clamped * LOG2_E + MAGIC) - MAGIC;
    let r = (clamped - n * LN2_HI) - n * LN2_LO;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    let power = f32::from_bits((((n as i32) + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { p * power }
}

/// Distribution function and density of the standard normal: `(Φ(x), φ(x))`, absolute error below 4e-7.
///
/// `erfc(z) = exp(-z²) Q(1 / (1 + 0.4 z))` with Q of degree eight, fitted to 3e-10 for z in [0, 9]; the rest of the error is f32
/// rounding. The exponential serves both results, and the derivative of GELU needs both.
#[inline(always)]
pub(crate) fn normal(x: f32) -> (f32, f32) {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
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
    q = q * t + Q[6];
    q = q * t + Q[5];
    q = q * t + Q[4];
    q = q * t + Q[3];
    q = q * t + Q[2];
    q = q * t + Q[1];
    q = q * t + Q[0];
    let gauss = exp(-z * z);
    let tail = 0.5 * q * t * gauss;
    let cdf = if x < 0.0 { tail } else { 1.0 - tail };
    (cdf, gauss * FRAC_1_SQRT_2PI)
}

/// Softmax of a row of scores, in place; returns the log-sum-exp.
///
/// A row without a finite score (all keys masked) becomes zeros, with a log-sum-exp of minus infinity.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn softmax_row(row: &mut [f32]) -> f32 {
    let max = max(row);
    if max == f32::NEG_INFINITY {
        row.fill(0.0);
        return f32::NEG_INFINITY;
    }
    for x in row.iter_mut() {
        *x = exp(*x - max);
    }
    let sum = sum(row);
    let inverse = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= inverse;
    }
    max + sum.ln()
}

/// Log-sum-exp of a row.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn log_sum_exp(row: &[f32]) -> f32 {
    let max = max(row);
    if max == f32::NEG_INFINITY {
        return max;
    }
    let mut lanes = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += exp(x - max);
        }
    }
    let mut total = 0.0;
    for &x in rest {
        total += exp(x - max);
    }
    max + (total + lanes.iter().sum::<f32>()).ln()
}

/// Running sums of a reduction: several of them let the additions overlap and vectorize.
const LANES: usize = 16;

/// Largest element, by several running maxima: one would be a chain of dependent comparisons.
#[inline(always)]
fn max(row: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail = chunks
        .remainder()
        .iter()
        .copied()
        .fold(f32::NEG_INFINITY, larger);
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.into_iter().fold(tail, larger)
}

#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let chunks = row.chunks_exact(LANES);
    let tail: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// One row of GeGLU: `out[j] = gelu(activated[j]) * gate[j]`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn geglu_row(activated: &[f32], gate: &[f32], out: &mut [f32]) {
    // Blocks of a fixed length, which become vector instructions; widths are often no multiple of the length that the compiler would choose.
    let mut blocks = out.chunks_exact_mut(LANES);
    let (activated, gate) = (activated.chunks_exact(LANES), gate.chunks_exact(LANES));
    let (a_rest, g_rest) = (activated.remainder(), gate.remainder());
    for ((a, g), out) in activated.zip(gate).zip(blocks.by_ref()) {
        for i in 0..LANES {
            out[i] = a[i] * normal(a[i]).0 * g[i];
        }
    }
    for ((a, g), out) in a_rest.iter().zip(g_rest).zip(blocks.into_remainder()) {
        *out = a * normal(*a).0 * g;
    }
}

/// Gradients of one row of GeGLU, of the activated and of the gate half.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn geglu_backward_row(
    activated: &[f32],
    gate: &[f32],
    d_out: &[f32],
    [d_activated, d_gate]: [&mut [f32]; 2],
) {
    for first in (0..d_out.len()).step_by(LANES) {
        let range = first..(first + LANES).min(d_out.len());
        let operands = [
            &activated[range.clone()],
            &gate[range.clone()],
            &d_out[range.clone()],
        ];
        let mut unused = [0.0; LANES];
        let results = [
            &mut d_activated[range.clone()],
            &mut d_gate[range],
            &mut unused,
        ];
        geglu_backward_block(operands, results);
    }
}

/// [`geglu_backward_row`], and the output.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(crate) fn geglu_backward_with_output_row(
    activated: &[f32],
    gate: &[f32],
    d_out: &[f32],
    [d_activated, d_gate]: [&mut [f32]; 2],
    out: &mut [f32],
) {
    for first in (0..d_out.len()).step_by(LANES) {
        let range = first..(first + LANES).min(d_out.len());
        let operands = [
            &activated[range.clone()],
            &gate[range.clone()],
            &d_out[range.clone()],
        ];
        let results = [
            &mut d_activated[range.clone()],
            &mut d_gate[range.clone()],
            &mut out[range],
        ];
        geglu_backward_block(operands, results);
    }
}

/// Gradients and output of up to 16 elements: a whole block in a loop of fixed length, which becomes vector instructions.
#[inline(always)]
fn geglu_backward_block(operands: [&[f32]; 3], results: [&mut [f32]; 3]) {
    let blocks = operands.map(|x| <&[f32; LANES]>::try_from(x).ok());
    let [d_activated, d_gate, out] = results;
    let gradients = |a: f32, gate: f32, d_out: f32| {
        let (cdf, density) = normal(a);
        let gelu = a * cdf;
        [
            d_out * gate * (cdf + a * density),
            d_out * gelu,
            gelu * gate,
        ]
    };
    if let [Some(a), Some(gate), Some(d_out)] = blocks {
        let mut block = [[0.0f32; LANES]; 3];
        for i in 0..LANES {
            let [x, y, z] = gradients(a[i], gate[i], d_out[i]);
            (block[0][i], block[1][i], block[2][i]) = (x, y, z);
        }
        d_activated.copy_from_slice(&block[0]);
        d_gate.copy_from_slice(&block[1]);
        out.copy_from_slice(&block[2]);
        return;
    }
    let [a, gate, d_out] = operands;
    for i in 0..d_out.len() {
        [d_activated[i], d_gate[i], out[i]] = gradients(a[i], gate[i], d_out[i]);
    }
}

/// One row of LayerNorm without bias; returns the inverse standard deviation.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2", "x86_64+avx2"))]
pub(crate) fn layer_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 {
    let (mean, inv_std) = moments(x, eps);
    for ((o, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = (x - mean) * inv_std * w;
    }
    inv_std
}

/// Input gradient of one row of LayerNorm; adds the row's part of the weight gradient to `d_weight`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2", "x86_64+avx2"))]
pub(crate) fn layer_norm_backward_row(
    x: &[f32],
    weight: &[f32],
    d_out: &[f32],
    eps: f32,
    d_x: &mut [f32],
    d_weight: &mut [f32],
) {
    let (mean, inv_std) = moments(x, eps);
    let n = x.len() as f32;
    // With g = d_out * weight and y = (x - mean) * inv_std: d_x = inv_std * (g - mean(g) - y * mean(g * y)).
    for i in 0..x.len() {
        let y = (x[i] - mean) * inv_std;
        d_weight[i] += d_out[i] * y;
        d_x[i] = d_out[i] * weight[i];
    }
    let mean_g = sum(d_x) / n;
    let mut lanes = [0.0f32; LANES];
    let whole = x.len() / LANES * LANES;
    for (xs, gs) in x[..whole]
        .chunks_exact(LANES)
        .zip(d_x[..whole].chunks_exact(LANES))
    {
        for i in 0..LANES {
            lanes[i] += gs[i] * (xs[i] - mean) * inv_std;
        }
    }
    let mut mean_gy = lanes.iter().sum::<f32>();
    for i in whole..x.len() {
        mean_gy += d_x[i] * (x[i] - mean) * inv_std;
    }
    mean_gy /= n;
    for i in 0..x.len() {
        d_x[i] = inv_std * (d_x[i] - mean_g - (x[i] - mean) * inv_std * mean_gy);
    }
}

/// [`layer_norm_backward_row`] from the output of the norm: `norm` has the weight, one over the weight (1 where the weight is 0) and the row's inverse
/// standard deviation.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2", "x86_64+avx2"))]
pub(crate) fn layer_norm_backward_of_output_row(
    out: &[f32],
    (weight, inverse, inv_std): (&[f32], &[f32], f32),
    d_out: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
) {
    let n = out.len() as f32;
    let mut lanes = [0.0f32; LANES];
    let mut add = |lane: usize, i: usize| {
        let y = out[i] * inverse[i];
        let g = d_out[i] * weight[i];
        d_weight[i] += d_out[i] * y;
        d_x[i] = g;
        lanes[lane] += g * y;
    };
    let whole = out.len() / LANES * LANES;
    for first in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            add(lane, first + lane);
        }
    }
    for i in whole..out.len() {
        add(0, i);
    }
    let mean_g = sum(d_x) / n;
    let mean_gy = lanes.iter().sum::<f32>() / n;
    for i in 0..out.len() {
        d_x[i] = inv_std * (d_x[i] - mean_g - out[i] * inverse[i] * mean_gy);
    }
}

#[inline(always)]
fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x) / n;
    let mut lanes = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail: f32 = chunks
        .remainder()
        .iter()
        .map(|x| (x - mean) * (x - mean))
        .sum();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += (x - mean) * (x - mean);
        }
    }
    let variance = (lanes.iter().sum::<f32>() + tail) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_has_a_relative_error_below_2e_7() {
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn gelu_matches_the_golden_values() {
        let golden = [
            (-3.0, -0.004_049_69),
            (-2.0, -0.045_500_26),
            (-1.0, -0.158_655_25),
            (-0.5, -0.154_268_77),
            (0.5, 0.345_731_23),
            (1.0, 0.841_344_7),
            (2.0, 1.954_499_7),
            (3.0, 2.995_950_3),
        ];
        for (x, expected) in golden {
            let y = x * normal(x).0;
            assert!(
                (y - expected).abs() < 5e-7,
                "gelu({x}) = {y}, expected {expected}"
            );
        }
    }

    #[test]
    fn softmax_of_a_masked_row_is_zero_not_nan() {
        let mut row = [f32::NEG_INFINITY; 5];
        assert_eq!(softmax_row(&mut row), f32::NEG_INFINITY);
        assert_eq!(row, [0.0; 5]);
    }

    #[test]
    fn softmax_of_large_scores_does_not_overflow() {
        let mut row = [1e4, 1e4 - 1.0, -1e4];
        let lse = softmax_row(&mut row);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((lse - (1e4 + (1.0 + (-1.0f32).exp()).ln())).abs() < 1e-2);
    }
}
