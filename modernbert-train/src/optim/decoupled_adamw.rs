//! AdamW whose weight decay doesn't depend on the size of the learning rate, only on its schedule: the rule of finetuning, and of recipes with
//! `optimizer.kind = "adamw"`.
//!
//! ```text
//! θ = θ (1 - (lr / initial_lr) wd)
//! m = β1 m + (1 - β1) g,  v = β2 v + (1 - β2) g²
//! θ = θ - lr (m / (1 - β1^t)) / (sqrt(v) / sqrt(1 - β2^t) + ε)
//! ```
//!
//! Source: Composer's `DecoupledAdamW`, the default optimizer of the authors' finetuning. Decay applies to every parameter
//! that has more than one axis.

use burn::optim::{LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};
use modernbert::ops::optimizer::AdamWStep;

use super::rule::{MomentsState, UpdateRule};

/// Settings and optimizer in one; see the module docs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DecoupledAdamW {
    /// Decay of the first moment, 0.9 in the authors' finetuning.
    pub beta1: f64,
    /// Decay of the second moment, 0.98 in the authors' finetuning.
    pub beta2: f64,
    /// Added to the root of the second moment, 1e-6 in the authors' finetuning.
    pub epsilon: f64,
    /// Share of a weight lost per step at the initial learning rate.
    pub weight_decay: f64,
    /// The learning rate the schedule multiplies.
    pub initial_lr: f64,
}

impl DecoupledAdamW {
    /// The authors' betas and epsilon with this learning rate and decay.
    pub fn new(initial_lr: f64, weight_decay: f64) -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            weight_decay,
            initial_lr,
        }
    }
}

impl DecoupledAdamW {
    /// Numbers of update `time` (from 1) of a parameter of `rank` axes at the rate `lr`.
    pub(super) fn update_factors(&self, lr: LearningRate, time: usize, rank: usize) -> AdamWStep {
        let power = time.min(i32::MAX as usize) as i32;
        let bias = |beta: f64| 1.0 - beta.powi(power);
        AdamWStep {
            lr: lr / bias(self.beta1),
            b1: self.beta1,
            b2: self.beta2,
            epsilon: self.epsilon,
            root_scale: 1.0 / bias(self.beta2).sqrt(),
            stable: false,
            // The decay at the corrected rate is what it would be at the rate itself.
            decay: if rank > 1 {
                self.weight_decay * bias(self.beta1) / self.initial_lr
            } else {
                0.0
            },
        }
    }
}

impl Optimizer for DecoupledAdamW {
    type State<const D: usize> = MomentsState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        UpdateRule::DecoupledAdamW(*self).step_one(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.moved_to(device)
    }
}
