//! A run of two phases: its recipe, its log, its checkpoints.

use super::{Place, assert_success, program, text};
use modernbert::checkpoint::TensorFiles;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Two phases: a plateau with warmup, and a decay of other rate and weight decay; every checkpoint is kept.
pub(crate) fn recipe(corpus: &Path, more: &str) -> String {
    format!(
        r#"
[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 4
num_attention_heads = 2
local_attention = 16
global_rope_theta = 10_000.0
max_position_embeddings = 128
initializer_range = 0.08

[data]
corpus = {corpus:?}
tokenizer_vocab = 384
eval_bytes = 4000
sequence_length = 64

[batch]
tokens = 256

[run]
eval_every_tokens = 1500
eval_tokens = 1024
log_every_steps = 1

[checkpoint]
every_steps = 4
keep_last = 2
keep_best = 3
keep_every_steps = 4
{more}
[[phase]]
name = "stable"
optimizer.learning_rate = 1e-2
schedule = {{ kind = "constant", warmup_tokens = 2000 }}
run.total_tokens = 8000

[[phase]]
name = "decay"
model.global_rope_theta = 160_000.0
data.sequence_length = 128
optimizer = {{ learning_rate = 4e-3, weight_decay = 1e-3 }}
schedule.kind = "one_minus_sqrt"
run.total_tokens = 6000
"#,
        corpus = text(corpus)
    )
}

pub(crate) fn run(place: &Place, out: &str, more: &[&str]) -> PathBuf {
    let (recipe, out) = (place.path("two.toml"), place.path(out));
    let mut arguments = vec!["run", text(&recipe), "--out", text(&out)];
    arguments.extend(["--device", "flex", "--lines"]);
    arguments.extend(more);
    assert_success(&program(&arguments));
    out
}

pub(crate) fn rows(run: &Path, split: &str) -> Vec<Value> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = log.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.filter(|row: &Value| row["split"] == split).collect()
}

pub(crate) fn number(row: &Value, key: &str) -> f64 {
    row[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} of {row}"))
}

pub(crate) fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join("checkpoints").join(format!("step-{step:08}"))
}

pub(crate) fn state(run: &Path, step: u64) -> Value {
    let path = checkpoint(run, step).join("state.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn weights(folder: &Path) -> BTreeMap<String, Vec<f32>> {
    let files = TensorFiles::open(folder).unwrap();
    let names: Vec<String> = files.names().map(ToString::to_string).collect();
    let read = |name: String| {
        let (_, values) = files.read(&name).unwrap().unwrap();
        (name, values.clone())
    };
    names.into_iter().map(read).collect()
}

pub(crate) fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-9 * expected.abs().max(1e-12)
}
