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
//! Decay leaves out norms and biases: every parameter with one axis. The step itself is [`modernbert::ops::optimizer`]; the
//! divisor stays on the device, so it reads nothing back. Source: paper, section 2.2.2; torch-optimi's `StableAdamW`, which the recipe used.

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor, TensorData};
use modernbert::ops::optimizer::{AdamWStep, Parameter, SteppedParameter, adamw_all};

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

    /// The optimizer.
    pub fn build(self) -> StableAdamW {
        StableAdamW { config: self }
    }
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct StableAdamW {
    config: StableAdamWConfig,
}

/// Moments of one parameter, and the number of steps behind them.
#[derive(Clone)]
pub struct MomentsState<const D: usize> {
    pub(super) time: usize,
    pub(super) moment_1: Tensor<D>,
    pub(super) moment_2: Tensor<D>,
}

impl<const D: usize> MomentsState<D> {
    /// Weight and state after a step.
    pub(super) fn after(stepped: SteppedParameter, time: usize) -> (Tensor<D>, Self) {
        let (weight, moment_1, moment_2) = stepped.into_tensors();
        let state = Self {
            time,
            moment_1,
            moment_2,
        };
        (weight, state)
    }

    pub(super) fn moved_to(self, device: &Device) -> Self {
        Self {
            time: self.time,
            moment_1: self.moment_1.to_device(device),
            moment_2: self.moment_2.to_device(device),
        }
    }
}

/// Written by hand: the derive macro of this name works inside burn-optim alone. The step count travels as a tensor of one
/// number.
impl<const D: usize> RecordState for MomentsState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "time", TensorData::from([self.time as i64]));
        out.push_tensor(prefix, "moment_1", self.moment_1.to_data());
        out.push_tensor(prefix, "moment_2", self.moment_2.to_data());
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let time = src.take_tensor(prefix, "time")?;
        let time = time.iter::<i64>().next()?;
        Some(Self {
            time: usize::try_from(time).ok()?,
            moment_1: Tensor::from_data(src.take_tensor(prefix, "moment_1")?, device),
            moment_2: Tensor::from_data(src.take_tensor(prefix, "moment_2")?, device),
        })
    }
}

/// `(β^t - β) / (β^t - 1)`.
fn debiased(beta: f64, time: usize) -> f64 {
    let power = beta.powi(time.min(i32::MAX as usize) as i32);
    (power - beta) / (power - 1.0)
}

impl StableAdamW {
    /// A parameter as [`adamw_all`] takes it, and the number of steps behind it after the next one.
    pub(super) fn prepare<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<MomentsState<D>>,
    ) -> (Parameter, usize) {
        let config = self.config;
        let (time, moments) = match state {
            // Both betas are 0 in the first step: what the moments start from doesn't matter.
            None => (1, (tensor.zeros_like(), tensor.zeros_like())),
            Some(state) => (state.time + 1, (state.moment_1, state.moment_2)),
        };
        let step = AdamWStep {
            lr,
            b1: debiased(config.beta1, time),
            b2: debiased(config.beta2, time),
            epsilon: config.epsilon,
            root_scale: 1.0,
            stable: true,
            decay: if D > 1 {
                config.weight_decay / config.max_lr
            } else {
                0.0
            },
        };
        (Parameter::new(tensor, grad, moments, step), time)
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
        let (parameter, time) = self.prepare(lr, tensor, grad, state);
        let mut stepped = adamw_all(vec![parameter], None);
        let (tensor, state) = MomentsState::after(stepped.remove(0), time);
        (tensor, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        state.moved_to(device)
    }
}
