//! Sets of settings by name.

use clap::ValueEnum;
use modernbert_retrieval::train::TrainOptions;

use super::args::LossName;

/// The settings of published runs. The paper trained on 8 GPUs, each with a batch of its own: on one GPU `--accumulate` times 8 has the same
/// documents in a batch and the same rows in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Preset {
    /// ModernBERT-base with one vector per text on MS MARCO with mined negatives (paper, section 3.1.2 and appendix E.2).
    PaperSingle,
    /// ModernBERT-large with one vector per text.
    PaperSingleLarge,
    /// ModernBERT-base with a vector per token, distilled (JaColBERTv2.5).
    PaperMulti,
    /// ModernBERT-large with a vector per token.
    PaperMultiLarge,
    /// The example on GooAQ of the paper's repository: large batches in two passes.
    Gooaq,
}

impl Preset {
    pub(super) fn is_per_token(self) -> bool {
        matches!(self, Self::PaperMulti | Self::PaperMultiLarge)
    }

    pub(super) fn loss(self) -> LossName {
        if self.is_per_token() {
            LossName::Distill
        } else {
            LossName::InBatch
        }
    }

    /// The settings but for the loss: one epoch, 5 % warmup.
    pub(super) fn options(self) -> TrainOptions {
        let (batch, accumulate, learning_rate) = match self {
            Self::PaperSingle => (64, 8, 8e-5),
            Self::PaperSingleLarge => (16, 32, 1e-4),
            Self::PaperMulti => (8, 2, 1e-4),
            Self::PaperMultiLarge => (4, 4, 3e-5),
            Self::Gooaq => (2048, 1, 8e-5),
        };
        TrainOptions {
            batch,
            accumulate,
            learning_rate,
            evaluate_every: (self == Self::Gooaq).then_some(50),
            ..TrainOptions::default()
        }
    }
}
