//! The gated MLP of a layer.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::activation::activate;
use super::encoder::ForwardPass;
use super::linear::Linear;
use super::precision::Precision;
use crate::config::{Activation, ModernBertConfig};
use crate::ops::dropout::Site;
use crate::ops::geglu::{geglu, geglu_mlp};

/// `Wo (act(p) * g)` with `[p, g] = Wi x`: the first half is activated, the second is the gate.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    wi: Linear,
    wo: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    pub(super) fn new(config: &ModernBertConfig, device: &Device) -> Self {
        let (hidden, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        Self {
            wi: Linear::new(hidden, 2 * inner, bias, device),
            wo: Linear::new(inner, hidden, bias, device),
            activation: config.hidden_activation,
        }
    }

    /// Stores the weights in the dtype of `precision`.
    pub(super) fn lower(&mut self, precision: Precision) {
        self.wi.lower(precision);
        self.wo.lower(precision);
    }

    /// `[total, hidden]` in and out, in the dtype of the input.
    pub(super) fn forward(&self, input: Tensor<2>, pass: &ForwardPass, layer: usize) -> Tensor<2> {
        let biased = self.wi.bias.is_some() || self.wo.bias.is_some();
        let drops = pass.dropout_at(layer, Site::Mlp).is_some();
        if self.activation == Activation::Gelu && !biased && !drops {
            return geglu_mlp(input, self.wi.weight.val(), self.wo.weight.val());
        }
        let u = self.wi.forward(input);
        let gated = match self.activation {
            Activation::Gelu => geglu(u),
            other => {
                let [activated, gate] = u
                    .chunk(2, 1)
                    .try_into()
                    .expect("two chunks of an even number of columns");
                activate(other, activated) * gate
            }
        };
        self.wo.forward(pass.drop(gated, layer, Site::Mlp))
    }
}
