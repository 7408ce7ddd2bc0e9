//! `parity` on case folders made here: cases that pass, that fail, and that can't be used. Comparisons with transformers show that
//! the numbers are right; see docs/parity.md.
#![allow(clippy::unwrap_used)] // a test may fail loudly

use burn::tensor::Device;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::save;
use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, MaskedTokens, initialize};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use tiny_models::config;

/// Two rows of six: one whole, one with padding on the left.
const MASK: [i64; 12] = [1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0];
const TEXTS: [&[u32]; 2] = [&[7, 8, 9, 10, 11, 12], &[20, 21, 22]];

#[derive(Default)]
struct File(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl File {
    fn integers(mut self, name: &str, shape: &[usize], values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.0
            .insert(name.to_owned(), (Dtype::I64, shape.to_vec(), bytes));
        self
    }

    fn floats(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.0
            .insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes));
        self
    }

    fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        serialize_to_file(views, None, path).unwrap();
    }
}

fn device() -> Device {
    modernbert::device::select(Some("flex")).unwrap().device
}

fn model(config: &ModernBertConfig) -> MaskedLm {
    initialize(MaskedLm::new(config, &device()).unwrap(), config, 1)
}

fn read<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

fn inputs() -> File {
    let ids = [7, 8, 9, 10, 11, 12, 0, 0, 20, 21, 22, 0];
    let mut labels = [-100i64; 12];
    (labels[1], labels[9]) = (5, 6);
    File::default()
        .integers("input_ids", &[2, 6], &ids)
        .integers("attention_mask", &[2, 6], &MASK)
        .integers("labels", &[2, 6], &labels)
}

/// Rows of real tokens into `[2, 6, width]`, nonsense at the padding.
fn padded(rows: &[f32], width: usize) -> Vec<f32> {
    let mut rows = rows.chunks(width);
    let cell = |&mask: &i64| match mask {
        1 => rows.next().unwrap().to_vec(),
        _ => vec![1e6; width],
    };
    MASK.iter().flat_map(cell).collect()
}

/// A case that passes: the references are the model's own numbers.
fn case() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.architectures = vec!["ModernBertForMaskedLM".to_owned()];
    let model = model(&config);
    save(&model, &config, folder.path()).unwrap();
    inputs().write(&folder.path().join("inputs.safetensors"));
    let batch = PackedBatch::from_sequences(&TEXTS, &device()).unwrap();
    let logits = read(model.decode(model.model.forward(&batch)));
    let vocab = config.vocab_size;
    let mut outputs = File::default().floats("logits", &[2, 6, vocab], &padded(&logits, vocab));
    for (i, state) in model.model.hidden_states(&batch).into_iter().enumerate() {
        let state = padded(&read(state), 32);
        outputs = outputs.floats(&format!("hidden_states.{i}"), &[2, 6, 32], &state);
    }
    outputs.write(&folder.path().join("outputs.safetensors"));
    let masked = MaskedTokens::new(&[1, 7], &[5, 6], &[1.0, 1.0], &device());
    let loss = read(model.forward(&batch, &masked).loss_sum)[0] / 2.0;
    let losses = File::default().floats("losses", &[1], &[loss]);
    losses.write(&folder.path().join("losses.safetensors"));
    folder
}

fn parity(folders: &[&Path], more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_parity"))
        .args(folders)
        .args(["--device", "flex"])
        .args(more)
        .env_remove("MODERNBERT_DEVICE")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Changes one tensor of the case's weights.
fn disturb(folder: &Path, name: &str) {
    let path = folder.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut file = File::default();
    for (key, view) in tensors.tensors() {
        let mut data = view.data().to_vec();
        if key == name {
            data[..4].copy_from_slice(&9f32.to_le_bytes());
        }
        file.0
            .insert(key, (view.dtype(), view.shape().to_vec(), data));
    }
    file.write(&path);
}

#[test]
fn a_case_that_agrees_passes_in_its_last_line() {
    let case = case();
    let output = parity(&[case.path()], &["--verbose"]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("parity: PASS max_abs="), "{last}");
    assert!(
        last.contains(" tensor=") && last.contains(" tol="),
        "{last}"
    );
    for part in ["ok logits", "ok loss:0"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_difference_fails_and_names_the_first_layer_that_has_it() {
    for (tensor, place) in [
        ("model.embeddings.tok_embeddings.weight", None),
        ("model.layers.1.mlp.Wo.weight", Some("layer 1 ")),
        (
            "model.layers.3.attn.Wo.weight",
            Some("layer 3 or the final norm"),
        ),
        ("head.dense.weight", Some("the head")),
    ] {
        let case = case();
        disturb(case.path(), tensor);
        let output = parity(&[case.path()], &[]);
        let text = stdout(&output);
        if place.is_none() {
            // Token 0 alone is changed, which no text holds: the tied decoder shows it, the states don't.
            assert!(text.contains("first difference: the head"), "{text}");
        }
        assert_eq!(output.status.code(), Some(1), "{tensor}: {text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("parity: FAIL max_abs="), "{last}");
        if let Some(place) = place {
            let said = format!("first difference: {place}");
            assert!(text.contains(&said), "{tensor}: {text}");
        }
    }
}

#[test]
fn a_loss_that_differs_fails_by_its_step() {
    let case = case();
    let path = case.path().join("losses.safetensors");
    File::default().floats("losses", &[1], &[1.0]).write(&path);
    let output = parity(&[case.path()], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("tensor=loss:0"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn json_says_the_same_of_every_folder() {
    let (good, bad) = (case(), case());
    disturb(bad.path(), "head.dense.weight");
    let output = parity(&[good.path(), bad.path()], &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&found["passed"], &found["failed"]),
        (&false.into(), &1.into())
    );
    let cases = found["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    assert_eq!(
        (&cases[0]["passed"], &cases[1]["passed"]),
        (&true.into(), &false.into())
    );
    assert_eq!(cases[1]["tensor"], "logits");
}

#[test]
fn what_cant_be_used_is_named_and_is_no_difference() {
    let refused = |folder: &Path, said: &str| {
        let output = parity(&[folder], &[]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.contains(said) && !stderr.contains("panicked"),
            "{said}: {stderr}"
        );
    };
    let case = case();
    let path = case.path().join("inputs.safetensors");
    let ids = [7i64; 12];
    let with = |mask: &[i64]| {
        File::default()
            .integers("input_ids", &[2, 6], &ids)
            .integers("attention_mask", &[2, 6], mask)
    };
    with(&[1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]).write(&path);
    refused(case.path(), "has a hole at column 2");
    with(&[2; 12]).write(&path);
    refused(case.path(), "other values than 0 and 1");
    let giant = File::default().integers("input_ids", &[1, 2], &[1, 99_999]);
    giant.write(&path);
    refused(case.path(), "id 99999 is outside the vocabulary");
    std::fs::remove_file(&path).unwrap();
    refused(case.path(), "inputs.safetensors");
    refused(Path::new("/nowhere/at/all"), "there is no folder");
}
