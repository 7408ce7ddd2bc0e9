//! The input files of a path: links, folders in folders, several names of one file.

use super::*;

fn names(root: &Path) -> Vec<String> {
    let found = find_inputs(root).unwrap();
    found.inputs.into_iter().map(|input| input.name).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_folder_gives_its_files_in_order_and_leaves_others_out() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "b.TXT",
        "a/z.py",
        "a/index.json",
        "picture.png",
        "c/shard.00000.mds",
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{\"shards\": 5}").unwrap();
    }
    copy(&fixture("text"), &folder.path().join("mds"));
    let found = find_inputs(folder.path()).unwrap();
    let names: Vec<(&str, bool)> = found
        .inputs
        .iter()
        .map(|input| (input.name.as_str(), input.is_mds))
        .collect();
    assert_eq!(names, [("a/z.py", false), ("b.TXT", false), ("mds", true)]);
    assert_eq!(found.skipped, 3);
}

/// Shards whose index is malformed would be left out as files of another kind.
#[test]
fn a_malformed_index_beside_shards_is_named() {
    for content in [
        "{\"version\": 2, \"shards\": {}}",
        "{\"version\": 2, \"shards\": [5]}",
        "{\"version\": 2, \"shards\": [{\"raw_data\": 1}]}",
        "[]",
        "{",
    ] {
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture("text"), &folder.path().join("mds"));
        fs::write(folder.path().join("a.txt"), "text").unwrap();
        fs::write(folder.path().join("mds/index.json"), content).unwrap();
        let message = match find_inputs(folder.path()) {
            Err(error) => error.to_string(),
            Ok(found) => {
                let mds = found.inputs.iter().find(|input| input.is_mds).unwrap();
                let read = Records::open(mds, &Fields::default());
                read.err().unwrap().to_string()
            }
        };
        assert!(message.contains("index.json"), "{message}");
    }
}

/// An index above lists the shards of the folders below, which have an index each.
#[test]
fn shards_that_two_indexes_list_are_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut shards = Vec::new();
    for part in ["0", "1"] {
        let below = folder.path().join(part);
        copy(&fixture("text"), &below);
        let index = fs::read_to_string(below.join("index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_str(&index).unwrap();
        for shard in index["shards"].as_array().unwrap() {
            let mut shard = shard.clone();
            let name = shard["raw_data"]["basename"].as_str().unwrap().to_owned();
            shard["raw_data"]["basename"] = format!("{part}/{name}").into();
            shards.push(shard);
        }
    }
    let write = |shards: &[serde_json::Value]| {
        let index = serde_json::json!({"version": 2, "shards": shards});
        fs::write(folder.path().join("index.json"), format!("\u{feff}{index}")).unwrap();
    };
    write(&shards);
    let found = find_inputs(folder.path()).unwrap();
    assert!(
        found.inputs.len() == 1 && found.inputs[0].is_mds,
        "{found:?}"
    );
    assert_eq!(texts(folder.path(), &Fields::default()).len(), 6);
    // One folder is listed above, the other is not.
    write(&shards[..1]);
    assert_eq!(find_inputs(folder.path()).unwrap().inputs.len(), 2);
    // One shard twice.
    write(&[shards[0].clone(), shards[0].clone()]);
    let above = InputFile {
        path: folder.path().into(),
        name: "above".into(),
        is_mds: true,
    };
    let twice = Records::open(&above, &Fields::default()).err().unwrap();
    assert!(twice.to_string().contains("is listed twice"), "{twice}");
    // Text beside shards is no input of its own, and counted.
    fs::write(folder.path().join("0/readme.txt"), "a").unwrap();
    write(&shards);
    assert_eq!(find_inputs(folder.path()).unwrap().skipped, 1);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_files_read_once() {
    use std::os::unix::fs::symlink;
    let place = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (place.path().join("blobs"), place.path().join("snapshot"));
    fs::create_dir_all(&blobs).unwrap();
    fs::create_dir_all(snapshot.join("deep")).unwrap();
    fs::write(blobs.join("3f"), "{\"text\": \"linked\"}").unwrap();
    fs::write(snapshot.join("1.txt"), "real").unwrap();
    symlink("../blobs/3f", snapshot.join("train.jsonl")).unwrap();
    assert_eq!(names(&snapshot), ["1.txt", "train.jsonl"]);
    assert_eq!(
        texts(&snapshot.join("train.jsonl"), &Fields::default())[0].1,
        "linked"
    );
    // The same content under more names, a cycle of links, a folder of links.
    symlink("../1.txt", snapshot.join("deep/0.txt")).unwrap();
    symlink("..", snapshot.join("deep/up")).unwrap();
    symlink("train.jsonl", snapshot.join("again.jsonl")).unwrap();
    let found = find_inputs(&snapshot).unwrap();
    assert_eq!(names(&snapshot), ["1.txt", "again.jsonl"]);
    assert_eq!(found.repeated, 3);
    let outside = place.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&snapshot, outside.join("data")).unwrap();
    assert_eq!(names(&outside), ["data/1.txt", "data/again.jsonl"]);
    symlink(&outside, place.path().join("link")).unwrap();
    assert_eq!(names(&place.path().join("link")).len(), 2);
    // A link to a missing file is an error if the file would have been read.
    symlink("nowhere", snapshot.join("lost.png")).unwrap();
    assert_eq!(find_inputs(&snapshot).unwrap().skipped, 1);
    symlink("nowhere", snapshot.join("lost.parquet")).unwrap();
    let message = find_inputs(&snapshot).unwrap_err().to_string();
    assert!(
        message.contains("lost.parquet: a symbolic link to a missing file"),
        "{message}"
    );
}

#[cfg(unix)]
#[test]
fn a_hard_link_is_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    fs::write(place("b.txt"), "text").unwrap();
    fs::write(place("c.txt"), "text").unwrap();
    for name in ["d.txt", "a.txt", "e.png"] {
        fs::hard_link(place("b.txt"), place(name)).unwrap();
    }
    // A copy is another file.
    assert_eq!(names(folder.path()), ["a.txt", "c.txt"]);
    let found = find_inputs(folder.path()).unwrap();
    assert_eq!((found.repeated, found.skipped), (2, 1));
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf8_are_read() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    fs::write(folder.path().join(name), "text").unwrap();
    assert_eq!(names(folder.path()), ["caf\u{fffd}.txt"]);
    assert_eq!(texts(folder.path(), &Fields::default())[0].1, "text");
}

#[test]
fn tables_are_documents_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "id,text,label\nx,\"one\ntwo\",1\n,three,2\ny, ,3\n").unwrap();
    let second = "a.csv:4";
    let expected = pairs(&[("x", "one\ntwo"), (second, "three")]);
    assert_eq!(texts(&path, &Fields::default()), expected);
    fs::write(&path, "text\none\n").unwrap();
    assert_eq!(
        texts(&path, &Fields::default()),
        pairs(&[("a.csv:2", "one")])
    );
    fs::write(&path, "body\none\n").unwrap();
    assert!(message(&path, &Fields::default()).contains("no column \"text\""));
    let packed = folder.path().join("b.txt.gz");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all("\u{feff}whole\nfile".as_bytes()).unwrap();
    fs::write(&packed, gzip.finish().unwrap()).unwrap();
    assert_eq!(
        texts(&packed, &Fields::default()),
        pairs(&[("b.txt.gz", "whole\nfile")])
    );
}
