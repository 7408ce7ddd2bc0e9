//! One pre-norm layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::attention::Attention;
use super::encoder::Pass;
use super::mlp::Mlp;
use super::norm::LayerNorm;
use crate::config::{LayerType, ModernBertConfig};
use crate::ops::dropout::Site;

/// A layer of the encoder. The first one has no attention norm, because the embeddings end in a norm.
#[derive(Module, Debug)]
pub(super) struct EncoderLayer {
    #[module(skip)]
    index: usize,
    attn_norm: Option<LayerNorm>,
    attn: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl EncoderLayer {
    pub(super) fn new(
        config: &ModernBertConfig,
        index: usize,
        kind: LayerType,
        device: &Device,
    ) -> Self {
        Self {
            index,
            attn_norm: (index > 0).then(|| LayerNorm::new(config, device)),
            attn: Attention::new(config, kind, device),
            mlp_norm: LayerNorm::new(config, device),
            mlp: Mlp::new(config, device),
        }
    }

    /// `[total, hidden]` f32 in and out.
    pub(super) fn forward(&self, x: Tensor<2>, pass: &Pass) -> Tensor<2> {
        let precision = pass.precision;
        let normed = match &self.attn_norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let attended = self.attn.forward(precision.lower(normed), pass, self.index);
        let attended = pass.drop(attended, self.index, Site::AttentionOutput);
        let x = x + precision.raise(attended);
        let normed = self.mlp_norm.forward(x.clone());
        x + precision.raise(self.mlp.forward(precision.lower(normed), pass, self.index))
    }
}
