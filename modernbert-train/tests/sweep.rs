//! Sweeps as a person runs them: uninterrupted, killed and interrupted, with failing runs, and with another grid in the same folder.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use place::{Place, assert_refused, assert_success, program, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const GRID: &str = "\
base = 'recipe.toml'
seeds = 2

[settings]
checkpoint.every_steps = 3
run.log_every_steps = 1

[[list]]
name = 'layernorm'

[[list]]
name = 'rmsnorm'
model.flexbert.normalization = 'rmsnorm'
";

const RUNS: [&str; 4] = [
    "layernorm-seed1",
    "rmsnorm-seed1",
    "layernorm-seed2",
    "rmsnorm-seed2",
];

fn place() -> Place {
    let place = Place::new();
    place.write("grid.toml", GRID);
    place
}

fn start(place: &Place, out: &str, more: &[&str]) -> Child {
    let (grid, out) = (place.path("grid.toml"), place.path(out));
    let mut arguments = vec!["sweep", text(&grid), "--out", text(&out)];
    if !more.contains(&"--devices") {
        arguments.extend(["--device", "flex"]);
    }
    arguments.extend(more);
    Command::new(env!("CARGO_BIN_EXE_modernbert-train"))
        .args(arguments)
        .env_remove("MODERNBERT_DEVICE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn sweep(place: &Place, out: &str, more: &[&str]) -> Output {
    start(place, out, more).wait_with_output().unwrap()
}

fn run(place: &Place, out: &str, name: &str) -> PathBuf {
    place.path(out).join("runs").join(name)
}

/// Waits until a run's log has rows, so that it trains.
fn wait_for_rows(run: &Path, count: usize) {
    let started = Instant::now();
    let rows =
        || fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    while rows() < count {
        assert!(
            started.elapsed() < Duration::from_secs(180),
            "{}: no training began",
            run.display()
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// The comparison without what a clock or the system decides.
fn results(out: &Path) -> serde_json::Value {
    let read = fs::read(out.join("sweep.json")).unwrap();
    let mut found: serde_json::Value = serde_json::from_slice(&read).unwrap();
    for row in found["rows"].as_array_mut().unwrap() {
        let clock = |value: &mut serde_json::Value| {
            for key in ["tokens_per_second", "memory_mib"] {
                assert!(
                    value[key].as_f64().is_some_and(|number| number > 0.0),
                    "{value}"
                );
                value[key] = serde_json::Value::Null;
            }
        };
        clock(row);
        row["seeds"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .for_each(clock);
    }
    found
}

fn assert_identical(place: &Place, one: &str, other: &str) {
    for name in RUNS {
        let (a, b) = (run(place, one, name), run(place, other, name));
        let said = assert_success(&program(&["diff", text(&a), text(&b)]));
        assert!(said.starts_with("identical: "), "{name}: {said}");
        let weights = |run: &Path| fs::read(run.join(place::WEIGHTS)).unwrap();
        assert!(weights(&a) == weights(&b), "{name}");
    }
    assert_eq!(results(&place.path(one)), results(&place.path(other)));
}

#[test]
fn an_interrupted_and_killed_sweep_ends_as_if_it_had_not_been() {
    let place = place();
    let said = assert_success(&sweep(&place, "whole", &[]));
    assert!(
        said.contains("| `rmsnorm` |") && said.contains("finished=4 failed=0"),
        "{said}"
    );
    let whole = place.path("whole");
    let table = fs::read_to_string(whole.join("sweep.md")).unwrap();
    assert!(said.contains(&table), "{said}");
    assert!(
        fs::read(whole.join("sweep.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );
    // Every run is an ordinary one.
    let one = place.path("one");
    let recipe = whole.join("recipes/rmsnorm-seed2.toml");
    assert_success(&program(&[
        "run",
        text(&recipe),
        "--out",
        text(&one),
        "--device",
        "flex",
    ]));
    let of_sweep = run(&place, "whole", "rmsnorm-seed2");
    let said = assert_success(&program(&["diff", text(&one), text(&of_sweep)]));
    assert!(said.starts_with("identical: "), "{said}");

    // Ctrl-C in the first run: the run is saved.
    let child = start(&place, "again", &[]);
    wait_for_rows(&run(&place, "again", RUNS[0]), 5);
    signal(&child, "-INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        output.status.code(),
        Some(130),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("go on with the same command: modernbert-train sweep ")
            && said.contains("0 of 4 runs are finished"),
        "{said}"
    );
    assert!(!run(&place, "again", RUNS[0]).join(place::WEIGHTS).exists());
    assert!(!run(&place, "again", RUNS[1]).exists());
    let report = assert_success(&program(&["sweep", "--report", text(&place.path("again"))]));
    assert!(report.contains("0 of 2; seed 1 incomplete at "), "{report}");
    assert!(report.contains("seed 2 waiting"), "{report}");

    // Killed in the second run: its process saves it and ends.
    let mut child = start(&place, "again", &[]);
    wait_for_rows(&run(&place, "again", RUNS[1]), 4);
    child.kill().unwrap();
    child.wait().unwrap();
    let first = run(&place, "again", RUNS[0]).join(place::WEIGHTS);
    let made = fs::metadata(&first).unwrap().modified().unwrap();

    // The same command, on two processes.
    let said = assert_success(&sweep(&place, "again", &["--devices", "flex,flex"]));
    assert!(
        said.contains("sweep: 4 runs of 2 rows and 2 seeds: 1 finished, 1 begun"),
        "{said}"
    );
    assert!(
        said.contains("[2/4] rmsnorm-seed1: resumed on flex"),
        "{said}"
    );
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), made);
    assert_identical(&place, "whole", "again");

    // Nothing is left to do, and the report is the same again.
    let said = assert_success(&sweep(&place, "again", &[]));
    assert!(
        said.contains("4 finished") && !said.contains("begun on"),
        "{said}"
    );
    let before = fs::read(place.path("again").join("sweep.json")).unwrap();
    assert_success(&program(&["sweep", "--report", text(&place.path("again"))]));
    assert!(fs::read(place.path("again").join("sweep.json")).unwrap() == before);

    // Another grid is refused, more rows are added.
    place.write(
        "grid.toml",
        GRID.replace("every_steps = 3", "every_steps = 4"),
    );
    assert_refused(
        "another grid",
        &sweep(&place, "again", &[]),
        &["another grid", "checkpoint.every_steps was 3, and is 4"],
    );
    place.write(
        "grid.toml",
        format!("{GRID}\n[[list]]\nname = 'silu'\nmodel.hidden_activation = 'silu'\n"),
    );
    let said = assert_success(&sweep(&place, "again", &[]));
    assert!(
        said.contains("new in this sweep: silu-seed1, silu-seed2"),
        "{said}"
    );
    assert!(
        said.contains("| `silu` |") && said.contains("runs=6 finished=6"),
        "{said}"
    );
}

#[test]
fn a_failed_run_is_recorded_and_the_others_go_on() {
    let place = place();
    // The rate takes the weights to infinity within a few steps.
    let grid = GRID.replace("seeds = 2", "seeds = 1").replace(
        "model.flexbert.normalization = 'rmsnorm'",
        "optimizer.learning_rate = 1e30",
    );
    place.write(
        "grid.toml",
        grid.replace("'rmsnorm'", "'diverges'")
            + "\n[[list]]\nname = 'silu'\nmodel.hidden_activation = 'silu'\n",
    );
    let output = sweep(&place, "out", &[]);
    assert_refused(
        "a failed run",
        &output,
        &["1 of 3 runs failed", "--retry-failed"],
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("diverges-seed1: failed: "), "{said}");
    assert!(said.contains("| 0 of 1; seed 1 failed: "), "{said}");
    assert!(said.contains("| undefined | 1 |"), "{said}");
    assert!(said.contains("finished=2 failed=1"), "{said}");
    // It is not repeated without being asked to.
    let output = sweep(&place, "out", &[]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("2 finished, 0 begun, 1 failed (not run again")
            && !said.contains("its output"),
        "{said}"
    );
    let output = sweep(&place, "out", &["--retry-failed"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("diverges-seed1: resumed") && said.contains("finished=2 failed=1"),
        "{said}"
    );
}

#[test]
fn the_runs_are_shown_and_bad_grids_refused_before_anything_is_made() {
    let place = place();
    let grid = place.path("grid.toml");
    let said = assert_success(&program(&[
        "sweep",
        text(&grid),
        "--dry-run",
        "--set",
        "run.total_tokens=5000",
    ]));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "all runs: checkpoint.every_steps=3");
    assert_eq!(lines[2], "layernorm-seed1: seed 1, 5000 tokens: the base");
    assert_eq!(
        lines[5],
        "rmsnorm-seed2: seed 2, 5000 tokens: model.flexbert.normalization=\"rmsnorm\""
    );
    assert_eq!(
        lines[6],
        "sweep: 4 runs of 2 rows and 2 seeds, 20.0k tokens"
    );
    let out = place.path("refused");
    let refuses = |more: &[&str], said: &[&str]| {
        assert_refused(&format!("{more:?}"), &sweep(&place, "refused", more), said);
        assert!(!out.exists(), "{more:?}");
    };
    refuses(
        &["--set", "model.flexbert.normalization=layernorm"],
        &["grid.toml:13", "leave one of the two out"],
    );
    refuses(&["--set", "run.seed=3"], &["the seeds of the grid"]);
    refuses(&["--devices", "flex,warp"], &["warp"]);
    place.write(
        "grid.toml",
        GRID.replace(
            "model.flexbert.normalization",
            "model.flexbert.normalisation",
        ),
    );
    refuses(
        &[],
        &[
            "grid.toml:13: ",
            "the nearest is model.flexbert.normalization",
        ],
    );
    assert_refused(
        "no grid",
        &program(&["sweep", "nothing.toml", "--dry-run"]),
        &["nothing.toml", "built-in grid: activations"],
    );
    let foreign = place.path("corpus");
    assert_refused(
        "no sweep",
        &program(&["sweep", "--report", text(&foreign)]),
        &["no sweep in it"],
    );
}
