//! The encoder and its heads, as Burn modules.
//!
//! | item | contents |
//! |---|---|
//! | [`ModernBert`] | embeddings, layers, final norm: packed ids to hidden states |
//! | [`MaskedLm`] | the encoder with the masked-language-model head |
//! | [`SequenceClassifier`] | the encoder with a pooled classification or regression head |
//! | [`TokenClassifier`], [`QuestionAnswerer`], [`MultipleChoice`] | the other heads of Hugging Face's family |
//! | [`pool`] | one vector per sequence from packed hidden states |
//! | [`initialize`] | random weights by the published rule |
//! | [`NamedMapper`] | parameters under the names that checkpoint files use |
//!
//! The parts are short private modules; the config decides how a layer is assembled from them. The model calls
//! [`crate::ops`] and never a kernel. Paper: <https://arxiv.org/abs/2412.13663>, section 2.1.

mod activation;
mod architecture;
mod attention;
#[cfg(feature = "flex")]
mod cpu;
mod dropout;
mod embeddings;
mod encoder;
mod fp8;
mod graphs;
mod heads;
mod init;
mod layer;
pub(crate) mod limits;
mod linear;
mod mlp;
mod named;
mod norm;
mod pooling;
mod positions;
mod precision;
mod published;
mod rotary;
mod row_order;
mod token_types;

pub use architecture::Architecture;
pub use dropout::dropout_rates;
pub use encoder::{ForwardPass, ModernBert};
pub use heads::{
    Classification, ClassificationLabels, LabelError, MaskedLm, MaskedLmOutput, MaskedTokens,
    MultipleChoice, QuestionAnswerer, SequenceClassifier, SpanLabels, SpanLogits, SpanOutput,
    TokenClassifier, TokenScores,
};
pub use init::{InitError, InitMethod, initialize, initialize_with};
pub use named::{NamedMapper, checkpoint_name, map_named, named_parameters};
pub use pooling::pool;
pub use precision::{Precision, UnknownPrecision};
