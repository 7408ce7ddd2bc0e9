//! Code shared by the finetuning programs: arguments, the opened model, a run with its last lines.

use anyhow::Context;
use clap::Args;
use modernbert::checkpoint::{CONFIG_FILE, ModelSource, WEIGHTS_FILE, save};
use modernbert::config::{ModernBertConfig, ProblemType};
use modernbert::device::NamedDevice;
use modernbert::model::{Precision, SequenceClassifier};
use modernbert::output::{OutputCheck, StagedFolder};
use modernbert::tokenizer::Tokenizer;
use modernbert::{HeadStart, Loader};
use modernbert_cli::{DeviceArgs, INTERRUPTED, describe, say};
use modernbert_train::engine::{Progress, device_peak, stop_on_signals};
use modernbert_train::finetune::{
    BoxError, Encoded, FinetuneError, FinetuneOptions, Finetuned, Finetuning, Sample, Saving,
    Score, Text, encode, has_checkpoints, remove_checkpoints,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The model to start from and what differs from a program's settings.
#[derive(Args, Clone, Debug)]
pub struct FinetuneArgs {
    /// Model to start from: a folder with config.json, model.safetensors and tokenizer.json, or a name on the Hugging Face Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: String,
    /// Folder for the finetuned model.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Seed of the classifier's first weights and of the order of samples.
    #[arg(long, default_value_t = 1618)]
    pub seed: u64,
    /// Passes over the training set, instead of the program's.
    #[arg(long)]
    pub epochs: Option<usize>,
    /// Peak learning rate, instead of the program's times 768 / width for models narrower than base.
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Sequences of a step, instead of the program's.
    #[arg(long)]
    pub batch_size: Option<usize>,
    /// Longest input in tokens; what is longer is cut and counted.
    #[arg(long, default_value_t = 256)]
    pub max_length: usize,
    /// Micro-batches of a step, whose gradients are accumulated: more of them take less memory.
    #[arg(long, default_value_t = 1)]
    pub micro_batches: usize,
    /// Steps between checkpoints in --out; by default none by steps. Checkpoints by steps stay after the end of the run.
    #[arg(long, value_name = "STEPS", requires = "out", value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,
    /// Minutes between checkpoints in --out.
    #[arg(long, value_name = "MINUTES", requires = "out", default_value_t = 15.0)]
    pub save_every_minutes: f64,
    /// Goes on from the newest checkpoint in --out, bit for bit as if the run had never stopped; give the other options as before.
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Plain lines even on a terminal.
    #[arg(long)]
    pub lines: bool,
    /// Device, the same in every program.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Dtype of matrix multiplications and attention.
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    pub dtype: String,
}

impl FinetuneArgs {
    /// Checks settings, and the place for the model, before any work.
    fn check(&self) -> anyhow::Result<()> {
        if let Some(rate) = self.learning_rate {
            anyhow::ensure!(
                rate > 0.0 && rate.is_finite(),
                "--learning-rate is {rate}; give a finite number above 0"
            );
        }
        let Some(out) = &self.out else { return Ok(()) };
        let source = ModelSource::parse(&self.model);
        let bytes = match &source {
            ModelSource::Folder(folder) => modernbert::checkpoint::read_config(folder)
                .map_or(0, |config| config.mlm_parameters().saturating_mul(4)),
            ModelSource::Hub(_) => 0,
        };
        let resumable = |out: &Path| {
            has_checkpoints(out).is_ok_and(|has| has) || !out.join(CONFIG_FILE).exists()
        };
        OutputCheck::folder(out)
            .inputs([&self.model])
            .needs(bytes)
            .replaces(|out| self.resume && resumable(out))
            .check()?;
        Ok(())
    }
}

/// GLUE's data, for the programs of its tasks.
#[derive(Args, Clone, Debug)]
pub struct GlueArgs {
    /// Folder that holds CoLA, RTE, … as GLUE distributes them or as the Hub's Parquet files.
    #[arg(long, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Only the first so many rows of each set, to try things out.
    #[arg(long)]
    pub max_rows: Option<usize>,
    /// The rest.
    #[command(flatten)]
    pub finetune: FinetuneArgs,
}

impl GlueArgs {
    /// Training and dev sets of a task.
    ///
    /// # Errors
    /// Files that are missing or wrong.
    pub fn load(
        &self,
        task: modernbert_glue::task::Task,
    ) -> anyhow::Result<modernbert_glue::data::TaskData> {
        let mut data = modernbert_glue::data::TaskData::load(&self.data, task)?;
        if let Some(rows) = self.max_rows {
            data.train.truncate(rows);
            data.dev.iter_mut().for_each(|split| split.truncate(rows));
        }
        for note in modernbert_glue::data::notes(&data) {
            say(&note);
        }
        Ok(data)
    }
}

/// A model that is about to be finetuned.
pub struct Session {
    args: FinetuneArgs,
    device: NamedDevice,
    precision: Precision,
    folder: PathBuf,
    config: ModernBertConfig,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

impl Session {
    /// Opens the model's folder and the device.
    ///
    /// # Errors
    /// A folder that is no model's, a device or dtype that isn't there.
    pub fn open(args: &FinetuneArgs) -> anyhow::Result<Self> {
        let precision: Precision = args.dtype.parse().map_err(anyhow::Error::msg)?;
        let device = args.device.select_for_training()?;
        say(&describe(&device, precision.name()));
        args.check()?;
        let folder = Loader::from(&args.model).folder()?;
        Ok(Self {
            config: modernbert::checkpoint::read_config(&folder)?,
            tokenizer: Tokenizer::from_folder(&folder)?,
            args: args.clone(),
            device,
            precision,
            folder,
        })
    }

    /// Computes in f32 whatever was asked for.
    #[must_use]
    pub fn in_f32(mut self) -> Self {
        self.precision = Precision::F32;
        self
    }

    /// Texts to sequences; says how many were cut or empty.
    ///
    /// # Errors
    /// A maximum length too small for the special tokens.
    pub fn encode(&self, texts: &[Text<'_>]) -> anyhow::Result<Vec<Sample>> {
        let limit = self
            .args
            .max_length
            .min(self.config.max_position_embeddings);
        let Encoded {
            samples,
            truncated,
            empty,
        } = encode(&self.tokenizer, texts, limit)?;
        if truncated + empty > 0 {
            say(&format!(
                "of {} inputs {truncated} were truncated to {limit} tokens, {empty} have an empty text",
                samples.len()
            ));
        }
        Ok(samples)
    }

    /// Finetunes a classifier with these labels (none: regression), prints the best score and saves the model with `--out`.
    ///
    /// A run that is interrupted (Ctrl-C) saves a checkpoint and the best model so far with `--out`, and ends the process with exit code
    /// 130.
    ///
    /// # Errors
    /// Those of [`Finetuning::run`], and a folder that can't be written.
    pub fn finetune(
        &self,
        labels: &[String],
        train: Vec<Sample>,
        dev: Vec<Sample>,
        options: FinetuneOptions,
        score: impl FnMut(&[Vec<f32>]) -> Result<Score, BoxError> + Send + 'static,
    ) -> anyhow::Result<Finetuned> {
        let args = &self.args;
        let scale = (768.0 / self.config.hidden_size as f64).max(1.0);
        let options = FinetuneOptions {
            epochs: args.epochs.unwrap_or(options.epochs),
            learning_rate: args.learning_rate.unwrap_or(options.learning_rate * scale),
            batch_size: args.batch_size.unwrap_or(options.batch_size),
            micro_batches: args.micro_batches,
            seed: args.seed,
            ..options
        };
        let outputs = labels.len().max(1);
        let device = &self.device.device;
        // A classifier in the folder is for another task: this one is initialized.
        let loader = Loader::new(&self.folder)
            .device(device)
            .precision(self.precision);
        let (model, _) =
            SequenceClassifier::load_for_finetuning(loader, outputs, HeadStart::Fresh, args.seed)?;
        let mut run = Finetuning::new(train, dev, options, score);
        if args.lines {
            run.progress = Progress::Lines;
        }
        run.peak_flops = device_peak(&self.device, self.precision);
        run.saving = args
            .out
            .as_deref()
            .map(|out| self.saving(out))
            .transpose()?;
        stop_on_signals(&run.interrupter)?;
        let finetuned = match run.run(model) {
            Err(FinetuneError::Interrupted { at, label }) => {
                say(&FinetuneError::Interrupted { at, label }.to_string());
                std::process::exit(INTERRUPTED.into());
            }
            other => other?,
        };
        let metrics: Vec<String> = finetuned
            .best
            .score
            .metrics
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("{name} {value:.4}"),
                None => format!("{name} undefined"),
            })
            .collect();
        say(&format!(
            "best at step {} of {}: {}",
            finetuned.best.step,
            finetuned.planned_steps,
            metrics.join(", ")
        ));
        if let Some(out) = &args.out {
            let mut config = self.config.clone();
            config.num_labels = Some(outputs);
            config.id2label = (!labels.is_empty()).then(|| labels.to_vec());
            config.problem_type = Some(match labels {
                [] => ProblemType::Regression,
                _ => ProblemType::SingleLabel,
            });
            let positions = config.max_position_embeddings;
            let tokenizer = self.tokenizer.clone().with_max_length(positions);
            if args.resume {
                // What is there is this run's: its checkpoints were.
                save(&finetuned.model, &config, out)?;
                tokenizer.save(out)?;
            } else {
                let staged = StagedFolder::create(out)?;
                save(&finetuned.model, &config, staged.path())?;
                tokenizer.save(staged.path())?;
                staged.publish(WEIGHTS_FILE)?;
            }
            say(&format!("model in {}", out.display()));
        }
        if let Some(at) = &finetuned.interrupted {
            let how = match &at.checkpoint {
                Some(place) => format!(
                    ", saved in {}; go on with the same command and --resume",
                    place.display()
                ),
                None => String::new(),
            };
            say(&format!("interrupted at step {}{how}", at.step));
            std::process::exit(INTERRUPTED.into());
        }
        if let (Some(out), None) = (&args.out, args.save_every) {
            remove_checkpoints(out)?;
        }
        Ok(finetuned)
    }

    /// The checkpoints of a run in `out`.
    fn saving(&self, out: &Path) -> anyhow::Result<Saving> {
        let args = &self.args;
        let every = Duration::try_from_secs_f64(60.0 * args.save_every_minutes);
        let every = every.ok().filter(|every| !every.is_zero());
        let every = every.with_context(|| {
            let minutes = args.save_every_minutes;
            format!("--save-every-minutes is {minutes}; give a number above 0")
        })?;
        Ok(Saving {
            every_steps: args.save_every,
            every,
            resume: args.resume,
            identity: format!("{} {}", args.model, self.precision.name()),
            ..Saving::new(out)
        })
    }
}

/// Names of classes as [`Session::finetune`] takes them.
pub fn names(labels: &[&str]) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}
