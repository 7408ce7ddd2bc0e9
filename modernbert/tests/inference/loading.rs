//! Loading: the settings of a folder, and folders that are refused.

use modernbert::checkpoint::{F32Tensor, TensorFiles, save, write_safetensors};
use modernbert::config::{ModernBertConfig, Pooling, ProblemType};
use modernbert::model::{MaskedLm, ModernBert, SequenceClassifier, TokenClassifier, initialize};
use modernbert::{
    Answerer, Chooser, Encoder, Loader, MaskFiller, Precision, Tagger, TextClassifier,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::model::{config, randomize, tokenizer};
use test_support::device;

fn loader(folder: &Path) -> Loader {
    Loader::new(folder).device(device())
}

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

#[test]
fn every_pipeline_loads_from_its_folder_and_refuses_the_others() {
    let folders = [
        ("MaskedLM", tiny_models::masked_lm()),
        ("Sequence", tiny_models::sequence_classifier(&["a", "b"])),
        ("Token", tiny_models::token_classifier(&["O", "B-X"])),
        ("Question", tiny_models::question_answerer()),
        ("Choice", tiny_models::multiple_choice()),
    ];
    for (name, folder) in &folders {
        let loader = || loader(folder.path());
        let results = [
            ("MaskedLM", MaskFiller::load(loader()).map(drop)),
            ("Sequence", TextClassifier::load(loader()).map(drop)),
            ("Token", Tagger::load(loader()).map(drop)),
            ("Question", Answerer::load(loader()).map(drop)),
            ("Choice", Chooser::load(loader()).map(drop)),
        ];
        for (wanted, result) in results {
            match result {
                Ok(()) => assert_eq!(*name, wanted, "{name} loaded as {wanted}"),
                Err(error) => {
                    let message = error.to_string();
                    assert_ne!(*name, wanted, "{message}");
                    assert!(
                        message.contains("finetuned") || message.contains("finetune it first"),
                        "{message}"
                    );
                }
            }
        }
        Encoder::load(loader()).unwrap();
    }
}

#[test]
fn an_encoder_is_no_masked_language_model_and_finetuning_makes_none() {
    let folder = tiny_models::folder(&tiny_models::config(), ModernBert::new);
    let said = |kind: &str| {
        let message = MaskFiller::load(loader(folder.path()))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(kind)
                && message.contains("masked language model")
                && !message.contains("finetune it first"),
            "{message}"
        );
    };
    said("an encoder without a head");
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    std::fs::write(folder.path().join("1_Pooling/config.json"), "{}").unwrap();
    said("a model of text vectors");
}

#[test]
fn a_pretrained_model_must_be_finetuned_first() {
    let folder = tiny_models::masked_lm();
    let message = TextClassifier::load(loader(folder.path()))
        .unwrap_err()
        .to_string();
    assert!(message.contains("finetune it first"), "{message}");
    assert!(
        message.contains("`classifier.weight` is missing"),
        "{message}"
    );
}

/// A copy of a folder with other settings in `config.json`, and other tensors.
fn changed(
    folder: &Path,
    settings: serde_json::Value,
    tensors: impl FnOnce(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>),
) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(folder.join(name), copy.path().join(name)).unwrap();
    }
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in settings.as_object().unwrap() {
        match value.is_null() {
            true => drop(config.as_object_mut().unwrap().remove(key)),
            false => config[key] = value.clone(),
        }
    }
    write(copy.path(), "config.json", &config.to_string());
    let files = TensorFiles::open(folder).unwrap();
    let mut all: BTreeMap<String, (Vec<usize>, Vec<f32>)> = files
        .names()
        .map(|name| (name.to_owned(), files.read(name).unwrap().unwrap()))
        .collect();
    tensors(&mut all);
    let bytes: BTreeMap<&String, Vec<u8>> = all
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let tensors: Vec<F32Tensor<'_>> = all
        .iter()
        .map(|(name, (shape, _))| F32Tensor {
            name,
            shape,
            bytes: &bytes[name],
        })
        .collect();
    write_safetensors(&copy.path().join("model.safetensors"), &tensors).unwrap();
    copy
}

#[test]
fn a_number_of_labels_that_the_weights_do_not_have_is_refused() {
    let folder = tiny_models::sequence_classifier(&["a", "b"]);
    let nameless = |count: serde_json::Value| serde_json::json!({"id2label": null, "label2id": null, "num_labels": count});
    for (settings, said) in [
        (nameless(5.into()), "2 outputs and config.json 5 labels"),
        (nameless(1.into()), "2 outputs and config.json 1 label "),
        (
            serde_json::json!({"id2label": ["a", "b", "c"], "label2id": null, "num_labels": null}),
            "config.json 3 labels",
        ),
    ] {
        let copy = changed(folder.path(), settings, |_| {});
        let message = TextClassifier::load(loader(copy.path()))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(said) && message.contains("num_labels"),
            "{message}"
        );
    }
    for settings in [nameless(2.into()), nameless(serde_json::Value::Null)] {
        let copy = changed(folder.path(), settings, |_| {});
        let classifier = TextClassifier::load(loader(copy.path())).unwrap();
        assert_eq!(classifier.labels(), ["LABEL_0", "LABEL_1"]);
    }
}

#[test]
fn a_part_of_a_head_that_is_missing_is_named() {
    let folder = tiny_models::masked_lm();
    let untied = serde_json::json!({"tie_word_embeddings": false});
    for (settings, missing) in [
        (untied, "decoder.weight"),
        (serde_json::json!({}), "head.norm.weight"),
    ] {
        let copy = changed(folder.path(), settings, |tensors| {
            tensors.remove(missing);
        });
        let message = MaskFiller::load(loader(copy.path()))
            .unwrap_err()
            .to_string();
        let said = format!("tensor `{missing}` is missing");
        assert!(
            message.contains(&said) && !message.contains("finetune it first"),
            "{message}"
        );
        Encoder::load(loader(copy.path())).unwrap();
    }
    let folder = tiny_models::sequence_classifier(&["a", "b"]);
    let copy = changed(folder.path(), serde_json::json!({}), |tensors| {
        tensors.remove("classifier.weight");
    });
    let message = TextClassifier::load(loader(copy.path())).unwrap_err();
    let message = message.to_string();
    assert!(
        message.contains("`classifier.weight` is missing")
            && !message.contains("finetune it first"),
        "{message}"
    );
}

#[test]
fn a_decoder_that_is_not_the_embeddings_is_not_tied_to_them() {
    let folder = tiny_models::masked_lm();
    let with_decoder = |factor: f32| {
        changed(folder.path(), serde_json::json!({}), |tensors| {
            let (shape, values) = tensors["model.embeddings.tok_embeddings.weight"].clone();
            let values = values.iter().map(|x| x * factor).collect();
            tensors.insert("decoder.weight".to_owned(), (shape, values));
        })
    };
    MaskFiller::load(loader(with_decoder(1.0).path())).unwrap();
    let other = with_decoder(2.0);
    let message = MaskFiller::load(loader(other.path()))
        .unwrap_err()
        .to_string();
    assert!(message.contains("tie_word_embeddings"), "{message}");
    Encoder::load(loader(other.path())).unwrap();
}

#[test]
fn an_old_classifier_that_names_the_pretrained_class_is_no_tagger() {
    let mut config = config();
    config.problem_type = Some(ProblemType::SingleLabel);
    let folder = tempfile::tempdir().unwrap();
    let model = SequenceClassifier::new(&config, 2, &device()).unwrap();
    save(&randomize(model), &config, folder.path()).unwrap();
    tokenizer().save(folder.path()).unwrap();
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let old = text.replace(
        "ModernBertForSequenceClassification",
        "ModernBertForMaskedLM",
    );
    assert_ne!(text, old);
    fs::write(&path, old).unwrap();
    TextClassifier::load(loader(folder.path())).unwrap();
    for message in [
        Tagger::load(loader(folder.path())).unwrap_err().to_string(),
        Answerer::load(loader(folder.path()))
            .unwrap_err()
            .to_string(),
    ] {
        assert!(
            message.contains("ModernBertForSequenceClassification"),
            "{message}"
        );
    }
}

#[test]
fn pooling_length_and_prompt_are_those_of_the_folder() {
    let folder = tiny_models::masked_lm();
    let plain = || Encoder::load(loader(folder.path())).unwrap();
    assert_eq!(plain().options().pooling, Pooling::Mean);
    assert!(plain().options().normalize);
    assert_eq!(plain().max_length(), 64);
    let expected = plain()
        .with_pooling(Pooling::Cls)
        .with_normalize(false)
        .encode(&["one: two three"])
        .unwrap();
    write(
        folder.path(),
        "modules.json",
        r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]"#,
    );
    write(
        folder.path(),
        "1_Pooling/config.json",
        r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
    );
    write(
        folder.path(),
        "sentence_bert_config.json",
        r#"{"max_seq_length": 8}"#,
    );
    write(
        folder.path(),
        "config_sentence_transformers.json",
        r#"{"prompts": {"p": "one: "}, "default_prompt_name": "p"}"#,
    );
    let found = plain().encode(&["two three"]).unwrap();
    assert_eq!(found[0].values, expected[0].values);
    assert_eq!(plain().max_length(), 8);
    let longer = Encoder::load(loader(folder.path()).max_length(20)).unwrap();
    assert_eq!(longer.max_length(), 20);
    write(
        folder.path(),
        "modules.json",
        r#"[{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#,
    );
    let message = Encoder::load(loader(folder.path()))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("modules.json") && message.contains("Dense"),
        "{message}"
    );
}

#[test]
fn the_tokenizer_bounds_the_length_where_it_says_so() {
    let folder = tiny_models::masked_lm();
    tokenizer().with_max_length(16).save(folder.path()).unwrap();
    let encoder = Encoder::load(loader(folder.path())).unwrap();
    assert_eq!(encoder.max_length(), 16);
    let long = encoder.encode(&["one ".repeat(40)]).unwrap();
    assert_eq!((long[0].tokens, long[0].truncated), (16, true));
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    for vocab_size in [128, 4096] {
        let config = ModernBertConfig {
            vocab_size,
            ..config()
        };
        let folder = tiny_models::folder(&config, MaskedLm::new);
        let message = Encoder::load(loader(folder.path()))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("320") && message.contains(&vocab_size.to_string()),
            "{message}"
        );
    }
}

/// A model whose hidden states overflow in f16, but not in f32.
fn overflowing<M: modernbert::model::Architecture>(
    build: impl FnOnce(
        &ModernBertConfig,
        &burn::tensor::Device,
    ) -> Result<M, modernbert::config::ConfigError>,
) -> tempfile::TempDir {
    let config = ModernBertConfig {
        initializer_range: 40.0,
        ..tiny_models::config()
    };
    tiny_models::folder(&config, build)
}

#[test]
fn an_output_that_is_not_finite_is_an_error_that_names_the_text() {
    if !test_support::computes_in(Precision::F16.dtype()) {
        return;
    }
    let check = |result: Result<(), modernbert::InferenceError>| {
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("not finite") && message.contains("f16"),
            "{message}"
        );
        assert!(message.starts_with("text 1:"), "{message}");
    };
    let folder = overflowing(MaskedLm::new);
    let f16 = |folder: &tempfile::TempDir| loader(folder.path()).precision(Precision::F16);
    let encoder = Encoder::load(f16(&folder)).unwrap();
    check(encoder.encode(&["one two"]).map(drop));
    let stream = encoder.stream(
        ["one two"].map(|text| Ok::<_, modernbert::InferenceError>(text.into())),
        |_| {},
    );
    check(stream.collect::<Result<Vec<_>, _>>().map(drop));
    check(
        MaskFiller::load(f16(&folder))
            .unwrap()
            .fill("one [MASK]", 1)
            .map(drop),
    );
    assert!(
        Encoder::load(loader(folder.path()))
            .unwrap()
            .encode(&["one two"])
            .is_ok()
    );
    let folder = overflowing(|c, d| SequenceClassifier::new(c, 2, d));
    check(
        TextClassifier::load(f16(&folder))
            .unwrap()
            .classify(&["one two"])
            .map(drop),
    );
    let folder = overflowing(|c, d| TokenClassifier::new(c, 2, d));
    let tagger = Tagger::load(f16(&folder)).unwrap();
    check(tagger.tag(&["one two"]).map(drop));
    check(tagger.tag_words(&[vec!["one", "two"]]).map(drop));
    let folder = overflowing(modernbert::model::QuestionAnswerer::new);
    check(
        Answerer::load(f16(&folder))
            .unwrap()
            .answer(&[("one", "two three")])
            .map(drop),
    );
    let folder = overflowing(modernbert::model::MultipleChoice::new);
    check(
        Chooser::load(f16(&folder))
            .unwrap()
            .choose(&[("one", vec!["two"])])
            .map(drop),
    );
}

#[test]
fn choices_are_scored_as_pairs_and_compete() {
    let folder = tiny_models::multiple_choice();
    let chooser = Chooser::load(loader(folder.path())).unwrap();
    let questions = [("one", vec!["two", "three", "one"]), ("two", vec!["three"])];
    let found = chooser.choose(&questions).unwrap();
    assert_eq!(found[1].probabilities, [1.0]);
    let sum: f32 = found[0].probabilities.iter().sum();
    assert!((sum - 1.0).abs() < 1e-5);
    let best = found[0].probabilities[found[0].best];
    assert!(found[0].probabilities.iter().all(|p| *p <= best));
    let none: [(&str, Vec<&str>); 2] = [("one", vec!["two"]), ("two", vec![])];
    let message = chooser.choose(&none).unwrap_err().to_string();
    assert!(message.contains("question 2"), "{message}");
}

#[test]
fn spans_cut_the_original_text_whatever_the_normalizer_does() {
    // NFC composes; the marks belong to the token of their letter.
    let text = "cafe\u{301} in Zu\u{308}rich";
    let config = config();
    let model = initialize(
        TokenClassifier::new(&config, 2, &device()).unwrap(),
        &config,
        1,
    );
    let tagger = Tagger::new(model, tokenizer(), Default::default()).unwrap();
    let tagged = tagger.tag(&[text]).unwrap().remove(0);
    let characters: Vec<char> = text.chars().collect();
    for tag in &tagged.tags {
        let after = characters.get(tag.end);
        assert!(
            !matches!(after, Some('\u{301}' | '\u{308}')),
            "{tag:?} leaves a mark behind"
        );
    }
    assert!(
        tagged.tags.iter().any(|tag| (tag.start, tag.end) == (3, 5)),
        "{:?}",
        tagged.tags
    );
}
