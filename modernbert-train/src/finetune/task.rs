//! Finetuning as a task of the training loop.

use burn::optim::GradientsParams;
use modernbert::batch::{Dropout, PackedBatch};
use modernbert::model::{Classification, SequenceClassifier, dropout_rates};
use std::sync::Arc;
use std::time::Instant;

use super::batches::{Batch, Batches, Sample, Target};
use super::run::{Evaluation, Score, Scorer};
use super::saving::Folder;
use super::{JobClock, predict};
use crate::engine::{
    BoxError, Counts, Evaluation as EngineEvaluation, EvaluationError, Sums, Task,
};
use crate::optim::NamedOptimizer;
use crate::snapshot::RunState;

/// The best weights so far.
#[derive(Clone, Debug)]
pub(super) struct Best {
    pub(super) model: SequenceClassifier,
    pub(super) outputs: Vec<Vec<f32>>,
    pub(super) evaluation: Evaluation,
}

/// What a run has gathered, part of its checkpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) best: Option<Best>,
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) losses: Vec<(usize, f64)>,
    pub(super) eval_seconds: f64,
    pub(super) evaluated: usize,
    /// Work done, for the clock of a job.
    pub(super) work: u64,
}

pub(super) struct ClassifierTask {
    pub(super) batches: Batches,
    pub(super) dev: Vec<Sample>,
    pub(super) score: Scorer,
    pub(super) clock: Option<Arc<JobClock>>,
    pub(super) folder: Option<Folder>,
    pub(super) config: modernbert::config::ModernBertConfig,
    pub(super) history: History,
    /// Outputs of the last evaluation.
    pub(super) latest: Vec<Vec<f32>>,
}

impl ClassifierTask {
    fn worked(&mut self, work: u64) {
        self.history.work += work;
        if let Some(clock) = &self.clock {
            clock.add(work);
        }
    }
}

impl Task for ClassifierTask {
    type Model = SequenceClassifier;
    type Batch = Batch;

    const SCORED: bool = true;
    const COUNTS_CORRECT: bool = false;

    fn next_step(&mut self, state: &RunState, _seen: u64) -> Result<Option<Vec<Batch>>, BoxError> {
        let batches = self.batches.after(state.step);
        let tokens: u64 = batches.iter().map(Batch::tokens).sum();
        self.worked(3 * tokens);
        Ok((!batches.is_empty()).then_some(batches))
    }

    fn counts(&self, batches: &[Batch]) -> Counts {
        let lengths: Vec<usize> = batches
            .iter()
            .flat_map(|batch| batch.sequences.iter().map(Vec::len))
            .collect();
        let tokens = lengths.iter().sum::<usize>() as u64;
        Counts {
            tokens,
            slots: tokens,
            rows: batches.len() as u64,
            // The shares of the micro-batches make their losses add up to the mean over the sequences.
            weight: 1,
            flops: self.config.train_flops(&lengths, 0) as f64,
            position: None,
        }
    }

    fn gradients(&self, model: &SequenceClassifier, batch: Batch) -> (Sums, GradientsParams) {
        let device = model.model.device();
        // Sequences come from a tokenizer that truncates, so that a batch can't outgrow 32-bit boundaries.
        let packed = PackedBatch::from_sequences(&batch.sequences, &device)
            .expect("a batch of truncated sequences fits a packed batch");
        let (seed, number) = batch.dropout_key;
        let packed = packed.with_dropout(Some(Dropout {
            rates: dropout_rates(model.model.config()),
            seed,
            batch: number,
        }));
        let Classification { loss, .. } = model.forward(&packed, &batch.labels);
        let loss = if batch.share < 1.0 {
            loss * batch.share
        } else {
            loss
        };
        let gradients = GradientsParams::from_grads(loss.backward(), model);
        let sums = Sums {
            loss: loss.inner(),
            correct: None,
        };
        (sums, gradients)
    }

    fn evaluation_items(&self) -> usize {
        self.dev.len()
    }

    fn evaluate(
        &mut self,
        model: &SequenceClassifier,
        step: u64,
    ) -> Result<EngineEvaluation, EvaluationError> {
        let begun = Instant::now();
        let rows: Vec<&[u32]> = self.dev.iter().map(|s| s.ids.as_slice()).collect();
        let tokens: usize = rows.iter().map(|row| row.len()).sum();
        let outputs = predict(model, &rows).map_err(EvaluationError::other)?;
        self.worked(tokens as u64);
        for (i, row) in outputs.iter().enumerate() {
            for &value in row {
                EvaluationError::finite(&format!("the output for dev sample {i}"), value.into())?;
            }
        }
        let score: Score = (self.score)(&outputs).map_err(EvaluationError::Other)?;
        self.history.evaluated += outputs.len();
        self.history.evaluations.push(Evaluation {
            step: step as usize,
            score: score.clone(),
        });
        let loss = dev_loss(&self.dev, &outputs);
        self.latest = outputs;
        self.history.eval_seconds += begun.elapsed().as_secs_f64();
        Ok(EngineEvaluation {
            loss,
            accuracy: None,
            score: score.main.filter(|main| main.is_finite()),
            metrics: score.metrics,
            items: self.dev.len(),
        })
    }

    fn keep_best(&mut self, model: SequenceClassifier) {
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

    fn save(
        &mut self,
        model: &SequenceClassifier,
        optimizer: &NamedOptimizer,
        state: &RunState,
    ) -> Result<(), BoxError> {
        if let Some(folder) = &self.folder {
            folder.save(model, optimizer, state, &self.history)?;
        }
        Ok(())
    }
}

/// Mean loss of outputs on the dev samples, as training computes it: cross-entropy of classes, squared error of scores. `None` where a
/// target does not fit the outputs, as the samples' targets are not needed for anything else.
fn dev_loss(samples: &[Sample], outputs: &[Vec<f32>]) -> Option<f64> {
    let mut sum = 0.0;
    for (sample, outputs) in samples.iter().zip(outputs) {
        sum += match sample.target {
            Target::Class(class) => {
                let own = f64::from(*outputs.get(class as usize)?);
                let largest = outputs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let largest = f64::from(largest);
                let total: f64 = outputs
                    .iter()
                    .map(|&x| (f64::from(x) - largest).exp())
                    .sum();
                total.ln() + largest - own
            }
            Target::Score(score) => {
                let [output] = outputs[..] else { return None };
                (f64::from(output) - f64::from(score)).powi(2)
            }
        };
    }
    (!samples.is_empty())
        .then_some(sum / samples.len() as f64)
        .filter(|loss| loss.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dev_loss_is_the_loss_of_training() {
        let sample = |target| Sample {
            ids: vec![1],
            target,
        };
        let classes = [sample(Target::Class(1)), sample(Target::Class(0))];
        let outputs = [vec![0.0, 2.0], vec![1000.0, 1001.0]];
        let expected = (0.126_928_011_042_972_5 + 1.313_261_687_518_222_8) / 2.0;
        let loss = dev_loss(&classes, &outputs).unwrap();
        assert!((loss - expected).abs() < 1e-12, "{loss}");
        let scores = [sample(Target::Score(1.5)), sample(Target::Score(-1.0))];
        assert_eq!(dev_loss(&scores, &[vec![2.5], vec![1.0]]), Some(2.5));
        // Placeholders instead of targets have no loss.
        assert_eq!(dev_loss(&classes, &[vec![1.0], vec![1.0]]), None);
        assert_eq!(dev_loss(&scores, &outputs), None);
    }
}
