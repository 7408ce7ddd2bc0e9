//! ModernBERT on Burn: the encoder of [Smarter, Better, Faster, Longer](https://arxiv.org/abs/2412.13663), its heads, its
//! files and its kernels. Everything needed to run the model; training it is the crate `modernbert-train`.
//!
//! | module | contents | may use |
//! |---|---|---|
//! | [`config`], [`tokenizer`] | `config.json`, `tokenizer.json`; from `modernbert-files` | nothing |
//! | [`atomic`], [`output`], [`lock`] | files that appear complete or not at all, places for results; from `modernbert-files` | nothing |
//! | [`batch`], [`ops`], [`device`] | packed batches, the Backend extension, devices by name; from `burn-packed` | nothing of this crate |
//! | [`model`] | encoder and heads as Burn modules | `ops`, `batch`, `config` |
//! | [`checkpoint`] | modules to and from safetensors under Hugging Face's names | `model`, `config` |
//! | [`inference`] | texts in, results out | all of the above |
//!
//! The backend is a cargo feature (`flex`, `cuda`, `wgpu`, `vulkan`, `metal`, `tch`) plus a [`burn::tensor::Device`]:
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
pub mod model;

pub use burn_packed::{batch, device, ops};
pub use modernbert_files::{atomic, config, lock, output, tokenizer};
