//! One task, one seed.

use modernbert::checkpoint::save;
use modernbert::model::Precision;
use modernbert_train::engine::device_peak;
use modernbert_train::finetune::{
    DevScore, FinetuneError, FinetuneOptions, Finetuned, Finetuning, JobClock,
};
use modernbert_train::saving::{Saving, has_checkpoints, remove_checkpoints};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

use super::pretrained::weights_hash;
use super::record::{EvaluationRecord, RunRecord, RunSettings};
use super::{MODEL_FOLDER, Pretrained, RUN_FILE, RunError, RunOptions, TaskSequences};
use crate::data::{Split, TaskData};
use crate::metrics::{Metrics, Prediction, evaluate_dev};
use crate::task::Task;

/// Steps between evaluations on the dev set if an epoch is longer.
const LONGEST_INTERVAL: usize = 2000;

/// A run to be done.
pub struct Run<'a> {
    /// The task's data.
    pub prepared: &'a TaskSequences,
    /// The model of the job.
    pub pretrained: &'a Pretrained,
    /// Settings of the caller.
    pub options: &'a RunOptions,
    /// The seed.
    pub seed: u64,
    /// A model finetuned on MNLI to start from instead.
    pub mnli: Option<&'a Path>,
    /// Name of the run on the dashboard and in lines.
    pub label: String,
    /// The job's clock.
    pub clock: Option<Arc<JobClock>>,
}

impl Run<'_> {
    fn task(&self) -> Task {
        self.prepared.data.task
    }

    /// The dtype of matrix multiplications: the caller's, but f32 for STS-B, as by the authors.
    fn precision(&self) -> Precision {
        match self.task() {
            Task::Stsb => Precision::F32,
            _ => self.options.precision,
        }
    }

    /// Settings for the loop: the caller's, else a sweep's, else the paper's for the task; WNLI, which the paper leaves out,
    /// takes RTE's.
    ///
    /// # Errors
    /// A task without a training set.
    pub fn finetune_options(&self) -> Result<FinetuneOptions, RunError> {
        let (task, options) = (self.task(), self.options);
        let size = self.pretrained.size();
        let paper = task
            .paper_hyperparameters(size)
            .or_else(|| Task::Rte.paper_hyperparameters(size))
            .ok_or(RunError::NotTrainable(task))?;
        let tuned = options.tuned.get(&task);
        let rate = tuned.map(|tuned| tuned.learning_rate);
        let rate = rate.unwrap_or(paper.learning_rate * self.pretrained.learning_rate_scale());
        let decay = tuned.map_or(paper.weight_decay, |tuned| tuned.weight_decay);
        let epochs = tuned.map_or(paper.epochs, |tuned| tuned.epochs);
        let mut settings = FinetuneOptions {
            epochs: options.epochs.unwrap_or(epochs),
            micro_batches: 1,
            batch_size: options.batch_size.unwrap_or(paper.batch_size),
            learning_rate: options.learning_rate.unwrap_or(rate),
            weight_decay: options.weight_decay.unwrap_or(decay),
            warmup: options.warmup,
            attention_output_dropout: options.attention_output_dropout,
            seed: self.seed,
            evaluate_every: options.evaluate_every,
            patience: options.patience,
            label: self.label.clone(),
        };
        let epoch = settings.steps_per_epoch(self.prepared.train.len()).max(1);
        settings
            .evaluate_every
            .get_or_insert(epoch.min(LONGEST_INTERVAL));
        Ok(settings)
    }

    /// Everything that decides this run.
    ///
    /// # Errors
    /// A task without a training set; an MNLI model that can't be read.
    pub fn settings(&self) -> Result<RunSettings, RunError> {
        let finetune = self.finetune_options()?;
        let (start, start_sha256) = match self.mnli {
            Some(folder) if self.options.random_init => ("random+mnli", weights_hash(folder)?),
            Some(folder) => ("mnli", weights_hash(folder)?),
            None if self.options.random_init => {
                let config = self.pretrained.config().to_json_string();
                let hash = Sha256::digest(config.as_bytes());
                ("random", hash.iter().map(|b| format!("{b:02x}")).collect())
            }
            None => ("pretrained", self.pretrained.sha256().to_string()),
        };
        let samples = self.prepared.train.len();
        Ok(RunSettings {
            start: start.to_string(),
            start_sha256,
            seed: self.seed,
            epochs: finetune.epochs,
            batch_size: finetune.batch_size,
            learning_rate: finetune.learning_rate,
            weight_decay: finetune.weight_decay,
            warmup: finetune.warmup,
            attention_output_dropout: finetune.attention_output_dropout,
            max_length: self.options.max_length,
            evaluate_every: finetune.evaluation_interval(samples),
            patience: finetune.patience,
            precision: self.precision().name().to_string(),
            data_sha256: self.prepared.sha256.clone(),
            train_rows: samples,
            dev_rows: self.prepared.dev.len(),
        })
    }

    /// Removes the checkpoints of a run that is finished or made again.
    fn remove_checkpoints(&self, folder: &Path) -> Result<(), RunError> {
        for warning in remove_checkpoints(folder).map_err(FinetuneError::from)? {
            self.options.progress.note(&format!("warning: {warning}"));
        }
        Ok(())
    }

    /// Trains in `folder`, from its newest checkpoint if an earlier run of the same settings was interrupted there.
    fn train(&self, folder: &Path, settings: &RunSettings) -> Result<Finetuned, RunError> {
        if self.options.again && has_checkpoints(folder).map_err(FinetuneError::from)? {
            self.remove_checkpoints(folder)?;
        }
        let (model, _) = self.pretrained.classifier(
            self.task(),
            self.mnli,
            self.options.random_init,
            self.seed,
            &self.options.device.device,
        )?;
        let data = labels_of(&self.prepared.data);
        let score = move |outputs: &[Vec<f32>]| {
            let metrics = score(&data, outputs)?;
            Ok(DevScore {
                main: metrics.get(data.task.main_metric().name()),
                metrics: metrics.iter().map(|(n, v)| (n.to_string(), v)).collect(),
            })
        };
        let mut finetuning = Finetuning::new(
            self.prepared.train.clone(),
            self.prepared.dev.clone(),
            self.finetune_options()?,
            score,
        );
        finetuning.progress = self.options.progress;
        finetuning.interrupter = self.options.interrupter.clone();
        finetuning.clock = self.clock.clone();
        finetuning.peak_flops = device_peak(&self.options.device, self.precision());
        finetuning.saving = Some(Saving {
            resume: true,
            identity: serde_json::to_string(settings).unwrap_or_default(),
            ..Saving::new(folder)
        });
        let finetuned = finetuning.run(model.with_precision(self.precision()));
        let at = match finetuned {
            Ok(Finetuned {
                interrupted: Some(at),
                ..
            })
            | Err(FinetuneError::Interrupted { at, .. }) => at,
            other => return Ok(other?),
        };
        Err(RunError::Interrupted {
            label: self.label.clone(),
            step: at.step,
        })
    }
}

/// Finetunes and scores; writes the model into `folder` if `keep_model` is true, and the record last. A run that was
/// interrupted continues from its newest checkpoint in `folder`, and gives the same numbers as an uninterrupted one.
///
/// # Errors
/// Every reason why this run has no score, panics included; other runs are not affected.
pub fn run_seed(run: &Run<'_>, folder: &Path, keep_model: bool) -> Result<RunRecord, RunError> {
    let settings = run.settings()?;
    // A failing kernel or device panics, which must not end the other tasks.
    let train = std::panic::AssertUnwindSafe(|| run.train(folder, &settings));
    let trained = std::panic::catch_unwind(train);
    let trained = trained.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(RunError::Panic(text.unwrap_or_default()))
    })?;
    let record_path = folder.join(RUN_FILE);
    match std::fs::remove_file(&record_path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(RunError::Io {
                path: record_path,
                source,
            });
        }
        _ => {}
    }
    let task = run.task();
    if keep_model {
        let model = folder.join(MODEL_FOLDER);
        save(&trained.model, &run.pretrained.task_config(task), &model)?;
        let positions = run.pretrained.config().max_position_embeddings;
        let tokenizer = run.pretrained.tokenizer().clone();
        tokenizer.with_max_length(positions).save(&model)?;
    }
    let metrics = |score: &DevScore| score.metrics.iter().cloned().collect::<Metrics>();
    let record = RunRecord {
        task,
        model: run.pretrained.name().to_string(),
        settings,
        metrics: metrics(&trained.best.score),
        best_step: trained.best.step,
        steps: trained.steps,
        planned_steps: trained.planned_steps,
        evaluations: trained
            .evaluations
            .iter()
            .map(|evaluation| EvaluationRecord {
                step: evaluation.step,
                metrics: metrics(&evaluation.score),
            })
            .collect(),
        losses: trained.losses,
        device: run.options.device.name.clone(),
        train_seconds: trained.train_seconds,
        eval_seconds: trained.eval_seconds,
        evaluated: trained.evaluated,
    };
    record.write(folder)?;
    run.remove_checkpoints(folder)?;
    // Read back from its text, so that the digits are those of a resumed job.
    Ok(RunRecord::read(folder)?.unwrap_or(record))
}

/// The data without its texts, which a scorer doesn't need.
fn labels_of(data: &TaskData) -> TaskData {
    let bare = |split: &Split| Split {
        examples: split
            .examples
            .iter()
            .map(|row| crate::data::GlueExample {
                index: row.index,
                text_a: String::new(),
                text_b: None,
                label: row.label,
            })
            .collect(),
        ..Split::empty_like(split)
    };
    TaskData {
        task: data.task,
        train: Split::empty_like(&data.train),
        dev: data.dev.iter().map(bare).collect(),
        missing: Vec::new(),
    }
}

/// Scores the outputs for all dev sets, one after the other.
fn score(data: &TaskData, outputs: &[Vec<f32>]) -> Result<Metrics, crate::metrics::MetricError> {
    let mut rest = outputs;
    let mut predictions = Vec::with_capacity(data.dev.len());
    for split in &data.dev {
        let (mine, others) = rest.split_at(split.examples.len().min(rest.len()));
        rest = others;
        let mine = mine.iter();
        let mine: Vec<Prediction> = mine
            .map(|outputs| Prediction::from_outputs(data.task, outputs))
            .collect::<Result<_, _>>()?;
        predictions.push(mine);
    }
    evaluate_dev(data, &predictions)
}
