//! A pretraining run as a TOML file.
//!
//! Every field of the file is a field of a struct here, under the same name; unknown names are refused. What the file leaves out takes
//! the default documented at the field. A value can be replaced from the command line (`--set optimizer.learning_rate=1e-3`), see
//! [`Recipe::with_overrides`]. `recipes/` holds recipes to start from.

mod check;
mod model;
mod set;
#[cfg(test)]
mod tests;
mod text_or;

pub use check::RecipeError;
pub use model::ModelRecipe;
pub use text_or::{Corpus, Tokenizer};

use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};

/// Everything that decides a pretraining run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model to train.
    pub model: ModelRecipe,
    /// What it is trained on.
    #[serde(default)]
    pub data: DataRecipe,
    /// How much goes into one step.
    #[serde(default)]
    pub batch: BatchRecipe,
    /// How many tokens are hidden.
    #[serde(default)]
    pub mask: MaskRecipe,
    /// The optimizer, StableAdamW.
    #[serde(default)]
    pub optimizer: OptimizerRecipe,
    /// How the learning rate moves; by default the trapezoid with 5 % warmup and 30 % 1-sqrt decay.
    #[serde(default)]
    pub schedule: Schedule,
    /// How long it runs, and what it says on the way.
    pub run: RunRecipe,
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// `"registry"` (the sources cargo has unpacked on this machine, the default), or a path, or a list of paths.
    pub corpus: Corpus,
    /// `"train"` (learn one from the corpus, the default), or the path of a `tokenizer.json` or of the folder that holds it.
    pub tokenizer: Tokenizer,
    /// Vocabulary of a tokenizer learned from the corpus, special tokens included. 4096 by default.
    pub tokenizer_vocab: usize,
    /// At most so many bytes of text are trained on; all of it by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_train_bytes: Option<u64>,
    /// So many bytes of text are held out for evaluation. 1 MiB by default.
    pub eval_bytes: u64,
    /// What becomes of a document longer than a sequence. `"split"` by default.
    pub long_documents: LongDocuments,
    /// Longest sequence in tokens. 512 by default.
    pub sequence_length: usize,
}

/// What becomes of a document longer than a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongDocuments {
    /// It is cut into sequences, and all of it is used.
    Split,
    /// Its beginning is used.
    Truncate,
}

impl Default for DataRecipe {
    fn default() -> Self {
        Self {
            corpus: Corpus::Registry,
            tokenizer: Tokenizer::Train,
            tokenizer_vocab: 4096,
            max_train_bytes: None,
            eval_bytes: 1 << 20,
            long_documents: LongDocuments::Split,
            sequence_length: 512,
        }
    }
}

/// `[batch]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchRecipe {
    /// Tokens in a micro-batch, the row that sequences are packed into. 4096 by default.
    pub tokens: usize,
    /// Micro-batches whose gradients are added up for one step. 1 by default.
    pub micro_batches: usize,
}

impl Default for BatchRecipe {
    fn default() -> Self {
        Self {
            tokens: 4096,
            micro_batches: 1,
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

/// `[optimizer]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerRecipe {
    /// Peak learning rate, which the schedule scales. 8e-4 by default, the published one of base.
    pub learning_rate: f64,
    /// Share of each weight removed by a step at the peak rate. 1e-5 by default.
    pub weight_decay: f64,
    /// How much of the mean gradient a step keeps. 0.9 by default.
    pub beta1: f64,
    /// How much of the mean squared gradient a step keeps. 0.98 by default.
    pub beta2: f64,
    /// Added to the root of the mean squared gradient. 1e-6 by default.
    pub epsilon: f64,
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self {
            learning_rate: 8e-4,
            weight_decay: 1e-5,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
        }
    }
}

/// `[run]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecipe {
    /// Tokens to train on, padding not counted.
    pub total_tokens: u64,
    /// Stop after so many seconds even if tokens are left; no limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_seconds: Option<u64>,
    /// Decides the weights, the order of the data and the masks. 17 by default.
    #[serde(default = "defaults::seed")]
    pub seed: u64,
    /// Evaluate each time so many tokens have been trained on. 200 000 by default.
    #[serde(default = "defaults::eval_every_tokens")]
    pub eval_every_tokens: u64,
    /// Tokens of one evaluation. 65 536 by default.
    #[serde(default = "defaults::eval_tokens")]
    pub eval_tokens: u64,
    /// Report the loss every so many steps. 10 by default.
    #[serde(default = "defaults::log_every_steps")]
    pub log_every_steps: u64,
    /// Number format of matrix products and attention. `"f32"` by default.
    #[serde(default)]
    pub precision: Precision,
}

mod defaults {
    pub(super) fn seed() -> u64 {
        17
    }
    pub(super) fn eval_every_tokens() -> u64 {
        200_000
    }
    pub(super) fn eval_tokens() -> u64 {
        65_536
    }
    pub(super) fn log_every_steps() -> u64 {
        10
    }
}

/// Number format of matrix products and attention. Parameters, norms, softmax and loss are f32 in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats, on every device.
    #[default]
    F32,
    /// 16-bit brain floats.
    Bf16,
}

impl Precision {
    /// `f32` or `bf16`, as in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl Recipe {
    /// Tokens of one optimizer step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch.tokens as u64).saturating_mul(self.batch.micro_batches as u64)
    }
}
