//! Messages about data, models and settings that can't be used; files that a failure doesn't change.

use std::fs;

use crate::place::{Place, assert_refused, keys, save_model, tokenizer};

#[test]
fn a_bad_row_is_named_by_file_and_line() {
    let place = Place::new();
    place.damage("CoLA/train.tsv", 3, "mu01\t1");
    place.damage("RTE/dev.tsv", 5, "3\tone\ttwo\tperhaps");
    let few = ["CoLA/train.tsv:3", "2 columns, 4 are expected", "correct"];
    assert_refused("too few columns", &place.run("cola", &[]), &few);
    let label = ["RTE/dev.tsv:5", "unknown label 'perhaps'", "not_entailment"];
    assert_refused("unknown label", &place.run("rte", &[]), &label);
    assert!(!place.path("out/results.json").exists());

    let bytes = b"index\tsentence1\tsentence2\tlabel\n0\t\xff\tb\tentailment\n";
    fs::write(place.path("glue/RTE/train.tsv"), bytes).unwrap();
    let said = ["RTE/train.tsv:2", "not UTF-8", "convert"];
    assert_refused("not UTF-8", &place.run("rte", &[]), &said);
    fs::write(place.path("glue/RTE/train.tsv"), "sentence1\tlabel\n").unwrap();
    let said = ["RTE/train.tsv", "no column 'sentence2'"];
    assert_refused("no such column", &place.run("rte", &[]), &said);
    fs::write(place.path("glue/RTE/train.tsv"), "").unwrap();
    let said = ["RTE/train.tsv", "holds no rows"];
    assert_refused("empty", &place.run("rte", &[]), &said);
}

#[test]
fn what_is_not_there_is_named_with_a_remedy() {
    let place = Place::new();
    let nowhere = place.path("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let said = [nowhere, "no such folder", "give the folder that holds"];
    assert_refused("data", &place.run("cola", &["--data", nowhere]), &said);
    let said = ["STS-B", "no such folder", "train.tsv, dev.tsv"];
    assert_refused("task folder", &place.run("stsb", &[]), &said);
    fs::remove_file(place.path("glue/RTE/dev.tsv")).unwrap();
    let said = ["RTE/dev.tsv", "no such file", "download"];
    assert_refused("file", &place.run("rte", &[]), &said);
    let said = ["'squad'", "cola, sst2"];
    assert_refused("task", &place.run("cola,squad", &[]), &said);
    let said = ["ax has no training set", "another task"];
    assert_refused("untrainable", &place.run("ax", &[]), &said);
    let said = ["--task", "cola,rte,stsb"];
    assert_refused("no task", &place.run(",", &[]), &said);
    let said = [nowhere, "config.json and model.safetensors"];
    assert_refused("model", &place.run("cola", &["--model", nowhere]), &said);
    assert!(!place.path("out/results.json").exists());
}

#[test]
fn a_model_that_is_not_whole_is_named_by_its_tensor_or_file() {
    let place = Place::new();
    let weights = place.path("model/model.safetensors");
    let whole = fs::read(&weights).unwrap();

    fs::write(&weights, &whole[..whole.len() - 10]).unwrap();
    let said = ["model.safetensors", "not a valid safetensors file", "again"];
    assert_refused("cut short", &place.run("cola", &[]), &said);

    save_model(&place.path("smaller"), 3);
    fs::copy(place.path("smaller/model.safetensors"), &weights).unwrap();
    let said = ["model.safetensors", "tensor `model.layers.3.", "is missing"];
    assert_refused("a layer too few", &place.run("cola", &[]), &said);

    save_model(&place.path("larger"), 5);
    fs::copy(place.path("larger/model.safetensors"), &weights).unwrap();
    let said = ["model.safetensors", "unknown tensor", "`model.layers.4."];
    assert_refused("a layer too many", &place.run("cola", &[]), &said);

    fs::remove_file(&weights).unwrap();
    let said = ["holds neither model.safetensors"];
    assert_refused("no weights", &place.run("cola", &[]), &said);

    fs::write(&weights, whole).unwrap();
    tokenizer(512).save(place.path("model")).unwrap();
    let said = ["the tokenizer has 512 ids, the model 384"];
    assert_refused("another tokenizer", &place.run("cola", &[]), &said);
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    let said = ["tokenizer.json", "cannot be read"];
    assert_refused("no tokenizer", &place.run("cola", &[]), &said);
    assert!(!place.path("out/runs").exists());
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let place = Place::new();
    for (more, said) in [
        (&["--epochs", "0"][..], &["--epochs is 0", "at least 1"][..]),
        (&["--batch-size", "0"], &["--batch-size is 0", "at least 1"]),
        (&["--seeds", "0"], &["--seeds is 0", "at least 1"]),
        (&["--max-rows", "0"], &["--max-rows is 0", "at least 1"]),
        (&["--max-length", "4"], &["--max-length is 4", "at least 8"]),
        (
            &["--warmup", "1.5"],
            &["--warmup is 1.5", "from 0 to below 1"],
        ),
        (&["--learning-rate", "0"], &["--learning-rate", "above 0"]),
        (
            &["--weight-decay", "2"],
            &["--weight-decay", "from 0 to below 1"],
        ),
        (&["--dtype", "f8"], &["unknown dtype `f8`", "f32, bf16"]),
        (&["--dtype", "f16"], &["--dtype is f16", "f32 or bf16"]),
        (
            &["--seeds", "18446744073709551615"],
            &["--seeds", "at most"],
        ),
        (
            &["--batch-size", "18446744073709551615"],
            &["--batch-size", "at most"],
        ),
        (
            &["--epochs", "18446744073709551615"],
            &["--epochs", "at most"],
        ),
        (&["--learning-rate", "inf"], &["--learning-rate", "finite"]),
        (&["--learning-rate", "1e-320"], &["--learning-rate", "f32"]),
        (&["--learning-rate", "1e300"], &["--learning-rate", "f32"]),
    ] {
        assert_refused(more[0], &place.run("cola", more), said);
    }
    let file = place.path("model/config.json");
    let more = ["--out", file.to_str().unwrap()];
    assert_refused(
        "out is a file",
        &place.run("cola", &more),
        &["config.json", "--out"],
    );
    fs::create_dir_all(place.path("out")).unwrap();
    fs::write(place.path("out/results.json"), "precious").unwrap();
    let said = ["results.json", "not a results file", "move it away"];
    assert_refused("other results", &place.run("cola", &[]), &said);
    let kept = fs::read_to_string(place.path("out/results.json")).unwrap();
    assert_eq!(kept, "precious");
}

#[test]
fn a_training_that_diverges_has_no_result() {
    let place = Place::new();
    let steps = ["--epochs", "1", "--batch-size", "16"];
    let output = place.run("cola", &[&steps[..], &["--learning-rate", "1e30"]].concat());
    let said = [
        "tasks failed: cola: seed 1618: the loss of step",
        "training diverged; lower the learning rate",
    ];
    assert_refused("diverged", &output, &said);
    let result = &place.results()["cola"];
    assert_eq!(result["seeds"].as_array().unwrap().len(), 0);
    let failed = result["failed"][0].as_str().unwrap();
    assert!(failed.contains("training diverged"), "{failed}");
    // The log of the training stays, to show where it diverged; no result, model or checkpoint does.
    let folder = place.path("out/runs/cola/seed-1618");
    for name in ["run.json", "model", "checkpoints"] {
        assert!(!folder.join(name).exists(), "{name}");
    }
}

#[test]
fn a_task_that_fails_leaves_the_others_their_results() {
    for tasks in ["cola,rte", "rte,cola"] {
        let place = Place::new();
        place.damage("RTE/train.tsv", 2, "0\tone\ttwo\tperhaps");
        let output = place.run(tasks, &["--epochs", "1", "--max-rows", "16"]);
        let said = ["1 of 2 tasks failed", "rte", "RTE/train.tsv:2"];
        assert_refused(tasks, &output, &said);
        assert_eq!(keys(&place.results()), ["cola"], "{tasks}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            stdout.lines().any(|line| line.starts_with("CoLA*")),
            "{stdout}"
        );
    }
}

#[test]
fn two_jobs_never_share_a_folder() {
    let place = Place::new();
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    let lock = modernbert::lock::FolderLock::acquire(&out).unwrap();
    for command in ["run", "sweep"] {
        let output = place.command(command, "cola", &["--max-rows", "16"]);
        let id = std::process::id().to_string();
        assert_refused(command, &output, &["another process works", &id]);
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    drop(lock);
    let output = place.run("cola", &["--max-rows", "16", "--epochs", "1"]);
    assert!(output.status.success());
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let place = Place::new();
    let taken = place.path("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("notes.txt"), "precious").unwrap();
    for (out, said) in [
        ("taken", "not empty"),
        ("model", "same as the input"),
        ("model/out", "inside the input"),
        ("glue", "same as the input"),
        ("glue/RTE", "inside the input"),
    ] {
        let out = place.path(out);
        let output = place.run("cola", &["--out", out.to_str().unwrap()]);
        assert_refused(said, &output, &[said, "--out"]);
    }
    assert_eq!(
        fs::read_to_string(taken.join("notes.txt")).unwrap(),
        "precious"
    );
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 1);
    // Names that a job's files have too.
    for (out, file) in [("project", "runs/old/a.txt"), ("locked", "lock")] {
        let file = place.path(out).join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "precious").unwrap();
        let folder = place.path(out);
        let output = place.run("cola", &["--out", folder.to_str().unwrap()]);
        assert_refused(out, &output, &["not empty", "--out"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
    assert!(!place.path("model/lock").exists() && !place.path("glue/lock").exists());
}

#[test]
fn a_model_that_never_saw_mnli_is_no_start_from_mnli() {
    let place = Place::new();
    let model = place.path("model");
    let pretrained = model.to_str().unwrap();
    let output = place.run("rte", &["--mnli", pretrained, "--max-rows", "16"]);
    let said = ["--mnli", "was not finetuned on MNLI", "--mnli off"];
    assert_refused("pretrained", &output, &said);
    // A classifier of two classes neither.
    let settings = ["--max-rows", "16", "--epochs", "1"];
    assert!(place.run("cola", &settings).status.success());
    let cola = place.path("out/runs/cola/seed-1618/model");
    let cola = cola.to_str().unwrap();
    let output = place.run("rte", &["--mnli", cola, "--max-rows", "16"]);
    assert_refused("two classes", &output, &said);
    assert!(!place.path("out/runs/rte").exists());
}
