#![allow(clippy::unwrap_used)]

use super::*;
use crate::recipe::{CheckpointRecipe, Recipe};
use crate::run_dir::RunDir;
use crate::snapshot::tests::trained;
use crate::snapshot::{RunState, read_tensors};
use std::fs;

/// A checkpoint of a test: its step, the optimizer's updates, the held-out loss and the phase.
struct Save {
    step: u64,
    updates: usize,
    loss: Option<f64>,
    phase: usize,
}

/// [`run_of`] with one phase.
fn run(root: &Path, saves: &[(u64, usize, Option<f64>)]) -> Vec<PathBuf> {
    let save = |&(step, updates, loss): &(u64, usize, Option<f64>)| Save {
        step,
        updates,
        loss,
        phase: 0,
    };
    let saves: Vec<Save> = saves.iter().map(save).collect();
    run_of(root, &saves)
}

/// A run with these checkpoints, and the losses of an evaluation.
fn run_of(root: &Path, saves: &[Save]) -> Vec<PathBuf> {
    let recipe =
        Recipe::from_str("model.preset = '17m'\nrun.total_tokens = 1_000_000", "x").unwrap();
    let dir = RunDir::create(root, &recipe, false).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::write(root.join(name), "{}").unwrap();
    }
    let rule = CheckpointRecipe {
        keep_last: 9,
        ..CheckpointRecipe::default()
    };
    let rows = [
        r#"{"split":"train","step":1,"tokens":10,"loss":5.0,"masked_accuracy":0.1,"lr":0.1}"#,
        r#"{"split":"train","step":2,"tokens":20,"loss":4.0,"masked_accuracy":0.2,"lr":0.2}"#,
        r#"{"split":"eval","step":2,"tokens":20,"loss":4.5,"masked_accuracy":0.15}"#,
    ];
    fs::write(root.join("metrics.jsonl"), rows.join("\n") + "\n").unwrap();
    let save = |&Save {
                    step,
                    updates,
                    loss,
                    phase,
                }: &Save| {
        let (model, optimizer) = trained(updates);
        let state = RunState {
            step,
            eval_loss: loss,
            eval_step: loss.map(|_| step),
            phase,
            optimizer_updates: updates as u64,
            ..RunState::default()
        };
        dir.save(&model, &optimizer, &state, &rule).unwrap()
    };
    saves.iter().map(save).collect()
}

#[test]
fn equal_runs_are_identical_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    run(&a, &[(2, 2, None)]);
    run(&b, &[(2, 2, None)]);
    run(&c, &[(2, 3, None)]);
    let same = diff(&a, &b).unwrap();
    assert!(same.identical(), "{same:?}");
    assert!(
        same.weights > 20 && same.optimizer == 2 * same.weights && same.rows == 3,
        "{same:?}"
    );
    let other = diff(&a, &c).unwrap();
    let said = other.differences.join("\n");
    assert!(
        said.contains("model.safetensors: ") && said.contains("numbers differ"),
        "{said}"
    );
    assert!(
        said.contains("optimizer.safetensors: ") && said.contains("more tensors differ"),
        "{said}"
    );
    // One number of the log's loss is enough.
    let log = b.join("metrics.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replace("\"loss\":4.0", "\"loss\":4.0000000001")).unwrap();
    let said = diff(&a, &b).unwrap().differences;
    assert!(said.len() == 1 && said[0].contains("step 2"), "{said:?}");
    let message = diff(&a, folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("neither a run nor a checkpoint"),
        "{message}"
    );
}

#[test]
fn the_mean_of_equal_checkpoints_is_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let saved = run(
        &folder.path().join("a"),
        &[(1, 1, None), (2, 1, None), (3, 3, None)],
    );
    let out = folder.path().join("mean");
    average(&[saved[0].clone(), saved[1].clone()], &out).unwrap();
    let weights = |place: &Path| read_tensors(&place.join("model.safetensors")).unwrap();
    assert_eq!(weights(&out), weights(&saved[0]));

    let out = folder.path().join("other");
    average(&[saved[0].clone(), saved[2].clone()], &out).unwrap();
    for ((mean, a), b) in weights(&out)
        .iter()
        .zip(weights(&saved[0]))
        .zip(weights(&saved[2]))
    {
        for ((mean, a), b) in mean.values.iter().zip(a.values).zip(b.values) {
            assert_eq!(*mean, ((f64::from(a) + f64::from(b)) / 2.0) as f32);
        }
    }
    let device = test_support::device();
    modernbert::model::MaskedLm::load(modernbert::Loader::new(&out).device(&device)).unwrap();
    assert!(average(&[], &out).is_err());
    let twice = average(
        &[saved[0].clone(), saved[0].clone()],
        &folder.path().join("twice"),
    );
    assert!(matches!(twice, Err(ToolError::Twice(_))));
}

#[test]
fn the_best_are_chosen_by_held_out_loss() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    run(
        &root,
        &[
            (1, 0, Some(3.0)),
            (2, 0, Some(1.0)),
            (3, 0, None),
            (4, 0, Some(2.0)),
            (5, 0, Some(1.5)),
        ],
    );
    let steps = |best, last| -> Vec<u64> {
        let chosen = best_checkpoints(&root, best, last).unwrap();
        chosen.into_iter().map(|(_, step, _)| step).collect()
    };
    assert_eq!(steps(1, false), [2]);
    assert_eq!(steps(3, false), [2, 5, 4]);
    // The last one isn't counted twice.
    assert_eq!(steps(3, true), [2, 4, 1, 5]);
    let message = best_checkpoints(&root, 5, true).unwrap_err().to_string();
    assert!(message.contains("keep_best"), "{message}");
}

#[test]
fn the_best_are_those_of_the_last_phase() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    let losses = [
        (1, 0, 1.0),
        (2, 0, 1.1),
        (3, 1, 3.0),
        (4, 1, 2.5),
        (5, 1, 2.0),
    ];
    let saves = losses.map(|(step, phase, loss)| Save {
        step,
        updates: 0,
        loss: Some(loss),
        phase,
    });
    run_of(&root, &saves);
    let chosen = best_checkpoints(&root, 2, true).unwrap();
    let steps: Vec<u64> = chosen.into_iter().map(|(_, step, _)| step).collect();
    assert_eq!(steps, [4, 3, 5]);
    let message = best_checkpoints(&root, 3, true).unwrap_err().to_string();
    assert!(
        message.contains("2 of its last phase's checkpoints"),
        "{message}"
    );
}

#[test]
fn an_exported_checkpoint_is_a_model_folder() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    let saved = run(&root, &[(2, 1, None)]);
    let out = folder.path().join("model");
    export(&checkpoint_at(&root).unwrap(), &out, false).unwrap();
    let device = test_support::device();
    modernbert::model::MaskedLm::load(modernbert::Loader::new(&out).device(&device)).unwrap();
    let mut names: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    let card = fs::read_to_string(out.join("README.md")).unwrap();
    for part in [
        "# model\n",
        "language: en\n",
        "Rust sources",
        "in 2 steps",
        "English only",
        "Bias",
    ] {
        assert!(card.contains(part), "no {part:?} in {card}");
    }
    let here = folder.path().to_str().unwrap();
    assert!(!card.contains(here), "a path of this machine in {card}");
    // In int8, from the checkpoint and from the model: the same tensors, a quarter of the matrices' bytes, and loadable.
    let (direct, again) = (
        folder.path().join("direct"),
        folder.path().join("from-model"),
    );
    export(&saved[0], &direct, true).unwrap();
    assert_eq!(export_model_int8(&out, &again).unwrap(), 4 * 4);
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(weights(&direct), weights(&again));
    assert!(weights(&direct).len() < weights(&out).len());
    for folder in [&direct, &again] {
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        assert!(config.contains("compressed-tensors"), "{config}");
        modernbert::model::MaskedLm::load(modernbert::Loader::new(folder).device(&device)).unwrap();
    }
    let message = export_model_int8(&again, &folder.path().join("c")).unwrap_err();
    assert!(message.to_string().contains("in int8 already"), "{message}");
    assert!(!folder.path().join("c").exists());
    // A damaged checkpoint is not passed on.
    fs::write(saved[0].join("model.safetensors"), "damaged").unwrap();
    assert!(export(&saved[0], &folder.path().join("again"), false).is_err());
    assert!(!folder.path().join("again").exists());
    modernbert::model::MaskedLm::load(modernbert::Loader::new(&out).device(&device)).unwrap();
}

#[test]
fn everything_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    let saved = run(&root, &[(2, 1, Some(2.5))]);
    let base = inspect(Path::new("base")).unwrap();
    let first = &base["phases"][0];
    assert_eq!(first["tokens_per_step"], 4_718_592);
    assert_eq!(first["steps"], 364_304);
    assert_eq!(first["batch_warmup"][0]["tokens_per_step"], 768 * 1024);
    assert_eq!(base["phases"][2]["sequence_length"], 8192);
    let parameters = first["parameters"].as_u64().unwrap();
    assert!(
        (149_000_000..150_000_000).contains(&parameters),
        "{parameters}"
    );
    let large = inspect(Path::new("large")).unwrap();
    assert_eq!(large["phases"][0]["tokens_per_step"], 5_046_272);
    assert_eq!(large["phases"][3]["tokens_per_step"], 5_111_808);

    let of_run = inspect(&root).unwrap();
    assert_eq!(
        (&of_run["kind"], &of_run["checkpoints"][0]["state"]),
        (&"run".into(), &"good".into())
    );
    let of_checkpoint = inspect(&saved[0]).unwrap();
    assert_eq!(of_checkpoint["state"]["eval_loss"], 2.5);
    let text = lines(&of_run).join("\n");
    assert!(text.contains("step: 2"), "{text}");
    assert!(
        inspect(folder.path())
            .unwrap_err()
            .to_string()
            .contains("nothing to describe")
    );
    assert!(inspect(Path::new("nowhere.toml")).is_err());
}

#[test]
fn curves_of_several_runs_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
    run(&a, &[]);
    run(&b, &[]);
    let out = folder.path().join("curves.png");
    let points = plot_runs(&[a.clone(), b], Quantity::Loss, Against::Tokens, &out).unwrap();
    assert_eq!((points.points, points.left_out), (6, 0));
    assert_eq!(fs::read(&out).unwrap()[..4], *b"\x89PNG");
    assert_eq!(
        plot_runs(std::slice::from_ref(&a), Quantity::Lr, Against::Steps, &out)
            .unwrap()
            .points,
        2
    );
    assert!(plot_runs(&[a], Quantity::Mfu, Against::Steps, &out).is_err());
}

#[test]
fn a_model_never_replaces_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    let saved = run(&root, &[(1, 1, None), (2, 1, None)]);
    let other = folder.path().join("b");
    run(&other, &[(2, 1, None)]);
    let downloaded = folder.path().join("downloaded");
    fs::create_dir(&downloaded).unwrap();
    fs::write(downloaded.join("model.safetensors"), "precious").unwrap();
    for (out, said) in [
        (root.clone(), "contains the input"),
        (root.join("model"), "inside the input"),
        (saved[0].clone(), "same as the input"),
        (saved[1].join("model"), "inside the input"),
        (other.clone(), "not empty"),
        (
            other.join("checkpoints/step-00000002/model"),
            "inside the checkpoint",
        ),
        (downloaded.clone(), "not empty"),
    ] {
        for message in [
            export(&saved[0], &out, false).unwrap_err().to_string(),
            average(&saved[..1], &out).unwrap_err().to_string(),
        ] {
            assert!(message.contains(said), "{message}");
        }
    }
    let kept = fs::read_to_string(downloaded.join("model.safetensors")).unwrap();
    assert_eq!(kept, "precious");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    assert!(diff(&root, &saved[1]).unwrap().identical());

    let picture = folder.path().join("holiday.png");
    fs::write(&picture, "precious").unwrap();
    for (out, said) in [
        (picture.clone(), "exists already"),
        (root.join("metrics.jsonl"), "inside the input"),
        (folder.path().join("curves.svg"), "ends in .png"),
    ] {
        let drawn = plot_runs(
            std::slice::from_ref(&root),
            Quantity::Loss,
            Against::Steps,
            &out,
        );
        let message = drawn.unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
    assert_eq!(fs::read_to_string(&picture).unwrap(), "precious");
}

#[test]
fn a_checkpoint_under_another_number_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    let saved = run(&root, &[(2, 1, Some(1.0))]);
    let copied = saved[0].with_file_name("step-00000009");
    fs::create_dir(&copied).unwrap();
    for entry in fs::read_dir(&saved[0]).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copied.join(entry.file_name())).unwrap();
    }
    for message in [
        diff(&root, &saved[0]).unwrap_err().to_string(),
        best_checkpoints(&root, 1, false).unwrap_err().to_string(),
    ] {
        assert!(
            message.contains("step-00000009") && message.contains("checkpoint of step 2"),
            "{message}"
        );
    }
}

#[test]
fn a_loss_that_is_not_finite_is_never_best() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a");
    let saves = [(1, 0, Some(3.0)), (2, 0, Some(4.0))];
    let saved = run(&root, &saves);
    // A negative NaN sorts before every number.
    let state = saved[1].join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(
        &state,
        text.replace("\"eval_loss\": 4.0", "\"eval_loss\": null"),
    )
    .unwrap();
    let chosen = best_checkpoints(&root, 1, false).unwrap();
    assert_eq!(chosen[0].1, 1);
    assert!(best_checkpoints(&root, 2, false).is_err());
}
