//! Bit-for-bit comparison of two runs.

use serde::Serialize;
use std::path::Path;

use super::{ToolError, checkpoint_at};
use crate::engine::{LogRow, read_log};
use crate::optim::StoredTensor;
use crate::run_dir::METRICS_FILE;
use crate::snapshot::{OPTIMIZER_FILE, Snapshot, read_tensors};

/// Differences between two runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Tensors of weights compared.
    pub weights: usize,
    /// Tensors of optimizer state compared.
    pub optimizer: usize,
    /// Rows of the log compared.
    pub rows: usize,
    /// Each difference, in words; none if the runs are identical.
    pub differences: Vec<String>,
}

impl Difference {
    /// Returns true if nothing differs.
    pub fn identical(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Differences listed of each kind; the rest is counted.
const LISTED: usize = 5;

/// Compares two runs, each given by its folder (its newest checkpoint is taken) or by a checkpoint: weights and moments bit for bit,
/// step and tokens, and the step, tokens and loss of every row of the logs up to there.
///
/// # Errors
/// A folder without an intact checkpoint.
pub fn diff(a: &Path, b: &Path) -> Result<Difference, ToolError> {
    let (first, second) = (
        Snapshot::open(&checkpoint_at(a)?)?,
        Snapshot::open(&checkpoint_at(b)?)?,
    );
    let mut found = Difference::default();
    let counts = |snapshot: &Snapshot| (snapshot.state.step, snapshot.state.tokens);
    if counts(&first) != counts(&second) {
        found.differences.push(format!(
            "step and tokens: {:?} and {:?}",
            counts(&first),
            counts(&second)
        ));
    }
    for (file, count) in [
        (modernbert::checkpoint::WEIGHTS_FILE, &mut found.weights),
        (OPTIMIZER_FILE, &mut found.optimizer),
    ] {
        let read = |snapshot: &Snapshot| read_tensors(&snapshot.path.join(file));
        let (left, right) = (read(&first)?, read(&second)?);
        *count = left.len();
        compare(file, &left, &right, &mut found.differences);
    }
    let rows = |snapshot: &Snapshot| -> Result<Vec<LogRow>, ToolError> {
        let log = snapshot
            .path
            .parent()
            .and_then(Path::parent)
            .map(|run| run.join(METRICS_FILE));
        let mut rows = match log {
            Some(path) if path.is_file() => {
                read_log(&path).map_err(|source| ToolError::Log { path, source })?
            }
            _ => Vec::new(),
        };
        rows.retain(|row| row.step <= snapshot.state.step);
        Ok(rows)
    };
    let (left, right) = (rows(&first)?, rows(&second)?);
    found.rows = left.len();
    compare_rows(&left, &right, &mut found.differences);
    Ok(found)
}

fn compare(file: &str, a: &[StoredTensor], b: &[StoredTensor], out: &mut Vec<String>) {
    let names = |tensors: &[StoredTensor]| -> Vec<(String, Vec<usize>)> {
        let pair = |tensor: &StoredTensor| (tensor.name.clone(), tensor.shape.clone());
        tensors.iter().map(pair).collect()
    };
    if names(a) != names(b) {
        out.push(format!("{file}: other tensors, or of other shapes"));
        return;
    }
    let mut more = 0;
    let mut listed = 0;
    for (a, b) in a.iter().zip(b) {
        let pairs = || a.values.iter().zip(&b.values);
        let count = pairs().filter(|(x, y)| x.to_bits() != y.to_bits()).count();
        if count == 0 {
            continue;
        }
        if listed == LISTED {
            more += 1;
            continue;
        }
        listed += 1;
        let finite = |(x, y): &(&f32, &f32)| x.is_finite() && y.is_finite();
        let largest = pairs().filter(finite).map(|(x, y)| (x - y).abs());
        let largest = largest.fold(0.0, f32::max);
        let not_finite = match pairs().filter(|pair| !finite(pair)).count() {
            0 => String::new(),
            count => format!("; {count} are not finite in one of the two"),
        };
        out.push(format!(
            "{file}: {}: {count} of {} numbers differ, by up to {largest:e}{not_finite}",
            a.name,
            a.values.len()
        ));
    }
    if more > 0 {
        out.push(format!("{file}: {more} more tensors differ"));
    }
}

fn compare_rows(a: &[LogRow], b: &[LogRow], out: &mut Vec<String>) {
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    let key = |row: &LogRow| {
        let numbers = (bits(row.loss), bits(row.score));
        (row.split.clone(), row.step, row.tokens, numbers)
    };
    if a.len() != b.len() {
        out.push(format!("log: {} and {} rows", a.len(), b.len()));
    }
    if let Some((a, b)) = a.iter().zip(b).find(|(a, b)| key(a) != key(b)) {
        out.push(format!(
            "log: {} row of step {} (tokens {}, loss {}) against {} row of step {} (tokens {}, loss {})",
            a.split,
            a.step,
            a.tokens,
            loss_of(a),
            b.split,
            b.step,
            b.tokens,
            loss_of(b)
        ));
    }
}

fn loss_of(row: &LogRow) -> String {
    row.loss
        .map_or("undefined".to_string(), |loss| loss.to_string())
}
