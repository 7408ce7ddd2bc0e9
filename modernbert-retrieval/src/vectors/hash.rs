//! Identity of a model by the contents of its files.

use std::io::Read;
use std::path::{Path, PathBuf};

use modernbert_files::read;
use sha2::{Digest, Sha256};

use super::VectorError;

/// Endings of the files that decide about a model's vectors: configuration, tokenizer, weights.
const ENDINGS: [&str; 4] = [".json", ".safetensors", ".txt", ".model"];

/// Returns the SHA-256 of a model folder in hexadecimal: of names and contents of its configuration, tokenizer and weights, those of its
/// subfolders (`1_Pooling`) included. The folder's own name and other files (README, pictures, logs) do not count.
///
/// # Errors
/// [`VectorError::Model`]: a folder that cannot be read or has no `config.json`.
pub fn model_hash(folder: &Path) -> Result<String, VectorError> {
    let mut files = Vec::new();
    collect(folder, "", 2, &mut files)?;
    if !files.iter().any(|(name, _)| name == "config.json") {
        return Err(failed(folder, "no config.json"));
    }
    files.sort();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for (name, path) in files {
        let mut file = read::open(&path).map_err(|error| failed(&path, error))?;
        let length = file.metadata().map_err(|error| failed(&path, error))?.len();
        // Lengths separate the end of one file from the beginning of the next.
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(length.to_le_bytes());
        loop {
            let read = file
                .read(&mut buffer)
                .map_err(|error| failed(&path, error))?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
    }
    Ok(hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn failed(path: &Path, reason: impl ToString) -> VectorError {
    VectorError::Model {
        path: path.to_path_buf(),
        reason: reason.to_string(),
    }
}

fn collect(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), VectorError> {
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let full = format!("{prefix}{name}");
        if path.is_dir() {
            // A run's checkpoints are models of their own.
            if depth > 1 && !name.starts_with('.') && path.join("config.json").is_file() {
                collect(&path, &format!("{full}/"), depth - 1, files)?;
            }
        } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
            files.push((full, path));
        }
    }
    Ok(())
}
