//! Settings that every inference program takes.

use clap::{Args, ValueEnum};
use modernbert::{Loader, Precision};
use modernbert_cli::DeviceArgs;
use std::ffi::OsString;

/// The model, and how it runs.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Model: a folder with config.json, model.safetensors and tokenizer.json, or a name on the Hugging Face Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: OsString,
    /// Branch, tag or commit, for models of the Hub.
    #[arg(long)]
    pub revision: Option<String>,
    /// Use models of the Hub from the cache alone.
    #[arg(long)]
    pub offline: bool,
    /// Device, the same in every program.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Dtype of matrix multiplications and attention.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Tokens per batch.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub batch_tokens: usize,
    /// Tokens per text at most, longer texts are truncated; by default what the model's files ask for.
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
}

/// Dtype of matrix multiplications and attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// bfloat16, accumulated in f32.
    Bf16,
    /// IEEE half precision, accumulated in f32.
    F16,
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

impl ModelArgs {
    /// The loader with these settings, and the name of its device.
    ///
    /// # Errors
    /// An unknown device, or one that is not available.
    pub fn loader(&self) -> anyhow::Result<(Loader, String)> {
        let device = self.device.select()?;
        let mut loader = Loader::from(&self.model)
            .offline(self.offline)
            .device(&device.device)
            .precision(self.dtype.into())
            .batch_tokens(self.batch_tokens);
        if let Some(revision) = &self.revision {
            loader = loader.revision(revision);
        }
        if let Some(tokens) = self.max_length {
            loader = loader.max_length(tokens);
        }
        Ok((loader, device.name.to_string()))
    }

    /// The line's end that names the device and the dtype, as in `flex f32`.
    pub fn ran_on(&self, device: &str) -> String {
        format!("{device} {}", Precision::from(self.dtype).name())
    }
}
