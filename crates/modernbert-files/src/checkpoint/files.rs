//! The tensors of a model folder, from one file or from several with an index.
//!
//! Weights in int8 have a second tensor with the scale of each row, `NAME_scale` beside `NAME`: the form of `compressed-tensors` (`int-quantized`,
//! symmetric, one scale per channel).

use bytes::Bytes;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::names::Naming;
use super::{CheckpointError, WEIGHTS_FILE};
use crate::kinds;

const INDEX_FILE: &str = "model.safetensors.index.json";

/// Shape of a tensor and its values in row-major order.
pub type ShapedValues = (Vec<usize>, Vec<f32>);

/// Suffix of the name of a weight's scales.
pub(super) const SCALES: &str = "_scale";

/// Mapped safetensors files, and the position of each tensor.
pub struct TensorFiles {
    place: PathBuf,
    files: Vec<PathBuf>,
    pub(super) tensors: BTreeMap<String, Entry>,
    /// The names in the files, where they are not those of `tensors`.
    pub(super) naming: Option<Naming>,
}

/// One tensor.
pub(super) struct Entry {
    /// Index of its file.
    file: usize,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: Dtype,
    /// Its part of the mapping.
    pub(super) bytes: Bytes,
    /// Further parts, row after row, of a tensor that the files have in parts.
    pub(super) more: Vec<Bytes>,
}

/// Values of a tensor as its file has them.
#[derive(Clone, Debug)]
pub enum TensorValues<'a> {
    /// Row-major; borrowed from the mapped file where it has them in f32.
    Float(Cow<'a, [f32]>),
    /// A matrix in int8: `values[i][k] = scales[i] * codes[i][k]`.
    Int8 {
        /// Row-major.
        codes: &'a [i8],
        /// One for each row.
        scales: Vec<f32>,
    },
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
        let bytes = crate::read::bytes(index).map_err(CheckpointError::io(index))?;
        let json: serde_json::Value =
            crate::json::parse(&bytes).map_err(|error| wrong(error.to_string()))?;
        kinds::check(kinds::WEIGHTS_INDEX, &json)
            .map_err(|error| wrong(format!("{}, not {}", error.fault(), error.expected)))?;
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
            let found = opened
                .tensors
                .get(name)
                .map(|entry| &opened.files[entry.file]);
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
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        for path in paths {
            let file = crate::read::open(&path).map_err(CheckpointError::io(&path))?;
            // SAFETY: the mapping is read only. If another process truncates the file while it is mapped, it can end this
            // process with a bus error; it can't make it read wrong memory.
            let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io(&path))?;
            let map = Bytes::from_owner(map);
            check_header(&path, &map)?;
            let parsed = SafeTensors::deserialize(&map).map_err(|error| format(&path, &error))?;
            for (name, view) in parsed.tensors() {
                let entry = Entry {
                    file: files.len(),
                    shape: view.shape().to_vec(),
                    dtype: view.dtype(),
                    bytes: map.slice_ref(view.data()),
                    more: Vec::new(),
                };
                if tensors.insert(name.clone(), entry).is_some() {
                    return Err(CheckpointError::Format {
                        path,
                        reason: format!(
                            "tensor `{name}` is in another file of this checkpoint too"
                        ),
                    });
                }
            }
            files.push(path);
        }
        Ok(Self {
            place: place.to_path_buf(),
            files,
            tensors,
            naming: None,
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

    /// Shape of a tensor, or `None` if there is no such tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// True for the scales of a weight in int8 that these files have.
    pub fn is_scale(&self, name: &str) -> bool {
        let weight = name
            .strip_suffix(SCALES)
            .and_then(|weight| self.tensors.get(weight));
        weight.is_some_and(|weight| weight.dtype == Dtype::I8)
    }

    /// The bytes of a tensor in f32, or `None` if there is no such tensor, it has another dtype or several parts, or its alignment in the file or this processor's byte
    /// order does not allow to read the bytes as numbers. The bytes stay mapped as long as a copy of the result exists.
    pub fn mapped(&self, name: &str) -> Option<Bytes> {
        let entry = self.tensors.get(name)?;
        entry.as_f32().map(|_| entry.bytes.clone())
    }

    /// Values of a tensor, or `None` if there is no such tensor.
    ///
    /// # Errors
    /// A dtype that holds no weights, int8 without scales.
    pub fn values(&self, name: &str) -> Result<Option<TensorValues<'_>>, CheckpointError> {
        let Some(entry) = self.tensors.get(name) else {
            return Ok(None);
        };
        if let Some(values) = entry.as_f32() {
            return Ok(Some(TensorValues::Float(Cow::Borrowed(values))));
        }
        if entry.dtype == Dtype::I8 && entry.more.is_empty() {
            return self.int8(name, entry).map(Some);
        }
        let mut values = Vec::new();
        for bytes in std::iter::once(&entry.bytes).chain(&entry.more) {
            let part = match entry.dtype {
                Dtype::F32 => convert::<4>(bytes, f32::from_le_bytes),
                Dtype::F16 => convert::<2>(bytes, |b| f16::from_le_bytes(b).to_f32()),
                Dtype::BF16 => convert::<2>(bytes, |b| bf16::from_le_bytes(b).to_f32()),
                Dtype::F64 => convert::<8>(bytes, |b| f64::from_le_bytes(b) as f32),
                other => return Err(self.other_dtype(name, other)),
            };
            match values.is_empty() {
                true => values = part,
                false => values.extend(part),
            }
        }
        Ok(Some(TensorValues::Float(Cow::Owned(values))))
    }

    /// Shape and values (as f32) of a tensor, or `None` if there is no such tensor.
    ///
    /// # Errors
    /// As [`Self::values`].
    pub fn read(&self, name: &str) -> Result<Option<ShapedValues>, CheckpointError> {
        let (Some(shape), Some(values)) = (self.shape(name), self.values(name)?) else {
            return Ok(None);
        };
        Ok(Some((shape.to_vec(), values.into_f32())))
    }

    fn int8<'a>(
        &'a self,
        name: &str,
        entry: &'a Entry,
    ) -> Result<TensorValues<'a>, CheckpointError> {
        let scales_name = format!("{name}{SCALES}");
        let found = self.tensors.get(&scales_name);
        let [rows, _] = entry.shape[..] else {
            return Err(self.other_dtype(name, entry.dtype));
        };
        let Some(found) = found.filter(|scales| scales.dtype != Dtype::I8) else {
            return Err(self.other_dtype(name, entry.dtype));
        };
        if found.shape != [rows, 1] && found.shape != [rows] {
            return Err(CheckpointError::Shape {
                place: self.place(),
                name: scales_name,
                found: found.shape.clone(),
                expected: vec![rows, 1],
            });
        }
        let scales = match self.values(&scales_name)? {
            Some(TensorValues::Float(scales)) => scales.into_owned(),
            _ => return Err(self.other_dtype(&scales_name, found.dtype)),
        };
        let codes = &entry.bytes;
        // SAFETY: bytes and i8 have the same size and alignment, and any bits are an i8.
        let codes = unsafe { std::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) };
        Ok(TensorValues::Int8 { codes, scales })
    }

    pub(super) fn other_dtype(&self, name: &str, dtype: Dtype) -> CheckpointError {
        CheckpointError::Dtype {
            place: self.place(),
            name: self.shown(name),
            dtype: format!("{dtype:?}"),
        }
    }
}

impl Entry {
    /// The values of a tensor in f32, without a copy.
    fn as_f32(&self) -> Option<&[f32]> {
        if self.dtype != Dtype::F32 || !self.more.is_empty() || cfg!(target_endian = "big") {
            return None;
        }
        // SAFETY: any bits are an f32; the length is that of whole numbers, and only aligned numbers are taken.
        match unsafe { self.bytes.align_to::<f32>() } {
            ([], values, []) => Some(values),
            _ => None,
        }
    }
}

impl TensorValues<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Int8 { codes, .. } => codes.len(),
        }
    }

    /// True without values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in f32; codes are multiplied by their scales.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Self::Float(values) => values.into_owned(),
            Self::Int8 { codes, scales } => match codes.len().checked_div(scales.len()) {
                None | Some(0) => Vec::new(),
                Some(width) => {
                    let rows = codes.chunks_exact(width).zip(&scales);
                    rows.flat_map(|(row, scale)| {
                        row.iter().map(move |&code| scale * f32::from(code))
                    })
                    .collect()
                }
            },
        }
    }

    /// Number of values that are not finite; of scales, for codes.
    pub fn non_finite(&self) -> usize {
        self.values().iter().filter(|x| !x.is_finite()).count()
    }

    /// The largest magnitude; of codes at most that of their scales times 127.
    pub fn largest(&self) -> f32 {
        let most = self
            .values()
            .iter()
            .fold(0.0f32, |most, x| most.max(x.abs()));
        match self {
            Self::Float(_) => most,
            Self::Int8 { .. } => 127.0 * most,
        }
    }

    /// Sum of the squares of all values, to the digits of f32; of codes an upper bound. Not finite if a value or its square is not.
    pub fn sum_of_squares(&self) -> f64 {
        // Sums in lanes are vectorized. Large tensors are shared among threads, which also bring the file's pages in.
        const LANES: usize = 16;
        let squares = |part: &[f32]| {
            let mut lanes = [0.0f32; LANES];
            let (chunks, rest) = part.as_chunks::<LANES>();
            for chunk in chunks {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane += x * x;
                }
            }
            let of_rest: f32 = rest.iter().map(|x| x * x).sum();
            lanes.into_iter().map(f64::from).sum::<f64>() + f64::from(of_rest)
        };
        let sum = self.values().par_chunks(1 << 16).map(squares).sum::<f64>();
        match self {
            Self::Float(_) => sum,
            Self::Int8 { codes, scales } => {
                let width = codes.len() / scales.len().max(1);
                sum * width as f64 * 127.0 * 127.0
            }
        }
    }

    fn values(&self) -> &[f32] {
        match self {
            Self::Float(values) => values,
            Self::Int8 { scales, .. } => scales,
        }
    }
}

/// Refuses a header that names a tensor twice: the library takes one of the two.
fn check_header(path: &Path, map: &[u8]) -> Result<(), CheckpointError> {
    // The library reports a header that is not there or is no JSON.
    let Some((length, rest)) = map.split_first_chunk::<8>() else {
        return Ok(());
    };
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    match crate::json::check_keys(rest.get(..length).unwrap_or_default()) {
        Err(error) if error.is_data() => Err(CheckpointError::Format {
            path: path.to_path_buf(),
            reason: error.to_string(),
        }),
        _ => Ok(()),
    }
}

fn format(path: &Path, error: &safetensors::SafeTensorError) -> CheckpointError {
    CheckpointError::Format {
        path: path.to_path_buf(),
        reason: error.to_string(),
    }
}

fn convert<const N: usize>(bytes: &[u8], from: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| from(chunk)).collect()
}
