//! The whole model in f64 on the host, one sequence at a time: plain loops over the formulas of the paper.
//!
//! It shares no code with the crate: weights come by their Hugging Face names, shapes from the config.

use modernbert::config::{LayerType, ModernBertConfig, Pooling};

use crate::toy::Named;
use test_support::wide;

/// One vector per token.
pub(crate) type Rows = Vec<Vec<f64>>;

/// One vector for a sequence.
pub(crate) fn pooled(rows: &Rows, pooling: Pooling) -> Vec<f64> {
    let feature = |d: usize| rows.iter().map(move |row| row[d]);
    (0..rows[0].len())
        .map(|d| match pooling {
            Pooling::Cls => rows[0][d],
            Pooling::Mean => feature(d).sum::<f64>() / rows.len() as f64,
            Pooling::Max => feature(d).fold(f64::NEG_INFINITY, f64::max),
            Pooling::WeightedMean => {
                let weights = (1..=rows.len()).map(|weight| weight as f64);
                let sum: f64 = feature(d).zip(weights.clone()).map(|(x, w)| x * w).sum();
                sum / weights.sum::<f64>()
            }
        })
        .collect()
}

pub(crate) struct Reference<'a> {
    pub(crate) config: &'a ModernBertConfig,
    pub(crate) weights: &'a Named,
}

impl Reference<'_> {
    fn weight(&self, name: &str) -> Vec<f64> {
        wide(
            self.weights
                .get(name)
                .unwrap_or_else(|| panic!("the model has no {name}")),
        )
    }

    /// `W x (+ b)` for the weight `[out, in]` of this name.
    fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let weight = self.weight(&format!("{name}.weight"));
        let bias = self
            .weights
            .get(&format!("{name}.bias"))
            .map(|bias| wide(bias));
        let apply = |x: &Vec<f64>| {
            let mut y: Vec<f64> = weight
                .chunks(x.len())
                .map(|w| w.iter().zip(x).map(|(w, x)| w * x).sum())
                .collect();
            if let Some(bias) = &bias {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
            y
        };
        rows.iter().map(apply).collect()
    }

    fn norm(&self, name: &str, rows: &Rows) -> Rows {
        let weight = self.weight(&format!("{name}.weight"));
        let bias = match self.weights.get(&format!("{name}.bias")) {
            Some(bias) => wide(bias),
            None => vec![0.0; weight.len()],
        };
        let apply = |x: &Vec<f64>| -> Vec<f64> {
            let n = x.len() as f64;
            let mean = x.iter().sum::<f64>() / n;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let std = (variance + self.config.norm_eps).sqrt();
            let parameters = weight.iter().zip(&bias);
            x.iter()
                .zip(parameters)
                .map(|(x, (w, b))| (x - mean) / std * w + b)
                .collect()
        };
        rows.iter().map(apply).collect()
    }

    fn attention(&self, layer: usize, rows: &Rows) -> Rows {
        let prefix = format!("model.layers.{layer}.attn");
        let qkv = self.linear(&format!("{prefix}.Wqkv"), rows);
        let (hidden, heads) = (self.config.hidden_size, self.config.num_attention_heads);
        let dim = hidden / heads;
        let (theta, half_window) = match self.config.layer_types[layer] {
            LayerType::Global => (self.config.global_rope_theta, usize::MAX),
            LayerType::Local => (
                self.config.local_rope_theta,
                self.config.local_attention / 2,
            ),
        };
        let part =
            |i: usize, part: usize, head: usize| &qkv[i][part * hidden + head * dim..][..dim];
        let rotated = |i: usize, which: usize, head: usize| -> Vec<f64> {
            let x = part(i, which, head);
            let half = dim / 2;
            let rotated_element = |d: usize| {
                let angle = i as f64 * theta.powf(-2.0 * (d % half) as f64 / dim as f64);
                let partner = if d < half { -x[d + half] } else { x[d - half] };
                x[d] * angle.cos() + partner * angle.sin()
            };
            (0..dim).map(rotated_element).collect()
        };
        let mut out = vec![vec![0.0; hidden]; rows.len()];
        for head in 0..heads {
            for (i, out) in out.iter_mut().enumerate() {
                let q = rotated(i, 0, head);
                let visible: Vec<usize> = (0..rows.len())
                    .filter(|j| i.abs_diff(*j) <= half_window)
                    .collect();
                let score = |&j: &usize| -> f64 {
                    let k = rotated(j, 1, head);
                    q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (dim as f64).sqrt()
                };
                let weights: Vec<f64> = visible.iter().map(|j| score(j).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (&j, weight) in visible.iter().zip(&weights) {
                    for d in 0..dim {
                        out[head * dim + d] += weight / sum * part(j, 2, head)[d];
                    }
                }
            }
        }
        self.linear(&format!("{prefix}.Wo"), &out)
    }

    fn mlp(&self, layer: usize, rows: &Rows) -> Rows {
        let prefix = format!("model.layers.{layer}.mlp");
        let gate = |u: &Vec<f64>| -> Vec<f64> {
            let (activated, gate) = u.split_at(u.len() / 2);
            activated
                .iter()
                .zip(gate)
                .map(|(p, g)| gelu(*p) * g)
                .collect()
        };
        let gated: Rows = self
            .linear(&format!("{prefix}.Wi"), rows)
            .iter()
            .map(gate)
            .collect();
        self.linear(&format!("{prefix}.Wo"), &gated)
    }

    /// Hidden states after the final norm.
    pub(crate) fn encode(&self, ids: &[u32]) -> Rows {
        let hidden = self.config.hidden_size;
        let table = self.weight("model.embeddings.tok_embeddings.weight");
        let rows = ids
            .iter()
            .map(|&id| table[id as usize * hidden..][..hidden].to_vec())
            .collect();
        let mut x = self.norm("model.embeddings.norm", &rows);
        for layer in 0..self.config.num_hidden_layers {
            let normed = match layer {
                0 => x.clone(),
                _ => self.norm(&format!("model.layers.{layer}.attn_norm"), &x),
            };
            x = sum(&x, &self.attention(layer, &normed));
            let normed = self.norm(&format!("model.layers.{layer}.mlp_norm"), &x);
            x = sum(&x, &self.mlp(layer, &normed));
        }
        self.norm("model.final_norm", &x)
    }

    /// `norm(gelu(dense(x)))`.
    fn head(&self, rows: &Rows) -> Rows {
        let dense = self.linear("head.dense", rows);
        let activated = dense
            .iter()
            .map(|row| row.iter().map(|&z| gelu(z)).collect())
            .collect();
        self.norm("head.norm", &activated)
    }

    /// Scores over the vocabulary, by the tied embedding.
    pub(crate) fn mlm_logits(&self, ids: &[u32]) -> Rows {
        let table = self.weight("model.embeddings.tok_embeddings.weight");
        let bias = self.weight("decoder.bias");
        let score = |z: &Vec<f64>| -> Vec<f64> {
            let rows = table.chunks(z.len()).zip(&bias);
            rows.map(|(e, b)| e.iter().zip(z).map(|(e, z)| e * z).sum::<f64>() + b)
                .collect()
        };
        self.head(&self.encode(ids)).iter().map(score).collect()
    }

    /// Outputs of a classifier for every token of one sequence.
    pub(crate) fn token_logits(&self, ids: &[u32]) -> Rows {
        self.linear("classifier", &self.head(&self.encode(ids)))
    }

    /// Outputs of a classifier for one sequence, from the state that `pool` makes of its tokens.
    pub(crate) fn class_logits(&self, ids: &[u32], pool: impl Fn(&Rows) -> Vec<f64>) -> Vec<f64> {
        let pooled = vec![pool(&self.encode(ids))];
        self.linear("classifier", &self.head(&pooled)).remove(0)
    }
}

fn sum(a: &Rows, b: &Rows) -> Rows {
    let add = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a + b).collect();
    a.iter().zip(b).map(add).collect()
}

/// The exact form, with erf by its series of positive terms.
fn gelu(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    let erf = if x.abs() > 6.0 {
        x.signum()
    } else {
        std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
    };
    0.5 * z * (1.0 + erf)
}
