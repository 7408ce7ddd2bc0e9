//! Gradients with activation checkpointing.
//!
//! The usual step records every operation of the forward pass and saves activations for the backward pass of each: for a layer of
//! ModernBERT about a dozen times its input. Here the forward pass runs without a graph and saves only the input of each layer
//! (`[tokens, hidden]` in f32). Then, from the head down, one layer at a time is recomputed with a graph and differentiated:
//!
//! ```text
//! x[0] = embed(ids),  x[i+1] = layer_i(x[i])          no graph
//! g    = ∂loss/∂x[L]                                  the head, with a graph
//! g    = ∂(layer_i(x[i]) · g)/∂x[i]                   for i = L-1 … 0, with a graph that is then dropped
//! ```
//!
//! The derivative of the dot product with the incoming gradient g is the one of the chain rule, so that gradients are those of the usual
//! step, bit-identical where the backend computes an operation alike with and without a graph (the CPU does). Dropout is a function of its
//! key and drops the same elements both times. The cost is one more forward pass of the layers, about a third more computation.
//!
//! This is not a node in Burn's graph because a node whose backward pass records and differentiates a layer would meet the parameters of
//! the graph that is being traversed and is locked. The explicit loop over the layers needs no such node, and the training step needs
//! gradients by parameter anyway.

#[cfg(test)]
mod tests;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Gradients, Tensor};
use modernbert::batch::PackedBatch;
use modernbert::model::{MaskedLm, MaskedLmOutput, MaskedTokens};

/// Loss and hits of a batch, and the gradients of `loss_sum / denominator`.
///
/// The model and the tensors must be on a device with gradients; the output is not.
pub fn gradients(
    model: &MaskedLm,
    batch: &PackedBatch,
    masked: &MaskedTokens,
    denominator: f64,
) -> (MaskedLmOutput, GradientsParams) {
    let encoder = &model.model;
    let layers = encoder.num_layers();
    let mut inputs = Vec::with_capacity(layers);
    let mut x = {
        let plain = encoder.valid();
        let batch = batch.clone().inner();
        let pass = plain.pass(&batch);
        let mut x = plain.embed(&batch);
        for layer in 0..layers {
            inputs.push(x.clone());
            x = plain.layer(layer, x, &pass);
        }
        Tensor::from_inner(x).require_grad()
    };

    let mut sum = Sum {
        model,
        accumulator: GradientsAccumulator::new(),
    };
    let output = model.score(encoder.final_norm(x.clone()), masked);
    let loss = output.loss_sum.clone() / denominator;
    let mut grad = sum.add(loss.backward(), &x);
    let output = MaskedLmOutput {
        loss_sum: output.loss_sum.inner(),
        correct: output.correct.inner(),
    };

    let pass = encoder.pass(batch);
    for layer in (0..layers).rev() {
        let Some(input) = inputs.pop() else { break };
        x = Tensor::from_inner(input).require_grad();
        let out = encoder.layer(layer, x.clone(), &pass);
        grad = sum.add((out * Tensor::from_inner(grad)).sum().backward(), &x);
    }
    let embedded = encoder.embed(batch);
    sum.collect((embedded * Tensor::from_inner(grad)).sum().backward());
    (output, sum.accumulator.grads())
}

/// Gradients by parameter, from several backward passes.
struct Sum<'a> {
    model: &'a MaskedLm,
    accumulator: GradientsAccumulator<MaskedLm>,
}

impl Sum<'_> {
    /// Adds a pass, and returns the gradient of what the pass began with.
    fn add(&mut self, mut grads: Gradients, input: &Tensor<2>) -> Tensor<2> {
        let grad = input.grad_remove(&mut grads);
        self.collect(grads);
        grad.expect("the output of a stage depends on its input")
    }

    fn collect(&mut self, grads: Gradients) {
        let grads = GradientsParams::from_grads(grads, self.model);
        self.accumulator.accumulate(self.model, grads);
    }
}
