//! Attention in f64 on the host, one loop per symbol of the definition: what every other version is held against.
//!
//! Slow on purpose. It shares no code with the versions it judges, the windows and positions included.

/// Arguments of a reference computation; everything row-major.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    /// `[total, 3, heads, head_dim]`.
    pub qkv: &'a [f64],
    /// Lengths of the sequences, in tokens.
    pub lengths: &'a [usize],
    /// Number of heads.
    pub heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Keys visible on each side, inclusive; `None` for all.
    pub half_window: Option<usize>,
    /// Base of the rotary frequencies, or `None` for no rotation.
    pub theta: Option<f64>,
    /// Factor on the scores.
    pub scale: f64,
    /// Bound on the scores, if any.
    pub softcap: Option<f64>,
}

impl Problem<'_> {
    /// Output, `[total, heads, head_dim]`.
    pub fn forward(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.qkv.len() / 3];
        self.for_each_row(|row, head, first, length, i| {
            let p = self.probabilities(first, length, i, head).0;
            for (j, p) in p.iter().enumerate() {
                for d in 0..self.head_dim {
                    out[(row * self.heads + head) * self.head_dim + d] +=
                        p * self.value(first + j, 2, head, d);
                }
            }
        });
        out
    }

    /// Log-sum-exp of the visible scores, `[heads, total]`.
    pub fn log_sum_exp(&self) -> Vec<f64> {
        let total: usize = self.lengths.iter().sum();
        let mut lse = vec![0.0; self.heads * total];
        self.for_each_row(|row, head, first, length, i| {
            lse[head * total + row] = self.probabilities(first, length, i, head).1;
        });
        lse
    }

    /// Gradient of `qkv` for the gradient `d_out` of the output.
    pub fn backward(&self, d_out: &[f64]) -> Vec<f64> {
        let mut d_qkv = vec![0.0; self.qkv.len()];
        self.for_each_row(|row, head, first, length, i| {
            let (p, _, slopes) = self.probabilities_and_slopes(first, length, i, head);
            let d_out = &d_out[(row * self.heads + head) * self.head_dim..][..self.head_dim];
            let d_p: Vec<f64> = (0..length)
                .map(|j| {
                    (0..self.head_dim)
                        .map(|d| d_out[d] * self.value(first + j, 2, head, d))
                        .sum()
                })
                .collect();
            let delta: f64 = p.iter().zip(&d_p).map(|(p, d)| p * d).sum();
            let q = self.rotated(first, i, 0, head);
            let mut d_q = vec![0.0; self.head_dim];
            for j in 0..length {
                let d_score = p[j] * (d_p[j] - delta) * slopes[j] * self.scale;
                let k = self.rotated(first, j, 1, head);
                let d_k: Vec<f64> = q.iter().map(|q| d_score * q).collect();
                for (d_q, k) in d_q.iter_mut().zip(&k) {
                    *d_q += d_score * k;
                }
                for (d, g) in self.turn(&d_k, j, -1.0).into_iter().enumerate() {
                    d_qkv[self.index(first + j, 1, head, d)] += g;
                }
                for (d, d_out) in d_out.iter().enumerate() {
                    d_qkv[self.index(first + j, 2, head, d)] += p[j] * d_out;
                }
            }
            for (d, g) in self.turn(&d_q, i, -1.0).into_iter().enumerate() {
                d_qkv[self.index(row, 0, head, d)] += g;
            }
        });
        d_qkv
    }

    /// Calls `visit(row, head, first row of the sequence, its length, position in it)`.
    fn for_each_row(&self, mut visit: impl FnMut(usize, usize, usize, usize, usize)) {
        let mut first = 0;
        for &length in self.lengths {
            for i in 0..length {
                for head in 0..self.heads {
                    visit(first + i, head, first, length, i);
                }
            }
            first += length;
        }
    }

    fn index(&self, row: usize, part: usize, head: usize, d: usize) -> usize {
        ((row * 3 + part) * self.heads + head) * self.head_dim + d
    }

    fn value(&self, row: usize, part: usize, head: usize, d: usize) -> f64 {
        self.qkv[self.index(row, part, head, d)]
    }

    /// q (part 0) or k (part 1) of a token, turned by its position.
    fn rotated(&self, first: usize, position: usize, part: usize, head: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..self.head_dim)
            .map(|d| self.value(first + position, part, head, d))
            .collect();
        self.turn(&x, position, 1.0)
    }

    fn turn(&self, x: &[f64], position: usize, direction: f64) -> Vec<f64> {
        let Some(theta) = self.theta else {
            return x.to_vec();
        };
        let half = self.head_dim / 2;
        let mut y = vec![0.0; self.head_dim];
        for d in 0..half {
            let angle = position as f64 * theta.powf(-2.0 * d as f64 / self.head_dim as f64);
            let (sin, cos) = (direction * angle).sin_cos();
            y[d] = x[d] * cos - x[d + half] * sin;
            y[d + half] = x[d + half] * cos + x[d] * sin;
        }
        y
    }

    fn probabilities(&self, first: usize, length: usize, i: usize, head: usize) -> (Vec<f64>, f64) {
        let (p, lse, _) = self.probabilities_and_slopes(first, length, i, head);
        (p, lse)
    }

    /// Probabilities over all keys of the sequence (0 for hidden ones), log-sum-exp, derivative of the bound.
    fn probabilities_and_slopes(
        &self,
        first: usize,
        length: usize,
        i: usize,
        head: usize,
    ) -> (Vec<f64>, f64, Vec<f64>) {
        let q = self.rotated(first, i, 0, head);
        let mut scores = vec![f64::NEG_INFINITY; length];
        let mut slopes = vec![1.0; length];
        for j in 0..length {
            if self.half_window.is_some_and(|w| i.abs_diff(j) > w) {
                continue;
            }
            let k = self.rotated(first, j, 1, head);
            let score = self.scale * q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>();
            scores[j] = match self.softcap {
                None => score,
                Some(cap) => {
                    let tanh = (score / cap).tanh();
                    slopes[j] = 1.0 - tanh * tanh;
                    cap * tanh
                }
            };
        }
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let lse = max + sum.ln();
        (
            scores.iter().map(|s| (s - lse).exp()).collect(),
            lse,
            slopes,
        )
    }
}
