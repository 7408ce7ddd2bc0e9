#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use modernbert_files::tokenizer::train::train;
use modernbert_files::tokenizer::{Tokenizer, TrainOptions};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::corpus::Document;

const TOKENIZER: TokenizerHash = TokenizerHash([7; 32]);

fn write(path: &Path, vocab_size: usize, samples: &[Vec<u32>]) -> ShardInfo {
    let mut writer = ShardWriter::create(path, vocab_size, TOKENIZER).unwrap();
    for sample in samples {
        writer.push(sample).unwrap();
    }
    writer.commit().unwrap()
}

/// A valid shard of three samples and seven tokens, changed by `change`, opened without its hash.
fn open_changed(change: impl FnOnce(&mut Vec<u8>)) -> ShardError {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("change.shard");
    write(&path, 100, &[vec![1, 2, 3], vec![4], vec![5, 6, 99]]);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    let error = Shard::open_with(&path, Check::Structure).unwrap_err();
    assert!(error.to_string().contains("change.shard"), "{error}");
    error
}

fn set(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

#[test]
fn comes_back_in_both_widths() {
    let folder = TempDir::new().unwrap();
    for (vocab_size, width) in [(65_536, 2), (65_537, 4)] {
        let path = folder.path().join("deep/in").join(format!("{width}.shard"));
        let samples = vec![vec![0, 1, vocab_size as u32 - 1], vec![], vec![5; 40]];
        let info = write(&path, vocab_size, &samples);
        assert_eq!((info.samples, info.tokens), (3, 43));
        assert_eq!(info.bytes, fs::metadata(&path).unwrap().len());
        assert_eq!(
            info.bytes,
            128 + (43 * width as u64).next_multiple_of(8) + 4 * 8
        );
        let shard = Shard::open(&path).unwrap();
        assert_eq!(
            (shard.len(), shard.tokens(), shard.vocab_size()),
            (3, 43, vocab_size)
        );
        assert_eq!((shard.sample_len(0), shard.sample_len(1)), (3, 0));
        assert_eq!(shard.iter().collect::<Vec<_>>(), samples);
        assert_eq!(shard.sha256(), info.sha256);
        shard.expect_tokenizer(TOKENIZER).unwrap();
        let other = shard.expect_tokenizer(TokenizerHash([8; 32])).unwrap_err();
        assert!(matches!(other, ShardError::Tokenizer { .. }));
    }
}

#[test]
fn an_empty_shard_is_a_shard() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("empty");
    write(&path, 10, &[]);
    assert!(Shard::open(&path).unwrap().is_empty());
}

#[test]
fn nothing_appears_before_it_is_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.shard");
    let mut writer = ShardWriter::create(&path, 10, TOKENIZER).unwrap();
    writer.push(&[1, 2]).unwrap();
    assert!(!path.exists());
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn ids_out_of_the_vocabulary_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.shard");
    let mut writer = ShardWriter::create(&path, 10, TOKENIZER).unwrap();
    assert!(matches!(
        writer.push(&[1, 10]),
        Err(ShardError::Id {
            id: 10,
            vocab_size: 10,
            ..
        })
    ));
    assert!(matches!(
        ShardWriter::create(&path, 0, TOKENIZER),
        Err(ShardError::Vocabulary { .. })
    ));
}

#[test]
fn not_there() {
    assert!(matches!(
        Shard::open("/no/such.shard"),
        Err(ShardError::Read { .. })
    ));
}

#[test]
fn wrong_magic() {
    assert!(matches!(
        open_changed(|bytes| bytes[0] = b'X'),
        ShardError::Magic { .. }
    ));
    assert!(matches!(
        open_changed(|bytes| bytes.clear()),
        ShardError::Magic { .. } | ShardError::Read { .. }
    ));
}

#[test]
fn unknown_version() {
    assert!(matches!(
        open_changed(|bytes| bytes[8] = 2),
        ShardError::Version { version: 2, .. }
    ));
}

#[test]
fn width_that_does_not_suit_the_vocabulary() {
    assert!(matches!(
        open_changed(|bytes| bytes[12] = 4),
        ShardError::Width { bytes: 4, .. }
    ));
    assert!(matches!(
        open_changed(|bytes| set(bytes, 16, 0)),
        ShardError::Width { .. }
    ));
    assert!(matches!(
        open_changed(|bytes| set(bytes, 16, u64::MAX)),
        ShardError::Width { .. }
    ));
}

#[test]
fn cut_short_or_long() {
    assert!(matches!(
        open_changed(|bytes| bytes.truncate(40)),
        ShardError::Length { actual: 40, .. }
    ));
    assert!(matches!(
        open_changed(|bytes| bytes.truncate(bytes.len() - 1)),
        ShardError::Length { .. }
    ));
    assert!(matches!(
        open_changed(|bytes| bytes.push(0)),
        ShardError::Length { .. }
    ));
}

#[test]
fn counts_that_lie() {
    for count in [0, 4, 1000, u64::MAX / 2, u64::MAX] {
        let samples = open_changed(|bytes| set(bytes, 24, count));
        assert!(
            matches!(samples, ShardError::Length { .. }),
            "{count} samples"
        );
        let tokens = open_changed(|bytes| set(bytes, 32, count));
        assert!(
            matches!(tokens, ShardError::Length { .. }),
            "{count} tokens"
        );
    }
    // An additional token in the zero bytes contradicts the offsets.
    let hidden = open_changed(|bytes| set(bytes, 32, 8));
    assert!(matches!(hidden, ShardError::Offsets { sample: 3, .. }));
}

#[test]
fn offsets_that_lie() {
    // 128 of header, 7 tokens of 2 bytes, 2 zero bytes.
    let offsets = 144;
    for (index, value, sample) in [(0, 1, 0), (1, 5, 2), (1, u64::MAX, 1), (3, 6, 3)] {
        let error = open_changed(|bytes| set(bytes, offsets + 8 * index, value));
        assert!(
            matches!(error, ShardError::Offsets { sample: found, .. } if found == sample),
            "{error}"
        );
    }
}

#[test]
fn changed_content() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.shard");
    write(&path, 100, &[vec![1, 2, 3]]);
    let good = fs::read(&path).unwrap();
    for at in [16, 45, 100, 129, 134] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(
            matches!(Shard::open(&path), Err(ShardError::Hash { .. })),
            "byte {at}"
        );
        assert!(Shard::open_with(&path, Check::Structure).is_ok());
    }
}

fn tokenizer() -> Tokenizer {
    train(
        ["some words to learn from, some more words"],
        &TrainOptions {
            vocab_size: 320,
            min_frequency: 2,
        },
    )
    .unwrap()
}

fn document(text: &str) -> Document {
    Document {
        name: "d".into(),
        group: "d".into(),
        text: text.into(),
    }
}

#[test]
fn long_documents_are_split_or_cut() {
    let tokenizer = tokenizer();
    let special = tokenizer.special();
    let documents = [
        document("zyxwvutsrq0123456789"),
        document("z"),
        document("qwertzuiop"),
    ];
    let options = TokenizeOptions {
        max_length: 10,
        min_length: 4,
        long_documents: LongDocuments::Split,
    };
    let samples = tokenize_documents(&tokenizer, &documents, &options).unwrap();
    for sample in &samples {
        assert!((4..=10).contains(&sample.len()));
        assert_eq!(
            (sample[0], *sample.last().unwrap()),
            (special.cls, special.sep)
        );
    }
    assert_eq!(
        samples.iter().map(Vec::len).collect::<Vec<_>>(),
        [10, 10, 6, 10, 4]
    );
    let inner: Vec<u32> = samples[..3]
        .iter()
        .flat_map(|sample| sample[1..sample.len() - 1].to_vec())
        .collect();
    assert_eq!(inner, tokenizer.encode_plain(&documents[0].text).unwrap());

    let cut = TokenizeOptions {
        long_documents: LongDocuments::Truncate,
        ..options
    };
    let samples = tokenize_documents(&tokenizer, &documents, &cut).unwrap();
    assert_eq!(samples.len(), 2);
    assert_eq!(
        samples[0],
        tokenizer
            .encode_truncated(&documents[0].text, None, 10)
            .unwrap()
            .ids
    );
}

#[test]
fn documents_to_a_shard() {
    let folder = TempDir::new().unwrap();
    let path: PathBuf = folder.path().join("x.shard");
    let tokenizer = tokenizer();
    let documents: Vec<_> = (0..600)
        .map(|i| document(&format!("words {i} and some more words to learn")))
        .collect();
    let options = TokenizeOptions::default();
    let info = write_shard(&tokenizer, &documents, &options, &path).unwrap();
    assert_eq!(info.samples, 600);
    let shard = Shard::open(&path).unwrap();
    shard
        .expect_tokenizer(TokenizerHash::of(&tokenizer).unwrap())
        .unwrap();
    assert_eq!(
        shard.iter().collect::<Vec<_>>(),
        tokenize_documents(&tokenizer, &documents, &options).unwrap()
    );
    assert_eq!(
        info,
        write_shard(&tokenizer, &documents, &options, &path).unwrap()
    );

    let none = write_shard(&tokenizer, &[document("a")], &options, &path);
    assert!(matches!(
        none,
        Err(TokenizeError::NoSamples { min_length: 8 })
    ));
    let narrow = TokenizeOptions {
        max_length: 2,
        ..options
    };
    assert!(matches!(
        write_shard(&tokenizer, &documents, &narrow, &path),
        Err(TokenizeError::MaxLength { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_samples_come_back(samples in prop::collection::vec(prop::collection::vec(0u32..70_000, 0..30), 0..20)) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x");
        write(&path, 70_000, &samples);
        prop_assert_eq!(Shard::open(&path).unwrap().iter().collect::<Vec<_>>(), samples);
    }

    #[test]
    fn garbage_never_panics(change in prop::collection::vec((0usize..200, any::<u8>()), 1..6), cut in 0usize..200) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x");
        write(&path, 100, &[vec![1, 2, 3], vec![4], vec![5, 6, 99]]);
        let mut bytes = fs::read(&path).unwrap();
        for (at, value) in change {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(bytes.len().saturating_sub(cut / 4 * usize::from(cut % 2 == 0)));
        fs::write(&path, bytes).unwrap();
        if let Ok(shard) = Shard::open_with(&path, Check::Structure) {
            let _ = shard.iter().map(|sample| sample.len()).sum::<usize>();
            let _ = shard.verify();
        }
    }
}

/// A document of `length` ids: 1, then counting from 10, then 2.
fn counted(length: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..length as u32).map(|i| 9 + i).collect();
    ids[0] = 1;
    ids[length - 1] = 2;
    ids
}

fn counted_shard(folder: &Path, name: &str, lengths: &[usize]) -> std::sync::Arc<Shard> {
    let path = folder.join(name);
    let mut writer = ShardWriter::create(&path, 1000, TokenizerHash([0; 32])).unwrap();
    for &length in lengths {
        writer.push(&counted(length)).unwrap();
    }
    writer.commit().unwrap();
    std::sync::Arc::new(Shard::open(&path).unwrap())
}

#[test]
fn documents_are_cut_when_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let shards = [
        counted_shard(folder.path(), "a", &[5, 30, 10, 11, 9, 50]),
        counted_shard(folder.path(), "b", &[21, 4, 10]),
    ];
    let cut = |long_documents| Cut {
        max_length: 10,
        min_length: 5,
        long_documents,
    };
    let all = |samples: &Samples| -> Vec<Vec<u32>> {
        (0..samples.len()).map(|i| samples.get(i)).collect()
    };

    let whole = Samples::new(shards.clone(), Cut::WHOLE);
    let documents: Vec<Vec<u32>> = [5, 30, 10, 11, 9, 50, 21, 4, 10].map(counted).to_vec();
    assert_eq!(all(&whole), documents);

    let truncated = all(&Samples::new(shards.clone(), cut(LongDocuments::Truncate)));
    assert_eq!(truncated.len(), 9);
    for (short, document) in truncated.iter().zip(&documents) {
        let kept = document.len().min(10);
        assert_eq!(short.len(), kept);
        assert_eq!(short[..kept - 1], document[..kept - 1]);
        assert_eq!(short.last(), Some(&2));
    }

    let split = Samples::new(shards, cut(LongDocuments::Split));
    let pieces = all(&split);
    // 28 = 3 · 8 + 4 and 48 = 6 · 8 ids of text; 9 = 8 + 1, whose rest is too short, and 19 = 2 · 8 + 3.
    let counts = [1, 4, 1, 1, 1, 6, 3, 1, 1];
    assert_eq!(pieces.len(), counts.iter().sum::<usize>());
    let mut rest = pieces.iter();
    for (document, count) in documents.iter().zip(counts) {
        let of: Vec<&Vec<u32>> = rest.by_ref().take(count).collect();
        assert!(
            of.iter()
                .all(|piece| piece.len() <= 10 && piece[0] == 1 && piece.last() == Some(&2))
        );
        let text: Vec<u32> = of
            .iter()
            .flat_map(|piece| piece[1..piece.len() - 1].to_vec())
            .collect();
        assert!(document[1..].starts_with(&text), "{document:?}: {of:?}");
        assert!(
            document.len() - 2 - text.len() < 3,
            "only a short last piece is dropped"
        );
    }
    let tokens: usize = pieces.iter().map(Vec::len).sum();
    assert_eq!(split.tokens(), tokens as u64);
    assert!(
        pieces
            .iter()
            .zip(0..)
            .all(|(piece, i)| split.sample_len(i) == piece.len())
    );
}
