//! The files of a model folder, read and written without a tensor library: `config.json`, `tokenizer.json`, safetensors.
//!
//! | module | contents | may use |
//! |---|---|---|
//! | [`config`] | `config.json` and presets | nothing |
//! | [`tokenizer`] | `tokenizer.json`, pairs, training one from text | nothing |
//! | [`checkpoint`] | safetensors files, sharded ones too; models by folder or by name on the Hugging Face Hub | `config` |
//! | [`card`] | the model card, `README.md` | `config` |
//! | [`sentences`] | the files of sentence-transformers: pooling, normalization, prompts | `config` |
//! | [`atomic`], [`output`], [`lock`], [`read`] | files that appear complete or not at all; checks of an output path before the work; one process at a time; reading with limits | nothing |
//! | [`json`] | JSON without repeated keys | nothing |
//! | `kinds` | the JSON type of each known key of a model folder's files | nothing |
//! | [`panics`] | panics of libraries that read files, as errors | nothing |
//! | [`parallel`] | work on many items with all cores | nothing |
//! | [`wording`] | a count with its noun, for messages | nothing |

pub mod atomic;
mod cached;
pub mod card;
pub mod checkpoint;
pub mod config;
pub mod json;
mod kinds;
pub mod lock;
pub mod output;
pub mod panics;
pub mod parallel;
pub mod read;
pub mod sentences;
pub mod tokenizer;
pub mod wording;
