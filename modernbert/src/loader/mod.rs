//! Loading: one builder for every model and every pipeline.
//!
//! | item | contents |
//! |---|---|
//! | [`Loader`] | the source of a model, and how it runs: device, precision, batches |
//! | `load` of every model and pipeline | takes a folder, a name on the Hugging Face Hub, or a [`Loader`] |
//! | `load_for_finetuning` of every head | takes the same; initializes the tensors of the head that the folder lacks |
//!
//! May use `model`, `checkpoint`, `tokenizer` and `device`.

mod batches;
mod error;
mod heads;
mod opened;

pub use batches::BatchOptions;
pub use error::LoadError;
pub use heads::HeadStart;

use burn::tensor::Device;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::checkpoint::{ModelSource, SourceError};
use crate::device;
use crate::model::Precision;

/// The source of a model and its settings: the one builder of every model and every pipeline.
///
/// The source is a folder, or a name on the Hugging Face Hub (cargo feature `hub`); a folder of that name has priority. All other settings
/// have a default:
///
/// ```
/// use modernbert::{Encoder, Loader, Precision};
///
/// # let folder = tiny_models::masked_lm();
/// # let name = folder.path();
/// let encoder = Encoder::load(name)?; // or "org/name"
/// let careful = Encoder::load(Loader::new(name).device("flex").precision(Precision::F32).batch_tokens(1024).max_length(16))?;
/// assert_eq!(encoder.encode(&["one two"])?.len(), careful.encode(&["one two"])?.len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Loader {
    source: ModelSource,
    revision: Option<String>,
    offline: bool,
    device: DeviceChoice,
    precision: Precision,
    half_residual: bool,
    int8: bool,
    fp8: bool,
    batches: BatchOptions,
}

/// A device, by itself or by name.
#[derive(Clone, Debug, Default)]
pub enum DeviceChoice {
    /// The best device compiled in, see [`device::select`].
    #[default]
    Best,
    /// The device of this name, see [`device::select`].
    Named(String),
    /// This device.
    Given(Device),
}

impl Loader {
    /// A loader of this folder or name, with every setting at its default.
    pub fn new(model: impl Into<Self>) -> Self {
        model.into()
    }

    fn of(source: ModelSource) -> Self {
        Self {
            source,
            revision: None,
            offline: false,
            device: DeviceChoice::Best,
            precision: Precision::F32,
            half_residual: false,
            int8: false,
            fp8: false,
            batches: BatchOptions::default(),
        }
    }

    /// Branch, tag or commit of the Hub; `main` by default. A folder has none.
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// With true, a name on the Hub is taken from the cache alone, as with `HF_HUB_OFFLINE=1`.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// The device to compute on, a [`Device`] or a name; the best one compiled in by default.
    pub fn device(mut self, device: impl Into<DeviceChoice>) -> Self {
        self.device = device.into();
        self
    }

    /// Dtype of matrix multiplications and attention; f32 by default.
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// With true, the residual stream has the dtype of the precision instead of f32: faster on GPUs, less exact
    /// ([`ModernBert::with_half_residual`](crate::model::ModernBert::with_half_residual)). False by default.
    pub fn half_residual(mut self, half: bool) -> Self {
        self.half_residual = half;
        self
    }

    /// With true, a pipeline on the CPU has its encoder's matrix multiplications in int8, with weights quantized when it is loaded, and attention in bf16
    /// ([`ModernBert::with_int8`](crate::model::ModernBert::with_int8)). False by default.
    pub fn int8(mut self, int8: bool) -> Self {
        self.int8 = int8;
        self
    }

    /// With true, a pipeline on an NVIDIA GPU of compute capability 9.0 has its encoder's matrix multiplications in fp8, with weights quantized when it is loaded;
    /// choose bf16 or f16 as the precision of the rest ([`ModernBert::with_fp8`](crate::model::ModernBert::with_fp8)). False by default.
    pub fn fp8(mut self, fp8: bool) -> Self {
        self.fp8 = fp8;
        self
    }

    /// Tokens of all sequences of a batch together, at most; 8192 by default.
    pub fn batch_tokens(mut self, tokens: usize) -> Self {
        self.batches.batch_tokens = tokens;
        self
    }

    /// Tokens of one sequence at most, special tokens included; by default what the folder's files ask for, at most the model's
    /// positions.
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.batches.max_length = Some(tokens);
        self
    }

    /// All settings of batches at once, those of streams included.
    pub fn batches(mut self, batches: BatchOptions) -> Self {
        self.batches = batches;
        self
    }

    /// The folder that holds the model; a model of the Hub is downloaded unless it is in the cache already.
    ///
    /// # Errors
    /// A folder that doesn't exist, a revision of a folder, a download that fails.
    pub fn folder(&self) -> Result<PathBuf, SourceError> {
        self.source.resolve(self.revision.as_deref(), self.offline)
    }

    /// The device that the model will be on.
    ///
    /// # Errors
    /// A device that is unknown or not available, or that doesn't support the chosen precision.
    pub fn select_device(&self) -> Result<Device, LoadError> {
        let device = match &self.device {
            DeviceChoice::Best => device::select(None)?.device,
            DeviceChoice::Named(name) => device::select(Some(name))?.device,
            DeviceChoice::Given(device) => device.clone(),
        };
        let precision = self.precision;
        if precision != Precision::F32 && !device::computes_in(&device, precision.dtype()) {
            return Err(LoadError::Precision {
                precision: precision.name(),
            });
        }
        Ok(device)
    }
}

impl From<ModelSource> for Loader {
    fn from(source: ModelSource) -> Self {
        Self::of(source)
    }
}

impl From<&Loader> for Loader {
    fn from(loader: &Loader) -> Self {
        loader.clone()
    }
}

/// Texts may be names on the Hub; paths are folders.
macro_rules! sources {
    ($($text:ty),*; $($path:ty),*) => {
        $(impl From<$text> for Loader {
            fn from(source: $text) -> Self {
                Self::of(ModelSource::parse(source))
            }
        })*
        $(impl From<$path> for Loader {
            fn from(folder: $path) -> Self {
                Self::of(ModelSource::Folder(Path::new(&folder).to_path_buf()))
            }
        })*
    };
}
sources!(&str, &String; &Path, &PathBuf, PathBuf);

impl From<String> for Loader {
    fn from(source: String) -> Self {
        Self::from(source.as_str())
    }
}

impl From<&OsStr> for Loader {
    fn from(source: &OsStr) -> Self {
        match source.to_str() {
            Some(text) => Self::from(text),
            None => Self::from(Path::new(source)),
        }
    }
}

impl From<&OsString> for Loader {
    fn from(source: &OsString) -> Self {
        Self::from(source.as_os_str())
    }
}

impl From<&str> for DeviceChoice {
    fn from(name: &str) -> Self {
        Self::Named(name.to_string())
    }
}

impl From<String> for DeviceChoice {
    fn from(name: String) -> Self {
        Self::Named(name)
    }
}

impl From<Device> for DeviceChoice {
    fn from(device: Device) -> Self {
        Self::Given(device)
    }
}

impl From<&Device> for DeviceChoice {
    fn from(device: &Device) -> Self {
        Self::Given(device.clone())
    }
}
