//! Runs that are killed, interrupted, damaged and resumed, as a person and a machine do it.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use place::{Place, assert_refused, assert_success, program, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Three phases with both warmups, saved every third step; small enough for a second or two.
fn three_phases(corpus: &Path) -> String {
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
micro_batches = 2

[optimizer]
learning_rate = 1e-2

[run]
eval_every_tokens = 4000
eval_tokens = 1024
log_every_steps = 4

[checkpoint]
every_steps = 3
keep_last = 3

[[phase]]
name = "pretrain"
batch = {{ warmup_tokens = "40%", warmup_from = 1 }}
schedule = {{ kind = "warmup_stable_decay", warmup_tokens = "50%" }}
run.total_tokens = 12000

[[phase]]
name = "extend"
model.global_rope_theta = 160_000.0
data.sequence_length = 128
schedule.kind = "constant"
run.total_tokens = 6000

[[phase]]
name = "decay"
model.global_rope_theta = 160_000.0
data.sequence_length = 128
optimizer.learning_rate = 5e-3
schedule.kind = "one_minus_sqrt"
run.total_tokens = 6000
"#,
        corpus = text(corpus)
    )
}

/// An uninterrupted run, made once, and its duration.
struct Reference {
    place: Place,
    took: Duration,
}

/// The reference run; its folder is removed when the last test drops it.
fn reference() -> Arc<Reference> {
    static HELD: Mutex<Weak<Reference>> = Mutex::new(Weak::new());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reference) = held.upgrade() {
        return reference;
    }
    let place = Place::new();
    place.write("three.toml", three_phases(&place.path("corpus")));
    let started = Instant::now();
    let output = begin(&place.path("three.toml"), &place.path("whole"))
        .wait_with_output()
        .unwrap();
    assert_success(&output);
    let took = started.elapsed();
    let reference = Arc::new(Reference { place, took });
    *held = Arc::downgrade(&reference);
    reference
}

impl Reference {
    fn recipe(&self) -> PathBuf {
        self.place.path("three.toml")
    }

    fn whole(&self) -> PathBuf {
        self.place.path("whole")
    }

    /// A copy of the whole run that a test may damage.
    fn copy(&self, name: &str) -> PathBuf {
        let to = self.place.path(name);
        copy_folder(&self.whole(), &to);
        to
    }

    fn assert_identical(&self, run: &Path) {
        let output = program(&["diff", text(&self.whole()), text(run)]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.starts_with("identical: "), "{said}");
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn spawn(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_modernbert-train"))
        .args(arguments)
        .args(["--device", "flex", "--lines"])
        .env_remove("MODERNBERT_DEVICE")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn begin(recipe: &Path, out: &Path) -> Child {
    spawn(&["run", text(recipe), "--out", text(out)])
}

fn resume(run: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["resume", text(run)];
    arguments.extend(more);
    spawn(&arguments).wait_with_output().unwrap()
}

/// Waits until the log has a row, so that training is under way.
fn wait_for_training(run: &Path) {
    let started = Instant::now();
    while fs::metadata(run.join("metrics.jsonl")).map_or(0, |data| data.len()) == 0 {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "no training began"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn newest(run: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| text(path).contains("step-"))
        .collect();
    found.sort();
    found.pop().unwrap()
}

fn flip(path: &Path) {
    let mut content = fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 4;
    fs::write(path, content).unwrap();
}

#[test]
fn a_run_killed_at_any_moment_ends_as_if_it_had_not_been() {
    let reference = reference();
    let run = reference.place.path("killed");
    let mut child = begin(&reference.recipe(), &run);
    // First in the first steps, at any speed of the machine, then at any point of the training, or after its end.
    wait_for_training(&run);
    assert!(
        child.try_wait().unwrap().is_none(),
        "the run ended before the kill"
    );
    for share in [0.0, 0.3, 0.3, 0.4] {
        std::thread::sleep(reference.took.mul_f64(share));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(share > 0.0 || !status.success(), "{status}");
        if !run.join("recipe.toml").is_file() {
            child = begin(&reference.recipe(), &run);
        } else {
            child = spawn(&["resume", text(&run)]);
        }
    }
    assert_success(&child.wait_with_output().unwrap());
    reference.assert_identical(&run);
    // The finished model is the same file, too.
    let weights = |run: &Path| fs::read(run.join("model.safetensors")).unwrap();
    assert!(weights(&run) == weights(&reference.whole()));
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_ends_with_130() {
    let reference = reference();
    let run = reference.place.path("interrupted");
    let child = begin(&reference.recipe(), &run);
    wait_for_training(&run);
    // A second process on the same run is refused meanwhile.
    let output = resume(&run, &[]);
    assert_refused(
        "two processes",
        &output,
        &["another process works on this run", &child.id().to_string()],
    );
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("interrupted at step") && said.contains("modernbert-train resume"),
        "{said}"
    );
    assert_success(&resume(&run, &[]));
    reference.assert_identical(&run);
    // Resuming a finished run changes nothing.
    assert_success(&resume(&run, &[]));
    reference.assert_identical(&run);
}

#[cfg(unix)]
#[test]
fn a_preempted_or_hung_up_run_is_saved() {
    let reference = reference();
    for signal in ["-TERM", "-HUP"] {
        let run = reference.place.path(&format!("signal{signal}"));
        let child = begin(&reference.recipe(), &run);
        wait_for_training(&run);
        let killed = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{signal}: {message}");
        assert_success(&resume(&run, &[]));
        reference.assert_identical(&run);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_closed_or_full_standard_output_loses_no_run() {
    let reference = reference();
    let run = reference.place.path("closed-output");
    let mut child = begin(&reference.recipe(), &run);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{message}");
    reference.assert_identical(&run);

    let run = reference.place.path("full-output");
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let output = Command::new(env!("CARGO_BIN_EXE_modernbert-train"))
        .args(["run", text(&reference.recipe()), "--out", text(&run)])
        .args(["--device", "flex", "--lines"])
        .stdout(full.unwrap())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("standard output"), "{message}");
    reference.assert_identical(&run);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used_on_request() {
    let reference = reference();
    let run = reference.copy("damaged");
    flip(&newest(&run).join("model.safetensors"));
    let output = resume(&run, &[]);
    assert_refused(
        "flipped",
        &output,
        &["model.safetensors", "damaged", "--from previous"],
    );
    let stdout = assert_success(&resume(&run, &["--from", "previous"]));
    assert!(stdout.contains("are renamed"), "{stdout}");
    reference.assert_identical(&run);
}

#[test]
fn a_run_goes_on_from_the_end_of_a_phase_and_from_a_step() {
    let reference = reference();
    let run = reference.copy("behind");
    // The checkpoints that are kept: the last three, and the end of each phase.
    let steps: Vec<u64> = modernbert_train::run_dir::list_checkpoints(&run)
        .unwrap()
        .into_iter()
        .map(|one| one.step)
        .collect();
    assert!(steps.len() >= 4, "{steps:?}");
    for step in [steps[0], steps[1]] {
        let run = reference.copy("behind");
        assert_success(&resume(&run, &["--from", &format!("step-{step}")]));
        reference.assert_identical(&run);
        fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn a_changed_recipe_or_shard_is_noticed() {
    let reference = reference();
    let run = reference.copy("changed");
    let path = run.join("recipe.toml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, good.replace("seed = 17", "seed = 18")).unwrap();
    assert_refused(
        "recipe",
        &resume(&run, &[]),
        &["recipe.toml", "was changed", "rollback"],
    );
    fs::write(&path, good).unwrap();

    let shard = run.join("shards/pretrain-train.tokens");
    flip(&shard);
    assert_refused(
        "flipped shard",
        &resume(&run, &[]),
        &["pretrain-train.tokens"],
    );
    // A valid checkpoint, but another one.
    fs::copy(run.join("shards/extend-train.tokens"), &shard).unwrap();
    let said = [
        "pretrain-train.tokens",
        "was changed since the run was begun",
    ];
    assert_refused("other shard", &resume(&run, &[]), &said);
}

/// A limit on the size of files simulates a full disk: the write fails in the middle of the optimizer's file.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing() {
    let reference = reference();
    let run = reference.copy("full");
    fs::remove_dir_all(newest(&run)).unwrap();
    let before: Vec<_> = modernbert_train::run_dir::list_checkpoints(&run).unwrap();
    let blocks = fs::metadata(before[0].path.join("optimizer.safetensors"))
        .unwrap()
        .len()
        / 1024
        - 8;
    let script = format!(
        "trap '' XFSZ; ulimit -f {blocks}; exec {} resume {} --device flex --lines",
        env!("CARGO_BIN_EXE_modernbert-train"),
        text(&run)
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let said = [
        "can't be saved",
        "raise the limit on the size of files",
        "last checkpoint is that of step",
        "resume",
    ];
    assert_refused("full", &output, &said);
    assert_eq!(
        modernbert_train::run_dir::list_checkpoints(&run).unwrap(),
        before
    );
    let left = fs::read_dir(run.join("checkpoints")).unwrap().count();
    assert_eq!(left, before.len(), "nothing half-written is left");
    assert_success(&resume(&run, &[]));
    reference.assert_identical(&run);
}

#[test]
fn a_run_is_rolled_back_annealed_and_continued_elsewhere() {
    let reference = reference();
    let whole = reference.whole();
    let first = modernbert_train::run_dir::list_checkpoints(&whole).unwrap()[0]
        .path
        .clone();
    let at = |name: &str| reference.place.path(name);
    let flex = ["--device", "flex", "--lines"];

    let back = at("back");
    let mut arguments = vec!["rollback", text(&first), "--out", text(&back)];
    arguments.extend(["--set", "phase.extend.optimizer.learning_rate=1e-3"]);
    arguments.extend(flex);
    assert_success(&program(&arguments));
    let history = fs::read_to_string(back.join("history.jsonl")).unwrap();
    assert!(
        history.contains("rolled back") && history.contains("learning_rate=1e-3"),
        "{history}"
    );
    let output = program(&["diff", text(&whole), text(&back)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("differs: model.safetensors"), "{said}");
    // Without a change no difference is reported.
    let same = at("same");
    let mut arguments = vec!["rollback", text(&first), "--out", text(&same)];
    arguments.extend(flex);
    assert_success(&program(&arguments));
    reference.assert_identical(&same);
    arguments.extend(["--restart", "--set", "data.sequence_length=32"]);
    assert_refused("other data", &program(&arguments), &["phase", "data"]);

    let annealed = at("annealed");
    let mut arguments = vec!["anneal", text(&first), "--out", text(&annealed)];
    let corpus = at("corpus");
    arguments.extend([
        "--tokens",
        "3_000",
        "--corpus",
        text(&corpus),
        "--set",
        "data.eval_bytes=500",
    ]);
    arguments.extend(flex);
    assert_success(&program(&arguments));
    let recipe = fs::read_to_string(annealed.join("recipe.toml")).unwrap();
    assert!(
        recipe.contains("one_minus_sqrt") && recipe.contains("name = \"anneal\""),
        "{recipe}"
    );
    assert!(annealed.join("model.safetensors").is_file());

    let alone = at("alone");
    let recipe = reference.recipe();
    let mut arguments = vec![
        "run",
        text(&recipe),
        "--phase",
        "decay",
        "--from",
        text(&first),
    ];
    arguments.extend(["--out", text(&alone)]);
    arguments.extend(flex);
    assert_success(&program(&arguments));
    // A phase that begins from the end of the phase before it, in a run of its own, ends with the same weights.
    let ends = modernbert_train::run_dir::list_checkpoints(&whole).unwrap();
    let phase_of = |checkpoint: &Path| {
        let state = fs::read_to_string(checkpoint.join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        state["phase_name"].as_str().unwrap().to_string()
    };
    let before = ends
        .iter()
        .filter(|one| phase_of(&one.path) == "extend")
        .max_by_key(|one| one.step)
        .unwrap();
    let next = at("next");
    let mut arguments = vec!["run", text(&recipe), "--phase", "decay"];
    arguments.extend(["--from", text(&before.path), "--out", text(&next)]);
    arguments.extend(flex);
    assert_success(&program(&arguments));
    let weights = |run: &Path| fs::read(run.join("model.safetensors")).unwrap();
    assert!(weights(&next) == weights(&whole), "other weights");
    assert!(
        weights(&alone) != weights(&whole),
        "an earlier start ends the same"
    );
    let other_shape = at("other-shape");
    let mut arguments = vec!["run", text(&recipe), "--from", text(&ends[0].path)];
    arguments.extend(["--set", "model.hidden_size=16", "--out", text(&other_shape)]);
    arguments.extend(flex);
    assert_refused("shape", &program(&arguments), &["another shape"]);
}

#[test]
fn a_run_is_not_begun_over_another_one() {
    let reference = reference();
    let run = reference.copy("occupied");
    let output = begin(&reference.recipe(), &run).wait_with_output().unwrap();
    assert_refused(
        "occupied",
        &output,
        &["holds a run at step", "resume", "--restart"],
    );
    reference.assert_identical(&run);
    let output = resume(&reference.place.path("nothing"), &[]);
    assert_refused("no run", &output, &["holds no run", "modernbert-train run"]);
}

#[test]
fn runs_and_checkpoints_are_shown_exported_averaged_and_drawn() {
    let reference = reference();
    let whole = reference.whole();
    let at = |name: &str| reference.place.path(name);
    let (model, mean, picture) = (at("model"), at("mean"), at("curves.png"));
    assert_success(&program(&["export", text(&whole), text(&model)]));
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert!(weights(&model) == weights(&whole));
    assert!(model.join("tokenizer.json").is_file());
    let last = newest(&whole);
    assert_success(&program(&["average", text(&last), "--out", text(&mean)]));
    assert!(weights(&mean) == weights(&whole));
    let other = at("other");
    let twice = ["average", text(&last), text(&last), "--out", text(&other)];
    assert_refused("twice", &program(&twice), &["named twice"]);
    let refused = program(&[
        "average",
        "--run",
        text(&whole),
        "--best",
        "9",
        "--out",
        text(&mean),
    ]);
    assert_refused("best", &refused, &["keep_best"]);
    assert_success(&program(&[
        "plot",
        text(&whole),
        "--out",
        text(&picture),
        "--quantity",
        "grad-norm",
    ]));
    assert_eq!(fs::read(&picture).unwrap()[..8], *b"\x89PNG\r\n\x1a\n");

    let said = assert_success(&program(&["inspect", text(&whole), "--json"]));
    let run: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        run["phases"],
        serde_json::json!(["pretrain", "extend", "decay"])
    );
    assert!(
        run["checkpoints"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["state"] == "good"),
        "{said}"
    );
    let said = assert_success(&program(&["inspect", text(&last)]));
    assert!(said.contains("global_rope_theta: 160000"), "{said}");
    let shards = whole.join("shards");
    assert!(assert_success(&program(&["inspect", text(&shards)])).contains("samples: "));
}
