//! A pretraining run as a TOML file.
//!
//! Every field of the file is a field of a struct here, under the same name; unknown names are refused. Missing fields have
//! the default documented at the field. A value may refer to another setting, `"${run.seed}"`. A value can be replaced from the command line (`--set optimizer.learning_rate=1e-3`), see
//! [`Recipe::with_overrides`]. A run of several phases lists them as `[[phase]]`, each with the settings in which it differs, see
//! [`PhaseRecipe`]. `recipes/` contains recipes to start from; [`builtin`] finds them by name.

mod builtin;
mod check;
mod convert;
mod corpora;
mod ema;
mod from;
mod interpolate;
mod model;
mod paths;
mod phase;
mod place;
pub mod published;
mod ramps;
#[cfg(test)]
mod reference;
mod set;
mod sources;
#[cfg(test)]
mod tests;
mod unused;

pub use builtin::{builtin, builtin_names, builtin_or_file, builtin_text};
pub use check::RecipeError;
pub use ema::EmaRecipe;
pub use model::ModelRecipe;
pub use phase::{Phase, PhaseRecipe};
pub use place::RecipeText;
pub(crate) use place::{line_at, parse_error};
pub use set::PlacedOverride;
pub(crate) use set::{SECTIONS, distance, is_setting, unknown};
pub use sources::{CorpusSource, TokenizerSource};

use crate::schedule::{BatchWarmup, Schedule, TokenSpan};
use modernbert::batch::DropoutRates;
use serde::{Deserialize, Serialize};

/// Everything that decides a pretraining run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model to train.
    #[serde(default)]
    pub model: ModelRecipe,
    /// The training data.
    #[serde(default)]
    pub data: DataRecipe,
    /// The size of a step.
    #[serde(default)]
    pub batch: BatchRecipe,
    /// The shares of masked tokens.
    #[serde(default)]
    pub mask: MaskRecipe,
    /// Dropout rates in training.
    #[serde(default)]
    pub dropout: DropoutRecipe,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: OptimizerRecipe,
    /// The exponential moving average of the weights; off by default.
    #[serde(default)]
    pub ema: EmaRecipe,
    /// The learning-rate schedule; by default the trapezoid with 5 % warmup and 30 % 1-sqrt decay.
    #[serde(default)]
    pub schedule: Schedule,
    /// Length of the run, evaluations and logging.
    #[serde(default)]
    pub run: RunRecipe,
    /// Intervals of checkpoints, and the ones that are kept.
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    /// The phases of the run, in order; without any, the run is one phase of the settings above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phase: Vec<PhaseRecipe>,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// `"registry"` (the sources cargo has unpacked on this machine, the default), or a path, or a list of paths; or the path of a
    /// folder that `modernbert-train tokenize` wrote, which contains its tokenizer and its held-out documents.
    pub corpus: CorpusSource,
    /// `"train"` (train one on the corpus, the default), or the path of a `tokenizer.json` or of the folder that holds it.
    pub tokenizer: TokenizerSource,
    /// Vocabulary of a tokenizer trained on the corpus, special tokens included. 4096 by default.
    pub tokenizer_vocab: usize,
    /// Bytes of text to train on, at most; all of the corpus by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_train_bytes: Option<u64>,
    /// Bytes of text that are held out for evaluation; of a small corpus at most a fifth. 1 MiB by default.
    pub eval_bytes: u64,
    /// Evaluate on these texts instead of holding some of `corpus` out; the same forms as there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_corpus: Option<CorpusSource>,
    /// Treatment of a document longer than a sequence. `"split"` by default.
    pub long_documents: LongDocuments,
    /// Threads that pack and mask ahead of the training step. 1 by default; the rows don't depend on the number.
    pub loader_threads: usize,
    /// Longest sequence in tokens. 512 by default.
    pub sequence_length: usize,
    /// Sequence-length warmup: tokens of rows, padding included, over which the longest sequence of training rows grows from
    /// `length_warmup_from` to `sequence_length`; none by default. A longer sequence is cut to its beginning. Rows stay full: a step has
    /// the same number of tokens throughout. Evaluations have sequences of full length.
    pub length_warmup_tokens: TokenSpan,
    /// Longest sequence of the first rows of a sequence-length warmup. 64 by default.
    pub length_warmup_from: usize,
    /// Tokens by which a sequence-length warmup grows at a time. 8 by default.
    pub length_warmup_step: usize,
    /// Seed of the order of the data and the masks; `run.seed` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// Treatment of a document longer than a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongDocuments {
    /// Cut into sequences, all of which are used.
    Split,
    /// Only its beginning is used.
    Truncate,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            corpus: CorpusSource::Registry,
            tokenizer: TokenizerSource::Train,
            tokenizer_vocab: 4096,
            max_train_bytes: None,
            eval_bytes: 1 << 20,
            eval_corpus: None,
            long_documents: LongDocuments::Split,
            loader_threads: 1,
            sequence_length: 512,
            length_warmup_tokens: TokenSpan::Tokens(0),
            length_warmup_from: 64,
            length_warmup_step: 8,
            seed: None,
        }
    }
}

/// `[batch]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchRecipe {
    /// Tokens in a micro-batch, the row that sequences are packed into. 4096 by default.
    pub tokens: usize,
    /// Micro-batches of a step (gradient accumulation). 1 by default.
    pub micro_batches: usize,
    /// Packing: fill a row with as many sequences as fit, as in the published runs; on by default. If off, a row has
    /// `tokens / data.sequence_length` sequences of any length, and steps differ in their number of tokens.
    pub packing: bool,
    /// Tokens over which the batch grows to `micro_batches`; none by default. See [`BatchWarmup`].
    pub warmup_tokens: TokenSpan,
    /// Micro-batches of the first, smallest step of the warmup. 1 by default.
    pub warmup_from: usize,
    /// Micro-batches by which the warmup grows at a time. 1 by default.
    pub warmup_step: usize,
    /// Activation checkpointing: save only the input of each layer and recompute the layer in the backward pass: a third more computation,
    /// much less memory. Off by default.
    pub recompute: bool,
}

impl BatchRecipe {
    /// The batch-size warmup of a phase of `total_tokens`.
    pub fn warmup_over(&self, total_tokens: u64) -> BatchWarmup {
        BatchWarmup::new(
            self.warmup_from,
            self.warmup_step,
            self.micro_batches,
            self.warmup_tokens.tokens(total_tokens),
        )
    }
}

impl Default for BatchRecipe {
    fn default() -> Self {
        Self {
            tokens: 4096,
            micro_batches: 1,
            packing: true,
            warmup_tokens: TokenSpan::Tokens(0),
            warmup_from: 1,
            warmup_step: 1,
            recompute: false,
        }
    }
}

/// `[mask]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskRecipe {
    /// Share of tokens to predict in training. 0.3 by default.
    pub train: f64,
    /// Share of tokens to predict in evaluation. 0.15 by default.
    pub eval: f64,
}

impl Default for MaskRecipe {
    fn default() -> Self {
        Self {
            train: 0.3,
            eval: 0.15,
        }
    }
}

/// `[dropout]`: probability with which elements are dropped in training, at each site of the model. All 0 by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DropoutRecipe {
    /// After the embedding norm.
    pub embedding: f64,
    /// Of the attention probabilities; slow, see [`modernbert::batch::DropoutRates`].
    pub attention_probabilities: f64,
    /// After the attention output projection: 0.1 in the published runs.
    pub attention_output: f64,
    /// Inside the MLP, after the gate.
    pub mlp: f64,
}

impl DropoutRecipe {
    /// The rates, as a batch has them.
    pub fn rates(&self) -> DropoutRates {
        DropoutRates {
            embedding: self.embedding,
            attention_probabilities: self.attention_probabilities,
            attention_output: self.attention_output,
            mlp: self.mlp,
            ..DropoutRates::default()
        }
    }
}

/// `[optimizer]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Update rule: `"stable_adamw"` (the published one, the default) or `"adamw"`, decoupled AdamW, whose step has no bound of its own: set
    /// `max_grad_norm` beside it. A checkpoint's moments are kept where a phase has another rule than the one before.
    #[serde(skip_serializing_if = "OptimizerKind::is_default")]
    pub kind: OptimizerKind,
    /// Peak learning rate, which the schedule scales. 8e-4 by default, the published one of base.
    pub learning_rate: f64,
    /// Share of each weight removed by a step at the peak rate. 1e-5 by default.
    pub weight_decay: f64,
    /// Decay of the first moment, the running mean of the gradient. 0.9 by default.
    pub beta1: f64,
    /// Decay of the second moment, the running mean of the squared gradient. 0.98 by default.
    pub beta2: f64,
    /// Added to the root of the second moment. 1e-6 by default.
    pub epsilon: f64,
    /// The rate at which a step decays by exactly `weight_decay`; `learning_rate` by default. Composer keeps the first phase's peak
    /// when a later phase only lowers the rate; set it here to do the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_lr: Option<f64>,
    /// Gradients of a larger norm are scaled down to it; off by default, because StableAdamW limits spikes itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_grad_norm: Option<f64>,
    /// Skip the update of a step whose loss is more than this number of standard deviations above the running mean of the losses; off by
    /// default. The log counts skipped steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_spikes: Option<f64>,
    /// Number of steps over which the running mean and deviation of the losses are taken; none of a phase's first steps, the same number, is
    /// skipped. 100 by default.
    pub spike_window: u64,
}

/// Update rule of `[optimizer]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OptimizerKind {
    /// StableAdamW.
    #[default]
    #[serde(rename = "stable_adamw")]
    StableAdamW,
    /// AdamW with decoupled weight decay.
    #[serde(rename = "adamw")]
    AdamW,
}

impl OptimizerKind {
    /// Returns true for the default, which is not written: the recipes of earlier versions, of which runs keep the hash, have no such key.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// `stable_adamw` or `adamw`, as in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::StableAdamW => "stable_adamw",
            Self::AdamW => "adamw",
        }
    }
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self {
            kind: OptimizerKind::StableAdamW,
            learning_rate: 8e-4,
            weight_decay: 1e-5,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            max_lr: None,
            max_grad_norm: None,
            skip_spikes: None,
            spike_window: 100,
        }
    }
}

/// `[run]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunRecipe {
    /// Tokens to train on, padding not counted. Required, here or in each phase.
    pub total_tokens: u64,
    /// Time limit in seconds: the run is shortened to end within it; no limit by default. Each phase has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<u64>,
    /// Seed of the initialization and, unless `data.seed` is given, of the order of the data and the masks. 17 by default.
    pub seed: u64,
    /// Tokens of training between evaluations. 200 000 by default.
    pub eval_every_tokens: u64,
    /// Tokens of one evaluation. 65 536 by default.
    pub eval_tokens: u64,
    /// Steps between rows of the log. 10 by default.
    pub log_every_steps: u64,
    /// Steps between readbacks of loss and gradient norm from the device: by default 1 on a CPU, where they cost nothing, and
    /// `log_every_steps` elsewhere, where they stall the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_every_steps: Option<u64>,
    /// Dtype of matrix multiplications and attention. `"f32"` by default.
    pub precision: TrainingPrecision,
}

impl Default for RunRecipe {
    fn default() -> Self {
        Self {
            total_tokens: 0,
            max_seconds: None,
            seed: 17,
            eval_every_tokens: 200_000,
            eval_tokens: 65_536,
            log_every_steps: 10,
            read_every_steps: None,
            precision: TrainingPrecision::F32,
        }
    }
}

/// `[checkpoint]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointRecipe {
    /// Steps of the run between checkpoints, in addition to `every_minutes`; off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_steps: Option<u64>,
    /// Minutes between checkpoints. 15 by default.
    pub every_minutes: f64,
    /// Number of newest checkpoints that are kept. 2 by default, 1 at least.
    pub keep_last: usize,
    /// Number of best checkpoints of the phase by held-out loss that are kept beside the newest one; 0 by default. Every checkpoint by steps is then
    /// evaluated first.
    pub keep_best: usize,
    /// Every checkpoint whose step is a multiple of this is kept too; off by default. A later `anneal` can start from these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_every_steps: Option<u64>,
}

impl Default for CheckpointRecipe {
    fn default() -> Self {
        Self {
            every_steps: None,
            every_minutes: 15.0,
            keep_last: 2,
            keep_best: 0,
            keep_every_steps: None,
        }
    }
}

/// Dtype of matrix multiplications and attention. Parameters, norms, softmax and loss are f32 in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingPrecision {
    /// 32-bit floats, on every device.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
}

impl TrainingPrecision {
    /// `f32` or `bf16`, as in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl Recipe {
    /// Tokens of one optimizer step, once a batch-size warmup is over.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch.tokens as u64).saturating_mul(self.batch.micro_batches as u64)
    }

    /// Number of micro-batches of a step as a function of the tokens seen.
    pub fn batch_warmup(&self) -> BatchWarmup {
        self.batch.warmup_over(self.run.total_tokens)
    }

    /// Warnings about settings that are valid but rarely intended.
    pub fn warnings(&self) -> Vec<String> {
        let is_stable = self.optimizer.kind == OptimizerKind::StableAdamW;
        let limit = self.optimizer.max_grad_norm.filter(|_| is_stable);
        let clips = limit.map(|limit| {
            format!(
                "warning: optimizer.max_grad_norm is {limit}, and StableAdamW already bounds each tensor's step where its second moment lags \
                 behind the gradient; the published recipe does not clip: leave optimizer.max_grad_norm out unless both are meant"
            )
        });
        clips.into_iter().collect()
    }

    /// Seed of data order and masks.
    pub fn data_seed(&self) -> u64 {
        self.data.seed.unwrap_or(self.run.seed)
    }
}
