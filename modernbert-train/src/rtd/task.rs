//! Replaced-token detection as a task of the training loop.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use modernbert::device::{ReadError, read};

use super::{RowLosses, RtdModel};
use crate::engine::{BoxError, Counts, Evaluation, EvaluationError, LossSums, Task};
use crate::loader::{MlmItem, Prefetched};
use crate::optim::NamedOptimizer;
use crate::snapshot::RunState;

/// A micro-batch: a masked row, and the denominators of its step.
#[derive(Clone, Debug)]
pub struct RtdBatch {
    /// The row; [`MlmItem::step_labelled`] is the denominator of the generator's loss.
    pub item: MlmItem,
    /// Tokens of all rows of the step, padding not counted: the denominator of the discriminator's loss.
    pub step_tokens: usize,
}

/// The data of a run; see the [module](super).
pub struct RtdTask {
    /// Endless training rows.
    pub rows: Prefetched,
    /// Rows of a step.
    pub micro_batches: usize,
    /// Held-out rows.
    pub held_out: Vec<MlmItem>,
    /// Factor on the discriminator's loss: 50 in the paper.
    pub weight: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl RtdTask {
    /// Weight of the discriminator's loss in the paper.
    pub const WEIGHT: f64 = 50.0;

    fn losses(&self, model: &RtdModel, item: &MlmItem) -> Result<RowLosses, ReadError> {
        model.losses(item, self.seed)
    }
}

impl Task for RtdTask {
    type Model = RtdModel;
    type Batch = RtdBatch;

    const SCORED: bool = false;
    const COUNTS_CORRECT: bool = false;

    fn next_step(
        &mut self,
        _state: &RunState,
        _seen: u64,
    ) -> Result<Option<Vec<RtdBatch>>, BoxError> {
        let mut items = Vec::with_capacity(self.micro_batches);
        for _ in 0..self.micro_batches {
            match self.rows.next() {
                Some(item) => items.push(item?),
                None => return Ok(None),
            }
        }
        MlmItem::share_denominator(&mut items);
        let step_tokens = items.iter().map(|item| item.real_tokens).sum();
        let batch = |item| RtdBatch { item, step_tokens };
        Ok(Some(items.into_iter().map(batch).collect()))
    }

    fn counts(&self, batches: &[RtdBatch]) -> Counts {
        let items = || batches.iter().map(|batch| &batch.item);
        Counts {
            tokens: items().map(|item| item.real_tokens as u64).sum(),
            slots: items().map(|item| item.input_ids.len() as u64).sum(),
            rows: batches.len() as u64,
            weight: 1,
            flops: 0.0,
            position: batches
                .last()
                .and_then(|batch| batch.item.position_after(1)),
        }
    }

    fn gradients(&self, model: &RtdModel, batch: RtdBatch) -> (LossSums, GradientsParams) {
        let losses = match self.losses(model, &batch.item) {
            Ok(losses) => losses,
            // The loop reports panics of a device, which this is, as errors of the step.
            Err(error) => std::panic::panic_any(error.to_string()),
        };
        let generator = losses.generator / batch.item.step_labelled.max(1) as f64;
        let discriminator = losses.discriminator / batch.step_tokens.max(1) as f64;
        let loss = generator + discriminator * self.weight;
        let gradients = GradientsParams::from_grads(loss.backward(), model);
        let sums = LossSums {
            loss: loss.inner(),
            correct: None,
        };
        (sums, gradients)
    }

    fn evaluation_items(&self) -> usize {
        self.held_out.len()
    }

    /// The discriminator's mean loss and accuracy over all tokens; the generator's loss and the share of replaced tokens among the metrics.
    fn evaluate(&mut self, model: &RtdModel, _step: u64) -> Result<Evaluation, EvaluationError> {
        let (mut sums, mut tokens, mut labelled, mut replaced) = ([0.0; 3], 0, 0, 0);
        for item in &self.held_out {
            let losses = self.losses(model, item).map_err(EvaluationError::other)?;
            let all = Tensor::cat(
                vec![losses.generator, losses.discriminator, losses.right],
                0,
            );
            let all = read(all).map_err(EvaluationError::other)?;
            for (sum, value) in sums.iter_mut().zip(all) {
                *sum += f64::from(value);
            }
            tokens += item.real_tokens;
            labelled += item.labelled;
            replaced += losses.replaced;
        }
        if tokens == 0 || labelled == 0 {
            return Ok(Evaluation::default());
        }
        let [generator, discriminator, right] = sums;
        let generator =
            EvaluationError::finite("the generator's loss", generator / labelled as f64)?;
        let loss =
            EvaluationError::finite("the discriminator's loss", discriminator / tokens as f64)?;
        Ok(Evaluation {
            loss: Some(loss),
            accuracy: Some(right / tokens as f64),
            metrics: vec![
                ("generator_loss".to_string(), Some(generator)),
                (
                    "replaced".to_string(),
                    Some(replaced as f64 / tokens as f64),
                ),
            ],
            items: tokens,
            ..Evaluation::default()
        })
    }

    /// Fails: a program that trains this task runs the loop with [`LoopSettings::saves`](crate::engine::LoopSettings::saves) off and writes the
    /// discriminator itself.
    fn save(&mut self, _: &RtdModel, _: &NamedOptimizer, _: &RunState) -> Result<(), BoxError> {
        Err("replaced-token detection writes no checkpoints; turn Settings::saves off".into())
    }
}
