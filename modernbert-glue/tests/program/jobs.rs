//! Jobs that succeed: results, tables, resumption, the second round from MNLI, sweeps, reports, files for the server.

use crate::common;
use modernbert_glue::task::Task;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::process::Command;

use crate::place::{Place, assert_refused, keys, save_model_of, tokenizer};

#[test]
fn tasks_become_results_and_a_table() {
    let place = Place::new();
    let settings = ["--epochs", "1", "--max-rows", "32", "--seeds", "2"];
    let output = place.run("cola,rte", &settings);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n---\n{stdout}");

    let results = place.results();
    assert_eq!(keys(&results), ["cola", "rte"]);
    for (task, metrics) in [
        ("cola", &["accuracy", "matthews"][..]),
        ("rte", &["accuracy"]),
    ] {
        let result = &results[task];
        let fields = [
            "baseline",
            "dev_rows",
            "failed",
            "metrics",
            "notes",
            "partial",
            "seeds",
            "spread",
            "start",
            "train_rows",
        ];
        assert_eq!(keys(result), fields, "{task}");
        assert_eq!(result["train_rows"], 32, "{task}");
        assert_eq!(result["dev_rows"], 20, "{task}");
        assert_eq!(result["partial"], true, "{task}");
        let seeds = result["seeds"].as_array().unwrap();
        let numbers: Vec<u64> = seeds
            .iter()
            .map(|run| run["seed"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [1618, 42], "{task}");
        let runs = seeds.iter().map(|run| &run["metrics"]);
        for scores in runs.chain([&result["metrics"], &result["baseline"]]) {
            assert_eq!(keys(scores), metrics, "{task}");
            for (name, score) in scores.as_object().unwrap() {
                let score = score.as_f64().unwrap();
                assert!((-1.0..=1.0).contains(&score), "{task}: {name} {score}");
            }
        }
        // RTE would start from MNLI, of which there is no model here.
        assert_eq!(result["start"], "pretrained", "{task}");
        let note = result["notes"][0].as_str().unwrap();
        assert!(note.starts_with("train is partial: 32 of "), "{note}");
        let accuracy = |value: &Value| value["metrics"]["accuracy"].as_f64().unwrap();
        let mean = seeds.iter().map(accuracy).sum::<f64>() / 2.0;
        assert!((mean - accuracy(result)).abs() < 1e-12, "{task}");
    }

    let head = stdout
        .lines()
        .find(|line| line.starts_with("task "))
        .unwrap();
    for column in [
        "metric", "score", "baseline", "delta", "train", "dev", "seeds",
    ] {
        assert!(head.contains(column), "{head}");
    }
    for row in ["CoLA*", "RTE*"] {
        let found = stdout.lines().any(|line| line.starts_with(row));
        assert!(found, "no row {row}: {stdout}");
    }
    assert!(stdout.contains("fewer rows than the official"), "{stdout}");
    let last = stdout.lines().last().unwrap();
    assert!(
        last.starts_with("glue: tasks=2 failed=0 runs=4 kept=0 seconds="),
        "{last}"
    );
}

/// `run.json` of a seed without its times.
fn record(place: &Place, task: &str, seed: u64) -> Value {
    let path = place.path(&format!("out/runs/{task}/seed-{seed}/run.json"));
    let mut record: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for timed in ["train_seconds", "eval_seconds"] {
        record.as_object_mut().unwrap().remove(timed).unwrap();
    }
    record
}

/// Without settings a run takes the row of table 6 that belongs to the model's width: base's, with the rate times 768 / 32 for a width of 32,
/// and large's from a width of 1024.
#[test]
fn a_run_without_settings_takes_those_of_the_paper() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Mnli, 48, 20);
    common::write_task(&place.path("glue"), Task::Stsb, 48, 20);
    let output = place.run("cola,rte,mnli,stsb", &["--max-rows", "8"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let read = |task: &str| {
        let settings = &record(&place, task, 1618)["settings"];
        let number = |key: &str| settings[key].as_f64().unwrap();
        (
            number("learning_rate"),
            number("weight_decay"),
            number("epochs"),
            number("batch_size"),
        )
    };
    for (task, rate, decay, epochs) in [
        ("cola", 8e-5, 1e-6, 5.0),
        ("rte", 5e-5, 1e-5, 3.0),
        ("mnli", 5e-5, 5e-6, 1.0),
        ("stsb", 8e-5, 5e-6, 10.0),
    ] {
        let (found, found_decay, found_epochs, batch) = read(task);
        assert!(
            (found / (rate * 24.0) - 1.0).abs() < 1e-12,
            "{task}: {found}"
        );
        assert_eq!(
            (found_decay, found_epochs, batch),
            (decay, epochs, 64.0),
            "{task}"
        );
    }
    // A model of large's width, one layer deep.
    save_model_of(&place.path("wide"), 1, 1024);
    tokenizer(384).save(place.path("wide")).unwrap();
    let (wide, out) = (place.path("wide"), place.path("wide-out"));
    let more = [
        "--model",
        wide.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let output = place.run("cola", &[&["--max-rows", "4"][..], &more].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let text = fs::read_to_string(out.join("runs/cola/seed-1618/run.json")).unwrap();
    let settings = &serde_json::from_str::<Value>(&text).unwrap()["settings"];
    assert_eq!(settings["learning_rate"], 3e-5);
    assert_eq!(settings["weight_decay"], 8e-6);
    assert_eq!(settings["epochs"], 5);
}

#[test]
fn stsb_is_computed_in_f32_and_rates_warm_up_over_six_percent_of_the_steps() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Stsb, 48, 20);
    // 49 steps, of which the warmup takes 3 or 5 of 50: the 50th would have the rate 0.
    let mut settings = vec!["--epochs", "7", "--max-rows", "28", "--batch-size", "4"];
    settings.extend(["--mnli", "off", "--dtype", "bf16"]);
    settings.extend(["--evaluate-every", "1", "--patience", "0"]);
    settings.extend(["--attention-output-dropout", "0.1"]);
    let rates_of = |out: &str, task: &str| -> Vec<f64> {
        let log = place.path(&format!("{out}/runs/{task}/seed-1618/metrics.jsonl"));
        let log = fs::read_to_string(log).unwrap();
        let rows = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.filter(|row| row["split"] == "train")
            .map(|row| row["lr"].as_f64().unwrap())
            .collect()
    };
    let check = |rates: &[f64], peak: f64, warmup: f64| {
        assert_eq!(rates.len(), 49, "{rates:?}");
        for (step, &rate) in (1..).zip(rates) {
            let step = f64::from(step);
            let factor = (step / warmup).min((50.0 - step) / (50.0 - warmup));
            let expected = peak * factor;
            assert!(
                (rate - expected).abs() < 1e-9 * peak,
                "step {step}: {rate}, expected {expected}"
            );
        }
    };
    let output = place.run("cola,stsb", &settings);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for (task, precision) in [("cola", "bf16"), ("stsb", "f32")] {
        let settings = &record(&place, task, 1618)["settings"];
        assert_eq!(settings["precision"], precision, "{task}");
        assert_eq!(settings["warmup"], 0.06, "{task}");
        assert_eq!(settings["attention_output_dropout"], 0.1, "{task}");
        let peak = settings["learning_rate"].as_f64().unwrap();
        check(&rates_of("out", task), peak, 3.0);
    }
    // The other share of the authors' configurations.
    let other = place.path("other");
    settings.extend(["--warmup", "0.1", "--learning-rate", "0.01", "--out"]);
    settings.push(other.to_str().unwrap());
    let output = place.run("cola", &settings);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    check(&rates_of("other", "cola"), 0.01, 5.0);
    let refused = place.run("cola", &["--attention-output-dropout", "1"]);
    assert_refused(
        "all dropped",
        &refused,
        &["--attention-output-dropout is 1"],
    );
}

#[test]
fn a_job_goes_on_where_it_stopped_and_refuses_to_mix_settings() {
    let place = Place::new();
    let settings = ["--epochs", "2", "--max-rows", "32", "--seeds", "2"];
    assert!(place.run("cola,rte", &settings).status.success());
    let (results, first) = (place.results(), record(&place, "cola", 42));
    // One model per task, that of the better seed.
    for task in ["cola", "rte"] {
        let models = [1618, 42].map(|seed| {
            place.path(&format!(
                "out/runs/{task}/seed-{seed}/model/model.safetensors"
            ))
        });
        let kept = models.iter().filter(|path| path.is_file()).count();
        assert_eq!(kept, 1, "{task}");
    }

    // The state after a killed process: an incomplete model, and no record.
    let folder = place.path("out/runs/cola/seed-42");
    fs::remove_file(folder.join("run.json")).unwrap();
    fs::create_dir_all(folder.join("model")).unwrap();
    fs::write(folder.join("model/model.safetensors"), "half").unwrap();
    fs::remove_file(place.path("out/results.json")).unwrap();
    let output = place.run("cola,rte", &settings);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    let last = stdout.lines().last().unwrap();
    assert!(last.contains("runs=1 kept=3"), "{last}");
    assert!(stdout.contains("seed 1618 is done already"), "{stdout}");
    assert_eq!(record(&place, "cola", 42), first);
    assert_eq!(place.results(), results);

    // A record that was changed since.
    let path = folder.join("run.json");
    let written = fs::read_to_string(&path).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut record: Value = serde_json::from_str(&written).unwrap();
        change(&mut record);
        record.to_string()
    };
    let other_task = changed(&|record| record["task"] = "rte".into());
    let too_good = changed(&|record| {
        for score in record["metrics"].as_object_mut().unwrap().values_mut() {
            *score = 2.0.into();
        }
    });
    for (text, said) in [
        (other_task, "it is of rte"),
        (too_good, "scores are from -1 to 1"),
    ] {
        fs::write(&path, text).unwrap();
        let output = place.run("cola", &settings);
        assert_refused(said, &output, &["run.json", said]);
    }
    fs::write(&path, written).unwrap();

    let other = ["--epochs", "1", "--max-rows", "32", "--seeds", "2"];
    let said = ["run.json", "epochs 2 instead of 1", "--again"];
    assert_refused("other settings", &place.run("cola", &other), &said);
    let again = [&other[..], &["--again"]].concat();
    assert!(place.run("cola", &again).status.success());
    assert_eq!(record(&place, "cola", 42)["settings"]["epochs"], 1);
}

#[test]
fn rte_starts_from_the_model_of_mnli_and_a_report_and_test_files_come_of_it() {
    let place = Place::new();
    common::write_task(&place.path("glue"), Task::Mnli, 48, 20);
    let settings = ["--epochs", "1", "--max-rows", "32"];
    let output = place.run("rte,mnli", &settings);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}\n---\n{stdout}");
    let results = place.results();
    assert_eq!(results["rte"]["start"], "mnli");
    assert_eq!(results["mnli"]["start"], "pretrained");
    let (rte, mnli) = (record(&place, "rte", 1618), record(&place, "mnli", 1618));
    let start = |record: &Value| record["settings"]["start_sha256"].clone();
    assert_ne!(start(&rte), start(&mnli));

    // MRPC and STS-B start from the same model, which is the one that was saved; the other tasks from the pretrained one.
    for task in [Task::Mrpc, Task::Stsb] {
        common::write_task(&place.path("glue"), task, 48, 20);
    }
    let all = place.path("all");
    let more = [&settings[..], &["--out", all.to_str().unwrap()]].concat();
    let output = place.run("rte,mrpc,stsb,mnli,cola", &more);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let hash = |folder: &str| {
        let weights = fs::read(place.path(folder).join("model.safetensors")).unwrap();
        let digest = Sha256::digest(weights);
        digest
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    let started = |task: &str| {
        let path = all.join(format!("runs/{task}/seed-1618/run.json"));
        let record: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let settings = &record["settings"];
        let text = |key: &str| settings[key].as_str().unwrap().to_owned();
        (text("start"), text("start_sha256"))
    };
    let of_mnli = ("mnli".to_owned(), hash("all/runs/mnli/seed-1618/model"));
    for task in ["rte", "mrpc", "stsb"] {
        assert_eq!(started(task), of_mnli, "{task}");
    }
    for task in ["mnli", "cola"] {
        let pretrained = ("pretrained".to_owned(), hash("model"));
        assert_eq!(started(task), pretrained, "{task}");
    }

    // From random weights, for comparison, and without the second round.
    let out = place.path("random");
    let random = [
        &settings[..],
        &[
            "--random-init",
            "--mnli",
            "off",
            "--out",
            out.to_str().unwrap(),
        ],
    ]
    .concat();
    assert!(place.run("rte,mnli", &random).status.success());

    let program = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_modernbert-glue"))
            .args(arguments)
            .env_remove("MODERNBERT_DEVICE")
            .output()
            .unwrap()
    };
    let path = |name: &str| place.path(name).to_str().unwrap().to_string();
    let (run, random) = (path("out"), path("random"));
    let output = program(&["report", &run, "--against", &random]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("## out against random"), "{stdout}");
    assert!(
        stdout.contains("Not tested: fewer than two seeds"),
        "{stdout}"
    );
    assert_eq!(
        fs::read_to_string(place.path("out/glue.md"))
            .unwrap()
            .trim(),
        stdout.split("report: ").next().unwrap().trim()
    );
    for picture in ["glue-scores.png", "glue-curves.png"] {
        let bytes = fs::read(place.path("out").join(picture)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{picture}");
    }
    // A report replaces a report, and nothing else.
    assert!(program(&["report", &run]).status.success());
    let page = place.path("out/glue.md");
    let written = fs::read_to_string(&page).unwrap();
    fs::write(&page, "precious").unwrap();
    let output = program(&["report", &run]);
    assert_refused("own page", &output, &["glue.md", "exists already"]);
    assert_eq!(fs::read_to_string(&page).unwrap(), "precious");
    fs::write(&page, written).unwrap();
    let nothing = program(&["report", &path("glue")]);
    assert_refused("no results", &nothing, &["no results.json there"]);

    // No test set is no result.
    let (data, out) = (path("glue"), path("submission"));
    let arguments = [
        "predict", "--run", &run, "--data", &data, "--out", &out, "--device", "flex",
    ];
    assert_refused("no test set", &program(&arguments), &["no test set"]);

    // Test files: AX and MNLI by MNLI's model, RTE by its own.
    let pairs = "index\tsentence1\tsentence2\n0\tba do\tki\n1\tlu\tme na\n";
    for file in [
        "RTE/test",
        "MNLI/test_matched",
        "MNLI/test_mismatched",
        "AX/diagnostic",
    ] {
        let path = place.path(&format!("glue/{file}.tsv"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, pairs).unwrap();
    }
    let output = program(&arguments);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("predict: files=4 failed=0"), "{stdout}");
    for (file, labels) in [
        ("RTE", &["entailment", "not_entailment"][..]),
        ("MNLI-m", &["entailment", "neutral", "contradiction"]),
        ("MNLI-mm", &["entailment", "neutral", "contradiction"]),
        ("AX", &["entailment", "neutral", "contradiction"]),
    ] {
        let text = fs::read_to_string(place.path(&format!("submission/{file}.tsv"))).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "index\tprediction");
        for (i, line) in lines[1..].iter().enumerate() {
            let (index, label) = line.split_once('\t').unwrap();
            assert_eq!(index, i.to_string());
            assert!(labels.contains(&label), "{file}: {label}");
        }
    }
    // Predictions replace predictions, and nothing else.
    assert!(program(&arguments).status.success());
    let mine = place.path("submission/notes.txt");
    fs::write(&mine, "precious").unwrap();
    assert_refused("a file", &program(&arguments), &["not empty", "--out"]);
    assert_eq!(fs::read_to_string(&mine).unwrap(), "precious");
    fs::remove_file(&mine).unwrap();
    for out in [&data, &run] {
        let arguments = ["predict", "--run", &run, "--data", &data, "--out", out];
        assert_refused(out, &program(&arguments), &["same as the input"]);
    }
    let arguments = [&arguments[..], &["--task", "sst2"]].concat();
    assert_refused(
        "no model",
        &program(&arguments),
        &["sst2", "no finetuned model"],
    );
}

#[test]
fn a_sweep_finds_the_best_combination_and_goes_on_where_it_stopped() {
    let place = Place::new();
    let grid = [
        "--learning-rates",
        "1e-3,1e-4",
        "--weight-decays",
        "1e-6",
        "--epochs",
        "1,2",
        "--max-rows",
        "24",
    ];
    let output = place.command("sweep", "cola", &grid);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains("runs=4 kept=0"), "{stdout}");
    let text = fs::read_to_string(place.path("out/sweep.json")).unwrap();
    let sweep: Value = serde_json::from_str(&text).unwrap();
    let rows = sweep["cola"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    let scores = rows.iter().filter_map(|row| row["score"].as_f64());
    let highest = scores.fold(f64::NEG_INFINITY, f64::max);
    let best = rows
        .iter()
        .find(|row| row["settings"] == sweep["cola"]["best"])
        .unwrap();
    assert_eq!(best["score"].as_f64().unwrap(), highest);

    fs::remove_file(place.path("out/sweep/cola/lr1e-4_wd1e-6_ep2/seed-1618/run.json")).unwrap();
    let output = place.command("sweep", "cola", &grid);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("runs=1 kept=3"), "{stdout}");
    assert_eq!(
        fs::read_to_string(place.path("out/sweep.json")).unwrap(),
        text
    );

    // A run takes what the sweep found.
    let (sweep_folder, out) = (place.path("out"), place.path("tuned"));
    let more = [
        "--sweep",
        sweep_folder.to_str().unwrap(),
        "--max-rows",
        "24",
        "--out",
        out.to_str().unwrap(),
    ];
    assert!(place.run("cola", &more).status.success());
    let text = fs::read_to_string(place.path("tuned/runs/cola/seed-1618/run.json")).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let best = &sweep["cola"]["best"];
    assert_eq!(record["settings"]["epochs"], best["epochs"]);
    assert_eq!(record["metrics"]["matthews"].as_f64().unwrap(), highest);
}

#[test]
fn the_same_command_gives_the_same_results_and_keeps_those_of_other_tasks() {
    let place = Place::new();
    let settings = ["--epochs", "1", "--max-rows", "32"];
    assert!(place.run("cola", &settings).status.success());
    let first = place.results();
    assert!(place.run("rte", &settings).status.success());
    assert!(place.run("cola", &settings).status.success());
    let both = place.results();
    assert_eq!(keys(&both), ["cola", "rte"]);
    assert_eq!(both["cola"], first["cola"]);
}
