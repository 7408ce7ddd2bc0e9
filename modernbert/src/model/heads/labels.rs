//! Checks of labels against a model's outputs, before the loss.

/// Reason why labels can't be used with the outputs of a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Too few or too many labels.
    #[error("{found} labels for {expected} {unit}; give one for each")]
    Count {
        /// The labeled things: sequences, tokens, questions.
        unit: &'static str,
        /// Their number in the batch.
        expected: usize,
        /// Number of labels given.
        found: usize,
    },
    /// A class the model has no output for.
    #[error(
        "label {index} is class {class}, the model has {classes} outputs; number the classes from 0, or set num_labels in config.json"
    )]
    Class {
        /// Position in the list of labels.
        index: usize,
        /// The class.
        class: u32,
        /// Outputs of the model.
        classes: usize,
    },
    /// A position after the end of its sequence.
    #[error(
        "the {which} of span {index} is token {position} of a sequence of {length} tokens; pass None for spans that were truncated"
    )]
    Position {
        /// `start` or `end`.
        which: &'static str,
        /// Number of the sequence.
        index: usize,
        /// The position asked for.
        position: u32,
        /// Tokens of that sequence.
        length: usize,
    },
    /// A batch that can't be divided into questions.
    #[error(
        "{sequences} sequences can't be divided into questions of {choices} choices; give each question the same number of choices, 1 or more"
    )]
    Choices {
        /// Sequences of the batch.
        sequences: usize,
        /// Choices per question.
        choices: usize,
    },
}

/// Checks the number of labels.
pub(super) fn check_count(
    unit: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), LabelError> {
    if found == expected {
        return Ok(());
    }
    Err(LabelError::Count {
        unit,
        expected,
        found,
    })
}

/// Checks that every class is below the number of outputs.
pub(super) fn check_classes(
    classes: impl Iterator<Item = Option<u32>>,
    outputs: usize,
) -> Result<(), LabelError> {
    for (index, class) in classes.enumerate() {
        if let Some(class) = class
            && class as usize >= outputs
        {
            return Err(LabelError::Class {
                index,
                class,
                classes: outputs,
            });
        }
    }
    Ok(())
}
