//! LayerNorm, usually without bias.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::config::ModernBertConfig;
use crate::ops;

/// LayerNorm over the hidden axis.
#[derive(Module, Debug)]
pub(super) struct LayerNorm {
    pub(super) weight: Param<Tensor<1>>,
    pub(super) bias: Option<Param<Tensor<1>>>,
    eps: f64,
}

impl LayerNorm {
    pub(super) fn new(config: &ModernBertConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            weight: Param::from_tensor(Tensor::ones([width], device)),
            bias: config
                .norm_bias
                .then(|| Param::from_tensor(Tensor::zeros([width], device))),
            eps: config.norm_eps,
        }
    }

    /// `[tokens, hidden]` in and out.
    pub(super) fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        ops::layer_norm::layer_norm(
            input,
            self.weight.val(),
            self.bias.as_ref().map(|bias| bias.val()),
            self.eps,
        )
    }
}
