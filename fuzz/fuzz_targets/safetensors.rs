//! A single safetensors file: every tensor it names is read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modernbert_fuzz::{checkpoint::TensorFiles, memory::bounded, scratch};
use std::{fs, path::PathBuf, sync::LazyLock};

static PATH: LazyLock<PathBuf> = LazyLock::new(|| scratch().join("model.safetensors"));

fuzz_target!(|data: &[u8]| {
    fs::write(&*PATH, data).expect("a file to write to");
    bounded(data.len(), 1 << 16, || {
        let Ok(files) = TensorFiles::open(&PATH) else { return };
        for name in files.names() {
            if let Ok(Some((shape, values))) = files.read(name) {
                assert_eq!(shape.iter().product::<usize>(), values.len());
            }
        }
    });
});
