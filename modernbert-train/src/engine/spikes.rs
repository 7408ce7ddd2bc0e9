//! Loss spikes: a step whose loss is far above the running mean of the losses leaves weights and moments as they are.
//!
//! With loss x, mean μ, variance s² and n losses before it, and a = 1 / min(n + 1, window):
//!
//! ```text
//! spike if n >= window and x > μ + deviations · s
//! x' = min(x, μ + deviations · s) once n >= window, else x
//! s² = (1 - a)(s² + a (x' - μ)²),   μ = μ + a (x' - μ)
//! ```
//!
//! A spike counts with its limit in place of its loss, so that losses which stay high raise the mean until they pass. All of it is on the
//! device: the optimizer skips its update by a flag, and the host receives the flag when the step's losses are read back.

use burn::tensor::{Device, Tensor};

/// Definition of a loss spike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpikeLimit {
    /// Standard deviations above the mean from which on a loss is a spike.
    pub deviations: f64,
    /// Steps over which mean and deviation run, and steps of a phase before the first can be a spike.
    pub window: u64,
}

/// The running mean and variance of the losses, on the device.
pub(super) struct Spikes {
    limit: SpikeLimit,
    /// Mean, variance and number of the losses, `[1]` each in f32.
    mean: Tensor<1>,
    variance: Tensor<1>,
    count: Tensor<1>,
}

impl Spikes {
    /// Numbers of the state, in the order of [`Self::state`].
    pub(super) const NUMBERS: usize = 3;

    /// The state saved in a checkpoint, or no losses.
    pub(super) fn new(limit: SpikeLimit, saved: Option<[u32; 3]>, device: &Device) -> Self {
        let of = |i: usize| {
            let value = saved.map_or(0.0, |bits| f32::from_bits(bits[i]));
            Tensor::from_floats([value], device)
        };
        Self {
            limit,
            mean: of(0),
            variance: of(1),
            count: of(2),
        }
    }

    /// Judges the mean loss of a step, `[1]`: 1 if its update is to be applied and 0 if it is a spike.
    pub(super) fn judge(&mut self, loss: Tensor<1>) -> Tensor<1> {
        let window = self.limit.window as f64;
        let deviation = self.variance.clone().sqrt() * self.limit.deviations;
        let limit = self.mean.clone() + deviation;
        let young = self.count.clone().lower_elem(window);
        // Comparisons with NaN are false: a loss that is not below the limit counts as a spike.
        let below = loss.clone().lower_equal(limit.clone());
        let applied = young.clone().bool_or(below);
        let counted = limit.mask_where(applied.clone(), loss);
        let count = self.count.clone() + 1.0;
        let share = count.clone().clamp_max(window).recip();
        let delta = counted - self.mean.clone();
        let step = delta.clone() * share.clone();
        self.variance = (self.variance.clone() + step.clone() * delta) * (share.neg() + 1.0);
        self.mean = self.mean.clone() + step;
        self.count = count;
        applied.float()
    }

    /// The flag of an update that is applied without a judgment: 1.
    pub(super) fn applied(&self) -> Tensor<1> {
        self.mean.ones_like()
    }

    /// Mean, variance and number of the losses after the last one judged, `[1]` each.
    pub(super) fn state(&self) -> [Tensor<1>; Self::NUMBERS] {
        [self.mean.clone(), self.variance.clone(), self.count.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formulas of the module docs in f64.
    struct Reference(f64, f64, f64);

    impl Reference {
        fn judge(&mut self, loss: f64, limit: SpikeLimit) -> bool {
            let Self(mean, variance, count) = *self;
            let highest = mean + limit.deviations * variance.sqrt();
            let applied = count < limit.window as f64 || loss <= highest;
            let delta = if applied { loss } else { highest } - mean;
            let share = 1.0 / (count + 1.0).min(limit.window as f64);
            *self = Self(
                mean + share * delta,
                (1.0 - share) * (variance + share * delta * delta),
                count + 1.0,
            );
            applied
        }
    }

    fn read(tensor: Tensor<1>) -> f32 {
        tensor.into_scalar::<f32>()
    }

    #[test]
    fn a_spike_is_skipped_and_a_lasting_rise_is_not() {
        let device = test_support::device();
        let limit = SpikeLimit {
            deviations: 4.0,
            window: 20,
        };
        let mut spikes = Spikes::new(limit, None, &device);
        let mut reference = Reference(0.0, 0.0, 0.0);
        let mut skipped = Vec::new();
        for step in 0..200 {
            let noise = f64::from((step * 37 % 11) as u32) / 50.0;
            let loss = match step {
                // Within the first window nothing is skipped.
                3 | 60 => 30.0,
                120.. => 9.0 + noise,
                _ => 5.0 + noise,
            };
            let applied = read(spikes.judge(Tensor::from_floats([loss as f32], &device))) > 0.5;
            assert_eq!(applied, reference.judge(loss, limit), "step {step}");
            if !applied {
                skipped.push(step);
            }
        }
        assert!(skipped.contains(&60), "{skipped:?}");
        assert!(!skipped.contains(&3), "{skipped:?}");
        assert!(
            skipped
                .iter()
                .all(|&step| step == 60 || (120..160).contains(&step)),
            "{skipped:?}"
        );
        let [mean, variance, count] = spikes.state().map(read);
        assert!((f64::from(mean) - reference.0).abs() < 1e-4 * reference.0);
        assert!((f64::from(variance) - reference.1).abs() < 1e-3 * reference.1.max(0.1));
        assert_eq!(count, 200.0);
        let saved = spikes.state().map(|number| read(number).to_bits());
        let mut again = Spikes::new(limit, Some(saved), &device);
        let next = |spikes: &mut Spikes| {
            let flag = read(spikes.judge(Tensor::from_floats([9.3], &device)));
            (flag, spikes.state().map(|number| read(number).to_bits()))
        };
        assert_eq!(next(&mut again), next(&mut spikes));
    }

    #[test]
    fn a_loss_that_is_no_number_is_not_applied() {
        let device = test_support::device();
        let limit = SpikeLimit {
            deviations: 4.0,
            window: 2,
        };
        let mut spikes = Spikes::new(limit, None, &device);
        for loss in [1.0, 2.0, 1.0] {
            assert_eq!(
                read(spikes.judge(Tensor::from_floats([loss], &device))),
                1.0
            );
        }
        assert_eq!(
            read(spikes.judge(Tensor::from_floats([f32::NAN], &device))),
            0.0
        );
        assert!(
            spikes
                .state()
                .map(read)
                .iter()
                .all(|number| number.is_finite())
        );
    }
}
