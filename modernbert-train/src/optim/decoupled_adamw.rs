//! AdamW whose weight decay doesn't depend on the size of the learning rate, only on its schedule; for finetuning.
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

use super::stable_adamw::MomentsState;

/// Settings and optimizer in one; see the module's page.
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

impl Optimizer for DecoupledAdamW {
    type State<const D: usize> = MomentsState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (b1, b2) = (self.beta1, self.beta2);
        let square = grad.clone() * grad.clone();
        let (time, moment_1, moment_2) = match state {
            None => (1, grad * (1.0 - b1), square * (1.0 - b2)),
            Some(state) => (
                state.time + 1,
                state.moment_1 * b1 + grad * (1.0 - b1),
                state.moment_2 * b2 + square * (1.0 - b2),
            ),
        };
        let power = time.min(i32::MAX as usize) as i32;
        let (bias_1, bias_2) = (1.0 - b1.powi(power), 1.0 - b2.powi(power));
        let decayed = if D > 1 && self.weight_decay != 0.0 {
            tensor * (1.0 - lr / self.initial_lr * self.weight_decay)
        } else {
            tensor
        };
        let root = moment_2.clone().sqrt() / bias_2.sqrt() + self.epsilon;
        let updated = decayed - moment_1.clone() / root * (lr / bias_1);
        let state = MomentsState {
            time,
            moment_1,
            moment_2,
        };
        (updated, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.moved_to(device)
    }
}
