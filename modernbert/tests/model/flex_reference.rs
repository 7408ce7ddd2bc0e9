//! The modular encoder in f64 on the host, one sequence at a time: plain loops over the equations of `docs/flexbert.md`.
//!
//! It shares no code with the crate and reads the options itself: weights come by their names, everything else from the config.

use std::collections::BTreeMap;
use std::f64::consts::{FRAC_2_SQRT_PI, SQRT_2, TAU};

use modernbert::config::flexbert::{
    AttentionKind, BlockKind, EmbeddingKind, MlpKind, NormKind, RopeScaling, RopeType,
};
use modernbert::config::{Activation, LayerType, ModernBertConfig};

use crate::reference::Rows;

/// Values by parameter name.
pub(crate) type Weights = BTreeMap<String, Vec<f64>>;

pub(crate) struct FlexReference<'a> {
    pub(crate) config: &'a ModernBertConfig,
    pub(crate) weights: &'a Weights,
}

/// One head's rows of queries, keys or values.
type Head = Vec<Vec<f64>>;

impl FlexReference<'_> {
    fn get(&self, name: &str) -> Option<&[f64]> {
        self.weights.get(name).map(Vec::as_slice)
    }

    fn need(&self, name: &str) -> &[f64] {
        let found = self.get(name);
        found.unwrap_or_else(|| panic!("the model has no {name}"))
    }

    /// `W x (+ b)`.
    pub(crate) fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let weight = self.need(&format!("{name}.weight"));
        let bias = self.get(&format!("{name}.bias"));
        let apply = |x: &Vec<f64>| -> Vec<f64> {
            let of_row = |(i, w): (usize, &[f64])| dot(w, x) + bias.map_or(0.0, |bias| bias[i]);
            weight.chunks(x.len()).enumerate().map(of_row).collect()
        };
        rows.iter().map(apply).collect()
    }

    fn norm(&self, name: &str, rows: &Rows) -> Rows {
        let flex = &self.config.flexbert;
        let weight = match flex.norm_scale {
            Some(false) => None,
            _ => Some(self.need(&format!("{name}.weight"))),
        };
        let bias = (self.config.norm_bias).then(|| self.need(&format!("{name}.bias")));
        let apply = |x: &Vec<f64>| -> Vec<f64> {
            let n = x.len() as f64;
            let mean = match flex.normalization {
                Some(NormKind::Rmsnorm) => 0.0,
                _ => x.iter().sum::<f64>() / n,
            };
            let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let root = (square + self.config.norm_eps).sqrt();
            let element = |(d, x): (usize, &f64)| {
                let weight = weight.map_or(1.0, |weight| weight[d]);
                (x - mean) / root * weight + bias.map_or(0.0, |bias| bias[d])
            };
            x.iter().enumerate().map(element).collect()
        };
        rows.iter().map(apply).collect()
    }

    /// Blocks, attention and MLP of a layer.
    fn kinds(&self, layer: usize) -> (BlockKind, AttentionKind, MlpKind) {
        let flex = &self.config.flexbert;
        let mut kinds = (
            flex.bert_layer.unwrap_or(BlockKind::Prenorm),
            flex.attention_layer.unwrap_or(AttentionKind::Rope),
            flex.mlp_layer.unwrap_or(MlpKind::Glu),
        );
        if layer < flex.num_initial_layers.unwrap_or(1) {
            kinds.0 = flex.initial_bert_layer.unwrap_or(kinds.0);
            kinds.1 = flex.initial_attention_layer.unwrap_or(kinds.1);
            kinds.2 = flex.initial_mlp_layer.unwrap_or(kinds.2);
        }
        kinds
    }

    /// Applies RoPE to a head's vector at a position of a sequence; `is_key` inverts XPos.
    fn rotated(
        &self,
        x: &[f64],
        position: usize,
        length: usize,
        layer: usize,
        is_key: bool,
    ) -> Vec<f64> {
        let (config, flex) = (self.config, &self.config.flexbert);
        let local = config.layer_types[layer] == LayerType::Local;
        let everywhere = flex.rotary_emb_dim.unwrap_or(x.len());
        let dim = match local {
            true => flex.local_attn_rotary_emb_dim.unwrap_or(everywhere),
            false => everywhere,
        };
        let theta = match local {
            true => config.local_rope_theta,
            false => config.global_rope_theta,
        };
        let scaling = flex.rope_parameters.clone().and_then(|given| match local {
            true => given.sliding_attention,
            false => given.full_attention,
        });
        let (frequencies, magnitude) =
            self.frequencies(&scaling.unwrap_or_default(), dim, theta, length);
        let mut y = x.to_vec();
        for (pair, frequency) in frequencies.iter().enumerate() {
            let (a, b) = match flex.rotary_emb_interleaved {
                Some(true) => (2 * pair, 2 * pair + 1),
                _ => (pair, pair + dim / 2),
            };
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let mut factor = magnitude;
            if let Some(base) = flex.rotary_emb_scale_base {
                let scale = ((2 * pair) as f64 + 0.4 * dim as f64) / (1.4 * dim as f64);
                let power = (position as f64 - (length / 2) as f64) / base;
                factor *= scale.powf(if is_key { -power } else { power });
            }
            y[a] = factor * (x[a] * cos - x[b] * sin);
            y[b] = factor * (x[b] * cos + x[a] * sin);
        }
        y
    }

    fn frequencies(
        &self,
        scaling: &RopeScaling,
        dim: usize,
        theta: f64,
        length: usize,
    ) -> (Vec<f64>, f64) {
        let plain =
            |theta: f64| (0..dim / 2).map(move |d| theta.powf(-2.0 * d as f64 / dim as f64));
        let factor = scaling.factor.unwrap_or(1.0);
        let original = scaling
            .original_max_position_embeddings
            .unwrap_or(self.config.max_position_embeddings) as f64;
        match scaling.rope_type {
            RopeType::Default => (plain(theta).collect(), 1.0),
            RopeType::Linear => (plain(theta).map(|f| f / factor).collect(), 1.0),
            RopeType::Dynamic => {
                let n = (length as f64).max(original);
                let base = theta
                    * (factor * n / original - factor + 1.0).powf(dim as f64 / (dim as f64 - 2.0));
                (plain(base).collect(), 1.0)
            }
            RopeType::Yarn => {
                // A frequency f makes f · original / 2π rotations: as a function of d this is the element for r rotations.
                let element =
                    |r: f64| dim as f64 * (original / (r * TAU)).ln() / (2.0 * theta.ln());
                let low = element(scaling.beta_fast.unwrap_or(32.0)).floor().max(0.0);
                let mut high = element(scaling.beta_slow.unwrap_or(1.0))
                    .ceil()
                    .min(dim as f64 - 1.0);
                if low == high {
                    high += 0.001;
                }
                let mixed = plain(theta).enumerate().map(|(d, f)| {
                    let share = ((d as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    f / factor * share + f * (1.0 - share)
                });
                (mixed.collect(), 0.1 * factor.ln() + 1.0)
            }
        }
    }

    /// Attention from the rows of queries, keys and values.
    fn attention(&self, layer: usize, qkv: &Rows) -> Rows {
        let (config, flex) = (self.config, &self.config.flexbert);
        let heads = config.num_attention_heads;
        let groups = flex.num_key_value_heads.unwrap_or(heads);
        let dim = flex.head_dim.unwrap_or(config.hidden_size / heads);
        let length = qkv.len();
        let (_, kind, _) = self.kinds(layer);
        let rope = matches!(kind, AttentionKind::Rope | AttentionKind::RopeParallel);
        let half_window = match &flex.sliding_windows {
            Some(windows) if windows[layer] == 0 => usize::MAX,
            Some(windows) => windows[layer] / 2,
            None if config.layer_types[layer] == LayerType::Global => usize::MAX,
            None => config.local_attention / 2,
        };
        let column = |first: usize| -> Head {
            qkv.iter()
                .map(|row| row[first * dim..][..dim].to_vec())
                .collect()
        };
        let with_positions = |rows: Head, is_key: bool| -> Head {
            let rotate = |(i, x): (usize, &Vec<f64>)| match rope {
                true => self.rotated(x, i, length, layer, is_key),
                false => x.clone(),
            };
            rows.iter().enumerate().map(rotate).collect()
        };
        let mut out = vec![Vec::new(); length];
        for head in 0..heads {
            let shared = head / (heads / groups);
            let q = with_positions(column(head), false);
            let k = with_positions(column(heads + shared), true);
            let v = column(heads + groups + shared);
            for i in 0..length {
                let visible: Vec<usize> = (0..length)
                    .filter(|j| i.abs_diff(*j) <= half_window)
                    .collect();
                let score = |&j: &usize| {
                    let mut s = dot(&q[i], &k[j]) / (dim as f64).sqrt();
                    if let Some(cap) = flex.attn_softcap {
                        s = cap * (s / cap).tanh();
                    }
                    if flex.embedding_layer == Some(EmbeddingKind::Alibi) {
                        s -= slope(head, heads) * i.abs_diff(j) as f64;
                    }
                    s.exp()
                };
                let weights: Vec<f64> = visible.iter().map(score).collect();
                let sum: f64 = weights.iter().sum();
                let element = |d: usize| -> f64 {
                    let terms = visible.iter().zip(&weights);
                    terms.map(|(&j, weight)| weight / sum * v[j][d]).sum()
                };
                out[i].extend((0..dim).map(element));
            }
        }
        self.linear(&format!("model.layers.{layer}.attn.Wo"), &out)
    }

    /// The MLP from its projected input.
    fn mlp(&self, layer: usize, u: &Rows) -> Rows {
        let prefix = format!("model.layers.{layer}.mlp");
        let (_, _, kind) = self.kinds(layer);
        let slope = self.get(&format!("{prefix}.act.weight"));
        let inner = u
            .iter()
            .map(|u| match kind {
                MlpKind::Mlp => activated(self.config.hidden_activation, u, slope),
                MlpKind::Glu | MlpKind::ParallelGlu => {
                    let (p, g) = u.split_at(u.len() / 2);
                    let p = activated(self.config.hidden_activation, p, slope);
                    p.iter().zip(g).map(|(p, g)| p * g).collect()
                }
            })
            .collect();
        self.linear(&format!("{prefix}.Wo"), &inner)
    }

    /// Hidden states of a sequence.
    pub(crate) fn encode(&self, ids: &[u32]) -> Rows {
        let (config, flex) = (self.config, &self.config.flexbert);
        let hidden = config.hidden_size;
        let table = self.need("model.embeddings.tok_embeddings.weight");
        let positions = self.get("model.embeddings.position_embeddings.weight");
        let row = |(i, &id): (usize, &u32)| -> Vec<f64> {
            let element = |d: usize| {
                let position = positions.map_or(0.0, |rows| rows[i * hidden + d]);
                table[id as usize * hidden + d] + position
            };
            (0..hidden).map(element).collect()
        };
        let mut x: Rows = ids.iter().enumerate().map(row).collect();
        let embed_norm = flex.embed_norm.unwrap_or(true);
        if embed_norm {
            x = self.norm("model.embeddings.norm", &x);
        }
        let layers = config.num_hidden_layers;
        for layer in 0..layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let (block, ..) = self.kinds(layer);
            let skips = layer == 0 && flex.skip_first_prenorm.unwrap_or(embed_norm);
            let before = |x: &Rows| match skips {
                true => x.clone(),
                false => self.norm(&name("attn_norm"), x),
            };
            x = match block {
                BlockKind::Prenorm => {
                    let qkv = self.linear(&name("attn.Wqkv"), &before(&x));
                    let y = sum(&x, &self.attention(layer, &qkv));
                    let u = self.linear(&name("mlp.Wi"), &self.norm(&name("mlp_norm"), &y));
                    sum(&y, &self.mlp(layer, &u))
                }
                BlockKind::Postnorm => {
                    let qkv = self.linear(&name("attn.Wqkv"), &x);
                    let y = sum(&x, &self.attention(layer, &qkv));
                    let y = self.norm(&name("attn_norm"), &y);
                    let u = self.linear(&name("mlp.Wi"), &y);
                    self.norm(&name("mlp_norm"), &sum(&y, &self.mlp(layer, &u)))
                }
                BlockKind::ParallelPrenorm => {
                    let both = self.linear(&name("Wqkvff"), &before(&x));
                    let rows = both[0].len() - 2 * config.intermediate_size;
                    let qkv = both.iter().map(|row| row[..rows].to_vec()).collect();
                    let u = both.iter().map(|row| row[rows..].to_vec()).collect();
                    sum(&sum(&x, &self.attention(layer, &qkv)), &self.mlp(layer, &u))
                }
            };
        }
        let (last, ..) = self.kinds(layers - 1);
        match last {
            BlockKind::Postnorm => x,
            _ => self.norm("model.final_norm", &x),
        }
    }

    /// Sum over the labeled tokens `(row, label)` of one sequence of the loss of masked language modeling.
    pub(crate) fn mlm_loss(&self, rows: &Rows, labels: &[(usize, u32)]) -> f64 {
        let flex = &self.config.flexbert;
        let labeled = labels.iter().map(|(row, _)| rows[*row].clone()).collect();
        let kind = flex
            .head_pred_act
            .unwrap_or(self.config.classifier_activation);
        let slope = self.get("head.act.weight");
        let dense = self.linear("head.dense", &labeled);
        let mut z: Rows = dense
            .iter()
            .map(|row| activated(kind, row, slope))
            .collect();
        if flex.head_pred_norm.unwrap_or(true) {
            z = self.norm("head.norm", &z);
        }
        let table = self.need("model.embeddings.tok_embeddings.weight");
        let bias = self.need("decoder.bias");
        let loss = |(z, (_, label)): (&Vec<f64>, &(usize, u32))| {
            let scores: Vec<f64> = table
                .chunks(z.len())
                .zip(bias)
                .map(|(row, bias)| dot(row, z) + bias)
                .collect();
            let lse = scores.iter().map(|s| s.exp()).sum::<f64>().ln();
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            let share = flex.label_smoothing.unwrap_or(0.0);
            let z_loss = flex.lse_square_scale.unwrap_or(0.0);
            lse - (1.0 - share) * scores[*label as usize] - share * mean + z_loss * lse * lse
        };
        z.iter().zip(labels).map(loss).sum()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn sum(a: &Rows, b: &Rows) -> Rows {
    let add = |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(a, b)| a + b).collect();
    a.iter().zip(b).map(add).collect()
}

/// ALiBi's slope of a head, for numbers of heads that are powers of two.
fn slope(head: usize, heads: usize) -> f64 {
    assert!(heads.is_power_of_two());
    2f64.powf(-8.0 * (head + 1) as f64 / heads as f64)
}

/// The error function, by its series of positive terms.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

fn activated(kind: Activation, row: &[f64], slope: Option<&[f64]>) -> Vec<f64> {
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let hard_sigmoid = |x: f64| (x + 3.0).clamp(0.0, 6.0) / 6.0;
    let leaky = |x: f64, slope: f64| if x > 0.0 { x } else { slope * x };
    let gelu = |x: f64| 0.5 * x * (1.0 + erf(x / SQRT_2));
    let below: f64 = row.iter().map(|x| (-x).exp()).sum();
    let function = |x: f64| match kind {
        Activation::Gelu => gelu(x),
        Activation::GeluTanh => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::Gelu10 => gelu(x).clamp(-10.0, 10.0),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu => leaky(x, 0.01),
        Activation::Prelu => leaky(x, slope.expect("a trained slope")[0]),
        Activation::Rrelu => leaky(x, (1.0 / 8.0 + 1.0 / 3.0) / 2.0),
        Activation::Elu => {
            if x > 0.0 {
                x
            } else {
                x.exp_m1()
            }
        }
        Activation::Selu => {
            let (scale, alpha) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);
            scale * if x > 0.0 { x } else { alpha * x.exp_m1() }
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Hardswish => x * hard_sigmoid(x),
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Hardsigmoid => hard_sigmoid(x),
        Activation::Logsigmoid => -softplus(-x),
        Activation::Softplus => softplus(x),
        Activation::Tanh => x.tanh(),
        Activation::Hardtanh => x.clamp(-1.0, 1.0),
        Activation::Tanhshrink => x - x.tanh(),
        Activation::Hardshrink => {
            if x.abs() > 0.5 {
                x
            } else {
                0.0
            }
        }
        Activation::Softshrink => x - x.clamp(-0.5, 0.5),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::Softmin => (-x).exp() / below,
        #[allow(clippy::approx_constant)] // the published constants, not the exact ones
        Activation::Laplace => 0.5 * (1.0 + erf((x - 0.707_107) / (0.282_095 * SQRT_2))),
        Activation::Linear => x,
    };
    row.iter().map(|&x| function(x)).collect()
}
