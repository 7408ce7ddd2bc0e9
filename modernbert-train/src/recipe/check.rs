//! Checks of a recipe: limits of settings, and settings that exclude each other.

use super::{Recipe, TokenizerSource};
use crate::schedule::ScheduleError;
use modernbert::checkpoint::SourceError;
use modernbert::config::{ConfigError, is_share};
use modernbert::wording::short;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Reason why a recipe was refused.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error(
        "{path}: the recipe can't be read ({source}); give the path of a TOML file, such as those in \
         modernbert-train/recipes", path = path.display()
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The text is not TOML, lacks a field, or has a value of the wrong type.
    #[error("{source_name}: {message}")]
    Parse {
        /// The file, or the name the caller gave the text.
        source_name: String,
        /// Line, excerpt and reason.
        message: String,
    },
    /// No recipe has such a key.
    #[error("{source_name}: there is no setting {key}; {hint}")]
    UnknownKey {
        /// The file, or `--set`.
        source_name: String,
        /// The dotted key.
        key: String,
        /// The most similar keys.
        hint: String,
    },
    /// An override has no `=`.
    #[error("--set {0}: write it as key=value, such as optimizer.learning_rate=1e-3")]
    NoValue(String),
    /// An override has an empty value.
    #[error(
        "--set {0}=: the value is empty; give one, or write {0}=unset to remove the setting, which restores its default"
    )]
    EmptyValue(String),
    /// An override's value does not fit its key.
    #[error("--set {key}={value}: {message}")]
    Override {
        /// The dotted key.
        key: String,
        /// The value as given.
        value: String,
        /// The expected value.
        message: String,
    },
    /// A setting is invalid, by itself or with another one.
    #[error("{key} is {value}; {remedy}")]
    Invalid {
        /// The dotted key.
        key: String,
        /// Its value.
        value: String,
        /// Remedy.
        remedy: String,
    },
    /// Two entries of a list of texts have a file in common.
    #[error(
        "{key}: {second} is {relation} {first}{of_first}, so that its text would be read twice; name it once",
        first = first.display(),
        second = second.display(),
        of_first = first_place.as_ref().map_or(String::new(), |place| format!(" ({place})"))
    )]
    Twice {
        /// The dotted key.
        key: &'static str,
        /// The earlier entry.
        first: Box<Path>,
        /// The later entry.
        second: Box<Path>,
        /// Numbers of the two entries in the list.
        entries: (usize, usize),
        /// How the later one belongs to the earlier one, in words.
        relation: &'static str,
        /// File and line of the earlier entry, once it is known.
        first_place: Option<Box<str>>,
    },
    /// An error with the place of its setting.
    #[error("{place}: {source}")]
    At {
        /// File and line, or `--set`.
        place: String,
        /// Description of the fault.
        source: Box<RecipeError>,
    },
    /// The model of `model.from` contradicts the recipe.
    #[error("model.from = {from}: {reason}")]
    From {
        /// The model.
        from: String,
        /// Description of the conflict, and the remedy.
        reason: String,
    },
    /// The model of `model.from` can't be found.
    #[error("model.from = {from}: {source}")]
    Source {
        /// The model.
        from: String,
        /// Why.
        source: Box<SourceError>,
    },
    /// A phase can't be run.
    #[error("phase {name}: {source}")]
    Phase {
        /// The phase.
        name: String,
        /// Description of the fault.
        source: Box<RecipeError>,
    },
    /// The schedule does not fit the run.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The model cannot be built or trained.
    #[error("[model]: {0}")]
    Model(#[from] ConfigError),
}

impl RecipeError {
    pub(super) fn invalid(key: &str, value: impl ToString, remedy: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.to_owned(),
            value: shortened(value.to_string()),
            remedy: remedy.into(),
        }
    }
}

/// A value for a message; a number of hundreds of digits is written with an exponent.
fn shortened(value: String) -> String {
    match value.parse::<f64>() {
        Ok(number) if value.len() > 20 && value.contains(|c: char| c.is_ascii_digit()) => {
            short(number)
        }
        _ => value,
    }
}

/// Returns whether a number is positive and neither infinite nor 0 in f32, the type of weights and gradients.
fn fits_f32(value: f64) -> bool {
    (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(&value)
}

/// Smallest vocabulary: 256 bytes and the special tokens.
const MIN_VOCAB: usize = 300;

/// Ten years: durations are added to a clock, which would overflow.
const MOST_SECONDS: u64 = 315_360_000;
/// More threads than that are a typing error, and a system may refuse to start them.
const MOST_THREADS: usize = 1024;

pub(super) fn want(
    good: bool,
    key: &str,
    value: impl ToString,
    remedy: impl Into<String>,
) -> Result<(), RecipeError> {
    if good {
        Ok(())
    } else {
        Err(RecipeError::invalid(key, value, remedy))
    }
}

impl Recipe {
    /// Checks each setting and their combinations.
    ///
    /// # Errors
    /// The first invalid setting, with its value and the remedy.
    pub fn validate(&self) -> Result<(), RecipeError> {
        let several = !self.phase.is_empty();
        let mut names = BTreeSet::new();
        for phase in self.phases()? {
            want(
                names.insert(phase.name.clone()),
                "phase.name",
                &phase.name,
                "two phases have this name: name them differently",
            )?;
            phase.recipe.validate_alone().map_err(|error| {
                if several {
                    RecipeError::Phase {
                        name: phase.name.clone(),
                        source: Box::new(error),
                    }
                } else {
                    error
                }
            })?;
        }
        Ok(())
    }

    fn validate_alone(&self) -> Result<(), RecipeError> {
        self.validate_data()?;
        self.validate_training()?;
        self.validate_batch()?;
        self.validate_masks()?;
        self.validate_checkpoint()?;
        self.validate_run()?;
        self.validate_length_warmup()?;
        self.validate_rope_warmup()?;
        self.validate_ema()
    }

    fn validate_data(&self) -> Result<(), RecipeError> {
        let data = &self.data;
        let trained = data.tokenizer == TokenizerSource::Train;
        want(
            !trained || data.tokenizer_vocab >= MIN_VOCAB,
            "data.tokenizer_vocab",
            data.tokenizer_vocab,
            format!("256 bytes and the special tokens have to fit: set {MIN_VOCAB} or more"),
        )?;
        // The sizes of a tokenizer file and of a published model are unknown here and checked when they are read.
        let longest = match (&self.model.from, self.model.hidden_size) {
            (Some(_), None) => self.model.max_position_embeddings.unwrap_or(usize::MAX),
            _ => {
                let vocab = if trained { data.tokenizer_vocab } else { 1 };
                self.model.config(vocab)?.max_position_embeddings
            }
        };
        let corpora = [
            ("data.corpus", Some(&data.corpus)),
            ("data.eval_corpus", data.eval_corpus.as_ref()),
        ];
        let is_empty = |path: &std::path::Path| path.as_os_str().is_empty();
        for (key, corpus) in corpora {
            let super::CorpusSource::Paths(paths) =
                corpus.unwrap_or(&super::CorpusSource::Registry)
            else {
                continue;
            };
            let has_empty = paths.iter().any(|path| is_empty(path));
            want(!has_empty, key, "an empty path", "name a file or folder")?;
        }
        let named = [
            (
                "data.tokenizer",
                matches!(&data.tokenizer, TokenizerSource::Path(path) if is_empty(path)),
            ),
            (
                "model.tile_from",
                self.model.tile_from.as_deref().is_some_and(is_empty),
            ),
            (
                "model.from",
                self.model.from.as_ref().is_some_and(String::is_empty),
            ),
        ];
        for (key, has_empty) in named {
            want(!has_empty, key, "empty", "name a folder, or leave it out")?;
        }
        if let super::CorpusSource::Paths(paths) = &data.corpus {
            want(
                !paths.is_empty(),
                "data.corpus",
                "an empty list",
                "name a file or folder, or \"registry\"",
            )?;
        }
        want(
            data.max_train_bytes != Some(0),
            "data.max_train_bytes",
            0,
            "set 1 or more, or leave it out",
        )?;
        want(
            data.eval_bytes > 0,
            "data.eval_bytes",
            0,
            "set enough bytes for an evaluation, such as 1_048_576",
        )?;
        let threads = data.loader_threads;
        want(
            (1..=MOST_THREADS).contains(&threads),
            "data.loader_threads",
            threads,
            format!("set 1 or more, and {MOST_THREADS} at most"),
        )?;
        let length = data.sequence_length;
        want(length >= 8, "data.sequence_length", length, "set 8 or more")?;
        want(
            length <= longest,
            "data.sequence_length",
            length,
            format!(
                "it exceeds model.max_position_embeddings ({longest}): lower it, or raise the other"
            ),
        )?;
        want(
            length <= self.batch.tokens,
            "batch.tokens",
            self.batch.tokens,
            format!(
                "it must be at least data.sequence_length ({length}): raise it, or lower the other"
            ),
        )
    }

    fn validate_training(&self) -> Result<(), RecipeError> {
        for (key, share) in [
            ("mask.train", self.mask.train),
            ("mask.eval", self.mask.eval),
        ] {
            want(
                share > 0.0 && share < 1.0,
                key,
                share,
                "set a share above 0 and below 1",
            )?;
        }
        let dropout = &self.dropout;
        for (key, rate) in [
            ("dropout.embedding", dropout.embedding),
            (
                "dropout.attention_probabilities",
                dropout.attention_probabilities,
            ),
            ("dropout.attention_output", dropout.attention_output),
            ("dropout.mlp", dropout.mlp),
        ] {
            want(
                is_share(rate),
                key,
                rate,
                "set at least 0 and below 1, also in f32",
            )?;
        }
        let o = &self.optimizer;
        let rate = o.learning_rate;
        let positive = [
            ("optimizer.learning_rate", o.learning_rate),
            ("optimizer.epsilon", o.epsilon),
        ];
        for (key, value) in positive {
            want(
                value.is_finite() && value > 0.0,
                key,
                value,
                "set a positive number",
            )?;
            let is_large = value > f64::from(f32::MAX);
            let remedy = if is_large {
                "it is too large for f32: lower it"
            } else {
                "it is too small for f32: raise it"
            };
            want(fits_f32(value), key, value, remedy)?;
        }
        for (key, value) in [("optimizer.beta1", o.beta1), ("optimizer.beta2", o.beta2)] {
            want(
                is_share(value),
                key,
                value,
                "set at least 0 and below 1, also in f32",
            )?;
        }
        want(
            is_share(o.weight_decay),
            "optimizer.weight_decay",
            o.weight_decay,
            "it is the share of each weight removed by a step: set at least 0 and below 1",
        )?;
        for (key, value) in [
            ("optimizer.max_lr", o.max_lr),
            ("optimizer.max_grad_norm", o.max_grad_norm),
            ("optimizer.skip_spikes", o.skip_spikes),
        ] {
            let good = value.is_none_or(fits_f32);
            let shown = value.unwrap_or_default();
            want(
                good,
                key,
                shown,
                "set a positive number that f32 holds, or leave it out",
            )?;
        }
        let max_lr = o.max_lr.unwrap_or(rate);
        want(
            rate / max_lr * o.weight_decay < 1.0,
            "optimizer.max_lr",
            max_lr,
            format!(
                "a step at optimizer.learning_rate ({rate}) would remove more than each weight: raise it, or lower optimizer.weight_decay ({})",
                o.weight_decay
            ),
        )?;
        want(
            (2..=1_000_000).contains(&o.spike_window),
            "optimizer.spike_window",
            o.spike_window,
            "it is the number of steps that a mean runs over: set 2 to 1 000 000",
        )
    }

    fn validate_masks(&self) -> Result<(), RecipeError> {
        // A step has about this many tokens; without a labelled one it has no loss.
        let step = self.batch.tokens.saturating_mul(self.batch.micro_batches);
        want(
            self.mask.train * step as f64 >= 1.0,
            "mask.train",
            self.mask.train,
            format!(
                "of a step's {step} tokens (batch.tokens times batch.micro_batches) less than one would be predicted: raise it"
            ),
        )
    }

    fn validate_batch(&self) -> Result<(), RecipeError> {
        let batch = &self.batch;
        let counts = [
            ("batch.micro_batches", batch.micro_batches),
            ("batch.warmup_from", batch.warmup_from),
            ("batch.warmup_step", batch.warmup_step),
        ];
        for (key, value) in counts {
            want(value > 0, key, value, "set 1 or more")?;
        }
        let warmup = batch.warmup_tokens.tokens(self.run.total_tokens);
        want(
            warmup == 0 || batch.warmup_from < batch.micro_batches,
            "batch.warmup_from",
            batch.warmup_from,
            format!(
                "a warmup grows to batch.micro_batches ({}): lower it, raise the other, or leave batch.warmup_tokens out",
                batch.micro_batches
            ),
        )?;
        want(
            warmup <= self.run.total_tokens,
            "batch.warmup_tokens",
            warmup,
            format!(
                "it exceeds run.total_tokens ({}): shorten it",
                self.run.total_tokens
            ),
        )
    }

    fn validate_checkpoint(&self) -> Result<(), RecipeError> {
        let checkpoint = &self.checkpoint;
        let minutes = checkpoint.every_minutes;
        want(
            minutes > 0.0 && minutes <= MOST_SECONDS as f64 / 60.0,
            "checkpoint.every_minutes",
            minutes,
            "set it above 0 and to ten years at most",
        )?;
        let counts = [
            (
                "checkpoint.every_steps",
                checkpoint.every_steps.unwrap_or(1),
            ),
            (
                "checkpoint.keep_every_steps",
                checkpoint.keep_every_steps.unwrap_or(1),
            ),
            ("checkpoint.keep_last", checkpoint.keep_last as u64),
        ];
        for (key, value) in counts {
            want(value > 0, key, value, "set 1 or more")?;
        }
        Ok(())
    }

    fn validate_run(&self) -> Result<(), RecipeError> {
        let run = &self.run;
        let step = self.tokens_per_step();
        want(
            run.total_tokens > 0,
            "run.total_tokens",
            "missing or 0",
            "give it, in [run] or in each [[phase]]",
        )?;
        want(
            run.total_tokens >= step,
            "run.total_tokens",
            run.total_tokens,
            format!(
                "one step takes {step} (batch.tokens times batch.micro_batches): raise it, or lower those"
            ),
        )?;
        let counts = [
            ("run.eval_every_tokens", run.eval_every_tokens),
            ("run.eval_tokens", run.eval_tokens),
            ("run.log_every_steps", run.log_every_steps),
            ("run.read_every_steps", run.read_every_steps.unwrap_or(1)),
            ("run.max_seconds", run.max_seconds.unwrap_or(1)),
        ];
        for (key, value) in counts {
            want(value > 0, key, value, "set 1 or more")?;
        }
        let seconds = run.max_seconds.unwrap_or(1);
        want(
            seconds <= MOST_SECONDS,
            "run.max_seconds",
            seconds,
            format!("ten years are {MOST_SECONDS}: set less, or leave it out"),
        )?;
        for (key, value) in [
            ("data.seed", self.data.seed.unwrap_or(0)),
            ("run.seed", run.seed),
            ("run.total_tokens", run.total_tokens),
        ] {
            want(
                i64::try_from(value).is_ok(),
                key,
                value,
                "TOML holds integers below 2^63: choose a smaller one",
            )?;
        }
        Ok(self.schedule.check(run.total_tokens)?)
    }
}
