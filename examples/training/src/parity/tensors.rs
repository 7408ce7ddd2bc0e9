//! Safetensors files as the cases use them: integers in, floats out.

use anyhow::{Context, Result, bail};
use safetensors::{Dtype, SafeTensors};
use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One safetensors file, read whole.
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Tensors {
    /// Reads a file.
    ///
    /// # Errors
    /// A missing file, or one that is no safetensors file.
    pub fn open(path: PathBuf) -> Result<Self> {
        let mut bytes = Vec::new();
        modernbert::read::open(&path)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .with_context(|| format!("{} can't be read; a case folder needs it", path.display()))?;
        SafeTensors::deserialize(&bytes)
            .with_context(|| format!("{} is not a safetensors file", path.display()))?;
        Ok(Self { path, bytes })
    }

    /// Reads a file if there is one.
    ///
    /// # Errors
    /// A file that is no safetensors file.
    pub fn open_optional(path: PathBuf) -> Result<Option<Self>> {
        path.is_file().then(|| Self::open(path)).transpose()
    }

    /// File of the tensors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn parsed(&self) -> Result<SafeTensors<'_>> {
        Ok(SafeTensors::deserialize(&self.bytes)?)
    }

    /// Names of all tensors, sorted.
    ///
    /// # Errors
    /// None after a successful [`Tensors::open`].
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self
            .parsed()?
            .names()
            .iter()
            .map(|n| n.to_string())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Returns true if there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.parsed()
            .is_ok_and(|tensors| tensors.tensor(name).is_ok())
    }

    /// Returns true if the tensor holds whole numbers.
    ///
    /// # Errors
    /// No such tensor.
    pub fn is_integer(&self, name: &str) -> Result<bool> {
        let tensors = self.parsed()?;
        let dtype = tensors
            .tensor(name)
            .with_context(|| self.missing(name))?
            .dtype();
        Ok(matches!(
            dtype,
            Dtype::I64 | Dtype::I32 | Dtype::U8 | Dtype::I8 | Dtype::BOOL
        ))
    }

    fn missing(&self, name: &str) -> String {
        format!("{} has no tensor `{name}`", self.path.display())
    }

    /// Shape and values of an integer or boolean tensor.
    ///
    /// # Errors
    /// No such tensor, or one of floats.
    pub fn integers(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        let tensors = self.parsed()?;
        let view = tensors.tensor(name).with_context(|| self.missing(name))?;
        let data = view.data();
        let values = match view.dtype() {
            Dtype::I64 => data
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect(),
            Dtype::I32 => {
                let chunks = data.as_chunks::<4>().0.iter();
                chunks.map(|b| i64::from(i32::from_le_bytes(*b))).collect()
            }
            Dtype::U8 | Dtype::BOOL => data.iter().map(|&b| i64::from(b)).collect(),
            other => bail!(
                "{}: `{name}` has dtype {other:?}; ids, masks and classes are int64",
                self.path.display()
            ),
        };
        Ok((view.shape().to_vec(), values))
    }

    /// Shape and values of a float tensor.
    ///
    /// # Errors
    /// No such tensor, or another dtype than F32 and F64.
    pub fn floats(&self, name: &str) -> Result<(Vec<usize>, Cow<'_, [f32]>)> {
        let tensors = self.parsed()?;
        let view = tensors.tensor(name).with_context(|| self.missing(name))?;
        let data = view.data();
        let values = match view.dtype() {
            // Files are little-endian, as most machines are; the others convert.
            Dtype::F32 if cfg!(target_endian = "little") => bytemuck::try_cast_slice(data)
                .map_or_else(|_| Cow::Owned(convert(data)), Cow::Borrowed),
            Dtype::F32 => Cow::Owned(convert(data)),
            Dtype::F64 => {
                let chunks = data.as_chunks::<8>().0.iter();
                Cow::Owned(chunks.map(|b| f64::from_le_bytes(*b) as f32).collect())
            }
            other => bail!(
                "{}: `{name}` has dtype {other:?}; references are float32",
                self.path.display()
            ),
        };
        Ok((view.shape().to_vec(), values))
    }
}

fn convert(data: &[u8]) -> Vec<f32> {
    data.as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}
