//! Reading a checkpoint, after its hashes were verified.

use burn::module::Module;
use modernbert::Loader;
use modernbert::checkpoint::TensorFiles;
use modernbert::model::MaskedLm;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

use super::{CheckpointManifest, OPTIMIZER_FILE, RunState, STATE_FILE, SnapshotError, verify};
use crate::optim::{NamedOptimizer, StoredTensor};

/// A checkpoint with verified files.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its folder.
    pub path: PathBuf,
    /// State of the run.
    pub state: RunState,
    /// Its files.
    pub manifest: CheckpointManifest,
}

impl Snapshot {
    /// Opens a checkpoint and verifies the hash of every file.
    ///
    /// # Errors
    /// A folder that is no checkpoint; a file that was damaged, by name; a checkpoint with the step of another.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let manifest = verify(path)?;
        let state: RunState = read_state(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let named = name
            .strip_prefix("step-")
            .and_then(|step| step.parse().ok());
        if named.is_some_and(|step: u64| step != state.step) {
            return Err(SnapshotError::Renamed {
                path: path.to_path_buf(),
                step: state.step,
            });
        }
        Ok(Self {
            path: path.to_path_buf(),
            state,
            manifest,
        })
    }

    /// The weights, on `device`.
    ///
    /// # Errors
    /// Files that are not those of a masked language model.
    pub fn model(&self, device: &burn::tensor::Device) -> Result<MaskedLm, SnapshotError> {
        Ok(MaskedLm::load(Loader::new(&self.path).device(device))?)
    }

    /// Loads the moments of `model`'s parameters into `optimizer`.
    ///
    /// # Errors
    /// A missing or misshapen tensor, by name.
    pub fn restore_optimizer<M: Module>(
        &self,
        model: &M,
        optimizer: &mut NamedOptimizer,
    ) -> Result<(), SnapshotError> {
        let files = TensorFiles::open(&self.path.join(OPTIMIZER_FILE))?;
        let read = |name: &str| files.read(name).ok().flatten();
        Ok(optimizer.restore(model, self.state.optimizer_updates, read)?)
    }
}

/// The state in this checkpoint, whose files are not checked against their hashes.
///
/// # Errors
/// A file that can't be read or is malformed.
pub fn read_state<S: DeserializeOwned>(folder: &Path) -> Result<S, SnapshotError> {
    let path = folder.join(STATE_FILE);
    let text = modernbert::read::bytes(&path).map_err(SnapshotError::io(&path))?;
    modernbert::json::parse(&text).map_err(|error| SnapshotError::damaged(&path, error))
}

/// All tensors of a safetensors file, by name.
///
/// # Errors
/// A file that can't be read, or contains no floats.
pub(crate) fn read_tensors(path: &Path) -> Result<Vec<StoredTensor>, SnapshotError> {
    let files = TensorFiles::open(path)?;
    let names: Vec<String> = files.names().map(str::to_string).collect();
    let mut tensors = Vec::with_capacity(names.len());
    for name in names {
        if let Some((shape, values)) = files.read(&name)? {
            tensors.push(StoredTensor {
                name,
                shape,
                values,
            });
        }
    }
    Ok(tensors)
}
