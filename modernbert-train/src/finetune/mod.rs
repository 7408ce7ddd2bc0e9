//! Finetuning of every head on the [training loop](crate::engine).
//!
//! Sequences are grouped by length and packed, so that a step computes on real tokens alone. The learning rate rises linearly and falls
//! linearly to zero; the optimizer is decoupled AdamW. The dev set is scored at an interval of steps, and the weights with the best score
//! are the result, whether training runs to its end, is stopped early, or is interrupted. With a folder ([`Saving`](crate::saving::Saving)) the run has a
//! `metrics.jsonl` and checkpoints, and a run that was killed continues bit-identically.
//!
//! | module | contents |
//! |---|---|
//! | [`Example`] | the trait of a kind of finetuning: head, loss, outputs |
//! | [`Sample`], [`Target`], [`encode`] | texts to labelled sequences, truncated and counted |
//! | [`TaggedSample`], [`encode_tags`] | words and texts to sequences with a tag for each word or token |
//! | [`SpanSample`], [`encode_questions`] | questions to windows of their contexts, with the answer's first and last token |
//! | [`ChoiceSample`], [`encode_choices`] | questions with each of their choices |
//! | [`metrics`] | F1 of spans and of labels, exact match and F1 of answers |
//! | [`table`] | rows of the user's files with labels, tags, answers and choices |
//! | [`Finetuning`], [`FinetuneOptions`] | data, score and settings of a run, and the run |
//! | `saving` | checkpoints in the folder of a [run that can be resumed](crate::saving) |
//! | [`Batches`] | the micro-batches of each step |
//! | [`predict`], [`predict_examples`], [`classes`], [`scores`] | outputs for sequences, and their meaning |
//! | [`JobClock`] | time left over several finetunings |

mod answers;
mod batches;
mod choices;
mod clock;
mod encode;
mod error;
mod example;
#[cfg(test)]
mod kinds_tests;
pub mod metrics;
mod options;
mod predict;
mod run;
mod saving;
mod sequence;
pub mod table;
mod tags;
mod task;
#[cfg(test)]
mod tests;

pub use answers::{EncodedQuestions, QuestionsError, SpanSample, encode_questions};
pub use batches::{Batch, Batches};
pub use choices::{ChoiceSample, EncodedChoices, encode_choices};
pub use clock::JobClock;
pub use encode::{Encoded, Text, encode};
pub use error::FinetuneError;
pub use example::Example;
pub use options::FinetuneOptions;
pub use predict::{
    classes, predict, predict_examples, predict_examples_with, predict_with, scores,
};
pub use run::{DevEvaluation, DevScore, Finetuned, Finetuning, Interruption, Scorer};
pub use saving::{data_hash, is_cpu};
pub use sequence::{Sample, Target};
pub use tags::{EncodedTags, TaggedSample, TagsError, encode_tags};

pub use crate::engine::BoxError;
