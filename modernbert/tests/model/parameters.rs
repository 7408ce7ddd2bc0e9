//! Names, shapes and numbers of the parameters, as in the released files.

use modernbert::config::{LayerType, ModernBertConfig};
use modernbert::model::{MaskedLm, ModernBert, SequenceClassifier, named_parameters};

use crate::toy;
use test_support::{device, holds};

type Named = Vec<(String, Vec<usize>)>;

fn count<'a>(parameters: impl IntoIterator<Item = &'a (String, Vec<usize>)>) -> u64 {
    parameters
        .into_iter()
        .map(|(_, shape)| shape.iter().product::<usize>() as u64)
        .sum()
}

/// The table of names and shapes of a file with the masked-language-model head, sorted.
fn table(layers: usize, vocab: usize, hidden: usize, inner: usize) -> Named {
    let mut table: Named = vec![
        (
            "model.embeddings.tok_embeddings.weight".into(),
            vec![vocab, hidden],
        ),
        ("model.embeddings.norm.weight".into(), vec![hidden]),
        ("model.final_norm.weight".into(), vec![hidden]),
        ("head.dense.weight".into(), vec![hidden, hidden]),
        ("head.norm.weight".into(), vec![hidden]),
        ("decoder.bias".into(), vec![vocab]),
    ];
    for i in 0..layers {
        if i > 0 {
            table.push((format!("model.layers.{i}.attn_norm.weight"), vec![hidden]));
        }
        table.push((
            format!("model.layers.{i}.attn.Wqkv.weight"),
            vec![3 * hidden, hidden],
        ));
        table.push((
            format!("model.layers.{i}.attn.Wo.weight"),
            vec![hidden, hidden],
        ));
        table.push((format!("model.layers.{i}.mlp_norm.weight"), vec![hidden]));
        table.push((
            format!("model.layers.{i}.mlp.Wi.weight"),
            vec![2 * inner, hidden],
        ));
        table.push((
            format!("model.layers.{i}.mlp.Wo.weight"),
            vec![hidden, inner],
        ));
    }
    table.sort();
    table
}

fn sorted(mut parameters: Named) -> Named {
    parameters.sort();
    parameters
}

#[test]
fn base_has_exactly_the_published_parameters() {
    if !holds(50368 * 768) {
        return;
    }
    let model = MaskedLm::new(&ModernBertConfig::base(), &device()).unwrap();
    let parameters = named_parameters(&model);
    let (encoder, head): (Named, Named) = parameters
        .iter()
        .cloned()
        .partition(|(name, _)| name.starts_with("model."));
    assert_eq!(count(&encoder), 149_014_272);
    assert_eq!(count(&head), 590_592 + 50_368);
    assert_eq!(count(&parameters), 149_655_232);
    assert_eq!(sorted(parameters), table(22, 50368, 768, 1152));
}

#[test]
fn large_has_the_published_shapes_and_its_count_follows_from_them() {
    let large = ModernBertConfig::large();
    assert_eq!(large.encoder_parameters(), 394_781_696);
    assert_eq!(large.mlm_parameters(), 395_881_664);
    assert_eq!(count(&table(28, 50368, 1024, 2624)), 395_881_664);
    assert_eq!((large.head_dim(), large.num_hidden_layers), (64, 28));
    if !holds(50368 * 1024) {
        return;
    }
    // A model of two layers: the formula equals the count of its parameters.
    let mut short = ModernBertConfig::of_shape(2, 1024, 2624, 16);
    short.vocab_size = 50368;
    let parameters = named_parameters(&MaskedLm::new(&short, &device()).unwrap());
    assert_eq!(count(&parameters), short.mlm_parameters());
    assert_eq!(sorted(parameters), table(2, 50368, 1024, 2624));
}

#[test]
fn the_only_bias_is_that_of_the_decoder() {
    let parameters = named_parameters(&MaskedLm::new(&toy::config(4), &device()).unwrap());
    let biases: Vec<_> = parameters
        .iter()
        .map(|(name, _)| name)
        .filter(|name| name.contains("bias"))
        .collect();
    assert_eq!(biases, ["decoder.bias"]);
}

#[test]
fn every_optional_bias_stands_under_its_name() {
    let mut config = toy::config(2);
    config.attention_bias = true;
    config.mlp_bias = true;
    config.norm_bias = true;
    config.classifier_bias = true;
    let parameters = named_parameters(&MaskedLm::new(&config, &device()).unwrap());
    assert_eq!(count(&parameters), config.mlm_parameters());
    for name in [
        "model.embeddings.norm.bias",
        "model.layers.0.attn.Wqkv.bias",
        "model.layers.0.attn.Wo.bias",
        "model.layers.1.attn_norm.bias",
        "model.layers.1.mlp.Wi.bias",
        "model.layers.1.mlp.Wo.bias",
        "model.final_norm.bias",
        "head.dense.bias",
        "head.norm.bias",
    ] {
        assert!(
            parameters.iter().any(|(found, _)| found == name),
            "no {name}"
        );
    }
}

#[test]
fn layer_0_has_no_attention_norm() {
    let encoder = ModernBert::new(&toy::config(3), &device()).unwrap();
    let names: Vec<_> = named_parameters(&encoder)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let norms: Vec<_> = names
        .iter()
        .filter(|name| name.contains("attn_norm"))
        .collect();
    assert_eq!(
        norms,
        ["layers.1.attn_norm.weight", "layers.2.attn_norm.weight"]
    );
}

#[test]
fn an_untied_decoder_has_a_weight_of_its_own_and_a_tied_one_has_none() {
    let mut config = toy::config(1);
    let has_weight = |config: &ModernBertConfig| {
        let parameters = named_parameters(&MaskedLm::new(config, &device()).unwrap());
        assert_eq!(count(&parameters), config.mlm_parameters());
        parameters.contains(&("decoder.weight".to_owned(), vec![toy::VOCAB, 16]))
    };
    assert!(!has_weight(&config));
    config.tie_word_embeddings = false;
    assert!(has_weight(&config));
}

#[test]
fn a_classifier_shares_the_head_of_the_language_model() {
    let config = toy::config(2);
    let language = sorted(named_parameters(
        &MaskedLm::new(&config, &device()).unwrap(),
    ));
    let classifier = sorted(named_parameters(
        &SequenceClassifier::new(&config, 3, &device()).unwrap(),
    ));
    assert_eq!(count(&classifier), config.classification_parameters(3));
    let new: Vec<_> = classifier
        .iter()
        .filter(|parameter| !language.contains(parameter))
        .cloned()
        .collect();
    assert_eq!(
        new,
        [
            ("classifier.bias".to_owned(), vec![3]),
            ("classifier.weight".to_owned(), vec![3, 16])
        ]
    );
    let left: Vec<_> = language
        .iter()
        .filter(|parameter| !classifier.contains(parameter))
        .collect();
    assert_eq!(left, [&("decoder.bias".to_owned(), vec![toy::VOCAB])]);
}

#[test]
fn every_third_layer_is_global_the_last_one_included() {
    for (config, expected) in [
        (
            ModernBertConfig::base(),
            (0..=21).step_by(3).collect::<Vec<_>>(),
        ),
        (ModernBertConfig::large(), (0..=27).step_by(3).collect()),
    ] {
        let layers = 0..config.num_hidden_layers;
        let global: Vec<usize> = layers
            .filter(|&i| config.layer_type(i) == Some(LayerType::Global))
            .collect();
        assert_eq!(global, expected);
        assert_eq!(config.half_window(), 64);
        assert_eq!(config.rope_theta(LayerType::Global), 160_000.0);
        assert_eq!(config.rope_theta(LayerType::Local), 10_000.0);
    }
}
