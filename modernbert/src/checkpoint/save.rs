//! Writes a module to a safetensors file, by name.

use burn::tensor::Tensor;
use std::path::Path;

use modernbert_files::atomic::write_atomically;

use super::names::{Naming, borrowed, tensors_in_family};
use super::{CONFIG_FILE, CheckpointError, WEIGHTS_FILE, write_safetensors};
use crate::config::ModernBertConfig;
use crate::model::{Architecture, NamedMapper, map_named};

/// Writes `config.json` and `model.safetensors` (f32) of `module` into `folder`, which is made if need be.
/// `architectures` in `config.json` becomes the class of `module`. A model of another [`Family`](crate::config::Family) is written in the form of its family.
///
/// Each file appears complete or not at all, the weights last: a folder with weights is a complete model. Parameters of a
/// bare encoder are written without the leading `model.`, as Hugging Face does.
///
/// # Errors
/// A folder that can't be written, a device that can't be read, or a model that was packed or quantized for inference
/// ([`ModernBert::for_inference`](crate::model::ModernBert::for_inference)): nothing is written then.
pub fn save<M: Architecture>(
    module: &M,
    config: &ModernBertConfig,
    folder: &Path,
) -> Result<(), CheckpointError> {
    let encoder = module.encoder();
    if encoder.packed_for().is_some() || encoder.is_quantized() {
        return Err(CheckpointError::Packed(folder.to_path_buf()));
    }
    std::fs::create_dir_all(folder).map_err(CheckpointError::io(folder))?;
    // The head decides, not the source of the weights.
    let config = ModernBertConfig {
        architectures: vec![config.family.class(M::HEAD).to_string()],
        ..config.clone()
    };
    let config_path = folder.join(CONFIG_FILE);
    write_atomically(&config_path, config.to_json_string().as_bytes())
        .map_err(CheckpointError::io(&config_path))?;

    let mut collect = Collect::default();
    map_named(module.clone(), &mut collect);
    if let Some(error) = collect.error {
        return Err(error);
    }
    let naming = Naming::new(config.family, M::HEAD);
    let tensors = tensors_in_family(naming, &collect.tensors);
    write_safetensors(&folder.join(WEIGHTS_FILE), &borrowed(&tensors))
}

#[derive(Default)]
struct Collect {
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
    error: Option<CheckpointError>,
}

impl NamedMapper for Collect {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let data = value.clone().into_data().convert::<f32>();
        match data.try_to_vec::<f32>() {
            Ok(values) => {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                self.tensors
                    .push((name.to_string(), value.dims().to_vec(), bytes));
            }
            Err(error) => {
                self.error.get_or_insert(CheckpointError::Device {
                    name: name.to_string(),
                    reason: format!("{error:?}"),
                });
            }
        }
        value
    }
}
