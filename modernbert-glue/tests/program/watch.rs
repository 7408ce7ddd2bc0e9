//! Scores of the checkpoints of a pretraining run.

use burn::train::Interrupter;
use modernbert_glue::task::Task;
use modernbert_glue::watch::read_scores;
use modernbert_train::engine::{GradientSum, Progress, read_log};
use modernbert_train::pretrain::{PretrainEnd, PretrainOptions, pretrain};
use modernbert_train::recipe::Recipe;
use modernbert_train::run_dir::list_checkpoints;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tiny_models::programs;

use crate::common;
use crate::place::{Place, assert_refused};

/// Pretrains a tiny model, saved at every fourth step.
fn pretrained(place: &Place) {
    let corpus = place.path("corpus");
    fs::create_dir(&corpus).unwrap();
    let mut numbers = common::Numbers(5);
    for document in 0..30 {
        let text: Vec<String> = (0..20).map(|_| numbers.sentence()).collect();
        fs::write(corpus.join(format!("{document:02}.txt")), text.join("\n")).unwrap();
    }
    let recipe = format!(
        r#"
[model]
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 4
num_attention_heads = 2
max_position_embeddings = 64
initializer_range = 0.08

[data]
corpus = {corpus:?}
tokenizer_vocab = 384
eval_bytes = 2000
sequence_length = 64

[batch]
tokens = 256

[optimizer]
learning_rate = 1e-2

[run]
total_tokens = 2500
eval_every_tokens = 1000
eval_tokens = 512
log_every_steps = 1

[checkpoint]
every_steps = 4
keep_every_steps = 4
"#
    );
    let options = PretrainOptions {
        out: place.path("pretrained"),
        device: modernbert::device::select(Some("flex")).unwrap(),
        progress: Progress::Silent,
        peak_tflops: None,
        interrupter: Interrupter::new(),
        ranks: Arc::new(ranks::Ranks::single()),
        gradient_sum: GradientSum::default(),
        restart: false,
    };
    let end = pretrain(&Recipe::from_str(&recipe, "recipe.toml").unwrap(), &options).unwrap();
    assert!(matches!(end, PretrainEnd::Finished(_)));
}

fn watch(place: &Place, out: &str, more: &[&str]) -> std::process::Output {
    let [run, data, out] = ["pretrained", "glue", out].map(|name| place.path(name));
    let [run, data, out] =
        [&run, &data, &out].map(|path: &std::path::PathBuf| path.to_str().unwrap());
    let arguments = [
        "watch", run, "--data", data, "--out", out, "--lines", "--device", "flex",
    ];
    let settings = ["--task", "mnli,cola", "--epochs", "1", "--max-rows", "16"];
    let arguments = [&arguments[..], &settings, more].concat();
    programs::run(env!("CARGO_BIN_EXE_modernbert-glue"), &arguments, &[])
}

#[test]
fn checkpoints_of_a_run_are_scored_beside_its_loss() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Mnli, 48, 20);
    pretrained(&place);
    let run = place.path("pretrained");
    let checkpoints = list_checkpoints(&run).unwrap();
    assert!(checkpoints.len() >= 3, "{checkpoints:?}");

    // A finished run: every checkpoint is scored, and the program ends.
    let output = watch(&place, "scores", &[]);
    let stdout = programs::stdout(&output);
    let said = format!("watch: checkpoints={} ", checkpoints.len());
    assert!(stdout.contains(&said), "{stdout}");
    let out = place.path("scores");
    let scores = read_scores(&out).unwrap();
    let expected: Vec<(u64, Task)> = checkpoints
        .iter()
        .flat_map(|one| [(one.step, Task::Mnli), (one.step, Task::Cola)])
        .collect();
    let mut found: Vec<(u64, Task)> = scores
        .iter()
        .map(|row| (row.checkpoint.step, row.task))
        .collect();
    let order = |pair: &(u64, Task)| (pair.0, pair.1 != Task::Mnli);
    found.sort_by_key(order);
    assert_eq!(found, expected);
    // Each score has the tokens of its step and the last held-out loss.
    let log = read_log(&run.join("metrics.jsonl")).unwrap();
    for row in &scores {
        let at = |split: &str| {
            let mut rows = log.iter().filter(|one| one.split == split);
            rows.rfind(|one| one.step <= row.checkpoint.step)
        };
        let trained = at("train").unwrap();
        assert_eq!(trained.step, row.checkpoint.step);
        assert_eq!(trained.tokens, row.checkpoint.tokens);
        assert_eq!(
            at("eval").and_then(|one| one.loss),
            row.checkpoint.eval_loss
        );
        assert_eq!((row.seeds, row.partial), (1, true));
        let metric = row.task.main_metric().name();
        let score = row.metrics.get(metric);
        assert!(score.is_none_or(|score| score.abs() <= 1.0), "{score:?}");
        assert!(row.task == Task::Cola || score.is_some());
    }
    let picture = fs::read(out.join("scores.png")).unwrap();
    assert!(picture.starts_with(b"\x89PNG"));
    // The score is that of a job on the exported checkpoint, whose copy is gone.
    let first = format!("step-{:08}", checkpoints[0].step);
    assert!(!out.join(&first).join("model").exists());
    assert!(out.join(&first).join("job/results.json").is_file());

    // No finetuning is repeated except for a missing score; the other scores are unchanged.
    let text = fs::read_to_string(out.join("scores.jsonl")).unwrap();
    assert!(programs::stdout(&watch(&place, "scores", &["--once"])).contains("checkpoints=0 "));
    assert_eq!(fs::read_to_string(out.join("scores.jsonl")).unwrap(), text);
    let (kept, _) = text.trim_end().rsplit_once('\n').unwrap();
    fs::write(out.join("scores.jsonl"), format!("{kept}\n")).unwrap();
    fs::remove_dir_all(&checkpoints[0].path).unwrap();
    assert!(programs::stdout(&watch(&place, "scores", &["--once"])).contains("checkpoints=1 "));
    assert_eq!(read_scores(&out).unwrap().len(), scores.len());

    refusals(&place, &out);
}

fn refusals(place: &Place, out: &Path) {
    fs::write(out.join("scores.jsonl"), "{\"step\": 4}\n").unwrap();
    let output = watch(place, "scores", &["--once"]);
    assert_refused(
        "a line",
        &output,
        &["scores.jsonl:1: not a score of a checkpoint"],
    );
    fs::create_dir(place.path("mine")).unwrap();
    fs::write(place.path("mine/notes.txt"), "precious").unwrap();
    assert_refused(
        "a folder",
        &watch(place, "mine", &[]),
        &["not empty", "--out"],
    );
    assert_refused(
        "inside",
        &watch(place, "pretrained/scores", &[]),
        &["pretrained"],
    );
    assert_refused(
        "every",
        &watch(place, "new", &["--every", "0"]),
        &["--every"],
    );
    fs::remove_file(place.path("pretrained/recipe.toml")).unwrap();
    assert_refused(
        "no run",
        &watch(place, "new", &[]),
        &["no pretraining run is there"],
    );
}
