//! The manifest of a checkpoint: its files with their lengths and hashes.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::{MANIFEST_FILE, SnapshotError};

/// The newest format of checkpoints.
const FORMAT: u32 = 1;

/// Length and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

/// `manifest.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointManifest {
    format: u32,
    /// The files of the checkpoint beside the manifest.
    pub files: BTreeMap<String, FileHash>,
    /// SHA-256 over the list of files, which tells damage to this file from damage to another one.
    sha256: String,
}

impl CheckpointManifest {
    /// Hashes the named files of a folder.
    pub(super) fn of(folder: &Path, names: &[String]) -> Result<Self, SnapshotError> {
        let mut files = BTreeMap::new();
        for name in names {
            files.insert(name.clone(), hash_file(&folder.join(name))?);
        }
        Ok(Self {
            format: FORMAT,
            sha256: list_hash(&files),
            files,
        })
    }

    /// Reads the manifest of a checkpoint; the other files are not read.
    ///
    /// # Errors
    /// A folder that is no checkpoint, a damaged manifest, a newer format.
    pub fn read(folder: &Path) -> Result<Self, SnapshotError> {
        let path = folder.join(MANIFEST_FILE);
        let text = match modernbert::read::bytes(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SnapshotError::NotOne {
                    path: folder.to_path_buf(),
                });
            }
            Err(error) => return Err(SnapshotError::io(&path)(error)),
        };
        let manifest: Self =
            modernbert::json::parse(&text).map_err(|error| SnapshotError::damaged(&path, error))?;
        if manifest.format > FORMAT {
            return Err(SnapshotError::Format {
                path,
                found: manifest.format,
                known: FORMAT,
            });
        }
        // A name may lead into a folder of the checkpoint (`best/model.safetensors`), never out of it.
        let inside = |name: &String| {
            let mut parts = Path::new(name).components().peekable();
            parts.peek().is_some()
                && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        if let Some(name) = manifest.files.keys().find(|name| !inside(name)) {
            let reason = format!("it lists {name:?}, which is not a file inside the checkpoint");
            return Err(SnapshotError::damaged(&path, reason));
        }
        if list_hash(&manifest.files) != manifest.sha256 {
            return Err(SnapshotError::damaged(
                &path,
                "the list of files doesn't have the hash it states",
            ));
        }
        Ok(manifest)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }
}

/// Verifies every file of a checkpoint against the manifest.
///
/// # Errors
/// The first file that is missing, has another length or another content, by name.
pub fn verify(folder: &Path) -> Result<CheckpointManifest, SnapshotError> {
    let manifest = CheckpointManifest::read(folder)?;
    for (name, expected) in &manifest.files {
        let path = folder.join(name);
        let length = match std::fs::metadata(&path) {
            Ok(data) => data.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SnapshotError::damaged(&path, "the file is missing"));
            }
            Err(error) => return Err(SnapshotError::io(&path)(error)),
        };
        if length != expected.bytes {
            return Err(SnapshotError::damaged(
                &path,
                format!("it has {length} bytes, {} were written", expected.bytes),
            ));
        }
        if hash_file(&path)?.sha256 != expected.sha256 {
            return Err(SnapshotError::damaged(
                &path,
                "its content was changed (SHA-256)",
            ));
        }
    }
    Ok(manifest)
}

fn list_hash(files: &BTreeMap<String, FileHash>) -> String {
    let mut hash = Sha256::new();
    for (name, file) in files {
        hash.update(format!("{name}\0{}\0{}\n", file.bytes, file.sha256));
    }
    hex(&hash.finalize())
}

/// Length and hash of a file.
///
/// # Errors
/// An error of the operating system.
pub(crate) fn hash_file(path: &Path) -> Result<FileHash, SnapshotError> {
    let mut file = modernbert::read::open(path).map_err(SnapshotError::io(path))?;
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(SnapshotError::io(path))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok(FileHash {
        bytes,
        sha256: hex(&hash.finalize()),
    })
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
