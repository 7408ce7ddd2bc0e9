//! A linear layer that stores its weight as checkpoints do.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::precision::Precision;
use super::row_order::in_order;
use crate::ops;

/// `x · weightᵀ + bias`, weight `[out, in]`.
#[derive(Module, Debug)]
pub(super) struct Linear {
    pub(super) weight: Param<Tensor<2>>,
    pub(super) bias: Option<Param<Tensor<1>>>,
}

/// A parameter of zeros that takes no memory: one element seen as a matrix. It is replaced when the model is loaded or initialized.
pub(super) fn zeros(shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
    Param::from_tensor(Tensor::<2>::zeros([1, 1], device).expand(shape))
}

impl Linear {
    pub(super) fn new(input: usize, output: usize, bias: bool, device: &Device) -> Self {
        Self {
            weight: zeros([output, input], device),
            bias: bias.then(|| Param::from_tensor(Tensor::zeros([output], device))),
        }
    }

    /// Stores the weight in the dtype of `precision`.
    pub(super) fn cast_weights_to(&mut self, precision: Precision) {
        let weight = precision.to_compute(self.weight.val());
        self.weight = Param::initialized(self.weight.id, weight);
    }

    /// The weight, in whose place zeros remain that take no memory.
    pub(super) fn take_weight(&mut self) -> Tensor<2> {
        let weight = self.weight.val();
        self.weight = zeros(weight.dims(), &weight.device());
        weight
    }

    /// [`Self::forward`] with the outputs in another order: output i is that of row `order[i]` of the weight.
    pub(super) fn forward_rows(&self, input: Tensor<2>, order: Option<&[usize]>) -> Tensor<2> {
        let Some(order) = order else {
            return self.forward(input);
        };
        let (weight, bias) = in_order(&self.weight, self.bias.as_ref(), order);
        ops::linear::linear(input, weight, bias)
    }

    /// `[tokens, in]` to `[tokens, out]`, in the dtype of the input.
    pub(super) fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        ops::linear::linear(
            input,
            self.weight.val(),
            self.bias.as_ref().map(|bias| bias.val()),
        )
    }
}
