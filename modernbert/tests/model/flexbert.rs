//! The matrix of architecture choices: every pair of choices in some model, and random triples.
//!
//! A combination either describes a model, which is then compared with an independent one in f64 (values, and gradients by finite differences), with the
//! specification's list of parameters, with itself without neighbours in the batch and with itself after saving and loading; or it is refused with an error
//! that names two settings.

use modernbert::Loader;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::save;
use modernbert::config::flexbert::{
    AttentionKind, BlockKind, EmbeddingKind, MlpKind, NormKind, RopeParameters, RopeScaling,
    RopeType,
};
use modernbert::config::{Activation, FlexOptions, LayerType, ModernBertConfig, Pooling};
use modernbert::model::{
    ClassificationLabels, MaskedLm, MaskedTokens, SequenceClassifier, named_parameters,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use test_support::{assert_close, bits, device, read, wide};

use crate::flex_reference::{FlexReference, Weights};
use crate::reference::pooled;
use crate::toy;

/// Changes a config to one value of a choice.
type Change = fn(&mut ModernBertConfig);

/// A choice and its values; the first value is the published one.
type Choice = (&'static str, Vec<(&'static str, Change)>);

fn flex(config: &mut ModernBertConfig) -> &mut FlexOptions {
    &mut config.flexbert
}

fn scaling(config: &mut ModernBertConfig, rope_type: RopeType) {
    let of_factor = |factor: f64| {
        Some(RopeScaling {
            rope_type,
            factor: Some(factor),
            original_max_position_embeddings: Some(6),
            beta_fast: (rope_type == RopeType::Yarn).then_some(0.9),
            beta_slow: (rope_type == RopeType::Yarn).then_some(0.1),
            ..RopeScaling::default()
        })
    };
    flex(config).rope_parameters = Some(RopeParameters {
        full_attention: of_factor(4.0),
        sliding_attention: of_factor(2.0),
    });
}

/// Activations as a choice: a value for each name that means a function of its own.
fn activations() -> Vec<(&'static str, Change)> {
    macro_rules! changes {
        ($($kind:ident),*) => { vec![$((stringify!($kind), |c| c.hidden_activation = Activation::$kind)),*] };
    }
    changes![
        Gelu,
        GeluTanh,
        Relu,
        Relu6,
        LeakyRelu,
        Prelu,
        Rrelu,
        Elu,
        Selu,
        Silu,
        Hardswish,
        Mish,
        Sigmoid,
        Hardsigmoid,
        Logsigmoid,
        Softplus,
        Tanh,
        Hardtanh,
        Tanhshrink,
        Hardshrink,
        Softshrink,
        Softsign,
        Softmin
    ]
}

#[rustfmt::skip]
fn choices() -> Vec<Choice> {
    vec![
        ("block", vec![
            ("prenorm", |_| ()),
            ("postnorm", |c| flex(c).bert_layer = Some(BlockKind::Postnorm)),
            ("parallel", |c| {
                flex(c).bert_layer = Some(BlockKind::ParallelPrenorm);
                flex(c).attention_layer = Some(AttentionKind::RopeParallel);
                flex(c).mlp_layer = Some(MlpKind::ParallelGlu);
            }),
        ]),
        ("attention", vec![
            ("rope", |_| ()),
            ("base", |c| {
                let parallel = flex(c).bert_layer == Some(BlockKind::ParallelPrenorm);
                flex(c).attention_layer = Some(if parallel { AttentionKind::Parallel } else { AttentionKind::Base });
            }),
        ]),
        ("mlp", vec![("glu", |_| ()), ("plain", |c| flex(c).mlp_layer = Some(MlpKind::Mlp))]),
        ("activation", activations()),
        ("norm", vec![
            ("layernorm", |_| ()),
            ("rmsnorm", |c| flex(c).normalization = Some(NormKind::Rmsnorm)),
            ("layernorm without weight", |c| flex(c).norm_scale = Some(false)),
            ("rmsnorm without weight", |c| {
                flex(c).normalization = Some(NormKind::Rmsnorm);
                flex(c).norm_scale = Some(false);
            }),
        ]),
        ("norm bias and eps", vec![
            ("none", |_| ()),
            ("bias, 1e-3", |c| (c.norm_bias, c.norm_eps) = (true, 1e-3)),
        ]),
        ("skip_first_prenorm", vec![
            ("default", |_| ()),
            ("true", |c| flex(c).skip_first_prenorm = Some(true)),
            ("false", |c| flex(c).skip_first_prenorm = Some(false)),
        ]),
        ("embed_norm", vec![("true", |_| ()), ("false", |c| flex(c).embed_norm = Some(false))]),
        ("final_norm", vec![
            ("default", |_| ()),
            ("true", |c| flex(c).final_norm = Some(true)),
            ("false", |c| flex(c).final_norm = Some(false)),
        ]),
        ("embedding", vec![
            ("sans_pos", |_| ()),
            ("absolute_pos", |c| flex(c).embedding_layer = Some(EmbeddingKind::AbsolutePos)),
            ("alibi", |c| flex(c).embedding_layer = Some(EmbeddingKind::Alibi)),
        ]),
        ("unpad_embeddings", vec![("default", |_| ()), ("true", |c| flex(c).unpad_embeddings = Some(true))]),
        ("rotary dim", vec![
            ("all", |_| ()),
            ("4", |c| flex(c).rotary_emb_dim = Some(4)),
            ("4, local 2", |c| {
                flex(c).rotary_emb_dim = Some(4);
                flex(c).local_attn_rotary_emb_dim = Some(2);
            }),
        ]),
        ("interleaved", vec![("false", |_| ()), ("true", |c| flex(c).rotary_emb_interleaved = Some(true))]),
        ("xpos", vec![("off", |_| ()), ("8", |c| flex(c).rotary_emb_scale_base = Some(8.0))]),
        ("scaling", vec![
            ("default", |_| ()),
            ("linear", |c| scaling(c, RopeType::Linear)),
            ("dynamic", |c| scaling(c, RopeType::Dynamic)),
            ("yarn", |c| scaling(c, RopeType::Yarn)),
        ]),
        ("layers", vec![
            ("every 2nd global", |_| ()),
            ("all global", |c| c.layer_types = vec![LayerType::Global; 3]),
            ("all local", |c| c.layer_types = vec![LayerType::Local; 3]),
            ("windows", |c| {
                c.layer_types = vec![LayerType::Local, LayerType::Local, LayerType::Global];
                flex(c).sliding_windows = Some(vec![2, 6, 0]);
            }),
        ]),
        ("softcap", vec![("off", |_| ()), ("1.5", |c| flex(c).attn_softcap = Some(1.5))]),
        ("key heads", vec![
            ("4", |_| ()),
            ("2", |c| flex(c).num_key_value_heads = Some(2)),
            ("1", |c| flex(c).num_key_value_heads = Some(1)),
            ("3", |c| flex(c).num_key_value_heads = Some(3)),
        ]),
        ("head_dim", vec![("hidden / heads", |_| ()), ("6", |c| flex(c).head_dim = Some(6))]),
        ("biases", vec![
            ("none", |_| ()),
            ("qkv", |c| flex(c).attn_qkv_bias = Some(true)),
            ("attention out", |c| flex(c).attn_out_bias = Some(true)),
            ("mlp in", |c| flex(c).mlp_in_bias = Some(true)),
            ("mlp out", |c| flex(c).mlp_out_bias = Some(true)),
        ]),
        ("first layers", vec![
            ("as the others", |_| ()),
            ("two postnorm", |c| {
                flex(c).num_initial_layers = Some(2);
                flex(c).initial_bert_layer = Some(BlockKind::Postnorm);
            }),
            ("plain mlp", |c| flex(c).initial_mlp_layer = Some(MlpKind::Mlp)),
            ("no rope", |c| flex(c).initial_attention_layer = Some(AttentionKind::Base)),
        ]),
        ("head", vec![
            ("published", |_| ()),
            ("without norm", |c| flex(c).head_pred_norm = Some(false)),
            ("bias and prelu", |c| {
                flex(c).head_pred_bias = Some(true);
                flex(c).head_pred_act = Some(Activation::Prelu);
            }),
        ]),
        ("loss", vec![
            ("cross-entropy", |_| ()),
            ("smoothed with z-loss", |c| {
                flex(c).label_smoothing = Some(0.1);
                flex(c).lse_square_scale = Some(0.01);
            }),
        ]),
    ]
}

/// Index of the value of each choice.
type Picks = Vec<usize>;

fn config_of(choices: &[Choice], picks: &Picks) -> ModernBertConfig {
    let mut config = ModernBertConfig {
        vocab_size: 11,
        local_attention: 4,
        max_position_embeddings: 9,
        global_rope_theta: 50.0,
        local_rope_theta: 20.0,
        ..toy::config(3).with_every_n(2)
    };
    (
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
    ) = (16, 4, 6);
    for ((_, values), pick) in choices.iter().zip(picks) {
        (values[*pick].1)(&mut config);
    }
    config
}

fn name_of(choices: &[Choice], picks: &Picks) -> String {
    let changed = choices.iter().zip(picks).filter(|(_, pick)| **pick > 0);
    let names: Vec<String> = changed
        .map(|((name, values), pick)| format!("{name}: {}", values[*pick].0))
        .collect();
    names.join("; ")
}

/// Names of settings, without those that are part of a longer one in the text.
fn settings_in(message: &str) -> usize {
    let known = [
        "attention_layer",
        "bert_layer",
        "mlp_layer",
        "final_norm",
        "embed_norm",
        "skip_first_prenorm",
        "embedding_layer",
        "unpad_embeddings",
        "rotary_emb_dim",
        "local_attn_rotary_emb_dim",
        "rotary_emb_interleaved",
        "rotary_emb_scale_base",
        "rope_parameters",
        "head_dim",
        "num_key_value_heads",
        "num_attention_heads",
        "mlp_in_bias",
        "attn_qkv_bias",
        "sliding_windows",
        "layer_types",
    ];
    let words: BTreeSet<&str> = message
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| known.contains(word))
        .collect();
    words.len()
}

fn assert_refused(choices: &[Choice], picks: &Picks) {
    let message = config_of(choices, picks)
        .validate()
        .unwrap_err()
        .to_string();
    assert!(
        settings_in(&message) >= 2,
        "{}: {message}",
        name_of(choices, picks)
    );
}

const SEQUENCES: [&[u32]; 2] = [&[1, 4, 9, 2, 7, 7, 3, 0], &[5, 10, 2, 8, 1]];
/// Labeled tokens of each sequence.
const LABELS: [&[(usize, u32)]; 2] = [&[(1, 6), (5, 2)], &[(0, 3), (4, 9)]];

fn reference_loss(config: &ModernBertConfig, weights: &Weights) -> f64 {
    let reference = FlexReference { config, weights };
    let of_sequence = |(ids, labels): (&&[u32], &&[(usize, u32)])| {
        reference.mlm_loss(&reference.encode(ids), labels)
    };
    SEQUENCES.iter().zip(&LABELS).map(of_sequence).sum()
}

/// Everything that holds for a model.
fn check(config: &ModernBertConfig, name: &str) {
    let device = device();
    let learning = device.clone().autodiff();
    let model = toy::build(
        |device| MaskedLm::new(config, device).unwrap(),
        5,
        &learning,
    );
    let spec = config.spec();
    let mut expected: Vec<_> = spec.encoder_tensors();
    expected
        .iter_mut()
        .for_each(|(name, _)| *name = format!("model.{name}"));
    expected.extend(spec.prediction.tensors(spec.hidden));
    expected.push(("decoder.bias".to_owned(), vec![spec.vocab]));
    assert_eq!(named_parameters(&model), expected, "{name}");
    let count: usize = expected
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    assert_eq!(config.mlm_parameters(), count as u64, "{name}");

    let values = toy::values(&model);
    let mut weights: Weights = values
        .iter()
        .map(|(name, values)| (name.clone(), wide(values)))
        .collect();
    let batch = PackedBatch::from_sequences(&SEQUENCES, &learning).unwrap();
    let reference = FlexReference {
        config,
        weights: &weights,
    };
    let states: Vec<f64> = SEQUENCES
        .iter()
        .flat_map(|ids| reference.encode(ids).concat())
        .collect();
    let found = read(model.model.forward(&batch));
    assert_close(&found, &states, 1e-4, &format!("hidden states, {name}"));
    let alone: Vec<f32> = SEQUENCES
        .iter()
        .flat_map(|ids| {
            read(
                model
                    .model
                    .forward(&PackedBatch::from_sequences(&[ids], &learning).unwrap()),
            )
        })
        .collect();
    assert_close(
        &alone,
        &wide(&found),
        1e-5,
        &format!("without neighbours, {name}"),
    );

    let first = [0, SEQUENCES[0].len()];
    let labeled = LABELS.iter().zip(first).flat_map(|(labels, first)| {
        labels
            .iter()
            .map(move |(row, label)| ((first + row) as u32, *label))
    });
    let (positions, labels): (Vec<u32>, Vec<u32>) = labeled.unzip();
    let masked = MaskedTokens::new(&positions, &labels, &[1.0; 4], &learning);
    let output = model.forward(&batch, &masked);
    let loss = reference_loss(config, &weights);
    assert_close(
        &read(output.loss_sum.clone()),
        &[loss],
        1e-4,
        &format!("loss, {name}"),
    );
    let gradients = toy::gradients(&model, &output.loss_sum);
    for (parameter, gradient) in &gradients {
        // The largest element, so that rounding is small beside it.
        let largest = |a: &(usize, &f32), b: &(usize, &f32)| a.1.abs().total_cmp(&b.1.abs());
        let Some((at, &slope)) = gradient.iter().enumerate().max_by(largest) else {
            continue;
        };
        let mut loss_at = |offset: f64| {
            let kept = weights[parameter][at];
            weights.get_mut(parameter).unwrap()[at] = kept + offset;
            let loss = reference_loss(config, &weights);
            weights.get_mut(parameter).unwrap()[at] = kept;
            loss
        };
        let step = 1e-5;
        let expected = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        let off = (f64::from(slope) - expected).abs();
        assert!(
            off <= 2e-3 * expected.abs() + 2e-5,
            "gradient of {parameter}[{at}], {name}: {slope}, by differences {expected}"
        );
    }

    let folder = tempfile::tempdir().unwrap();
    save(&model, config, folder.path()).unwrap();
    let loaded = MaskedLm::load(Loader::new(folder.path()).device(&device)).unwrap();
    let batch = PackedBatch::from_sequences(&SEQUENCES, &device).unwrap();
    let loaded_values = toy::values(&loaded);
    for (parameter, kept) in &values {
        let found = &loaded_values[parameter];
        assert_eq!(
            bits(found),
            bits(kept),
            "{parameter}, saved and loaded, {name}"
        );
    }
    let again = read(loaded.model.forward(&batch));
    assert_close(
        &again,
        &wide(&found),
        1e-5,
        &format!("saved and loaded, {name}"),
    );
}

/// A model with the picks and random other choices, where such a model exists; `None` if the picks are refused even with one other choice changed.
fn completed(choices: &[Choice], fixed: &[(usize, usize)], rng: &mut ChaCha8Rng) -> Option<Picks> {
    let valid = |picks: &Picks| config_of(choices, picks).validate().is_ok();
    let mut picks = vec![0; choices.len()];
    for &(choice, value) in fixed {
        picks[choice] = value;
    }
    let is_free = |choice: &usize| fixed.iter().all(|(other, _)| other != choice);
    if !valid(&picks) {
        let changes = (0..choices.len()).filter(is_free);
        let tried = changes
            .flat_map(|choice| (1..choices[choice].1.len()).map(move |value| (choice, value)));
        let mut repaired = tried.map(|(choice, value)| {
            let mut picks = picks.clone();
            picks[choice] = value;
            picks
        });
        picks = repaired.find(|picks| valid(picks))?;
    }
    for choice in (0..choices.len()).filter(is_free) {
        if picks[choice] > 0 {
            continue;
        }
        let value = rng.random_range(0..choices[choice].1.len());
        let kept = std::mem::replace(&mut picks[choice], value);
        if !valid(&picks) {
            picks[choice] = kept;
        }
    }
    Some(picks)
}

#[test]
fn every_pair_of_choices_is_a_model_or_refused() {
    let choices = choices();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut covered = BTreeSet::new();
    let (mut models, mut refusals) = (0, 0);
    for a in 0..choices.len() {
        for b in a + 1..choices.len() {
            for (x, y) in
                (0..choices[a].1.len()).flat_map(|x| (0..choices[b].1.len()).map(move |y| (x, y)))
            {
                let mut alone = vec![0; choices.len()];
                (alone[a], alone[b]) = (x, y);
                if config_of(&choices, &alone).validate().is_err() {
                    assert_refused(&choices, &alone);
                    refusals += 1;
                }
                if covered.contains(&(a, x, b, y)) {
                    continue;
                }
                let Some(picks) = completed(&choices, &[(a, x), (b, y)], &mut rng) else {
                    continue;
                };
                check(&config_of(&choices, &picks), &name_of(&choices, &picks));
                models += 1;
                for (i, p) in picks.iter().enumerate() {
                    covered.extend(
                        picks
                            .iter()
                            .enumerate()
                            .skip(i + 1)
                            .map(|(j, q)| (i, *p, j, *q)),
                    );
                }
            }
        }
    }
    println!(
        "{models} models, {} pairs in them, {refusals} pairs refused",
        covered.len()
    );
    assert!(models > 100 && refusals > 20);
}

#[test]
fn random_triples_of_choices_are_models_or_refused() {
    let choices = choices();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..60 {
        let mut picks = vec![0; choices.len()];
        for _ in 0..3 {
            let choice = rng.random_range(0..choices.len());
            picks[choice] = rng.random_range(0..choices[choice].1.len());
        }
        let config = config_of(&choices, &picks);
        match config.validate() {
            Ok(()) => check(&config, &name_of(&choices, &picks)),
            Err(_) => assert_refused(&choices, &picks),
        }
    }
}

#[test]
fn a_head_without_norm_pools_by_the_maximum() {
    let mut config = toy::config(2);
    flex(&mut config).pooling_type = Some(Pooling::Max);
    flex(&mut config).head_class_norm = Some(false);
    flex(&mut config).head_class_act = Some(Activation::Tanh);
    flex(&mut config).head_class_bias = Some(true);
    let model = toy::build(
        |device| SequenceClassifier::new(&config, 3, device).unwrap(),
        5,
        &device(),
    );
    let weights: Weights = toy::values(&model)
        .iter()
        .map(|(name, values)| (name.clone(), wide(values)))
        .collect();
    assert!(!weights.contains_key("head.norm.weight"));
    let reference = FlexReference {
        config: &config,
        weights: &weights,
    };
    let sequences: [&[u32]; 2] = [&[3, 1, 4, 1, 5], &[9]];
    let expected: Vec<f64> = sequences
        .iter()
        .flat_map(|ids| {
            let states = vec![pooled(&reference.encode(ids), Pooling::Max)];
            let mut z = reference.linear("head.dense", &states);
            z[0].iter_mut().for_each(|x| *x = x.tanh());
            reference.linear("classifier", &z).remove(0)
        })
        .collect();
    let batch = PackedBatch::from_sequences(&sequences, &device()).unwrap();
    assert_close(&read(model.logits(&batch)), &expected, 1e-5, "outputs");
    // The loss of one class with all of the target spread is the mean over the classes.
    flex(&mut config).label_smoothing = Some(0.5);
    let smoothed = toy::build(
        |device| SequenceClassifier::new(&config, 3, device).unwrap(),
        5,
        &device(),
    );
    let labels = ClassificationLabels::Classes(vec![2, 0]);
    let plain = read(model.forward(&batch, &labels).loss)[0];
    let all: f32 = [0, 1, 2]
        .map(|class| {
            read(
                model
                    .forward(&batch, &ClassificationLabels::Classes(vec![class; 2]))
                    .loss,
            )[0]
        })
        .iter()
        .sum();
    let found = read(smoothed.forward(&batch, &labels).loss)[0];
    assert!((found - (0.5 * plain + 0.5 * all / 3.0)).abs() < 1e-5);
}
