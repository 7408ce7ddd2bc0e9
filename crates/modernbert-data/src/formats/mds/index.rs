//! `index.json`.

use std::fs;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::corpus::CorpusError;

/// The name of the file that lists a folder's shards.
pub const INDEX_FILE: &str = "index.json";

#[derive(Deserialize)]
struct Index {
    version: u32,
    shards: Vec<Shard>,
}

#[derive(Deserialize)]
struct Shard {
    format: String,
    #[serde(default)]
    compression: Option<String>,
    #[serde(default)]
    column_names: Vec<String>,
    #[serde(default)]
    column_encodings: Vec<String>,
    #[serde(default)]
    column_sizes: Vec<Option<usize>>,
    raw_data: File,
    #[serde(default)]
    zip_data: Option<File>,
    samples: usize,
}

#[derive(Deserialize)]
struct File {
    basename: String,
}

/// A column of a shard.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) encoding: String,
    /// Bytes of each value, if they are always as many.
    pub(super) size: Option<usize>,
}

/// How a shard's second file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Zstd,
    Gzip,
}

/// A shard as the index describes it.
#[derive(Debug, Clone)]
pub(super) struct ShardEntry {
    pub(super) raw: String,
    pub(super) zip: Option<(String, Compression)>,
    pub(super) samples: usize,
    pub(super) columns: Vec<Column>,
}

/// Whether a file called `index.json` is one of these: others have that name too.
pub(crate) fn is_index(path: &Path) -> bool {
    let read = || -> Option<bool> {
        let text = fs::read_to_string(path).ok()?;
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        let shards = value.get("shards")?.as_array()?;
        Some(shards.iter().all(|shard| shard.get("raw_data").is_some()))
    };
    read().unwrap_or(false)
}

/// The shards of a folder.
pub(super) fn read_index(folder: &Path) -> Result<Vec<ShardEntry>, CorpusError> {
    let path = folder.join(INDEX_FILE);
    let bad = |reason: String| CorpusError::Mds {
        path: path.clone(),
        reason,
    };
    let text = fs::read_to_string(&path).map_err(|source| CorpusError::Read {
        path: path.clone(),
        source,
    })?;
    let index: Index = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if index.version != 2 {
        return Err(bad(format!(
            "version {} of the format, known is 2",
            index.version
        )));
    }
    index
        .shards
        .into_iter()
        .map(|shard| entry(shard).map_err(bad))
        .collect()
}

fn entry(shard: Shard) -> Result<ShardEntry, String> {
    if shard.format != "mds" {
        return Err(format!("a shard of format {:?}, not \"mds\"", shard.format));
    }
    let count = shard.column_names.len();
    if shard.column_encodings.len() != count || shard.column_sizes.len() != count {
        return Err("names, encodings and sizes of the columns are not equally many".into());
    }
    let columns = shard
        .column_names
        .into_iter()
        .zip(shard.column_encodings)
        .zip(shard.column_sizes)
        .map(|((name, encoding), size)| Column {
            name,
            encoding,
            size,
        });
    let zip = match (shard.zip_data, shard.compression) {
        (Some(file), Some(name)) => {
            // The level may follow, as in "zstd:7".
            let compression = match name.split(':').next() {
                Some("zstd") => Compression::Zstd,
                Some("gz") => Compression::Gzip,
                _ => return Err(format!("compression {name:?}; zstd and gz are read here")),
            };
            Some((inside(file.basename)?, compression))
        }
        _ => None,
    };
    Ok(ShardEntry {
        raw: inside(shard.raw_data.basename)?,
        zip,
        samples: shard.samples,
        columns: columns.collect(),
    })
}

/// A file's name, if it stays inside of the folder.
fn inside(name: String) -> Result<String, String> {
    let plain = |part: Component| matches!(part, Component::Normal(_));
    if !name.is_empty() && Path::new(&name).components().all(plain) {
        Ok(name)
    } else {
        Err(format!("a shard called {name:?}, outside of the folder"))
    }
}
