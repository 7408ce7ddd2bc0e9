//! Settings that are off by default: averaged weights, sequence-length warmup, gradual rotary base, a limit on the gradient norm.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use modernbert::checkpoint::{TensorFiles, read_config};
use place::{Place, WEIGHTS, assert_success, program, recipe, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The small recipe of all tests with a checkpoint at every fourth step, all of which are kept, and `more`.
fn write_recipe(place: &Place, name: &str, more: &str) {
    let plain = recipe(&place.path("corpus"));
    let plain = plain.replace("log_every_steps = 4", "log_every_steps = 1");
    let kept = "[checkpoint]\nevery_steps = 4\nkeep_every_steps = 4\n";
    place.write(name, format!("{plain}\n{kept}\n{more}"));
}

fn run(place: &Place, recipe: &str, out: &str) -> (PathBuf, String) {
    let (recipe, out) = (place.path(recipe), place.path(out));
    let arguments = ["run", text(&recipe), "--out", text(&out)];
    let output = program(&[&arguments[..], &["--device", "flex", "--lines"]].concat());
    let said = assert_success(&output);
    (out, said)
}

/// Resumes from step 8 of a copy of `run`, and checks that the result is that of the uninterrupted run, bit for bit.
fn assert_resumes(place: &Place, run: &Path) {
    let copy = place.path("resumed");
    copy_folder(run, &copy);
    let arguments = ["resume", text(&copy), "--from", "step-8"];
    assert_success(&program(
        &[&arguments[..], &["--device", "flex", "--lines"]].concat(),
    ));
    let said = assert_success(&program(&["diff", text(run), text(&copy)]));
    assert!(said.starts_with("identical: "), "{said}");
    assert!(fs::read(run.join(WEIGHTS)).unwrap() == fs::read(copy.join(WEIGHTS)).unwrap());
    fs::remove_dir_all(copy).unwrap();
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

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let found = modernbert_train::run_dir::list_checkpoints(run).unwrap();
    found.into_iter().map(|one| one.path).collect()
}

/// The tensors of a file whose name ends in `suffix`, by their name without it.
fn tensors(file: &Path, suffix: &str) -> BTreeMap<String, Vec<f32>> {
    let files = TensorFiles::open(file).unwrap();
    let names: Vec<String> = files.names().map(ToString::to_string).collect();
    let read = |name: &String| {
        let plain = name.strip_suffix(suffix)?.to_owned();
        Some((plain, files.read(name).unwrap().unwrap().1))
    };
    names.iter().filter_map(read).collect()
}

fn rows(run: &Path, split: &str) -> Vec<Value> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = log.lines().map(|line| serde_json::from_str(line).unwrap());
    rows.filter(|row: &Value| row["split"] == split).collect()
}

fn losses(run: &Path, split: &str) -> Vec<f64> {
    let loss = |row: &Value| row["loss"].as_f64().unwrap();
    rows(run, split).iter().map(loss).collect()
}

#[test]
fn averaged_weights_are_resumed_evaluated_and_exported() {
    let place = Place::new();
    let average = "[ema]\nhalf_life_steps = 5\nevery_steps = 2\n";
    write_recipe(&place, "off.toml", "");
    write_recipe(&place, "on.toml", average);
    write_recipe(&place, "kept.toml", &format!("{average}evaluate = false\n"));
    let (off, _) = run(&place, "off.toml", "off");
    let (on, _) = run(&place, "on.toml", "on");
    let (kept, _) = run(&place, "kept.toml", "kept");

    // Training does not depend on the average; evaluations are those of the average where the recipe says so.
    let trained = losses(&off, "train");
    assert!(trained.len() > 20);
    assert_eq!(losses(&on, "train"), trained);
    assert_eq!(losses(&kept, "train"), trained);
    assert_eq!(losses(&kept, "eval"), losses(&off, "eval"));
    assert_ne!(losses(&on, "eval"), losses(&off, "eval"));

    let last = |run: &Path| checkpoints(run).pop().unwrap();
    let state = |run: &Path| last(run).join("optimizer.safetensors");
    assert!(tensors(&state(&off), ".average").is_empty());
    let averages = tensors(&state(&on), ".average");
    assert!(averages == tensors(&state(&kept), ".average"));
    let weights = tensors(&last(&on).join(WEIGHTS), "");
    assert!(weights == tensors(&last(&off).join(WEIGHTS), ""));
    assert_eq!(
        averages.keys().collect::<Vec<_>>(),
        weights.keys().collect::<Vec<_>>()
    );
    assert!(averages != weights);

    // The run's model, and an exported checkpoint.
    let export = |run: &Path, name: &str| {
        let out = place.path(name);
        assert_success(&program(&["export", text(&last(run)), text(&out)]));
        tensors(&out.join(WEIGHTS), "")
    };
    assert!(tensors(&on.join(WEIGHTS), "") == averages);
    assert!(export(&on, "export-on") == averages);
    assert!(tensors(&kept.join(WEIGHTS), "") == weights);
    assert!(export(&kept, "export-kept") == weights);
    // The mean of one checkpoint is what is evaluated.
    let (newest, mean) = (last(&on), place.path("mean"));
    let arguments = ["average", text(&newest), "--out", text(&mean)];
    assert_success(&program(&arguments));
    assert!(tensors(&mean.join(WEIGHTS), "") == averages);

    assert_resumes(&place, &on);
}

#[test]
fn a_run_with_a_length_warmup_has_full_steps_and_resumes() {
    let place = Place::new();
    write_recipe(&place, "plain.toml", "");
    let ramp = [
        "data.length_warmup_tokens=\"60%\"",
        "data.length_warmup_from=8",
        "data.length_warmup_step=8",
    ];
    let (plain, _) = run(&place, "plain.toml", "plain");
    let (path, out) = (place.path("plain.toml"), place.path("short"));
    let mut arguments = vec!["run", text(&path), "--out", text(&out)];
    arguments.extend(["--device", "flex", "--lines"]);
    for setting in &ramp {
        arguments.extend(["--set", setting]);
    }
    let said = assert_success(&program(&arguments));
    for row in rows(&out, "train") {
        assert_eq!(row["batch_tokens"], 256, "{row}");
    }
    // The first rows are others, and evaluations are of whole sequences in both runs.
    assert_ne!(losses(&out, "train")[0], losses(&plain, "train")[0]);
    assert!(!said.is_empty());
    let stored = fs::read_to_string(out.join("recipe.toml")).unwrap();
    assert!(
        stored.contains("length_warmup_tokens = \"60%\""),
        "{stored}"
    );
    assert_resumes(&place, &out);
    for (settings, said) in [
        (
            &["data.length_warmup_tokens=6001"][..],
            "data.length_warmup_tokens is 6001; it exceeds run.total_tokens (6000)",
        ),
        (
            &[
                "data.length_warmup_tokens=100",
                "data.length_warmup_from=64",
            ],
            "data.length_warmup_from is 64; a warmup grows to data.sequence_length (64)",
        ),
        (
            &[
                "data.length_warmup_tokens=100",
                "data.length_warmup_from=8",
                "batch.packing=false",
            ],
            "it needs batch.packing",
        ),
    ] {
        let more: Vec<&str> = settings.iter().flat_map(|one| ["--set", *one]).collect();
        place.refuses("a length warmup", &more, &[said]);
    }
}

#[test]
fn the_rotary_base_follows_its_ramp_and_resumes() {
    let place = Place::new();
    let plain = recipe(&place.path("corpus"));
    let plain = plain.replace(
        "[data]",
        "global_rope_theta = 160_000.0\nrope_warmup_tokens = 4000\n\n[data]",
    );
    place.write(
        "ramp.toml",
        format!("{plain}\n[checkpoint]\nevery_steps = 4\nkeep_every_steps = 4\n"),
    );
    let (out, _) = run(&place, "ramp.toml", "ramp");
    let mut bases = Vec::new();
    for checkpoint in checkpoints(&out) {
        let state = fs::read_to_string(checkpoint.join("state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        let seen = state["phase_tokens"].as_u64().unwrap();
        // From 10 000 to 160 000 in 15 steps over 4000 tokens.
        let expected = (10_000.0 + (seen as f64 / 4000.0 * 15.0).floor() * 10_000.0).min(160_000.0);
        let config = read_config(&checkpoint).unwrap();
        assert_eq!(config.global_rope_theta, expected, "after {seen} tokens");
        assert_eq!(config.local_rope_theta, 10_000.0);
        bases.push(expected);
    }
    let mut different = bases.clone();
    different.dedup();
    assert!(different.len() >= 4 && bases[0] < 60_000.0, "{bases:?}");
    assert_eq!(bases.last(), Some(&160_000.0));
    assert_eq!(read_config(&out).unwrap().global_rope_theta, 160_000.0);
    assert_resumes(&place, &out);
    // The ramp has an effect on training.
    let at_once = plain.replace("rope_warmup_tokens = 4000\n", "");
    place.write("at-once.toml", at_once);
    let (at_once, _) = run(&place, "at-once.toml", "at-once");
    assert_ne!(
        fs::read(out.join(WEIGHTS)).unwrap(),
        fs::read(at_once.join(WEIGHTS)).unwrap()
    );
}

/// Euclidean norm of all tensors as one vector.
fn norm(tensors: &BTreeMap<String, Vec<f32>>) -> f64 {
    let values = tensors.values().flatten();
    values.map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// The first moments after each step of a run, from its checkpoints.
fn first_moments(run: &Path) -> Vec<BTreeMap<String, Vec<f32>>> {
    let files = checkpoints(run).into_iter();
    let mut moments: Vec<_> = files
        .map(|checkpoint| {
            let found = tensors(&checkpoint.join("optimizer.safetensors"), ".moment_1");
            (checkpoint, found)
        })
        .collect();
    moments.sort_by(|a, b| a.0.cmp(&b.0));
    moments.into_iter().map(|(_, found)| found).collect()
}

/// A whole run with `optimizer.max_grad_norm`: it warns, the gradient of every step has the norm of the limit, and a limit above all norms
/// changes no bit.
#[test]
fn a_limit_on_the_gradient_norm_warns_and_scales_every_step() {
    const LIMIT: f64 = 0.01;
    let place = Place::new();
    let plain = recipe(&place.path("corpus"))
        .replace("log_every_steps = 4", "log_every_steps = 1")
        .replace("total_tokens = 6000", "total_tokens = 2000")
        .replace("eval_every_tokens = 3000", "eval_every_tokens = 1000");
    let kept = "[checkpoint]\nevery_steps = 1\nkeep_every_steps = 1\n";
    let run_with = |name: &str, limit: &str| {
        let settings = plain.replace(
            "learning_rate = 1e-2",
            &format!("learning_rate = 1e-2{limit}"),
        );
        place.write(name, format!("{settings}\n{kept}"));
        run(&place, name, &format!("out-{name}"))
    };
    let (free, silent) = run_with("free", "");
    let (wide, warned) = run_with("wide", "\nmax_grad_norm = 1e9");
    let (clipped, warned_too) = run_with("clipped", &format!("\nmax_grad_norm = {LIMIT}"));
    let warning = "warning: optimizer.max_grad_norm is";
    assert!(!silent.contains(warning), "{silent}");
    assert!(
        warned.contains(&format!("{warning} 1000000000,")),
        "{warned}"
    );
    assert!(
        warned_too.contains(&format!("{warning} {LIMIT},")),
        "{warned_too}"
    );

    let weights = |run: &Path| fs::read(run.join(WEIGHTS)).unwrap();
    let (usual, scaled) = (first_moments(&free), first_moments(&clipped));
    assert!(
        weights(&free) == weights(&wide),
        "a limit of 1e9 changes weights"
    );
    assert_eq!(losses(&free, "train"), losses(&wide, "train"));
    assert!(usual == first_moments(&wide));
    assert!(
        weights(&free) != weights(&clipped),
        "the clip changes nothing"
    );

    // The log has the norms before clipping, all above the limit.
    let norms = |run: &Path| -> Vec<f64> {
        let rows = rows(run, "train");
        rows.iter()
            .map(|row| row["grad_norm"].as_f64().unwrap())
            .collect()
    };
    let (before, all) = (norms(&free), norms(&clipped));
    assert_eq!((all.len(), before[0]), (scaled.len(), all[0]));
    assert!(
        all.len() > 6 && all.iter().all(|&norm| norm > 3.0 * LIMIT),
        "{all:?}"
    );
    // Both betas are 0 in the first step, so its first moment is its gradient.
    assert!(
        (norm(&usual[0]) / before[0] - 1.0).abs() < 1e-5,
        "{before:?}"
    );
    let factor = LIMIT / (before[0] + 1e-6);
    for (name, gradient) in &usual[0] {
        for (&gradient, &clipped) in gradient.iter().zip(&scaled[0][name]) {
            let expected = f64::from(gradient) * factor;
            let error = (f64::from(clipped) - expected).abs();
            assert!(
                error <= 1e-6 * expected.abs() + 1e-30,
                "{name}: {clipped} {expected}"
            );
        }
    }
    // The gradients of later steps follow from two moments: m = m' + (1 - b)(g - m').
    for step in 2..=scaled.len() {
        let power = 0.9f64.powi(step as i32);
        let b = (power - 0.9) / (power - 1.0);
        let (last, now) = (&scaled[step - 2], &scaled[step - 1]);
        let gradient = now.iter().map(|(name, now)| {
            let of = |(&now, &last): (&f32, &f32)| last + (now - last) / (1.0 - b) as f32;
            (name.clone(), now.iter().zip(&last[name]).map(of).collect())
        });
        let found = norm(&gradient.collect());
        assert!((found / LIMIT - 1.0).abs() < 1e-3, "step {step}: {found}");
    }
}

/// `optimizer.kind = "adamw"` from its recipe to the moments of its checkpoints: its betas have no correction, clipping comes without a warning,
/// and a checkpoint continues bit for bit.
#[test]
fn a_run_of_adamw_clips_without_a_warning_and_resumes() {
    const LIMIT: f64 = 0.01;
    let place = Place::new();
    let rule = format!("learning_rate = 1e-2\nkind = 'adamw'\nmax_grad_norm = {LIMIT}");
    let plain = recipe(&place.path("corpus"))
        .replace("log_every_steps = 4", "log_every_steps = 1")
        .replace("total_tokens = 6000", "total_tokens = 2000")
        .replace("eval_every_tokens = 3000", "eval_every_tokens = 1000")
        .replace("learning_rate = 1e-2", &rule);
    let kept = "[checkpoint]\nevery_steps = 1\nkeep_every_steps = 1\n";
    place.write("adamw", format!("{plain}\n{kept}"));
    let (out, said) = run(&place, "adamw", "out");
    assert!(!said.contains("warning: optimizer.max_grad_norm"), "{said}");

    // m = β1 m' + (1 - β1) g, and every gradient has the norm of the limit.
    let moments = first_moments(&out);
    assert!(moments.len() > 8, "{}", moments.len());
    for (step, now) in moments.iter().enumerate() {
        let last = step.checked_sub(1).map(|before| &moments[before]);
        let gradient = now.iter().map(|(name, now)| {
            let last = |i: usize| last.map_or(0.0, |last| last[name][i]);
            let of = |(i, &now): (usize, &f32)| (now - 0.9 * last(i)) / 0.1;
            (name.clone(), now.iter().enumerate().map(of).collect())
        });
        let found = norm(&gradient.collect());
        assert!((found / LIMIT - 1.0).abs() < 1e-3, "step {step}: {found}");
    }
    assert_resumes(&place, &out);
    let described = assert_success(&program(&["inspect", text(&place.path("adamw"))]));
    assert!(described.contains("optimizer: adamw"), "{described}");
}

#[test]
fn shapes_are_scored_and_searched() {
    let ask = |arguments: &[&str]| {
        let output = program(&[&["shapes"], arguments].concat());
        assert_success(&output)
    };
    let said = ask(&["base", "large", "640x1000x21"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[0].contains("149") && lines[0].ends_with("score 0.4489"),
        "{said}"
    );
    assert!(lines[1].ends_with("score 0.4057"), "{said}");
    assert!(lines[2].contains("21 layers are an odd number"), "{said}");
    let search = [
        "--parameters",
        "130_000_000..150_000_000",
        "--hidden",
        "768",
    ];
    let found: Value = serde_json::from_str(&ask(&[&search[..], &["--json"]].concat())).unwrap();
    assert_eq!(found["found"], 9);
    let shapes = found["shapes"].as_array().unwrap();
    assert_eq!(shapes[4]["encoder_parameters"], 149_014_272);
    assert_eq!(shapes[0]["intermediate_size"], 3072);
    assert!(
        shapes
            .iter()
            .all(|shape| shape["broken_constraints"].as_array().unwrap().is_empty())
    );
    let one: Value = serde_json::from_str(&ask(&["base", "--gpus", "A100,132", "--json"])).unwrap();
    let gpus = one["shapes"][0]["gpus"].as_array().unwrap();
    assert_eq!(gpus.len(), 2);
    assert!((gpus[0]["utilization"].as_f64().unwrap() - 0.357_638_889).abs() < 1e-9);
    assert_eq!(gpus[1]["sms"], 132);
    for (arguments, said) in [
        (&["768x1152"][..], "768x1152x22"),
        (&["base", "--gpus", "Z9"], "RTX 4090"),
        (&["--parameters", "9..8"], "the range is empty"),
        (&["base", "768x1152x22"], "768x1152x22 is named twice"),
        (&["64x128x4", "64,128,4"], "64x128x4 is named twice"),
        (&["base", "--gpus", "H100,h100"], "--gpus has H100 twice"),
    ] {
        let output = program(&[&["shapes"], arguments].concat());
        place::assert_refused("shapes", &output, &[said]);
    }
}
