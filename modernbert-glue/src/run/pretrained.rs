//! The model a job starts from.

use burn::tensor::Device;
use modernbert::checkpoint::{LoadReport, WEIGHTS_FILE, open_checked, read_config};
use modernbert::config::{ModernBertConfig, ProblemType};
use modernbert::model::{SequenceClassifier, initialize};
use modernbert::tokenizer::Tokenizer;
use modernbert::{HeadStart, Loader};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::RunError;
use crate::task::paper::ModelSize;
use crate::task::{Task, TaskKind};

/// A pretrained model's folder, opened once for all tasks.
pub struct Pretrained {
    name: String,
    folder: PathBuf,
    sha256: String,
    tokenizer: Tokenizer,
    config: ModernBertConfig,
}

impl Pretrained {
    /// Opens config and tokenizer of a folder, or of a model of the Hub, and takes the weights' hash.
    ///
    /// # Errors
    /// A folder that is no model's, a tokenizer that isn't the model's, a download that fails.
    pub fn open(model: &str) -> Result<Self, RunError> {
        let folder = Loader::from(model).folder()?;
        let config = read_config(&folder)?;
        let tokenizer = Tokenizer::from_folder(&folder)?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(RunError::Vocabulary {
                folder,
                tokenizer: tokenizer.vocab_size(),
                model: config.vocab_size,
            });
        }
        // A tensor that is missing is an error now, not after the data was read.
        drop(open_checked(&folder)?);
        Ok(Self {
            name: model.to_string(),
            sha256: weights_hash(&folder)?,
            folder,
            tokenizer,
            config,
        })
    }

    /// The model as it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// SHA-256 of its weights, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The tokenizer of the folder.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The config of the folder.
    pub fn config(&self) -> &ModernBertConfig {
        &self.config
    }

    /// The paper's model to compare with: large from a width of 1024, otherwise base.
    pub fn size(&self) -> ModelSize {
        if self.config.hidden_size >= 1024 {
            ModelSize::Large
        } else {
            ModelSize::Base
        }
    }

    /// Factor on the paper's learning rates, which were tuned for widths of 768 and 1024. A narrower model gets
    /// 768 / width, without which a model of width 128 would hardly change in the paper's number of steps.
    pub fn learning_rate_scale(&self) -> f64 {
        (768.0 / self.config.hidden_size as f64).max(1.0)
    }

    /// The classifier a run on `task` starts with: pretrained, finetuned on MNLI, or random.
    pub(super) fn classifier(
        &self,
        task: Task,
        mnli: Option<&Path>,
        random: bool,
        seed: u64,
        device: &Device,
    ) -> Result<(SequenceClassifier, LoadReport), RunError> {
        let outputs = task.num_outputs();
        let start = |folder: &Path, start| {
            let loader = Loader::new(folder).device(device);
            SequenceClassifier::load_for_finetuning(loader, outputs, start, seed)
        };
        Ok(match mnli {
            Some(folder) => start(folder, HeadStart::Fresh)?,
            None if random => {
                let model = SequenceClassifier::new(&self.config, outputs, device)?;
                let model = initialize(model, &self.config, seed);
                (model, LoadReport::default())
            }
            None => start(&self.folder, HeadStart::Kept)?,
        })
    }

    /// The config of a model finetuned on `task`, with the names of its labels.
    pub(super) fn task_config(&self, task: Task) -> ModernBertConfig {
        let mut config = self.config.clone();
        config.num_labels = Some(task.num_outputs());
        (config.problem_type, config.id2label) = match task.kind() {
            TaskKind::Classification { labels } => (
                Some(ProblemType::SingleLabel),
                Some(labels.iter().map(ToString::to_string).collect()),
            ),
            TaskKind::Regression { .. } => (Some(ProblemType::Regression), None),
        };
        config
    }
}

/// SHA-256 over the weights of a folder, file after file in the order of their names.
///
/// # Errors
/// A folder or file that can't be read.
pub fn weights_hash(folder: &Path) -> Result<String, RunError> {
    let whole = folder.join(WEIGHTS_FILE);
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| RunError::Io { path, source }
    };
    let mut files = vec![whole.clone()];
    if !whole.is_file() {
        let entries = std::fs::read_dir(folder).map_err(io(folder))?;
        let paths = entries.flatten().map(|entry| entry.path());
        files = paths
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
            .collect();
        files.sort();
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = modernbert::read::open(&path).map_err(io(&path))?;
        loop {
            let count = file.read(&mut buffer).map_err(io(&path))?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
