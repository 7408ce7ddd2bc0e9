//! Changes of an index, and files that were damaged, cut short, locked or left behind.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use modernbert_retrieval::index::{
    Dtype, IndexOptions, IndexWriter, ModelId, Similarity, VectorIndex,
};
use proptest::prelude::*;

use crate::files::{Place, assert_says, numbers};
use crate::searching::options;

const DIMENSION: usize = 24;

fn vector(seed: u64) -> Vec<f32> {
    numbers(DIMENSION, seed + 100)
}

fn plain() -> IndexOptions {
    options(Dtype::F16, Similarity::Cosine)
}

/// An index of the ids `0`, `1`, ….
fn build(folder: &Path, options: &IndexOptions, count: u64) {
    let mut writer = IndexWriter::create(folder, options).unwrap();
    for i in 0..count {
        writer.add(&i.to_string(), &vector(i), "").unwrap();
    }
    writer.commit().unwrap();
}

fn ids(index: &VectorIndex) -> BTreeSet<String> {
    index.entries().map(|(id, _)| id.to_string()).collect()
}

fn refusal(folder: &Path) -> String {
    VectorIndex::open(folder).unwrap_err().to_string()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "vec"))
        .collect();
    found.sort();
    found
}

#[test]
fn stored_vectors_are_read_back() {
    for (dtype, tolerance) in [(Dtype::F32, 0.0), (Dtype::F16, 5e-4), (Dtype::Int8, 5e-3)] {
        let place = Place::new();
        build(place.path(), &options(dtype, Similarity::Dot), 40);
        let index = VectorIndex::open(place.path()).unwrap();
        for i in [0, 15, 16, 39] {
            let stored = index.vector(&i.to_string()).unwrap();
            assert!(
                stored
                    .iter()
                    .zip(vector(i))
                    .all(|(a, b)| (a - b).abs() <= tolerance),
                "{dtype:?}"
            );
        }
        assert_eq!(index.vector("40"), None);
    }
}

#[test]
fn changes_are_visible_after_commit_and_to_new_readers_only() {
    let place = Place::new();
    build(place.path(), &plain(), 5);
    let before = VectorIndex::open(place.path()).unwrap();
    let mut writer = IndexWriter::open(place.path()).unwrap();
    writer.add("new", &vector(50), "{\"a\":1}").unwrap();
    assert!(writer.update("1", &vector(51), "").unwrap());
    assert!(writer.delete("2"));
    assert!(!writer.delete("2"));
    assert_eq!(writer.len(), 5);
    assert_eq!(VectorIndex::open(place.path()).unwrap().len(), 5);
    assert!(ids(&VectorIndex::open(place.path()).unwrap()).contains("2"));
    writer.commit().unwrap();
    let after = VectorIndex::open(place.path()).unwrap();
    assert_eq!(
        ids(&after),
        ["0", "1", "3", "4", "new"].map(String::from).into()
    );
    assert_eq!(after.search(&vector(51), 1, None).unwrap()[0][0].id, "1");
    assert!(
        after.search(&vector(2), 5, None).unwrap()[0]
            .iter()
            .all(|hit| hit.id != "2")
    );
    assert_eq!(before.search(&vector(2), 1, None).unwrap()[0][0].id, "2");

    let info = after.info();
    assert_eq!(
        (info.vectors, info.deleted, info.segments, info.generation),
        (5, 2, 2, 2)
    );
    assert_eq!(writer.compact().unwrap(), 2);
    let compacted = VectorIndex::open(place.path()).unwrap();
    assert_eq!(
        (compacted.info().deleted, compacted.info().segments),
        (0, 1)
    );
    assert_eq!(segments(place.path()).len(), 1);
    let query = vector(60);
    assert_eq!(
        compacted.search(&query, 9, None).unwrap(),
        after.search(&query, 9, None).unwrap()
    );
    assert_eq!(writer.compact().unwrap(), 0);
}

#[test]
fn compaction_keeps_every_bit_of_every_dtype() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Int8] {
        let place = Place::new();
        build(place.path(), &options(dtype, Similarity::Cosine), 50);
        let mut writer = IndexWriter::open(place.path()).unwrap();
        (0..50)
            .step_by(3)
            .for_each(|i| assert!(writer.delete(&i.to_string())));
        writer.commit().unwrap();
        let before = VectorIndex::open(place.path()).unwrap();
        writer.compact().unwrap();
        let after = VectorIndex::open(place.path()).unwrap();
        assert_eq!(ids(&before), ids(&after));
        for id in ids(&after) {
            assert_eq!(before.vector(&id), after.vector(&id), "{dtype:?} {id}");
        }
    }
}

#[test]
fn what_cannot_be_indexed_is_named() {
    let place = Place::new();
    build(place.path(), &plain(), 2);
    let mut writer = IndexWriter::open(place.path()).unwrap();
    let mut nan = vector(1);
    nan[7] = f32::NAN;
    let mut says = |id: &str, vector: &[f32], part: &str| {
        let message = writer.add(id, vector, "").unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    };
    says("1", &vector(1), "the id '1' occurs a second time");
    says("", &vector(1), "its id is empty");
    says("x", &nan, "document 'x': component 7 is NaN");
    says("x", &[0.0; DIMENSION], "document 'x': all components are 0");
    says(
        "x",
        &[1.0; 3],
        "document 'x': 3 components, the index has 24",
    );
    assert_eq!(writer.len(), 2);
    drop(writer);

    let dot = Place::new();
    let mut writer =
        IndexWriter::create(dot.path(), &options(Dtype::F16, Similarity::Dot)).unwrap();
    let message = writer
        .add("x", &[1e5; DIMENSION], "")
        .unwrap_err()
        .to_string();
    assert_says(&message, &["component 0 is 100000, too large for f16"]);
    let message = writer
        .add("x", &[1e-9; DIMENSION], "")
        .unwrap_err()
        .to_string();
    assert_says(&message, &["largest component is 1e-9, too small for f16"]);
    // Components that are lost in rounding beside a large one change no score.
    let mut mixed = [1e-9; DIMENSION];
    mixed[0] = 0.5;
    writer.add("x", &mixed, "").unwrap();
    for dimension in [0, 65_537] {
        let options = IndexOptions {
            dimension,
            ..plain()
        };
        assert!(IndexWriter::create(&dot.path().join("other"), &options).is_err());
    }
}

#[test]
fn vectors_of_another_model_are_refused() {
    let place = Place::new();
    let model = |name: &str, hash: &str| ModelId {
        name: name.to_string(),
        hash: hash.to_string(),
    };
    let options = IndexOptions {
        model: model("mine", "aa"),
        ..plain()
    };
    build(place.path(), &options, 1);
    let index = VectorIndex::open(place.path()).unwrap();
    index.check_model(&model("moved", "aa")).unwrap();
    index.check_model(&ModelId::default()).unwrap();
    let message = index
        .check_model(&model("other", "bb"))
        .unwrap_err()
        .to_string();
    assert_says(&message, &["mine (hash aa)", "other (hash bb)"]);
    assert_eq!(
        IndexWriter::open(place.path())
            .unwrap()
            .check_model(&model("other", "bb"))
            .unwrap_err()
            .to_string(),
        message
    );
}

#[test]
fn a_second_writer_is_refused_while_readers_are_not() {
    let place = Place::new();
    build(place.path(), &plain(), 1);
    let writer = IndexWriter::open(place.path()).unwrap();
    let message = IndexWriter::open(place.path()).err().unwrap().to_string();
    assert_says(
        &message,
        &["another process", &std::process::id().to_string()],
    );
    assert!(IndexWriter::create(place.path(), &plain()).is_err());
    assert_eq!(VectorIndex::open(place.path()).unwrap().len(), 1);
    drop(writer);
    assert!(IndexWriter::open(place.path()).is_ok());
    assert_says(
        &IndexWriter::create(place.path(), &plain())
            .err()
            .unwrap()
            .to_string(),
        &["contains an index"],
    );
}

#[test]
fn an_uncommitted_build_leaves_no_index_and_no_files() {
    let place = Place::new();
    let folder = place.path().join("index");
    let mut writer = IndexWriter::create(&folder, &plain()).unwrap();
    writer.add("a", &vector(1), "").unwrap();
    drop(writer);
    assert_says(&refusal(&folder), &["no index", "index build"]);
    // A killed process leaves files of these names; the next writer removes them.
    build(&folder, &plain(), 1);
    let segment = folder.join("segment-00000001.vec");
    std::fs::copy(segment, folder.join("segment-00000077.vec")).unwrap();
    std::fs::write(folder.join(".partial-abc"), "left behind").unwrap();
    // A file of such a name that is no segment is not the index's.
    let mine = folder.join("segment-00000088.vec");
    std::fs::write(&mine, "mine").unwrap();
    assert_eq!(VectorIndex::open(&folder).unwrap().len(), 1);
    drop(IndexWriter::open(&folder).unwrap());
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine");
    names.retain(|name| name != "segment-00000088.vec");
    assert_eq!(names, ["lock", "manifest", "segment-00000001.vec"]);
}

#[cfg(unix)]
#[test]
fn a_lock_that_is_a_link_is_refused() {
    let place = Place::new();
    let folder = place.path().join("index");
    build(&folder, &plain(), 1);
    let precious = place.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::fs::remove_file(folder.join("lock")).unwrap();
    std::os::unix::fs::symlink(&precious, folder.join("lock")).unwrap();
    let message = IndexWriter::open(&folder).err().unwrap().to_string();
    assert_says(&message, &["lock"]);
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn every_flipped_byte_and_every_cut_is_detected() {
    let place = Place::new();
    let options = IndexOptions {
        dtype: Dtype::Int8,
        ..plain()
    };
    build(place.path(), &options, 20);
    let mut writer = IndexWriter::open(place.path()).unwrap();
    writer.delete("3");
    writer.commit().unwrap();
    for file in [
        segments(place.path())[0].clone(),
        place.path().join("manifest"),
    ] {
        let whole = std::fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(&file, &flipped).unwrap();
            assert!(
                VectorIndex::open(place.path()).is_err(),
                "{}, byte {at}",
                file.display()
            );
        }
        for length in (0..whole.len()).step_by(7) {
            std::fs::write(&file, &whole[..length]).unwrap();
            assert!(
                VectorIndex::open(place.path()).is_err(),
                "{}, {length} bytes",
                file.display()
            );
            assert!(
                VectorIndex::open_unverified(place.path()).is_err(),
                "{}, {length} bytes",
                file.display()
            );
        }
        std::fs::write(&file, [&whole[..], b"x"].concat()).unwrap();
        assert!(VectorIndex::open(place.path()).is_err());
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(VectorIndex::open(place.path()).unwrap().len(), 19);
    }
    std::fs::remove_file(&segments(place.path())[0]).unwrap();
    assert_says(&refusal(place.path()), &["segment-00000001.vec"]);
}

#[test]
fn the_segment_of_another_index_is_refused() {
    let (one, other) = (Place::new(), Place::new());
    build(one.path(), &plain(), 3);
    build(other.path(), &options(Dtype::F16, Similarity::Dot), 3);
    std::fs::copy(&segments(other.path())[0], &segments(one.path())[0]).unwrap();
    assert_says(&refusal(one.path()), &["file of another index"]);
}

#[derive(Clone, Debug)]
enum Change {
    Update(u8, u64),
    Delete(u8),
    Commit,
    Compact,
    Reopen,
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0u8..24, 0u64..1000).prop_map(|(id, seed)| Change::Update(id, seed)),
        3 => (0u8..24).prop_map(Change::Delete),
        1 => Just(Change::Commit),
        1 => Just(Change::Compact),
        1 => Just(Change::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_changes_give_the_same_hits_as_a_fresh_index(changes in prop::collection::vec(any_change(), 1..60)) {
        let place = Place::new();
        let (folder, fresh) = (place.path().join("changed"), place.path().join("fresh"));
        let mut writer = IndexWriter::create(&folder, &plain()).unwrap();
        let mut expected = std::collections::BTreeMap::new();
        for change in changes {
            match change {
                Change::Update(id, seed) => {
                    let replaced = writer.update(&id.to_string(), &vector(seed), "").unwrap();
                    prop_assert_eq!(expected.insert(id.to_string(), seed).is_some(), replaced);
                }
                Change::Delete(id) => {
                    prop_assert_eq!(expected.remove(&id.to_string()).is_some(), writer.delete(&id.to_string()));
                }
                Change::Commit => writer.commit().unwrap(),
                Change::Compact => {
                    writer.compact().unwrap();
                }
                Change::Reopen => {
                    writer.commit().unwrap();
                    drop(writer);
                    writer = IndexWriter::open(&folder).unwrap();
                }
            }
        }
        let changed = writer.finish().unwrap();
        let mut writer = IndexWriter::create(&fresh, &plain()).unwrap();
        for (id, seed) in &expected {
            writer.add(id, &vector(*seed), "").unwrap();
        }
        let fresh = writer.finish().unwrap();
        let query = vector(5000);
        prop_assert_eq!(changed.search(&query, 30, None).unwrap(), fresh.search(&query, 30, None).unwrap());
        prop_assert_eq!(changed.len(), expected.len());
    }
}
