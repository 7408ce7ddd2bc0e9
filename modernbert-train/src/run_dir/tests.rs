#![allow(clippy::unwrap_used)]

use super::*;
use crate::snapshot::Snapshot;
use crate::snapshot::tests::trained;
use std::fs;

fn recipe() -> Recipe {
    Recipe::from_str("model.preset = '17m'\nrun.total_tokens = 1_000_000", "x").unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    dir: RunDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = RunDir::create(&folder.path().join("run"), &recipe(), false).unwrap();
        Self { folder, dir }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn save(&self, step: u64, eval_loss: Option<f64>, done: bool, rule: &CheckpointRecipe) {
        let (model, optimizer) = trained(0);
        let state = RunState {
            step,
            eval_loss,
            eval_step: Some(step),
            phase_done: done,
            ..RunState::default()
        };
        self.dir.save(&model, &optimizer, &state, rule).unwrap();
    }

    fn steps(&self) -> Vec<u64> {
        let found = list_checkpoints(&self.root()).unwrap();
        found.into_iter().map(|one| one.step).collect()
    }

    fn damage(&self, step: u64) {
        let path = self.dir.checkpoint_path(step).join("optimizer.safetensors");
        let mut content = fs::read(&path).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        fs::write(path, content).unwrap();
    }
}

#[test]
fn old_checkpoints_go_by_the_rule() {
    let place = Place::new();
    let rule = CheckpointRecipe {
        keep_last: 2,
        keep_best: 1,
        keep_every_steps: Some(50),
        ..CheckpointRecipe::default()
    };
    for (step, loss) in [
        (10, 3.0),
        (20, 1.0),
        (30, 2.0),
        (40, 4.0),
        (50, 5.0),
        (60, 6.0),
        (70, 7.0),
    ] {
        place.save(step, Some(loss), step == 40, &rule);
    }
    // The best, the end of a phase, a multiple of 50, the last two.
    assert_eq!(place.steps(), [20, 40, 50, 60, 70]);
}

#[test]
fn the_only_good_checkpoint_is_never_dropped() {
    let place = Place::new();
    let one = CheckpointRecipe {
        keep_last: 1,
        ..CheckpointRecipe::default()
    };
    place.save(10, None, false, &one);
    place.save(20, None, false, &one);
    assert_eq!(place.steps(), [20]);
    // If the checkpoint just written is damaged on the disk, the previous one is kept.
    let all = CheckpointRecipe {
        keep_last: 9,
        ..CheckpointRecipe::default()
    };
    place.save(30, None, false, &all);
    place.damage(30);
    assert!(checkpoints::retain(&place.root(), &one).is_err());
    assert_eq!(place.steps(), [20, 30]);
}

#[test]
fn a_resume_chooses_its_checkpoint() {
    let place = Place::new();
    let root = place.root();
    let step = |choice: Choice| {
        choice
            .open(&root)
            .map(|found| found.map(|snapshot: Snapshot| snapshot.state.step))
    };
    assert_eq!(step(Choice::Latest).unwrap(), None);
    assert!(
        step(Choice::Previous)
            .unwrap_err()
            .to_string()
            .contains("no checkpoint yet")
    );
    let rule = CheckpointRecipe {
        keep_last: 9,
        ..CheckpointRecipe::default()
    };
    for at in [10, 20, 30] {
        place.save(at, None, false, &rule);
    }
    assert_eq!(step(Choice::Latest).unwrap(), Some(30));
    assert_eq!(step(Choice::Previous).unwrap(), Some(20));
    assert_eq!(step("step-10".parse().unwrap()).unwrap(), Some(10));
    let message = step("15".parse().unwrap()).unwrap_err().to_string();
    assert!(
        message.contains("no step-15") && message.contains("step-10, step-20, step-30"),
        "{message}"
    );
    place.damage(30);
    let message = step(Choice::Latest).unwrap_err().to_string();
    for part in [
        "step-00000030/optimizer.safetensors",
        "SHA-256",
        "--from previous",
        "step 20",
    ] {
        assert!(message.contains(part), "{message}");
    }
    place.damage(20);
    assert_eq!(step(Choice::Previous).unwrap(), Some(10));
    place.damage(10);
    let message = step(Choice::Latest).unwrap_err().to_string();
    assert!(message.contains("No other checkpoint"), "{message}");
    assert!("newest".parse::<Choice>().is_err());

    assert_eq!(place.dir.set_aside_after(10).unwrap(), 2);
    assert_eq!(place.steps(), [10]);
    assert_eq!(fs::read_dir(root.join(CHECKPOINTS)).unwrap().count(), 3);
}

#[test]
fn one_process_at_a_time() {
    let place = Place::new();
    let message = RunDir::open(&place.root()).err().unwrap().to_string();
    let id = std::process::id().to_string();
    assert!(
        message.contains("another process") && message.contains(&id),
        "{message}"
    );
    let root = place.root();
    let Place { folder, dir } = place;
    drop(dir);
    assert!(RunDir::open(&root).is_ok());
    drop(folder);
}

#[test]
fn a_run_is_not_overwritten_unless_asked() {
    let place = Place::new();
    place.save(10, None, false, &CheckpointRecipe::default());
    let root = place.root();
    let Place { folder, dir } = place;
    drop(dir);
    let message = RunDir::create(&root, &recipe(), false)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("step 10") && message.contains("--restart"),
        "{message}"
    );
    drop(RunDir::create(&root, &recipe(), true).unwrap());
    assert!(list_checkpoints(&root).unwrap().is_empty());
    drop(folder);
}

#[test]
fn a_changed_recipe_is_noticed() {
    let place = Place::new();
    let root = place.root();
    let Place { folder, dir } = place;
    drop(dir);
    let path = root.join(RECIPE_FILE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("total_tokens = 1000000"));
    fs::write(
        &path,
        text.replace("total_tokens = 1000000", "total_tokens = 2000000"),
    )
    .unwrap();
    let message = RunDir::open(&root).err().unwrap().to_string();
    assert!(
        message.contains("recipe was changed") && message.contains("rollback"),
        "{message}"
    );
    fs::write(&path, text).unwrap();
    assert_eq!(RunDir::open(&root).unwrap().1, recipe());
    fs::remove_file(&path).unwrap();
    assert!(
        RunDir::open(&root)
            .err()
            .unwrap()
            .to_string()
            .contains("holds no run")
    );
    drop(folder);
}

#[test]
fn the_log_is_cut_back_to_a_step() {
    let place = Place::new();
    let path = place.root().join(METRICS_FILE);
    let rows = "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"split\":\"eval\"}\n{\"step\":3}\n{\"st";
    fs::write(&path, rows).unwrap();
    assert_eq!(cut_log(&place.root(), 2).unwrap(), 2);
    let expected = "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"split\":\"eval\"}\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(cut_log(&place.root(), 9).unwrap(), 0);
    assert_eq!(cut_log(&place.root(), 0).unwrap(), 3);
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

fn refused(root: &Path, restart: bool) -> String {
    let result = RunDir::create(root, &recipe(), restart);
    result.err().unwrap().to_string()
}

/// Every file below a folder with its content.
fn content(folder: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_folder_that_holds_no_run_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in [
        ("downloaded", "model.safetensors"),
        ("recipe", "recipe.toml"),
        ("checkpoints", "checkpoints/my/file"),
        ("notes", "notes.txt"),
        ("run", "run.json"),
        ("metrics", "metrics.jsonl"),
    ] {
        let root = folder.path().join(name);
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{\"precious\": 1}").unwrap();
        let before = content(&root);
        for restart in [false, true] {
            // The message names the damaged run.json.
            let message = refused(&root, restart);
            assert!(
                message.contains("nothing is removed") || message.contains("run.json: damaged"),
                "{message}"
            );
            assert_eq!(content(&root), before, "{name}");
        }
    }
}

#[test]
fn restart_removes_only_what_the_run_wrote() {
    let place = Place::new();
    let root = place.root();
    place.save(10, None, false, &CheckpointRecipe::default());
    for name in ["tokenizer.json", "config.json", "model.safetensors"] {
        fs::write(root.join(name), "of the run").unwrap();
    }
    place.dir.record_model().unwrap();
    fs::write(root.join(METRICS_FILE), "{\"step\":1}\n").unwrap();
    let Place { folder, dir } = place;
    drop(dir);
    let before = content(&root);
    let message = refused(&root, false);
    assert!(message.contains("--restart"), "{message}");
    let checkpoint = root.join("checkpoints/step-00000010");
    for added in [
        root.join("checkpoints/my/file"),
        root.join("notes.txt"),
        root.join("best/model.safetensors"),
        checkpoint.join("notes.txt"),
        root.join("shards/train.tokens"),
        root.join("loss.png"),
    ] {
        fs::create_dir_all(added.parent().unwrap()).unwrap();
        fs::write(&added, "precious").unwrap();
        let message = refused(&root, true);
        assert!(message.contains("nothing is removed"), "{message}");
        assert_eq!(fs::read_to_string(&added).unwrap(), "precious");
        fs::remove_file(&added).unwrap();
        let _ = fs::remove_dir(added.parent().unwrap());
        assert_eq!(content(&root), before);
    }
    for changed in [RECIPE_FILE, "model.safetensors", "tokenizer.json"] {
        let path = root.join(changed);
        let own = fs::read(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let message = refused(&root, true);
        assert!(
            message.contains(changed) && message.contains("changed"),
            "{message}"
        );
        fs::write(&path, own).unwrap();
        assert_eq!(content(&root), before);
    }
    drop(RunDir::create(&root, &recipe(), true).unwrap());
    let left: Vec<String> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
    // Nothing was trained in it yet: a new run needs no --restart.
    drop(RunDir::create(&root, &recipe(), false).unwrap());
    drop(folder);
}

#[cfg(unix)]
#[test]
fn links_in_a_folder_handed_over_are_not_followed() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let root = place.root();
    let precious = place.folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    let Place { folder, dir } = place;
    drop(dir);
    for name in ["lock", HISTORY_FILE, POSITIONS_FILE] {
        let path = root.join(name);
        let _ = fs::remove_file(&path);
        symlink(&precious, &path).unwrap();
        let message = match RunDir::open(&root) {
            Err(error) => error.to_string(),
            Ok((dir, ..)) => dir.append(name, &json!({})).unwrap_err().to_string(),
        };
        assert!(message.contains("symbolic link"), "{name}: {message}");
        let message = refused(&root, true);
        assert!(message.contains(name), "{message}");
        fs::remove_file(&path).unwrap();
    }
    symlink(folder.path(), root.join("checkpoints")).unwrap();
    let message = refused(&root, true);
    assert!(message.contains("checkpoints"), "{message}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}
