//! Scores of the kinds of finetuning. A score that does not exist, such as the precision of no predictions, is `None`: never a 0 that looks
//! measured.
//!
//! | item | score |
//! |---|---|
//! | [`SpanScores`] | precision, recall and F1 of spans of tags, as seqeval's |
//! | [`LabelScores`] | micro and macro F1 of several labels a row, as scikit-learn's |
//! | [`exact_match`], [`answer_f1`] | answers to questions, as SQuAD's script |

mod answers;
mod counts;
mod labels;
mod spans;
#[cfg(test)]
mod tests;

pub use answers::{answer_f1, exact_match};
pub use counts::Counts;
pub use labels::LabelScores;
pub use spans::{Matching, SpanScores};
