//! Errors of the pipelines.

use crate::batch::LayoutError;
use crate::config::ConfigError;
use crate::device::ReadError;
use crate::loader::LoadError;
use crate::tokenizer::TokenizerError;

/// Reason why texts can't be run through a model.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The model can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The files for sentence embeddings ask for something that is not supported.
    #[error(transparent)]
    Sentences(#[from] modernbert_files::sentences::SentencesError),
    /// A batch can't hold a single token.
    #[error("a batch of 0 tokens holds no text; set the tokens per batch to 1 or more")]
    NoBudget,
    /// The longest text allowed is longer than the model's positions.
    #[error(
        "the maximum length is {max_length} tokens, the model takes {limit}; set a maximum length of at most {limit}"
    )]
    MaxLength {
        /// The maximum length that was set.
        max_length: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// A prompt that leaves no token of a text.
    #[error(
        "the prompt has {tokens} tokens, special tokens included, and the maximum length is {max_length}: no token of a text would be left; shorten the prompt, or set a greater maximum length"
    )]
    Prompt {
        /// Tokens of the prompt, special tokens included.
        tokens: usize,
        /// Tokens of a text at most.
        max_length: usize,
    },
    /// The vocabularies of the tokenizer and of the model differ.
    #[error(
        "the tokenizer has {tokens} tokens and the model {rows} rows in its embedding: the tokenizer belongs to another model; copy tokenizer.json from the folder that the weights come from"
    )]
    Vocabulary {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the model's embedding.
        rows: usize,
    },
    /// The number of label names differs from the number of outputs.
    #[error(
        "config.json names {names} labels, the classifier has {outputs} outputs; make id2label name each output, from 0"
    )]
    Labels {
        /// Names given.
        names: usize,
        /// Outputs of the model.
        outputs: usize,
    },
    /// No context fits beside a question.
    #[error(
        "a question of {} and an overlap of {stride} leave no tokens for the context in a sequence of {max_length}; shorten the question, or lower the overlap (--stride)",
        modernbert_files::wording::counted(*question, "token", "tokens")
    )]
    NoRoom {
        /// Tokens of the question.
        question: usize,
        /// Tokens that neighboring windows share.
        stride: usize,
        /// Tokens of a sequence at most.
        max_length: usize,
    },
    /// The text has no mask token.
    #[error("the text has no {mask}; put one where a token should be predicted: {text:?}")]
    NoMask {
        /// The mask token of this tokenizer.
        mask: String,
        /// The text.
        text: String,
    },
    /// A text that can't be cut is longer than the model's positions.
    #[error("the text has {tokens} tokens, the model takes {limit}; shorten it")]
    TooLong {
        /// Tokens of the text.
        tokens: usize,
        /// Positions of the model, or the maximum length that was set.
        limit: usize,
    },
    /// A question without choices.
    #[error("question {index} has no choices; give each question one choice or more")]
    NoChoices {
        /// Number of the question, from 1.
        index: usize,
    },
    /// An output that is NaN or infinite.
    #[error(
        "text {index}: the model's output is not finite (NaN or infinity) in {precision}; {}",
        if *precision == "f32" { "weights or numbers of config.json overflow even in f32: use another checkpoint" } else { "compute in f32 instead" }
    )]
    NonFinite {
        /// Number of the text, from 1.
        index: usize,
        /// Dtype of matrix multiplications and attention.
        precision: &'static str,
    },
    /// A vector of zeros, which has no direction to compare.
    #[error(
        "text {index}: all numbers of its vector are 0, which is similar to nothing; the model's weights are 0, or overflow and vanish in f32: \
         use another checkpoint"
    )]
    Zero {
        /// Number of the text, from 1.
        index: usize,
    },
    /// The text can't be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// More tokens than a batch can hold.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// One text is more than the device holds at once.
    #[error(transparent)]
    TooLarge(#[from] ConfigError),
    /// The device could not be read.
    #[error(transparent)]
    Device(#[from] ReadError),
}

impl InferenceError {
    /// The same error about the question that a sequence belongs to; `question_of` has its number, from 0, for each sequence.
    pub(super) fn of_question(self, question_of: &[usize]) -> Self {
        match self {
            Self::NonFinite { index, precision } => Self::NonFinite {
                index: question_of
                    .get(index - 1)
                    .map_or(index, |&number| number + 1),
                precision,
            },
            other => other,
        }
    }

    /// The same error, with the number of the text increased by `texts`.
    #[must_use]
    pub fn after(self, texts: usize) -> Self {
        match self {
            Self::NonFinite { index, precision } => Self::NonFinite {
                index: index + texts,
                precision,
            },
            Self::NoChoices { index } => Self::NoChoices {
                index: index + texts,
            },
            Self::Zero { index } => Self::Zero {
                index: index + texts,
            },
            other => other,
        }
    }
}
