//! The MLP of a layer, gated or not.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::activation::Activate;
use super::encoder::ForwardPass;
use super::linear::Linear;
use super::precision::Precision;
use crate::config::Activation;
use crate::config::flexbert::{LayerSpec, MlpSpec};
use crate::ops::dropout::Site;
use crate::ops::geglu::{geglu, geglu_mlp};

/// `Wo (act(p) * g)` with `[p, g] = Wi x`: the first half is activated, the second is the gate. Without a gate `Wo act(Wi x)`. A parallel layer has
/// the input projection itself.
#[derive(Module, Debug)]
pub(super) struct Mlp {
    wi: Option<Linear>,
    act: Activate,
    wo: Linear,
    #[module(skip)]
    spec: MlpSpec,
}

impl Mlp {
    pub(super) fn new(layer: &LayerSpec, hidden: usize, device: &Device) -> Self {
        let spec = layer.mlp;
        Self {
            wi: (!layer.is_parallel())
                .then(|| Linear::new(hidden, spec.in_rows(), spec.in_bias, device)),
            act: Activate::new(spec.activation, device),
            wo: Linear::new(spec.inner, hidden, spec.out_bias, device),
            spec,
        }
    }

    /// Stores the weights in the dtype of `precision`.
    pub(super) fn cast_weights_to(&mut self, precision: Precision) {
        self.wi
            .iter_mut()
            .for_each(|wi| wi.cast_weights_to(precision));
        self.wo.cast_weights_to(precision);
    }

    /// `Wi` and `Wo` of a layer that is not parallel.
    #[cfg(feature = "flex")]
    pub(super) fn into_weights(self) -> [Tensor<2>; 2] {
        let wi = self.wi.expect("Wi of a layer that is not parallel");
        [wi.weight.into_value(), self.wo.weight.into_value()]
    }

    /// `Wi` and `Wo` of a layer that is not parallel, in whose place zeros remain that take no memory.
    pub(super) fn take_weights(&mut self) -> [Tensor<2>; 2] {
        let wi = self.wi.as_mut();
        let wi = wi.expect("Wi of a layer that is not parallel");
        [wi.take_weight(), self.wo.take_weight()]
    }

    fn wi(&self) -> &Linear {
        self.wi
            .as_ref()
            .expect("Wi of a layer that is not parallel")
    }

    /// `[total, hidden]` in and out, in the dtype of the input, of a layer that is not parallel.
    pub(super) fn forward(&self, input: Tensor<2>, pass: &ForwardPass, layer: usize) -> Tensor<2> {
        let wi = self.wi();
        let biased = wi.bias.is_some() || self.wo.bias.is_some();
        let drops = pass.dropout_at(layer, Site::Mlp).is_some()
            || pass.dropout_at(layer, Site::MlpOutput).is_some();
        if self.is_geglu() && !biased && !drops {
            return geglu_mlp(input, wi.weight.val(), self.wo.weight.val());
        }
        self.output(wi.forward(input), pass, layer)
    }

    /// The MLP from its projected input, `[total, inner]` or with a gate `[total, 2 inner]`.
    pub(super) fn output(&self, u: Tensor<2>, pass: &ForwardPass, layer: usize) -> Tensor<2> {
        let inner = if self.is_geglu() {
            geglu(u)
        } else if self.spec.gated {
            let width = self.spec.inner;
            let activated = self.act.forward(u.clone().narrow(1, 0, width));
            activated * u.narrow(1, width, width)
        } else {
            self.act.forward(u)
        };
        let out = self.wo.forward(pass.drop(inner, layer, Site::Mlp));
        pass.drop(out, layer, Site::MlpOutput)
    }

    fn is_geglu(&self) -> bool {
        self.spec.gated && self.spec.activation == Activation::Gelu
    }
}
