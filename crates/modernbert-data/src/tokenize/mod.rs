//! Text of any size to a folder of token shards.
//!
//! | item | contents |
//! |---|---|
//! | [`tokenize`] | sources of text or tokens to shards, on several cores, one batch of documents in memory at a time |
//! | [`TokenFolder`] | such a folder, opened: shards held to their hashes, sources for the loader |
//!
//! The folder is a function of the input and the options: neither the number of threads nor the speed of the disk changes a byte.

mod error;
mod folder;
mod run;
mod side;
#[cfg(test)]
mod tests;

pub use error::TokenizeFolderError;
pub use folder::{FolderError, INDEX_FILE, Index, ShardEntry, SideEntry, SourceEntry, TokenFolder};
pub use run::{Report, Step, TokenizeFolderOptions, TokenizeSource, tokenize};
