//! The index of a sharded checkpoint, beside two whole shards.
#![no_main]

use libfuzzer_sys::fuzz_target;
use modernbert_fuzz::{checkpoint::TensorFiles, memory::bounded, scratch};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use std::{fs, path::PathBuf, sync::LazyLock};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = scratch();
    for (file, tensor) in [("a.safetensors", "x"), ("b.safetensors", "y")] {
        let view = TensorView::new(Dtype::F32, vec![2], &[0; 8]).expect("a tensor of two numbers");
        serialize_to_file([(tensor, view)], None, &folder.join(file)).expect("a file to write to");
    }
    folder
});

fuzz_target!(|data: &[u8]| {
    fs::write(FOLDER.join("model.safetensors.index.json"), data).expect("a file to write to");
    bounded(data.len(), 1 << 16, || {
        let Ok(files) = TensorFiles::open(&FOLDER) else { return };
        for name in files.names() {
            files.read(name).expect("the shards are whole");
        }
    });
});
