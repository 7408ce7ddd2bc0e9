//! LayerNorm and RMSNorm, with or without weight and bias.
//!
//! LayerNorm is one op, alone or with the residual sum; without a weight it is the same op with a weight of ones. RMSNorm is composed of tensor
//! operations, in f32.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};

use crate::config::flexbert::{NormKind, NormSpec};
use crate::ops;
use crate::ops::convert::convert;
use crate::ops::fp8::Quantized;

/// A norm over the hidden axis.
#[derive(Module, Debug)]
pub(super) struct Norm {
    weight: Option<Param<Tensor<1>>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    spec: NormSpec,
}

impl Norm {
    pub(super) fn new(spec: &NormSpec, device: &Device) -> Self {
        let width = spec.width;
        Self {
            weight: spec
                .scale
                .then(|| Param::from_tensor(Tensor::ones([width], device))),
            bias: spec
                .bias
                .then(|| Param::from_tensor(Tensor::zeros([width], device))),
            spec: *spec,
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
        let normed = match self.spec.kind {
            NormKind::Layernorm => {
                let weight = self.weight(&input.device());
                ops::layer_norm::layer_norm_to(input, weight, self.spec.eps, out)
            }
            NormKind::Rmsnorm => self.root_mean_square(input, out),
        };
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
        let (sum, normed) = match self.spec.kind {
            NormKind::Layernorm => {
                let weight = self.weight(&x.device());
                ops::layer_norm::add_layer_norm(x, branch, weight, self.spec.eps, out)
            }
            NormKind::Rmsnorm => {
                let dtype = x.dtype();
                let sum = x + cast(branch, dtype);
                (sum.clone(), self.root_mean_square(sum, out))
            }
        };
        (sum, self.biased(normed, dtype))
    }

    /// `x + branch` in the dtype of `x`, and its norm, quantized. For LayerNorm without a bias.
    pub(super) fn add_forward_fp8(
        &self,
        x: Tensor<2>,
        branch: Tensor<2>,
    ) -> (Tensor<2>, Quantized) {
        let weight = self.weight(&x.device());
        ops::fp8::add_layer_norm(x, branch, weight, self.spec.eps)
    }

    /// The weight, or ones on this device, `[hidden]`.
    pub(super) fn weight(&self, device: &Device) -> Tensor<1> {
        match &self.weight {
            Some(weight) => weight.val(),
            None => Tensor::ones([self.spec.width], (device, DType::F32)),
        }
    }

    /// `x / sqrt(mean(x²) + eps)`, times the weight.
    fn root_mean_square(&self, x: Tensor<2>, dtype: DType) -> Tensor<2> {
        if x.dims()[0] == 0 {
            return cast(x, dtype);
        }
        let x = match x.dtype() {
            DType::F64 => x,
            _ => cast(x, DType::F32),
        };
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let mut normed = x / (mean_square + self.spec.eps).sqrt();
        if let Some(weight) = &self.weight {
            normed = normed * weight.val().unsqueeze();
        }
        cast(normed, dtype)
    }

    /// The dtype of the norm itself: a bias is added before rounding.
    fn unbiased(&self, input: DType, dtype: DType) -> DType {
        if self.bias.is_some() { input } else { dtype }
    }

    fn biased(&self, normed: Tensor<2>, dtype: DType) -> Tensor<2> {
        match &self.bias {
            Some(bias) => cast(normed + bias.val().unsqueeze(), dtype),
            None => normed,
        }
    }
}

fn cast(x: Tensor<2>, dtype: DType) -> Tensor<2> {
    if x.dtype() == dtype {
        x
    } else {
        convert(x, FloatDType::from(dtype))
    }
}
