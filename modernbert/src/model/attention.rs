//! The attention block: projection to q, k, v, packed attention, output projection.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::encoder::ForwardPass;
use super::linear::Linear;
use super::precision::Precision;
use crate::config::{LayerType, ModernBertConfig};
use crate::ops::attention::{AttentionSpec, attention};
use crate::ops::dropout::{Site, attention_with_dropout};

/// Self-attention of one layer.
#[derive(Module, Debug)]
pub(super) struct Attention {
    wqkv: Linear,
    wo: Linear,
    heads: usize,
    half_window: Option<usize>,
    theta: f64,
}

impl Attention {
    pub(super) fn new(config: &ModernBertConfig, layer: LayerType, device: &Device) -> Self {
        let (hidden, bias) = (config.hidden_size, config.attention_bias);
        Self {
            wqkv: Linear::new(hidden, 3 * hidden, bias, device),
            wo: Linear::new(hidden, hidden, bias, device),
            heads: config.num_attention_heads,
            half_window: match layer {
                LayerType::Global => None,
                LayerType::Local => Some(config.half_window()),
            },
            theta: config.rope_theta(layer),
        }
    }

    /// Sets the rotary base if the layer is global.
    pub(super) fn set_global_theta(&mut self, theta: f64) {
        if self.half_window.is_none() {
            self.theta = theta;
        }
    }

    /// Stores the weights in the dtype of `precision`.
    pub(super) fn lower(&mut self, precision: Precision) {
        self.wqkv.lower(precision);
        self.wo.lower(precision);
    }

    /// `[total, hidden]` in and out, in the dtype of the input.
    pub(super) fn forward(&self, input: Tensor<2>, pass: &ForwardPass, layer: usize) -> Tensor<2> {
        let [total, hidden] = input.dims();
        let head_dim = hidden / self.heads;
        let layout = &pass.layout;
        let table = pass
            .rotary
            .table(layout.max_seqlen(), head_dim, self.theta, &pass.device);
        let qkv = self
            .wqkv
            .forward(input)
            .reshape([total, 3, self.heads, head_dim]);
        let scale = 1.0 / (head_dim as f64).sqrt();
        let spec = AttentionSpec::new(layout.clone(), self.half_window, scale);
        let out = match pass.dropout_at(layer, Site::AttentionProbabilities) {
            None => attention(qkv, Some(table), spec),
            Some(dropped) => attention_with_dropout(qkv, Some(table), &spec, dropped),
        };
        self.wo.forward(out.reshape([total, hidden]))
    }
}
