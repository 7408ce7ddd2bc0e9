//! Dropout in the model: in training alone, at the sites the rates name, the same for the same key.

use burn::tensor::Device;
use modernbert::batch::{Dropout, DropoutRates, PackedBatch};
use modernbert::model::{
    ClassificationLabels, MaskedLm, MaskedTokens, SequenceClassifier, TokenClassifier,
    dropout_rates,
};

use crate::toy;
use test_support::{autodiff_device, bits, device, ids, read};

fn batch(device: &Device, dropout: Option<Dropout>) -> PackedBatch {
    let sequences: Vec<_> = [9, 1, 14]
        .iter()
        .map(|&n| ids(30 + n as u64, n, toy::VOCAB as u32))
        .collect();
    PackedBatch::from_sequences(&sequences, device)
        .unwrap()
        .with_dropout(dropout)
}

fn dropout(rates: DropoutRates, batch: u64) -> Option<Dropout> {
    Some(Dropout {
        rates,
        seed: 17,
        batch,
    })
}

/// Each site alone.
fn sites() -> [(&'static str, DropoutRates); 6] {
    let none = DropoutRates::default();
    [
        (
            "embedding",
            DropoutRates {
                embedding: 0.3,
                ..none
            },
        ),
        (
            "attention probabilities",
            DropoutRates {
                attention_probabilities: 0.3,
                ..none
            },
        ),
        (
            "attention output",
            DropoutRates {
                attention_output: 0.3,
                ..none
            },
        ),
        ("mlp", DropoutRates { mlp: 0.3, ..none }),
        (
            "MLP output",
            DropoutRates {
                mlp_output: 0.3,
                ..none
            },
        ),
        (
            "classifier",
            DropoutRates {
                classifier: 0.3,
                ..none
            },
        ),
    ]
}

#[test]
fn every_site_drops_by_its_key_and_nothing_else_does() {
    let mut config = toy::config(4);
    // Training loops request the rates of the config: a model by itself drops nothing.
    (config.mlp_dropout, config.attention_dropout) = (0.5, 0.5);
    let device = device();
    let model = toy::build(
        |device| SequenceClassifier::new(&config, 3, device).unwrap(),
        5,
        &device,
    );
    let logits = |dropout| bits(&read(model.logits(&batch(&device, dropout))));
    let plain = logits(None);
    assert_eq!(logits(dropout(DropoutRates::default(), 1)), plain);
    let mut seen = vec![plain];
    for (site, rates) in sites() {
        let found = logits(dropout(rates, 1));
        assert_eq!(
            found,
            logits(dropout(rates, 1)),
            "{site}: the same key drops the same"
        );
        assert!(!seen.contains(&found), "{site} drops nothing of its own");
        let other = logits(dropout(rates, 2));
        assert_ne!(found, other, "{site}: another batch");
        seen.extend([found, other]);
    }
    let token = toy::build(
        |device| TokenClassifier::new(&config, 3, device).unwrap(),
        5,
        &device,
    );
    let logits = |dropout| bits(&read(token.logits(&batch(&device, dropout))));
    assert_ne!(logits(dropout(sites()[4].1, 1)), logits(None));
}

/// The config's rates, where transformers has them.
#[test]
fn rates_of_a_config() {
    let mut config = toy::config(3);
    assert!(dropout_rates(&config).is_none());
    config.embedding_dropout = 0.1;
    config.attention_dropout = 0.2;
    config.mlp_dropout = 0.3;
    config.classifier_dropout = 0.4;
    let expected = DropoutRates {
        embedding: 0.1,
        attention_probabilities: 0.2,
        attention_output: 0.2,
        mlp: 0.3,
        classifier: 0.4,
        ..DropoutRates::default()
    };
    assert_eq!(dropout_rates(&config), expected);
}

/// Over many keys the mean of the embeddings with dropout is the value without dropout: kept elements are scaled up.
#[test]
fn dropping_keeps_the_mean() {
    let config = toy::config(1);
    let device = device();
    let model = toy::build(|device| MaskedLm::new(&config, device).unwrap(), 5, &device);
    // At the embedding alone: the layers after it are not linear in the elements that are dropped.
    let rates = DropoutRates {
        embedding: 0.3,
        ..DropoutRates::default()
    };
    let embedded = |dropout| read(model.model.embed(&batch(&device, dropout)));
    let plain = embedded(None);
    let count = 400;
    let mut sums = vec![0.0f64; plain.len()];
    for key in 0..count {
        for (sum, x) in sums.iter_mut().zip(embedded(dropout(rates, key))) {
            *sum += f64::from(x);
        }
    }
    // A dropped element deviates by √(p / (1 - p)) of its size; the mean of 400 by a twentieth of that.
    for (sum, x) in sums.iter().zip(&plain) {
        let error = (sum / count as f64 - f64::from(*x)).abs();
        assert!(
            error <= 5.5 * 0.655 / 20.0 * f64::from(x.abs()) + 1e-9,
            "{error} of {x}"
        );
    }
}

/// Forward and backward drop the same: the gradient predicts what a small step does to the loss.
#[test]
fn gradients_are_those_of_the_dropped_network() {
    let config = toy::config(3);
    let device = autodiff_device();
    let rates = DropoutRates {
        embedding: 0.1,
        attention_probabilities: 0.1,
        attention_output: 0.1,
        mlp: 0.1,
        ..DropoutRates::default()
    };
    let model = toy::build(|device| MaskedLm::new(&config, device).unwrap(), 5, &device);
    let masked = MaskedTokens::new(&[0, 5, 9, 20], &[4, 36, 0, 7], &[1.0; 4], &device);
    let loss = |model: &MaskedLm| {
        model
            .forward(&batch(&device, dropout(rates, 3)), &masked)
            .loss_sum
    };
    let grads = toy::gradients(&model, &loss(&model));
    let name = "model.layers.1.mlp.Wo.weight";
    let slope = &grads[name];
    let at = (0..slope.len())
        .max_by(|&a, &b| slope[a].abs().total_cmp(&slope[b].abs()))
        .unwrap();
    let moved = |step: f32| {
        let moved = toy::edit(model.clone(), |parameter, values| {
            if parameter == name {
                values[at] += step;
            }
        });
        f64::from(read(loss(&moved).inner())[0])
    };
    let found = (moved(1e-2) - moved(-1e-2)) / 2e-2;
    let expected = f64::from(slope[at]);
    assert!(
        (found - expected).abs() < 0.02 * expected.abs(),
        "{found} instead of {expected}"
    );
}

#[test]
fn a_classifier_trains_with_its_dropout() {
    let mut config = toy::config(3);
    config.classifier_dropout = 0.5;
    let device = autodiff_device();
    let model = toy::build(
        |device| SequenceClassifier::new(&config, 3, device).unwrap(),
        5,
        &device,
    );
    let labels = ClassificationLabels::Classes(vec![0, 1, 2]);
    let rates = dropout_rates(&config);
    let loss = |dropout| {
        read(
            model
                .forward(&batch(&device, dropout), &labels)
                .loss
                .inner(),
        )[0]
    };
    assert_ne!(loss(dropout(rates, 1)), loss(None));
    assert_eq!(loss(dropout(rates, 1)), loss(dropout(rates, 1)));
}
