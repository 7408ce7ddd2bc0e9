//! Test predictions in the form that gluebenchmark.com accepts: one file per test set, `index` and `prediction`.

use modernbert::Loader;
use modernbert::checkpoint::{CheckpointError, write_atomically};
use modernbert::model::{Precision, SequenceClassifier};
use modernbert::tokenizer::Tokenizer;
use modernbert_train::finetune::{encode, predict_examples_with};
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::data::{Split, TaskData};
use crate::metrics::Prediction;
use crate::run::{MODEL_FOLDER, RunError, RunRecord};
use crate::task::{Task, TaskKind};

/// A task's finetuned model in a job's folder.
pub struct Finetuned {
    /// Its run.
    pub record: RunRecord,
    /// The folder of the model.
    pub model: PathBuf,
}

/// A file of predictions.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: usize,
    /// Number of truncated inputs.
    pub truncated: usize,
    /// True if the test set has fewer rows than the official one: such a file is refused by the server.
    pub partial: bool,
}

/// The best finetuned model for the test sets of `task` in a job's folder: the task's own, for AX that of MNLI.
pub fn find_model(run: &Path, task: Task) -> Option<Finetuned> {
    let trained = if task == Task::Ax { Task::Mnli } else { task };
    let (record, folder) = crate::run::best_run(run, trained)?;
    Some(Finetuned {
        record,
        model: folder.join(MODEL_FOLDER),
    })
}

/// Returns true if a folder contains only files of predictions that [`predict_task`] wrote: other files must not be replaced.
pub fn is_own_folder(folder: &Path) -> bool {
    let names: Vec<String> = Task::ALL
        .iter()
        .flat_map(|task| task.test_splits().iter().map(|s| file_name(*task, s.name)))
        .collect();
    let has_head = |path: &Path| {
        let mut start = vec![0; HEAD.len()];
        let read = modernbert::read::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == HEAD.as_bytes()
    };
    let own = |path: PathBuf| {
        let known = path
            .file_name()
            .is_some_and(|name| names.iter().any(|known| name == known.as_str()));
        known && has_head(&path)
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .into_iter()
        .all(|entry| entry.is_ok_and(|entry| own(entry.path())))
}

/// The first line of a file of predictions.
const HEAD: &str = "index\tprediction\n";

/// GLUE's file name for the predictions of a test set.
pub fn file_name(task: Task, split: &str) -> String {
    let name = match (task, split) {
        (Task::Mnli, "test_mismatched") => "MNLI-mm",
        (Task::Mnli, _) => "MNLI-m",
        (task, _) => task.folder(),
    };
    format!("{name}.tsv")
}

/// Predicts every test set of `task` and writes a file for each into `out`. `see` is called after each batch with the test set, the rows done, and
/// all of its rows.
///
/// # Errors
/// Missing or malformed test files; a model that can't be read or is of another task; outputs that are not finite.
pub fn predict_task(
    task: Task,
    data: &Path,
    finetuned: &Finetuned,
    device: &Device,
    out: &Path,
    see: &mut dyn FnMut(&str, usize, usize),
) -> Result<Vec<Written>, RunError> {
    let splits = TaskData::load_test(data, task)?;
    let folder = &finetuned.model;
    let model = SequenceClassifier::load(Loader::new(folder).device(device))?;
    if model.outputs() != task.num_outputs() {
        return Err(CheckpointError::Shape {
            place: folder.display().to_string(),
            name: "classifier.weight".to_string(),
            found: vec![model.outputs(), model.model.config().hidden_size],
            expected: vec![task.num_outputs(), model.model.config().hidden_size],
        }
        .into());
    }
    let settings = &finetuned.record.settings;
    let precision: Precision = settings.precision.parse().unwrap_or_default();
    let model = model.with_precision(precision);
    let tokenizer = Tokenizer::from_folder(folder)?;
    let mut written = Vec::new();
    for split in &splits {
        let encoded = encode(&tokenizer, &split.texts(), settings.max_length)?;
        let rows = &encoded.samples;
        let outputs =
            predict_examples_with(&model, rows, &mut |done| see(split.name, done, rows.len()))?;
        let predictions: Vec<Prediction> = outputs
            .iter()
            .map(|outputs| Prediction::from_outputs(task, outputs))
            .collect::<Result<_, _>>()?;
        let path = out.join(file_name(task, split.name));
        write(task, split, &predictions, &path)?;
        written.push(Written {
            path,
            rows: predictions.len(),
            truncated: encoded.truncated,
            partial: split.partial,
        });
    }
    Ok(written)
}

fn write(
    task: Task,
    split: &Split,
    predictions: &[Prediction],
    path: &Path,
) -> Result<(), RunError> {
    let mut text = String::from(HEAD);
    for (row, prediction) in split.examples.iter().zip(predictions) {
        text += &format!("{}\t{}\n", row.index, spelled(task, *prediction));
    }
    let write = || {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        write_atomically(path, text.as_bytes())
    };
    write().map_err(|source| RunError::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// A prediction as GLUE's files spell it: `0`, `entailment`, or a score within the task's bounds with three decimals.
fn spelled(task: Task, prediction: Prediction) -> String {
    match (prediction, task.kind()) {
        (Prediction::Score(score), TaskKind::Regression { min, max }) => {
            format!("{:.3}", score.clamp(min, max))
        }
        (Prediction::Score(score), TaskKind::Classification { .. }) => score.to_string(),
        (Prediction::Class(id), _) => {
            let name = task.file_labels().get(id);
            name.map_or_else(|| id.to_string(), ToString::to_string)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_folder_with_other_files_is_not_read() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        std::fs::write(
            folder.path().join("RTE.tsv"),
            format!("{HEAD}0\tentailment\n"),
        )?;
        assert!(is_own_folder(folder.path()));
        let device = folder.path().join("other");
        std::os::unix::fs::symlink("/dev/zero", &device)?;
        assert!(!is_own_folder(folder.path()));
        std::fs::remove_file(&device)?;
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("CoLA.tsv"))?;
        assert!(!is_own_folder(folder.path()));
        Ok(())
    }

    #[test]
    fn files_and_labels_are_spelled_as_glue_spells_them() {
        let names: Vec<String> = Task::ALL
            .iter()
            .flat_map(|task| task.test_splits().iter().map(|s| file_name(*task, s.name)))
            .collect();
        let official = [
            "CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "WNLI",
            "AX",
        ];
        assert_eq!(names, official.map(|name| format!("{name}.tsv")));
        let class = Prediction::Class;
        assert_eq!(spelled(Task::Cola, class(1)), "1");
        assert_eq!(spelled(Task::Wnli, class(0)), "0");
        assert_eq!(spelled(Task::Rte, class(1)), "not_entailment");
        assert_eq!(spelled(Task::Ax, class(1)), "neutral");
        assert_eq!(spelled(Task::Stsb, Prediction::Score(5.2)), "5.000");
        assert_eq!(spelled(Task::Stsb, Prediction::Score(2.34567)), "2.346");
    }
}
