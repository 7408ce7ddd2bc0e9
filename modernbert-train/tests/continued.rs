//! Continued pretraining of a published model, and the corpus that long recipes ask for.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use modernbert::checkpoint::{TensorFiles, read_config};
use place::{Place, WEIGHTS, assert_refused, assert_success, program, text};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A folder with a published model: weights, config and tokenizer alone, as the Hub has them.
fn place() -> Place {
    let place = Place::new();
    assert_success(&place.run("first", &[]));
    fs::create_dir(place.path("model")).unwrap();
    for name in [
        WEIGHTS,
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        fs::copy(
            place.path("first").join(name),
            place.path("model").join(name),
        )
        .unwrap();
    }
    place.write(
        "continue.toml",
        "[data]\ncorpus = 'corpus'\neval_bytes = 4000\nsequence_length = 64\n[batch]\ntokens = 256\n[optimizer]\n\
         learning_rate = 1e-3\n[run]\ntotal_tokens = 3000\neval_every_tokens = 1500\neval_tokens = 1024\nlog_every_steps = 1\n",
    );
    place
}

fn go(place: &Place, out: &str, more: &[&str]) -> std::process::Output {
    let (recipe, out) = (place.path("continue.toml"), place.path(out));
    let mut arguments = vec![
        "run",
        text(&recipe),
        "--device",
        "flex",
        "--out",
        text(&out),
    ];
    arguments.extend(more);
    program(&arguments)
}

/// Losses of the training rows of a log.
fn losses(out: &Path) -> Vec<f64> {
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rows = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row["split"] == "train")
        .map(|row| row["loss"].as_f64().unwrap())
        .collect()
}

#[test]
fn a_published_model_goes_on_with_its_tokenizer_and_a_fresh_optimizer() {
    let place = place();
    let model = place.path("model");
    let stdout = assert_success(&go(&place, "second", &["--from", text(&model)]));
    assert!(stdout.contains("the optimizer is fresh"), "{stdout}");
    assert!(stdout.contains(" epochs)"), "{stdout}");
    let out = place.path("second");
    // The loss begins near where the model ended, far below that of random weights.
    let (first, second) = (losses(&place.path("first")), losses(&out));
    assert!(second[0] < first[0] - 0.5, "{} {}", first[0], second[0]);
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let row: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(row["step"], 1, "{row}");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let read = |folder: &Path| fs::read(folder.join(name)).unwrap();
        assert_eq!(read(&out), read(&model), "{name}");
    }
    let sizes = |folder: &Path| {
        let config = read_config(folder).unwrap();
        (
            config.hidden_size,
            config.num_hidden_layers,
            config.vocab_size,
        )
    };
    assert_eq!(sizes(&out), sizes(&model));
    let recipe = fs::read_to_string(out.join("recipe.toml")).unwrap();
    assert!(
        recipe.contains(&format!("from = {:?}", text(&model))),
        "{recipe}"
    );

    // The same by the recipe's own key, relative to the recipe: the same weights.
    let written = fs::read_to_string(place.path("continue.toml")).unwrap();
    place.write("continue.toml", format!("model.from = 'model'\n{written}"));
    assert_success(&go(&place, "third", &[]));
    let weights = |name: &str| fs::read(place.path(name).join(WEIGHTS)).unwrap();
    assert_eq!(weights("second"), weights("third"));
    // The model that was continued is as it was.
    assert_eq!(weights("model"), weights("first"));

    // Interrupted before the first checkpoint, it starts again from the same model; a resumed run needs only its folder.
    fs::remove_dir_all(out.join("checkpoints")).unwrap();
    fs::remove_file(out.join(WEIGHTS)).unwrap();
    assert_success(&program(&["resume", text(&out), "--device", "flex"]));
    assert_eq!(weights("second"), weights("third"));
}

#[test]
fn a_published_model_is_annealed() {
    let place = place();
    let (model, corpus, out) = (
        place.path("model"),
        place.path("corpus"),
        place.path("annealed"),
    );
    let mut arguments = vec![
        "anneal",
        text(&model),
        "--tokens",
        "3_000",
        "--out",
        text(&out),
    ];
    arguments.extend(["--corpus", text(&corpus), "--device", "flex"]);
    for setting in [
        "run.precision=f32",
        "data.sequence_length=64",
        "data.eval_bytes=4000",
        "batch.tokens=256",
        "batch.micro_batches=1",
        "run.eval_tokens=512",
        "run.log_every_steps=1",
    ] {
        arguments.extend(["--set", setting]);
    }
    assert_success(&program(&arguments));
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let rows: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let rates: Vec<f64> = rows.iter().filter_map(|row| row["lr"].as_f64()).collect();
    assert!(
        rates[0] > 2e-4 && *rates.last().unwrap() < 3e-5,
        "{rates:?}"
    );
    assert!(TensorFiles::open(&out.join(WEIGHTS)).is_ok());
    arguments.truncate(6);
    let other = place.path("other");
    arguments[5] = text(&other);
    assert_refused(
        "no corpus",
        &program(&arguments),
        &["--corpus PATH", "1 epoch or so"],
    );
}

#[test]
fn a_model_that_cannot_be_continued_is_named_with_a_remedy() {
    let place = place();
    let model = place.path("model");
    let from = text(&model);
    for (more, said) in [
        (
            &["--set", "model.hidden_size=64"][..],
            &["model.hidden_size is 64", "leave it out"][..],
        ),
        (
            &["--set", "data.tokenizer=other"],
            &["data.tokenizer", "leave data.tokenizer out"],
        ),
        (
            &["--set", "data.sequence_length=128"],
            &["--set data.sequence_length=128", "64"],
        ),
    ] {
        let more = [&["--from", from], more].concat();
        assert_refused(more[3], &go(&place, "refused", &more), said);
    }
    let output = go(&place, "refused", &["--from", text(&place.path("nowhere"))]);
    assert_refused("nowhere", &output, &["nowhere", "there is no such folder"]);
    let offline = [("HF_HUB_OFFLINE", "1")];
    let output = place::program_with(
        &[
            "run",
            "continue",
            "--corpus",
            text(&place.path("corpus")),
            "--out",
            text(&place.path("refused")),
            "--from",
            "nobody/nothing",
        ],
        &offline,
    );
    assert_refused(
        "a name",
        &output,
        &["there is no folder nobody/nothing", "nobody/nothing"],
    );
    assert!(!place.path("refused").exists());
    // The folder of the model is refused as the run's folder.
    let output = program(&[
        "run",
        text(&place.path("continue.toml")),
        "--from",
        from,
        "--out",
        from,
    ]);
    assert_refused("into itself", &output, &["same as the input"]);
    let output = program(&[
        "run",
        text(&place.path("continue.toml")),
        "--from",
        from,
        "--out",
        text(&model.join("run")),
    ]);
    assert_refused("inside of it", &output, &["inside the input"]);
    // A head that is missing is named with the model.
    let files = TensorFiles::open(&model.join(WEIGHTS)).unwrap();
    let kept: Vec<(String, Vec<usize>, Vec<u8>)> = files
        .names()
        .filter(|name| !name.starts_with("decoder") && !name.starts_with("head"))
        .map(|name| {
            let (shape, values) = files.read(name).unwrap().unwrap();
            (
                name.to_string(),
                shape,
                values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        })
        .collect();
    let tensors: Vec<_> = kept
        .iter()
        .map(|(name, shape, bytes)| modernbert::checkpoint::F32Tensor { name, shape, bytes })
        .collect();
    modernbert::checkpoint::write_safetensors(&model.join(WEIGHTS), &tensors).unwrap();
    let output = go(&place, "headless", &["--from", from]);
    assert_refused("no head", &output, &["model.from", "is missing"]);
}

#[test]
fn a_long_recipe_asks_for_a_corpus() {
    let place = Place::new();
    let out = place.path("out");
    for recipe in ["base", "large"] {
        let output = program(&["run", recipe, "--device", "flex", "--out", text(&out)]);
        let said = ["--corpus PATH", "epochs", "data.corpus=registry"];
        assert_refused(recipe, &output, &said);
        assert!(!out.exists(), "{recipe}");
    }
}

#[test]
fn a_complaint_about_a_recipe_begins_with_its_line() {
    let place = Place::new();
    let recipe = text(&place.path("recipe.toml")).to_string();
    let good = fs::read_to_string(&recipe).unwrap();
    for (from, to, said) in [
        ("tokens = 256", "tokens = 32", "batch.tokens is 32"),
        ("tokens = 256", "tokens = ''", "found the text"),
        ("tokens = 256", "token = 256", "no setting batch.token"),
        ("tokens = 256", "tokens = ", "batch"),
    ] {
        let edited = good.replacen(from, to, 1);
        let line = 1 + edited
            .lines()
            .position(|line| line == to.trim_end() || line == to)
            .unwrap();
        place.write("recipe.toml", &edited);
        let output = place.run("refused", &[]);
        let place_of = format!("error: {recipe}:{line}: ");
        assert_refused(to, &output, &[&place_of]);
        if said != "batch" {
            assert_refused(to, &output, &[said]);
        }
    }
    place.write("recipe.toml", &good);
    let set = ["--set", "batch.tokens=32"];
    assert_refused(
        "--set",
        &place.run("refused", &set),
        &["error: --set batch.tokens=32: "],
    );
    // An empty variable of the environment is not set.
    let (recipe, out) = (place.path("recipe.toml"), place.path("out"));
    let arguments = ["run", text(&recipe), "--out", text(&out)];
    assert_success(&place::program_with(
        &arguments,
        &[("MODERNBERT_DEVICE", "")],
    ));
}

#[cfg(unix)]
#[test]
fn paths_that_are_not_utf8_are_no_panic() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let place = Place::new();
    let odd = place
        .path("x")
        .with_file_name(OsString::from_vec(b"odd-\xff".to_vec()));
    let recipe = place.path("recipe.toml");
    let corpus = odd.join("corpus");
    fs::create_dir_all(&corpus).unwrap();
    for entry in fs::read_dir(place.path("corpus")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), corpus.join(entry.file_name())).unwrap();
    }
    fs::copy(&recipe, odd.join("recipe.toml")).unwrap();
    let run = |arguments: &[&std::ffi::OsStr]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_modernbert-train"))
            .args(arguments)
            .args(["--device", "flex"])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{stderr}");
        (output.status.code(), stderr)
    };
    let arg = |text: &'static str| std::ffi::OsStr::new(text);
    // A recipe can't name such a path, as TOML is UTF-8: the message says so.
    let (code, stderr) = run(&[
        arg("run"),
        recipe.as_os_str(),
        arg("--corpus"),
        corpus.as_os_str(),
        arg("--out"),
        place.path("a").as_os_str(),
    ]);
    assert!(code == Some(2) && stderr.contains("error:"), "{stderr}");
    let out = odd.join("out");
    let (code, stderr) = run(&[
        arg("run"),
        recipe.as_os_str(),
        arg("--out"),
        out.as_os_str(),
    ]);
    assert!(code == Some(0) || code == Some(2), "{stderr}");
    let (code, _) = run(&[
        arg("run"),
        odd.join("recipe.toml").as_os_str(),
        arg("--out"),
        place.path("b").as_os_str(),
    ]);
    assert!(code == Some(0) || code == Some(2));
    let (code, _) = run(&[
        arg("run"),
        recipe.as_os_str(),
        arg("--from"),
        odd.as_os_str(),
        arg("--out"),
        place.path("c").as_os_str(),
    ]);
    assert_eq!(code, Some(2));
}
