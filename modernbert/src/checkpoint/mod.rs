//! Models as folders that Hugging Face's libraries read and write: `config.json` and `model.safetensors`.
//!
//! | page | what it does |
//! |---|---|
//! | [`TensorFiles`] | the tensors of a folder, mapped, one file or sharded |
//! | [`load`] | fills a module by name; says what was new and what was left over |
//! | [`save`] | writes a module by name, atomically |
//! | [`ModelSource`] | a folder, or a name on the Hugging Face Hub (feature `hub`) |
//! | [`tiling`] | starts a large model from a smaller one |
//!
//! Names are those of Hugging Face's ModernBERT, with or without the leading `model.` of the encoder's tensors. A tied
//! decoder is stored once. Every lie a file can tell is an error that names file and tensor, and none of them costs more
//! memory than the file is long.

mod load;
mod save;
#[cfg(test)]
mod tests;
pub mod tiling;

pub use load::{LoadReport, load};
pub use modernbert_files::atomic::write_atomically;
#[cfg(feature = "hub")]
pub use modernbert_files::checkpoint::hub;
pub use modernbert_files::checkpoint::{
    CONFIG_FILE, CheckpointError, F32Tensor, ModelSource, ShapedValues, SourceError, TensorFiles,
    WEIGHTS_FILE, open_checked, read_config, write_safetensors,
};
pub use save::save;

use burn::tensor::Device;
use std::path::Path;

use crate::model::{
    MaskedLm, ModernBert, MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier,
    initialize,
};

impl MaskedLm {
    /// Loads a masked language model from a folder; every tensor must be there.
    ///
    /// # Errors
    /// A missing or broken file, a missing or unknown tensor, a tensor of another shape: each named.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Self, CheckpointError> {
        let (config, files) = open_checked(folder)?;
        let (model, _) = load(Self::new(&config, device)?, &files, &[])?;
        Ok(model)
    }
}

impl MaskedLm {
    /// Loads a masked language model from a folder or from the Hub, as [`ModelSource::parse`] understands `name`.
    ///
    /// For other models resolve the source and pass the folder to their `from_folder`.
    ///
    /// # Errors
    /// Those of [`ModelSource::resolve`] and [`MaskedLm::from_folder`].
    pub fn from_pretrained(
        name: &str,
        revision: Option<&str>,
        device: &Device,
    ) -> Result<Self, SourceError> {
        let folder = ModelSource::parse(name).resolve(revision)?;
        Ok(Self::from_folder(&folder, device)?)
    }
}

impl SequenceClassifier {
    /// Loads a classifier with `num_labels` outputs from the folder of a classifier or of any other ModernBERT.
    ///
    /// The pretrained dense layer and norm of a masked language model's head are taken over. What the folder lacks of head
    /// and classifier is initialised from `seed` and reported as fresh; the encoder must be complete.
    ///
    /// # Errors
    /// As [`MaskedLm::from_folder`].
    pub fn from_folder(
        folder: &Path,
        num_labels: usize,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, LoadReport), CheckpointError> {
        let (config, files) = open_checked(folder)?;
        let model = initialize(Self::new(&config, num_labels, device)?, &config, seed);
        load(model, &files, &HEAD)
    }
}

impl SequenceClassifier {
    /// As [`Self::from_folder`], but the classifier is always fresh, whatever the folder has: encoder, dense layer and norm
    /// of a model that was finetuned on another task are the start for this one.
    ///
    /// # Errors
    /// As [`MaskedLm::from_folder`].
    pub fn from_folder_of_another_task(
        folder: &Path,
        num_labels: usize,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, LoadReport), CheckpointError> {
        let (config, files) = open_checked(folder)?;
        let files = files.without("classifier.");
        let model = initialize(Self::new(&config, num_labels, device)?, &config, seed);
        load(model, &files, &HEAD)
    }
}

/// What a model with a head may lack in a file: it is initialised instead.
const HEAD: [&str; 2] = ["head.", "classifier."];

impl ModernBert {
    /// Loads the encoder alone from the folder of any ModernBERT; tensors of heads are reported as unused.
    ///
    /// # Errors
    /// As [`MaskedLm::from_folder`].
    pub fn from_folder(
        folder: &Path,
        device: &Device,
    ) -> Result<(Self, LoadReport), CheckpointError> {
        let (config, files) = open_checked(folder)?;
        let model = Self::new(&config, device)?;
        load(model, &files, &[])
    }
}

impl TokenClassifier {
    /// Loads a token classifier with `num_labels` outputs; what the folder lacks is as in [`SequenceClassifier::from_folder`].
    ///
    /// # Errors
    /// As [`MaskedLm::from_folder`].
    pub fn from_folder(
        folder: &Path,
        num_labels: usize,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, LoadReport), CheckpointError> {
        let (config, files) = open_checked(folder)?;
        let model = initialize(Self::new(&config, num_labels, device)?, &config, seed);
        load(model, &files, &HEAD)
    }
}

impl QuestionAnswerer {
    /// Loads a question answerer; what the folder lacks is as in [`SequenceClassifier::from_folder`].
    ///
    /// # Errors
    /// As [`MaskedLm::from_folder`].
    pub fn from_folder(
        folder: &Path,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, LoadReport), CheckpointError> {
        let (config, files) = open_checked(folder)?;
        let model = initialize(Self::new(&config, device)?, &config, seed);
        load(model, &files, &HEAD)
    }
}

impl MultipleChoice {
    /// Loads a multiple-choice model; what the folder lacks is as in [`SequenceClassifier::from_folder`].
    ///
    /// # Errors
    /// As [`MaskedLm::from_folder`].
    pub fn from_folder(
        folder: &Path,
        seed: u64,
        device: &Device,
    ) -> Result<(Self, LoadReport), CheckpointError> {
        let (config, files) = open_checked(folder)?;
        let model = initialize(Self::new(&config, device)?, &config, seed);
        load(model, &files, &HEAD)
    }
}
