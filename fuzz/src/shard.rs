//! The pages that read and write token shards.

#[path = "../../modernbert-train/src/shard/error.rs"]
mod error;
#[path = "../../modernbert-train/src/shard/header.rs"]
mod header;
#[path = "../../modernbert-train/src/shard/reader.rs"]
mod reader;
#[path = "../../modernbert-train/src/shard/writer.rs"]
mod writer;

pub use error::ShardError;
pub use header::{HEADER_LEN, TokenizerHash};
pub use reader::{Check, Shard};
pub use writer::{ShardInfo, ShardWriter};
