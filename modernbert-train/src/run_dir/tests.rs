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
fn the_best_are_kept_beside_the_last_one() {
    let place = Place::new();
    let rule = CheckpointRecipe {
        keep_last: 2,
        keep_best: 3,
        ..CheckpointRecipe::default()
    };
    // A loss that falls to the end: the last one is the best, and three others are kept.
    for (step, loss) in [
        (10, 6.0),
        (20, 5.0),
        (30, 4.0),
        (40, 3.0),
        (50, 2.0),
        (60, 1.0),
    ] {
        place.save(step, Some(loss), false, &rule);
    }
    assert_eq!(place.steps(), [30, 40, 50, 60]);
    place.save(70, Some(f64::NAN), false, &rule);
    assert_eq!(place.steps(), [40, 50, 60, 70]);
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
    assert!(checkpoints::retain(&place.root(), &one, &Warnings::default()).is_err());
    assert_eq!(place.steps(), [20, 30]);
}

#[test]
fn the_rotation_removes_only_what_the_run_wrote() {
    let place = Place::new();
    let one = CheckpointRecipe {
        keep_last: 1,
        keep_best: 0,
        ..CheckpointRecipe::default()
    };
    let checkpoints = place.root().join(CHECKPOINTS);
    // A folder of the user, a copy of a checkpoint under another name, one under the number of a later step.
    let mine = |name: &str| {
        let path = checkpoints.join(name).join("notes.txt");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "precious").unwrap();
        path
    };
    place.save(10, None, false, &one);
    let made = [mine("step-00000001"), mine("step-3"), mine("step-x")];
    let copy = |name: &str| {
        fs::create_dir(checkpoints.join(name)).unwrap();
        for entry in fs::read_dir(checkpoints.join("step-00000010")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), checkpoints.join(name).join(entry.file_name())).unwrap();
        }
    };
    copy("step-10");
    copy("step-00099999");
    let before = content(&checkpoints);
    place.save(20, None, false, &one);
    let mut now = content(&checkpoints);
    now.retain(|path, _| !path.starts_with(checkpoints.join("step-00000020")));
    let mut kept = before.clone();
    kept.retain(|path, _| !path.starts_with(checkpoints.join("step-00000010")));
    assert_eq!(now, kept);
    assert_eq!(place.dir.warnings().len(), 1, "step-00000001");

    // A file of the user in a checkpoint, and a file that was changed: the checkpoint stays whole.
    fs::write(checkpoints.join("step-00000020/notes.txt"), "precious").unwrap();
    place.save(30, None, false, &one);
    let changed = checkpoints.join("step-00000030/config.json");
    fs::write(&changed, "precious").unwrap();
    place.save(40, None, false, &one);
    assert!(verify_whole(&checkpoints.join("step-00000020")));
    assert_eq!(fs::read_to_string(&changed).unwrap(), "precious");
    let warnings = place.dir.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, parts) in warnings.iter().zip([
        [
            "step-00000020: kept, for notes.txt",
            "no file of the checkpoint",
        ],
        ["step-00000030: kept, for config.json", "changed since"],
    ]) {
        assert!(parts.iter().all(|part| warning.contains(part)), "{warning}");
    }
    // Each is said once.
    place.save(50, None, false, &one);
    assert_eq!(place.dir.warnings(), Vec::<String>::new());
    assert!(!checkpoints.join("step-00000040").exists());

    // Saved again, a checkpoint with a file of the user moves aside.
    fs::write(checkpoints.join("step-00000050/notes.txt"), "precious").unwrap();
    place.save(50, None, true, &one);
    let aside = checkpoints.join("aside-0-step-00000050/notes.txt");
    assert_eq!(fs::read_to_string(aside).unwrap(), "precious");
    let warnings = place.dir.warnings();
    assert!(
        warnings[0].contains("aside-0-step-00000050"),
        "{warnings:?}"
    );
    for path in made {
        assert_eq!(fs::read_to_string(path).unwrap(), "precious");
    }

    // Files left by a crash are removed only if the program may have written them.
    let partial = mine(".writing-step-00000060");
    let root = place.root();
    let Place { folder, dir } = place;
    drop(dir);
    let message = RunDir::open(&root).err().unwrap().to_string();
    assert!(
        message.contains("notes.txt") && message.contains("move it away"),
        "{message}"
    );
    fs::remove_file(partial).unwrap();
    drop(RunDir::open(&root).unwrap());
    drop(folder);
}

fn verify_whole(checkpoint: &Path) -> bool {
    crate::snapshot::verify(checkpoint).is_ok()
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
    assert_eq!(cut_log(&place.root(), 2, |_| Ok(())).unwrap(), 2);
    let expected = "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"split\":\"eval\"}\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(cut_log(&place.root(), 9, |_| Ok(())).unwrap(), 0);
    assert_eq!(cut_log(&place.root(), 0, |_| Ok(())).unwrap(), 3);
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
    let mut info = RunInfo::read(&root).unwrap().unwrap();
    info.record_files(&root).unwrap();
    info.write(&root).unwrap();
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

/// A run with a log, a tokenizer and a model, whose process has ended.
fn finished() -> (tempfile::TempDir, PathBuf) {
    let place = Place::new();
    let root = place.root();
    place.dir.keep_logs().unwrap();
    fs::write(root.join("tokenizer.json"), "of the run").unwrap();
    let mut info = RunInfo::read(&root).unwrap().unwrap();
    info.shards.insert("shards/a".into(), "hash".into());
    info.record_files(&root).unwrap();
    info.write(&root).unwrap();
    let row = |step: u64| json!({ "step": step });
    for step in 1..=3 {
        place.dir.append(METRICS_FILE, &row(step)).unwrap();
    }
    place.save(2, None, false, &CheckpointRecipe::default());
    put(&place.dir, "one").unwrap();
    let Place { folder, dir } = place;
    drop(dir);
    (folder, root)
}

fn put(dir: &RunDir, content: &str) -> Result<(), RunDirError> {
    dir.put_model(|folder| {
        for name in ["config.json", "model.safetensors"] {
            fs::write(folder.join(name), content).unwrap();
        }
        Ok(())
    })
}

#[test]
fn a_resume_replaces_only_what_the_run_wrote() {
    let (_folder, root) = finished();
    let open = || {
        let (dir, _, info) = RunDir::open(&root)?;
        dir.check_written(&info).map(|()| dir)
    };
    drop(open().unwrap());
    let log = fs::read_to_string(root.join(METRICS_FILE)).unwrap();
    assert_eq!(log.lines().count(), 3);
    let other = log.replace("1}", "9}");
    let longer = format!("{log}{}\n", json!({ "step": 4 }));
    for (name, changed) in [
        (METRICS_FILE, "precious"),
        (METRICS_FILE, &other),
        // The process that wrote the log has ended: it wrote no more rows.
        (METRICS_FILE, &longer),
        (METRICS_FILE, &log[..5]),
        (POSITIONS_FILE, "precious\n"),
        (PICTURE_FILE, "precious"),
        ("tokenizer.json", "precious"),
        ("model.safetensors", "precious"),
        ("config.json", "precious"),
        ("lock", "precious"),
    ] {
        let path = root.join(name);
        let own = fs::read(&path).ok();
        fs::write(&path, changed).unwrap();
        let before = content(&root);
        for _ in 0..2 {
            let message = open().err().unwrap().to_string();
            assert!(
                message.contains(name) && message.contains("move it away"),
                "{message}"
            );
        }
        let mut after = content(&root);
        if name != "lock" {
            after.insert(root.join("lock"), before[&root.join("lock")].clone());
        }
        assert_eq!(after, before, "{name}");
        // `--restart` too.
        let message = refused(&root, true);
        assert!(message.contains(name), "{message}");
        match own {
            Some(own) => fs::write(&path, own).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    // A run without its log may be replaced.
    fs::remove_file(root.join(METRICS_FILE)).unwrap();
    drop(open().unwrap());
}

#[test]
fn rows_after_the_last_note_are_those_of_a_killed_process() {
    let (_folder, root) = finished();
    let (dir, _, info) = RunDir::open(&root).unwrap();
    dir.check_written(&info).unwrap();
    assert_eq!(dir.cut_logs(2).unwrap(), 1);
    dir.keep_logs().unwrap();
    dir.append(METRICS_FILE, &json!({ "step": 3 })).unwrap();
    // The process did not record its end: the lock is free, and the last note is that of the start.
    let killed = fs::read(root.join(INFO_FILE)).unwrap();
    drop(dir);
    fs::write(root.join(INFO_FILE), killed).unwrap();
    let path = root.join(METRICS_FILE);
    let log = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{log}{{\"st")).unwrap();
    let (dir, _, info) = RunDir::open(&root).unwrap();
    dir.check_written(&info).unwrap();
    fs::write(&path, format!("{log}precious\n")).unwrap();
    assert!(dir.check_written(&info).is_err());
}

#[test]
fn a_model_appears_complete_or_not_at_all() {
    let (_folder, root) = finished();
    let (dir, ..) = RunDir::open(&root).unwrap();
    let text = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let failed: Result<(), RunDirError> = dir.put_model(|folder| {
        fs::write(folder.join("config.json"), "half").unwrap();
        Err(RunDirError::NoFolder(folder.to_path_buf()))
    });
    assert!(failed.is_err());
    assert_eq!(text("config.json"), "one");
    put(&dir, "two").unwrap();
    assert_eq!(
        (text("config.json"), text("model.safetensors")),
        ("two".into(), "two".into())
    );
    // Killed between the two files: both models are known.
    let mut info = RunInfo::read(&root).unwrap().unwrap();
    let three = root.join("three");
    fs::write(&three, "three").unwrap();
    let hash = crate::snapshot::hash_file(&three).unwrap();
    info.announce(
        &["config.json", "model.safetensors"]
            .map(|n| (n.into(), hash.clone()))
            .into(),
    );
    info.write(&root).unwrap();
    fs::rename(&three, root.join("config.json")).unwrap();
    dir.check_written(&info).unwrap();
    put(&dir, "three").unwrap();
    assert_eq!(text("model.safetensors"), "three");
    // Changed while the run went on.
    fs::write(root.join("model.safetensors"), "precious").unwrap();
    let message = put(&dir, "four").unwrap_err().to_string();
    assert!(message.contains("model.safetensors"), "{message}");
    assert_eq!(
        (text("config.json"), text("model.safetensors")),
        ("three".into(), "precious".into())
    );
    assert!(!root.join("checkpoints/.writing-model").exists());
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
