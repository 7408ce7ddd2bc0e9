//! Runs of several processes: the same bits for any number of them, and what happens when one of them fails.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use place::{Place, WEIGHTS, assert_refused, assert_success, program, program_with, text};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Two phases of steps of five micro-batches after a batch warmup, saved every fourth step.
fn write_recipe(place: &Place) {
    let recipe = place::recipe(&place.path("corpus"));
    let recipe = recipe.replace("tokens = 256\n", "tokens = 320\nmicro_batches = 5\n");
    let recipe = recipe.replace(
        "total_tokens = 6000\neval_every_tokens = 3000",
        "eval_every_tokens = 4000",
    );
    let phases = r#"
[checkpoint]
every_steps = 4
keep_last = 2

[[phase]]
name = "pretrain"
batch = { warmup_tokens = "50%", warmup_from = 1 }
run.total_tokens = 8000

[[phase]]
name = "decay"
schedule.kind = "one_minus_sqrt"
run.total_tokens = 6000
"#;
    place.write("several.toml", recipe + phases);
}

fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_modernbert-train"))
        .args(arguments)
        .args(["--device", "flex", "--lines"])
        .env_remove("MODERNBERT_DEVICE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn run(place: &Place, out: &str, ranks: &str) -> Output {
    let (recipe, out) = (place.path("several.toml"), place.path(out));
    let child = start(&["run", text(&recipe), "--out", text(&out), "--nproc", ranks]);
    child.wait_with_output().unwrap()
}

fn assert_identical(place: &Place, one: &str, other: &str) {
    let (one, other) = (place.path(one), place.path(other));
    let said = assert_success(&program(&["diff", text(&one), text(&other)]));
    assert!(said.starts_with("identical: "), "{said}");
    let weights = |run: &Path| fs::read(run.join(WEIGHTS)).unwrap();
    assert!(weights(&one) == weights(&other));
}

/// The processes that `supervisor` has started, by rank.
fn ranks_of(supervisor: u32, count: usize) -> Vec<u32> {
    let listed = format!("/proc/{supervisor}/task/{supervisor}/children");
    let begun = Instant::now();
    loop {
        let found = fs::read_to_string(&listed).unwrap();
        let found: Vec<u32> = found
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        if found.len() == count {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args([name, &id.to_string()]).status();
    assert!(sent.unwrap().success());
}

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(180),
            "{} never came",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn any_number_of_ranks_gives_the_same_bits() {
    let place = Place::new();
    write_recipe(&place);
    assert_success(&run(&place, "one", "1"));
    for ranks in ["2", "3", "4"] {
        let output = run(&place, ranks, ranks);
        assert_success(&output);
        assert_identical(&place, "one", ranks);
        // Rank 0 prints for all ranks, the others have their own logs.
        let log =
            fs::read_to_string(place.path(&format!("{ranks}-ranks")).join("rank-1.log")).unwrap();
        assert!(log.contains("step"), "{log}");
        let rows = |run: &str| {
            fs::read_to_string(place.path(run).join("metrics.jsonl"))
                .unwrap()
                .lines()
                .count()
        };
        assert_eq!(rows("one"), rows(ranks));
    }
}

#[test]
fn a_rank_that_is_killed_ends_all_and_any_number_resumes() {
    let place = Place::new();
    write_recipe(&place);
    assert_success(&run(&place, "whole", "2"));
    let (recipe, out) = (place.path("several.toml"), place.path("killed"));
    let child = start(&["run", text(&recipe), "--out", text(&out), "--nproc", "3"]);
    let ranks = ranks_of(child.id(), 3);
    wait_for(&out.join("checkpoints/step-00000004"));
    let begun = Instant::now();
    signal(ranks[2], "-KILL");
    let output = child.wait_with_output().unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_refused(
        "a killed rank",
        &output,
        &["rank 2 ended without a message"],
    );
    for ranks in ["4", "1"] {
        let child = start(&["resume", text(&out), "--nproc", ranks]);
        assert_success(&child.wait_with_output().unwrap());
        assert_identical(&place, "whole", "killed");
    }
}

#[test]
fn ranks_whose_supervisor_is_killed_save_the_run() {
    let place = Place::new();
    write_recipe(&place);
    let recipe = fs::read_to_string(place.path("several.toml")).unwrap();
    place.write("several.toml", recipe.replace("= 6000", "= 60000"));
    let (recipe, out) = (place.path("several.toml"), place.path("ended"));
    let mut child = start(&["run", text(&recipe), "--out", text(&out), "--nproc", "2"]);
    let ranks = ranks_of(child.id(), 2);
    wait_for(&out.join("metrics.jsonl"));
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = Instant::now();
    while ranks
        .iter()
        .any(|rank| Path::new(&format!("/proc/{rank}/exe")).exists())
    {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = start(&["resume", text(&out), "--nproc", "2"])
        .wait_with_output()
        .unwrap();
    let said = assert_success(&output);
    assert!(said.contains("resum"), "{said}");
}

#[test]
fn a_signal_to_the_supervisor_saves_the_run() {
    let place = Place::new();
    write_recipe(&place);
    // Long enough that the signal comes in the middle.
    let recipe = fs::read_to_string(place.path("several.toml")).unwrap();
    place.write("several.toml", recipe.replace("= 6000", "= 60000"));
    assert_success(&run(&place, "whole", "1"));
    let (recipe, out) = (place.path("several.toml"), place.path("ended"));
    let child = start(&["run", text(&recipe), "--out", text(&out), "--nproc", "2"]);
    wait_for(&out.join("metrics.jsonl"));
    signal(child.id(), "-TERM");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}{error}");
    assert!(
        said.contains("interrupted at step") && said.contains("resume"),
        "{said}"
    );
    assert_success(
        &start(&["resume", text(&out), "--nproc", "2"])
            .wait_with_output()
            .unwrap(),
    );
    assert_identical(&place, "whole", "ended");
}

#[test]
fn ranks_of_a_launcher_must_have_the_same_command() {
    let place = Place::new();
    write_recipe(&place);
    let port = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let recipe = place.path("several.toml");
    let rank = |rank: &str, out: &str| {
        Command::new(env!("CARGO_BIN_EXE_modernbert-train"))
            .args([
                "run",
                text(&recipe),
                "--out",
                text(&place.path(out)),
                "--device",
                "flex",
                "--lines",
            ])
            .env_remove("MODERNBERT_DEVICE")
            .envs([
                ("RANK", rank),
                ("WORLD_SIZE", "2"),
                ("LOCAL_RANK", rank),
                ("LOCAL_WORLD_SIZE", "2"),
            ])
            .env("MASTER_PORT", &port)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for child in [rank("0", "a"), rank("1", "b")] {
        let output = child.wait_with_output().unwrap();
        assert_refused(
            "two commands",
            &output,
            &[
                "ranks disagree on the command: rank 0 has `run ",
                "/a ",
                "rank 1 has `run ",
                "/b ",
            ],
        );
    }
    assert!(!place.path("a").join("recipe.toml").exists());
    let output = program_with(
        &["run", text(&recipe), "--out", text(&place.path("c"))],
        &[("RANK", "0")],
    );
    assert_refused(
        "an incomplete environment",
        &output,
        &["WORLD_SIZE", "RANK"],
    );
}

/// In an earlier version a launcher's variables disabled `--nproc`, and the process waited for ranks that nobody started.
#[test]
fn ranks_are_started_by_one_of_the_two() {
    let place = Place::new();
    write_recipe(&place);
    let recipe = place.path("several.toml");
    let ranks = [
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "0"),
        ("LOCAL_WORLD_SIZE", "2"),
    ];
    let out = place.path("both");
    let run = ["run", text(&recipe), "--out", text(&out), "--nproc", "2"];
    let output = program_with(&run, &ranks);
    assert_refused("two launchers", &output, &["--nproc 2", "rank 0 of 2"]);
    let port = [&ranks[..], &[("MASTER_PORT", "0")]].concat();
    let output = program_with(&run[..4], &port);
    assert_refused("no port", &output, &["MASTER_PORT is 0"]);
    assert!(!out.exists());
}

/// The logs of the ranks are never written through a link, and what is in them is kept.
#[test]
fn logs_of_ranks_replace_nothing() {
    let place = Place::new();
    write_recipe(&place);
    let precious = place.write("precious.txt", "precious");
    let logs = place.path("out-ranks");
    fs::create_dir(&logs).unwrap();
    std::os::unix::fs::symlink(&precious, logs.join("rank-1.log")).unwrap();
    assert_refused("a link", &run(&place, "out", "2"), &["rank-1.log"]);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    fs::remove_file(logs.join("rank-1.log")).unwrap();
    fs::write(logs.join("rank-1.log"), "my log\n").unwrap();
    assert_success(&run(&place, "out", "2"));
    let log = fs::read_to_string(logs.join("rank-1.log")).unwrap();
    assert!(log.starts_with("my log\n"), "{log}");
    let recipe = place.path("several.toml");
    let nameless = start(&["run", text(&recipe), "--out", "/", "--nproc", "2"]);
    let output = nameless.wait_with_output().unwrap();
    assert_refused("no name", &output, &["--out", "needs a name"]);
    assert!(!Path::new("/-ranks").exists());
}

/// A run that every rank refuses leaves nothing, and arguments about ranks are refused where there is only one.
#[test]
fn a_refused_run_of_several_ranks_leaves_no_logs() {
    let place = Place::new();
    write_recipe(&place);
    let recipe = place.path("several.toml");
    let refused = |out: &str, more: &[&str]| {
        let out = place.path(out);
        let arguments = [&["run", text(&recipe), "--out", text(&out)], more].concat();
        start(&arguments).wait_with_output().unwrap()
    };
    let wrong = ["--nproc", "2", "--set", "optimizer.beta1=2"];
    assert_refused("a setting", &refused("new", &wrong), &["optimizer.beta1"]);
    assert!(!place.path("new").exists() && !place.path("new-ranks").exists());
    let kept = place.path("kept-ranks");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("rank-1.log"), "my log\n").unwrap();
    assert_refused("a setting", &refused("kept", &wrong), &["optimizer.beta1"]);
    let log = fs::read_to_string(kept.join("rank-1.log")).unwrap();
    assert!(log.starts_with("my log\n"), "{log}");
    for option in [
        ["--sum-order", "library"],
        ["--rank-timeout", "30"],
        ["--gradients", "host"],
    ] {
        let output = refused("single", &option);
        assert_refused(option[0], &output, &[option[0], "in a single process"]);
        assert!(!place.path("single").exists());
    }
}

/// `--rank-timeout` also limits the wait at the start.
#[test]
fn ranks_wait_at_the_start_as_long_as_they_are_told() {
    let place = Place::new();
    write_recipe(&place);
    let (recipe, out) = (place.path("several.toml"), place.path("alone"));
    let begun = Instant::now();
    let output = program_with(
        &[
            "run",
            text(&recipe),
            "--out",
            text(&out),
            "--device",
            "flex",
            "--lines",
            "--rank-timeout",
            "2",
        ],
        &[
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_PORT", "9"),
        ],
    );
    assert_refused("no rank 0", &output, &["in 2 s", "MASTER_PORT"]);
    assert!(begun.elapsed() < Duration::from_secs(60));
}
