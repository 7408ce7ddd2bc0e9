//! Models of BERT and RoBERTa against transformers: hidden states and logits of small random models, and the files of a saved model.
//! `scripts/families_fixtures.py` writes the fixtures.

use burn::tensor::Tensor;
use modernbert::batch::{PackedBatch, int_tensor};
use modernbert::checkpoint::{F32Tensor, TensorFiles, read_config, save, write_safetensors};
use modernbert::config::{Family, ModernBertConfig};
use modernbert::model::{
    Architecture, MaskedLm, ModernBert, MultipleChoice, QuestionAnswerer, SequenceClassifier,
    TokenClassifier, dropout_rates, map_named,
};
use modernbert::tokenizer::Tokenizer;
use modernbert::{HeadStart, LoadError, Loader, MaskFiller, TextClassifier};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use test_support::{device, read};

/// Largest difference from transformers in f32.
const CLOSE: f32 = 1e-4;

/// A copy of the fixtures in which weights have the name of a model folder's file: files of weights are not committed under that name.
fn fixtures() -> &'static Path {
    static COPY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let copy = tempfile::tempdir().unwrap();
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
        copy_models(&committed, copy.path());
        copy
    });
    copy.path()
}

fn copy_models(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if entry.path().is_dir() {
            copy_models(&entry.path(), &to.join(name));
        } else if name == "weights.bin" {
            std::fs::copy(entry.path(), to.join("model.safetensors")).unwrap();
        } else {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

/// A family's fixtures.
struct Expected {
    folder: PathBuf,
    json: Value,
}

impl Expected {
    fn of(family: &str) -> Self {
        let folder = fixtures().join(family);
        let text = std::fs::read(folder.join("expected.json")).unwrap();
        Self {
            json: serde_json::from_slice(&text).unwrap(),
            folder,
        }
    }

    fn loader(&self, model: &str) -> Loader {
        Loader::new(self.folder.join(model)).device(device())
    }

    fn ids(&self) -> Vec<Vec<u32>> {
        serde_json::from_value(self.json["ids"].clone()).unwrap()
    }

    /// The text and the pair, with the types of the tokenizer's template.
    fn batch(&self) -> PackedBatch {
        let types: Vec<Vec<u32>> = serde_json::from_value(self.json["types"].clone()).unwrap();
        let second = |types: &Vec<u32>| types.iter().position(|t| *t == 1).unwrap_or(types.len());
        PackedBatch::from_sequences(&self.ids(), &device())
            .unwrap()
            .with_second_texts(types.iter().map(second))
    }

    fn compare(&self, found: &[f32], path: &[&str]) {
        let value = path.iter().fold(&self.json, |json, key| &json[*key]);
        let expected = flat(value);
        assert_eq!(found.len(), expected.len(), "{path:?}");
        let error = found.iter().zip(&expected);
        let error = error.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(error <= CLOSE, "{:?} {path:?}: {error}", self.folder);
    }
}

fn flat(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(parts) => parts.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

const FAMILIES: [&str; 3] = ["bert", "roberta", "xlm-roberta"];

#[test]
fn hidden_states_are_those_of_transformers() {
    for family in FAMILIES {
        let expected = Expected::of(family);
        let model = ModernBert::load(expected.loader("encoder")).unwrap();
        let states = model.hidden_states(&expected.batch());
        let found: Vec<f32> = states.into_iter().flat_map(read).collect();
        expected.compare(&found, &["encoder", "hidden_states"]);
        // A model for inference has the same states.
        let model = model.for_inference();
        let last = read(model.forward(&expected.batch()));
        let all = flat(&expected.json["encoder"]["hidden_states"]);
        let of_last = &all[all.len() - last.len()..];
        let error = last.iter().zip(of_last).map(|(a, b)| (a - b).abs());
        assert!(error.fold(0.0, f32::max) <= CLOSE, "{family}");
    }
}

#[test]
fn logits_of_every_head_are_those_of_transformers() {
    for family in FAMILIES {
        let expected = Expected::of(family);
        let batch = expected.batch();
        let model = SequenceClassifier::load(expected.loader("sequence")).unwrap();
        expected.compare(&read(model.logits(&batch)), &["sequence", "logits"]);
        if family == "xlm-roberta" {
            continue;
        }
        let total = batch.layout.total_tokens();
        let all = int_tensor(0..total as i32, &device());
        for folder in ["masked_lm", "old_names"] {
            if expected.folder.join(folder).is_dir() {
                let model = MaskedLm::load(expected.loader(folder)).unwrap();
                let logits = read(model.logits(&batch, all.clone()));
                expected.compare(&logits, &["masked_lm", "logits"]);
            }
        }
        let model = TokenClassifier::load(expected.loader("token")).unwrap();
        expected.compare(&read(model.logits(&batch)), &["token", "logits"]);
        let model = QuestionAnswerer::load(expected.loader("question")).unwrap();
        let logits = model.logits(&batch);
        expected.compare(&read(logits.start), &["question", "start"]);
        expected.compare(&read(logits.end), &["question", "end"]);
        let model = MultipleChoice::load(expected.loader("choice")).unwrap();
        let scores = model.logits(&batch, 2).unwrap();
        expected.compare(&read(scores), &["choice", "logits"]);
    }
}

#[test]
fn the_second_text_of_a_pair_has_a_type_of_its_own() {
    let expected = Expected::of("bert");
    let model = SequenceClassifier::load(expected.loader("sequence")).unwrap();
    let mut batch = expected.batch();
    let with_types = read(model.logits(&batch));
    batch.types = None;
    let without = read(model.logits(&batch));
    let [single, pair] = [0..3, 3..6].map(|row| {
        let differences = with_types[row.clone()].iter().zip(&without[row]);
        differences.fold(0.0f32, |most, (a, b)| most.max((a - b).abs()))
    });
    assert_eq!(single, 0.0);
    assert!(pair > 1e-2, "{pair}");
}

/// Names, shapes and values of a file's tensors, without those that this library does not keep.
fn tensors(folder: &Path) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let files = TensorFiles::open(folder).unwrap();
    let names = files.names().filter(|name| !name.starts_with("pooler."));
    let read = |name: &str| {
        let (shape, values) = files.read(name).unwrap().unwrap();
        (name.to_string(), shape, values)
    };
    names.map(read).collect()
}

/// Saves a model of a folder and compares the files. Where `MODERNBERT_FAMILIES_OUT` names a folder, the model is also saved there, with its tokenizer, for
/// `scripts/families-roundtrip`.
fn round_trip<M: Architecture>(folder: &Path, model: &M) {
    let written = tempfile::tempdir().unwrap();
    let config = read_config(folder).unwrap();
    save(model, &config, written.path()).unwrap();
    let again = read_config(written.path()).unwrap();
    assert_eq!(again, config);
    assert!(tensors(written.path()) == tensors(folder), "{folder:?}");
    if let Some(out) = std::env::var_os("MODERNBERT_FAMILIES_OUT") {
        let out = Path::new(&out).join(folder.strip_prefix(fixtures()).unwrap());
        save(model, &config, &out).unwrap();
        let tokenizer = Tokenizer::from_folder(folder.parent().unwrap()).unwrap();
        tokenizer.save(out).unwrap();
    }
}

#[test]
fn saved_models_have_the_names_and_values_of_their_family() {
    for family in ["bert", "roberta"] {
        let expected = Expected::of(family);
        let folder = |model: &str| expected.folder.join(model);
        let load = |model: &str| expected.loader(model);
        round_trip(
            &folder("encoder"),
            &ModernBert::load(load("encoder")).unwrap(),
        );
        round_trip(
            &folder("masked_lm"),
            &MaskedLm::load(load("masked_lm")).unwrap(),
        );
        let model = SequenceClassifier::load(load("sequence")).unwrap();
        round_trip(&folder("sequence"), &model);
        round_trip(
            &folder("token"),
            &TokenClassifier::load(load("token")).unwrap(),
        );
        let model = QuestionAnswerer::load(load("question")).unwrap();
        round_trip(&folder("question"), &model);
        round_trip(
            &folder("choice"),
            &MultipleChoice::load(load("choice")).unwrap(),
        );
    }
}

#[test]
fn finetuning_starts_from_any_folder_of_the_family() {
    let expected = Expected::of("bert");
    let start = |folder: &str| {
        let loader = expected.loader(folder);
        let (_, report) =
            SequenceClassifier::load_for_finetuning(loader, 5, HeadStart::Fresh, 1).unwrap();
        report.fresh
    };
    let classifier = ["classifier.weight", "classifier.bias"];
    let head = ["head.dense.weight", "head.dense.bias"];
    // The pooler is the head's dense layer.
    for folder in ["encoder", "old_names", "sequence"] {
        assert_eq!(start(folder), classifier, "{folder}");
    }
    for folder in ["masked_lm", "token", "question"] {
        assert_eq!(start(folder), [head, classifier].concat(), "{folder}");
    }
    let expected = Expected::of("roberta");
    let (model, report) =
        TokenClassifier::load_for_finetuning(expected.loader("sequence"), 4, HeadStart::Fresh, 1)
            .unwrap();
    assert_eq!(report.fresh, classifier);
    assert_eq!(model.outputs(), 4);
}

#[test]
fn another_head_is_refused_with_the_classes_of_the_family() {
    let expected = Expected::of("roberta");
    let error = TokenClassifier::load(expected.loader("sequence")).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, LoadError::OtherHead { .. }), "{message}");
    for class in [
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
    ] {
        assert!(message.contains(class), "{message}");
    }
    let message = SequenceClassifier::load(expected.loader("encoder"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("classifier.out_proj.weight"), "{message}");
}

#[test]
fn a_missing_tensor_has_its_name_in_the_file() {
    let expected = Expected::of("bert");
    let source = expected.folder.join("sequence");
    for missing in [
        "bert.encoder.layer.1.attention.self.key.weight",
        "bert.encoder.layer.0.output.LayerNorm.bias",
        "bert.embeddings.token_type_embeddings.weight",
        "bert.pooler.dense.bias",
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(
            source.join("config.json"),
            folder.path().join("config.json"),
        )
        .unwrap();
        let kept: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&source)
            .into_iter()
            .filter(|(name, ..)| name != missing)
            .map(|(name, shape, values)| {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                (name, shape, bytes)
            })
            .collect();
        let views: Vec<F32Tensor<'_>> = kept
            .iter()
            .map(|(name, shape, bytes)| F32Tensor { name, shape, bytes })
            .collect();
        write_safetensors(&folder.path().join("model.safetensors"), &views).unwrap();
        let error = SequenceClassifier::load(folder.path()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("`{missing}`")), "{message}");
    }
}

#[test]
fn texts_and_pairs_have_the_ids_and_types_of_transformers() {
    for family in FAMILIES {
        let expected = Expected::of(family);
        let tokenizer = Tokenizer::from_folder(&expected.folder).unwrap();
        let pair: [String; 2] = serde_json::from_value(expected.json["pair"].clone()).unwrap();
        let ids = expected.ids();
        let single = tokenizer.encode_truncated(&pair[1], None, 48).unwrap();
        assert_eq!((&single.ids, single.second), (&ids[0], ids[0].len()));
        let both = tokenizer
            .encode_truncated(&pair[0], Some(&pair[1]), 48)
            .unwrap();
        assert_eq!(both.ids, ids[1]);
        let types: Vec<u32> = serde_json::from_value(expected.json["types"][1].clone()).unwrap();
        let found: Vec<u32> = (0..both.ids.len())
            .map(|i| u32::from(i >= both.second))
            .collect();
        assert_eq!(found, types);
        assert_eq!(tokenizer.encode_pair(&pair[0], &pair[1]).unwrap(), ids[1]);
        // Written, the tokenizer has the same inputs.
        let written = tempfile::tempdir().unwrap();
        tokenizer.save(written.path()).unwrap();
        let config = std::fs::read_to_string(written.path().join("tokenizer_config.json")).unwrap();
        assert_eq!(config.contains("token_type_ids"), family == "bert");
        let again = Tokenizer::from_folder(written.path()).unwrap();
        let again = again
            .encode_truncated(&pair[0], Some(&pair[1]), 48)
            .unwrap();
        assert_eq!(again, both);
    }
}

/// A folder with the model and the tokenizer of a family.
fn with_tokenizer(expected: &Expected, model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for path in [
        expected.folder.join(model).join("config.json"),
        expected.folder.join(model).join("model.safetensors"),
        expected.folder.join("tokenizer.json"),
        expected.folder.join("tokenizer_config.json"),
    ] {
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

#[test]
fn pipelines_read_pairs_as_transformers_does() {
    for family in ["bert", "roberta"] {
        let expected = Expected::of(family);
        let pair: [String; 2] = serde_json::from_value(expected.json["pair"].clone()).unwrap();
        let folder = with_tokenizer(&expected, "sequence");
        let loader = Loader::new(folder.path()).device(device());
        let classifier = TextClassifier::load(loader).unwrap();
        let found = classifier.classify(&[(&pair[0], &pair[1])]).unwrap();
        let logits = flat(&expected.json["sequence"]["logits"]);
        let powers: Vec<f32> = logits[3..6].iter().map(|x| x.exp()).collect();
        for (score, power) in found[0].scores.iter().zip(&powers) {
            let right = power / powers.iter().sum::<f32>();
            assert!((score - right).abs() < CLOSE, "{family}: {score} {right}");
        }
        let folder = with_tokenizer(&expected, "masked_lm");
        let filler = MaskFiller::load(Loader::new(folder.path()).device(device())).unwrap();
        let text = format!("the {} sells fish", filler.mask());
        assert_eq!(filler.fill(&text, 3).unwrap()[0].len(), 3);
    }
}

#[test]
fn a_vocabulary_alone_is_the_same_tokenizer() {
    let expected = Expected::of("bert");
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        std::fs::copy(expected.folder.join(name), folder.path().join(name)).unwrap();
    };
    copy("vocab.txt");
    copy("tokenizer_config.json");
    let (whole, alone) = (
        Tokenizer::from_folder(&expected.folder).unwrap(),
        Tokenizer::from_folder(folder.path()).unwrap(),
    );
    for text in [
        "The Boats, of the harbour?",
        "Évry 東京 fish\u{0}",
        "[MASK] boats",
        "",
    ] {
        assert_eq!(
            alone.encode(text).unwrap(),
            whole.encode(text).unwrap(),
            "{text}"
        );
        let pair = |tokenizer: &Tokenizer| tokenizer.encode_truncated(text, Some("fish"), 48);
        assert_eq!(pair(&alone).unwrap(), pair(&whole).unwrap());
    }
    std::fs::write(folder.path().join("vocab.txt"), "a\n[CLS]\na\n").unwrap();
    let message = Tokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("vocab.txt") && message.contains("line 3"),
        "{message}"
    );
}

#[test]
fn every_parameter_of_a_family_is_trained() {
    for family in ["bert", "roberta"] {
        let expected = Expected::of(family);
        let learning = test_support::autodiff_device();
        let loader = Loader::new(expected.folder.join("sequence")).device(learning.clone());
        let model = SequenceClassifier::load(loader).unwrap();
        let batch = expected.batch();
        let order = batch.order.ids().to_vec();
        let types = batch.types.clone();
        let mut batch = PackedBatch::new(&order, batch.layout, &learning);
        batch.types = types;
        let labels = modernbert::model::ClassificationLabels::Classes(vec![0, 2]);
        let gradients = crate::toy::gradients(&model, &model.forward(&batch, &labels).loss);
        let parameters = modernbert::model::named_parameters(&model).len();
        assert_eq!(gradients.len(), parameters, "{family}");
    }
}

#[test]
fn dropout_is_where_transformers_has_it() {
    let rates = |family: &str| {
        let path = fixtures().join(family).join("sequence/config.json");
        dropout_rates(&ModernBertConfig::from_file(path).unwrap())
    };
    let bert = rates("bert");
    assert_eq!((bert.embedding, bert.attention_probabilities), (0.1, 0.1));
    assert_eq!((bert.attention_output, bert.mlp_output), (0.1, 0.1));
    assert_eq!((bert.mlp, bert.head, bert.classifier), (0.0, 0.0, 0.1));
    let roberta = rates("roberta");
    assert_eq!((roberta.head, roberta.classifier), (0.25, 0.25));
}

#[test]
fn positions_of_roberta_begin_after_the_padding_token() {
    let config = read_config(&fixtures().join("roberta/encoder")).unwrap();
    assert_eq!(config.family, Family::Roberta);
    assert_eq!(
        (config.first_position(), config.max_position_embeddings),
        (2, 48)
    );
    let model = ModernBert::new(&config, &device()).unwrap();
    let mut longest = 0;
    struct Rows<'a>(&'a mut usize);
    impl modernbert::model::NamedMapper for Rows<'_> {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            if name.contains("position_embeddings") {
                *self.0 = value.dims()[0];
            }
            value
        }
    }
    map_named(model, &mut Rows(&mut longest));
    assert_eq!(longest, 50);
}
