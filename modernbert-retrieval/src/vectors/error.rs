//! Errors of vector files.

use std::path::PathBuf;

use modernbert_files::checkpoint::CheckpointError;

use crate::data::RetrievalDataError;

/// Reason why a file of vectors could not be read.
#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    /// A JSONL file is malformed.
    #[error(transparent)]
    Data(#[from] RetrievalDataError),
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
        "{path}: {}, but {texts_path} has {}; give the file that was embedded",
        modernbert_files::wording::counted(*vectors, "vector", "vectors"),
        modernbert_files::wording::counted(*texts, "text", "texts")
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
    /// A file without vectors.
    #[error("{path}: it has no vector; write a row with the list `embedding` for each text")]
    NoVectors {
        /// The file.
        path: PathBuf,
    },
    /// A component is NaN, infinite or beyond f32.
    #[error(
        "{path}: component {component} of vector {number} is {value}; NaN, infinity and numbers beyond f32 can't be compared: compute the \
         vectors again, or scale them"
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The vector, from 1.
        number: usize,
        /// The component, from 0.
        component: usize,
        /// Its value in f32.
        value: f32,
    },
    /// A field for the metadata that would be changed.
    #[error(
        "{path}:{line}: the field '{field}' has a number that f64 does not hold exactly; write it as a string"
    )]
    Inexact {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
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
