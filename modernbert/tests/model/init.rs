//! Random initialization: deviations, cutoff, seeds, and the loss before training.

use modernbert::batch::PackedBatch;
use modernbert::config::ModernBertConfig;
use modernbert::model::{
    InitMethod, MaskedLm, MaskedTokens, ModernBert, SequenceClassifier, initialize, initialize_with,
};

use crate::toy;
use test_support::{bits, device, holds, ids, read};

/// Share of the standard deviation that remains when values beyond two deviations are drawn again.
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
    let head = values
        .into_iter()
        .filter(|(name, _)| ["classifier.weight", "head.dense.weight"].contains(&name.as_str()))
        .collect();
    let seen = assert_deviations(&head, |name| match name {
        "classifier.weight" => 1.0 / 16.0,
        _ => 0.02 / 6f64.sqrt(),
    });
    assert_eq!(seen, 2);
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
    // The decoder is the language model's own, and a classifier's dense layer has another deviation.
    let own = ["decoder.bias", "head.dense.weight"];
    for (name, values) in language.iter().filter(|(n, _)| !own.contains(&n.as_str())) {
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

/// Deviation and largest value of a matrix.
fn spread(values: &[f32]) -> (f64, f64) {
    let squares: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
    let largest = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    ((squares / values.len() as f64).sqrt(), f64::from(largest))
}

#[test]
fn every_other_method_has_its_deviations() {
    let config = config();
    // Share of the standard deviation that remains when values beyond three deviations are drawn again.
    const AT_THREE: f64 = 0.986_58;
    let (std, by_depth) = (0.02, 0.02 / 6f64.sqrt());
    let (hidden, inner) = (1.0 / 16.0, 1.0 / 384f64.sqrt());
    // Embedding, Wi of the second layer, attention's Wo and the MLP's of the second layer; the cut in deviations.
    let table = [
        (InitMethod::Default, [std, std, std, std], None),
        (
            InitMethod::Normal,
            [std, std, by_depth, by_depth].map(|s| s * TRUNCATED),
            Some(2.0 / TRUNCATED),
        ),
        (
            InitMethod::Mitchell,
            [hidden, hidden, hidden / 2.0, inner / 2.0].map(|s| s * AT_THREE),
            Some(3.0 / AT_THREE),
        ),
        (
            InitMethod::KaimingNormal,
            [hidden, hidden, hidden, inner].map(|s| s * 2f64.sqrt()),
            None,
        ),
        (InitMethod::FanIn, [hidden, hidden, hidden, inner], None),
    ];
    let names = [
        "embeddings.tok_embeddings.weight",
        "layers.1.mlp.Wi.weight",
        "layers.1.attn.Wo.weight",
        "layers.1.mlp.Wo.weight",
    ];
    for (method, deviations, cut) in table {
        let encoder = ModernBert::new(&config, &device()).unwrap();
        let values = toy::values(&initialize_with(encoder, &config, method, false, 1).unwrap());
        for (name, deviation) in names.into_iter().zip(deviations) {
            let (found, largest) = spread(&values[name]);
            assert!(
                (found / deviation - 1.0).abs() < 0.01,
                "{method:?} {name}: {found}, expected {deviation}"
            );
            match cut {
                Some(cut) => assert!(
                    largest <= cut * deviation * 1.001,
                    "{method:?} {name}: {largest}"
                ),
                None => assert!(
                    largest > 3.5 * deviation,
                    "{method:?} {name} is cut at {largest}"
                ),
            }
        }
        assert!(values["final_norm.weight"].iter().all(|&x| x == 1.0));
    }
}

#[test]
fn the_padding_row_and_the_small_embedding() {
    let mut config = config();
    config.pad_token_id = Some(3);
    let name = "embeddings.tok_embeddings.weight";
    let values = |method, small| {
        let encoder = ModernBert::new(&config, &device()).unwrap();
        initialize_with(encoder, &config, method, small, 1).map(|encoder| toy::values(&encoder))
    };
    let row = |named: &toy::Named| named[name][3 * 256..4 * 256].to_vec();
    assert!(
        row(&values(InitMethod::Default, false).unwrap())
            .iter()
            .all(|&x| x == 0.0)
    );
    assert!(
        row(&values(InitMethod::Normal, false).unwrap())
            .iter()
            .any(|&x| x != 0.0)
    );
    let small = &values(InitMethod::FanIn, true).unwrap()[name];
    let (deviation, largest) = spread(small);
    assert!(largest <= 1e-4 && (deviation / (1e-4 / 3f64.sqrt()) - 1.0).abs() < 0.01);
    let error = values(InitMethod::FullMegatron, true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("full_megatron"), "{error}");
}
