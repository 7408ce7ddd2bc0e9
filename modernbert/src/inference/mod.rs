//! Inference: pipelines from texts to results.
//!
//! | item | contents |
//! |---|---|
//! | [`Encoder`] | texts or pairs to vectors, pooled and normalized |
//! | [`TextClassifier`] | texts or pairs to class probabilities or scores |
//! | [`Tagger`] | a label for every token or word; entities with their positions in the text |
//! | [`Answerer`] | spans of a text that answer a question |
//! | [`Chooser`] | the probability of each choice of a question |
//! | [`MaskFiller`] | predictions for masked tokens |
//! | [`TagScheme`], [`ContextWindows`] | tags to spans, contexts in windows: what training and inference share |
//! | [`BatchOptions`] | tokens per batch, longest text, window of a stream |
//!
//! All of them are loaded by [`Loader`](crate::Loader), tokenize in parallel, sort by length, pack up to a budget of tokens per
//! batch and return results in the order of the inputs. The result of a text is batch-invariant: bit-identical in batches of the
//! same lengths, and the same up to rounding in any other. An output that is NaN or infinite is an error that
//! names the text.

mod answer;
mod batches;
mod choose;
mod classify;
mod encode;
mod entities;
mod error;
mod fill_mask;
mod input;
mod ranking;
mod runner;
mod scheme;
mod spans;
mod stream;
mod tag;
mod windows;

pub use crate::loader::BatchOptions;
pub use answer::{Answer, AnswerOptions, Answerer, Answers};
pub use choose::{Choice, Chooser};
pub use classify::{Prediction, TextClassifier};
pub use encode::{EmbedOptions, Embedding, Encoder};
pub use entities::Entity;
pub use error::InferenceError;
pub use fill_mask::{Candidate, MaskFiller, fill_mask};
pub use input::Input;
pub use runner::StreamProgress;
pub use scheme::{TagScheme, TagSpan};
pub use stream::ResultStream;
pub use tag::{Tag, Tagged, TaggedWords, Tagger};
pub use windows::{ContextWindow, ContextWindows};
