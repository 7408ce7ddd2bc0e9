//! ModernBERT on Burn: the encoder of [Smarter, Better, Faster, Longer](https://arxiv.org/abs/2412.13663), its heads, its
//! files and its inference. The crate contains all that runs the model; training is the crate `modernbert-train`.
//!
//! | module | contents | modules that it imports |
//! |---|---|---|
//! | [`config`], [`tokenizer`] | `config.json`, `tokenizer.json`; from `modernbert-files` | none |
//! | [`atomic`], [`output`], [`lock`] | files that appear complete or not at all, checks of output paths; from `modernbert-files` | none |
//! | [`batch`], [`ops`], [`device`] | packed batches, the Backend extension, devices by name; from `burn-packed` | none of this crate |
//! | [`model`] | encoder and heads as Burn modules | `ops`, `batch`, `config` |
//! | [`checkpoint`] | modules to and from safetensors under Hugging Face's names | `model`, `config` |
//! | [`Loader`] | one builder for every model and pipeline: source, device, precision, batches | all of the above |
//! | [`inference`] | pipelines from texts to results | all of the above |
//! | [`cosine_similarity`], [`top_k`] | comparison of vectors | none |
//!
//! Two lines from a name to vectors:
//!
//! ```
//! # let folder = tiny_models::masked_lm();
//! # let name = folder.path();
//! let encoder = modernbert::Encoder::load(name)?; // a folder, or a name on the Hugging Face Hub
//! let vectors = encoder.encode(&["one two", "three"])?;
//! # assert_eq!(vectors.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The model itself is a Burn module. The backend is a cargo feature (`flex`, `cuda`, `wgpu`, `vulkan`, `metal`, `tch`) plus a [`burn::tensor::Device`]:
//!
//! ```
//! use modernbert::{batch::PackedBatch, config::ModernBertConfig, device, model::{ModernBert, initialize}};
//!
//! let device = device::select(None)?.device;
//! let config = ModernBertConfig::of_shape(4, 64, 96, 1);
//! let encoder = initialize(ModernBert::new(&config, &device)?, &config, 17);
//! let batch = PackedBatch::from_sequences(&[vec![1, 5, 9, 2], vec![1, 7, 2]], &device)?;
//! assert_eq!(encoder.forward(&batch).dims(), [7, 64]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
// The types of wgpu nest deeper than the compiler expects by default.
#![recursion_limit = "256"]

pub mod checkpoint;
pub mod inference;
mod loader;
pub mod model;
mod similarity;

pub use burn_packed::{batch, device, graph, ops};
pub use modernbert_files::{
    atomic, card, config, json, lock, output, parallel, read, tokenizer, wording,
};

pub use inference::{
    AnswerOptions, Answerer, BatchOptions, Chooser, Embedding, Encoder, Entity, InferenceError,
    Input, MaskFiller, Prediction, Tagger, TextClassifier,
};
pub use loader::{DeviceChoice, HeadStart, LoadError, Loader};
pub use model::Precision;
pub use modernbert_files::sentences;
pub use similarity::{Neighbor, WidthError, cosine_similarity, dot, normalize, top_k};
