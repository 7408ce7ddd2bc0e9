//! `metrics.jsonl`: one JSON object a line, with the same columns for every kind of training.

use modernbert::wording::of_json_reader;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// One line of the log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogRow {
    /// `train` or `eval`.
    pub split: String,
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens seen, padding not counted.
    pub tokens: u64,
    /// Mean loss: of pretraining the cross-entropy over the labelled tokens, of finetuning the loss over the sequences, in nats. Missing
    /// where it is undefined, as in an evaluation without a labelled token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Share of the labelled tokens predicted correctly; pretraining only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_accuracy: Option<f64>,
    /// Score by which the best weights are chosen; evaluations of finetuning only, missing where it is undefined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Tokens per second, padding not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tok_s: Option<f64>,
    /// Share of the time spent waiting for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_wait: Option<f64>,
    /// Model FLOP/s over the device's peak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Phase of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Norm of the last step's gradient, before any clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Tokens of the last step, padding included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<u64>,
    /// Share of the rows that is not padding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packing: Option<f64>,
    /// Tokens left of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_left: Option<u64>,
    /// Seconds left of the phase at this speed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
    /// Memory in use, in MiB: reserved on the device, or resident in the process on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<f64>,
    /// Steps since the row before whose update was skipped as a loss spike; missing where none is skipped by the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<u64>,
}

/// Appends rows to a file, each line complete.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
}

impl MetricsLog {
    /// Opens a log to append to it, and creates it where there is none.
    ///
    /// # Errors
    /// An error of the operating system.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            path: path.to_path_buf(),
            file: modernbert::atomic::open_append(path)?,
        })
    }

    /// Waits until the rows are on the disk: a checkpoint must not outlive the rows before it.
    ///
    /// # Errors
    /// An error of the operating system, with the path.
    pub fn synchronize(&self) -> std::io::Result<()> {
        self.file.sync_data().map_err(|error| self.named(&error))
    }

    fn named(&self, error: &std::io::Error) -> std::io::Error {
        let remedy = crate::snapshot::remedy(error);
        let text = format!("{}: {error}{remedy}", self.path.display());
        std::io::Error::new(error.kind(), text)
    }

    /// Appends one row.
    ///
    /// # Errors
    /// An error of the operating system, with the path.
    pub fn append(&mut self, row: &LogRow) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        self.file
            .write_all(&line)
            .map_err(|error| self.named(&error))
    }
}

/// Returns the rows of a log, without a last line that a crash cut short.
///
/// # Errors
/// A file that can't be read; a complete line that is no row.
pub fn read_log(path: &Path) -> std::io::Result<Vec<LogRow>> {
    let wrong = |line: usize, error: &dyn std::fmt::Display| {
        std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!(
                "{}:{line}: not a row of a metrics log ({error})",
                path.display()
            ),
        )
    };
    let file = modernbert::read::open(path).map_err(|error| {
        std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    })?;
    let mut reader = BufReader::new(file);
    let (mut rows, mut line) = (Vec::new(), String::new());
    for number in 1.. {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        match serde_json::from_str(&line) {
            Ok(row) => rows.push(row),
            // The last one, which a crash cut short.
            Err(_) if !line.ends_with('\n') => {}
            Err(error) => return Err(wrong(number, &of_json_reader(&error.to_string()))),
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_and_a_torn_last_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let row = LogRow {
            split: "train".into(),
            step: 3,
            tokens: 4096,
            loss: Some(5.5),
            masked_accuracy: Some(0.25),
            lr: Some(1e-3),
            ..LogRow::default()
        };
        let mut log = MetricsLog::open(&path).unwrap();
        log.append(&row).unwrap();
        log.append(&row).unwrap();
        assert_eq!(read_log(&path).unwrap(), [row.clone(), row.clone()]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("mfu") && !text.contains("score"));
        std::fs::write(&path, format!("{text}{{\"split\": \"tr")).unwrap();
        assert_eq!(read_log(&path).unwrap().len(), 2);
        std::fs::write(&path, format!("broken\n{text}")).unwrap();
        assert!(
            read_log(&path)
                .unwrap_err()
                .to_string()
                .contains("metrics.jsonl:1")
        );
        for last in [
            "broken",
            "[]",
            "{\"split\": \"train\", \"step\": \"3\", \"tokens\": 1}",
        ] {
            std::fs::write(&path, format!("{text}{last}\n")).unwrap();
            let message = read_log(&path).unwrap_err().to_string();
            assert!(message.contains("metrics.jsonl:3"), "{message}");
            assert!(
                !message.contains("u64") && !message.contains("struct"),
                "{message}"
            );
        }
        // A device would never end.
        #[cfg(unix)]
        {
            let device = folder.path().join("device.jsonl");
            std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
            let message = read_log(&device).unwrap_err().to_string();
            assert!(
                message.contains("device.jsonl") && message.contains("a device"),
                "{message}"
            );
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
            assert!(crate::run_dir::cut_log(folder.path(), 3, |_| Ok(())).is_err());
        }
    }
}
