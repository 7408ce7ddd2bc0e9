//! Rotary embeddings: part of a head, order of the elements, scaling of the frequencies for longer sequences.

use serde::{Deserialize, Serialize};

/// Scaling of the frequencies, as transformers' `rope_parameters` names it. `f_d` is the frequency without scaling, `theta^(-2d/dim)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RopeType {
    /// `f_d`.
    #[default]
    Default,
    /// `f_d / factor`: positions are compressed.
    Linear,
    /// NTK-aware, dynamic: for a sequence of `n` tokens, more than the original maximum `m`, the base is
    /// `theta · (factor n / m - factor + 1)^(dim / (dim - 2))`. The length is that of the sequence itself.
    Dynamic,
    /// YaRN: frequencies with many rotations within the original maximum are unchanged, those with few are divided by the factor, those between are
    /// interpolated; cosines and sines are multiplied by the attention factor.
    Yarn,
}

/// The scaling of one kind of layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RopeScaling {
    /// Kind of scaling.
    pub rope_type: RopeType,
    /// Factor by which sequences are longer than in training, 1 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Longest sequence of training, in tokens. `max_position_embeddings` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_max_position_embeddings: Option<usize>,
    /// YaRN: factor on cosines and sines. By default it follows from `factor`, `mscale` and `mscale_all_dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_factor: Option<f64>,
    /// YaRN: rotations within the original maximum above which a frequency is unchanged. 32 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_fast: Option<f64>,
    /// YaRN: rotations below which a frequency is divided by the factor. 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_slow: Option<f64>,
    /// YaRN: numerator of the attention factor, with `mscale_all_dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mscale: Option<f64>,
    /// YaRN: denominator of the attention factor, with `mscale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mscale_all_dim: Option<f64>,
    /// YaRN: false leaves the ends of the interpolated range unrounded. True by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<bool>,
}

impl RopeScaling {
    /// The names of the fields, without `rope_type`.
    pub(in crate::config) const FIELDS: [&str; 8] = [
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ];

    /// YaRN: the rotations above which a frequency is unchanged, and those below which it is divided.
    pub(super) fn betas(&self) -> (f64, f64) {
        (
            self.beta_fast.unwrap_or(32.0),
            self.beta_slow.unwrap_or(1.0),
        )
    }

    /// YaRN: the factor on cosines and sines.
    pub(super) fn yarn_magnitude(&self) -> f64 {
        let factor = self.factor.unwrap_or(1.0);
        let scale = |m: f64| match factor > 1.0 {
            true => 0.1 * m * factor.ln() + 1.0,
            false => 1.0,
        };
        let both = self.mscale.zip(self.mscale_all_dim);
        // transformers takes 0 as absent.
        let both = both.filter(|(one, all)| *one != 0.0 && *all != 0.0);
        self.attention_factor.unwrap_or_else(|| match both {
            Some((one, all)) => scale(one) / scale(all),
            None => scale(1.0),
        })
    }
}

/// The scaling by kind of layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RopeParameters {
    /// Of global layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_attention: Option<RopeScaling>,
    /// Of local layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sliding_attention: Option<RopeScaling>,
}

/// The rotary embeddings of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct RotarySpec {
    /// Base of the frequencies.
    pub theta: f64,
    /// Elements of a head that are rotated, the first ones; even.
    pub dim: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// True if elements 2d and 2d + 1 are a pair, false for d and d + dim / 2.
    pub interleaved: bool,
    /// XPos: its scale base.
    pub scale_base: Option<f64>,
    /// Scaling of the frequencies.
    pub scaling: RopeScaling,
    /// Longest sequence of training, for [`RopeType::Dynamic`] and [`RopeType::Yarn`].
    pub original_max: usize,
}

impl RotarySpec {
    /// True if the rotation depends on the length of the sequence or differs between queries and keys, so that it needs a table of its own for each
    /// token of a batch.
    pub fn is_per_token(&self) -> bool {
        self.scale_base.is_some() || self.scaling.rope_type == RopeType::Dynamic
    }

    /// Frequencies for a sequence of `length` tokens, `dim / 2` numbers in f32 as transformers rounds them, and the factor on cosines and sines.
    pub fn frequencies(&self, length: usize) -> (Vec<f32>, f32) {
        let (dim, factor) = (self.dim as f64, self.scaling.factor.unwrap_or(1.0));
        let of_base = |theta: f64| -> Vec<f32> {
            (0..self.dim / 2)
                .map(|d| {
                    let exponent = (2 * d) as f32 / self.dim as f32;
                    1.0 / (theta as f32 as f64).powf(f64::from(exponent)) as f32
                })
                .collect()
        };
        match self.scaling.rope_type {
            RopeType::Default => (of_base(self.theta), 1.0),
            RopeType::Linear => {
                let scaled = of_base(self.theta).into_iter().map(|f| f / factor as f32);
                (scaled.collect(), 1.0)
            }
            RopeType::Dynamic => {
                let longest = self.original_max as f64;
                let length = (length as f64).max(longest);
                let stretch = factor * length / longest - (factor - 1.0);
                (of_base(self.theta * stretch.powf(dim / (dim - 2.0))), 1.0)
            }
            RopeType::Yarn => (
                self.yarn(&of_base(self.theta), factor),
                self.scaling.yarn_magnitude() as f32,
            ),
        }
    }

    fn yarn(&self, frequencies: &[f32], factor: f64) -> Vec<f32> {
        let dim = self.dim as f64;
        // The element whose frequency makes `rotations` rotations within the original maximum.
        let element = |rotations: f64| {
            let longest = self.original_max as f64;
            dim * (longest / (rotations * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln())
        };
        let (fast, slow) = self.scaling.betas();
        let (mut low, mut high) = (element(fast), element(slow));
        if self.scaling.truncate.unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let scaled = |(d, &f): (usize, &f32)| {
            let divided = ((d as f64 - low) / (high - low)).clamp(0.0, 1.0) as f32;
            f / factor as f32 * divided + f * (1.0 - divided)
        };
        frequencies.iter().enumerate().map(scaled).collect()
    }

    /// XPos: the factor on queries of each pair of elements at a position of a sequence of `length` tokens; keys have the inverse. 1 without XPos.
    pub fn decay(&self, position: usize, length: usize) -> Vec<f32> {
        let dim = self.dim as f64;
        let Some(base) = self.scale_base else {
            return vec![1.0; self.dim / 2];
        };
        let power = (position as f64 - (length / 2) as f64) / base;
        let of_pair = |d: usize| {
            let scale = ((2 * d) as f64 + 0.4 * dim) / (1.4 * dim);
            scale.powf(power) as f32
        };
        (0..self.dim / 2).map(of_pair).collect()
    }

    /// The elements of a head in the order in which elements d and d + head_dim / 2 are a pair, the rotated pairs first; `None` where that is the
    /// order in which they are.
    pub fn element_order(&self) -> Option<Vec<usize>> {
        if self.dim == self.head_dim && !self.interleaved {
            return None;
        }
        let (pairs, rest) = (self.dim / 2, (self.head_dim - self.dim) / 2);
        let first = |d: usize| if self.interleaved { 2 * d } else { d };
        let second = |d: usize| {
            if self.interleaved {
                2 * d + 1
            } else {
                d + pairs
            }
        };
        let order = (0..pairs)
            .map(first)
            .chain((0..rest).map(|d| self.dim + d))
            .chain((0..pairs).map(second))
            .chain((0..rest).map(|d| self.dim + rest + d));
        Some(order.collect())
    }
}
