//! Settings that every program takes.

use clap::Args;
use modernbert::checkpoint::ModelSource;
use modernbert::device::NamedDevice;
use modernbert::inference::BatchOptions;
use modernbert::model::Precision;
use modernbert_cli::DeviceArgs;
use std::path::PathBuf;

/// The model, and where it is run.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// Model: a folder with config.json, model.safetensors and tokenizer.json, or a name on the Hugging Face Hub.
    #[arg(long, value_name = "FOLDER|NAME")]
    pub model: String,
    /// Branch, tag or commit, for models of the Hub.
    #[arg(long)]
    pub revision: Option<String>,
    /// Device, the same in every program.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Dtype of matrix products and attention: f32, bf16 or f16.
    #[arg(long, default_value = "f32")]
    pub dtype: String,
}

/// The model, and how texts go through it.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// Which model, and where.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Tokens per batch.
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub batch_tokens: usize,
    /// Tokens per text at most, what is longer is cut; by default the model's limit.
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
}

impl SourceArgs {
    /// The folder of the model, downloaded if need be.
    ///
    /// # Errors
    /// A name that is no model, a download that fails.
    pub fn folder(&self) -> anyhow::Result<PathBuf> {
        Ok(ModelSource::parse(&self.model).resolve(self.revision.as_deref())?)
    }

    /// Device and dtype, once they are known to go together.
    ///
    /// # Errors
    /// An unknown device or dtype, or a device that doesn't compute in that dtype.
    pub fn device(&self) -> anyhow::Result<(NamedDevice, Precision)> {
        let precision: Precision = self.dtype.parse().map_err(anyhow::Error::msg)?;
        let device = self.device.select()?;
        anyhow::ensure!(
            device.device.supports_dtype(precision.dtype()),
            "the device {} does not compute in {}; use --dtype f32",
            device.name,
            precision.name()
        );
        Ok((device, precision))
    }
}

impl ModelArgs {
    /// How texts are cut and batched.
    pub fn batches(&self) -> BatchOptions {
        BatchOptions {
            batch_tokens: self.batch_tokens,
            max_length: self.max_length,
            ..BatchOptions::default()
        }
    }
}
