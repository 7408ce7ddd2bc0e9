//! Training of retrieval models on the [training loop](modernbert_train::engine) of everything else.
//!
//! | module | contents |
//! |---|---|
//! | [`TrainRows`] | pairs, triplets, tuples and a teacher's scores from JSONL, CSV, TSV and Parquet |
//! | [`Sampler`] | batches in which no text occurs twice |
//! | [`Embedder`], [`VectorKind`] | the model: an encoder with a pooling, or with a projection of every token |
//! | [`TextOptions`] | texts to tokens: prompts, prefixes, lengths, query expansion, skip list |
//! | [`losses`] | losses of a batch |
//! | [`TextVectors`], [`similarities`] | vectors on the device; dot products and MaxSim with gradients |
//! | [`gradients`] | the step: in one pass, or cached in two (GradCache) |
//! | [`EvalSet`], [`encode`](encode()) | evaluation on a data set; vectors of many texts |
//! | [`Training`], [`TrainOptions`] | data and settings of a run, and the run |
//! | `task`, `saving` | the [`Task`](modernbert_train::engine::Task); checkpoints and resuming |

mod embedder;
mod encode;
mod error;
mod evaluate;
pub mod losses;
mod rows;
mod run;
mod sampler;
mod saving;
mod step;
mod task;
mod texts;
mod vectors;

pub use embedder::{Embedder, Projection, TOKEN_WIDTH, TextBatch, VectorKind, kind_of_folder};
pub use encode::{EncodedTexts, encode};
pub use error::TrainError;
pub use evaluate::EvalSet;
pub use rows::{TrainRow, TrainRows};
pub use run::{Length, TrainOptions, Trained, Training};
pub use sampler::Sampler;
pub use step::{ContrastiveBatch, StepOptions, gradients};
pub use task::EvaluationPoint;
pub use texts::{Role, TextOptions, TokenizedText};
pub use vectors::{TextVectors, own_similarities, similarities};
