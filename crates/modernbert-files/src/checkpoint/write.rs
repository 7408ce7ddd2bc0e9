//! Writing a safetensors file.

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::CheckpointError;
use crate::atomic::PendingFile;

/// A tensor in f32, little endian, in row-major order.
#[derive(Clone, Debug)]
pub struct F32Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Four bytes for each element.
    pub bytes: &'a [u8],
}

/// A tensor to write, as bytes in row-major order, little-endian.
pub(super) struct TensorBytes<'a> {
    pub(super) name: &'a str,
    pub(super) shape: &'a [usize],
    pub(super) dtype: Dtype,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// Writes tensors as a safetensors file, sorted by name. The file appears complete or not at all, with the permissions of any new file.
///
/// # Errors
/// An error of the operating system; a tensor whose bytes don't fit its shape, or two of one name.
pub fn write_safetensors(path: &Path, tensors: &[F32Tensor<'_>]) -> Result<(), CheckpointError> {
    let tensors: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|tensor| TensorBytes {
            name: tensor.name,
            shape: tensor.shape,
            dtype: Dtype::F32,
            bytes: Cow::Borrowed(tensor.bytes),
        })
        .collect();
    write_tensors(path, &tensors)
}

/// [`write_safetensors`] in any dtype.
pub(super) fn write_tensors(
    path: &Path,
    tensors: &[TensorBytes<'_>],
) -> Result<(), CheckpointError> {
    let broken = |reason: String| CheckpointError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let mut sorted: Vec<&TensorBytes<'_>> = tensors.iter().collect();
    sorted.sort_by_key(|tensor| tensor.name);
    let mut infos = Vec::with_capacity(sorted.len());
    let mut end = 0;
    for tensor in &sorted {
        let begin = end;
        end += tensor.bytes.len();
        let info = TensorInfo {
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            data_offsets: (begin, end),
        };
        infos.push((tensor.name.to_string(), info));
    }
    // transformers refuses files without the name of a framework in their metadata.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata =
        Metadata::new(Some(metadata), infos).map_err(|error| broken(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| broken(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let write = || {
        let mut file = BufWriter::with_capacity(1 << 20, PendingFile::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for tensor in &sorted {
            file.write_all(&tensor.bytes)?;
        }
        file.into_inner()
            .map_err(std::io::IntoInnerError::into_error)?
            .commit()
    };
    write().map_err(CheckpointError::io(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use safetensors::tensor::{TensorView, serialize};

    #[test]
    fn the_file_is_that_of_the_safetensors_crate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let (b, a) = ([1u8, 2, 3, 4, 5, 6, 7, 8], [9u8, 9, 9, 9]);
        let tensor = |name, shape, bytes| F32Tensor { name, shape, bytes };
        write_safetensors(&path, &[tensor("b", &[2], &b), tensor("a", &[1, 1], &a)]).unwrap();
        let views = [
            ("b", TensorView::new(Dtype::F32, vec![2], &b).unwrap()),
            ("a", TensorView::new(Dtype::F32, vec![1, 1], &a).unwrap()),
        ];
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        assert_eq!(
            std::fs::read(&path).unwrap(),
            serialize(views, Some(metadata)).unwrap()
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let wrong = write_safetensors(&path, &[tensor("b", &[3], &b)]).unwrap_err();
        assert!(wrong.to_string().contains("a.safetensors"), "{wrong}");
    }

    #[test]
    fn a_full_disk_is_called_that() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let message = CheckpointError::io("out/model.safetensors")(full).to_string();
        assert!(
            message.starts_with("out/model.safetensors: ") && message.contains("free some space"),
            "{message}"
        );
    }
}
