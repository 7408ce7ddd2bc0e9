//! Tokenizes text of any size into a folder of token shards.
//!
//! | item | contents |
//! |---|---|
//! | [`tokenize`] | sources of text or tokens to shards, on several cores, one batch of documents in memory at a time |
//! | [`TokenFolder`] | such a folder, opened: shards compared with their hashes, sources for the loader |
//!
//! The folder is a function of the input and the options: it is byte-identical for any number of threads.

mod error;
mod folder;
mod held_out;
mod index;
mod run;
mod source;
mod space;
mod split_writer;
mod staging;
#[cfg(test)]
mod tests;

pub use error::TokenizeFolderError;
pub use folder::{FolderError, TokenFolder};
pub use index::{INDEX_FILE, Index, ShardEntry, ShardIndexError, SourceEntry, SplitEntry};
pub use run::{TokenizeEvent, TokenizeFolderOptions, TokenizeReport, tokenize};
pub use source::TokenizeSource;
