//! Arguments and output that several commands share.

use anyhow::{Context, bail};
use burn::train::Interrupter;
use clap::Args;
use modernbert::checkpoint::open_with_head;
use modernbert::config::{Head, ModernBertConfig, is_share};
use modernbert::device::NamedDevice;
use modernbert::lock::{FolderLock, LOCK_FILE};
use modernbert::model::Precision;
use modernbert::output::OutputCheck;
use modernbert_cli::text::shown;
use modernbert_cli::{DeviceArgs, INTERRUPTED, describe};
use modernbert_glue::data::DataSource;
use modernbert_glue::run::{Keep, MnliStart, RunOptions, job_seeds};
use modernbert_glue::task::Task;
use modernbert_train::engine::{Progress, stop_on_signals};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Data and settings of a finetuning command.
#[derive(Args)]
pub(crate) struct JobArgs {
    /// Runs these tasks, separated by commas: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli; or all.
    #[arg(long, value_name = "TASKS")]
    pub(crate) task: String,
    /// Reads GLUE from this folder (CoLA, RTE, … as GLUE distributes them or as Parquet files), or from a data set of the Hub (nyu-mll/glue).
    #[arg(long, value_name = "FOLDER|NAME")]
    pub(crate) data: String,
    /// Writes results to this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// Runs each setting this many times, each time with another seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: usize,
    /// Starts from random weights instead of the model's, with the same config and tokenizer; for comparison.
    #[arg(long)]
    pub(crate) random_init: bool,
    /// Starts RTE, MRPC and STS-B from this model: `auto` (the MNLI model of the run, else the pretrained one), `off` (the pretrained
    /// one), or a folder with a model finetuned on MNLI.
    #[arg(long, value_name = "auto|off|FOLDER", default_value = "auto")]
    pub(crate) mnli: String,
    /// Trains on this many sequences per step; the paper's 64 by default.
    #[arg(long)]
    pub(crate) batch_size: Option<usize>,
    /// Truncates inputs to this many tokens, and counts the truncated ones [default: 256, or the model's positions where they are fewer].
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_length: Option<usize>,
    /// Raises the learning rate over this share of the steps.
    #[arg(long, default_value_t = 0.06)]
    pub(crate) warmup: f64,
    /// Drops this share of the attention output after its projection, in training; by default as the config's attention_dropout. The
    /// authors used 0.1.
    #[arg(long, value_name = "SHARE")]
    pub(crate) attention_output_dropout: Option<f64>,
    /// Reads only this many rows of each set; results are then marked as partial.
    #[arg(long)]
    pub(crate) max_rows: Option<usize>,
    /// Scores the dev set after this many steps; an epoch by default, at most 2000 steps.
    #[arg(long, value_name = "STEPS")]
    pub(crate) evaluate_every: Option<usize>,
    /// Stops a run after this many evaluations in a row without a better score; 0 never stops early. The best weights are the result in
    /// either case.
    #[arg(long, value_name = "SCORINGS", default_value_t = 3)]
    pub(crate) patience: usize,
    /// Repeats existing runs.
    #[arg(long)]
    pub(crate) again: bool,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    /// Computes matrix multiplications and attention in this dtype: f32 or bf16; STS-B is always computed in f32.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: String,
    /// Prints lines instead of the dashboard on a terminal.
    #[arg(long)]
    pub(crate) lines: bool,
}

/// Model of a finetuning command.
#[derive(Args)]
pub(crate) struct ModelArgs {
    /// Finetunes this pretrained model: a folder with config.json, model.safetensors, tokenizer.json, or a name on the Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub(crate) model: String,
}

/// Default longest input in tokens.
const MAX_LENGTH: usize = 256;

impl JobArgs {
    /// Refuses a `--max-length` beyond the positions of the model.
    pub(crate) fn check_length(&self, config: &ModernBertConfig) -> anyhow::Result<()> {
        let positions = config.max_position_embeddings;
        match self.max_length.filter(|&length| length > positions) {
            Some(length) => bail!(
                "--max-length is {length} tokens, the model takes {positions}; give at most {positions}"
            ),
            None => Ok(()),
        }
    }

    /// The options without the hyperparameters, which each command sets itself.
    pub(crate) fn options(&self) -> anyhow::Result<RunOptions> {
        for (name, value) in [
            ("--seeds", Some(self.seeds)),
            ("--batch-size", self.batch_size),
            ("--max-rows", self.max_rows),
            ("--evaluate-every", self.evaluate_every),
        ] {
            positive(name, value)?;
            at_most(name, value, 1_000_000)?;
        }
        at_most("--seeds", Some(self.seeds), 1000)?;
        if let Some(length) = self.max_length.filter(|&length| length < 8) {
            bail!(
                "--max-length is {length}; at least 8 tokens are needed for a pair with its special tokens"
            );
        }
        if !(0.0..1.0).contains(&self.warmup) {
            bail!(
                "--warmup is {}; it is a share of the steps, from 0 to below 1",
                self.warmup
            );
        }
        if let Some(rate) = self.attention_output_dropout
            && !is_share(rate)
        {
            bail!("--attention-output-dropout is {rate}; give a share from 0 to below 1");
        }
        let (device, precision) = device(&self.device, &self.dtype)?;
        let interrupter = Interrupter::new();
        stop_on_signals(&interrupter)?;
        let progress = if self.lines {
            Progress::Lines
        } else {
            Progress::detect()
        };
        Ok(RunOptions {
            device,
            precision,
            seeds: job_seeds(self.seeds),
            random_init: self.random_init,
            mnli: match self.mnli.as_str() {
                "auto" => MnliStart::Auto,
                "off" => MnliStart::Off,
                folder if Path::new(folder).is_dir() => MnliStart::Folder(PathBuf::from(folder)),
                other => bail!("--mnli is {other}: no such folder, and neither auto nor off"),
            },
            tuned: BTreeMap::new(),
            epochs: None,
            batch_size: self.batch_size,
            learning_rate: None,
            weight_decay: None,
            max_length: self.max_length.unwrap_or(MAX_LENGTH),
            warmup: self.warmup,
            attention_output_dropout: self.attention_output_dropout,
            max_rows: self.max_rows,
            evaluate_every: self.evaluate_every,
            patience: (self.patience > 0).then_some(self.patience),
            keep: Keep::Best,
            again: self.again,
            progress,
            interrupter,
        })
    }

    /// The folder of the data, downloaded if it is a name on the Hub.
    pub(crate) fn folder(&self, tasks: &[Task]) -> anyhow::Result<PathBuf> {
        Ok(DataSource::parse(&self.data).resolve(tasks)?)
    }

    /// Checks `--out` before any work; `model` is the model that is finetuned.
    ///
    /// # Errors
    /// A folder that is or contains an input, that contains other files than a job's, or that can't be written.
    pub(crate) fn check_out(&self, model: &str) -> anyhow::Result<()> {
        // The MNLI model may be one of the same job.
        let inputs = [self.data.as_str(), model];
        OutputCheck::folder(&self.out)
            .inputs(inputs)
            .replaces(is_job)
            .check()?;
        Ok(())
    }

    /// Creates `--out` and locks it until the value is dropped.
    ///
    /// # Errors
    /// Another process at work in the folder; a folder that can't be written.
    pub(crate) fn make_out(&self) -> anyhow::Result<FolderLock> {
        make_folder(&self.out)?;
        Ok(FolderLock::acquire(&self.out)?)
    }
}

/// Returns true if a folder is that of a job: only files that a job wrote are replaced. Results of another kind are an error when they are
/// read.
fn is_job(folder: &Path) -> bool {
    let has_results = || {
        let files = ["results.json", "sweep.json"];
        files.iter().any(|name| folder.join(name).is_file())
    };
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.map(name).collect()
    };
    // A job that was interrupted in its first run has folders named after tasks, before that the lock alone.
    let has_tasks = |name: &str| {
        let found = names(&folder.join(name));
        !found.is_empty() && found.iter().all(|name| name.parse::<Task>().is_ok())
    };
    let is_locked_only = || names(folder) == [LOCK_FILE] && is_lock(&folder.join(LOCK_FILE));
    has_results() || has_tasks("runs") || has_tasks("sweep") || is_locked_only()
}

/// Returns true for a file with the number of a process, or nothing.
fn is_lock(path: &Path) -> bool {
    modernbert::read::text(path).is_ok_and(|text| text.trim().chars().all(|c| c.is_ascii_digit()))
}

/// Checks that `folder` contains a model finetuned on MNLI that has the sizes of `config`, the config of `model`.
///
/// # Errors
/// A model without a classifier for three classes, or of another size.
pub(crate) fn check_mnli(
    folder: &Path,
    config: Option<&ModernBertConfig>,
    model: &str,
) -> anyhow::Result<()> {
    let place = folder.display();
    let (found, files) = open_with_head(folder, Head::Sequence)?;
    let rows = files
        .names()
        .any(|name| name == "classifier.weight")
        .then(|| found.label_count());
    if rows != Some(Task::Mnli.num_outputs()) {
        bail!(
            "--mnli {place}: this model was not finetuned on MNLI (it has no classifier of {} classes); give a folder such as \
             RUN/runs/mnli/seed-1618/model, or --mnli off",
            Task::Mnli.num_outputs()
        );
    }
    let sizes = |config: &ModernBertConfig| {
        (
            config.vocab_size,
            config.hidden_size,
            config.intermediate_size,
            config.num_hidden_layers,
        )
    };
    if let Some(config) = config
        && sizes(&found) != sizes(config)
    {
        bail!(
            "--mnli {place}: this model differs from {model} (vocabulary, hidden, intermediate, layers: {:?} and {:?})",
            sizes(&found),
            sizes(config)
        );
    }
    Ok(())
}

pub(crate) fn positive(name: &str, value: Option<usize>) -> anyhow::Result<()> {
    if value == Some(0) {
        bail!("{name} is 0; it must be at least 1");
    }
    Ok(())
}

/// Refuses counts that would overflow or fill the memory.
pub(crate) fn at_most(name: &str, value: Option<usize>, most: usize) -> anyhow::Result<()> {
    if let Some(value) = value.filter(|&value| value > most) {
        bail!("{name} is {value}; it must be at most {most}");
    }
    Ok(())
}

pub(crate) fn check_rate(rate: Option<f64>) -> anyhow::Result<()> {
    // Weights are f32: a smaller rate would be 0 there, a larger one infinite.
    let rates = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
    if rate.is_some_and(|rate| !rates.contains(&rate)) {
        bail!("--learning-rate must be a finite number above 0 that f32 holds");
    }
    Ok(())
}

pub(crate) fn check_decay(decay: Option<f64>) -> anyhow::Result<()> {
    if decay.is_some_and(|decay| !is_share(decay)) {
        bail!("--weight-decay is a share of the weight, from 0 to below 1");
    }
    Ok(())
}

pub(crate) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    modernbert::output::make_folder(folder).with_context(|| {
        format!(
            "{}: the folder can't be made; give --out another one",
            folder.display()
        )
    })
}

/// Device and dtype, if the device supports the dtype; prints both.
pub(crate) fn device(args: &DeviceArgs, dtype: &str) -> anyhow::Result<(NamedDevice, Precision)> {
    let device = args.select_for_training()?;
    let precision: Precision = dtype.parse().map_err(anyhow::Error::msg)?;
    if precision == Precision::F16 {
        bail!("--dtype is {dtype}; training computes in f32 or bf16");
    }
    if !device.device.supports_dtype(precision.dtype()) {
        bail!(
            "device {} doesn't compute in {}; use --dtype f32",
            device.name,
            precision.name()
        );
    }
    print(&describe(&device, precision.name()));
    Ok((device, precision))
}

/// The tasks of a list of names. AX has nothing to train on: with `trainable` it is refused.
pub(crate) fn tasks(names: &str, trainable: bool) -> anyhow::Result<Vec<Task>> {
    let wanted = |task: &Task| !trainable || task.train_split().is_some();
    if names == "all" {
        return Ok(Task::ALL.into_iter().filter(wanted).collect());
    }
    let mut tasks = Vec::new();
    for name in names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        let known: Vec<&str> = Task::ALL
            .iter()
            .filter(|task| wanted(task))
            .map(|task| task.name())
            .collect();
        if name == "all" {
            bail!("--task names all tasks and others; give all alone, or the names of tasks");
        }
        let task: Option<Task> = name.parse().ok();
        let Some(task) = task else {
            bail!(
                "unknown GLUE task '{name}': use one of {}; or all",
                known.join(", ")
            );
        };
        if !wanted(&task) {
            bail!("{task} has no training set; name another task");
        }
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    if tasks.is_empty() {
        bail!("--task names no task; give for example --task cola,rte,stsb");
    }
    Ok(tasks)
}

/// The error of a command of which some parts failed: complete, because a user may read only standard error.
pub(crate) fn failed(failures: &[(Task, String)], of: usize) -> anyhow::Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    let mut tasks: Vec<Task> = failures.iter().map(|(task, _)| *task).collect();
    tasks.dedup();
    let lines: Vec<String> = failures
        .iter()
        .map(|(task, message)| format!("{task}: {message}"))
        .collect();
    bail!("{} of {of} tasks failed: {}", tasks.len(), lines.join("; "));
}

pub(crate) use modernbert_cli::say as print;

/// The end of a job: exit code 130 for an interrupted one, which the same command resumes.
pub(crate) fn ended(interrupted: bool, out: &Path) -> ExitCode {
    if !interrupted {
        return ExitCode::SUCCESS;
    }
    print(&format!(
        "interrupted; finished runs are in {}, and the same command continues",
        shown(out)
    ));
    ExitCode::from(INTERRUPTED)
}
