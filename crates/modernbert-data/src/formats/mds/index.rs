//! `index.json`.

use std::collections::HashSet;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::formats::reason::Reason;
use crate::formats::{Compression, FormatError};

/// The name of the file that lists a folder's shards.
pub(crate) const INDEX_FILE: &str = "index.json";

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
    bytes: u64,
}

/// A column of a shard.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) encoding: String,
    /// Bytes of each value, if all values have the same size.
    pub(super) size: Option<usize>,
}

/// A shard as the index describes it.
#[derive(Debug, Clone)]
pub(super) struct MdsShard {
    /// File name and size of the plain shard.
    pub(super) raw: (String, u64),
    /// File name and compression of the compressed shard.
    pub(super) zip: Option<(String, Compression)>,
    pub(super) samples: usize,
    pub(super) columns: Vec<Column>,
}

/// Returns true if a file called `index.json` is one of these: others have that name too.
pub(crate) fn is_index(path: &Path) -> bool {
    shards(path).is_some_and(|shards| shards.iter().all(|shard| shard.get("raw_data").is_some()))
}

/// Returns true for the name of a shard, plain or compressed: `shard.00000.mds`, `shard.00000.mds.zstd`.
pub(crate) fn is_shard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".mds") || name.contains(".mds.")
}

/// Names of the files that a folder's index lists, plain and compressed, relative to the folder; entries without a valid name are left out.
pub(crate) fn files_of_index(folder: &Path) -> Vec<String> {
    let shards = shards(&folder.join(INDEX_FILE)).unwrap_or_default();
    let files = shards.iter().flat_map(|shard| {
        let name = |file: &str| Some(shard.get(file)?.get("basename")?.as_str()?.to_owned());
        [name("raw_data"), name("zip_data")].into_iter().flatten()
    });
    files.filter_map(|file| inside(file).ok()).collect()
}

fn shards(path: &Path) -> Option<Vec<serde_json::Value>> {
    let mut index: serde_json::Value = serde_json::from_str(&text(path).ok()?).ok()?;
    match index.get_mut("shards")?.take() {
        serde_json::Value::Array(shards) => Some(shards),
        _ => None,
    }
}

fn text(path: &Path) -> Result<String, FormatError> {
    let text = modernbert_files::read::text(path).map_err(|source| FormatError::Read {
        path: path.into(),
        source,
    })?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// The shards of a folder.
pub(super) fn read_index(folder: &Path) -> Result<Vec<MdsShard>, FormatError> {
    let path = folder.join(INDEX_FILE);
    let bad = |reason: Reason| FormatError::Mds {
        path: path.clone(),
        reason: reason.into(),
    };
    let index: Index = modernbert_files::json::parse(text(&path)?.as_bytes())
        .map_err(|error| bad(error.to_string().into()))?;
    if index.version != 2 {
        let reason = format!("version {} of the format, known is 2", index.version);
        return Err(bad(reason.into()));
    }
    let mut files = HashSet::new();
    let mut entries = Vec::with_capacity(index.shards.len());
    for shard in index.shards {
        let entry = entry(shard).map_err(bad)?;
        if !files.insert(entry.raw.0.clone()) {
            let reason = format!("the shard {} is listed twice", entry.raw.0);
            return Err(bad(reason.into()));
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(shard: Shard) -> Result<MdsShard, Reason> {
    if shard.format != "mds" {
        return Err(format!("a shard of format {:?}, not \"mds\"", shard.format).into());
    }
    let count = shard.column_names.len();
    if shard.column_encodings.len() != count || shard.column_sizes.len() != count {
        return Err("names, encodings and sizes of the columns are not equally many".into());
    }
    let names: HashSet<&String> = shard.column_names.iter().collect();
    if names.len() < count {
        return Err("two columns have one name".into());
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
                _ => return Err(format!("compression {name:?}; zstd and gz are read here").into()),
            };
            Some((inside(file.basename)?, compression))
        }
        _ => None,
    };
    Ok(MdsShard {
        raw: (inside(shard.raw_data.basename)?, shard.raw_data.bytes),
        zip,
        samples: shard.samples,
        columns: columns.collect(),
    })
}

/// A file's name, if it stays inside the folder.
fn inside(name: String) -> Result<String, Reason> {
    let plain = |part: Component| matches!(part, Component::Normal(_));
    if !name.is_empty() && Path::new(&name).components().all(plain) {
        Ok(name)
    } else {
        Err(format!("a shard called {name:?}, which is outside the folder").into())
    }
}
