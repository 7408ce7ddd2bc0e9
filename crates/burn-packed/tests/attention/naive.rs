//! Attention in f32 loops: the error that is due to the number format alone.

use crate::case::{Case, Results};

/// Output and gradient, every operation in f32.
pub(crate) fn run(case: &Case) -> Results {
    run_rounded(case, |x| x)
}

/// As [`run`], with every tensor that a program without a fused kernel would hold (rotated queries and keys, scores,
/// probabilities, output and their gradients) rounded by `round`; sums are in f32.
pub(crate) fn run_rounded(case: &Case, round: fn(f32) -> f32) -> Results {
    let dim = case.head_dim;
    let mut out = vec![0.0f32; case.d_out.len()];
    let mut d_qkv = vec![0.0f32; case.qkv.len()];
    let mut first = 0;
    for &length in &case.lengths {
        for head in 0..case.heads {
            let rows = |part: usize| -> Vec<Vec<f32>> {
                let row = |i: usize| case.qkv[case.place(first + i, part, head)..][..dim].to_vec();
                (0..length).map(row).collect()
            };
            let rotated_rows = |part| -> Vec<Vec<f32>> {
                let rows = rows(part).into_iter().enumerate();
                rows.map(|(i, row)| rounded(apply_rope(case, &row, i, 1.0), round))
                    .collect()
            };
            let (q, k, v) = (rotated_rows(0), rotated_rows(1), rows(2));
            let (mut d_q, mut d_k) = (
                vec![vec![0.0f32; dim]; length],
                vec![vec![0.0f32; dim]; length],
            );
            for i in 0..length {
                let place = ((first + i) * case.heads + head) * dim;
                let d_out = &case.d_out[place..][..dim];
                let window = case.half_window.unwrap_or(length);
                let seen = i.saturating_sub(window)..(i.saturating_add(window) + 1).min(length);
                let (p, slopes) = probabilities(case, &q[i], &k[seen.clone()], round);
                let p = rounded(p, round);
                for d in 0..dim {
                    let values = v[seen.clone()].iter().map(|v| v[d]);
                    out[place + d] = round(values.zip(&p).map(|(v, p)| p * v).sum());
                }
                let d_p = v[seen.clone()].iter().map(|v| dot(d_out, v)).collect();
                let d_p = rounded(d_p, round);
                let delta = dot(&p, &d_p);
                for (j, (p, (d_p, slope))) in seen.zip(p.iter().zip(d_p.iter().zip(&slopes))) {
                    let d_score = round(p * (d_p - delta) * slope * case.scale() as f32);
                    for d in 0..dim {
                        d_q[i][d] += d_score * k[j][d];
                        d_k[j][d] += d_score * q[i][d];
                        d_qkv[case.place(first + j, 2, head) + d] += p * d_out[d];
                    }
                }
            }
            for (part, rows) in [d_q, d_k].iter().enumerate() {
                for (i, row) in rows.iter().enumerate() {
                    let place = case.place(first + i, part, head);
                    d_qkv[place..place + dim].copy_from_slice(&apply_rope(case, row, i, -1.0));
                }
            }
        }
        first += length;
    }
    (out, rounded(d_qkv, round))
}

fn rounded(mut values: Vec<f32>, round: fn(f32) -> f32) -> Vec<f32> {
    values.iter_mut().for_each(|x| *x = round(*x));
    values
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn apply_rope(case: &Case, x: &[f32], position: usize, direction: f32) -> Vec<f32> {
    let Some(theta) = case.theta else {
        return x.to_vec();
    };
    let half = x.len() / 2;
    let mut y = vec![0.0; x.len()];
    for d in 0..half {
        let frequency = 1.0 / (theta as f32).powf((2 * d) as f32 / x.len() as f32);
        let (sin, cos) = (direction * position as f32 * frequency).sin_cos();
        y[d] = x[d] * cos - x[d + half] * sin;
        y[d + half] = x[d + half] * cos + x[d] * sin;
    }
    y
}

/// Probabilities of the visible keys and the derivative of the bound.
fn probabilities(
    case: &Case,
    q: &[f32],
    k: &[Vec<f32>],
    round: fn(f32) -> f32,
) -> (Vec<f32>, Vec<f32>) {
    let round_score = |k: &Vec<f32>| round(dot(q, k) * case.scale() as f32);
    let mut scores: Vec<f32> = k.iter().map(round_score).collect();
    let mut slopes = vec![1.0; k.len()];
    if let Some(cap) = case.softcap {
        for (score, slope) in scores.iter_mut().zip(&mut slopes) {
            let tanh = (*score / cap as f32).tanh();
            *slope = 1.0 - tanh * tanh;
            *score = cap as f32 * tanh;
        }
    }
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f32 = weights.iter().sum();
    (weights.iter().map(|w| w / sum).collect(), slopes)
}
