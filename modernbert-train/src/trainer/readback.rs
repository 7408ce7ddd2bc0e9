//! Numbers of steps that are still on the device, and reading them back together.

use burn::tensor::Tensor;
use std::sync::Arc;
use std::time::Duration;

use super::learner::MlmStepOutput;
use super::window::Window;
use crate::optim::GradientSquares;

/// A step whose loss, hits and gradient norms are still on the device.
pub(super) struct Pending {
    step: u64,
    micro_batches: usize,
    /// Names of the parameters whose gradients' squares were summed.
    names: Arc<[String]>,
    /// Loss of each micro-batch, hits of each, sum of squares of each gradient.
    values: Tensor<1>,
    /// What the host knows of the step.
    known: Window,
}

impl Pending {
    pub(super) fn new(
        step: u64,
        outputs: Vec<MlmStepOutput>,
        squares: &GradientSquares,
        names: Arc<[String]>,
        known: Window,
    ) -> Self {
        let micro_batches = outputs.len();
        let (losses, hits): (Vec<_>, Vec<_>) = outputs
            .into_iter()
            .map(|output| (output.loss_sum, output.correct))
            .unzip();
        let parts = losses.into_iter().chain(hits).chain(squares.sums.clone());
        Self {
            step,
            micro_batches,
            names,
            values: Tensor::cat(parts.collect(), 0),
            known,
        }
    }

    /// `go`, `[1]`, as long as every number of the step is finite; 0 once one isn't. Nothing is read back.
    pub(super) fn gate(&self, go: Tensor<1>) -> Tensor<1> {
        let finite = self.values.clone().abs().lower_equal_elem(f32::MAX);
        go * finite.float().min()
    }

    /// The step's numbers from its part of what was read.
    fn finish(self, values: &[f32]) -> Result<Window, String> {
        let (losses, rest) = values.split_at(self.micro_batches);
        let (hits, squares) = rest.split_at(self.micro_batches);
        let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>();
        let (loss_sum, norm) = (sum(losses), sum(squares).sqrt());
        let bad = squares.iter().position(|square| !square.is_finite());
        let culprit = if !loss_sum.is_finite() {
            Some(("the loss".to_string(), loss_sum))
        } else {
            bad.map(|i| {
                let name = self.names.get(i).map_or("a parameter", String::as_str);
                (format!("the gradient of {name}"), f64::from(squares[i]))
            })
        };
        if let Some((what, value)) = culprit {
            let first = bad
                .filter(|_| !loss_sum.is_finite())
                .and_then(|i| self.names.get(i))
                .map_or(String::new(), |name| {
                    format!(", and so is the gradient of {name}")
                });
            return Err(format!(
                "{what} of step {} is not finite ({value}){first}. Lower optimizer.learning_rate or look at the data of this step. \
                 The weights were left as they were before it",
                self.step
            ));
        }
        Ok(Window {
            steps: 1,
            loss_sum,
            correct: sum(hits),
            norm,
            ..self.known
        })
    }
}

/// Reads all steps back in one transfer; `time` is what they took together.
pub(super) fn read_back(pending: Vec<Pending>, time: Duration) -> Result<Vec<Window>, String> {
    if pending.is_empty() {
        return Ok(Vec::new());
    }
    let lengths: Vec<usize> = pending.iter().map(|one| one.values.dims()[0]).collect();
    let all = Tensor::cat(pending.iter().map(|one| one.values.clone()).collect(), 0);
    let values = all
        .try_into_vec_as::<f32>()
        .map_err(|error| format!("the device could not be read: {error}"))?;
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
        let output = MlmStepOutput {
            loss_sum: one(loss),
            correct: one(1.0),
            stats: Default::default(),
        };
        let names: Arc<[String]> = ["head.norm.weight".to_string(), "decoder.bias".into()].into();
        let squares = GradientSquares {
            names: names.to_vec(),
            sums: Some(Tensor::from_floats(squares, &device)),
        };
        Pending::new(
            7,
            vec![output.clone(), output],
            &squares,
            names,
            Window::default(),
        )
    }

    fn read(loss: f32, squares: [f32; 2]) -> Result<Vec<Window>, String> {
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
    fn a_gate_that_has_closed_stays_closed() {
        let gate = |go, loss, squares| pending(loss, squares).gate(go);
        let read = |go: &Tensor<1>| go.clone().into_scalar::<f32>();
        let mut go = Tensor::ones([1], &test_support::device());
        go = gate(go, 2.0, [3e38, 3e38]);
        assert_eq!(read(&go), 1.0);
        for (loss, squares) in [
            (f32::NAN, [1.0, 1.0]),
            (1.0, [f32::INFINITY, 1.0]),
            (1.0, [1.0, f32::NAN]),
        ] {
            let shut = gate(go.clone(), loss, squares);
            assert_eq!(read(&shut), 0.0, "{loss} {squares:?}");
            assert_eq!(read(&gate(shut, 1.0, [1.0, 1.0])), 0.0);
        }
    }

    #[test]
    fn what_is_not_finite_is_named_with_step_and_tensor() {
        let message = read(1.0, [1.0, f32::NAN]).unwrap_err();
        assert!(
            message.starts_with("the gradient of decoder.bias of step 7 is not finite"),
            "{message}"
        );
        let message = read(f32::INFINITY, [f32::NAN, 1.0]).unwrap_err();
        assert!(
            message.starts_with(
                "the loss of step 7 is not finite (inf), and so is the gradient of head.norm.weight"
            ),
            "{message}"
        );
        assert!(
            read(f32::NAN, [1.0, 1.0])
                .unwrap_err()
                .starts_with("the loss of step 7")
        );
    }
}
