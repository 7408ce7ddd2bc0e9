//! Finetuning on GLUE: data to samples, a classifier per seed, dev scores.

use burn::train::Interrupter;
use modernbert::checkpoint::{CheckpointError, LoadReport, read_config};
use modernbert::device::NamedDevice;
use modernbert::model::{Precision, SequenceClassifier};
use modernbert::tokenizer::{Tokenizer, TokenizerError};
use modernbert_train::finetune::{
    FinetuneError, FinetuneOptions, Sample, Target, finetune, predict,
};
use modernbert_train::trainer::Progress;
use std::path::{Path, PathBuf};

use crate::baseline::baseline;
use crate::data::{DataError, Label, Split, TaskData};
use crate::metrics::{MetricError, Metrics, Prediction, evaluate_dev};
use crate::results::{SeedResult, TaskResult};
use crate::task::Task;
use crate::task::paper::ModelSize;

/// What to run a task with; `None` takes the paper's value for the task.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Folder of the pretrained model.
    pub model: PathBuf,
    /// Where to compute.
    pub device: NamedDevice,
    /// Dtype of products and attention.
    pub precision: Precision,
    /// One run per seed.
    pub seeds: Vec<u64>,
    /// Passes over the training set.
    pub epochs: Option<usize>,
    /// Sequences of a step.
    pub batch_size: Option<usize>,
    /// Peak learning rate.
    pub learning_rate: Option<f64>,
    /// Decoupled weight decay.
    pub weight_decay: Option<f64>,
    /// Longer pairs are cut to so many tokens.
    pub max_length: usize,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Only so many rows of the training set and of each dev set.
    pub max_rows: Option<usize>,
    /// How progress is shown.
    pub progress: Progress,
}

/// Why a task has no score.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The task's files.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model's folder.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer of the model's folder.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Training or prediction.
    #[error(transparent)]
    Finetune(#[from] FinetuneError),
    /// Predictions that can't be scored, such as numbers that are none.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// AX and the like.
    #[error("{0} has no labelled data to train on; it can only be predicted")]
    NotTrainable(Task),
    /// Tokenizer and model of different vocabularies.
    #[error("{}: the tokenizer has {tokenizer} ids, the model {model}; they don't belong together", folder.display())]
    Vocabulary {
        /// The model's folder.
        folder: PathBuf,
        /// Ids of the tokenizer.
        tokenizer: usize,
        /// Rows of the model's embedding.
        model: usize,
    },
}

/// A task that was run, and what a person should know about it.
pub struct TaskRun {
    /// Scores for `results.json`.
    pub result: TaskResult,
    /// Sequences that were cut to the maximum length, of all that were read.
    pub truncated: (usize, usize),
    /// What of the model started fresh.
    pub load: LoadReport,
    /// The settings used.
    pub settings: FinetuneOptions,
}

/// A pretrained model's folder, opened once for all tasks.
pub struct Pretrained {
    folder: PathBuf,
    tokenizer: Tokenizer,
    hidden_size: usize,
    max_positions: usize,
}

impl Pretrained {
    /// Opens config and tokenizer.
    ///
    /// # Errors
    /// A folder that is no model's, or a tokenizer that isn't the model's.
    pub fn open(folder: &Path) -> Result<Self, RunError> {
        let config = read_config(folder)?;
        let tokenizer = Tokenizer::from_folder(folder)?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(RunError::Vocabulary {
                folder: folder.to_path_buf(),
                tokenizer: tokenizer.vocab_size(),
                model: config.vocab_size,
            });
        }
        Ok(Self {
            folder: folder.to_path_buf(),
            tokenizer,
            hidden_size: config.hidden_size,
            max_positions: config.max_position_embeddings,
        })
    }

    /// The tokenizer of the folder.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The paper's settings for a task, replaced where the options say so.
    ///
    /// The paper's learning rates were tuned for widths of 768 and 1024. A narrower model gets the base rate times
    /// 768 / width: without that, a model of width 128 would hardly move in the paper's number of steps.
    pub fn settings(
        &self,
        task: Task,
        options: &RunOptions,
        seed: u64,
    ) -> Result<FinetuneOptions, RunError> {
        let size = if self.hidden_size >= 1024 {
            ModelSize::Large
        } else {
            ModelSize::Base
        };
        let paper = task
            .paper_hyperparameters(size)
            .or_else(|| Task::Rte.paper_hyperparameters(size))
            .ok_or(RunError::NotTrainable(task))?;
        let scale = (768.0 / self.hidden_size as f64).max(1.0);
        Ok(FinetuneOptions {
            epochs: options.epochs.unwrap_or(paper.epochs),
            batch_size: options.batch_size.unwrap_or(paper.batch_size),
            learning_rate: options.learning_rate.unwrap_or(paper.learning_rate * scale),
            weight_decay: options.weight_decay.unwrap_or(paper.weight_decay),
            warmup: options.warmup,
            seed,
            label: task.name().to_string(),
        })
    }
}

/// Finetunes and scores one task with every seed.
///
/// # Errors
/// Anything that keeps the task from having a score; other tasks are not touched.
pub fn run_task(
    task: Task,
    data_folder: &Path,
    pretrained: &Pretrained,
    options: &RunOptions,
    work_folder: &Path,
    interrupter: &Interrupter,
) -> Result<TaskRun, RunError> {
    let mut data = TaskData::load(data_folder, task)?;
    if let Some(rows) = options.max_rows {
        data.train.truncate(rows);
        data.dev.iter_mut().for_each(|split| split.truncate(rows));
    }
    let max_length = options.max_length.min(pretrained.max_positions);
    let train = encode(pretrained, &data.train, max_length)?;
    let dev: Vec<Encoded> = data
        .dev
        .iter()
        .map(|split| encode(pretrained, split, max_length))
        .collect::<Result<_, _>>()?;
    let truncated = train.truncated + dev.iter().map(|split| split.truncated).sum::<usize>();
    let read = train.samples.len() + dev.iter().map(|split| split.samples.len()).sum::<usize>();
    let valid: Vec<Sample> = dev.iter().flat_map(|split| split.samples.clone()).collect();

    let mut seeds = Vec::new();
    let mut last = None;
    for &seed in &options.seeds {
        let settings = pretrained.settings(task, options, seed)?;
        let (model, load) = SequenceClassifier::from_folder(
            &pretrained.folder,
            task.num_outputs(),
            seed,
            &options.device.device,
        )?;
        let model = finetune(
            model.with_precision(options.precision),
            train.samples.clone(),
            valid.clone(),
            &settings,
            work_folder,
            options.progress,
            interrupter.clone(),
        )?;
        let metrics = score(task, &data, &model, &dev, settings.batch_size)?;
        seeds.push(SeedResult { seed, metrics });
        last = Some((load, settings));
    }
    let (load, settings) = last.ok_or(RunError::NotTrainable(task))?;
    Ok(TaskRun {
        result: TaskResult::new(&data, baseline(&data)?, seeds),
        truncated: (truncated, read),
        load,
        settings,
    })
}

fn score(
    task: Task,
    data: &TaskData,
    model: &SequenceClassifier,
    dev: &[Encoded],
    batch_size: usize,
) -> Result<Metrics, RunError> {
    let mut predictions = Vec::with_capacity(dev.len());
    for split in dev {
        let rows: Vec<&[u32]> = split
            .samples
            .iter()
            .map(|sample| sample.ids.as_slice())
            .collect();
        let outputs = predict(model, &rows, batch_size)?;
        let split: Vec<Prediction> = outputs
            .iter()
            .map(|outputs| Prediction::from_outputs(task, outputs))
            .collect::<Result<_, _>>()?;
        predictions.push(split);
    }
    Ok(evaluate_dev(data, &predictions)?)
}

struct Encoded {
    samples: Vec<Sample>,
    truncated: usize,
}

fn encode(
    pretrained: &Pretrained,
    split: &Split,
    max_length: usize,
) -> Result<Encoded, TokenizerError> {
    let mut samples = Vec::with_capacity(split.examples.len());
    let mut truncated = 0;
    for example in &split.examples {
        let encoded = pretrained.tokenizer.encode_truncated(
            &example.text_a,
            example.text_b.as_deref(),
            max_length,
        )?;
        truncated += usize::from(encoded.truncated);
        let target = match example.label {
            Label::Class(class) => Target::Class(class as u32),
            Label::Score(score) => Target::Score(score),
            // Labelled splits have no hidden labels; the reader sees to that.
            Label::Hidden => continue,
        };
        samples.push(Sample {
            ids: encoded.ids,
            target,
        });
    }
    Ok(Encoded { samples, truncated })
}
