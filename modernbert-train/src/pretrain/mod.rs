//! A recipe from beginning to end: corpus, tokenizer, shards, model, training, model folder, picture.

mod prepare;
mod samples;
mod unigram;

pub use prepare::{Prepared, prepare};
pub use samples::{MaskedLine, masked_lines};
pub use unigram::{Unigram, UnigramScore};

use anyhow::{Context, Result, bail};
use burn::module::Module;
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use modernbert::checkpoint::{save, write_atomically};
use modernbert::device::NamedDevice;
use modernbert::model::{MaskedLm, Precision, initialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::loader::{
    FixedLoader, LoaderOptions, MlmItem, TrainLoader, TrainStream, evaluation_items,
};
use crate::mask::Masker;
use crate::optim::StableAdamWConfig;
use crate::recipe::{Precision as RecipePrecision, Recipe};
use crate::report::plot::{Series, plot_curves};
use crate::trainer::{
    MetricsLog, MlmLearner, Progress, QuietRenderer, SeriesMetric, TokenBudget, TokenScheduler,
    TokenStrategy, TokenStrategyOptions, TrainingReport, read_log,
};

/// Log of a run, in its folder.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// Picture of the loss, in the run's folder.
pub const PICTURE_FILE: &str = "loss.png";
/// The recipe with every default and override written out, in the run's folder.
pub const RECIPE_FILE: &str = "recipe.toml";

/// Beyond this a size is a slip of the keyboard: a hundred times the largest encoder of this family.
const MOST_PARAMETERS: u64 = 100_000_000_000;

/// What a run needs beside its recipe.
pub struct PretrainOptions {
    /// Folder for everything the run makes.
    pub out: PathBuf,
    /// Where to train.
    pub device: NamedDevice,
    /// How progress is shown.
    pub progress: Progress,
    /// Peak of the device in TFLOP/s, for MFU.
    pub peak_tflops: Option<f64>,
    /// Handle that stops the run early.
    pub interrupter: Interrupter,
}

/// Outcome of a run.
pub struct PretrainSummary {
    /// The trained model.
    pub model: MaskedLm,
    /// Its data.
    pub prepared: Prepared,
    /// What the loop reports.
    pub training: TrainingReport,
    /// Cross-entropy and hits of the unigram model on the same masked tokens.
    pub unigram: UnigramScore,
    /// Wall-clock seconds from text to files.
    pub seconds: f64,
}

/// Trains what the recipe describes and writes the model folder `out`.
///
/// # Errors
/// Bad settings, bad data, a device that can't be used, a loss that stops being a number. A folder without
/// `model.safetensors` is then left with logs and shards; nothing half-written looks whole.
pub fn pretrain(recipe: &Recipe, options: PretrainOptions) -> Result<PretrainSummary> {
    let started = Instant::now();
    recipe.validate()?;
    let progress = options.progress;
    std::fs::create_dir_all(&options.out).with_context(|| {
        format!(
            "{}: the run's folder can't be made; give --out another one",
            options.out.display()
        )
    })?;
    remove_stale(&options.out)?;

    let prepared = prepare(recipe, &options.out, progress)?;
    write_atomically(&options.out.join(RECIPE_FILE), recipe.to_toml()?.as_bytes()).with_context(
        || {
            format!(
                "{}: can't be written",
                options.out.join(RECIPE_FILE).display()
            )
        },
    )?;
    let config = prepared.config.clone();
    let device = options.device.device.clone();
    if config.mlm_parameters() > MOST_PARAMETERS {
        bail!(
            "model: these sizes make {:.0} billion parameters; lower model.hidden_size, model.intermediate_size or \
             model.num_hidden_layers",
            config.mlm_parameters() as f64 / 1e9
        );
    }
    let precision = match recipe.run.precision {
        RecipePrecision::F32 => Precision::F32,
        RecipePrecision::Bf16 => Precision::Bf16,
    };
    check_dtype(&options.device, precision)?;
    let model = initialize(MaskedLm::new(&config, &device)?, &config, recipe.run.seed);
    let model = model.with_precision(precision);
    progress.note(&format!(
        "model: {} layers, hidden {}, {} heads, {:.2} M parameters; {} on {}; kernels: {}",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.mlm_parameters() as f64 / 1e6,
        precision.name(),
        options.device.name,
        modernbert::ops::kernels_in_use(&device),
    ));

    let loader = LoaderOptions {
        row_length: recipe.batch.tokens,
        micro_batches: recipe.batch.micro_batches,
        pad_id: prepared.tokenizer.special().pad,
        seed: recipe.run.seed,
    };
    let train_masker = Masker::new(&prepared.tokenizer, recipe.mask.train, false)?;
    let eval_masker = Masker::new(&prepared.tokenizer, recipe.mask.eval, true)?;
    let stream = TrainStream::new(prepared.train.clone(), train_masker, loader.clone())?;
    let eval_tokens = recipe.run.eval_tokens as usize;
    let eval_items = evaluation_items(&prepared.eval, &eval_masker, &loader, eval_tokens)?;
    let unigram = Unigram::count(&prepared.train).score(&eval_items);

    let (model, training) = train(recipe, &options, model, stream, eval_items)?;
    if let Some(failure) = &training.failure {
        bail!("training stopped at step {}: {failure}", training.steps);
    }
    save(&model, &config, &options.out)?;
    draw(&options.out, unigram.loss)?;
    Ok(PretrainSummary {
        model,
        prepared,
        training,
        unigram,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// A run's folder may hold an older run: its weights must not outlive the start of a new one.
fn remove_stale(out: &Path) -> Result<()> {
    for name in [
        modernbert::checkpoint::WEIGHTS_FILE,
        PICTURE_FILE,
        METRICS_FILE,
    ] {
        match std::fs::remove_file(out.join(name)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => bail!(
                "{}: an older run's file can't be removed: {error}",
                out.join(name).display()
            ),
        }
    }
    Ok(())
}

fn check_dtype(device: &NamedDevice, precision: Precision) -> Result<()> {
    if !device.device.supports_dtype(precision.dtype()) {
        bail!(
            "device {} doesn't compute in {}; use --dtype f32",
            device.name,
            precision.name()
        );
    }
    Ok(())
}

fn train(
    recipe: &Recipe,
    options: &PretrainOptions,
    model: MaskedLm,
    stream: TrainStream,
    eval_items: Vec<MlmItem>,
) -> Result<(MaskedLm, TrainingReport)> {
    let budget = TokenBudget::new(recipe.run.total_tokens);
    let optimizer = StableAdamWConfig {
        beta1: recipe.optimizer.beta1,
        beta2: recipe.optimizer.beta2,
        epsilon: recipe.optimizer.epsilon,
        weight_decay: recipe.optimizer.weight_decay,
        max_lr: recipe.optimizer.learning_rate,
    };
    let scheduler = TokenScheduler::new(
        recipe.schedule.clone(),
        recipe.optimizer.learning_rate,
        budget.clone(),
    );
    let config = model.model.config().clone();
    let log_path = options.out.join(METRICS_FILE);
    let log = MetricsLog::create(&log_path)
        .with_context(|| format!("{}: can't be written", log_path.display()))?;
    let (strategy, report) = TokenStrategy::new(TokenStrategyOptions {
        device: options.device.device.clone().autodiff(),
        budget: budget.clone(),
        scheduler: scheduler.clone(),
        micro_batches: recipe.batch.micro_batches,
        eval_every: recipe.run.eval_every_tokens,
        log_every: recipe.run.log_every_steps,
        max_time: recipe.run.max_seconds.map(Duration::from_secs),
        step_flops: Box::new(move |items| {
            let lengths: Vec<usize> = items
                .iter()
                .flat_map(|item| item.layout.lengths())
                .collect();
            let labelled: usize = items.iter().map(|item| item.labelled).sum();
            config.train_flops(&lengths, labelled) as f64
        }),
        peak_flops: options.peak_tflops.map(|peak| peak * 1e12),
        log,
        progress: options.progress,
    });

    let epochs = recipe
        .run
        .total_tokens
        .div_ceil(recipe.run.eval_every_tokens) as usize;
    let mut training = SupervisedTraining::new(
        &options.out,
        Arc::new(TrainLoader::new(stream, recipe.run.total_tokens)),
        Arc::new(FixedLoader::new(eval_items)),
    )
    .metrics((SeriesMetric::loss(), SeriesMetric::masked_accuracy()))
    .metric_train_numeric(SeriesMetric::learning_rate())
    .metric_train_numeric(SeriesMetric::tokens_per_second())
    .metric_train_numeric(SeriesMetric::data_wait())
    .with_metric_logger(burn::train::logger::InMemoryMetricLogger::default())
    .with_application_logger(None)
    .with_interrupter(options.interrupter.clone())
    .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
    .num_epochs(epochs);
    if options.peak_tflops.is_some() {
        training = training.metric_train_numeric(SeriesMetric::mfu());
    }
    if options.progress != Progress::Dashboard {
        training = training.renderer(Box::new(QuietRenderer));
    }
    let result = training.launch(Learner::new(
        MlmLearner { model }.train(),
        optimizer.build().into(),
        scheduler,
    ));
    if let Some(error) = result.error {
        bail!("training stopped: {error}");
    }
    let report = report
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    Ok((result.model.model, report))
}

/// Draws the run's log.
fn draw(out: &Path, unigram_loss: f64) -> Result<()> {
    let rows = read_log(&out.join(METRICS_FILE))?;
    let curve = |split: &str| -> Vec<(f64, f64)> {
        rows.iter()
            .filter(|row| row.split == split)
            .map(|row| (row.tokens as f64, row.loss))
            .collect()
    };
    let series = [
        Series::new("train", curve("train")).smoothed(0.6),
        Series::new("held out", curve("eval")),
    ];
    plot_curves(
        &out.join(PICTURE_FILE),
        "Masked language modelling loss",
        &series,
        "tokens",
        "loss (nats)",
        &[("unigram", unigram_loss)],
    )?;
    Ok(())
}
