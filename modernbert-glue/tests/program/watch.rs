//! Scores of the checkpoints of a pretraining run.

use burn::train::Interrupter;
use modernbert::lock::FolderLock;
use modernbert_glue::task::Task;
use modernbert_glue::watch::read_scores;
use modernbert_train::engine::{GradientSum, Progress, read_log};
use modernbert_train::pretrain::{PretrainEnd, PretrainOptions, pretrain};
use modernbert_train::recipe::Recipe;
use modernbert_train::run_dir::list_checkpoints;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tiny_models::programs;

use crate::common;
use crate::place::{Place, assert_refused, save_model_of, tokenizer};

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

const PROGRAM: &str = env!("CARGO_BIN_EXE_modernbert-glue");

/// The arguments of a watch on `place`, of `tasks` and with `more`.
fn arguments(place: &Place, out: &str, tasks: &str, more: &[&str]) -> Vec<String> {
    let [run, data, out] = ["pretrained", "glue", out].map(|name| place.path(name));
    let [run, data, out] = [&run, &data, &out].map(|path: &PathBuf| path.to_str().unwrap());
    let mut arguments = vec!["watch", run, "--out", out, "--task", tasks, "--lines"];
    if !more.contains(&"--data") {
        arguments.extend(["--data", data]);
    }
    arguments.extend(["--device", "flex", "--epochs", "1", "--max-rows", "16"]);
    arguments.extend(more);
    arguments.into_iter().map(ToOwned::to_owned).collect()
}

fn watch_tasks(place: &Place, out: &str, tasks: &str, more: &[&str]) -> Output {
    let arguments = arguments(place, out, tasks, more);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    programs::run(PROGRAM, &arguments, &[])
}

fn watch(place: &Place, out: &str, more: &[&str]) -> Output {
    watch_tasks(place, out, "mnli,cola", more)
}

/// Steps, tasks and numbers of seeds of the scores, in order.
fn scored(out: &Path) -> Vec<(u64, Task, usize)> {
    let scores = read_scores(out).unwrap();
    let mut found: Vec<(u64, Task, usize)> = scores
        .iter()
        .map(|row| (row.checkpoint.step, row.task, row.seeds))
        .collect();
    found.sort();
    found
}

fn steps(place: &Place) -> Vec<u64> {
    let checkpoints = list_checkpoints(&place.path("pretrained")).unwrap();
    checkpoints.iter().map(|one| one.step).collect()
}

/// Waits until `is_so`, for at most two minutes; after that the program is ended, and the test fails.
fn wait(child: &mut Child, what: &str, mut is_so: impl FnMut(&mut Child) -> bool) {
    let begun = Instant::now();
    while !is_so(child) {
        if begun.elapsed() > Duration::from_secs(120) {
            let _ = child.kill();
            panic!("no {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
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

#[test]
fn seeds_that_are_missing_are_run_and_the_others_kept() {
    let place = Place::new();
    pretrained(&place);
    let (steps, out) = (steps(&place), place.path("scores"));
    let of = |seeds: usize| -> Vec<(u64, Task, usize)> {
        steps
            .iter()
            .map(|&step| (step, Task::Cola, seeds))
            .collect()
    };
    programs::stdout(&watch_tasks(&place, "scores", "cola", &["--once"]));
    assert_eq!(scored(&out), of(1));
    let record = |seed: u64| {
        let folder = format!("step-{:08}/job/runs/cola/seed-{seed}", steps[0]);
        fs::read(out.join(folder).join("run.json"))
    };
    let first = record(1618).unwrap();
    // A checkpoint that is gone keeps its score over one seed, and that is said.
    let gone = list_checkpoints(&place.path("pretrained"))
        .unwrap()
        .remove(1);
    fs::remove_dir_all(&gone.path).unwrap();
    let more = ["--once", "--seeds", "2"];
    let output = watch_tasks(&place, "scores", "cola", &more);
    let text = programs::stdout(&output);
    let said = format!("step {}: cola has 1 of 2 seeds", gone.step);
    assert!(text.contains(&said), "{text}");
    let mut expected = of(2);
    expected[1].2 = 1;
    assert_eq!(scored(&out), expected);
    // The first seed's run was kept, the second one was made.
    assert_eq!(record(1618).unwrap(), first);
    assert_ne!(record(42).unwrap(), first);
    // With fewer seeds than there are nothing is done.
    let output = watch_tasks(&place, "scores", "cola", &["--once"]);
    assert!(programs::stdout(&output).contains("checkpoints=0 "));
    assert_eq!(scored(&out), expected);
}

/// The models of MNLI are removed after a job, so that another seed repeats the runs that start from them.
#[test]
fn further_seeds_of_rte_start_from_mnli_too() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Mnli, 48, 20);
    pretrained(&place);
    let checkpoints = list_checkpoints(&place.path("pretrained")).unwrap();
    for one in &checkpoints[1..] {
        fs::remove_dir_all(&one.path).unwrap();
    }
    let step = checkpoints[0].step;
    for seeds in ["1", "2"] {
        let more = ["--once", "--seeds", seeds];
        programs::stdout(&watch_tasks(&place, "scores", "mnli,rte", &more));
        let count = seeds.parse().unwrap();
        let expected = [(step, Task::Mnli, count), (step, Task::Rte, count)];
        let mut found = scored(&place.path("scores"));
        found.sort_by_key(|row| row.1 != Task::Mnli);
        assert_eq!(found, expected);
    }
    let folder = place.path("scores").join(format!("step-{step:08}/job"));
    let mut starts = Vec::new();
    for seed in [1618, 42] {
        let path = folder.join(format!("runs/rte/seed-{seed}/run.json"));
        let record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(record["settings"]["start"], "mnli");
        starts.push(record["settings"]["start_sha256"].clone());
    }
    // One model for both seeds.
    assert_eq!(starts[0], starts[1]);
}

#[test]
fn a_failure_is_reported_at_the_end_and_the_others_are_scored() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Mnli, 48, 20);
    pretrained(&place);
    let (steps, out) = (steps(&place), place.path("scores"));
    let last = steps.len() - 1;
    assert!(last >= 2);
    // A task of the first checkpoint fails, and the last one is damaged.
    let record = out.join(format!("step-{:08}/job/runs/cola/seed-1618", steps[0]));
    fs::create_dir_all(&record).unwrap();
    fs::write(record.join("run.json"), "{}").unwrap();
    let weights = list_checkpoints(&place.path("pretrained")).unwrap()[last]
        .path
        .join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 4]).unwrap();
    let output = watch(&place, "scores", &[]);
    let named = [steps[0], steps[last]].map(|step| format!("step {step}: "));
    let said = [
        "2 of",
        "checkpoints failed",
        "cola",
        "run.json",
        "safetensors",
    ];
    assert_refused("a failure", &output, &said);
    assert_refused("its step", &output, &[&named[0], &named[1]]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("failed=2 "), "{stdout}");
    let expected = |is_there: &dyn Fn(u64, Task) -> bool| -> Vec<(u64, Task, usize)> {
        let all = steps
            .iter()
            .flat_map(|&step| [(step, Task::Cola), (step, Task::Mnli)]);
        let found = all.filter(|&(step, task)| is_there(step, task));
        let mut rows: Vec<_> = found.map(|(step, task)| (step, task, 1)).collect();
        rows.sort();
        rows
    };
    let is_there = |step, task| step != steps[last] && (step, task) != (steps[0], Task::Cola);
    assert_eq!(scored(&out), expected(&is_there));

    // Once the reasons are gone, the same command scores what failed.
    fs::remove_file(record.join("run.json")).unwrap();
    fs::write(&weights, whole).unwrap();
    let output = watch(&place, "scores", &[]);
    assert!(programs::stdout(&output).contains("checkpoints=2 failed=0 "));
    assert_eq!(scored(&out), expected(&|_, _| true));
}

#[test]
fn a_run_that_ends_without_a_model_is_not_watched_forever() {
    let place = Place::new();
    pretrained(&place);
    let (steps, run) = (steps(&place), place.path("pretrained"));
    fs::remove_file(run.join("model.safetensors")).unwrap();
    // As long as a process works on the run, checkpoints may come.
    let lock = FolderLock::acquire(&run).unwrap();
    let mut child = Command::new(PROGRAM)
        .args(arguments(&place, "scores", "cola", &["--every", "1"]))
        .env_remove("MODERNBERT_DEVICE")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let out = place.path("scores");
    let is_scored = |_: &mut Child| read_scores(&out).is_ok_and(|rows| rows.len() == steps.len());
    wait(&mut child, "scores", is_scored);
    std::thread::sleep(Duration::from_secs(4));
    assert!(child.try_wait().unwrap().is_none());
    drop(lock);
    let has_ended = |child: &mut Child| child.try_wait().unwrap().is_some();
    wait(&mut child, "end of the watch", has_ended);
    let output = child.wait_with_output().unwrap();
    let name = run.display().to_string();
    let said = [&name, "ended without a model", "modernbert-train resume"];
    assert_refused("abandoned", &output, &said);
    assert_eq!(scored(&out).len(), steps.len());
    // With --once the checkpoints that are there are all that is asked for.
    programs::stdout(&watch_tasks(&place, "scores", "cola", &["--once"]));
}

#[test]
fn what_the_finetuning_needs_is_checked_before_the_first_checkpoint() {
    let place = Place::new();
    // A run that has begun and has nothing yet.
    let run = place.path("pretrained");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("recipe.toml"), "").unwrap();
    let model = place.path("model");
    let nowhere = place.path("nowhere");
    let [model, nowhere] = [&model, &nowhere].map(|path| path.to_str().unwrap());
    place.damage("RTE/dev.tsv", 5, "3\tone\ttwo\tperhaps");
    for (tasks, more, said) in [
        ("rte", ["--mnli", model], "was not finetuned on MNLI"),
        ("cola", ["--data", nowhere], "no such folder"),
        ("stsb", ["--every", "1"], "STS-B"),
        ("cola,rte", ["--every", "1"], "RTE/dev.tsv:5"),
    ] {
        let output = watch_tasks(&place, "scores", tasks, &[&more[..], &["--once"]].concat());
        assert_refused(tasks, &output, &[said]);
        assert!(!place.path("scores").exists(), "{tasks}");
    }
    // Nothing is missing.
    programs::stdout(&watch_tasks(&place, "scores", "cola", &["--once"]));
}

#[test]
fn a_model_of_mnli_of_another_size_than_the_runs_is_refused() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Mnli, 48, 20);
    // `model` is as wide as the run's, `wide` is wider; both learn MNLI.
    save_model_of(&place.path("wide"), 4, 64);
    tokenizer(384).save(place.path("wide")).unwrap();
    pretrained(&place);
    for (name, is_good) in [("model", true), ("wide", false)] {
        let (from, job) = (place.path(name), place.path(&format!("{name}-job")));
        let [from, job] = [&from, &job].map(|path| path.to_str().unwrap());
        let more = ["--model", from, "--out", job];
        let more = [&more[..], &["--epochs", "1", "--max-rows", "16"]].concat();
        programs::stdout(&place.run("mnli", &more));
        let mnli = format!("{job}/runs/mnli/seed-1618/model");
        let out = format!("{name}-scores");
        let output = watch_tasks(&place, &out, "rte", &["--mnli", &mnli, "--once"]);
        if is_good {
            programs::stdout(&output);
            continue;
        }
        assert_refused(name, &output, &["this model differs from the run's"]);
        assert!(!place.path(&out).exists());
    }
}
