//! GLUE's tasks: folder, columns, labels, official size and scores of each.
//!
//! GLUE: Wang et al. 2018, <https://arxiv.org/abs/1804.07461>. Everything here is a constant; reading files is
//! [`crate::data`], scoring is [`crate::metrics`]. The ModernBERT paper's settings of each task are in [`paper`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod facts;
pub mod paper;

use facts::Facts;

/// A GLUE task, in the order of the paper's result table; WNLI and AX, which the paper leaves out, come last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Is the sentence acceptable English?
    Cola,
    /// Is the film review snippet positive?
    Sst2,
    /// Do the two news sentences say the same?
    Mrpc,
    /// How similar are the two sentences, from 0 to 5?
    Stsb,
    /// Do the two questions ask the same?
    Qqp,
    /// Does the premise entail the hypothesis, contradict it, or neither?
    Mnli,
    /// Does the sentence answer the question?
    Qnli,
    /// Does the first sentence entail the second? Small.
    Rte,
    /// Does the sentence entail its copy with the pronoun resolved? Tiny; built so that the training labels are misleading.
    Wnli,
    /// GLUE's diagnostic set: MNLI's labels, hidden, and no training set.
    Ax,
}

/// Kind of a task's prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TaskKind {
    /// One of several classes; the class id is the position in `labels`.
    Classification {
        /// A readable name for each class id.
        labels: &'static [&'static str],
    },
    /// A number between two bounds, both included.
    Regression {
        /// The lowest score a file may hold.
        min: f32,
        /// The highest score a file may hold.
        max: f32,
    },
}

/// A score computed from predictions and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Matthews correlation coefficient, from -1 to 1.
    Matthews,
    /// Share of correct predictions.
    Accuracy,
    /// F1 of class 1.
    F1,
    /// Pearson's linear correlation.
    Pearson,
    /// Spearman's rank correlation.
    Spearman,
}

impl Metric {
    /// The name used in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matthews => "matthews",
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One file of a task: `name` is the file name without `.tsv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitFile {
    /// File name without `.tsv`: `train`, `dev`, `dev_matched`, ...
    pub name: &'static str,
    /// Rows of the official GLUE release; for QQP, rows left after the corrupt ones are dropped.
    pub rows: usize,
}

/// A task name that is not in GLUE.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown GLUE task '{name}': use one of {known}", known = known_names())]
pub struct UnknownTask {
    /// The name given.
    pub name: String,
}

fn known_names() -> String {
    Task::ALL.map(Task::name).join(", ")
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 10] = [
        Self::Cola,
        Self::Sst2,
        Self::Mrpc,
        Self::Stsb,
        Self::Qqp,
        Self::Mnli,
        Self::Qnli,
        Self::Rte,
        Self::Wnli,
        Self::Ax,
    ];

    /// The eight tasks the paper reports, in its order; their mean is its GLUE score.
    pub const PAPER: [Self; 8] = [
        Self::Cola,
        Self::Sst2,
        Self::Mrpc,
        Self::Stsb,
        Self::Qqp,
        Self::Mnli,
        Self::Qnli,
        Self::Rte,
    ];

    fn facts(self) -> &'static Facts {
        facts::of(self)
    }

    /// The name used on the command line and in files: `cola`, `sst2`, `stsb`, ...
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The official folder name, which is also how papers write the task: `CoLA`, `SST-2`, `STS-B`, ...
    pub fn folder(self) -> &'static str {
        self.facts().folders[0]
    }

    /// Folder names to look for, the official one first.
    pub fn folders(self) -> &'static [&'static str] {
        self.facts().folders
    }

    /// Classification with these labels, or regression within these bounds.
    pub fn kind(self) -> TaskKind {
        self.facts().kind
    }

    /// Number of outputs of the model's head: one per class, or one score.
    pub fn num_outputs(self) -> usize {
        match self.kind() {
            TaskKind::Classification { labels } => labels.len(),
            TaskKind::Regression { .. } => 1,
        }
    }

    /// The labels as the files spell them, by class id; empty for regression.
    ///
    /// They differ from the readable names of [`Task::kind`] where the files hold `0` and `1`.
    pub fn file_labels(self) -> &'static [&'static str] {
        self.facts().file_labels
    }

    /// The class id of a label as the files spell it.
    pub fn label_id(self, label: &str) -> Option<usize> {
        self.file_labels().iter().position(|known| *known == label)
    }

    /// Returns true if an example is two sentences rather than one.
    pub fn is_pair(self) -> bool {
        self.facts().text_b.is_some()
    }

    /// Column names of the first sentence, the second one if there is one, and the label.
    pub fn columns(self) -> (&'static str, Option<&'static str>, &'static str) {
        let facts = self.facts();
        (facts.text_a, facts.text_b, facts.label)
    }

    /// Column names of the sentences in the Hub's Parquet files; their label column is `label`.
    pub fn hub_columns(self) -> (&'static str, Option<&'static str>) {
        self.facts().hub_text
    }

    /// The name of a split in the Hub's Parquet files: `validation` for `dev`, and so on.
    pub fn hub_split(self, split: &str) -> String {
        match (self, split) {
            (Self::Ax, _) => "test".to_string(),
            (_, split) => split.replace("dev", "validation"),
        }
    }

    /// The columns of a file that comes without a header line: CoLA's train and dev.
    pub fn implicit_header(self, split: &str) -> Option<&'static [&'static str]> {
        match (self, split) {
            (Self::Cola, "train" | "dev") => Some(&["source", "label", "mark", "sentence"]),
            _ => None,
        }
    }

    /// The training file; none for the diagnostic set.
    pub fn train_split(self) -> Option<SplitFile> {
        self.facts().train
    }

    /// The dev files: one, or matched then mismatched for MNLI; none for the diagnostic set.
    pub fn dev_splits(self) -> &'static [SplitFile] {
        self.facts().dev
    }

    /// The test files, whose labels GLUE hides.
    pub fn test_splits(self) -> &'static [SplitFile] {
        self.facts().test
    }

    /// Every metric reported for the task, the main one first.
    pub fn metrics(self) -> &'static [Metric] {
        self.facts().metrics
    }

    /// The main metric, which a mean over tasks uses.
    ///
    /// The paper names none for MRPC and QQP. Here it is F1 for MRPC, the one the authors' result collector keeps, and
    /// accuracy for QQP, the only one in the range of the number they print; both are always reported.
    pub fn main_metric(self) -> Metric {
        self.facts().metrics[0]
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Task {
    type Err = UnknownTask;

    /// Takes `cola`, `CoLA`, `sst2`, `SST-2`, `sts_b`, ...: letter case, `-` and `_` do not matter.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let plain: String = name
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| !matches!(c, '-' | '_'))
            .collect();
        Self::ALL
            .into_iter()
            .find(|task| task.name() == plain)
            .ok_or_else(|| UnknownTask {
                name: name.to_string(),
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_spelling_finds_its_task() {
        for task in Task::ALL {
            for spelling in [
                task.name().to_string(),
                task.folder().to_string(),
                task.name().to_uppercase(),
            ] {
                assert_eq!(spelling.parse::<Task>(), Ok(task), "{spelling}");
            }
        }
        for (spelling, task) in [
            ("sst-2", Task::Sst2),
            ("sts-b", Task::Stsb),
            ("STS_B", Task::Stsb),
            (" rte ", Task::Rte),
        ] {
            assert_eq!(spelling.parse::<Task>(), Ok(task), "{spelling}");
        }
    }

    #[test]
    fn an_unknown_task_lists_the_known_ones() {
        let message = "squad".parse::<Task>().unwrap_err().to_string();
        assert!(message.contains("'squad'"), "{message}");
        for task in Task::ALL {
            assert!(message.contains(task.name()), "{message}");
        }
    }

    #[test]
    fn the_name_in_files_is_the_name() {
        for task in Task::ALL {
            let json = serde_json::to_string(&task).unwrap();
            assert_eq!(json, format!("\"{task}\""));
            assert_eq!(serde_json::from_str::<Task>(&json).unwrap(), task);
        }
    }

    #[test]
    fn every_class_has_one_label_in_files() {
        for task in Task::ALL {
            match task.kind() {
                TaskKind::Classification { labels } => {
                    assert_eq!(labels.len(), task.file_labels().len(), "{task}");
                    for (id, label) in task.file_labels().iter().enumerate() {
                        assert_eq!(task.label_id(label), Some(id), "{task}");
                    }
                }
                TaskKind::Regression { min, max } => {
                    assert!(min < max && task.file_labels().is_empty(), "{task}");
                }
            }
        }
        assert_eq!(Task::Mnli.label_id("contradiction"), Some(2));
        assert_eq!(Task::Rte.label_id("0"), None);
    }
}
