//! What can go wrong between a text and its answer.

use crate::batch::LayoutError;
use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::tokenizer::TokenizerError;

/// Why texts can't be run through a model.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// A batch can't hold a single token.
    #[error("a batch of 0 tokens holds no text; set the tokens per batch to 1 or more")]
    NoBudget,
    /// The longest text allowed is longer than the model's positions.
    #[error(
        "texts of up to {max_length} tokens are asked for, the model takes {limit}; set a maximum length of at most {limit}"
    )]
    MaxLength {
        /// What was asked for.
        max_length: usize,
        /// Positions of the model.
        limit: usize,
    },
    /// The vocabulary of the tokenizer and of the model differ.
    #[error(
        "token id {id} is outside the model's vocabulary of {vocab}; the tokenizer belongs to another model"
    )]
    Vocabulary {
        /// The id.
        id: u32,
        /// Size of the model's vocabulary.
        vocab: usize,
    },
    /// The number of label names isn't the number of outputs.
    #[error(
        "config.json names {names} labels, the classifier has {outputs} outputs; make id2label name each of them"
    )]
    Labels {
        /// Names given.
        names: usize,
        /// Outputs of the model.
        outputs: usize,
    },
    /// No context fits beside a question.
    #[error(
        "a question of {question} tokens and an overlap of {stride} leave no room for a context in {max_length} tokens; shorten one, or allow longer sequences"
    )]
    NoRoom {
        /// Tokens of the question.
        question: usize,
        /// Tokens that neighbouring windows share.
        stride: usize,
        /// Tokens of a sequence at most.
        max_length: usize,
    },
    /// The text can't be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The model can't be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// More tokens than a batch can hold.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// One text is more than the device holds at once.
    #[error(transparent)]
    TooLarge(#[from] ConfigError),
    /// The device could not be read.
    #[error("the results could not be read from the device: {0}")]
    Device(String),
}
