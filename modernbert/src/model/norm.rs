//! LayerNorm, usually without bias.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

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

    /// `[tokens, hidden]` in and out, in the dtype of the input.
    pub(super) fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        let dtype = input.dtype();
        self.forward_to(input, dtype)
    }

    /// `[tokens, hidden]` in and out, the result in `dtype`.
    pub(super) fn forward_to(&self, input: Tensor<2>, dtype: DType) -> Tensor<2> {
        let out = self.unbiased(input.dtype(), dtype);
        let normed = ops::layer_norm::layer_norm_to(input, self.weight.val(), self.eps, out);
        self.biased(normed, dtype)
    }

    /// `x + branch` in the dtype of `x`, and its norm in `dtype`.
    pub(super) fn add_forward(
        &self,
        x: Tensor<2>,
        branch: Tensor<2>,
        dtype: DType,
    ) -> (Tensor<2>, Tensor<2>) {
        let out = self.unbiased(x.dtype(), dtype);
        let (sum, normed) =
            ops::layer_norm::add_layer_norm(x, branch, self.weight.val(), self.eps, out);
        (sum, self.biased(normed, dtype))
    }

    /// The dtype of the norm itself: a bias is added before rounding.
    fn unbiased(&self, input: DType, dtype: DType) -> DType {
        if self.bias.is_some() { input } else { dtype }
    }

    fn biased(&self, normed: Tensor<2>, dtype: DType) -> Tensor<2> {
        let Some(bias) = &self.bias else {
            return normed;
        };
        let sum = normed + bias.val().unsqueeze();
        if sum.dtype() == dtype {
            sum
        } else {
            sum.cast(dtype)
        }
    }
}
