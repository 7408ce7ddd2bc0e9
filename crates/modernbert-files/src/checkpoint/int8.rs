//! Weights in int8, in the form of the `compressed-tensors` library, which transformers reads.
//!
//! Each matrix of a layer (`attn.Wqkv`, `attn.Wo`, `mlp.Wi`, `mlp.Wo`) is stored as codes in -127..=127 and, beside it, a scale for each row:
//! `weight[i][k] = weight_scale[i] * code[i][k]`, with the row's largest magnitude at 127. All other tensors stay in f32. `config.json` says
//! so under `quantization_config`: symmetric, one scale per output channel; activations in int8 with one scale per token, computed at run time.

use safetensors::Dtype;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;

use super::files::SCALES;
use super::write::{TensorBytes, write_tensors};
use super::{CheckpointError, TensorFiles, TensorValues};

/// Key of `config.json` that describes quantized weights.
pub(crate) const CONFIG_KEY: &str = "quantization_config";
/// The matrices, as the names of their modules: a regular expression of `compressed-tensors`.
const TARGETS: &str = r"re:.*layers\.\d+\.(attn\.Wqkv|attn\.Wo|mlp\.Wi|mlp\.Wo)$";
/// The same as the ends of names.
const MATRICES: [&str; 4] = [".attn.Wqkv", ".attn.Wo", ".mlp.Wi", ".mlp.Wo"];

/// Writes the tensors of `files` to `path`, the matrices of layers in int8. Returns the number of matrices.
///
/// # Errors
/// Weights that are in int8 already, or not finite; a file that can't be written.
pub fn write_int8(files: &TensorFiles, path: &Path) -> Result<usize, CheckpointError> {
    let mut tensors = Vec::new();
    let mut count = 0;
    let place = || files.place();
    let scale_names: Vec<(String, String)> = files
        .names()
        .map(|name| (name.to_string(), format!("{name}{SCALES}")))
        .collect();
    // Shapes of the scales, which the tensors below borrow.
    let shapes: Vec<[usize; 2]> = scale_names
        .iter()
        .map(|(name, _)| {
            [
                files
                    .shape(name)
                    .map_or(0, |shape| shape[..].first().copied().unwrap_or(0)),
                1,
            ]
        })
        .collect();
    for ((name, scale_name), scale_shape) in scale_names.iter().zip(&shapes) {
        let (Some(shape), Some(values)) = (files.shape(name), files.values(name)?) else {
            continue;
        };
        let bad = values.non_finite();
        let TensorValues::Float(values) = values else {
            return Err(CheckpointError::AlreadyInt8 { place: place() });
        };
        if bad > 0 {
            return Err(CheckpointError::NonFinite {
                place: place(),
                name: name.clone(),
                count: bad,
                total: values.len(),
            });
        }
        let &[_, width] = shape else {
            tensors.push(floats(name, shape, values));
            continue;
        };
        if width == 0 || !is_matrix_of_layer(name) {
            tensors.push(floats(name, shape, values));
            continue;
        }
        let (codes, scales) = quantize(&values, width);
        tensors.push(TensorBytes {
            name,
            shape,
            dtype: Dtype::I8,
            bytes: Cow::Owned(codes),
        });
        tensors.push(floats(scale_name, scale_shape, Cow::Owned(scales)));
        count += 1;
    }
    write_tensors(path, &tensors)?;
    Ok(count)
}

/// The same `config.json`, of a model whose weights [`write_int8`] wrote. `None` if the text is no JSON object.
pub fn int8_config(text: &str) -> Option<String> {
    let mut config: Value = serde_json::from_str(text).ok()?;
    let scheme = |strategy: &str, dynamic: bool| json!({ "num_bits": 8, "type": "int", "symmetric": true, "strategy": strategy, "dynamic": dynamic });
    config.as_object_mut()?.insert(
        CONFIG_KEY.to_string(),
        json!({
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "quantization_status": "compressed",
            "config_groups": {
                "group_0": {
                    "targets": [TARGETS],
                    "weights": scheme("channel", false),
                    "input_activations": scheme("token", true),
                },
            },
            "ignore": [],
        }),
    );
    serde_json::to_string_pretty(&config)
        .ok()
        .map(|text| text + "\n")
}

/// Returns whether weights that `config.json` describes like this can be read.
pub(crate) fn is_supported(config: &Value) -> bool {
    let says = |value: &Value, key: &str, expected: Value| value.get(key) == Some(&expected);
    let groups = config.get("config_groups").and_then(Value::as_object);
    let is_empty = |value: Option<&Value>| match value {
        None | Some(Value::Null) => true,
        Some(value) => value.as_object().is_some_and(serde_json::Map::is_empty),
    };
    // Activations in int8 take scales that are computed at run time; a file's own would be ignored.
    let activations_are_ours = |group: &Value| {
        let inputs = group.get("input_activations");
        is_empty(group.get("output_activations"))
            && (is_empty(inputs)
                || inputs.is_some_and(|inputs| says(inputs, "dynamic", json!(true))))
    };
    let weights_are_ours = |group: &Value| {
        activations_are_ours(group)
            && group.get("weights").is_some_and(|weights| {
                says(weights, "num_bits", json!(8))
                    && says(weights, "type", json!("int"))
                    && says(weights, "symmetric", json!(true))
                    && says(weights, "strategy", json!("channel"))
            })
    };
    says(config, "quant_method", json!("compressed-tensors"))
        && says(config, "format", json!("int-quantized"))
        && ["kv_cache_scheme", "transform_config"]
            .iter()
            .all(|key| is_empty(config.get(*key)))
        && config.get("sparsity_config").is_none_or(|sparsity| {
            is_empty(Some(sparsity)) || says(sparsity, "format", json!("dense"))
        })
        && groups.is_some_and(|groups| groups.values().all(weights_are_ours))
}

/// Returns whether `name` is the weight of a matrix of a layer.
fn is_matrix_of_layer(name: &str) -> bool {
    let module = name.strip_suffix(".weight");
    name.contains("layers.")
        && module.is_some_and(|module| MATRICES.iter().any(|matrix| module.ends_with(matrix)))
}

fn floats<'a>(name: &'a str, shape: &'a [usize], values: Cow<'_, [f32]>) -> TensorBytes<'a> {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    TensorBytes {
        name,
        shape,
        dtype: Dtype::F32,
        bytes: Cow::Owned(bytes),
    }
}

/// Codes and scales of rows of finite values. A row whose magnitudes are all below 1e-30 has the scale 0.
fn quantize(values: &[f32], width: usize) -> (Vec<u8>, Vec<f32>) {
    let mut codes = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(values.len() / width);
    for row in values.chunks_exact(width) {
        let most = row.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        if most < 1e-30 {
            scales.push(0.0);
            codes.resize(codes.len() + width, 0);
            continue;
        }
        scales.push(most / 127.0);
        let inverse = 127.0 / most;
        let code = |x: &f32| (x * inverse).clamp(-127.0, 127.0).round_ties_even() as i8;
        codes.extend(row.iter().map(|x| code(x).cast_unsigned()));
    }
    (codes, scales)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::checkpoint::{F32Tensor, write_safetensors};

    #[test]
    fn matrices_of_layers_are_codes_with_scales_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (source, out) = (
            folder.path().join("a.safetensors"),
            folder.path().join("b.safetensors"),
        );
        let matrix: Vec<f32> = vec![1.0, -2.0, 0.5, 0.0, 0.0, 0.0, 3e-3, 1e-3, -2.9e-3];
        let bytes: Vec<u8> = matrix.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = |name, shape| F32Tensor {
            name,
            shape,
            bytes: &bytes,
        };
        write_safetensors(
            &source,
            &[
                tensor("model.layers.0.mlp.Wo.weight", &[3, 3]),
                tensor("head.dense.weight", &[3, 3]),
                tensor("model.layers.0.mlp_norm.weight", &[9]),
            ],
        )
        .unwrap();
        let files = TensorFiles::open(&source).unwrap();
        assert_eq!(write_int8(&files, &out).unwrap(), 1);

        let written = TensorFiles::open(&out).unwrap();
        let name = "model.layers.0.mlp.Wo.weight";
        let Some(TensorValues::Int8 { codes, scales }) = written.values(name).unwrap() else {
            panic!("not in int8");
        };
        assert_eq!(codes, [64, -127, 32, 0, 0, 0, 127, 42, -123]);
        assert_eq!(scales, [2.0 / 127.0, 0.0, 3e-3 / 127.0]);
        assert_eq!(
            written.shape("model.layers.0.mlp.Wo.weight_scale").unwrap(),
            [3, 1]
        );
        assert!(written.is_scale("model.layers.0.mlp.Wo.weight_scale"));
        let (shape, values) = written.read(name).unwrap().unwrap();
        assert_eq!(shape, [3, 3]);
        for (i, (found, expected)) in values.iter().zip(&matrix).enumerate() {
            assert!(
                (found - expected).abs() <= 0.5001 * scales[i / 3],
                "{found} {expected}"
            );
        }
        for name in ["head.dense.weight", "model.layers.0.mlp_norm.weight"] {
            assert_eq!(written.read(name).unwrap().unwrap().1, matrix, "{name}");
        }
        let message = write_int8(&written, &source).unwrap_err().to_string();
        assert!(
            message.contains("b.safetensors") && message.contains("int8"),
            "{message}"
        );
    }

    #[test]
    fn the_config_describes_the_form() {
        let text = int8_config(r#"{ "hidden_size": 8 }"#).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["hidden_size"], 8);
        let scheme = &config[CONFIG_KEY]["config_groups"]["group_0"];
        assert_eq!(scheme["weights"]["strategy"], "channel");
        assert_eq!(scheme["input_activations"]["dynamic"], true);
        assert!(is_supported(&config[CONFIG_KEY]));
        for (key, other) in [
            ("format", json!("pack-quantized")),
            ("quant_method", json!("gptq")),
            ("config_groups", json!([])),
        ] {
            let mut config = config[CONFIG_KEY].clone();
            config[key] = other;
            assert!(!is_supported(&config), "{key}");
        }
        for (key, value) in [
            ("kv_cache_scheme", json!({"num_bits": 8})),
            ("transform_config", json!({"config_groups": {"a": {}}})),
            ("sparsity_config", json!({"format": "sparse-bitmask"})),
        ] {
            let mut other = config[CONFIG_KEY].clone();
            other[key] = value;
            assert!(!is_supported(&other), "{key}");
            other[key] = json!({});
            assert!(is_supported(&other), "{key}");
        }
        for (part, key, value) in [
            ("weights", "num_bits", json!(4)),
            ("input_activations", "dynamic", json!(false)),
            ("output_activations", "num_bits", json!(8)),
        ] {
            let mut other = config[CONFIG_KEY].clone();
            other["config_groups"]["group_0"][part][key] = value;
            assert!(!is_supported(&other), "{part}");
        }
        assert!(int8_config("[]").is_none() && int8_config("{").is_none());
    }
}
