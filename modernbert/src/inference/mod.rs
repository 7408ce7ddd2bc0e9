//! Using a model: texts in, answers out.
//!
//! | page | what it does |
//! |---|---|
//! | [`Encoder`] | texts or pairs to vectors, pooled and normalised |
//! | [`TextClassifier`] | texts or pairs to class probabilities or scores |
//! | [`Tagger`] | a label for every token or word; entities with their place in the text |
//! | [`Answerer`] | spans of a text that answer a question |
//! | [`fill_mask`] | what could stand at a masked position |
//! | [`BatchOptions`] | tokens per batch, longest text, how much of a stream is held at once |
//!
//! All of them tokenise in parallel, sort by length, pack up to a budget of tokens per batch and give results back in the
//! order of the inputs. What a text yields depends on nothing else: with the same lengths beside it the result is
//! bit-identical, with any others the same up to rounding.

mod answer;
mod batches;
mod classify;
mod encode;
mod error;
mod fill_mask;
mod input;
mod runner;
mod spans;
mod stream;
mod tag;

pub use answer::{Answer, AnswerOptions, Answerer, Answers};
pub use batches::BatchOptions;
pub use classify::{Prediction, TextClassifier};
pub use encode::{EmbedOptions, Embedding, Encoder};
pub use error::InferenceError;
pub use fill_mask::{Candidate, FillMaskError, fill_mask};
pub use input::Input;
pub use runner::Progress;
pub use stream::Stream;
pub use tag::{Entity, Tag, Tagged, TaggedWords, Tagger};
