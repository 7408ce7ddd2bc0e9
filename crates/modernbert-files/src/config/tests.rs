#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(value: &Value) -> Result<ModernBertConfig, ConfigError> {
    ModernBertConfig::from_json_str(&value.to_string(), "config.json")
}

fn complaint(value: &Value) -> String {
    read(value).unwrap_err().to_string()
}

/// The file of the published base model, in the form of transformers 4.48.
fn old_form() -> Value {
    json!({
        "architectures": ["ModernBertForMaskedLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 50281,
        "classifier_activation": "gelu", "classifier_bias": false, "classifier_dropout": 0.0, "classifier_pooling": "mean",
        "cls_token_id": 50281, "decoder_bias": true, "deterministic_flash_attn": false, "embedding_dropout": 0.0,
        "eos_token_id": 50282, "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "gradient_checkpointing": false,
        "hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0, "initializer_range": 0.02,
        "intermediate_size": 1152, "layer_norm_eps": 1e-5, "local_attention": 128, "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192, "mlp_bias": false, "mlp_dropout": 0.0, "model_type": "modernbert", "norm_bias": false,
        "norm_eps": 1e-5, "num_attention_heads": 12, "num_hidden_layers": 22, "pad_token_id": 50283,
        "position_embedding_type": "absolute", "sep_token_id": 50282, "tie_word_embeddings": true, "torch_dtype": "float32",
        "transformers_version": "4.47.0.dev0", "vocab_size": 50368
    })
}

/// The same model in the form of transformers 5.
fn new_form() -> Value {
    let mut value = old_form();
    let map = value.as_object_mut().unwrap();
    for key in [
        "global_attn_every_n_layers",
        "global_rope_theta",
        "local_rope_theta",
        "torch_dtype",
    ] {
        map.remove(key);
    }
    let layers: Vec<_> = (0..22)
        .map(|i| {
            if i % 3 == 0 {
                "full_attention"
            } else {
                "sliding_attention"
            }
        })
        .collect();
    map.insert("dtype".into(), json!("float32"));
    map.insert("layer_types".into(), json!(layers));
    map.insert(
        "rope_parameters".into(),
        json!({
            "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}
        }),
    );
    value
}

#[test]
fn labels_come_in_many_forms() {
    let labels = |json: serde_json::Value| read(&json).unwrap().id2label;
    let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
    for (json, expected) in [
        (json!({"id2label": {"0": 0, "1": 1}}), names(&["0", "1"])),
        (json!({"id2label": ["neg", "pos"]}), names(&["neg", "pos"])),
        (
            json!({"id2label": {"1": "neg", "2": "pos"}}),
            names(&["LABEL_0", "neg", "pos"]),
        ),
        (
            json!({"id2label": {"0": true, "1": false}}),
            names(&["true", "false"]),
        ),
        (
            json!({"label2id": {"pos": 1, "neg": 0}}),
            names(&["neg", "pos"]),
        ),
        (json!({"id2label": {}}), None),
        (json!({"id2label": null}), None),
    ] {
        assert_eq!(labels(json.clone()), expected, "{json}");
    }
    assert_eq!(
        read(&json!({"problem_type": ""})).unwrap().problem_type,
        None
    );
}

#[test]
fn both_generations_and_their_mixture_are_one_model() {
    let mut mixed = new_form();
    let map = mixed.as_object_mut().unwrap();
    map.remove("layer_types");
    map.insert("global_rope_theta".into(), json!(1.0));
    for form in [old_form(), new_form(), mixed] {
        assert_eq!(read(&form).unwrap(), ModernBertConfig::base());
    }
}

#[test]
fn layer_types_win_over_the_spacing() {
    let config = read(&json!({
        "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "global_attn_every_n_layers": 1
    }));
    assert_eq!(
        config.unwrap().layer_types,
        [LayerType::Local, LayerType::Global]
    );
}

#[test]
fn a_missing_key_takes_the_class_default() {
    let expected = ModernBertConfig {
        classifier_pooling: Pooling::Cls,
        architectures: Vec::new(),
        ..ModernBertConfig::base()
    };
    assert_eq!(read(&json!({})).unwrap(), expected);
}

#[test]
fn token_ids_may_be_null_or_missing() {
    let config = read(&json!({"pad_token_id": null, "cls_token_id": 7})).unwrap();
    assert_eq!(
        (
            config.pad_token_id,
            config.cls_token_id,
            config.sep_token_id
        ),
        (None, Some(7), Some(50282))
    );
    assert_eq!(
        read(&json!({"vocab_size": 1000})).unwrap().pad_token_id,
        None
    );
}

#[test]
fn a_local_theta_of_null_or_minus_one_is_the_global_one() {
    for theta in [json!(null), json!(-1), json!(-1.0)] {
        let config =
            read(&json!({"global_rope_theta": 5000.0, "local_rope_theta": theta})).unwrap();
        assert_eq!(config.rope_theta(LayerType::Local), 5000.0);
    }
    assert_eq!(
        read(&json!({"global_rope_theta": 5000.0}))
            .unwrap()
            .local_rope_theta,
        10_000.0
    );
}

#[test]
fn labels_come_in_the_order_of_their_ids() {
    let ids: serde_json::Map<_, _> = (0..11)
        .map(|i| (i.to_string(), json!(format!("l{i}"))))
        .collect();
    let config = read(&json!({"id2label": ids, "num_labels": 11})).unwrap();
    assert_eq!(config.id2label.unwrap()[10], "l10");
    assert_eq!(config.num_labels, Some(11));
    let message = complaint(&json!({"id2label": ids, "num_labels": 3}));
    assert!(
        message.contains("num_labels is 3") && message.contains("11, as many as id2label names"),
        "{message}"
    );
}

#[test]
fn each_lie_is_named() {
    let cases = [
        (json!({"model_type": "albert"}), "model_type is \"albert\""),
        (
            json!({"hidden_activation": "snake"}),
            "hidden_activation is \"snake\"; expected one of gelu, gelu_python",
        ),
        (
            json!({"hidden_size": -1}),
            "hidden_size is -1; expected a whole number",
        ),
        (json!({"hidden_size": 0}), "config.json: hidden_size is 0"),
        (json!({"norm_eps": "small"}), "norm_eps is \"small\""),
        (
            json!({"layer_types": ["full_attention"]}),
            "a list of 22 entries",
        ),
        (
            json!({"num_hidden_layers": 1, "layer_types": ["chunked_attention"]}),
            "chunked_attention",
        ),
        (
            json!({"global_attn_every_n_layers": 0}),
            "global_attn_every_n_layers is 0; expected 1 or more",
        ),
        (json!({"num_hidden_layers": u64::MAX}), "num_hidden_layers"),
        (
            json!({"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}}),
            "rope_parameters.sliding_attention.rope_type is \"yarn\"",
        ),
        (
            json!({"rope_parameters": {"rope_theta": 1.0}}),
            "full_attention and sliding_attention",
        ),
        (
            json!({"rope_parameters": {}, "rope_scaling": {"type": "yarn", "factor": 4.0}}),
            "rope_scaling.type is \"yarn\"",
        ),
        (
            json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
            "rope_scaling.rope_type is \"linear\"",
        ),
        (
            json!({"partial_rotary_factor": 0.5}),
            "partial_rotary_factor is 0.5",
        ),
        (json!({"id2label": {"first": "a"}}), "id2label"),
        (json!({"id2label": {"0": ["a"]}}), "id2label"),
        (json!({"id2label": {"0": "a\nb"}}), "id2label is \"a\\nb\""),
        (json!({"label2id": {"\u{1b}[2J": 0}}), "control characters"),
        (json!({"id2label": {"99999999": "a"}}), "id2label"),
        (
            json!({"problem_type": "ranking"}),
            "problem_type is \"ranking\"",
        ),
        (json!({"classifier_pooling": "max"}), "classifier_pooling"),
        (json!({"pad_token_id": 60000}), "pad_token_id is 60000"),
        (
            json!({"num_attention_heads": 5}),
            "choose a divisor of hidden_size (768)",
        ),
        (json!({"num_attention_heads": 256}), "even width"),
        (json!({"local_attention": 127}), "local_attention is 127"),
        (json!({"mlp_dropout": 1.0}), "mlp_dropout is 1"),
        (json!({"norm_eps": 0.0}), "norm_eps is 0"),
    ];
    for (value, expected) in cases {
        let message = complaint(&value);
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
    let message = ModernBertConfig::from_json_str("[1]", "x.json")
        .unwrap_err()
        .to_string();
    assert!(
        message.starts_with("x.json: not a JSON object"),
        "{message}"
    );
}

#[test]
fn a_saved_file_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config = ModernBertConfig {
        id2label: Some(vec!["no".into(), "yes".into()]),
        num_labels: Some(2),
        problem_type: Some(ProblemType::SingleLabel),
        pad_token_id: None,
        layer_types: vec![LayerType::Local; 28],
        ..ModernBertConfig::large()
    };
    config.save(&path).unwrap();
    assert_eq!(ModernBertConfig::from_file(&path).unwrap(), config);
    let missing = ModernBertConfig::from_file(folder.path().join("no.json")).unwrap_err();
    assert!(missing.to_string().contains("no.json"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_written_has_every_key_of_both_generations() {
    let written: Value = serde_json::from_str(&ModernBertConfig::base().to_json_string()).unwrap();
    for form in [old_form(), new_form()] {
        for (key, value) in form.as_object().unwrap() {
            if key != "transformers_version" {
                assert_eq!(&written[key], value, "{key}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_valid_config_survives_writing_and_reading(
        shape in (1usize..9, 1usize..5, 1usize..40, 1usize..4),
        n in 0usize..5, switches in any::<[bool; 6]>(), theta in 1u32..1_000_000, dropout in 0u32..100,
        labels in proptest::option::of(1usize..12), local in 1usize..100,
    ) {
        let (layers, heads, intermediate, width) = shape;
        let config = ModernBertConfig {
            norm_bias: switches[0], attention_bias: switches[1], mlp_bias: switches[2], classifier_bias: switches[3],
            decoder_bias: switches[4], tie_word_embeddings: switches[5], global_rope_theta: f64::from(theta), mlp_dropout: f64::from(dropout) / 100.0,
            num_labels: labels, local_attention: 2 * local, hidden_activation: Activation::GeluTanh,
            ..ModernBertConfig::of_shape(layers, heads * width * 2, intermediate, heads)
        }.with_every_n(n);
        prop_assert_eq!(ModernBertConfig::from_json_str(&config.to_json_string(), "x").unwrap(), config);
    }

    #[test]
    fn no_text_panics(text in ".{0,80}") {
        let _ = ModernBertConfig::from_json_str(&text, "x");
    }
}

#[test]
fn presets_are_trainable_and_known_by_name() {
    for name in ModernBertConfig::preset_names() {
        let config = ModernBertConfig::preset(name).unwrap();
        config.check_trainable().unwrap();
        assert_eq!(
            (config.head_dim(), config.half_window(), config.vocab_size),
            (64, 64, 50368)
        );
        assert_eq!(config.layer_types.last(), Some(&LayerType::Global));
    }
    assert!(
        ModernBertConfig::preset("huge")
            .unwrap_err()
            .to_string()
            .contains("17m, 32m")
    );
}

#[test]
fn training_wants_a_global_last_layer() {
    let message = |config: ModernBertConfig| config.check_trainable().unwrap_err().to_string();
    let shape = ModernBertConfig::of_shape(6, 64, 96, 1);
    assert!(shape.validate().is_ok());
    assert!(
        message(shape.clone()).contains("use 4 or 7 layers"),
        "{}",
        message(shape.clone())
    );
    assert!(shape.clone().with_every_n(5).check_trainable().is_ok());
    assert!(message(shape.with_every_n(0)).contains("irregular"));
}

#[test]
fn layers_of_base_and_large() {
    let globals = |config: ModernBertConfig| -> Vec<usize> {
        (0..config.num_hidden_layers)
            .filter(|i| config.layer_type(*i) == Some(LayerType::Global))
            .collect()
    };
    assert_eq!(
        globals(ModernBertConfig::base()),
        [0, 3, 6, 9, 12, 15, 18, 21]
    );
    assert_eq!(globals(ModernBertConfig::large()).len(), 10);
    assert_eq!(ModernBertConfig::base().layer_type(22), None);
}

#[test]
fn the_spacing_is_found_again() {
    let spacing = |layers, n| {
        ModernBertConfig::of_shape(layers, 4, 4, 1)
            .with_every_n(n)
            .global_every_n()
    };
    assert_eq!(
        (spacing(22, 3), spacing(22, 1), spacing(9, 4)),
        (Some(3), Some(1), Some(4))
    );
    assert_eq!(
        (spacing(2, 7), spacing(5, 7), spacing(5, 0)),
        (Some(3), Some(5), None)
    );
    assert_eq!(spacing(usize::MAX, 2), Some(2));
}

#[test]
fn comparing_trainings_with_dropout_is_refused_by_name() {
    let mut config = ModernBertConfig::base();
    assert!(config.check_no_dropout().is_ok());
    config.mlp_dropout = 0.1;
    assert!(config.check_trainable().is_ok(), "training is allowed");
    let message = config.check_no_dropout().unwrap_err().to_string();
    assert!(message.contains("mlp_dropout is 0.1"), "{message}");
}

#[test]
fn poolings_are_read_by_their_names() {
    for pooling in Pooling::ALL {
        assert_eq!(pooling.name().parse(), Ok(pooling));
    }
    assert_eq!("weighted-mean".parse(), Ok(Pooling::WeightedMean));
    let message = "best".parse::<Pooling>().unwrap_err().to_string();
    assert!(
        message.contains("\"best\"") && message.contains("cls, mean, max, weightedmean"),
        "{message}"
    );
}

/// Models compute in f32: values that are 0 or infinite in f32 give results that are zeros or not finite.
#[test]
fn numbers_that_f32_does_not_hold_are_refused() {
    for key in [
        "norm_eps",
        "global_rope_theta",
        "local_rope_theta",
        "initializer_range",
        "initializer_cutoff_factor",
    ] {
        for value in [1e300, 1e-300] {
            let mut json = old_form();
            json[key] = json!(value);
            let message = complaint(&json);
            assert!(message.starts_with("config.json: "), "{message}");
            assert!(
                message.contains(&format!("{key} is {value:e}; ")),
                "{message}"
            );
        }
    }
    let mut json = old_form();
    json["global_rope_theta"] = json!(1e-37);
    assert!(complaint(&json).contains("overflow f32"));
    json["global_rope_theta"] = json!(0.5);
    assert_eq!(read(&json).unwrap().global_rope_theta, 0.5);
    // Values beyond it are drawn again: at 1e-9 the first one would take years.
    let mut json = old_form();
    json["initializer_cutoff_factor"] = json!(1e-9);
    assert!(complaint(&json).contains("set 0.01 or more"));
}

#[test]
fn a_key_twice_is_refused() {
    let text = old_form().to_string();
    let twice = text.replace(
        "\"hidden_size\":768",
        "\"hidden_size\":768,\"hidden_size\":64",
    );
    assert_ne!(text, twice);
    let error = ModernBertConfig::from_json_str(&twice, "config.json").unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("the key \"hidden_size\" is there twice"),
        "{message}"
    );
}

#[test]
fn keys_that_would_change_the_model_are_not_ignored() {
    for (key, value, said) in [
        ("bert_layer", json!("postnorm"), "flexbert.bert_layer"),
        ("normalization", json!("rmsnorm"), "flexbert.normalization"),
        (
            "num_key_value_heads",
            json!(4),
            "flexbert.num_key_value_heads",
        ),
        ("head_dim", json!(32), "flexbert.head_dim"),
        (
            "quantization_config",
            json!({"bits": 4}),
            "quantized weights",
        ),
        ("flexbert", json!([]), "flexbert is []"),
    ] {
        let mut json = old_form();
        json[key] = value;
        let message = complaint(&json);
        assert!(message.contains(key) && message.contains(said), "{message}");
    }
    // What other writers repeat of the shape.
    let mut json = old_form();
    json["num_key_value_heads"] = json!(12);
    json["head_dim"] = json!(64);
    json["quantization_config"] = json!(null);
    assert_eq!(read(&json).unwrap(), read(&old_form()).unwrap());
    // The description of int8 weights that can be read.
    let text = crate::checkpoint::int8_config(&old_form().to_string()).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read(&json).unwrap(), read(&old_form()).unwrap());
}

#[test]
fn rotary_embeddings_are_read_whole_or_refused() {
    let with = |entry: Value| {
        let mut json = new_form();
        json["rope_parameters"]["full_attention"] = entry;
        json
    };
    for (entry, said) in [
        (
            json!({"rope_type": "default", "rope_theta": 1e4, "factor": 4.0}),
            "factor belongs to linear, dynamic and yarn",
        ),
        (
            json!({"rope_type": "default", "type": "linear", "factor": 4.0}),
            "full_attention.type is \"linear\"",
        ),
        (
            json!({"rope_type": "linear", "factor": 4.0, "beta_fast": 3.0}),
            "beta_fast belongs to yarn",
        ),
        (
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
            "flexbert.rotary_emb_dim",
        ),
        (
            json!({"rope_type": "default", "low_freq_factor": 1.0}),
            "full_attention.low_freq_factor",
        ),
        (
            json!({"rope_type": "linear", "factor": 1e300}),
            "set a factor of 1 or more that f32 holds",
        ),
        (
            json!({"rope_type": "yarn", "factor": 4.0, "beta_fast": 1.0, "beta_slow": 2.0}),
            "beta_fast 1 and beta_slow 2",
        ),
        (
            json!({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": -7.213475204444817}),
            "mscale_all_dim",
        ),
        (
            json!({"rope_type": "yarn", "factor": 4.0, "attention_factor": 1e300}),
            "attention_factor 1e300",
        ),
        (
            json!({"rope_type": "dynamic", "factor": 1e30, "original_max_position_embeddings": 4}),
            "overflows f32",
        ),
    ] {
        let message = complaint(&with(entry));
        assert!(message.contains(said), "{message}");
    }
    let mut json = new_form();
    json["rope_parameters"]["global_attention"] = json!({"rope_type": "linear", "factor": 4.0});
    assert!(complaint(&json).contains("rope_parameters.global_attention"));
    let mut json = with(json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}));
    json["flexbert"] =
        json!({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}});
    assert!(complaint(&json).contains("one of the two places"));
    let fields = json!({"rope_type": "default", "rope_theta": 1e4, "factor": null, "partial_rotary_factor": 1.0});
    assert!(read(&with(fields)).is_ok());
}

#[test]
fn labels_that_can_not_be_told_apart_are_refused() {
    for (id2label, label2id, said) in [
        (json!({"0": "a", "00": "b"}), json!(null), "the key \"00\""),
        (json!({"+0": "a", "1": "b"}), json!(null), "the key \"+0\""),
        (json!({"0": "a", "1": "b"}), json!({"a": "0"}), "label2id.a"),
        (json!({"0": "a", "1": "b"}), json!(["a"]), "label2id is"),
        (json!(null), json!({"a": "00"}), "label2id.a"),
        (json!({"0": "a", "1": "a"}), json!(null), "\"a\" twice"),
        (json!({"0": "a", "1": ""}), json!(null), "an empty name"),
        (
            json!({"0": "a", "1": "\u{3000}"}),
            json!(null),
            "an empty name",
        ),
        (
            json!({"0": "caf\u{e9}", "1": "cafe\u{301}"}),
            json!(null),
            "as far as can be seen",
        ),
        (
            json!({"0": "a", "1": "a\u{200b}"}),
            json!(null),
            "as far as can be seen",
        ),
        (
            json!({"0": "\u{1f44d}", "1": "\u{1f44d}\u{fe0f}"}),
            json!(null),
            "as far as can be seen",
        ),
        (
            json!({"0": "a b", "1": "a  b"}),
            json!(null),
            "as far as can be seen",
        ),
        (
            json!({"0": "a", "1": "\u{202e}b"}),
            json!(null),
            "control characters",
        ),
        (json!(null), json!({"a": 0, "b": 0}), "each of them once"),
        (
            json!({"0": "a", "1": "b"}),
            json!({"a": 1, "b": 0}),
            "label2id",
        ),
    ] {
        let mut json = old_form();
        json["id2label"] = id2label;
        json["label2id"] = label2id;
        let message = complaint(&json);
        assert!(message.contains(said), "{message}");
    }
    // Python's default names in one of the two say nothing about the other.
    let mut json = old_form();
    json["id2label"] = json!({"0": "a", "1": "b"});
    json["label2id"] = json!({"LABEL_0": 0, "LABEL_1": 1});
    assert_eq!(read(&json).unwrap().id2label.unwrap(), ["a", "b"]);
}

#[test]
fn a_share_that_is_1_in_f32_is_refused() {
    for key in [
        "attention_dropout",
        "embedding_dropout",
        "mlp_dropout",
        "classifier_dropout",
    ] {
        let mut json = old_form();
        json[key] = json!(0.99999999999_f64);
        let message = complaint(&json);
        assert!(
            message.contains(key) && message.contains("also in f32"),
            "{message}"
        );
        json[key] = json!(0.999);
        read(&json).unwrap();
    }
    assert!(is_share(0.0) && is_share(0.999_999) && !is_share(1.0) && !is_share(f64::NAN));
}

#[test]
fn more_first_layers_than_layers_are_refused() {
    let mut json = old_form();
    let layers = read(&json).unwrap().num_hidden_layers;
    json["flexbert"] = json!({"num_initial_layers": layers + 1, "initial_mlp_layer": "mlp"});
    let message = complaint(&json);
    assert!(message.contains("num_initial_layers"), "{message}");
    json["flexbert"]["num_initial_layers"] = json!(layers);
    read(&json).unwrap();
}
