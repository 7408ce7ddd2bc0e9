use super::*;
use crate::batch::PackedBatch;
use crate::config::ModernBertConfig;
use crate::loader::{HeadStart, LoadError, Loader};
use crate::model::{MaskedLm, ModernBert, SequenceClassifier, initialize, named_parameters};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use std::fs;

fn config() -> ModernBertConfig {
    ModernBertConfig {
        vocab_size: 96,
        cls_token_id: None,
        sep_token_id: None,
        pad_token_id: None,
        bos_token_id: None,
        eos_token_id: None,
        ..ModernBertConfig::of_shape(4, 32, 48, 2)
    }
}

fn mlm() -> MaskedLm {
    let config = config();
    initialize(
        MaskedLm::new(&config, &test_support::device()).unwrap(),
        &config,
        1,
    )
}

fn hidden(model: &ModernBert) -> Vec<f32> {
    let batch = PackedBatch::from_sequences(&[vec![1, 2, 3], vec![4, 5]], &model.device()).unwrap();
    model.forward(&batch).into_data().try_to_vec().unwrap()
}

#[test]
fn what_is_saved_loads_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let model = mlm();
    save(&model, &config(), folder.path()).unwrap();
    let loaded = MaskedLm::load(loader(folder.path())).unwrap();
    assert_eq!(hidden(&model.model), hidden(&loaded.model));
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "nothing temporary is left: {names:?}");
}

#[test]
fn the_tied_matrix_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    save(&mlm(), &config(), folder.path()).unwrap();
    let files = TensorFiles::open(folder.path()).unwrap();
    assert!(files.names().all(|name| name != "decoder.weight"));
    assert_eq!(files.names().count(), named_parameters(&mlm()).len());
}

#[test]
fn a_classifier_takes_the_pretrained_head_and_reports_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let model = mlm();
    save(&model, &config(), folder.path()).unwrap();
    let (classifier, report) =
        SequenceClassifier::load_for_finetuning(loader(folder.path()), 3, HeadStart::Kept, 7)
            .unwrap();
    assert_eq!(report.fresh, ["classifier.weight", "classifier.bias"]);
    assert_eq!(report.unused, ["decoder.bias"]);
    assert_eq!(hidden(&model.model), hidden(&classifier.model));
}

#[test]
fn a_bare_encoder_is_read_with_and_without_prefix() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = mlm();
    save(&model.model, &config(), folder.path()).unwrap();
    let bare = TensorFiles::open(folder.path()).unwrap();
    assert!(bare.names().any(|name| name == "embeddings.norm.weight"));
    let fresh = ModernBert::new(&config(), &test_support::device()).unwrap();
    let (encoder, _) = load(fresh.clone(), &bare, &[]).unwrap();
    assert_eq!(hidden(&model.model), hidden(&encoder));

    save(&model, &config(), other.path()).unwrap();
    let (encoder, report) = load(fresh, &TensorFiles::open(other.path()).unwrap(), &[]).unwrap();
    assert_eq!(hidden(&model.model), hidden(&encoder));
    assert_eq!(report.unused.len(), 3, "{:?}", report.unused);

    let (classifier, report) =
        SequenceClassifier::load_for_finetuning(loader(folder.path()), 2, HeadStart::Kept, 7)
            .unwrap();
    assert_eq!(report.fresh.len(), 4, "{:?}", report.fresh);
    assert_eq!(hidden(&model.model), hidden(&classifier.model));
}

/// Writes the model's tensors after `change` was applied.
fn write_changed(
    folder: &std::path::Path,
    change: impl Fn(&mut Vec<(String, Vec<usize>, Vec<u8>)>),
) {
    save(&mlm(), &config(), folder).unwrap();
    let path = folder.join(WEIGHTS_FILE);
    let files = TensorFiles::open(folder).unwrap();
    let mut tensors: Vec<_> = files
        .names()
        .map(|name| {
            let (shape, values) = files.read(name).unwrap().unwrap();
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.to_string(), shape, bytes)
        })
        .collect();
    drop(files);
    change(&mut tensors);
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    serialize_to_file(views, None, &path).unwrap();
}

fn loader(folder: &std::path::Path) -> Loader {
    Loader::new(folder).device(test_support::device())
}

fn load_error(folder: &std::path::Path) -> CheckpointError {
    match MaskedLm::load(loader(folder)).unwrap_err() {
        LoadError::Checkpoint(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_changed(folder.path(), |tensors| {
        tensors.retain(|(name, ..)| name != "model.layers.2.mlp.Wo.weight");
    });
    let message = load_error(folder.path()).to_string();
    assert!(
        message.contains("`model.layers.2.mlp.Wo.weight` is missing"),
        "{message}"
    );
    assert!(message.contains(WEIGHTS_FILE), "{message}");
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let folder = tempfile::tempdir().unwrap();
        write_changed(folder.path(), |tensors| {
            for (name, _, bytes) in tensors {
                if name == "model.layers.1.mlp.Wi.weight" {
                    bytes[8..12].copy_from_slice(&value.to_le_bytes());
                }
            }
        });
        let message = load_error(folder.path()).to_string();
        assert!(
            message.contains("`model.layers.1.mlp.Wi.weight` has 1 of 3072"),
            "{message}"
        );
    }
}

/// A variance that overflows makes the norm of its tokens 0: a result that is finite and wrong.
#[test]
fn weights_whose_squares_overflow_are_named() {
    for value in [1e20f32, -3e38] {
        let folder = tempfile::tempdir().unwrap();
        write_changed(folder.path(), |tensors| {
            for (name, _, bytes) in tensors {
                if name == "model.layers.1.mlp.Wi.weight" {
                    bytes[8..12].copy_from_slice(&value.to_le_bytes());
                }
            }
        });
        let message = load_error(folder.path()).to_string();
        let said = format!(
            "`model.layers.1.mlp.Wi.weight` has weights up to {:e}",
            value.abs()
        );
        assert!(message.contains(&said), "{message}");
    }
}

#[test]
fn parameters_are_filled_by_name() {
    // In the reverse order of the module's, every value the hash of its name.
    let value = |name: &str| {
        name.bytes()
            .fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)))
            % 97
    };
    let folder = tempfile::tempdir().unwrap();
    write_changed(folder.path(), |tensors| {
        tensors.reverse();
        for (name, _, bytes) in tensors {
            let own = (value(name) as f32).to_le_bytes();
            bytes.chunks_mut(4).for_each(|x| x.copy_from_slice(&own));
        }
    });
    struct Check<F>(F);
    impl<F: Fn(&str) -> u32> crate::model::NamedMapper for Check<F> {
        fn map<const D: usize>(
            &mut self,
            name: &str,
            tensor: burn::tensor::Tensor<D>,
        ) -> burn::tensor::Tensor<D> {
            let values: Vec<f32> = tensor.clone().into_data().try_to_vec().unwrap();
            assert!(values.iter().all(|&x| x == (self.0)(name) as f32), "{name}");
            tensor
        }
    }
    let model = MaskedLm::load(loader(folder.path())).unwrap();
    crate::model::map_named(model, &mut Check(value));
}

#[test]
fn a_saved_model_names_its_own_class() {
    let folder = tempfile::tempdir().unwrap();
    let model = SequenceClassifier::new(&config(), 2, &test_support::device()).unwrap();
    assert_eq!(config().architectures, ["ModernBertForMaskedLM"]);
    save(&model, &config(), folder.path()).unwrap();
    let saved = read_config(folder.path()).unwrap();
    assert_eq!(saved.architectures, ["ModernBertForSequenceClassification"]);
}

#[test]
fn an_unknown_tensor_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_changed(folder.path(), |tensors| {
        tensors.push((
            "model.layers.0.attn_norm.weight".into(),
            vec![32],
            vec![0; 128],
        ));
    });
    let message = load_error(folder.path()).to_string();
    assert!(
        message.contains("`model.layers.0.attn_norm.weight`"),
        "{message}"
    );
}

#[test]
fn a_misshapen_tensor_is_named_with_both_shapes() {
    let folder = tempfile::tempdir().unwrap();
    write_changed(folder.path(), |tensors| {
        for (name, shape, _) in tensors {
            if name == "head.dense.weight" {
                *shape = vec![16, 64];
            }
        }
    });
    assert!(matches!(
        load_error(folder.path()),
        CheckpointError::Shape { name, found, expected, .. }
            if name == "head.dense.weight" && found == [16, 64] && expected == [32, 32]
    ));
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    save(&mlm(), &config(), folder.path()).unwrap();
    let path = folder.path().join(WEIGHTS_FILE);
    let whole = fs::read(&path).unwrap();
    for length in [1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = load_error(folder.path());
        assert!(
            matches!(error, CheckpointError::Format { .. }),
            "{length}: {error}"
        );
    }
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(matches!(
        load_error(folder.path()),
        CheckpointError::Format { .. }
    ));
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        load_error(folder.path()),
        CheckpointError::NoWeights(_)
    ));
}

#[test]
fn shards_with_an_index_are_one_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let model = mlm();
    save(&model, &config(), folder.path()).unwrap();
    let files = TensorFiles::open(folder.path()).unwrap();
    let names: Vec<String> = files.names().map(str::to_string).collect();
    let mut map = serde_json::Map::new();
    for (i, part) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let file = format!("model-{i}.safetensors");
        let tensors: Vec<_> = part
            .iter()
            .map(|name| {
                let (shape, values) = files.read(name).unwrap().unwrap();
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                map.insert(name.clone(), file.clone().into());
                (name, shape, bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (
                name,
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        serialize_to_file(views, None, &folder.path().join(file)).unwrap();
    }
    drop(files);
    fs::remove_file(folder.path().join(WEIGHTS_FILE)).unwrap();
    let index = folder.path().join("model.safetensors.index.json");
    fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    let loaded = MaskedLm::load(loader(folder.path())).unwrap();
    assert_eq!(hidden(&model.model), hidden(&loaded.model));

    map.insert("model.extra".into(), "model-0.safetensors".into());
    fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    assert!(matches!(
        load_error(folder.path()),
        CheckpointError::Index { .. }
    ));
}

#[test]
fn half_precision_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    save(&mlm(), &config(), folder.path()).unwrap();
    let path = folder.path().join(WEIGHTS_FILE);
    let files = TensorFiles::open(folder.path()).unwrap();
    let tensors: Vec<_> = files
        .names()
        .map(|name| {
            let (shape, values) = files.read(name).unwrap().unwrap();
            let bytes: Vec<u8> = values
                .iter()
                .flat_map(|x| half::bf16::from_f32(*x).to_le_bytes())
                .collect();
            (name.to_string(), shape, bytes)
        })
        .collect();
    drop(files);
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (
            name,
            TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap(),
        )
    });
    serialize_to_file(views, None, &path).unwrap();
    let loaded = MaskedLm::load(loader(folder.path())).unwrap();
    let (a, b) = (hidden(&mlm().model), hidden(&loaded.model));
    let worst = a
        .iter()
        .zip(&b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst < 0.05 && worst > 0.0, "{worst}");
}
