//! Errors of finetuning.

use modernbert::device::ReadError;

use super::run::Interruption;
use crate::engine::{EngineError, Failure, NotFinite};
use crate::run_dir::RunDirError;
use crate::saving::SavingError;

/// Reason why a finetuning failed.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    /// There is nothing to train on, or nothing to score on.
    #[error("{label}: there are no {what} examples; give at least one")]
    Empty {
        /// The run.
        label: String,
        /// `training` or `dev`.
        what: &'static str,
    },
    /// A setting that can't work.
    #[error("{label}: {setting} is {value}; it must be {wanted}")]
    Setting {
        /// The run.
        label: String,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The values that work.
        wanted: &'static str,
    },
    /// Targets of different kinds, or one without an output of the model.
    #[error("{label}: training example {index}: {reason}")]
    Target {
        /// The run.
        label: String,
        /// Its position, from 0.
        index: usize,
        /// The reason why it doesn't fit.
        reason: String,
    },
    /// A loss or gradient is NaN or infinite.
    #[error(
        "{label}: {what} of step {step} is {value}: training diverged; lower the learning rate or look at the data"
    )]
    Diverged {
        /// The run.
        label: String,
        /// The first step with such a value.
        step: usize,
        /// `the loss`, or `the gradient of NAME`.
        what: String,
        /// The value.
        value: f64,
    },
    /// After an update a parameter, an output or a score is NaN or infinite.
    #[error(
        "{label}: after step {step} {what} is not finite: training diverged; lower the learning rate or look at the data"
    )]
    DivergedAfter {
        /// The run.
        label: String,
        /// Steps done.
        step: usize,
        /// The parameter, output or score.
        what: String,
    },
    /// The outputs can't be scored.
    #[error("{label}: after step {step}: {reason}")]
    Score {
        /// The run.
        label: String,
        /// Steps done.
        step: usize,
        /// The scorer's error.
        reason: String,
    },
    /// Training stopped on an error.
    #[error("{label}: training stopped: {reason}")]
    Training {
        /// The run.
        label: String,
        /// The loop's error.
        reason: String,
    },
    /// The run was interrupted before any evaluation had a score.
    #[error("{label}: interrupted at step {}, before an evaluation had a score{}", at.step, at.place())]
    Interrupted {
        /// The run.
        label: String,
        /// The step, and the checkpoint.
        at: Interruption,
    },
    /// The run's folder can't be used, or its checkpoint is of another run.
    #[error(transparent)]
    Saving(#[from] SavingError),
    /// The device could not be read.
    #[error(transparent)]
    Device(#[from] ReadError),
    /// A batch is too large.
    #[error(transparent)]
    Layout(#[from] modernbert::batch::LayoutError),
}

impl From<RunDirError> for FinetuneError {
    fn from(error: RunDirError) -> Self {
        Self::Saving(error.into())
    }
}

/// Remedy for too little device memory in finetuning.
const SMALLER: &str = "take smaller batches or more micro-batches of each, truncate at fewer tokens, or choose a smaller model";

impl FinetuneError {
    /// The error of a failed loop.
    pub(super) fn of(label: String, failure: Failure) -> Self {
        let after = |step: u64, what: String| {
            let (label, step) = (label.clone(), step as usize);
            Self::DivergedAfter { label, step, what }
        };
        match failure.error {
            EngineError::NotFinite(NotFinite {
                step, what, value, ..
            }) => Self::Diverged {
                label,
                step: step as usize,
                what,
                value,
            },
            EngineError::Diverged { step, name } => after(step, format!("the parameter {name}")),
            EngineError::DivergedEvaluation { step, what, .. } => after(step, what),
            EngineError::Evaluation { step, source } => match source.downcast::<Self>() {
                Ok(own) => *own,
                Err(source) => Self::Score {
                    label,
                    step: step as usize,
                    reason: source.to_string(),
                },
            },
            error => Self::Training {
                label,
                reason: error.explained(SMALLER),
            },
        }
    }
}
