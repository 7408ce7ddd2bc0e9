//! Transitions of a run of several phases; contents of its log and checkpoints.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use modernbert_train::loader::TrainStream;
use modernbert_train::mask::Masker;
use modernbert_train::pretrain::reopen;
use modernbert_train::run_dir::recipe_of_run;
use place::phases::{checkpoint, close, number, recipe, rows, run, state, weights};
use place::{Place, assert_success, program, text};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn a_phase_begins_at_token_0_with_the_moments_and_its_own_rate() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &[]);
    let rows = rows(&out, "train");
    let of =
        |phase: &str| -> Vec<&Value> { rows.iter().filter(|row| row["phase"] == phase).collect() };
    let (stable, decay) = (of("stable"), of("decay"));
    let begun = number(stable.last().unwrap(), "tokens");
    assert!(begun >= 8000.0 && decay.len() > 10, "{rows:?}");
    for row in &stable {
        let expected = 1e-2 * (number(row, "tokens") / 2000.0).min(1.0);
        assert!(close(number(row, "lr"), expected), "{row}");
    }
    for row in &decay {
        let x = ((number(row, "tokens") - begun) / 6000.0).min(1.0);
        let expected = 4e-3 * (0.001 + 0.999 * (1.0 - x.sqrt()));
        assert!(close(number(row, "lr"), expected), "{row}");
    }
    // The first checkpoint of the second phase: its tokens are counted from 0, the optimizer's updates are not.
    let first = number(decay[0], "step") as u64;
    let step = (first..).find(|step| step % 4 == 0).unwrap();
    let state = state(&out, step);
    assert_eq!(state["phase_name"], "decay");
    assert_eq!(state["optimizer_updates"].as_u64(), Some(step));
    assert_eq!(
        number(&state, "phase_tokens"),
        number(&state, "tokens") - begun
    );

    // Every series of the log.
    for row in &rows {
        for key in [
            "loss",
            "masked_accuracy",
            "lr",
            "tok_s",
            "data_wait",
            "grad_norm",
            "batch_tokens",
            "packing",
            "tokens_left",
            "seconds_left",
            "memory_mib",
        ] {
            assert!(number(row, key).is_finite(), "{key} of {row}");
        }
        assert!(
            number(row, "grad_norm") > 0.0 && number(row, "memory_mib") > 1.0,
            "{row}"
        );
        assert!((0.5..=1.0).contains(&number(row, "packing")), "{row}");
        let seen = number(row, "tokens") - if row["phase"] == "decay" { begun } else { 0.0 };
        let total = if row["phase"] == "decay" {
            6000.0
        } else {
            8000.0
        };
        assert_eq!(number(row, "tokens_left"), (total - seen).max(0.0), "{row}");
    }
    // Evaluations at the first step at or after each multiple of 1500 tokens of a phase, and at its end.
    for (phase, from, total) in [("stable", 0.0, 8000.0), ("decay", begun, 6000.0)] {
        let seen = |row: &Value| number(row, "tokens") - from;
        let train: Vec<f64> = of(phase).into_iter().map(seen).collect();
        let due = (1..)
            .map(|i| f64::from(i) * 1500.0)
            .take_while(|&due| due < total);
        let mut expected: Vec<f64> = due
            .map(|due| *train.iter().find(|&&seen| seen >= due).unwrap())
            .collect();
        expected.extend(train.last());
        // Checkpoints by step are evaluated as well, as the best are kept.
        let found: Vec<f64> = super_rows(&out, phase).iter().map(seen).collect();
        for due in expected {
            assert!(found.contains(&due), "{phase}: {due} of {found:?}");
        }
    }
}

fn super_rows(out: &Path, phase: &str) -> Vec<Value> {
    let rows = rows(out, "eval");
    rows.into_iter()
        .filter(|row| row["phase"] == phase)
        .collect()
}

/// The published phases in small: short sequences with warmups of rate and batch, longer ones with the larger rotary base at a constant
/// rate and the same tokens a step, a decay by 1-sqrt.
#[test]
fn the_loss_falls_through_the_three_phases() {
    let place = Place::new();
    let one = recipe(&place.path("corpus"), "");
    let (settings, _) = one.split_once("[[phase]]").unwrap();
    let settings = settings.replace(
        "tokens = 256\n",
        "tokens = 256\nmicro_batches = 2\nwarmup_from = 1\n",
    );
    let phases = r#"
[[phase]]
name = "pretrain"
optimizer.learning_rate = 1e-2
batch.warmup_tokens = 4000
schedule = { kind = "warmup_stable_decay", warmup_tokens = 2000, decay_tokens = 0 }
run.total_tokens = 24_000

[[phase]]
name = "extend"
model.global_rope_theta = 160_000.0
data.sequence_length = 128
optimizer.learning_rate = 5e-3
schedule.kind = "constant"
run.total_tokens = 8000

[[phase]]
name = "decay"
model.global_rope_theta = 160_000.0
data.sequence_length = 128
optimizer.learning_rate = 5e-3
schedule = { kind = "one_minus_sqrt", decay_tokens = "100%", final_fraction = 0.001 }
run.total_tokens = 8000
"#;
    place.write("two.toml", format!("{settings}{phases}"));
    let out = run(&place, "out", &["--set", "checkpoint.keep_best=0"]);
    let rows_of = |split: &str, phase: &str| -> Vec<Value> {
        let rows = rows(&out, split).into_iter();
        rows.filter(|row| row["phase"] == phase).collect()
    };
    let first = rows_of("train", "pretrain");
    let quarters: Vec<f64> = first
        .chunks(first.len().div_ceil(4))
        .map(|rows| rows.iter().map(|row| number(row, "loss")).sum::<f64>() / rows.len() as f64)
        .collect();
    assert!(
        quarters.len() == 4 && quarters.is_sorted_by(|a, b| a > b),
        "{quarters:?}"
    );
    let ends = ["pretrain", "extend", "decay"]
        .map(|phase| number(rows_of("eval", phase).last().unwrap(), "loss"));
    assert!(ends.is_sorted_by(|a, b| a > b), "{ends:?}");
    // Checkpoints of a phase have its rotary bases; the local one is the same in all.
    let bases = |phase: &str| {
        let step = rows_of("train", phase)
            .iter()
            .map(|row| row["step"].as_u64().unwrap())
            .find(|step| step % 4 == 0);
        let path = checkpoint(&out, step.unwrap());
        let config = modernbert::checkpoint::read_config(&path).unwrap();
        (config.global_rope_theta, config.local_rope_theta)
    };
    assert_eq!(bases("pretrain"), (10_000.0, 10_000.0));
    assert_eq!(bases("extend"), (160_000.0, 10_000.0));
    assert_eq!(bases("decay"), (160_000.0, 10_000.0));
    // The batch grows in the first phase alone, and the later ones keep its tokens a step.
    let slots = |phase: &str| -> Vec<u64> {
        let rows = rows_of("train", phase).into_iter();
        rows.map(|row| row["batch_tokens"].as_u64().unwrap())
            .collect()
    };
    let grown = slots("pretrain");
    assert_eq!((grown.first(), grown.last()), (Some(&256), Some(&512)));
    for phase in ["extend", "decay"] {
        assert!(slots(phase).iter().all(|&tokens| tokens == 512), "{phase}");
    }
}

/// Tokens seen after each of the first `steps` steps of a run of one phase, counted by hand: rows are made again from the run's shards, and
/// their ids that are not padding are counted. Each sequence of a row must be a sample of the shards, whole. Returns the padding as well.
fn tokens_by_hand(run: &Path, steps: usize) -> (Vec<u64>, u64) {
    let phases = recipe_of_run(run).unwrap().phases().unwrap();
    let prepared = reopen(&phases, run).unwrap();
    let (recipe, sources) = (&phases[0].recipe, &prepared.phases[0].train);
    assert_eq!((phases.len(), sources.len()), (1, 1));
    let samples = &sources[0].samples;
    let samples: BTreeSet<Vec<u32>> = (0..samples.len()).map(|i| samples.get(i)).collect();
    let special = prepared.tokenizer.special();
    let masker = Masker::new(&prepared.tokenizer, recipe.mask.train, false).unwrap();
    let options = recipe.loader_options(special.pad);
    let stream = TrainStream::of_sources(sources.clone(), masker, options).unwrap();
    let mut stream = stream.steps().unwrap();
    let (mut tokens, mut padding) = (0, 0);
    let seen = (0..steps).map(|_| {
        for _ in 0..recipe.batch.micro_batches {
            let row = stream.next_row().unwrap();
            let mut ids = row.input_ids;
            let labels = row.labels.positions.iter().zip(&row.labels.labels);
            for ((&at, &id), &weight) in labels.zip(&row.labels.weights) {
                if weight > 0.0 {
                    ids[at as usize] = id;
                }
            }
            let real = ids.iter().filter(|&&id| id != special.pad).count();
            assert!(ids[real..].iter().all(|&id| id == special.pad));
            padding += (ids.len() - real) as u64;
            tokens += real as u64;
            let sequences = ids[..real].split_inclusive(|&id| id == special.sep);
            for sequence in sequences {
                assert!(samples.contains(sequence), "{sequence:?}");
            }
        }
        tokens
    });
    (seen.collect(), padding)
}

/// Real tokens alone move the schedule: two runs of different padding have the rate of their tokens, and the log's tokens are those of the
/// rows without padding.
#[test]
fn the_rate_follows_tokens_without_padding() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let results: Vec<(f64, u64)> = ["true", "false"]
        .into_iter()
        .map(|packing| {
            let setting = format!("batch.packing={packing}");
            let more = [
                "--phase",
                "stable",
                "--set",
                &setting,
                "--set",
                "checkpoint.keep_best=0",
            ];
            let out = run(&place, packing, &more);
            let rows = rows(&out, "train");
            for row in &rows {
                let expected = 1e-2 * (number(row, "tokens") / 2000.0).min(1.0);
                assert!(close(number(row, "lr"), expected), "{row}");
            }
            let logged: Vec<u64> = rows
                .iter()
                .map(|row| row["tokens"].as_u64().unwrap())
                .collect();
            let (counted, padding) = tokens_by_hand(&out, logged.len());
            assert_eq!(logged, counted, "packing = {packing}");
            let fill = rows.iter().map(|row| number(row, "packing")).sum::<f64>();
            (fill / rows.len() as f64, padding)
        })
        .collect();
    // Packed rows end in padding, rows of single sequences have none.
    let [(packed, padding), (alone, none)] = results[..] else {
        panic!("{results:?}")
    };
    assert!((packed - alone).abs() > 0.02, "{results:?}");
    assert!(padding > 0 && none == 0, "{results:?}");
}

#[test]
fn the_mean_of_the_three_best_and_the_last_is_written_and_evaluates() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    let out = run(&place, "out", &[]);
    let mean = place.path("mean");
    let arguments = ["average", "--run", text(&out), "--best", "3", "--with-last"];
    assert_success(&program(
        &[&arguments[..], &["--out", text(&mean)]].concat(),
    ));

    // The checkpoints by held-out loss, from their own files.
    let listed = fs::read_dir(out.join("checkpoints")).unwrap();
    let mut rated: Vec<(f64, u64)> = listed
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let step: u64 = name.strip_prefix("step-")?.parse().unwrap();
            let state = state(&out, step);
            let own = state["eval_step"].as_u64() == Some(step);
            own.then(|| (number(&state, "eval_loss"), step))
        })
        .collect();
    let last = rated.iter().map(|&(_, step)| step).max().unwrap();
    rated.sort_by(|a, b| a.0.total_cmp(&b.0));
    let same_phase = |step: &u64| state(&out, *step)["phase_name"] == "decay";
    let best: Vec<u64> = rated
        .iter()
        .map(|&(_, step)| step)
        .filter(same_phase)
        .collect();
    let best: Vec<u64> = best
        .into_iter()
        .filter(|&step| step != last)
        .take(3)
        .collect();
    let four: Vec<_> = best
        .iter()
        .chain([&last])
        .map(|&step| weights(&checkpoint(&out, step)))
        .collect();
    assert_eq!(four.len(), 4);
    let found = weights(&mean);
    assert!(found.len() > 20);
    for (name, values) in &found {
        for (i, &value) in values.iter().enumerate() {
            let sum: f64 = four.iter().map(|one| f64::from(one[name][i])).sum();
            assert_eq!(value, (sum / 4.0) as f32, "{name} [{i}]");
        }
    }
    // The model loads and evaluates on the same held-out text, with almost no training.
    let more = ["--from", text(&mean), "--phase", "decay"];
    let settings = [
        "run.total_tokens=256",
        "phase.decay.optimizer.learning_rate=1e-12",
        "checkpoint.keep_best=0",
    ];
    let settings: Vec<&str> = settings.iter().flat_map(|one| ["--set", one]).collect();
    let text_of = recipe(&place.path("corpus"), "").replace(
        "[model]\nhidden_size = 32\nintermediate_size = 48\nnum_hidden_layers = 4\nnum_attention_heads = 2\nlocal_attention = 16\nglobal_rope_theta = 10_000.0",
        "[model]",
    );
    place.write("two.toml", text_of);
    let settings: Vec<&str> = settings
        .into_iter()
        .map(|one| {
            if one == "run.total_tokens=256" {
                "phase.decay.run.total_tokens=256"
            } else {
                one
            }
        })
        .collect();
    let again = run(&place, "again", &[&more[..], &settings].concat());
    let loss = |run: &Path| number(rows(run, "eval").last().unwrap(), "loss");
    let (mean_loss, last_loss) = (loss(&again), loss(&out));
    assert!(
        (mean_loss - last_loss).abs() < 0.3,
        "{mean_loss} {last_loss}"
    );
}
#[test]
fn the_rotation_keeps_the_three_best_beside_the_last_one() {
    let place = Place::new();
    place.write("two.toml", recipe(&place.path("corpus"), ""));
    // Both phases have one config, so that a checkpoint of the first could be averaged with those of the second.
    let same = "phase.decay.model.global_rope_theta=10_000.0";
    let means = ["4", "unset"].map(|every| {
        let keep = format!("checkpoint.keep_every_steps={every}");
        let out = run(&place, every, &["--set", same, "--set", &keep]);
        let mean = place.path(&format!("mean-{every}"));
        let mut arguments = vec!["average", "--run", text(&out), "--best", "3", "--with-last"];
        arguments.extend(["--out", text(&mean)]);
        let said = assert_success(&program(&arguments));
        assert!(said.contains("checkpoints=4"), "{said}");
        weights(&mean)
    });
    assert_eq!(
        means[0], means[1],
        "all checkpoints, and those that are kept"
    );
}
