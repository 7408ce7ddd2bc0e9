//! Errors of model folders.

use std::path::PathBuf;

use crate::cached::replace_file;

use crate::config::ConfigError;

/// Reason why a checkpoint can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is no such folder.
    #[error("there is no folder {}{}; a model folder holds config.json and model.safetensors", .0.display(), super::source::hint(.0))]
    NoFolder(PathBuf),
    /// A folder without weights.
    #[error("{} holds neither model.safetensors nor model.safetensors.index.json; {}", .0.display(), without_weights(.0))]
    NoWeights(PathBuf),
    /// The operating system refused.
    #[error("{}: {source}{remedy}", path.display(), remedy = crate::output::file_remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error("{} is not a valid safetensors file ({reason}); {}", path.display(), replace_file(path))]
    Format {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
    /// The index of a sharded checkpoint is malformed.
    #[error("{}: {reason}; {}", path.display(), replace_file(path))]
    Index {
        /// The index file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
    /// Weights to be quantized that are quantized already.
    #[error("{place}: the weights are in int8 already; name the model that they were made of")]
    AlreadyInt8 {
        /// File or folder.
        place: String,
    },
    /// A tensor that the model needs is missing.
    #[error(
        "{place}: tensor `{name}` is missing; the file must hold every tensor of the model that config.json describes"
    )]
    Missing {
        /// File or folder.
        place: String,
        /// The tensor.
        name: String,
    },
    /// Tensors that no ModernBERT has.
    #[error(
        "{place}: {}, the first is `{name}`; the file is not of the model that config.json describes",
        crate::wording::counted(*count, "unknown tensor", "unknown tensors")
    )]
    Unknown {
        /// File or folder.
        place: String,
        /// The first unknown tensor.
        name: String,
        /// Number of them.
        count: usize,
    },
    /// A tensor of another shape.
    #[error("{place}: tensor `{name}` has shape {found:?}, config.json asks for {expected:?}")]
    Shape {
        /// File or folder.
        place: String,
        /// The tensor.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape the model needs.
        expected: Vec<usize>,
    },
    /// A number format this library doesn't read.
    #[error(
        "{place}: tensor `{name}` has dtype {dtype}; weights are read from F32, F16, BF16 and F64"
    )]
    Dtype {
        /// File or folder.
        place: String,
        /// The tensor.
        name: String,
        /// Its dtype.
        dtype: String,
    },
    /// Weights that are not finite.
    #[error(
        "{place}: tensor `{name}` has {count} of {total} values that are NaN or infinite; the training that wrote it diverged, or the file is damaged: use an earlier checkpoint, or download it again"
    )]
    NonFinite {
        /// File or folder.
        place: String,
        /// The tensor.
        name: String,
        /// Number of values that are NaN or infinite.
        count: usize,
        /// Number of all values.
        total: usize,
    },
    /// Weights whose squares overflow f32.
    #[error(
        "{place}: tensor `{name}` has weights up to {largest:e}, whose squares overflow f32; the training that wrote it diverged, or the file is damaged: use an earlier checkpoint, or download it again"
    )]
    TooLarge {
        /// File or folder.
        place: String,
        /// The tensor.
        name: String,
        /// Its largest magnitude.
        largest: f32,
    },
    /// The model could not be read back from its device.
    #[error("tensor `{name}` could not be read from its device: {reason}")]
    Device {
        /// The tensor.
        name: String,
        /// Message of the backend.
        reason: String,
    },
    /// The model's layers are packed for inference and are no parameters any more.
    #[error("{}: a model that was packed for inference on a CPU cannot be saved; save it before `for_inference`", .0.display())]
    Packed(PathBuf),
    /// config.json is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl CheckpointError {
    /// The system's error about `path`, for `map_err`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

/// The remedy for a folder without safetensors files.
fn without_weights(folder: &std::path::Path) -> &'static str {
    let is_link = |name: &str| folder.join(name).is_symlink();
    let names = ["model.safetensors", "model.safetensors.index.json"];
    if names.into_iter().any(is_link) {
        return "a link of that name is there, which leads to no file: restore the file, or copy the model again";
    }
    let pickled = ["pytorch_model.bin", "pytorch_model.bin.index.json"];
    if pickled.iter().any(|name| folder.join(name).exists()) {
        "its pytorch_model.bin is not read: convert it (in Python, load the model with transformers and call save_pretrained)"
    } else {
        "is it a model folder?"
    }
}
