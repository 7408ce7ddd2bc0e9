//! Errors of vector files.

use std::path::PathBuf;

use modernbert_files::checkpoint::CheckpointError;

use crate::data::DataError;

/// Reason why a file of vectors could not be read.
#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    /// A JSONL file is malformed.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A safetensors file is malformed.
    #[error(transparent)]
    Tensor(#[from] CheckpointError),
    /// A safetensors file without the matrix.
    #[error("{path}: no matrix `embeddings` of shape [vectors, components]; it has {found}")]
    NoMatrix {
        /// The file.
        path: PathBuf,
        /// The value found.
        found: String,
    },
    /// A safetensors file has no ids.
    #[error("{path}: a safetensors file has no ids; give the JSONL file of the texts with --texts")]
    NoIds {
        /// The file.
        path: PathBuf,
    },
    /// Another number of texts than vectors.
    #[error(
        "{path}: {vectors} vectors, but {texts_path} has {texts} texts; give the file that was embedded"
    )]
    Counts {
        /// The file of vectors.
        path: PathBuf,
        /// Its vectors.
        vectors: usize,
        /// The file of texts.
        texts_path: PathBuf,
        /// Its texts.
        texts: usize,
    },
    /// A vector without components.
    #[error("{path}:{line}: the vector has no component; write one, or leave the row out")]
    EmptyVector {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Vectors of different lengths.
    #[error(
        "{path}:{line}: a vector of {}, the vectors before have {expected}; all must come from one model",
        modernbert_files::wording::counted(*found, "component", "components")
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Components found.
        found: usize,
        /// Components expected.
        expected: usize,
    },
    /// The model's folder cannot be hashed.
    #[error("{path}: {reason}; give the folder with the model's config.json and weights")]
    Model {
        /// The folder or file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
}
