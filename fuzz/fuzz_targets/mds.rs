//! An MDS folder: the input is the index, a zero byte, and the shard that the index lists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modernbert_fuzz::{formats::{Fields, Records, find_inputs}, memory::bounded, scratch};
use std::{fs, path::PathBuf, sync::LazyLock};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = scratch().join("mds");
    fs::create_dir_all(&folder).expect("a folder to write to");
    folder
});

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    let (index, shard) = data.split_at(end);
    fs::write(FOLDER.join("index.json"), index).expect("a file to write to");
    fs::write(FOLDER.join("shard.00000.mds"), shard.get(1..).unwrap_or_default()).expect("a file to write to");
    bounded(data.len(), 1 << 20, || {
        let Ok(found) = find_inputs(&FOLDER) else { return };
        for input in &found.inputs {
            if let Ok(records) = Records::open(input, &Fields::default()) {
                records.for_each(drop);
            }
        }
    });
});
