//! Arguments that all inference programs share.

use anyhow::ensure;
use clap::{Args, ValueEnum};
use modernbert::{Loader, Precision};
use modernbert_cli::DeviceArgs;
use std::ffi::OsString;

/// Arguments for the model, its device and its batches.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Loads the model from a folder with config.json, model.safetensors and tokenizer.json, or by its name on the Hugging Face Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: OsString,
    /// Loads this branch, tag or commit of a model on the Hub; the main branch by default.
    #[arg(long)]
    pub revision: Option<String>,
    /// Reads models of the Hub from the cache only, without network access.
    #[arg(long)]
    pub offline: bool,
    /// The device argument, which all programs share.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Computes GEMMs and attention in this dtype.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Keeps the residual stream in the dtype of `--dtype` instead of f32: faster on GPUs, less exact.
    #[arg(long)]
    pub half_residual: bool,
    /// Packs at most this many tokens into a batch.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub batch_tokens: usize,
    /// Truncates each text to this many tokens; by default to the limit in the model's files.
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
}

/// Dtype of GEMMs and attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// bfloat16, accumulated in f32.
    Bf16,
    /// IEEE half precision, accumulated in f32.
    F16,
    /// On the CPU: weights and operands of the encoder's GEMMs in int8, attention in bf16, the head in f32.
    Int8,
    /// On NVIDIA GPUs of compute capability 9.0: weights and operands of the encoder's GEMMs in e4m3, everything else in bf16.
    Fp8,
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
            other => Precision::from(other).name(),
        }
    }
}

impl From<Dtype> for Precision {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
            // Of the head; the encoder has its own kernels.
            Dtype::Int8 => Self::F32,
            Dtype::Fp8 => Self::Bf16,
        }
    }
}

impl ModelArgs {
    /// Returns the loader with these settings, and the name of its device.
    ///
    /// # Errors
    /// An unknown device, or one that is not available.
    pub fn loader(&self) -> anyhow::Result<(Loader, String)> {
        ensure!(
            !self.half_residual || matches!(self.dtype, Dtype::Bf16 | Dtype::F16 | Dtype::Fp8),
            "--half-residual keeps the residual stream in the dtype of matrix multiplications; choose --dtype bf16, f16 or fp8"
        );
        let device = self.device.select()?;
        let mut loader = Loader::from(&self.model)
            .offline(self.offline)
            .device(&device.device)
            .precision(self.dtype.into())
            .half_residual(self.half_residual)
            .int8(self.dtype == Dtype::Int8)
            .fp8(self.dtype == Dtype::Fp8)
            .batch_tokens(self.batch_tokens);
        ensure!(
            self.revision.as_deref() != Some(""),
            "--revision is empty; name a branch, tag or commit, or leave it out"
        );
        if let Some(revision) = &self.revision {
            loader = loader.revision(revision);
        }
        if let Some(tokens) = self.max_length {
            loader = loader.max_length(tokens);
        }
        Ok((loader, device.name.to_string()))
    }

    /// Returns the end of the closing line, which names device and dtype, as in `flex f32`.
    pub fn ran_on(&self, device: &str) -> String {
        format!("{device} {}", self.dtype.name())
    }
}
