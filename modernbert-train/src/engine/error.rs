//! Errors of a training loop.

use super::readback::NotFinite;

/// An error of a task, of any type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reason why a training loop failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The training data can't be read.
    #[error("{0}")]
    Data(#[source] BoxError),
    /// The training data ended before the run.
    #[error("the data ended before the run did")]
    DataEnded,
    /// A loss or a gradient is NaN or infinite. The optimizer did not apply the step.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// A parameter is NaN, infinite or too large to be squared in f32: an update diverged.
    #[error(
        "training diverged: after step {step} the parameter {name} is not finite. Lower optimizer.learning_rate; nothing of this step \
         was saved"
    )]
    Diverged {
        /// Steps done.
        step: u64,
        /// Name of the first such parameter.
        name: String,
    },
    /// An evaluation gave NaN or an infinite number.
    #[error(
        "training diverged: after step {step} {what} is not finite ({value}). Lower optimizer.learning_rate; nothing of this step \
         was saved"
    )]
    DivergedEvaluation {
        /// Steps done.
        step: u64,
        /// The held-out loss, or the name of a score or an output.
        what: String,
        /// Its value.
        value: f64,
    },
    /// The evaluation failed.
    #[error("the evaluation after step {step} failed: {source}")]
    Evaluation {
        /// Steps done.
        step: u64,
        /// The task's error.
        source: BoxError,
    },
    /// The device could not be read.
    #[error("the device could not be read: {0}")]
    Device(String),
    /// The metrics log can't be written; the message names the file.
    #[error(transparent)]
    Log(#[from] std::io::Error),
    /// A checkpoint can't be written.
    #[error("the run can't be saved: {0}")]
    Save(#[source] BoxError),
    /// Another rank failed or could not be reached.
    #[error(transparent)]
    Ranks(#[from] ranks::RankError),
    /// A task that can't be divided over ranks.
    #[error("this kind of training runs in one process only; start it without ranks")]
    OneProcess,
    /// A kernel, the device's driver or the code panicked.
    #[error("{0}")]
    Panicked(String),
}

/// A failed training loop.
#[derive(Debug, thiserror::Error)]
#[error("training stopped at step {step}: {error}")]
pub struct Failure {
    /// Optimizer steps done.
    pub step: u64,
    /// The reason.
    #[source]
    pub error: EngineError,
}

/// Remedy for too little device memory in pretraining.
pub const SMALLER_STEP: &str = "halve batch.tokens and double batch.micro_batches (the same step in smaller micro-batches), shorten \
                                data.sequence_length, or choose a smaller model";

impl EngineError {
    /// Returns true if the message is one that backends and drivers give when a device has too little memory.
    pub fn is_out_of_memory(&self) -> bool {
        let text = self.to_string().to_lowercase();
        [
            "out of memory",
            "outofmemory",
            "out_of_memory",
            "can't allocate",
            "cannot allocate",
            "failed to allocate",
            "allocation failed",
            "buffer too big",
            "buffertoobig",
        ]
        .iter()
        .any(|sign| text.contains(sign))
    }

    /// The message, followed by `remedy` where the device has too little memory.
    pub fn explained(&self, remedy: &str) -> String {
        if self.is_out_of_memory() {
            format!("{self}. The device has too little memory: {remedy}")
        } else {
            self.to_string()
        }
    }
}

/// The text of a caught panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a defect of the program or of the device's driver")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_gets_a_suggestion() {
        let error = EngineError::Panicked("CUDA_ERROR_OUT_OF_MEMORY: out of memory".into());
        let text = error.explained(SMALLER_STEP);
        assert!(
            text.contains("batch.tokens") && text.contains("micro_batches"),
            "{text}"
        );
        let other = EngineError::Panicked("a row is too long".into());
        assert_eq!(other.explained(SMALLER_STEP), "a row is too long");
    }
}
