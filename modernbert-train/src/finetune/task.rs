//! Finetuning as a task of the training loop.

use burn::optim::GradientsParams;
use modernbert::batch::{Dropout, DropoutRates, PackedBatch};
use modernbert::model::Architecture;
use std::sync::Arc;
use std::time::Instant;

use super::batches::{Batch, Batches};
use super::example::Example;
use super::run::{DevEvaluation, DevScore, Scorer};
use super::saving::Folder;
use super::{JobClock, predict_examples};
use crate::engine::{BoxError, Counts, Evaluation, EvaluationError, LossSums, Task};
use crate::optim::NamedOptimizer;
use crate::snapshot::RunState;

/// The best weights so far.
#[derive(Clone, Debug)]
pub(super) struct Best<M> {
    pub(super) model: M,
    pub(super) outputs: Vec<Vec<f32>>,
    pub(super) evaluation: DevEvaluation,
}

/// Evaluations and losses of a run so far, part of its checkpoints.
#[derive(Clone, Debug)]
pub(super) struct TaskHistory<M> {
    pub(super) best: Option<Best<M>>,
    pub(super) evaluations: Vec<DevEvaluation>,
    pub(super) losses: Vec<(usize, f64)>,
    pub(super) eval_seconds: f64,
    pub(super) evaluated: usize,
    /// Work done, for the clock of a job.
    pub(super) work: u64,
}

impl<M> Default for TaskHistory<M> {
    fn default() -> Self {
        Self {
            best: None,
            evaluations: Vec::new(),
            losses: Vec::new(),
            eval_seconds: 0.0,
            evaluated: 0,
            work: 0,
        }
    }
}

pub(super) struct FinetuneTask<E: Example> {
    pub(super) batches: Batches<E>,
    pub(super) dev: Vec<E>,
    pub(super) score: Scorer,
    pub(super) clock: Option<Arc<JobClock>>,
    pub(super) folder: Option<Folder>,
    pub(super) config: modernbert::config::ModernBertConfig,
    /// Dropout rates of training.
    pub(super) rates: DropoutRates,
    pub(super) history: TaskHistory<E::Model>,
    /// Outputs of the last evaluation.
    pub(super) latest: Vec<Vec<f32>>,
}

impl<E: Example> FinetuneTask<E> {
    fn worked(&mut self, work: u64) {
        self.history.work += work;
        if let Some(clock) = &self.clock {
            clock.add(work);
        }
    }
}

impl<E: Example> Task for FinetuneTask<E> {
    type Model = E::Model;
    type Batch = Batch<E>;

    const SCORED: bool = true;
    const COUNTS_CORRECT: bool = false;

    fn next_step(
        &mut self,
        state: &RunState,
        _seen: u64,
    ) -> Result<Option<Vec<Batch<E>>>, BoxError> {
        let batches = self.batches.after(state.step);
        let tokens: u64 = batches.iter().map(|batch| batch.tokens()).sum();
        self.worked(3 * tokens);
        Ok((!batches.is_empty()).then_some(batches))
    }

    fn counts(&self, batches: &[Batch<E>]) -> Counts {
        let lengths: Vec<usize> = batches
            .iter()
            .flat_map(|batch| batch.sequences().into_iter().map(<[u32]>::len))
            .collect();
        let tokens = lengths.iter().sum::<usize>() as u64;
        Counts {
            tokens,
            slots: tokens,
            rows: batches.len() as u64,
            // The shares of the micro-batches make their losses add up to the mean over the targets.
            weight: 1,
            flops: self.config.train_flops(&lengths, 0) as f64,
            position: None,
        }
    }

    fn gradients(&self, model: &E::Model, batch: Batch<E>) -> (LossSums, GradientsParams) {
        let encoder = model.encoder();
        let device = encoder.device();
        // Sequences come from a tokenizer that truncates, so that a batch can't outgrow 32-bit boundaries.
        let packed = PackedBatch::from_sequences(&batch.sequences(), &device)
            .expect("a batch of truncated sequences fits a packed batch");
        let packed = match encoder.config().token_types > 1 {
            true => packed.with_second_texts(batch.seconds()),
            false => packed,
        };
        let (seed, number) = batch.dropout_key;
        let packed = packed.with_dropout(Some(Dropout {
            rates: self.rates,
            seed,
            batch: number,
        }));
        let loss = E::loss(model, &packed, &batch.examples);
        let loss = if batch.share < 1.0 {
            loss * batch.share
        } else {
            loss
        };
        let gradients = GradientsParams::from_grads(loss.backward(), model);
        let sums = LossSums {
            loss: loss.inner(),
            correct: None,
        };
        (sums, gradients)
    }

    fn evaluation_items(&self) -> usize {
        self.dev.len()
    }

    fn evaluate(&mut self, model: &E::Model, step: u64) -> Result<Evaluation, EvaluationError> {
        let begun = Instant::now();
        let tokens: usize = self.dev.iter().map(E::tokens).sum();
        let outputs = predict_examples(model, &self.dev).map_err(EvaluationError::other)?;
        self.worked(tokens as u64);
        for (i, row) in outputs.iter().enumerate() {
            for &value in row {
                EvaluationError::finite(&format!("the output for dev example {i}"), value.into())?;
            }
        }
        let score: DevScore = (self.score)(&outputs).map_err(EvaluationError::Other)?;
        self.history.evaluated += outputs.len();
        self.history.evaluations.push(DevEvaluation {
            step: step as usize,
            score: score.clone(),
        });
        let loss = dev_loss(&self.dev, &outputs);
        self.latest = outputs;
        self.history.eval_seconds += begun.elapsed().as_secs_f64();
        Ok(Evaluation {
            loss,
            accuracy: None,
            score: score.main.filter(|main| main.is_finite()),
            metrics: score.metrics,
            items: self.dev.len(),
        })
    }

    fn keep_best(&mut self, model: E::Model) {
        self.history.best = self
            .history
            .evaluations
            .last()
            .cloned()
            .map(|evaluation| Best {
                model,
                outputs: self.latest.clone(),
                evaluation,
            });
    }

    fn logged(&mut self, step: u64, loss: f64) {
        self.history.losses.push((step as usize, loss));
    }

    fn warnings(&mut self) -> Vec<String> {
        let folder = self.folder.as_ref();
        folder.map_or(Vec::new(), |folder| folder.run.warnings())
    }

    fn save(
        &mut self,
        model: &E::Model,
        optimizer: &NamedOptimizer,
        state: &RunState,
    ) -> Result<(), BoxError> {
        if let Some(folder) = &self.folder {
            folder.save(model, optimizer, state, &self.history)?;
        }
        Ok(())
    }
}

/// Mean loss of outputs over the targets of the dev examples, as training computes it. `None` where a target does not fit the outputs, as
/// these targets are not needed for anything else, and without a single target.
pub(super) fn dev_loss<E: Example>(examples: &[E], outputs: &[Vec<f32>]) -> Option<f64> {
    let targets: usize = examples.iter().map(E::targets).sum();
    let losses = examples.iter().zip(outputs);
    let sum: Option<f64> = losses.map(|(e, outputs)| e.loss_of(outputs)).sum();
    sum.filter(|_| targets > 0)
        .map(|sum| sum / targets as f64)
        .filter(|loss| loss.is_finite())
}
