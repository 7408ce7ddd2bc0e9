//! Conversions of a recipe's settings to those of the loader, the optimizer and the loop.

use modernbert::model::Precision;
use std::time::Duration;

use super::{LongDocuments, OptimizerKind, Recipe, TrainingPrecision};
use crate::engine::{Cadence, ProgressUnit, SpikeLimit};
use crate::loader::LoaderOptions;
use crate::optim::{DecoupledAdamW, StableAdamWConfig, UpdateRule};
use crate::schedule::LearningRate;
use crate::shard::LongDocuments as Cutting;

impl From<TrainingPrecision> for Precision {
    fn from(precision: TrainingPrecision) -> Self {
        match precision {
            TrainingPrecision::F32 => Self::F32,
            TrainingPrecision::Bf16 => Self::Bf16,
        }
    }
}

impl From<LongDocuments> for Cutting {
    fn from(setting: LongDocuments) -> Self {
        match setting {
            LongDocuments::Split => Self::Split,
            LongDocuments::Truncate => Self::Truncate,
        }
    }
}

impl Recipe {
    /// Dtype of matrix multiplications and attention.
    pub fn precision(&self) -> Precision {
        self.run.precision.into()
    }

    /// `[optimizer]` as the rule by which parameters are updated.
    pub fn update_rule(&self) -> UpdateRule {
        let optimizer = &self.optimizer;
        let max_lr = optimizer.max_lr.unwrap_or(optimizer.learning_rate);
        match optimizer.kind {
            OptimizerKind::StableAdamW => UpdateRule::StableAdamW(StableAdamWConfig {
                beta1: optimizer.beta1,
                beta2: optimizer.beta2,
                epsilon: optimizer.epsilon,
                weight_decay: optimizer.weight_decay,
                max_lr,
            }),
            OptimizerKind::AdamW => UpdateRule::DecoupledAdamW(DecoupledAdamW {
                beta1: optimizer.beta1,
                beta2: optimizer.beta2,
                epsilon: optimizer.epsilon,
                weight_decay: optimizer.weight_decay,
                initial_lr: max_lr,
            }),
        }
    }

    /// `optimizer.learning_rate` and `[schedule]` as the rate over the tokens of the phase.
    pub fn learning_rate(&self) -> LearningRate {
        LearningRate {
            peak: self.optimizer.learning_rate,
            schedule: self.schedule.clone(),
            margin: 0,
        }
    }

    /// `optimizer.skip_spikes` and its window, if spikes are skipped.
    pub fn spike_limit(&self) -> Option<SpikeLimit> {
        let deviations = self.optimizer.skip_spikes?;
        Some(SpikeLimit {
            deviations,
            window: self.optimizer.spike_window,
        })
    }

    /// `[batch]` and `[data]` as the settings of the data loader.
    pub fn loader_options(&self, pad_id: u32) -> LoaderOptions {
        LoaderOptions {
            row_length: self.batch.tokens,
            micro_batches: self.batch.micro_batches,
            pad_id,
            seed: self.data_seed(),
            sequences: (!self.batch.packing).then(|| self.batch.tokens / self.data.sequence_length),
            length_warmup: self.length_warmup(),
        }
    }

    /// The intervals of `[run]` and `[checkpoint]`; `on_cpu` reads losses back after every step unless the recipe says otherwise.
    pub fn cadence(&self, on_cpu: bool) -> Cadence {
        let (run, checkpoint) = (&self.run, &self.checkpoint);
        let read_every = match run.read_every_steps {
            Some(every) => every,
            None if on_cpu => 1,
            None => run.log_every_steps,
        };
        Cadence {
            unit: ProgressUnit::Tokens,
            evaluate_every: run.eval_every_tokens,
            log_every: run.log_every_steps,
            log_before_evaluation: false,
            read_every,
            save_every_steps: checkpoint.every_steps,
            save_every: Some(Duration::from_secs_f64(60.0 * checkpoint.every_minutes)),
            evaluate_before_save: checkpoint.keep_best > 0,
            time_limit: run.max_seconds.map(Duration::from_secs),
        }
    }
}
