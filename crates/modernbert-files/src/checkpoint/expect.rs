//! Checks a config against the weights of its folder before anything of the config's size is allocated.

use std::path::Path;

use super::{CheckpointError, TensorFiles, read_config};
use crate::config::{Head, ModernBertConfig};

/// The config of a model folder and its files, once the files are known to contain an encoder of that size.
///
/// A config of a giant model with a small file is refused here, before memory is allocated.
///
/// # Errors
/// Missing or damaged files; an encoder tensor that is missing or has another shape, by name.
pub fn open_checked(folder: &Path) -> Result<(ModernBertConfig, TensorFiles), CheckpointError> {
    open_with_head(folder, Head::None)
}

/// [`open_checked`] with the tensors of a head under the names of this library as well; see [`TensorFiles::in_family`].
///
/// # Errors
/// As [`open_checked`].
pub fn open_with_head(
    folder: &Path,
    head: Head,
) -> Result<(ModernBertConfig, TensorFiles), CheckpointError> {
    let config = read_config(folder)?;
    let files = TensorFiles::open(folder)?.in_family(&config, head)?;
    let hidden = config.hidden_size;
    let expect = |name: &str, expected: &[usize]| {
        for candidate in [format!("model.{name}"), name.to_string()] {
            match files.shape(&candidate) {
                Some(found) if found == expected => return Ok(()),
                Some(found) => {
                    return Err(CheckpointError::Shape {
                        place: files.place(),
                        name: files.shown(&candidate),
                        found: found.to_vec(),
                        expected: expected.to_vec(),
                    });
                }
                None => {}
            }
        }
        Err(CheckpointError::Missing {
            place: files.place(),
            name: files.shown(&format!("model.{name}")),
        })
    };
    expect(
        "embeddings.tok_embeddings.weight",
        &[config.vocab_size, hidden],
    )?;
    for i in 0..config.num_hidden_layers {
        let layer = config.layer_spec(i);
        let (qkv, into) = (layer.attention.qkv_rows(), layer.mlp.in_rows());
        if layer.is_parallel() {
            let rows = qkv.saturating_add(into);
            expect(&format!("layers.{i}.Wqkvff.weight"), &[rows, hidden])?;
            continue;
        }
        expect(&format!("layers.{i}.attn.Wqkv.weight"), &[qkv, hidden])?;
        expect(&format!("layers.{i}.mlp.Wi.weight"), &[into, hidden])?;
    }
    Ok((config, files))
}
