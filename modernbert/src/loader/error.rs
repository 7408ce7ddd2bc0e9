//! Errors of loading models.

use crate::checkpoint::{CheckpointError, SourceError};
use crate::device::DeviceError;
use crate::model::{Architecture, MaskedLm};
use crate::tokenizer::TokenizerError;
use crate::wording::counted;

/// Reason why a model can't be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The folder doesn't exist, or the Hub doesn't give the model.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The files of the folder can't be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The tokenizer of the folder can't be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The device is not available.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device doesn't support the chosen precision.
    #[error("the device does not compute in {precision}; use f32")]
    Precision {
        /// The precision.
        precision: &'static str,
    },
    /// int8 on a device or for an architecture that has no int8 kernels.
    #[error(
        "{place}: int8 is supported on the CPU (device `flex`) and for the published architecture; use another dtype"
    )]
    Int8 {
        /// Folder or file.
        place: String,
    },
    /// fp8 on a device or for an architecture that has no fp8 kernels.
    #[error(
        "{place}: fp8 is supported on NVIDIA GPUs of compute capability 9.0 (H100, H200; device `cuda`), for the published architecture with widths that are \
         multiples of 16, and with bf16 or f16 for the rest; use another dtype"
    )]
    Fp8 {
        /// Folder or file.
        place: String,
    },
    /// The folder contains a model without the needed head.
    #[error(
        "{place} holds a pretrained model without a head for this use: tensor `{tensor}` is missing, which {class} needs; finetune it first"
    )]
    NoHead {
        /// Folder or file.
        place: String,
        /// Class of Hugging Face's libraries.
        class: &'static str,
        /// The first missing tensor.
        tensor: String,
    },
    /// The folder contains a model without the head of a masked language model, which finetuning does not make.
    #[error(
        "{place} holds {found}: tensor `{tensor}` is missing, which {class} needs; load a masked language model, such as the pretrained one"
    )]
    NoMaskedLm {
        /// Folder or file.
        place: String,
        /// Kind of the model in the folder, in words.
        found: &'static str,
        /// Class of Hugging Face's libraries.
        class: &'static str,
        /// The first missing tensor.
        tensor: String,
    },
    /// The folder holds a model with another head.
    #[error(
        "{place} holds a {found}, and {wanted} is needed for this use; load {}", match *wanted == MaskedLm::CLASS {
            true => "a masked language model, such as the pretrained one that it was finetuned from",
            false => "the folder of a model that was finetuned for it",
        }
    )]
    OtherHead {
        /// Folder.
        place: String,
        /// Class of the model in the folder.
        found: String,
        /// Class of Hugging Face's libraries that is needed.
        wanted: &'static str,
    },
    /// A decoder that `config.json` ties to the token embeddings, and the file does not.
    #[error(
        "{place}: tensor `decoder.weight` is not the token embeddings, and tie_word_embeddings in config.json says that it is; set tie_word_embeddings to false, or \
         take the files of one model"
    )]
    Tied {
        /// Folder or file.
        place: String,
    },
    /// A classifier with another number of outputs than `config.json` has labels.
    #[error(
        "{place}: `classifier.weight` has {} and config.json {} (num_labels, id2label); correct config.json, or take the files of one model",
        counted(*found, "output", "outputs"),
        counted(*labels, "label", "labels")
    )]
    Labels {
        /// Folder or file.
        place: String,
        /// Outputs in the file.
        found: usize,
        /// Labels in the config.
        labels: usize,
    },
    /// A classifier with another number of outputs than its use needs.
    #[error(
        "{place}: `classifier.weight` has {found} outputs, {class} needs {expected}; load the folder of a model that was finetuned for this use"
    )]
    Outputs {
        /// Folder or file.
        place: String,
        /// Class of Hugging Face's libraries.
        class: &'static str,
        /// Outputs in the file.
        found: usize,
        /// Outputs the class has.
        expected: usize,
    },
}
