//! Errors of vector indexes.

use std::path::PathBuf;

use modernbert_files::output::write_remedy;

/// Reason why an index could not be read, searched or changed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// There is no index in the folder.
    #[error("{path}: no index; build one with `index build`")]
    NoIndex {
        /// The folder.
        path: PathBuf,
    },
    /// There is an index in the folder already.
    #[error("{path}: contains an index; add to it with `index add`, or choose another folder")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// Another process changes the index.
    #[error("{path}: another process (process {owner}) is changing this index; wait for it to end")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Its process id, as that process wrote it.
        owner: String,
    },
    /// The lock is a file of something else.
    #[error(transparent)]
    Lock(modernbert_files::lock::LockError),
    /// The operating system refused.
    #[error("{}: {source}; {}", path.display(), write_remedy(source, "check that the file exists, its permissions and the free space"))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file was changed after it was written, or is not of this index.
    #[error("{path}: damaged ({reason}); restore the folder from a copy or build the index again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
    /// The index was written by a newer version.
    #[error(
        "{path}: index format {found}, this program reads {known}; use a newer program or build the index again"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format known.
        known: u32,
    },
    /// The vectors come from another model than the index.
    #[error(
        "{path}: built with the model {index_name} (hash {index_hash}), not with {name} (hash {hash}); encode with the index's model or \
         build another index"
    )]
    OtherModel {
        /// The folder.
        path: PathBuf,
        /// Name of the index's model.
        index_name: String,
        /// Hash of the index's model.
        index_hash: String,
        /// Name of the given model.
        name: String,
        /// Hash of the given model.
        hash: String,
    },
    /// A vector has the wrong number of components.
    #[error("{what}: {found} components, the index has {expected}; encode with the index's model")]
    Dimension {
        /// Query number or document id.
        what: String,
        /// Components found.
        found: usize,
        /// Components of the index.
        expected: usize,
    },
    /// An index of vectors without components, or with too many.
    #[error("vectors of {found} components; an index holds 1 to 65536 components")]
    BadDimension {
        /// Components asked for.
        found: usize,
    },
    /// A component is NaN or infinite.
    #[error(
        "{what}: component {component} is {value}; a model with non-finite outputs cannot be indexed or searched"
    )]
    NotFinite {
        /// Query number or document id.
        what: String,
        /// The component, from 0.
        component: usize,
        /// The value.
        value: f32,
    },
    /// A vector is too long for f32 sums or for the dtype.
    #[error(
        "{what}: component {component} is {}, too large for {dtype}; {}", modernbert_files::wording::short(f64::from(*value)), normalize(dtype)
    )]
    TooLarge {
        /// Query number or document id.
        what: String,
        /// The component, from 0.
        component: usize,
        /// The value.
        value: f32,
        /// The dtype.
        dtype: &'static str,
    },
    /// A vector is too short for the dtype: its components would become 0 or lose most digits.
    #[error(
        "{what}: its largest component is {value:e}, too small for {dtype}; {}",
        normalize(dtype)
    )]
    TooSmall {
        /// Query number or document id.
        what: String,
        /// The largest magnitude.
        value: f32,
        /// The dtype.
        dtype: &'static str,
    },
    /// A vector of zeros has no cosine.
    #[error(
        "{what}: all components are 0, which has no cosine; leave it out or use the similarity `dot` or `euclidean`"
    )]
    Zero {
        /// Query number or document id.
        what: String,
    },
    /// An id is in the index already.
    #[error(
        "the id '{id}' occurs a second time; leave one of its vectors out (`index update` replaces a vector that an existing index has)"
    )]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// An id is empty.
    #[error("vector {number}: its id is empty; give each vector an id")]
    EmptyId {
        /// Number of the vector, from 1 since the writer was opened.
        number: usize,
    },
}

/// The remedy for a component that a dtype cannot hold.
fn normalize(dtype: &str) -> &'static str {
    match dtype {
        "f32" => "normalize the vectors",
        _ => "normalize the vectors or choose f32",
    }
}

impl IndexError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn damaged(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }
}
