//! A task's data as sequences.

use modernbert::tokenizer::Tokenizer;
use modernbert_train::finetune::{Sample, Text, data_hash, encode};
use std::path::Path;

use super::RunError;
use crate::baseline::{baseline, check_labels};
use crate::data::{Split, TaskData, notes};
use crate::metrics::Metrics;
use crate::task::Task;

/// A task's training and dev sets, read, tokenized and truncated.
pub struct TaskSequences {
    /// The rows.
    pub data: TaskData,
    /// The training set as sequences.
    pub train: Vec<Sample>,
    /// The dev sets as sequences, one after the other.
    pub dev: Vec<Sample>,
    /// Scores of the best constant answer.
    pub baseline: Metrics,
    /// Number of sequences that were truncated to the maximum length.
    pub truncated: usize,
    /// Notes about the data, for a person.
    pub notes: Vec<String>,
    /// SHA-256 of the sequences and targets of both sets.
    pub sha256: String,
}

impl TaskSequences {
    /// Reads the task from the folder that holds the folders of the tasks, keeps the first `max_rows` rows of each set, and
    /// tokenizes with at most `max_length` tokens each.
    ///
    /// # Errors
    /// Missing or malformed files, with file and line; a length that is too small.
    pub fn new(
        task: Task,
        folder: &Path,
        tokenizer: &Tokenizer,
        max_length: usize,
        max_rows: Option<usize>,
    ) -> Result<Self, RunError> {
        let mut data = TaskData::load(folder, task)?;
        if let Some(rows) = max_rows {
            data.train.truncate(rows);
            data.dev.iter_mut().for_each(|split| split.truncate(rows));
        }
        check_labels(&data)?;
        let train = encode(tokenizer, &data.train.texts(), max_length)?;
        let dev: Vec<Text<'_>> = data.dev.iter().flat_map(Split::texts).collect();
        let dev = encode(tokenizer, &dev, max_length)?;
        let truncated = train.truncated + dev.truncated;
        let mut notes = notes(&data);
        if truncated > 0 {
            let read = train.samples.len() + dev.samples.len();
            notes.push(format!(
                "{truncated} of {read} inputs were longer than {max_length} tokens and were truncated"
            ));
        }
        Ok(Self {
            sha256: data_hash(&train.samples, &dev.samples),
            baseline: baseline(&data)?,
            train: train.samples,
            dev: dev.samples,
            truncated,
            notes,
            data,
        })
    }
}
