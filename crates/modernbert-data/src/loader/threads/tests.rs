#![allow(clippy::unwrap_used)]

use super::*;
use crate::loader::LoaderOptions;
use crate::mask::Masker;
use crate::shard::{Shard, ShardWriter, TokenizerHash};
use std::sync::Arc;

/// Rows of sequences of 30 tokens, two in a row of 64.
fn stream(folder: &std::path::Path) -> TrainStream {
    let path = folder.join("train.tokens");
    let mut writer = ShardWriter::create(&path, 100, TokenizerHash([0; 32])).unwrap();
    for first in 0..20 {
        let sample: Vec<u32> = (first..first + 30).collect();
        writer.push(&sample).unwrap();
    }
    writer.commit().unwrap();
    let masker = Masker::from_ids(0.3, 4, 3, 100, vec![]).unwrap();
    let options = LoaderOptions {
        row_length: 64,
        micro_batches: 1,
        pad_id: 3,
        seed: 5,
        sequences: None,
        length_warmup: None,
    };
    TrainStream::new(Arc::new(Shard::open(&path).unwrap()), masker, options).unwrap()
}

/// A thread that sends one row of the stream and panics: its message follows the row as an error, and the other thread ends with the iterator.
#[test]
fn a_panic_of_a_thread_is_an_error_behind_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let stream = stream(folder.path());
    let sent = |stream: &TrainStream, sender: &SyncSender<Made>| {
        let mut steps = stream.steps().unwrap();
        sender.send(steps.next_row()).unwrap();
    };
    type Panic = fn() -> !;
    let panics: [(Panic, &str); 3] = [
        (|| panic!("no words"), "a loader thread stopped: no words"),
        (
            || panic!("token {} is out of range", std::hint::black_box(107)),
            "a loader thread stopped: token 107 is out of range",
        ),
        (
            || std::panic::panic_any(7),
            "a loader thread stopped: no reason was given",
        ),
    ];
    for (panic, said) in panics {
        let (of_panic, of_other) = (stream.clone(), stream.clone());
        let panicking = Thread::spawn(move |sender| {
            sent(&of_panic, sender);
            panic();
        });
        let other = Thread::spawn(move |sender| {
            let share = Share { index: 1, of: 2 };
            produce(&of_other, Start::Row(0), share, sender);
        });
        let mut rows = Prefetched {
            threads: vec![panicking, other],
            next: 0,
            tokens: 0,
            total: 1000,
        };
        assert!(rows.next().unwrap().is_ok() && rows.next().unwrap().is_ok());
        let error = rows.next().unwrap().unwrap_err();
        assert!(
            matches!(&error, LoaderError::Thread(_)) && error.to_string() == said,
            "{error}"
        );
        assert!(rows.next().is_none(), "an end after the error");
        drop(rows);
    }
}
