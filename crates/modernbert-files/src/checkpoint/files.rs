//! The tensors of a model folder, from one file or from several with an index.

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{CheckpointError, WEIGHTS_FILE};

const INDEX_FILE: &str = "model.safetensors.index.json";

/// Shape of a tensor and its values in row-major order.
pub type ShapedValues = (Vec<usize>, Vec<f32>);

/// Mapped safetensors files, and the position of each tensor.
pub struct TensorFiles {
    place: PathBuf,
    maps: Vec<(PathBuf, Mmap)>,
    tensors: BTreeMap<String, usize>,
}

impl TensorFiles {
    /// Opens the weights of a model folder, or a single safetensors file.
    ///
    /// # Errors
    /// Missing files, damaged files, an index that names missing files or tensors.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        if path.is_file() {
            return Self::open_all(path, vec![path.to_path_buf()]);
        }
        if !path.is_dir() {
            return Err(CheckpointError::NoFolder(path.to_path_buf()));
        }
        let single = path.join(WEIGHTS_FILE);
        if single.is_file() {
            return Self::open_all(&single, vec![single.clone()]);
        }
        let index = path.join(INDEX_FILE);
        if index.is_file() {
            return Self::open_index(path, &index);
        }
        Err(CheckpointError::NoWeights(path.to_path_buf()))
    }

    /// The same files as if they had no tensor whose name starts with `prefix`.
    #[must_use]
    pub fn without(mut self, prefix: &str) -> Self {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
        self
    }

    fn open_index(folder: &Path, index: &Path) -> Result<Self, CheckpointError> {
        let wrong = |reason: String| CheckpointError::Index {
            path: index.to_path_buf(),
            reason,
        };
        let text = crate::read::text(index).map_err(CheckpointError::io(index))?;
        let json: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let map = json
            .get("weight_map")
            .and_then(|map| map.as_object())
            .ok_or_else(|| wrong("it has no `weight_map` object".to_string()))?;
        let mut names = BTreeSet::new();
        for (tensor, file) in map {
            let file = file
                .as_str()
                .filter(|file| !file.contains(['/', '\\']) && *file != "..")
                .ok_or_else(|| {
                    wrong(format!(
                        "`weight_map.{tensor}` is not the name of a file beside it"
                    ))
                })?;
            names.insert(file.to_string());
        }
        let files = names.iter().map(|name| folder.join(name)).collect();
        let opened = Self::open_all(index, files)?;
        for (name, file) in map {
            let found = opened.tensors.get(name).map(|&i| &opened.maps[i].0);
            match found.and_then(|path| path.file_name()) {
                None => {
                    return Err(wrong(format!(
                        "tensor `{name}` is in the index but in none of the files"
                    )));
                }
                Some(found) if Some(found) != file.as_str().map(OsStr::new) => {
                    return Err(wrong(format!(
                        "tensor `{name}` is in {}, not in the file that the index names",
                        found.display()
                    )));
                }
                Some(_) => {}
            }
        }
        Ok(opened)
    }

    fn open_all(place: &Path, paths: Vec<PathBuf>) -> Result<Self, CheckpointError> {
        let mut maps = Vec::new();
        let mut tensors = BTreeMap::new();
        for path in paths {
            let file = crate::read::open(&path).map_err(CheckpointError::io(&path))?;
            // SAFETY: the mapping is read only. If another process truncates the file while it is mapped, it can end this
            // process with a bus error; it can't make it read wrong memory.
            let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io(&path))?;
            let names = parse(&path, &map)?
                .names()
                .into_iter()
                .map(str::to_string)
                .collect::<Vec<_>>();
            for name in names {
                if tensors.insert(name.clone(), maps.len()).is_some() {
                    return Err(CheckpointError::Format {
                        path,
                        reason: format!(
                            "tensor `{name}` is in another file of this checkpoint too"
                        ),
                    });
                }
            }
            maps.push((path, map));
        }
        Ok(Self {
            place: place.to_path_buf(),
            maps,
            tensors,
        })
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// File (or index) these tensors come from, for messages.
    pub fn place(&self) -> String {
        self.place.display().to_string()
    }

    /// Shape of a tensor, or `None` if there is no such tensor; its values are not read.
    ///
    /// # Errors
    /// A file that was damaged since it was opened.
    pub fn shape(&self, name: &str) -> Result<Option<Vec<usize>>, CheckpointError> {
        let Some(&file) = self.tensors.get(name) else {
            return Ok(None);
        };
        let (path, map) = &self.maps[file];
        let tensors = parse(path, map)?;
        let view = tensors
            .tensor(name)
            .map_err(|error| CheckpointError::Format {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        Ok(Some(view.shape().to_vec()))
    }

    /// Shape and values (as f32) of a tensor, or `None` if there is no such tensor.
    ///
    /// # Errors
    /// A dtype that holds no weights.
    pub fn read(&self, name: &str) -> Result<Option<ShapedValues>, CheckpointError> {
        let Some(&file) = self.tensors.get(name) else {
            return Ok(None);
        };
        let (path, map) = &self.maps[file];
        let tensors = parse(path, map)?;
        let view = tensors
            .tensor(name)
            .map_err(|error| CheckpointError::Format {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F32 => convert::<4>(bytes, f32::from_le_bytes),
            Dtype::F16 => convert::<2>(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert::<2>(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => convert::<8>(bytes, |b| f64::from_le_bytes(b) as f32),
            other => {
                return Err(CheckpointError::Dtype {
                    place: self.place(),
                    name: name.to_string(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        Ok(Some((view.shape().to_vec(), values)))
    }
}

fn parse<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>, CheckpointError> {
    SafeTensors::deserialize(map).map_err(|error| CheckpointError::Format {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

fn convert<const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| from(chunk)).collect()
}
