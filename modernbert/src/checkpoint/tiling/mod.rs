//! Tiled initialization: a large model from a trained smaller one (the paper's center tiling with wraparound).
//!
//! Every matrix of the small model is repeated into the large one's; `Wqkv` and `Wi` hold several matrices, each of which is tiled
//! by itself. Layers are copied from the layer at the same relative depth, global or local. The final norm keeps
//! its initialization, as in the official code; the decoder is the embedding again, or tiled where it is untied.
//!
//! Sources: paper, section 2.2.2 and appendix A; official repository, `src/bert_layers/initialization.py`.

mod tile;

pub use tile::{Tiling, parallel_parts, source_layer, tile_matrix, tile_parts, tile_vector};

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use std::path::Path;

use super::{CheckpointError, TensorFiles, open_checked};
use crate::config::ModernBertConfig;
use crate::model::{NamedMapper, map_named};

/// Reason why one model can't be initialized from another.
#[derive(Debug, thiserror::Error)]
pub enum TilingError {
    /// The new model is not larger.
    #[error("{setting} is {new}, the smaller model has {old}; {remedy}")]
    Size {
        /// The setting.
        setting: &'static str,
        /// Its value in the small model.
        old: String,
        /// Its value in the large one.
        new: String,
        /// Remedy.
        remedy: &'static str,
    },
    /// The smaller model can't be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Fills `module`, freshly initialized for `config`, from the smaller model in `folder`.
///
/// Returns the module and the names of the parameters that keep their initialization: those of a head that the folder
/// lacks, attention norms whose source is the first layer, which has none, and the final norm.
///
/// # Errors
/// A model that is larger in any size or not smaller in width, has another vocabulary or other biases; a folder that
/// can't be read.
pub fn tile_from_folder<M: Module>(
    module: M,
    config: &ModernBertConfig,
    folder: &Path,
    tiling: Tiling,
) -> Result<(M, Vec<String>), TilingError> {
    let (small, files) = open_checked(folder)?;
    check(&small, config)?;
    let mut fill = Fill {
        files: &files,
        small: &small,
        large: config,
        tiling,
        fresh: Vec::new(),
        error: None,
    };
    let module = map_named(module, &mut fill);
    match fill.error {
        Some(error) => Err(error.into()),
        None => Ok((module, fill.fresh)),
    }
}

fn check(small: &ModernBertConfig, large: &ModernBertConfig) -> Result<(), TilingError> {
    let refuse = |setting, old: String, new: String, remedy| {
        Err(TilingError::Size {
            setting,
            old,
            new,
            remedy,
        })
    };
    if small.family != large.family {
        let (old, new) = (small.family.model_type(), large.family.model_type());
        let remedy = "models of two families have no tensors in common: use a smaller ModernBERT";
        return refuse("model_type", old.to_string(), new.to_string(), remedy);
    }
    let sizes = [
        ("hidden_size", small.hidden_size, large.hidden_size, 1),
        (
            "intermediate_size",
            small.intermediate_size,
            large.intermediate_size,
            0,
        ),
        (
            "num_hidden_layers",
            small.num_hidden_layers,
            large.num_hidden_layers,
            0,
        ),
    ];
    for (setting, old, new, more) in sizes {
        if new < old + more {
            let remedy = "choose a larger one: tiling only enlarges, and at least in width";
            return refuse(setting, old.to_string(), new.to_string(), remedy);
        }
    }
    let (old, new) = (small.vocab_size, large.vocab_size);
    if old != new {
        let remedy = "use the vocabulary and tokenizer of the smaller model";
        return refuse("vocab_size", old.to_string(), new.to_string(), remedy);
    }
    let flags = [
        ("norm_bias", small.norm_bias, large.norm_bias),
        ("attention_bias", small.attention_bias, large.attention_bias),
        ("mlp_bias", small.mlp_bias, large.mlp_bias),
    ];
    for (setting, old, new) in flags {
        if old != new {
            return refuse(
                setting,
                old.to_string(),
                new.to_string(),
                "both models need the same layers",
            );
        }
    }
    // Heads that share keys and values make parts of other sizes; first layers of another kind would be copied to others.
    let flex = &large.flexbert;
    let uneven = flex.num_key_value_heads.is_some()
        || flex.initial_bert_layer.is_some()
        || flex.initial_mlp_layer.is_some();
    if small.flexbert != large.flexbert || uneven {
        let remedy = match uneven {
            true => {
                "tiling needs layers of one kind with keys and values for each head: leave num_key_value_heads and initial layers out"
            }
            false => "both models need the same architecture choices",
        };
        let text = |config: &ModernBertConfig| {
            serde_json::to_string(&config.flexbert).unwrap_or_else(|error| error.to_string())
        };
        return refuse("flexbert", text(small), text(large), remedy);
    }
    Ok(())
}

/// Tiles each parameter from the file's tensor of the same role.
struct Fill<'a> {
    files: &'a TensorFiles,
    small: &'a ModernBertConfig,
    large: &'a ModernBertConfig,
    tiling: Tiling,
    fresh: Vec<String>,
    error: Option<CheckpointError>,
}

impl Fill<'_> {
    /// Name of the tensor that `name` is tiled from, `None` for parameters that keep their initialization.
    fn source(&self, name: &str) -> Option<String> {
        let bare = name.strip_prefix("model.").unwrap_or(name);
        if bare.starts_with("final_norm.") || bare.starts_with("classifier.") {
            return None;
        }
        let Some((layer, rest)) = bare.strip_prefix("layers.").and_then(|s| s.split_once('.'))
        else {
            return Some(bare.to_string());
        };
        let layer: usize = layer.parse().ok()?;
        let (old, new) = (self.small.num_hidden_layers, self.large.num_hidden_layers);
        Some(format!("layers.{}.{rest}", source_layer(layer, old, new)))
    }

    fn tiled(
        &self,
        name: &str,
        shape: &[usize],
        start: &mut [f32],
    ) -> Result<bool, CheckpointError> {
        let Some(source) = self.source(name) else {
            return Ok(false);
        };
        let prefixed = format!("model.{source}");
        let read = match self.files.read(&prefixed)? {
            Some(found) => Some(found),
            None => self.files.read(&source)?,
        };
        let Some((old_shape, old)) = read else {
            // The first layer has no attention norm to copy, and a bare encoder no head.
            let optional = source.ends_with(".attn_norm.weight")
                || source.ends_with(".attn_norm.bias")
                || source.starts_with("head.")
                || source.starts_with("decoder.");
            let missing = || CheckpointError::Missing {
                place: self.files.place(),
                name: prefixed.clone(),
            };
            return if optional { Ok(false) } else { Err(missing()) };
        };
        let kind = source.rsplit('.').nth(1);
        let gated = self
            .large
            .spec()
            .layers
            .first()
            .is_none_or(|layer| layer.mlp.gated);
        let parts = match kind {
            Some("Wqkv") => 3,
            Some("Wi") if gated => 2,
            Some("Wqkvff") => 5,
            _ => 1,
        };
        let matrix = |shape: &[usize]| match *shape {
            // A bias is a column: its rows are the matrix's.
            [rows] if parts > 1 => Some((rows, 1)),
            [columns] => Some((1, columns)),
            [rows, columns] => Some((rows, columns)),
            _ => None,
        };
        let each = |(old_rows, rows): (usize, usize)| -> Vec<(usize, usize)> {
            let of = |config: &ModernBertConfig| {
                let hidden = config.num_attention_heads * config.head_dim();
                (hidden, config.intermediate_size)
            };
            let ((old, old_inner), (new, inner)) = (of(self.small), of(self.large));
            match parts {
                5 => parallel_parts((old, new), (old_inner, inner)).to_vec(),
                _ => vec![(old_rows / parts, rows / parts); parts],
            }
        };
        let fits = matrix(&old_shape).zip(matrix(shape)).filter(
            |((old_rows, old_columns), (rows, columns))| {
                let sums = each((*old_rows, *rows))
                    .iter()
                    .fold((0, 0), |sums, part| (sums.0 + part.0, sums.1 + part.1));
                old_shape.len() == shape.len()
                    && sums == (*old_rows, *rows)
                    && old_rows <= rows
                    && old_columns <= columns
            },
        );
        let Some(((old_rows, old_columns), (rows, columns))) = fits else {
            return Err(CheckpointError::Shape {
                place: self.files.place(),
                name: source,
                found: old_shape,
                expected: shape.to_vec(),
            });
        };
        let each = each((old_rows, rows));
        tile_parts(&old, old_columns, start, columns, &each, self.tiling);
        Ok(true)
    }
}

impl NamedMapper for Fill<'_> {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        if self.error.is_some() {
            return value;
        }
        let (shape, device) = (value.dims(), value.device());
        let read = value
            .clone()
            .into_data()
            .convert::<f32>()
            .try_to_vec::<f32>();
        let mut values = match read {
            Ok(values) => values,
            Err(error) => {
                self.error = Some(CheckpointError::Device {
                    name: name.to_string(),
                    reason: format!("{error:?}"),
                });
                return value;
            }
        };
        match self.tiled(name, &shape, &mut values) {
            Ok(true) => Tensor::from_data(TensorData::new(values, shape), &device),
            Ok(false) => {
                self.fresh.push(name.to_string());
                value
            }
            Err(error) => {
                self.error = Some(error);
                value
            }
        }
    }
}
