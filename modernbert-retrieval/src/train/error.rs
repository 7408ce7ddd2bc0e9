//! Why training a retrieval model failed.

use modernbert::LoadError;
use modernbert::checkpoint::CheckpointError;
use modernbert::device::ReadError;
use modernbert::sentences::SentencesError;
use modernbert::tokenizer::TokenizerError;
use modernbert_train::engine::{EngineError, Failure, NotFinite};
use modernbert_train::formats::FormatError;
use modernbert_train::run_dir::RunDirError;
use modernbert_train::saving::SavingError;
use std::path::PathBuf;

use crate::data::RetrievalDataError;
use crate::index::IndexError;
use crate::maxsim::MaxSimError;

/// Reason why training a retrieval model failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A row of a file of training data.
    #[error(transparent)]
    Row(#[from] FormatError),
    /// A file without rows.
    #[error("{}: holds no rows; pass a file with queries and documents", .0.display())]
    Empty(PathBuf),
    /// A file whose rows would count twice.
    #[error("{}: this file is named twice, so that its rows would count twice; name it once", .0.display())]
    Twice(PathBuf),
    /// Too few documents in the rows.
    #[error(
        "{place}: each row has {found}, and the loss needs at least {needed} documents for a query; give negatives, or choose another --loss"
    )]
    TooFewDocuments {
        /// File and line of the first row, or "the training data" of rows in memory.
        place: String,
        /// Documents of a row, in words.
        found: String,
        /// Documents that are needed.
        needed: usize,
    },
    /// A loss with a teacher, and rows without scores.
    #[error(
        "{place}: the rows have no scores, which the loss learns from; add a field \"scores\" with a number for each document, or choose --loss \
         in-batch"
    )]
    NoScores {
        /// File and line of the first row, or "the training data" of rows in memory.
        place: String,
    },
    /// Scores in the rows, and a loss without a teacher.
    #[error(
        "{place}: the rows have scores, and this loss ignores them: every first document would count as relevant; choose a --loss that learns \
         from scores (mse for pairs; distill, distill-temperature or margin-mse for several documents), or remove the scores and the rows of irrelevant pairs"
    )]
    UnusedScores {
        /// File and line of the first row.
        place: String,
    },
    /// Rows whose only document is their query.
    #[error(
        "every row of the training data has its query as its positive document, so that nothing is learned but dropout's differences; check the columns, or give \
         --allow-duplicates to train on equal texts"
    )]
    QueryIsPositive,
    /// The query among its negatives.
    #[error(
        "row {row} of the training data, counted over all files, has its query {text:?} as a negative too, which would push it away from itself; remove the negative, or give \
         --allow-duplicates"
    )]
    QueryIsNegative {
        /// The row, from 1.
        row: usize,
        /// The beginning of the query.
        text: String,
    },
    /// A document twice in a row.
    #[error(
        "row {row} of the training data, counted over all files, has the document {text:?} twice, which would be its own negative; leave one of the two out, or give \
         --allow-duplicates"
    )]
    OwnNegative {
        /// The row, from 1.
        row: usize,
        /// The beginning of the document.
        text: String,
    },
    /// Rows that all conflict.
    #[error(
        "{most} of {} fit into a batch without a text that occurs twice, and {batch} are needed; give a smaller --batch",
        modernbert_files::wording::counted(*rows, "row", "rows")
    )]
    Conflicts {
        /// Rows of the largest batch.
        most: usize,
        /// Rows of the training data.
        rows: usize,
        /// Rows of a batch, as asked for.
        batch: usize,
    },
    /// A setting that can't work.
    #[error("{name} is {value}; {needed}")]
    Setting {
        /// The option.
        name: &'static str,
        /// Its value.
        value: String,
        /// Values that work.
        needed: String,
    },
    /// A length outside of the model's positions.
    #[error("{name} is {length} tokens; give {least} to {most}, the positions of the model")]
    Length {
        /// Name of the length.
        name: &'static str,
        /// Tokens.
        length: usize,
        /// Least that works.
        least: usize,
        /// Most that works.
        most: usize,
    },
    /// A prompt that leaves no token of a text.
    #[error(
        "the prompt {prompt:?} has {tokens} tokens, special tokens included, and the longest text {length}: no token of a text would be left; shorten the prompt, or give a greater --max-length"
    )]
    Prompt {
        /// The prompt.
        prompt: String,
        /// Its tokens, special tokens included.
        tokens: usize,
        /// Tokens of a text at most.
        length: usize,
    },
    /// A prefix that is no token.
    #[error(
        "the prefix {prefix:?} is no token of the model's tokenizer; name one that is, such as [unused0] and [unused1], with --query-prefix \
         and --document-prefix"
    )]
    Prefix {
        /// Its text.
        prefix: String,
    },
    /// A projection that doesn't fit.
    #[error("{}: {reason}; give the folder as its library wrote it", path.display())]
    Projection {
        /// The file.
        path: PathBuf,
        /// The reason why it doesn't fit.
        reason: String,
    },
    /// The model can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Files of sentence-transformers or PyLate that can't be used.
    #[error(transparent)]
    Sentences(#[from] SentencesError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Weights that can't be read or written.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// A data set to evaluate on.
    #[error(transparent)]
    Data(#[from] RetrievalDataError),
    /// The search of an evaluation.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Vectors of tokens.
    #[error(transparent)]
    MaxSim(#[from] MaxSimError),
    /// A vector that is not finite.
    #[error("the vector of {what} is not finite; the model's weights are not usable")]
    NotFinite {
        /// The text.
        what: String,
    },
    /// A loss or gradient is NaN or infinite.
    #[error(
        "{what} of step {step} is {value}: {}", match step {
            // Before the first update the learning rate has no part in it.
            1 => "the weights, the scores of the rows or a setting of the loss (--scale, --hardness-strength) are too large; correct them",
            _ => "training diverged; lower --learning-rate or look at the data",
        }
    )]
    Diverged {
        /// The first step with such a value.
        step: u64,
        /// `the loss`, or `the gradient of NAME`.
        what: String,
        /// The value.
        value: f64,
    },
    /// Training stopped on an error.
    #[error("training stopped at step {step}: {reason}")]
    Training {
        /// Steps done.
        step: u64,
        /// The loop's error.
        reason: String,
    },
    /// The run's folder can't be used, or its checkpoint is of another run.
    #[error(transparent)]
    Saving(#[from] SavingError),
    /// A file that can't be written.
    #[error("{}: can't be written ({source})", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The device could not be read.
    #[error(transparent)]
    Device(#[from] ReadError),
    /// A batch is too large.
    #[error(transparent)]
    Layout(#[from] modernbert::batch::LayoutError),
}

impl From<RunDirError> for TrainError {
    fn from(error: RunDirError) -> Self {
        Self::Saving(error.into())
    }
}

/// Remedy for too little device memory.
const SMALLER: &str = "give a smaller --token-budget, which changes results by rounding and by dropout's draws only, shorter texts or a smaller --batch";

impl TrainError {
    /// The error of a failed loop.
    pub(super) fn of(failure: Failure) -> Self {
        let step = failure.step;
        match failure.error {
            EngineError::NotFinite(NotFinite {
                step, what, value, ..
            }) => Self::Diverged { step, what, value },
            error => Self::Training {
                step,
                reason: error.explained(SMALLER),
            },
        }
    }
}
