//! The random start: deviations, cut-off, seeds, and the loss it begins with.

use modernbert::batch::PackedBatch;
use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, MaskedTokens, ModernBert, SequenceClassifier, initialize};

use crate::common::{bits, device, holds, ids, read};
use crate::toy;

/// What is left of a deviation when values beyond two of them are drawn again.
const TRUNCATED: f64 = 0.879_63;

fn config() -> ModernBertConfig {
    let mut config = toy::config(3);
    (
        config.vocab_size,
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
    ) = (600, 256, 384, 4);
    config
}

/// Every matrix of at least 50 000 values against the deviation that `sigma` gives its name.
fn assert_deviations(values: &toy::Named, sigma: impl Fn(&str) -> f64) -> usize {
    let mut seen = 0;
    for (name, values) in values.iter().filter(|(_, values)| values.len() >= 50_000) {
        let sigma = sigma(name);
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let std = (values
            .iter()
            .map(|&x| (f64::from(x) - mean).powi(2))
            .sum::<f64>()
            / n)
            .sqrt();
        let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        assert!(
            (std / (TRUNCATED * sigma) - 1.0).abs() < 0.01,
            "{name}: deviation {std}, sigma {sigma}"
        );
        assert!(mean.abs() < 5.0 * sigma / n.sqrt(), "{name}: mean {mean}");
        assert!(
            f64::from(largest) <= 2.0 * sigma * 1.000_001,
            "{name}: {largest} beyond two sigma"
        );
        assert!(
            f64::from(largest) > 1.99 * sigma,
            "{name}: nothing near the cut-off"
        );
        seen += 1;
    }
    seen
}

#[test]
fn every_row_of_the_table_has_its_deviation() {
    let mut config = config();
    config.tie_word_embeddings = false;
    let model = initialize(MaskedLm::new(&config, &device()).unwrap(), &config, 1);
    let values = toy::values(&model);
    let seen = assert_deviations(&values, |name| match name {
        "decoder.weight" => 1.0 / 16.0,
        _ if name.ends_with("Wo.weight") => 0.02 / 6f64.sqrt(),
        _ => 0.02,
    });
    // Embedding, dense of the head, decoder, and four matrices in each of three layers.
    assert_eq!(seen, 3 + 4 * 3);
    for (name, values) in &values {
        if name.ends_with("bias") {
            assert!(values.iter().all(|&x| x == 0.0), "{name} starts at zero");
        } else if name.contains("norm") {
            assert!(values.iter().all(|&x| x == 1.0), "{name} starts at one");
        }
    }
}

#[test]
fn a_classifier_has_its_deviation() {
    let config = config();
    let model = initialize(
        SequenceClassifier::new(&config, 200, &device()).unwrap(),
        &config,
        1,
    );
    let values = toy::values(&model);
    assert!(values["classifier.bias"].iter().all(|&x| x == 0.0));
    let classifier = values
        .into_iter()
        .filter(|(name, _)| name == "classifier.weight")
        .collect();
    assert_eq!(assert_deviations(&classifier, |_| 1.0 / 16.0), 1);
}

#[test]
fn range_and_cutoff_are_the_configs() {
    let mut config = config();
    (config.initializer_range, config.initializer_cutoff_factor) = (0.1, 1.0);
    let encoder = initialize(ModernBert::new(&config, &device()).unwrap(), &config, 1);
    let values = &toy::values(&encoder)["layers.0.mlp.Wi.weight"];
    let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    assert!(
        (0.0999..=0.1).contains(&largest),
        "cut at one deviation of 0.1, found {largest}"
    );
}

#[test]
fn a_seed_gives_the_same_weights_and_another_seed_others() {
    let config = toy::config(2);
    let values = |seed| {
        let model = MaskedLm::new(&config, &device()).unwrap();
        toy::values(&initialize(model, &config, seed))
    };
    let (first, again, other) = (values(1), values(1), values(2));
    for (name, values) in &first {
        assert_eq!(bits(values), bits(&again[name]), "{name}");
        let random = !name.contains("norm") && !name.ends_with("bias");
        assert_eq!(bits(values) != bits(&other[name]), random, "{name}");
    }
}

#[test]
fn a_tensor_starts_the_same_whatever_stands_beside_it_and_unlike_its_siblings() {
    let config = toy::config(2);
    let language = toy::values(&initialize(
        MaskedLm::new(&config, &device()).unwrap(),
        &config,
        1,
    ));
    let classifier = toy::values(&initialize(
        SequenceClassifier::new(&config, 2, &device()).unwrap(),
        &config,
        1,
    ));
    for (name, values) in language.iter().filter(|(name, _)| *name != "decoder.bias") {
        assert_eq!(bits(values), bits(&classifier[name]), "{name}");
    }
    assert_ne!(
        language["model.layers.0.mlp.Wi.weight"],
        language["model.layers.1.mlp.Wi.weight"]
    );
}

/// ln 50368 is 10.827; logits of deviation 0.488 add 0.119. Less than 10.8 would mean that the answer leaks into the input.
#[test]
fn the_first_loss_of_the_real_vocabulary_is_near_its_logarithm() {
    if !holds(50368 * 768) {
        return;
    }
    let config = ModernBertConfig::of_shape(2, 768, 1152, 12);
    let model = initialize(MaskedLm::new(&config, &device()).unwrap(), &config, 17);
    let sequences = [ids(1, 50, 50368), ids(2, 30, 50368)];
    let batch = PackedBatch::from_sequences(&sequences, &device()).unwrap();
    let positions: Vec<u32> = (0..80).collect();
    let masked = MaskedTokens::new(&positions, &ids(3, 80, 50368), &[1.0; 80], &device());
    let loss = read(model.forward(&batch, &masked).loss_sum)[0] / 80.0;
    assert!((10.8..11.1).contains(&loss), "{loss}");
}
