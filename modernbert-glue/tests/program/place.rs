//! The folder that each test works in, with a tiny model and tiny data, and runs of the program there.

use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, initialize};
use modernbert::tokenizer::{Tokenizer, TrainOptions, train::train};
use modernbert_glue::task::Task;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tiny_models::programs;
pub(crate) use tiny_models::programs::assert_case_refused as assert_refused;

use crate::common;

/// A folder of its own for each test, with a tiny model and tiny CoLA and RTE.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        save_model(&place.path("model"), 4);
        tokenizer(384).save(place.path("model")).unwrap();
        for task in [Task::Cola, Task::Rte] {
            common::write_task(&place.path("glue"), task, 48, 20);
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `run --task TASKS` on the folders of this place, with `more`.
    pub(crate) fn run(&self, tasks: &str, more: &[&str]) -> Output {
        self.command("run", tasks, more)
    }

    pub(crate) fn command(&self, command: &str, tasks: &str, more: &[&str]) -> Output {
        let folders = ["glue", "model", "out"].map(|name| self.path(name));
        let [data, model, out] = folders.each_ref().map(|path| path.to_str().unwrap());
        let mut arguments = vec![command, "--task", tasks, "--lines", "--device", "flex"];
        for (name, folder) in [("--data", data), ("--model", model), ("--out", out)] {
            if !more.contains(&name) {
                arguments.extend([name, folder]);
            }
        }
        arguments.extend(more);
        programs::run(env!("CARGO_BIN_EXE_modernbert-glue"), &arguments, &[])
    }

    pub(crate) fn results(&self) -> Value {
        let text = fs::read_to_string(self.path("out/results.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Replaces line `line`, from 1, of a file of the data.
    pub(crate) fn damage(&self, file: &str, line: usize, text: &str) {
        let path = self.path("glue").join(file);
        let content = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = content.lines().collect();
        lines[line - 1] = text;
        fs::write(path, lines.join("\n") + "\n").unwrap();
    }
}

/// A model of random weights with this number of layers, for 384 ids.
pub(crate) fn save_model(folder: &Path, layers: usize) {
    save_model_of(folder, layers, 32);
}

/// The same of another width.
pub(crate) fn save_model_of(folder: &Path, layers: usize, hidden: usize) {
    let mut config = ModernBertConfig::of_shape(layers, hidden, 48, hidden / 16);
    config.vocab_size = 384;
    config.max_position_embeddings = 64;
    config.pad_token_id = None;
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let model = initialize(MaskedLm::new(&config, &device).unwrap(), &config, 1);
    modernbert::checkpoint::save(&model, &config, folder).unwrap();
}

pub(crate) fn tokenizer(vocab_size: usize) -> Tokenizer {
    let mut numbers = common::Numbers(3);
    let texts: Vec<String> = (0..100).map(|_| numbers.sentence()).collect();
    let options = TrainOptions {
        vocab_size,
        ..TrainOptions::default()
    };
    train(texts, &options).unwrap()
}

pub(crate) fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}
