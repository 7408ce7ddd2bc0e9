//! Folders with tiny models of random weights, for tests and for the examples in doc comments: 4 layers of width 32, 64 positions, and a
//! tokenizer whose words are `one`, `two` and `three`. The folders are removed when they are dropped.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use burn::tensor::Device;
use modernbert::checkpoint::save;
use modernbert::config::{ConfigError, ModernBertConfig};
use modernbert::model::{
    Architecture, MaskedLm, MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier,
    initialize,
};
use modernbert::tokenizer::{Tokenizer, TrainOptions, train::train};
use tempfile::TempDir;

pub mod programs;

/// Text that the tokenizer is trained on.
const TEXT: &str = "one two three one two one two three";
/// Positions of the models.
pub const POSITIONS: usize = 64;

/// The tokenizer of the models: 320 tokens.
pub fn tokenizer() -> Tokenizer {
    let options = TrainOptions {
        vocab_size: 320,
        ..TrainOptions::default()
    };
    train([TEXT], &options).unwrap().with_max_length(POSITIONS)
}

/// The shape of the models.
pub fn config() -> ModernBertConfig {
    ModernBertConfig {
        vocab_size: tokenizer().vocab_size(),
        local_attention: 8,
        max_position_embeddings: POSITIONS,
        initializer_range: 0.2,
        bos_token_id: None,
        eos_token_id: None,
        cls_token_id: None,
        sep_token_id: None,
        pad_token_id: None,
        ..ModernBertConfig::of_shape(4, 32, 48, 2)
    }
}

/// A folder with a model of this config, random weights and the tokenizer.
pub fn folder<M: Architecture>(
    config: &ModernBertConfig,
    build: impl FnOnce(&ModernBertConfig, &Device) -> Result<M, ConfigError>,
) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let device = modernbert::device::select(None).unwrap().device;
    let model = initialize(build(config, &device).unwrap(), config, 1);
    save(&model, config, folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    folder
}

/// A masked language model.
pub fn masked_lm() -> TempDir {
    folder(&config(), MaskedLm::new)
}

fn labeled(labels: &[&str]) -> ModernBertConfig {
    ModernBertConfig {
        id2label: Some(labels.iter().map(ToString::to_string).collect()),
        num_labels: Some(labels.len()),
        ..config()
    }
}

/// A sequence classifier with these labels.
pub fn sequence_classifier(labels: &[&str]) -> TempDir {
    folder(&labeled(labels), |config, device| {
        SequenceClassifier::new(config, labels.len(), device)
    })
}

/// A token classifier with these labels.
pub fn token_classifier(labels: &[&str]) -> TempDir {
    folder(&labeled(labels), |config, device| {
        TokenClassifier::new(config, labels.len(), device)
    })
}

/// A model for extractive question answering.
pub fn question_answerer() -> TempDir {
    folder(&config(), QuestionAnswerer::new)
}

/// A multiple-choice model.
pub fn multiple_choice() -> TempDir {
    folder(&config(), MultipleChoice::new)
}
