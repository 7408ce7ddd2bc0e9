//! Attention in f64 on the host, one loop per symbol of the definition: the reference with which tests compare all versions.
//!
//! The reference shares no code with these versions, not even for windows and RoPE.

/// Arguments of a reference computation; everything row-major.
#[derive(Clone, Debug)]
pub struct ReferenceInputs<'a> {
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
    /// Base of the rotary frequencies, or `None` for no RoPE.
    pub theta: Option<f64>,
    /// Factor on the scores.
    pub scale: f64,
    /// Bound on the scores, if any.
    pub softcap: Option<f64>,
}

/// One head of one sequence.
struct Sequence {
    head: usize,
    /// Row of the batch at which the sequence starts.
    first: usize,
    /// q of every token after RoPE.
    q: Vec<Vec<f64>>,
    /// k of every token after RoPE.
    k: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
}

/// The softmax of a query over all keys of its sequence.
struct ReferenceSoftmax {
    /// Probabilities; 0 for hidden keys.
    p: Vec<f64>,
    log_sum_exp: f64,
    /// Derivative of the bound on the scores.
    slopes: Vec<f64>,
}

impl ReferenceInputs<'_> {
    /// Output, `[total, heads, head_dim]`.
    pub fn forward(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.qkv.len() / 3];
        for sequence in self.sequences() {
            for i in 0..sequence.q.len() {
                let softmax = self.softmax(&sequence, i);
                let at = ((sequence.first + i) * self.heads + sequence.head) * self.head_dim;
                for (p, v) in softmax.p.iter().zip(&sequence.v) {
                    for (out, v) in out[at..at + self.head_dim].iter_mut().zip(v) {
                        *out += p * v;
                    }
                }
            }
        }
        out
    }

    /// Log-sum-exp of the visible scores, `[heads, total]`.
    pub fn log_sum_exp(&self) -> Vec<f64> {
        let total: usize = self.lengths.iter().sum();
        let mut lse = vec![0.0; self.heads * total];
        for sequence in self.sequences() {
            for i in 0..sequence.q.len() {
                lse[sequence.head * total + sequence.first + i] =
                    self.softmax(&sequence, i).log_sum_exp;
            }
        }
        lse
    }

    /// Gradient of `qkv` for the gradient `d_out` of the output.
    pub fn backward(&self, d_out: &[f64]) -> Vec<f64> {
        let mut d_qkv = vec![0.0; self.qkv.len()];
        for sequence in self.sequences() {
            let length = sequence.q.len();
            let zeros = || vec![vec![0.0; self.head_dim]; length];
            let (mut d_q, mut d_k, mut d_v) = (zeros(), zeros(), zeros());
            for (i, d_q) in d_q.iter_mut().enumerate() {
                let ReferenceSoftmax { p, slopes, .. } = self.softmax(&sequence, i);
                let at = ((sequence.first + i) * self.heads + sequence.head) * self.head_dim;
                let d_out = &d_out[at..at + self.head_dim];
                let d_p: Vec<f64> = sequence.v.iter().map(|v| dot(d_out, v)).collect();
                let delta = dot(&p, &d_p);
                for j in 0..length {
                    let d_score = p[j] * (d_p[j] - delta) * slopes[j] * self.scale;
                    for d in 0..self.head_dim {
                        d_q[d] += d_score * sequence.k[j][d];
                        d_k[j][d] += d_score * sequence.q[i][d];
                        d_v[j][d] += p[j] * d_out[d];
                    }
                }
            }
            for (projection, rows) in [d_q, d_k, d_v].iter().enumerate() {
                for (i, row) in rows.iter().enumerate() {
                    let grad = if projection < 2 {
                        self.rope(row, i, -1.0)
                    } else {
                        row.clone()
                    };
                    let at = self.index(sequence.first + i, projection, sequence.head);
                    d_qkv[at..at + self.head_dim].copy_from_slice(&grad);
                }
            }
        }
        d_qkv
    }

    /// Every head of every sequence.
    fn sequences(&self) -> Vec<Sequence> {
        let mut sequences = Vec::new();
        let mut first = 0;
        for &length in self.lengths {
            for head in 0..self.heads {
                let rows = |projection: usize, rope: bool| -> Vec<Vec<f64>> {
                    let row = |i: usize| {
                        let at = self.index(first + i, projection, head);
                        let row = &self.qkv[at..at + self.head_dim];
                        if rope {
                            self.rope(row, i, 1.0)
                        } else {
                            row.to_vec()
                        }
                    };
                    (0..length).map(row).collect()
                };
                sequences.push(Sequence {
                    head,
                    first,
                    q: rows(0, true),
                    k: rows(1, true),
                    v: rows(2, false),
                });
            }
            first += length;
        }
        sequences
    }

    /// Index of element 0 of q, k or v (projection 0, 1, 2) of a row of the batch.
    fn index(&self, row: usize, projection: usize, head: usize) -> usize {
        ((row * 3 + projection) * self.heads + head) * self.head_dim
    }

    /// RoPE at a position; its transpose for a `direction` of -1.
    fn rope(&self, x: &[f64], position: usize, direction: f64) -> Vec<f64> {
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

    /// The softmax of query `i`.
    fn softmax(&self, sequence: &Sequence, i: usize) -> ReferenceSoftmax {
        let length = sequence.k.len();
        let mut scores = vec![f64::NEG_INFINITY; length];
        let mut slopes = vec![1.0; length];
        for j in 0..length {
            if self.half_window.is_some_and(|w| i.abs_diff(j) > w) {
                continue;
            }
            let score = self.scale * dot(&sequence.q[i], &sequence.k[j]);
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
        let log_sum_exp = max + sum.ln();
        ReferenceSoftmax {
            p: scores.iter().map(|s| (s - log_sum_exp).exp()).collect(),
            log_sum_exp,
            slopes,
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
