//! A finetuning run, from its arguments to its closing lines.

use anyhow::{Context, bail};
use modernbert::Loader;
use modernbert::atomic::write_new;
use modernbert::checkpoint::save;
use modernbert::config::{ModernBertConfig, ProblemType};
use modernbert::device::NamedDevice;
use modernbert::model::{Architecture, Precision};
use modernbert::tokenizer::Tokenizer;
use modernbert::wording::short;
use modernbert_cli::text::{counted, shown};
use modernbert_cli::{INTERRUPTED, describe, say, tell};
use modernbert_glue::run::weights_hash;
use modernbert_train::engine::{Progress, device_peak, stop_on_signals};
use modernbert_train::finetune::table::ChoiceFile;
use modernbert_train::finetune::{
    BoxError, ChoiceSample, DevScore, Encoded, Example, FinetuneError, FinetuneOptions, Finetuned,
    Finetuning, Sample, Text, encode, encode_choices,
};
use modernbert_train::saving::{Saving, check_written, put_model, remove_checkpoints};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::FinetuneArgs;

/// Default longest input in tokens.
const MAX_LENGTH: usize = 256;
/// Longest time between checkpoints: durations are added to a clock.
const TEN_YEARS: Duration = Duration::from_secs(315_360_000);

/// The head of a finetuned model, as its config describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskHead {
    labels: Vec<String>,
    outputs: usize,
    problem: Option<ProblemType>,
    scoring: String,
}

impl TaskHead {
    /// Texts with one of these labels each.
    pub fn classes(labels: &[String]) -> Self {
        Self {
            problem: Some(ProblemType::SingleLabel),
            ..Self::tags(labels)
        }
    }

    /// Texts with any number of these labels each.
    pub fn several(labels: &[String]) -> Self {
        Self {
            problem: Some(ProblemType::MultiLabel),
            ..Self::tags(labels)
        }
    }

    /// Texts with a number each.
    pub fn number() -> Self {
        Self {
            problem: Some(ProblemType::Regression),
            ..Self::choices()
        }
    }

    /// Words or tokens with one of these labels each.
    pub fn tags(labels: &[String]) -> Self {
        Self {
            labels: labels.to_vec(),
            outputs: labels.len(),
            problem: None,
            scoring: String::new(),
        }
    }

    /// Answers in contexts: scores of their beginnings and their ends.
    pub fn answers() -> Self {
        Self {
            outputs: 2,
            ..Self::choices()
        }
    }

    /// Returns the head with a description of further settings that decide the scores of the dev set: a checkpoint with other ones is refused.
    #[must_use]
    pub fn scored_by(mut self, how: impl Into<String>) -> Self {
        self.scoring = how.into();
        self
    }

    /// A score for each choice of a question.
    pub fn choices() -> Self {
        Self {
            labels: Vec::new(),
            outputs: 1,
            problem: None,
            scoring: String::new(),
        }
    }
}

/// A model that is about to be finetuned.
pub struct Session {
    args: FinetuneArgs,
    device: NamedDevice,
    precision: Precision,
    folder: PathBuf,
    config: ModernBertConfig,
    default_length: usize,
    /// The model's tokenizer.
    pub tokenizer: Tokenizer,
}

impl Session {
    /// Opens the model's folder and the device. `data` are the files and folders that will be read: results may not be inside of them.
    ///
    /// # Errors
    /// A folder without a model; a device or dtype that is not available; a place for results that can't be used.
    pub fn open(args: &FinetuneArgs, data: &[&Path]) -> anyhow::Result<Self> {
        let precision: Precision = args.dtype.parse().map_err(anyhow::Error::msg)?;
        let device = args.device.select_for_training()?;
        say(&describe(&device, precision.name()));
        args.check(data)?;
        let folder = Loader::from(&args.model).folder()?;
        let config = modernbert::checkpoint::read_config(&folder)?;
        let positions = config.max_position_embeddings;
        if let Some(length) = args.max_length.filter(|&length| length > positions) {
            bail!(
                "--max-length is {length} tokens, the model takes {positions}; give at most {positions}"
            );
        }
        Ok(Self {
            config,
            tokenizer: Tokenizer::from_folder(&folder)?,
            args: args.clone(),
            default_length: MAX_LENGTH,
            device,
            precision,
            folder,
        })
    }

    /// Computes in f32, whatever `--dtype` is.
    #[must_use]
    pub fn in_f32(mut self) -> Self {
        self.precision = Precision::F32;
        self
    }

    /// Returns the session with another default of `--max-length`.
    #[must_use]
    pub fn with_max_length(mut self, tokens: usize) -> Self {
        self.default_length = tokens;
        self
    }

    /// Returns the longest input in tokens: `--max-length` or the program's default, at most the model's positions.
    pub fn max_length(&self) -> usize {
        let asked = self.args.max_length.unwrap_or(self.default_length);
        asked.min(self.config.max_position_embeddings)
    }

    /// Encodes texts as sequences; prints how many were truncated or empty.
    ///
    /// # Errors
    /// A maximum length too small for the special tokens.
    pub fn encode(&self, texts: &[Text<'_>]) -> anyhow::Result<Vec<Sample>> {
        let limit = self.max_length();
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

    /// Encodes questions with their choices as sequences; prints how many were truncated.
    ///
    /// # Errors
    /// A maximum length too small for the special tokens; a text that can't be encoded.
    pub fn encode_choices(&self, file: &ChoiceFile) -> anyhow::Result<Vec<ChoiceSample>> {
        let limit = self.max_length();
        let encoded = encode_choices(&self.tokenizer, file, limit)?;
        if encoded.truncated > 0 {
            say(&format!(
                "{}: {} of {} truncated to {limit} tokens",
                shown(&file.path),
                encoded.truncated,
                counted(encoded.samples.len() as u64, "question", "questions")
            ));
        }
        Ok(encoded.samples)
    }

    /// Finetunes a classifier of texts with these labels (none: regression); see [`Self::train`].
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn finetune(
        &self,
        labels: &[String],
        train: Vec<Sample>,
        dev: Vec<Sample>,
        options: FinetuneOptions,
        score: impl FnMut(&[Vec<f32>]) -> Result<DevScore, BoxError> + Send + 'static,
    ) -> anyhow::Result<Finetuned> {
        let head = match labels {
            [] => TaskHead::number(),
            labels => TaskHead::classes(labels),
        };
        self.train(&head, train, dev, options, score)
    }

    /// Finetunes a model with this head on examples of its kind, prints the best score and saves the model with `--out`.
    ///
    /// A run that is interrupted (Ctrl-C) saves a checkpoint and the best model so far with `--out`, and ends the process with exit code
    /// 130.
    ///
    /// # Errors
    /// Those of [`Finetuning::run`], and a folder that can't be written.
    pub fn train<E: Example>(
        &self,
        head: &TaskHead,
        train: Vec<E>,
        dev: Vec<E>,
        options: FinetuneOptions,
        score: impl FnMut(&[Vec<f32>]) -> Result<DevScore, BoxError> + Send + 'static,
    ) -> anyhow::Result<Finetuned<E::Model>> {
        self.config_with(head)?;
        let args = &self.args;
        if let (Some(out), true) = (&args.out, args.resume) {
            check_written(out)?;
        }
        let scale = (768.0 / self.config.hidden_size as f64).max(1.0);
        let options = FinetuneOptions {
            epochs: args.epochs.unwrap_or(options.epochs),
            learning_rate: args.learning_rate.unwrap_or(options.learning_rate * scale),
            weight_decay: args.weight_decay.unwrap_or(options.weight_decay),
            batch_size: args.batch_size.unwrap_or(options.batch_size),
            micro_batches: args.micro_batches,
            attention_output_dropout: args
                .attention_output_dropout
                .or(options.attention_output_dropout),
            evaluate_every: match args.evaluate_every {
                Some(steps) => Some(usize::try_from(steps)?),
                None => options.evaluate_every,
            },
            patience: match args.patience {
                Some(patience) => (patience > 0).then_some(patience),
                None => options.patience,
            },
            seed: args.seed,
            ..options
        };
        // A classifier in the folder is for another task: this one is initialized.
        let loader = Loader::new(&self.folder)
            .device(&self.device.device)
            .precision(self.precision);
        let (model, _) = E::load(loader, head.outputs, args.seed)?;
        let mut run = Finetuning::new(train, dev, options, score);
        if args.lines {
            run.progress = Progress::Lines;
        }
        run.peak_flops = device_peak(&self.device, self.precision);
        run.saving = args
            .out
            .as_deref()
            .map(|out| self.saving(head, out))
            .transpose()?;
        stop_on_signals(&run.interrupter)?;
        let finetuned = match run.run(model) {
            Err(error @ FinetuneError::Interrupted { .. }) => {
                say(&error.to_string());
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
        let chosen = match finetuned.best.score.main {
            Some(_) => "best",
            None => {
                tell(
                    "warning: no evaluation had a defined score, as where all predictions are equal; the weights are those of the last one",
                );
                "last"
            }
        };
        say(&format!(
            "{chosen} at step {} of {}: {}",
            finetuned.best.step,
            finetuned.planned_steps,
            metrics.join(", ")
        ));
        if let Some(out) = &args.out {
            self.save(head, &finetuned.model, out)?;
        }
        if let Some(at) = &finetuned.interrupted {
            let how = match &at.checkpoint {
                Some(place) => format!(
                    ", saved in {}; go on with the same command and --resume",
                    shown(place)
                ),
                None => String::new(),
            };
            say(&format!("interrupted at step {}{how}", at.step));
            std::process::exit(INTERRUPTED.into());
        }
        if let (Some(out), None) = (&args.out, args.save_every) {
            for warning in remove_checkpoints(out)? {
                say(&format!("warning: {warning}"));
            }
        }
        Ok(finetuned)
    }

    /// The config of the model with this head.
    ///
    /// # Errors
    /// Labels that no program could print.
    fn config_with(&self, head: &TaskHead) -> anyhow::Result<ModernBertConfig> {
        let mut config = self.config.clone();
        // Settings of another head in the folder's config do not apply to this head.
        config.num_labels = Some(head.outputs);
        config.id2label = (!head.labels.is_empty()).then(|| head.labels.clone());
        config.problem_type = head.problem;
        config.validate()?;
        Ok(config)
    }

    /// Writes the model, its config and its tokenizer into `out`.
    fn save<M: Architecture>(&self, head: &TaskHead, model: &M, out: &Path) -> anyhow::Result<()> {
        let config = self.config_with(head)?;
        let positions = config.max_position_embeddings;
        let tokenizer = self.tokenizer.clone().with_max_length(positions);
        put_model(out, |folder| -> anyhow::Result<()> {
            save(model, &config, folder)?;
            Ok(tokenizer.save(folder)?)
        })?;
        say(&format!("model in {}", shown(out)));
        Ok(())
    }

    /// Writes `--predictions`, one JSON line per row; does nothing without that option.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write_predictions(
        &self,
        rows: impl IntoIterator<Item = serde_json::Value>,
    ) -> anyhow::Result<()> {
        let Some(file) = &self.args.predictions else {
            return Ok(());
        };
        let lines: String = rows.into_iter().map(|row| format!("{row}\n")).collect();
        write_new(file, lines.as_bytes())
            .with_context(|| format!("{} can't be written; check --predictions", file.display()))?;
        say(&format!("predictions in {}", shown(file)));
        Ok(())
    }

    /// Returns the settings of the checkpoints of a run in `out`.
    fn saving(&self, head: &TaskHead, out: &Path) -> anyhow::Result<Saving> {
        let args = &self.args;
        let every = Duration::try_from_secs_f64(60.0 * args.save_every_minutes);
        let every = every
            .ok()
            .filter(|every| !every.is_zero() && *every <= TEN_YEARS);
        let every = every.with_context(|| {
            let minutes = args.save_every_minutes;
            format!(
                "--save-every-minutes is {}; give a number of minutes, from a nanosecond to ten years",
                short(minutes)
            )
        })?;
        Ok(Saving {
            every_steps: args.save_every,
            every,
            resume: args.resume,
            // The weights, not the folder's name, which has several spellings.
            identity: format!(
                "{} {} {:?} {} {:?}",
                weights_hash(&self.folder)?,
                self.precision.name(),
                head.problem,
                head.scoring,
                head.labels
            ),
            ..Saving::new(out)
        })
    }
}

/// Names of classes as [`Session::finetune`] takes them.
pub fn names(labels: &[&str]) -> Vec<String> {
    labels.iter().map(ToString::to_string).collect()
}
