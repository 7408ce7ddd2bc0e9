//! The weights of a model folder (safetensors, one file or sharded), and the source of the folder.
//!
//! | item | contents |
//! |---|---|
//! | [`TensorFiles`] | the tensors of a folder, memory-mapped, one file or sharded |
//! | [`names`] | names of tensors in the files of BERT and RoBERTa |
//! | [`open_checked`] | config and tensors of a folder, once the files are known to fit the config |
//! | [`write_safetensors`] | writes tensors, atomically |
//! | [`ModelSource`] | a folder, or a name on the Hugging Face Hub (feature `hub`) |
//!
//! A malformed file is an error that names file and tensor; reading a file needs no more memory than the size of the file.

mod error;
mod expect;
mod files;
#[cfg(feature = "hub")]
pub mod hub;
pub(crate) mod int8;
pub mod names;
mod source;
mod write;

pub use error::CheckpointError;
pub use expect::{open_checked, open_with_head};
pub use files::{ShapedValues, TensorFiles, TensorValues};
pub use int8::{int8_config, write_int8};
pub use source::{ModelSource, SourceError};
pub use write::{F32Tensor, write_safetensors};

use std::path::Path;

use crate::config::ModernBertConfig;

/// Name of the config file in a model folder.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the weights file in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// The config of a model folder.
///
/// # Errors
/// A folder without `config.json`, or one that can't be read.
pub fn read_config(folder: &Path) -> Result<ModernBertConfig, CheckpointError> {
    if !folder.is_dir() {
        return Err(CheckpointError::NoFolder(folder.to_path_buf()));
    }
    Ok(ModernBertConfig::from_file(folder.join(CONFIG_FILE))?)
}
