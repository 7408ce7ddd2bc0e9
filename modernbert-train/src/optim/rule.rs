//! The update rules, and their shared code: moments and one parameter's update.

use burn::optim::{LearningRate, RecordState, StateSink, StateSource};
use burn::tensor::{DType, Device, Tensor, TensorData};
use modernbert::ops::optimizer::{
    AdamWStep, KahanStepped, Parameter, SteppedParameter, adamw_all, adamw_kahan,
};

use super::decoupled_adamw::DecoupledAdamW;
use super::stable_adamw::StableAdamWConfig;

/// Rule for updating a parameter: the settings of one of the optimizers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// StableAdamW, the default of pretraining.
    StableAdamW(StableAdamWConfig),
    /// AdamW with decoupled weight decay, the rule of finetuning; in a recipe `optimizer.kind = "adamw"`.
    DecoupledAdamW(DecoupledAdamW),
}

impl From<StableAdamWConfig> for UpdateRule {
    fn from(config: StableAdamWConfig) -> Self {
        Self::StableAdamW(config)
    }
}

impl From<DecoupledAdamW> for UpdateRule {
    fn from(config: DecoupledAdamW) -> Self {
        Self::DecoupledAdamW(config)
    }
}

impl UpdateRule {
    /// Input of [`adamw_all`] for a parameter, and the number of its updates including this one.
    pub(super) fn prepare<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<MomentsState<D>>,
    ) -> (Parameter, usize) {
        let (time, moments) = match state {
            None => (1, (tensor.zeros_like(), tensor.zeros_like())),
            Some(state) => (state.time + 1, (state.moment_1, state.moment_2)),
        };
        let step = self.update_factors(lr, time, D);
        (Parameter::new(tensor, grad, moments, step), time)
    }

    fn update_factors(&self, lr: LearningRate, time: usize, rank: usize) -> AdamWStep {
        match self {
            Self::StableAdamW(config) => config.update_factors(lr, time, rank),
            Self::DecoupledAdamW(config) => config.update_factors(lr, time, rank),
        }
    }

    /// Updates a parameter in half precision by Kahan summation, only if the flag `apply`, `[1]`, is absent or above 0. Moments are in f32.
    pub(super) fn step_half<const D: usize>(
        &self,
        lr: LearningRate,
        weight: Tensor<D>,
        grad: Tensor<D>,
        state: Option<MomentsState<D>>,
        apply: Option<Tensor<1>>,
    ) -> (Tensor<D>, MomentsState<D>) {
        let zeros = || weight.zeros_like();
        let moments = || zeros().cast(DType::F32);
        let state = state.unwrap_or_else(|| MomentsState {
            time: 0,
            moment_1: moments(),
            moment_2: moments(),
            compensation: None,
        });
        let time = state.time + 1;
        let before = KahanStepped {
            compensation: state.compensation.unwrap_or_else(zeros),
            weight,
            moment_1: state.moment_1,
            moment_2: state.moment_2,
        };
        let after = adamw_kahan(before, grad, self.update_factors(lr, time, D), apply);
        let state = MomentsState {
            time,
            moment_1: after.moment_1,
            moment_2: after.moment_2,
            compensation: Some(after.compensation),
        };
        (after.weight, state)
    }

    /// Updates one parameter.
    pub(super) fn step_one<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<MomentsState<D>>,
    ) -> (Tensor<D>, Option<MomentsState<D>>) {
        if is_half(tensor.dtype()) {
            let (tensor, state) = self.step_half(lr, tensor, grad, state, None);
            return (tensor, Some(state));
        }
        let (parameter, time) = self.prepare(lr, tensor, grad, state);
        let mut stepped = adamw_all(vec![parameter], None);
        let (tensor, state) = MomentsState::after(stepped.remove(0), time);
        (tensor, Some(state))
    }
}

/// Returns whether weights of this dtype are updated by Kahan summation.
pub(super) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

/// Moments of one parameter, and the number of updates that made them.
#[derive(Clone)]
pub struct MomentsState<const D: usize> {
    pub(super) time: usize,
    pub(super) moment_1: Tensor<D>,
    pub(super) moment_2: Tensor<D>,
    /// Accumulated rounding error of a half-precision weight; `None` for other weights, and before the first update.
    pub(super) compensation: Option<Tensor<D>>,
}

impl<const D: usize> MomentsState<D> {
    /// Weight and state after an update.
    pub(super) fn after(stepped: SteppedParameter, time: usize) -> (Tensor<D>, Self) {
        let (weight, moment_1, moment_2) = stepped.into_tensors();
        let state = Self {
            time,
            moment_1,
            moment_2,
            compensation: None,
        };
        (weight, state)
    }

    pub(super) fn moved_to(self, device: &Device) -> Self {
        Self {
            time: self.time,
            moment_1: self.moment_1.to_device(device),
            moment_2: self.moment_2.to_device(device),
            compensation: self.compensation.map(|kept| kept.to_device(device)),
        }
    }
}

/// Written by hand: the derive macro of this name works inside burn-optim alone. The count is stored as a tensor of one number.
impl<const D: usize> RecordState for MomentsState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "time", TensorData::from([self.time as i64]));
        out.push_tensor(prefix, "moment_1", self.moment_1.to_data());
        out.push_tensor(prefix, "moment_2", self.moment_2.to_data());
        if let Some(compensation) = &self.compensation {
            out.push_tensor(prefix, "compensation", compensation.to_data());
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let time = src.take_tensor(prefix, "time")?;
        let time = time.iter::<i64>().next()?;
        Some(Self {
            time: usize::try_from(time).ok()?,
            moment_1: Tensor::from_data(src.take_tensor(prefix, "moment_1")?, device),
            moment_2: Tensor::from_data(src.take_tensor(prefix, "moment_2")?, device),
            compensation: src.take_tensor(prefix, "compensation").map(|data| {
                let dtype = data.dtype();
                Tensor::from_data(data, (device, dtype))
            }),
        })
    }
}
