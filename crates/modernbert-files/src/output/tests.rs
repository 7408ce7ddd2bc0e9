#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;
use std::path::Path;

fn refused(check: &OutputCheck<'_>) -> String {
    check.check().unwrap_err().to_string()
}

#[test]
fn a_new_place_is_accepted_and_left_untouched() {
    let folder = tempfile::tempdir().unwrap();
    OutputCheck::file(&folder.path().join("a.jsonl"))
        .check()
        .unwrap();
    OutputCheck::folder(&folder.path().join("deep/er/model"))
        .check()
        .unwrap();
    OutputCheck::folder(folder.path()).check().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // A bare name is a file of the current folder.
    OutputCheck::file(Path::new("no-such-file-here.png"))
        .check()
        .unwrap();
}

#[test]
fn what_is_there_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, "mine").unwrap();
    let said = refused(&OutputCheck::file(&file));
    assert!(
        said.contains("a.jsonl") && said.contains("exists"),
        "{said}"
    );
    let said = refused(&OutputCheck::file(&file).overwrite(false));
    assert!(said.contains("--overwrite"), "{said}");
    OutputCheck::file(&file).overwrite(true).check().unwrap();
    OutputCheck::file(&file)
        .replaces(|path| fs::read(path).unwrap() == b"mine")
        .check()
        .unwrap();
    assert!(
        OutputCheck::file(&file)
            .replaces(|_| false)
            .check()
            .is_err()
    );
    let said = refused(&OutputCheck::folder(folder.path()));
    assert!(said.contains("not empty (it holds a.jsonl)"), "{said}");
    let said = refused(&OutputCheck::folder(&file));
    assert!(said.contains("is a file"), "{said}");
    let said = refused(&OutputCheck::folder(&file.join("below")));
    assert!(said.contains("below") && said.contains("--out"), "{said}");
    let said = refused(&OutputCheck::file(folder.path()).overwrite(true));
    assert!(said.contains("is a folder"), "{said}");
    let said = refused(&OutputCheck::file(&folder.path().join("none/a.png")));
    assert!(said.contains("there is no folder"), "{said}");
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
}

#[test]
fn inputs_are_no_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    fs::create_dir(&model).unwrap();
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, "text").unwrap();
    let inputs = [&model, &texts];
    let said = refused(&OutputCheck::file(&texts).inputs(inputs).overwrite(true));
    assert!(said.contains("same as the input"), "{said}");
    for inside in [
        model.join("vectors.safetensors"),
        model.join("../model/vectors.safetensors"),
    ] {
        let said = refused(&OutputCheck::file(&inside).inputs(inputs));
        assert!(said.contains("inside the input"), "{said}");
    }
    let said = refused(&OutputCheck::folder(&model).inputs(inputs));
    assert!(said.contains("same as the input"), "{said}");
    let said = refused(&OutputCheck::folder(&model.join("new")).inputs(inputs));
    assert!(said.contains("inside the input"), "{said}");
    OutputCheck::folder(&folder.path().join("model-2"))
        .inputs(["organisation/model", "nowhere"])
        .check()
        .unwrap();
    // An input that is missing would be found in the place of the results.
    let absent = folder.path().join("absent");
    let said = refused(&OutputCheck::folder(&absent).inputs([&absent]));
    assert!(said.contains("same as the input"), "{said}");

    let checkpoint = folder.path().join("run/checkpoints/step-00000001");
    fs::create_dir_all(&checkpoint).unwrap();
    for name in ["manifest.json", "state.json"] {
        fs::write(checkpoint.join(name), "{}").unwrap();
    }
    let said = refused(&OutputCheck::file(&checkpoint.join("a.png")));
    assert!(said.contains("inside the checkpoint"), "{said}");
}

#[test]
fn a_name_that_ends_in_a_separator_is_a_folder() {
    let place = tempfile::tempdir().unwrap();
    for name in ["a.jsonl/", "a.jsonl/.", "."] {
        let path = place.path().join(name);
        let message = refused(&OutputCheck::file(&path));
        assert!(message.contains("a folder"), "{name}: {message}");
    }
    let check = OutputCheck::file(place.path()).of_argument("INDEX");
    let message = refused(&check);
    assert!(
        message.contains("INDEX is a folder; give INDEX the name"),
        "{message}"
    );
}
#[cfg(unix)]
#[test]
fn links_and_devices_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let texts = folder.path().join("texts.txt");
    fs::write(&texts, "text").unwrap();
    let link = folder.path().join("link.jsonl");
    std::os::unix::fs::symlink(&texts, &link).unwrap();
    let said = refused(&OutputCheck::file(&link).overwrite(true));
    assert!(said.contains("symbolic link"), "{said}");
    let said = refused(&OutputCheck::file(&link).overwrite(true).inputs([&texts]));
    assert!(said.contains("same as the input"), "{said}");
    let hard = folder.path().join("hard.jsonl");
    fs::hard_link(&texts, &hard).unwrap();
    let said = refused(&OutputCheck::file(&hard).overwrite(true).inputs([&texts]));
    assert!(said.contains("same as the input"), "{said}");
    let said = refused(&OutputCheck::file(Path::new("/dev/null")).overwrite(true));
    assert!(said.contains("a device"), "{said}");
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &dangling).unwrap();
    let said = refused(&OutputCheck::folder(&dangling));
    assert!(said.contains("leads nowhere"), "{said}");
}

#[test]
fn a_disk_too_small_is_known_before() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("model");
    OutputCheck::folder(&place).needs(1).check().unwrap();
    let check = OutputCheck::folder(&place).needs(u64::MAX - 1);
    if cfg!(unix) {
        let said = refused(&check);
        assert!(said.contains("are free on the disk"), "{said}");
    }
}

#[test]
fn a_staged_folder_appears_complete_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a/model");
    let staged = StagedFolder::create(&target).unwrap();
    fs::write(staged.path().join("config.json"), "{}").unwrap();
    drop(staged);
    assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 0);

    let staged = StagedFolder::create(&target).unwrap();
    fs::write(staged.path().join("config.json"), "{}").unwrap();
    assert!(!target.exists());
    staged.commit("config.json").unwrap();
    assert!(target.join("config.json").is_file());
    assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);

    // An existing folder is kept: it may be a mount point.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let staged = StagedFolder::create(&empty).unwrap();
    for name in ["b", "a", "c"] {
        fs::write(staged.path().join(name), name).unwrap();
    }
    staged.commit("b").unwrap();
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 3);

    let staged = StagedFolder::create(&empty).unwrap();
    fs::write(staged.path().join("a"), "other").unwrap();
    assert!(staged.commit("a").is_err());
    assert_eq!(fs::read_to_string(empty.join("a")).unwrap(), "a");
}

#[test]
fn the_sign_for_standard_output_is_no_name() {
    for check in [
        OutputCheck::file(Path::new("-")),
        OutputCheck::folder(Path::new("-")),
    ] {
        let said = refused(&check);
        assert!(said.contains("standard output"), "{said}");
    }
}
