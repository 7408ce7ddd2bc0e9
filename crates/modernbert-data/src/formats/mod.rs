//! Files of many formats: rows of tables, and documents.
//!
//! | item | contents |
//! |---|---|
//! | [`Rows`], [`Row`], [`Cell`] | the rows of a `.txt`, JSONL, CSV, TSV or Parquet file: the one reader of rows |
//! | [`table`] | rows with one label or several, and the classes of a training set |
//! | [`tagged`] | words with a tag each, texts with labelled spans |
//! | [`questions`], [`choices`] | questions with answers in a context, questions with choices |
//! | [`Records`] | the documents of one file or MDS folder: a text file, or the rows of other formats |
//! | [`find_inputs`] | the input files of a path |
//! | [`read_text`], [`read_text_from`] | a text file or a pipe, whole |
//! | [`FileKind`] | format and compression by the ending of a name |
//!
//! At most one row, document, page or shard is in memory. Lines, documents and what a compressed file may unpack to are limited. An
//! error names file and row; after an error of a single row the next row follows. Parquet and Zstandard are cargo features, `parquet`
//! and `zstd`; a file of a kind that is not compiled in is an error that names the feature.

mod bytes;
pub mod choices;
mod delimited;
mod error;
mod inputs;
mod json;
mod kind;
mod mds;
#[cfg(feature = "parquet")]
mod parquet;
pub mod questions;
mod reason;
mod records;
mod row;
mod rows;
pub mod table;
pub mod tagged;
#[cfg(test)]
mod tests;
mod text;

pub use bytes::ReadBytes;
pub use error::FormatError;
pub use inputs::{FoundInputs, InputFile, find_inputs};
pub(crate) use inputs::{files_below, relative};
pub(crate) use kind::endings;
pub use kind::{Compression, FileKind, Format, TEXT_ENDINGS};
#[cfg(feature = "parquet")]
pub use parquet::{ParquetFault, guarded_parquet};
pub use records::{Content, Fields, Record, Records};
pub use row::{Cell, Row};
pub use rows::Rows;
pub use text::{read_text, read_text_from};
