//! StableAdamW: AdamW whose step shrinks, per tensor, where the second moment lags behind the gradient.
//!
//! With gradient g at step t (from 1), state m = v = 0:
//!
//! ```text
//! b1 = (β1^t - β1) / (β1^t - 1)              bias correction folded into the betas; both are 0 at t = 1
//! b2 = (β2^t - β2) / (β2^t - 1)
//! m  = m + (1 - b1)(g - m)
//! v  = b2 v + (1 - b2) g²
//! η  = lr / max(1, sqrt(mean(g² / max(v, ε²))))   mean over the whole tensor
//! θ  = θ (1 - (η / max_lr) wd)                fully decoupled: at the peak, unclipped, exactly (1 - wd)
//! θ  = θ - η m / (sqrt(v) + ε)
//! ```
//!
//! Decay leaves out norms and biases: every parameter with one axis. The update itself is [`modernbert::ops::optimizer`]; the
//! divisor stays on the device, so nothing is read back. Source: paper, section 2.2.2; torch-optimi's `StableAdamW`, which the recipe used.

use burn::optim::{LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};
use modernbert::ops::optimizer::AdamWStep;

use super::rule::{MomentsState, UpdateRule};

/// Settings of [`StableAdamW`]; the defaults are the published recipe's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StableAdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Floor of the second moment's root.
    pub epsilon: f64,
    /// Share of a weight lost per step at the peak learning rate.
    pub weight_decay: f64,
    /// The peak learning rate, to which decay is relative.
    pub max_lr: f64,
}

impl StableAdamWConfig {
    /// The published settings for a peak learning rate.
    pub fn new(max_lr: f64) -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            weight_decay: 1e-5,
            max_lr,
        }
    }

    /// The rule as an optimizer of Burn.
    pub fn build(self) -> StableAdamW {
        StableAdamW { config: self }
    }
}

/// StableAdamW as an optimizer of Burn; see the module docs.
#[derive(Clone, Debug)]
pub struct StableAdamW {
    config: StableAdamWConfig,
}

/// `(β^t - β) / (β^t - 1)`.
fn debiased(beta: f64, time: usize) -> f64 {
    let power = beta.powi(time.min(i32::MAX as usize) as i32);
    (power - beta) / (power - 1.0)
}

impl StableAdamWConfig {
    /// Numbers of update `time` (from 1) of a parameter of `rank` axes at the rate `lr`. Both betas are 0 in the first update, so that the
    /// initial moments have no effect.
    pub(super) fn update_factors(&self, lr: LearningRate, time: usize, rank: usize) -> AdamWStep {
        AdamWStep {
            lr,
            b1: debiased(self.beta1, time),
            b2: debiased(self.beta2, time),
            epsilon: self.epsilon,
            root_scale: 1.0,
            stable: true,
            decay: if rank > 1 {
                self.weight_decay / self.max_lr
            } else {
                0.0
            },
        }
    }
}

impl Optimizer for StableAdamW {
    type State<const D: usize> = MomentsState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        UpdateRule::StableAdamW(self.config).step_one(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.moved_to(device)
    }
}
