//! Runs that begin at a checkpoint of another run, with other settings or other data: rollback and anneal.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use modernbert_train::pretrain::reopen;
use modernbert_train::run_dir::recipe_of_run;
use place::phases::{checkpoint, close, number, recipe, rows, run, state, weights};
use place::{Place, WEIGHTS, assert_success, program, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Rolls back to `from` with `changes`, into the folder `out`.
fn roll_back(place: &Place, from: &Path, out: &str, changes: &[&str]) -> (PathBuf, String) {
    let out = place.path(out);
    let mut arguments = vec!["rollback", text(from), "--out", text(&out)];
    arguments.extend(changes.iter().flat_map(|change| ["--set", change]));
    arguments.extend(["--device", "flex", "--lines"]);
    let said = assert_success(&program(&arguments));
    (out, said)
}

/// Rows of training without their times and memory, which differ from run to run.
fn timeless(run: &Path) -> Vec<Value> {
    let mut rows = rows(run, "train");
    for row in &mut rows {
        for key in [
            "tok_s",
            "data_wait",
            "seconds",
            "seconds_left",
            "memory_mib",
        ] {
            row.as_object_mut().unwrap().remove(key);
        }
    }
    rows
}

#[test]
fn a_roll_back_in_mid_phase_changes_rate_and_decay_and_says_so() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &["--set", "checkpoint.keep_best=0"]);
    let from = checkpoint(&out, 12);
    let before = state(&out, 12);
    assert!(before["phase_name"] == "stable" && before["phase_done"] == false);
    let changes = [
        "phase.stable.optimizer.learning_rate=5e-4",
        "phase.stable.optimizer.weight_decay=1e-6",
    ];
    let (back, said) = roll_back(&place, &from, "back", &changes);
    assert!(said.contains("rolled back to step 12"), "{said}");
    assert!(
        said.contains("learning rate 5e-4") && said.contains("weight decay 1e-6"),
        "{said}"
    );
    let history = fs::read_to_string(back.join("history.jsonl")).unwrap();
    let event = history
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let event = event
        .into_iter()
        .find(|event| event["event"] == "rolled back")
        .unwrap();
    assert_eq!(event["step"], 12);
    assert_eq!(event["changes"], serde_json::json!(changes));
    // The rows before are those of the other run, and the rate falls at once.
    let (old, new) = (rows(&out, "train"), rows(&back, "train"));
    assert_eq!(old[..12], new[..12]);
    assert!(close(number(&new[11], "lr"), 1e-2), "{}", new[11]);
    assert!(close(number(&new[12], "lr"), 5e-4), "{}", new[12]);
    assert_eq!(new[12]["tokens"], old[12]["tokens"]);
    assert_ne!(weights(&out), weights(&back));
    assert!(back.join(WEIGHTS).is_file());
}

/// Another weight decay alone: the first step after the rollback has the same loss, rate and gradient, and matrices lose the larger share of
/// themselves.
#[test]
fn a_roll_back_with_another_weight_decay_alone_changes_the_next_step_by_the_decay() {
    const DECAY: f64 = 0.1;
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &["--set", "checkpoint.keep_best=0"]);
    let from = checkpoint(&out, 12);
    // The first step after the checkpoint is in both logs.
    let every = ["checkpoint.every_steps=1", "checkpoint.keep_every_steps=1"];
    let decay = format!("phase.stable.optimizer.weight_decay={DECAY}");
    let (same, _) = roll_back(&place, &from, "same", &every);
    let (more, _) = roll_back(&place, &from, "more", &[&every[..], &[&decay]].concat());
    assert_eq!(weights(&out), weights(&same));
    assert_ne!(weights(&out), weights(&more));
    let (usual, changed) = (timeless(&same), timeless(&more));
    assert_eq!(usual[..13], changed[..13]);
    assert_ne!(usual[13]["loss"], changed[13]["loss"]);
    let lr = |rows: &[Value]| -> Vec<f64> { rows.iter().map(|row| number(row, "lr")).collect() };
    assert_eq!(lr(&usual), lr(&changed));

    let before = weights(&from);
    let (usual, changed) = (
        weights(&checkpoint(&same, 13)),
        weights(&checkpoint(&more, 13)),
    );
    let mut matrices = 0;
    for (name, start) in &before {
        let (usual, changed) = (&usual[name], &changed[name]);
        let is_vector = name.ends_with("norm.weight") || name.ends_with("bias");
        if is_vector {
            assert_eq!(usual, changed, "{name}");
            continue;
        }
        matrices += 1;
        // A step that StableAdamW shortens decays in the same proportion, so each matrix has its own share.
        let lost: Vec<f64> = usual
            .iter()
            .zip(changed)
            .map(|(usual, changed)| f64::from(*usual) - f64::from(*changed))
            .collect();
        let squares = start.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let along = lost.iter().zip(start).map(|(lost, &x)| lost * f64::from(x));
        let share = along.sum::<f64>() / squares;
        assert!(
            share > 0.01 * DECAY && share < 1.001 * DECAY,
            "{name} {share}"
        );
        for (lost, &x) in lost.iter().zip(start) {
            let expected = share * f64::from(x);
            assert!((lost - expected).abs() < 1e-6, "{name}: {lost} {expected}");
        }
    }
    assert!(matrices > 15, "{matrices}");
}

/// Other settings of the later phase alone: all rows before that phase are bit-identical, and no row after its start is.
#[test]
fn a_roll_back_with_another_decay_phase_changes_nothing_before_it() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &["--set", "checkpoint.keep_best=0"]);
    let from = checkpoint(&out, 12);
    let changes = [
        "phase.decay.optimizer.learning_rate=1e-3",
        "phase.decay.optimizer.weight_decay=1e-2",
    ];
    let (back, _) = roll_back(&place, &from, "back", &changes);
    let (old, new) = (timeless(&out), timeless(&back));
    let begin = old.iter().position(|row| row["phase"] == "decay").unwrap();
    assert!(begin > 16 && old.len() == new.len(), "{begin}");
    assert_eq!(old[..begin], new[..begin]);
    let last = number(&old[begin - 1], "step") as u64;
    let kept = (13..=last).filter(|step| step % 4 == 0);
    let mut compared = 0;
    for step in kept {
        for file in [WEIGHTS, "optimizer.safetensors"] {
            let read = |run: &Path| fs::read(checkpoint(run, step).join(file)).unwrap();
            assert!(read(&out) == read(&back), "step {step}: {file}");
        }
        compared += 1;
    }
    assert!(compared > 2, "{compared}");
    // The loss of a phase's first step is that of the weights before it.
    assert_eq!(old[begin]["loss"], new[begin]["loss"]);
    for (old, new) in old[begin..].iter().zip(&new[begin..]) {
        assert_ne!(old["lr"], new["lr"]);
    }
    for (old, new) in old[begin + 1..].iter().zip(&new[begin + 1..]) {
        assert_ne!(old["loss"], new["loss"]);
    }
    assert_ne!(weights(&out), weights(&back));
}

/// Text of another kind than the corpus of the tests.
fn write_other(place: &Place) -> (PathBuf, String) {
    let other: String = (0..400)
        .map(|i| format!("another text number {i}: {}\n", i * i))
        .collect();
    place.write("other/text.txt", &other);
    (place.path("other"), other)
}

/// A checkpoint of the stable part of a warmup-stable-decay run, annealed on other text.
#[test]
fn a_stable_checkpoint_is_annealed_on_other_data_whose_loss_falls() {
    const PEAK: f64 = 1e-2;
    const TOKENS: f64 = 4000.0;
    let place = Place::new();
    let two = recipe(&place.path("corpus"), "");
    let (settings, _) = two.split_once("[[phase]]").unwrap();
    let settings = settings.replace("[run]\n", "[run]\ntotal_tokens = 12_000\n");
    let schedule = r#"
[optimizer]
learning_rate = 1e-2

[schedule]
kind = "warmup_stable_decay"
warmup_tokens = 2000
decay_tokens = 4000
"#;
    place.write("two.toml", format!("{settings}{schedule}"));
    let out = run(&place, "out", &["--set", "checkpoint.keep_best=0"]);
    let trained = rows(&out, "train");
    let stable = |row: &&Value| number(row, "lr") == PEAK && number(row, "step") % 4.0 == 0.0;
    let kept: Vec<&Value> = trained.iter().filter(stable).collect();
    assert!(kept.len() >= 3, "{trained:?}");
    assert!(number(trained.last().unwrap(), "lr") < 0.1 * PEAK);
    // One in the middle of the plateau, and not one at its end.
    let row = kept[1];
    let from = checkpoint(&out, number(row, "step") as u64);
    let (corpus, other) = write_other(&place);
    let annealed = place.path("annealed");
    let mut arguments = vec!["anneal", text(&from), "--out", text(&annealed)];
    arguments.extend(["--tokens", "4_000", "--corpus", text(&corpus)]);
    for setting in ["data.eval_bytes=1000", "run.eval_every_tokens=500"] {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(["--device", "flex", "--lines"]);
    assert_success(&program(&arguments));

    // The rate begins at the plateau's and ends at a thousandth of it.
    let begun = number(row, "tokens");
    let new = rows(&annealed, "train");
    let new: Vec<&Value> = new.iter().filter(|row| row["phase"] == "anneal").collect();
    for row in &new {
        let x = ((number(row, "tokens") - begun) / TOKENS).min(1.0);
        let expected = PEAK * (0.001 + 0.999 * (1.0 - x.sqrt()));
        assert!(close(number(row, "lr"), expected), "{row}");
    }
    let rates: Vec<f64> = new.iter().map(|row| number(row, "lr")).collect();
    assert!(
        rates.len() >= 15 && rates.is_sorted_by(|a, b| a > b),
        "{rates:?}"
    );
    assert!(
        rates[0] > 0.7 * PEAK && close(*rates.last().unwrap(), 0.001 * PEAK),
        "{rates:?}"
    );

    // The data are the other text alone: every sample, in words, is a part of it.
    let phases = recipe_of_run(&annealed).unwrap().phases().unwrap();
    let prepared = reopen(&phases, &annealed).unwrap();
    let specials = prepared.tokenizer.special().ids();
    let sources = &prepared.phases[0];
    let mut samples = 0;
    for source in sources.train.iter().chain(&sources.eval) {
        for index in 0..source.samples.len() {
            let mut ids = source.samples.get(index);
            ids.retain(|id| !specials.contains(id));
            let words = prepared.tokenizer.decode(&ids).unwrap();
            assert!(other.contains(words.trim()) && words.len() > 8, "{words}");
            samples += 1;
        }
    }
    assert!(samples > 20, "{samples}");

    // Both the training loss and the held-out loss fall far below the checkpoint's losses on this text.
    let losses: Vec<f64> = new.iter().map(|row| number(row, "loss")).collect();
    let last = losses[losses.len() - 4..].iter().sum::<f64>() / 4.0;
    let evals = rows(&annealed, "eval");
    let held: Vec<f64> = evals
        .iter()
        .filter(|row| row["phase"] == "anneal")
        .map(|row| number(row, "loss"))
        .collect();
    assert!(last < losses[0] - 0.5, "{losses:?}");
    assert!(
        held.len() >= 5 && held[held.len() - 1] < held[0] - 0.1,
        "{held:?}"
    );
}

#[test]
fn an_anneal_goes_down_from_the_checkpoints_rate_on_other_data() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &["--set", "checkpoint.keep_best=0"]);
    // A checkpoint within the decay: its rate is below the phase's peak of 4e-3.
    let rows_of = rows(&out, "train");
    let row = rows_of.iter().rfind(|row| {
        row["phase"] == "decay"
            && number(row, "step") % 4.0 == 0.0
            && number(row, "tokens_left") > 2000.0
    });
    let row = row.unwrap();
    let rate = number(row, "lr");
    assert!(rate > 1e-4 && rate < 3.5e-3, "{row}");
    let (corpus, _) = write_other(&place);
    let (annealed, from) = (
        place.path("annealed"),
        checkpoint(&out, number(row, "step") as u64),
    );
    let mut arguments = vec![
        "anneal",
        text(&from),
        "--out",
        text(&annealed),
        "--tokens",
        "2_000",
    ];
    arguments.extend(["--corpus", text(&corpus), "--set", "data.eval_bytes=500"]);
    arguments.extend(["--device", "flex", "--lines"]);
    assert_success(&program(&arguments));
    let recipe = fs::read_to_string(annealed.join("recipe.toml")).unwrap();
    assert!(recipe.contains(text(&corpus)), "{recipe}");
    let new = rows(&annealed, "train");
    let begun = number(row, "tokens");
    let new: Vec<&Value> = new.iter().filter(|row| row["phase"] == "anneal").collect();
    assert!(new.len() >= 5);
    for row in new {
        let x = ((number(row, "tokens") - begun) / 2000.0).min(1.0);
        let expected = rate * (0.001 + 0.999 * (1.0 - x.sqrt()));
        assert!(close(number(row, "lr"), expected), "{row}");
    }
    let shards = |run: &Path| -> Vec<Vec<u8>> {
        let files = fs::read_dir(run.join("shards")).unwrap();
        files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect()
    };
    assert!(
        shards(&annealed)
            .iter()
            .all(|shard| !shards(&out).contains(shard))
    );
}

/// The commands that start from a checkpoint of another run: each keeps it as its own first checkpoint, from which `resume` computes the same.
#[test]
fn a_run_from_a_checkpoint_resumes_before_its_first_save() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &["--set", "checkpoint.keep_best=0"]);
    let steps: Vec<u64> = rows(&out, "train")
        .iter()
        .map(|row| row["step"].as_u64().unwrap())
        .collect();
    let step = steps
        .into_iter()
        .filter(|step| step % 4 == 0)
        .nth(1)
        .unwrap();
    let from = checkpoint(&out, step);
    let two = place.path("two.toml");
    let never = [
        "--set",
        "checkpoint.every_steps=unset",
        "--set",
        "checkpoint.keep_every_steps=unset",
        "--set",
        "checkpoint.keep_last=9",
    ];
    let commands: [(&str, Vec<&str>); 3] = [
        ("annealed", vec!["anneal", text(&from), "--tokens", "1_000"]),
        (
            "rolled",
            vec!["rollback", text(&from), "--set", "optimizer.beta2=0.97"],
        ),
        (
            "begun",
            vec![
                "run",
                text(&two),
                "--from",
                text(&from),
                "--phase",
                "stable",
            ],
        ),
    ];
    for (name, mut arguments) in commands {
        let branch = place.path(name);
        arguments.extend([
            "--out",
            text(&branch),
            "--device",
            "flex",
            "--lines",
            "--set",
            "checkpoint.keep_best=0",
        ]);
        arguments.extend(never);
        assert_success(&program(&arguments));
        let first = state(&branch, step);
        if name != "rolled" {
            assert_eq!(first["phase_tokens"], 0, "{name}: {first}");
        }
        let expected = weights(&branch);
        let chosen = step.to_string();
        assert_success(&program(&[
            "resume",
            text(&branch),
            "--from",
            &chosen,
            "--device",
            "flex",
            "--lines",
        ]));
        assert_eq!(weights(&branch), expected, "{name}");
        // A path inside of the run names nothing to resume, and what would.
        for (inside, remedy) in [
            (
                checkpoint(&branch, step),
                format!("resume {} --from step-", text(&branch)),
            ),
            (
                branch.join("run.json"),
                "name the folder of a run".to_owned(),
            ),
        ] {
            let refused = program(&["resume", text(&inside), "--device", "flex", "--lines"]);
            assert_eq!(refused.status.code(), Some(2));
            let message = String::from_utf8(refused.stderr).unwrap();
            assert!(message.contains(&remedy), "{message}");
        }
        // As a run that was ended while it prepared: without a checkpoint there is nothing to resume from.
        fs::remove_dir_all(branch.join("checkpoints")).unwrap();
        let refused = program(&["resume", text(&branch), "--device", "flex", "--lines"]);
        assert_eq!(refused.status.code(), Some(2));
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(
            message.contains("begin it again with the command that began it"),
            "{message}"
        );
    }
}

#[test]
fn a_rollback_that_leaves_nothing_to_train_is_refused() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &[]);
    let last = rows(&out, "train").last().unwrap()["step"]
        .as_u64()
        .unwrap();
    let from = checkpoint(&out, last);
    for total in ["1000", "6000"] {
        let setting = format!("phase.decay.run.total_tokens={total}");
        let rolled = place.path("rolled");
        let arguments = [
            "rollback",
            text(&from),
            "--set",
            &setting,
            "--out",
            text(&rolled),
        ];
        let refused = program(&arguments);
        assert_eq!(refused.status.code(), Some(2), "{total}");
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(message.contains("nothing is left to train"), "{message}");
        assert!(!rolled.exists(), "nothing is made");
    }
}
