//! Models as folders that Hugging Face's libraries read and write: `config.json` and `model.safetensors`.
//!
//! | item | contents |
//! |---|---|
//! | [`TensorFiles`] | the tensors of a folder, memory-mapped, one file or sharded |
//! | [`load`] | fills a module by name; reports fresh parameters and unused tensors |
//! | [`save`] | writes a module by name, atomically |
//! | [`ModelSource`] | a folder, or a name on the Hugging Face Hub (feature `hub`) |
//! | [`tiling`] | initializes a large model from a smaller one |
//!
//! Names are those of Hugging Face's ModernBERT, with or without the leading `model.` of the encoder's tensors; files of BERT and RoBERTa have their
//! [own](names). A tied
//! decoder is stored once. A malformed file is an error that names file and tensor; reading a file needs no more memory
//! than its size. Most users want [`Loader`](crate::Loader) instead.

mod load;
mod save;
#[cfg(test)]
mod tests;
pub mod tiling;

pub(crate) use load::LoadPlan;
pub use load::{LoadReport, load};
pub use modernbert_files::atomic::write_atomically;
#[cfg(feature = "hub")]
pub use modernbert_files::checkpoint::hub;
pub use modernbert_files::checkpoint::{
    CONFIG_FILE, CheckpointError, F32Tensor, ModelSource, ShapedValues, SourceError, TensorFiles,
    TensorValues, WEIGHTS_FILE, int8_config, names, open_checked, open_with_head, read_config,
    write_int8, write_safetensors,
};
pub use save::save;
