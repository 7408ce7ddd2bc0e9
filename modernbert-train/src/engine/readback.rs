//! Losses and norms of steps that are still on the device, and their readback in one transfer.

use burn::tensor::Tensor;
use std::sync::Arc;
use std::time::Duration;

use super::error::EngineError;
use super::spikes::Spikes;
use super::task::LossSums;
use super::window::Window;
use crate::optim::GradientSquares;

/// A loss or a gradient that is NaN or infinite.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "{what} of step {step} is not finite ({value}){also}. {}. The weights were left as they were before it",
    if *step <= 1 {
        "No update came before: look at the weights that the run begins with (model.initializer_range), at the numbers in [model], and at the data of this step"
    } else {
        "Lower optimizer.learning_rate or look at the data of this step"
    }
)]
pub struct NotFinite {
    /// The step, counted from 1.
    pub step: u64,
    /// `the loss`, or `the gradient of NAME`.
    pub what: String,
    /// Its value; of a gradient the sum of its squares.
    pub value: f64,
    /// The first gradient that is also not finite, in words; empty if there is none.
    pub also: String,
}

/// A step whose loss, correct predictions and gradient norms are still on the device.
pub(super) struct Pending {
    step: u64,
    losses: usize,
    corrects: usize,
    /// Names of the parameters whose gradients' squares were summed.
    names: Arc<[String]>,
    /// Loss of each micro-batch, correct predictions of each, sum of squares of each gradient; where spikes are skipped, whether the
    /// update is applied, and the state of the losses after it.
    values: Tensor<1>,
    /// True if the last numbers are those of spikes.
    spikes: bool,
    /// The sums that are available on the host.
    known: Window,
}

impl Pending {
    pub(super) fn new(
        step: u64,
        sums: Vec<LossSums>,
        squares: &GradientSquares,
        known: Window,
    ) -> Self {
        let losses: Vec<Tensor<1>> = sums.iter().map(|sums| sums.loss.clone()).collect();
        let corrects: Vec<Tensor<1>> = sums.into_iter().filter_map(|sums| sums.correct).collect();
        let (count, hits) = (losses.len(), corrects.len());
        let parts = losses
            .into_iter()
            .chain(corrects)
            .chain(squares.sums.clone());
        Self {
            step,
            losses: count,
            corrects: hits,
            names: squares.names.clone(),
            values: Tensor::cat(parts.collect(), 0),
            spikes: false,
            known,
        }
    }

    /// Returns whether anything of the step has a weight.
    pub(super) fn has_loss(&self) -> bool {
        self.known.weight > 0
    }

    /// Mean loss of the step on the device, `[1]`.
    pub(super) fn loss(&self) -> Tensor<1> {
        let losses = self.values.clone().narrow(0, 0, self.losses);
        losses.sum() / self.known.weight.max(1) as f64
    }

    /// Adds whether the update is applied, `[1]`, and the state of the losses to what is read back.
    pub(super) fn with_spikes(mut self, applied: Tensor<1>, spikes: &Spikes) -> Self {
        let parts = [self.values, applied].into_iter().chain(spikes.state());
        self.values = Tensor::cat(parts.collect(), 0);
        self.spikes = true;
        self
    }

    /// The all-finite flag after this step: `all_finite`, `[1]`, if every value of the step is finite, and 0 otherwise. Nothing is read
    /// back.
    pub(super) fn gate(&self, all_finite: Tensor<1>) -> Tensor<1> {
        let finite = self.values.clone().abs().lower_equal_elem(f32::MAX);
        all_finite * finite.float().min()
    }

    /// The step's sums from its part of the readback.
    fn finish(self, values: &[f32]) -> Result<Window, NotFinite> {
        let (values, spikes) = match self.spikes {
            true => values.split_at(values.len() - 1 - Spikes::NUMBERS),
            false => (values, [].as_slice()),
        };
        let (losses, rest) = values.split_at(self.losses);
        let (corrects, squares) = rest.split_at(self.corrects);
        let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>();
        let (loss_sum, norm) = (sum(losses), sum(squares).sqrt());
        let bad = squares.iter().position(|square| !square.is_finite());
        let name = |i: usize| {
            let name = self.names.get(i).map_or("a parameter", String::as_str);
            format!("the gradient of {name}")
        };
        let found = match bad {
            _ if !loss_sum.is_finite() => Some(("the loss".to_string(), loss_sum)),
            Some(i) => Some((name(i), f64::from(squares[i]))),
            None => None,
        };
        if let Some((what, value)) = found {
            let also = bad.filter(|_| !loss_sum.is_finite());
            return Err(NotFinite {
                step: self.step,
                what,
                value,
                also: also.map_or(String::new(), |i| format!(", and so is {}", name(i))),
            });
        }
        Ok(Window {
            steps: 1,
            loss_sum,
            correct: sum(corrects),
            norm,
            skipped: u64::from(spikes.first().is_some_and(|&applied| applied <= 0.0)),
            spikes: match *spikes {
                [_, mean, variance, count] => Some([mean, variance, count].map(f32::to_bits)),
                _ => None,
            },
            ..self.known
        })
    }
}

/// Reads all steps back in one transfer; `time` is their duration together.
pub(super) fn read_back(pending: Vec<Pending>, time: Duration) -> Result<Vec<Window>, EngineError> {
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let lengths: Vec<usize> = pending.iter().map(|one| one.values.dims()[0]).collect();
    let all = Tensor::cat(pending.iter().map(|one| one.values.clone()).collect(), 0);
    let values = all
        .try_into_vec_as::<f32>()
        .map_err(|error| EngineError::Device(error.to_string()))?;
    let share = time / u32::try_from(pending.len()).unwrap_or(u32::MAX);
    let mut rest = values.as_slice();
    let mut windows = Vec::with_capacity(pending.len());
    for (one, length) in pending.into_iter().zip(lengths) {
        let (mine, others) = rest.split_at(length);
        rest = others;
        let mut window = one.finish(mine)?;
        window.time = share;
        windows.push(window);
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(loss: f32, squares: [f32; 2]) -> Pending {
        let device = test_support::device();
        let one = |x: f32| Tensor::<1>::from_floats([x], &device);
        let sums = LossSums {
            loss: one(loss),
            correct: Some(one(1.0)),
        };
        let names: Arc<[String]> = ["head.norm.weight".to_string(), "decoder.bias".into()].into();
        let squares = GradientSquares {
            names,
            sums: Some(Tensor::from_floats(squares, &device)),
        };
        Pending::new(7, vec![sums.clone(), sums], &squares, Window::default())
    }

    fn read(loss: f32, squares: [f32; 2]) -> Result<Vec<Window>, EngineError> {
        let both = vec![pending(1.5, [9.0, 16.0]), pending(loss, squares)];
        read_back(both, Duration::from_secs(2))
    }

    #[test]
    fn steps_are_read_together_and_kept_apart() {
        let windows = read(2.0, [0.0, 4.0]).unwrap();
        let numbers: Vec<_> = windows
            .iter()
            .map(|w| (w.loss_sum, w.correct, w.norm))
            .collect();
        assert_eq!(numbers, [(3.0, 2.0, 5.0), (4.0, 2.0, 2.0)]);
        assert_eq!(windows[1].time, Duration::from_secs(1));
    }

    #[test]
    fn the_all_finite_flag_stays_0_once_it_is_0() {
        let gate = |flag, loss, squares| pending(loss, squares).gate(flag);
        let read = |flag: &Tensor<1>| flag.clone().into_scalar::<f32>();
        let mut all_finite = Tensor::ones([1], &test_support::device());
        all_finite = gate(all_finite, 2.0, [3e38, 3e38]);
        assert_eq!(read(&all_finite), 1.0);
        for (loss, squares) in [
            (f32::NAN, [1.0, 1.0]),
            (1.0, [f32::INFINITY, 1.0]),
            (1.0, [1.0, f32::NAN]),
        ] {
            let shut = gate(all_finite.clone(), loss, squares);
            assert_eq!(read(&shut), 0.0, "{loss} {squares:?}");
            assert_eq!(read(&gate(shut, 1.0, [1.0, 1.0])), 0.0);
        }
    }

    #[test]
    fn a_non_finite_value_is_named_with_step_and_tensor() {
        let message = read(1.0, [1.0, f32::NAN]).unwrap_err().to_string();
        assert!(
            message.starts_with("the gradient of decoder.bias of step 7 is not finite"),
            "{message}"
        );
        let message = read(f32::INFINITY, [f32::NAN, 1.0])
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with(
                "the loss of step 7 is not finite (inf), and so is the gradient of head.norm.weight"
            ),
            "{message}"
        );
        assert!(
            read(f32::NAN, [1.0, 1.0])
                .unwrap_err()
                .to_string()
                .starts_with("the loss of step 7")
        );
    }
}
