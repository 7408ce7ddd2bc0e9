//! A token shard: every sample of an accepted one is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modernbert_fuzz::{memory::bounded, scratch, shard::{Check, Shard}};
use std::{fs, path::PathBuf, sync::LazyLock};

static PATH: LazyLock<PathBuf> = LazyLock::new(|| scratch().join("shard.tokens"));

fuzz_target!(|data: &[u8]| {
    fs::write(&*PATH, data).expect("a file to write to");
    bounded(data.len(), 1 << 16, || {
        // The structure alone: a fuzzer does not find SHA-256 by chance.
        if let Ok(shard) = Shard::open_with(&*PATH, Check::Structure) {
            assert_eq!(shard.iter().map(|sample| sample.len()).sum::<usize>(), shard.tokens());
            let _ = shard.verify();
        }
    });
});
