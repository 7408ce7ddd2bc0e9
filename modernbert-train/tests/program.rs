//! The program as a person runs it: from a recipe and text to a model folder, and its messages about input that it can't use.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use place::{Place, WEIGHTS, assert_refused, assert_success, program, recipe, text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

fn rows(out: &Path) -> Vec<Value> {
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The `name: key=value …` line that programs read.
fn summary<'a>(stdout: &'a str, name: &str) -> BTreeMap<&'a str, &'a str> {
    let last = stdout.lines().last().unwrap();
    let pairs = last
        .strip_prefix(&format!("{name}: "))
        .unwrap_or_else(|| panic!("the last line is {last:?}"));
    let pairs: Vec<_> = pairs
        .split(' ')
        .map(|pair| pair.split_once('=').unwrap())
        .collect();
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
    let expected = [
        "loss_start",
        "loss_end",
        "unigram_loss",
        "top1",
        "unigram_top1",
        "tok_s",
        "seconds",
        "out",
    ];
    assert_eq!(keys, expected, "{last}");
    pairs.into_iter().collect()
}

fn number(summary: &BTreeMap<&str, &str>, key: &str) -> f64 {
    let value: f64 = summary[key].parse().unwrap();
    assert!(value.is_finite(), "{key} is {value}");
    value
}

#[test]
fn a_recipe_becomes_a_model_folder_whose_loss_has_fallen() {
    let place = Place::new();
    let stdout = assert_success(&place.run("out", &[]));
    let out = place.path("out");

    let line = summary(&stdout, "run");
    let (start, end) = (number(&line, "loss_start"), number(&line, "loss_end"));
    assert!(end < start - 0.5, "{start} -> {end}");
    // The loss of an untrained model is about that of a uniform distribution over all ids.
    assert!((start - 384f64.ln()).abs() < 0.7, "{start}");
    for key in ["top1", "unigram_top1"] {
        assert!((0.0..=1.0).contains(&number(&line, key)), "{line:?}");
    }
    for key in ["unigram_loss", "tok_s"] {
        assert!(number(&line, key) > 0.0, "{line:?}");
    }
    assert!(number(&line, "seconds") >= 0.0);
    assert_eq!(line["out"], text(&out));

    for name in [
        WEIGHTS,
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "recipe.toml",
        "metrics.jsonl",
        "loss.png",
    ] {
        let size = fs::metadata(out.join(name)).map(|data| data.len());
        assert!(
            size.as_ref().is_ok_and(|&size| size > 0),
            "{name}: {size:?}"
        );
    }
    let picture = fs::read(out.join("loss.png")).unwrap();
    assert_eq!(picture[..8], *b"\x89PNG\r\n\x1a\n");
    for entry in fs::read_dir(&out).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            !name.to_string_lossy().starts_with('.'),
            "a temporary file is left: {name:?}"
        );
    }
    let config: Value =
        serde_json::from_str(&fs::read_to_string(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "modernbert");
    assert_eq!(config["vocab_size"], 384);

    // The corpus isn't needed any more: the folder alone is a model.
    fs::remove_dir_all(place.path("corpus")).unwrap();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    modernbert::model::MaskedLm::load(modernbert::Loader::new(&out).device(&device)).unwrap();
    let tokenizer = modernbert::tokenizer::Tokenizer::from_folder(&out).unwrap();
    assert_eq!(tokenizer.vocab_size(), 384);
}

#[test]
fn every_row_of_the_log_says_what_it_measured() {
    let place = Place::new();
    for (out, more) in [
        ("plain", &[][..]),
        ("mfu", &["--peak-tflops", "0.5", "--lines"][..]),
    ] {
        assert_success(&place.run(out, more));
        let rows = rows(&place.path(out));
        let mut last = (0, 0);
        for row in &rows {
            let split = row["split"].as_str().unwrap();
            let place = (
                row["step"].as_u64().unwrap(),
                row["tokens"].as_u64().unwrap(),
            );
            assert!(place >= last && place.0 > 0, "{row}");
            last = place;
            assert!(row["loss"].as_f64().unwrap() > 0.0, "{row}");
            let accuracy = row["masked_accuracy"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&accuracy), "{row}");
            match split {
                "train" => {
                    assert!(row["lr"].as_f64().unwrap() >= 0.0, "{row}");
                    assert!(row["tok_s"].as_f64().unwrap() > 0.0, "{row}");
                    assert!(
                        (0.0..=1.0).contains(&row["data_wait"].as_f64().unwrap()),
                        "{row}"
                    );
                    match row.get("mfu") {
                        Some(mfu) => assert!(out == "mfu" && mfu.as_f64().unwrap() > 0.0, "{row}"),
                        None => assert_eq!(out, "plain", "{row}"),
                    }
                }
                "eval" => assert!(row.get("lr").is_none() && row.get("mfu").is_none(), "{row}"),
                other => panic!("unknown split {other}"),
            }
        }
        assert!(last.1 >= 6000, "the budget of tokens is spent: {last:?}");
        let of = |split: &str| rows.iter().filter(|row| row["split"] == split).count();
        assert!(of("train") >= 4 && of("eval") >= 2, "{rows:?}");
        assert_eq!(rows.last().unwrap()["split"], "eval");
    }
}

#[test]
fn the_same_recipe_gives_the_same_model_bit_for_bit() {
    let place = Place::new();
    let columns = |out: &str| -> Vec<[Value; 4]> {
        assert_success(&place.run(out, &[]));
        let keep = |row: &Value| ["split", "step", "tokens", "loss"].map(|key| row[key].clone());
        rows(&place.path(out)).iter().map(keep).collect()
    };
    assert_eq!(columns("first"), columns("second"));
    for name in [WEIGHTS, "config.json", "tokenizer.json"] {
        let [first, second] =
            ["first", "second"].map(|out| fs::read(place.path(out).join(name)).unwrap());
        assert!(first == second, "{name} differs");
    }

    // The interval between readbacks of losses changes no result.
    assert_success(&place.run("seldom", &["--set", "run.read_every_steps=5"]));
    let seldom = fs::read(place.path("seldom").join(WEIGHTS)).unwrap();
    assert!(seldom == fs::read(place.path("first").join(WEIGHTS)).unwrap());
    let of = |out: &str| {
        rows(&place.path(out))
            .iter()
            .map(|row| row["loss"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("seldom"), of("first"));

    assert_success(&place.run("other", &["--set", "run.seed=18"]));
    let [first, other] =
        ["first", "other"].map(|out| fs::read(place.path(out).join(WEIGHTS)).unwrap());
    assert!(first != other, "another seed must give another model");
}

#[test]
fn the_demo_takes_a_corpus_and_overrides() {
    let place = Place::new();
    let (corpus, out) = (place.path("corpus"), place.path("demo"));
    let one_file = {
        let mut all = String::new();
        for document in 0..40 {
            all += &fs::read_to_string(corpus.join(format!("{document:02}.txt"))).unwrap();
        }
        place.write("one.txt", all)
    };
    let overrides = [
        "model.hidden_size=32",
        "model.intermediate_size=48",
        "model.num_attention_heads=2",
        "data.tokenizer_vocab=384",
        "data.eval_bytes=4000",
        "data.sequence_length=64",
        "batch.tokens=256",
        "run.total_tokens=3000",
        "run.eval_tokens=512",
        "run.log_every_steps=2",
    ];
    let mut arguments = vec!["demo", "--corpus", text(&one_file), "--out", text(&out)];
    arguments.extend(["--device", "flex"]);
    for setting in &overrides {
        arguments.extend(["--set", setting]);
    }
    let stdout = assert_success(&program(&arguments));
    let line = summary(&stdout, "demo");
    assert!(number(&line, "loss_end") < number(&line, "loss_start"));
    assert!(stdout.contains("[MASK]"), "it shows predictions: {stdout}");
    assert!(out.join(WEIGHTS).is_file() && out.join("loss.png").is_file());
}

#[test]
fn text_that_cant_be_used_is_named_with_a_remedy() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    place.write("pictures/a.png", b"\x89PNG");
    place.write("latin1.txt", b"Grue\xdfe aus Bremen");
    place.write("rows.jsonl", "{\"text\": \"fine\"}\n{\"text\": \"cut");
    place.write("textless.jsonl", "{\"body\": \"fine\"}\n");
    place.write("broken.jsonl.gz", b"\x1f\x8b\x08\x00cut");
    place.write("tiny.txt", "a");
    for (corpus, said) in [
        ("nowhere", &["nowhere", "check the path"][..]),
        (
            "empty",
            &["empty", "no documents found", "pass a file or folder"],
        ),
        ("pictures", &["pictures", "no documents found", "1 files"]),
        ("pictures/a.png", &["a.png", "ends in", ".txt"]),
        ("latin1.txt", &["latin1.txt", "byte 4", "convert"]),
        (
            "rows.jsonl",
            &["rows.jsonl:2", "not JSON", "write one object"],
        ),
        ("textless.jsonl", &["textless.jsonl:1", "name the field"]),
        (
            "broken.jsonl.gz",
            &["broken.jsonl.gz", "download or compress it again"],
        ),
        ("tiny.txt", &["too small", "more text"]),
    ] {
        let setting = format!("data.corpus={:?}", text(&place.path(corpus)));
        place.refuses(corpus, &["--set", &setting], said);
    }
    let setting = "data.corpus=[]";
    place.refuses(setting, &["--set", setting], &["data.corpus", "registry"]);
}

#[test]
fn settings_that_make_no_sense_are_named_with_a_remedy() {
    let place = Place::new();
    for (setting, said) in [
        (
            "model.local_attention=0",
            &["local_attention is 0", "set"][..],
        ),
        (
            "model.num_attention_heads=5",
            &["num_attention_heads is 5", "divisor of hidden_size (32)"],
        ),
        (
            "model.num_attention_heads=32",
            &["num_attention_heads", "32"],
        ),
        (
            "model.global_attn_every_n_layers=0",
            &["global_attn_every_n_layers is 0", "set it to 1 or more"],
        ),
        (
            "model.num_hidden_layers=5",
            &["num_hidden_layers is 5", "use 4 or 7"],
        ),
        (
            "model.hidden_size=unset",
            &["model.hidden_size is missing", "give it"],
        ),
        (
            "data.corpus=",
            &["--set data.corpus=", "empty", "data.corpus=unset"],
        ),
        ("model.preset=gigantic", &["gigantic", "the presets are"]),
        (
            "model.vocab_size=64",
            &["model.vocab_size is 64", "set it to 384"],
        ),
        (
            "model.hiden_size=32",
            &["model.hiden_size", "nearest is model.hidden_size"],
        ),
        (
            "model.hidden_size=wide",
            &["model.hidden_size=wide", "found the text"],
        ),
        (
            "model.hidden_size",
            &["--set model.hidden_size", "key=value"],
        ),
        (
            "data.tokenizer_vocab=200",
            &["data.tokenizer_vocab is 200", "300 or more"],
        ),
        (
            "data.tokenizer=nowhere.json",
            &["nowhere.json", "tokenizer.json"],
        ),
        (
            "data.sequence_length=128",
            &["data.sequence_length is 128", "lower it"],
        ),
        ("batch.tokens=32", &["batch.tokens is 32", "raise it"]),
        (
            "batch.micro_batches=0",
            &["batch.micro_batches is 0", "1 or more"],
        ),
        ("mask.train=1.5", &["mask.train is 1.5", "below 1"]),
        (
            "optimizer.learning_rate=nan",
            &["optimizer.learning_rate", "positive"],
        ),
        (
            "run.total_tokens=10",
            &["run.total_tokens is 10", "raise it"],
        ),
        ("run.precision=f8", &["run.precision=f8", "`f32` or `bf16`"]),
    ] {
        place.refuses(setting, &["--set", setting], said);
    }
}

#[test]
fn arguments_that_contradict_each_other_are_refused() {
    let place = Place::new();
    let corpus = place.path("corpus");
    let bf16 = ["--dtype", "bf16", "--set", "run.precision=f32"];
    let said = ["--set run.precision=f32: --dtype sets that too"];
    place.refuses("--dtype twice", &bf16, &said);
    let twice = ["--corpus", text(&corpus), "--set", "data.corpus=registry"];
    let said = ["--set data.corpus=registry: --corpus sets that too"];
    place.refuses("corpus twice", &twice, &said);

    // The recipe's own dtype is replaced by `--set` alone; one that is equal contradicts nothing.
    let own = recipe(&corpus) + "precision = \"f32\"\n";
    place.write("recipe.toml", &own);
    let line = own.lines().count();
    let said = [
        &format!("recipe.toml:{line}: run.precision is f32, and --dtype is bf16"),
        "--set run.precision=bf16",
    ];
    place.refuses("--dtype", &["--dtype", "bf16"], &said);
    let corpus = ["--corpus", "nowhere", "--dtype", "f32"];
    place.refuses("--dtype", &corpus, &["nowhere"]);
    let one = "[[phase]]\nname = 'one'\n[[phase]]\nname = 'two'\n";
    place.write("recipe.toml", own + one);
    let other = ["--phase", "one", "--set", "phase.two.run.total_tokens=3000"];
    let said = [
        "phase.two.run.total_tokens",
        "--phase leaves this phase out",
    ];
    place.refuses("another phase", &other, &said);

    let nowhere = ["anneal", "nowhere", "--out", "refused", "--tokens", "5000"];
    for (set, said) in [
        ("run.total_tokens=300", "--tokens sets that too"),
        ("phase.anneal.run.total_tokens=9", "--tokens sets that too"),
    ] {
        let output = program(&[&nowhere[..], &["--set", set]].concat());
        assert_refused(set, &output, &[set, said]);
    }
}

/// An option that needs another one, and meets an argument that excludes the other one.
#[test]
fn options_without_effect_are_refused() {
    let out = ["--out", "refused"];
    for (given, option) in [
        (&["average", "a", "b", "--best", "3"][..], "--best"),
        (&["average", "a", "b", "--with-last"], "--with-last"),
        (&["shapes", "base", "--hidden", "768"], "--hidden"),
        (&["shapes", "base", "--layers", "12"], "--layers"),
        (&["shapes", "base", "--best", "3"], "--best"),
        (
            &[
                "tokenize",
                "a",
                "--tokenizer",
                "t",
                "--long-documents",
                "split",
            ],
            "--max-length",
        ),
        (
            &[
                "tokenize",
                "--mixture",
                "a",
                "--tokenizer",
                "t",
                "--text-field",
                "b",
            ],
            "--text-field",
        ),
        (
            &[
                "tokenize",
                "--mixture",
                "a",
                "--tokenizer",
                "t",
                "--token-field",
                "b",
            ],
            "--token-field",
        ),
        (
            &[
                "tokenize",
                "--mixture",
                "a",
                "--tokenizer",
                "t",
                "--licence",
                "b",
            ],
            "--licence",
        ),
    ] {
        let mut arguments = given.to_vec();
        if given[0] != "shapes" {
            arguments.extend(out);
        }
        assert_refused(option, &program(&arguments), &[option]);
    }
}

/// A closed standard output is an error, `/dev/null` as standard output is not.
#[cfg(unix)]
#[test]
fn a_closed_standard_output_loses_no_result() {
    use std::process::{Command, Stdio};
    let binary = env!("CARGO_BIN_EXE_modernbert-train");
    for arguments in [&["shapes", "base"][..], &["inspect", "base"]] {
        let output = tiny_models::programs::without_stdout(binary, arguments);
        assert_refused(arguments[0], &output, &["standard output is closed"]);
        let nowhere = Command::new(binary)
            .args(arguments)
            .stdout(Stdio::null())
            .status();
        assert!(nowhere.unwrap().success(), "{arguments:?}");
    }
}

#[test]
fn a_recipe_on_several_gpus_is_predicted_with_its_assumptions() {
    let said = programs_say(&["inspect", "base", "--world", "16", "--price", "2.5"]);
    for phrase in [
        "gpus: 16\n",
        "micro_batches_of_a_gpu: 3\n",
        "cost: ",
        "assumed: between hosts: 400 Gbit/s",
    ] {
        assert!(said.contains(phrase), "{phrase}: {said}");
    }
    let given = ["inspect", "base", "--world", "1", "--tok-s", "459938"];
    let said = programs_say(&given);
    assert!(said.contains("tokens_per_second: 459938 ("), "{said}");
    let refused = program(&["inspect", "base", "--world", "2", "--network", "0"]);
    assert_refused("no network", &refused, &["--network is 0"]);
    assert_refused(
        "no run",
        &program(&["inspect", "nothing", "--world", "2"]),
        &["nothing"],
    );
}

fn programs_say(arguments: &[&str]) -> String {
    place::assert_success(&program(arguments))
}

#[test]
fn a_recipe_that_cant_be_read_is_named_with_a_remedy() {
    let place = Place::new();
    let good = recipe(&place.path("corpus"));
    fs::remove_file(place.path("recipe.toml")).unwrap();
    place.refuses("missing", &[], &["recipe.toml", "modernbert-train/recipes"]);
    place.write("recipe.toml", good.replace("hidden_size", "hiden_size"));
    let said = [
        "recipe.toml",
        "no setting model.hiden_size",
        "model.hidden_size",
    ];
    place.refuses("unknown key", &[], &said);
    place.write("recipe.toml", good.replace("[batch]", "[batches]"));
    place.refuses(
        "unknown section",
        &[],
        &["recipe.toml", "batches", "batch.tokens"],
    );
    place.write("recipe.toml", "model = [");
    place.refuses("not TOML", &[], &["recipe.toml:1: ", "unclosed array"]);
    place.write("recipe.toml", "[model]\npreset = \"17m\"\n");
    place.refuses(
        "no [run]",
        &[],
        &["run.total_tokens is missing", "[[phase]]"],
    );
}

#[test]
fn a_device_or_dtype_that_isnt_there_is_named_with_what_is() {
    let place = Place::new();
    for device in ["gpu", "", "cuda:first"] {
        let known = ["unknown device", device, "this program knows", "flex"];
        place.refuses(device, &["--device", device], &known);
    }
    if !cfg!(feature = "cuda") {
        let said = ["cuda:0", "cargo feature `cuda`"];
        place.refuses("cuda:0", &["--device", "cuda:0"], &said);
    }
    for peak in ["0", "-1", "nan", "inf"] {
        let argument = format!("--peak-tflops={peak}");
        let said = ["--peak-tflops is", "above 0", "leave it out"];
        place.refuses(&argument, &[&argument], &said);
    }
    place.refuses("--dtype f8", &["--dtype", "f8"], &["f8", "`f32` or `bf16`"]);
}

#[test]
fn an_output_folder_that_cant_be_one_is_named_with_a_remedy() {
    let place = Place::new();
    let file = place.write("taken", "precious");
    let output = place.run("taken", &[]);
    assert_refused("a file", &output, &["taken", "--out"]);
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
    let output = place.run("taken/below", &[]);
    assert_refused("below a file", &output, &["below", "--out"]);
}

#[test]
fn a_failed_run_leaves_no_weights_behind() {
    let place = Place::new();
    let weights = |out: &str| place.path(out).join(WEIGHTS);
    let corpus = format!("data.corpus={:?}", text(&place.path("nowhere")));
    let output = place.run("no-text", &["--set", &corpus]);
    assert_refused("no text", &output, &["nowhere"]);
    assert!(!weights("no-text").exists());

    // Read at once or four steps at a time: the step is named, and not done.
    let rate = "optimizer.learning_rate=1e30";
    let late = ["--set", rate, "--set", "run.read_every_steps=4"];
    let output = place.run("diverged-unseen", &late);
    let said = ["of step 2 is not finite", "left as they were"];
    assert_refused("diverged, read late", &output, &said);
    assert!(!weights("diverged-unseen").exists());
    let output = place.run("diverged", &["--set", rate]);
    let said = [
        "training stopped at step",
        "of step 2 is not finite",
        "left as they were",
        "Lower optimizer.learning_rate",
    ];
    assert_refused("diverged", &output, &said);
    assert!(!weights("diverged").exists());
    // Nothing was saved in it: the same folder can be used again.
    assert_success(&place.run("diverged", &[]));
}

#[test]
fn a_folder_that_holds_something_else_is_refused_and_left_alone() {
    let place = Place::new();
    for (out, file) in [
        ("downloaded", WEIGHTS),
        ("mine", "recipe.toml"),
        ("stuff", "checkpoints/my/file"),
    ] {
        let path = place.write(&format!("{out}/{file}"), "precious");
        for more in [&[][..], &["--restart"][..]] {
            let output = place.run(out, more);
            let first = file.split('/').next().unwrap();
            assert_refused(out, &output, &[out, first, "--out"]);
            assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
            assert_eq!(fs::read_dir(place.path(out)).unwrap().count(), 1);
        }
    }
    // The folder of the recipe itself, of the corpus, and one inside of the corpus.
    let folder = place.path("recipe.toml");
    let folder = folder.parent().unwrap().to_path_buf();
    let recipe = place.path("recipe.toml");
    let before = fs::read(&recipe).unwrap();
    for (out, said) in [
        (folder.clone(), "contains"),
        (place.path("corpus"), "same as the input"),
        (place.path("corpus/run"), "inside the input"),
    ] {
        let arguments = ["run", text(&recipe), "--restart", "--out", text(&out)];
        let output = program(&arguments);
        assert_refused(text(&out), &output, &[said, "--out"]);
    }
    assert_eq!(fs::read(&recipe).unwrap(), before);
    assert_eq!(fs::read_dir(place.path("corpus")).unwrap().count(), 40);
}

#[test]
fn restart_replaces_a_run_and_nothing_else() {
    let place = Place::new();
    let out = place.path("out");
    assert_success(&place.run("out", &[]));
    let again = place.run("out", &[]);
    assert_refused("a run", &again, &["holds a run", "--restart"]);
    let checkpoint = fs::read_dir(out.join("checkpoints")).unwrap().next();
    let checkpoint = checkpoint.unwrap().unwrap().path();
    // The checkpoint from which a run would start is not deleted.
    let from = ["--from", text(&checkpoint), "--restart"];
    let output = place.run("out", &from);
    assert_refused("its own start", &output, &["contains", "--out"]);
    assert!(checkpoint.is_dir());
    let mine = place.write("out/checkpoints/my/file", "precious");
    let output = place.run("out", &["--restart"]);
    assert_refused(
        "with a file",
        &output,
        &["checkpoints/my", "nothing is removed"],
    );
    assert_eq!(fs::read_to_string(&mine).unwrap(), "precious");
    assert!(out.join(WEIGHTS).is_file());
    fs::remove_dir_all(mine.parent().unwrap()).unwrap();
    // Files of the run that someone has changed since.
    for file in [checkpoint.join(WEIGHTS), out.join("metrics.jsonl")] {
        let written = fs::read(&file).unwrap();
        fs::write(&file, "my notes\n").unwrap();
        let output = place.run("out", &["--restart"]);
        assert_refused("changed", &output, &["was changed", "nothing is removed"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "my notes\n");
        fs::write(&file, written).unwrap();
    }
    assert_success(&place.run("out", &["--restart"]));
}
