//! Encoders whose layers are packed from the files when a pipeline loads them.

use std::fs;
use std::path::Path;

use modernbert::checkpoint::{
    CONFIG_FILE, F32Tensor, TensorFiles, WEIGHTS_FILE, int8_config, write_int8, write_safetensors,
};
use modernbert::model::{MaskedLm, ModernBert};
use modernbert::{Encoder, Loader, MaskFiller, Precision};

fn loader(folder: &Path) -> Loader {
    Loader::new(folder).device("flex")
}

fn vectors(loader: Loader) -> Vec<Vec<f32>> {
    let encoder = Encoder::load(loader).unwrap();
    let texts = ["one two three", "two", "three one one two"];
    let vectors = encoder.encode(&texts).unwrap();
    vectors.into_iter().map(|vector| vector.values).collect()
}

/// The model of `source` with the matrices of its layers in int8.
fn in_int8(source: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let config = fs::read_to_string(source.join(CONFIG_FILE)).unwrap();
    fs::write(
        folder.path().join(CONFIG_FILE),
        int8_config(&config).unwrap(),
    )
    .unwrap();
    let files = TensorFiles::open(source).unwrap();
    let count = write_int8(&files, &folder.path().join(WEIGHTS_FILE)).unwrap();
    assert_eq!(count, 16, "four matrices in each of four layers");
    folder
}

#[test]
fn layers_packed_from_files_are_those_packed_from_tensors() {
    let folder = tiny_models::masked_lm();
    let device = modernbert::device::select(Some("flex")).unwrap().device;
    let ids: Vec<u32> = (5..25).collect();
    let batch = modernbert::batch::PackedBatch::from_sequences(&[&ids], &device).unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let tensors = ModernBert::load(loader(folder.path()).precision(precision))
            .unwrap()
            .for_inference();
        assert!(tensors.packed_for().is_some());
        let from_tensors: Vec<f32> = tensors.forward(&batch).try_into_vec_as().unwrap();
        let files = Encoder::load(loader(folder.path()).precision(precision)).unwrap();
        assert_eq!(files.model().packed_for(), tensors.packed_for());
        let from_files: Vec<f32> = files.model().forward(&batch).try_into_vec_as().unwrap();
        assert_eq!(from_files, from_tensors, "{precision:?}");
    }
}

#[test]
fn weights_in_int8_are_the_codes_that_loading_in_int8_makes() {
    let source = tiny_models::masked_lm();
    let folder = in_int8(source.path());
    let expected = vectors(loader(source.path()).int8(true));
    assert_eq!(vectors(loader(folder.path()).int8(true)), expected);
}

#[test]
fn fp8_is_refused_where_it_has_no_kernels() {
    let folder = tiny_models::masked_lm();
    let loader = loader(folder.path()).precision(Precision::Bf16).fp8(true);
    let message = Encoder::load(loader).unwrap_err().to_string();
    for part in ["fp8 is supported on NVIDIA GPUs", "use another dtype"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn weights_in_int8_load_in_every_dtype_and_as_tensors() {
    let source = tiny_models::masked_lm();
    let folder = in_int8(source.path());
    let exact = vectors(loader(source.path()));
    for precision in [Precision::F32, Precision::Bf16] {
        let found = vectors(loader(folder.path()).precision(precision));
        for (found, exact) in found.iter().zip(&exact) {
            let cosine = modernbert::cosine_similarity(found, exact).unwrap();
            assert!(cosine > 0.99 && found != exact, "{precision:?}: {cosine}");
        }
    }
    // Another copy of the same numbers: codes times scales as a model in f32.
    let floats = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", CONFIG_FILE] {
        fs::copy(folder.path().join(name), floats.path().join(name)).unwrap();
    }
    let files = TensorFiles::open(folder.path()).unwrap();
    let read: Vec<(String, Vec<usize>, Vec<u8>)> = files
        .names()
        .filter(|name| !files.is_scale(name))
        .map(|name| {
            let (shape, values) = files.read(name).unwrap().unwrap();
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.to_string(), shape, bytes)
        })
        .collect();
    let tensors: Vec<F32Tensor<'_>> = read
        .iter()
        .map(|(name, shape, bytes)| F32Tensor { name, shape, bytes })
        .collect();
    write_safetensors(&floats.path().join(WEIGHTS_FILE), &tensors).unwrap();
    assert_eq!(
        vectors(loader(folder.path())),
        vectors(loader(floats.path()))
    );
    // A model with tensors, such as one to finetune, has the same parameters.
    let load = |folder: &Path| MaskedLm::load(loader(folder)).unwrap();
    let logits = |model: &MaskedLm| -> Vec<f32> {
        let device = model.model.device();
        let batch =
            modernbert::batch::PackedBatch::from_sequences(&[&[5u32, 9, 7][..]], &device).unwrap();
        let positions = burn::tensor::Tensor::from_data([0, 2], &device);
        model.logits(&batch, positions).try_into_vec_as().unwrap()
    };
    assert_eq!(logits(&load(folder.path())), logits(&load(floats.path())));
}

#[test]
fn a_damaged_weight_of_a_packed_layer_is_named() {
    let source = tiny_models::masked_lm();
    let files = TensorFiles::open(source.path()).unwrap();
    let bad = "model.layers.2.mlp.Wo.weight";
    let read: Vec<(String, Vec<usize>, Vec<u8>)> = files
        .names()
        .map(|name| {
            let (shape, mut values) = files.read(name).unwrap().unwrap();
            if name == bad {
                values[7] = f32::NAN;
            }
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.to_string(), shape, bytes)
        })
        .collect();
    drop(files);
    let tensors: Vec<F32Tensor<'_>> = read
        .iter()
        .map(|(name, shape, bytes)| F32Tensor { name, shape, bytes })
        .collect();
    write_safetensors(&source.path().join(WEIGHTS_FILE), &tensors).unwrap();
    let message = MaskFiller::load(loader(source.path())).unwrap_err();
    let message = message.to_string();
    assert!(
        message.contains(bad) && message.contains("NaN"),
        "{message}"
    );
}

#[test]
fn int8_without_scales_or_with_scales_of_another_shape_is_refused() {
    let source = tiny_models::masked_lm();
    let folder = in_int8(source.path());
    let path = folder.path().join(WEIGHTS_FILE);
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let rewritten = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
        let mut header = header.clone();
        change(header.as_object_mut().unwrap());
        let mut text = serde_json::to_vec(&header).unwrap();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut file = (text.len() as u64).to_le_bytes().to_vec();
        file.extend(text);
        file.extend(&bytes[8 + length..]);
        fs::write(&path, file).unwrap();
        Encoder::load(loader(folder.path()))
            .unwrap_err()
            .to_string()
    };
    let scale = "model.layers.1.mlp.Wi.weight_scale";
    let message = rewritten(&|header| {
        let entry = header.remove(scale).unwrap();
        header.insert("model.layers.1.mlp.Wi.other".to_string(), entry);
    });
    assert!(message.contains("model.layers.1.mlp.Wi"), "{message}");
    let message = rewritten(&|header| {
        let rows = header[scale]["shape"][0].as_u64().unwrap();
        header[scale]["shape"] = serde_json::json!([2, rows / 2]);
    });
    assert!(
        message.contains(scale) && message.contains("shape"),
        "{message}"
    );
}
