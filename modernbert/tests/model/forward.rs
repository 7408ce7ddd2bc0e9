//! The forward pass against the independent model, and with changes that must or must not change the output.

use burn::tensor::DType;
use modernbert::batch::{PackedBatch, int_tensor};
use modernbert::config::{Activation, ModernBertConfig};
use modernbert::model::{MaskedLm, ModernBert, Precision, initialize};

use crate::reference::Reference;
use crate::toy;
use test_support::{assert_close, bits, computes_in, device, ids, read, relative_rms_error, wide};

fn model(config: &ModernBertConfig) -> MaskedLm {
    toy::build(
        |device| MaskedLm::new(config, device).unwrap(),
        1,
        &device(),
    )
}

fn hidden(model: &MaskedLm, ids: &[u32]) -> Vec<f32> {
    let batch = PackedBatch::from_sequences(&[ids], &device()).unwrap();
    read(model.model.forward(&batch))
}

fn tokens(count: usize) -> Vec<u32> {
    ids(2, count, toy::VOCAB as u32)
}

/// Largest difference of two runs.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn hidden_states_and_logits_equal_the_independent_model() {
    for layers in [1, 2, 4] {
        let config = toy::config(layers);
        let model = model(&config);
        let weights = toy::values(&model);
        let reference = Reference {
            config: &config,
            weights: &weights,
        };
        for length in [1, 2, 23] {
            let ids = tokens(length);
            let expected = reference.encode(&ids).concat();
            assert_close(
                &hidden(&model, &ids),
                &expected,
                1e-5,
                &format!("{layers} layers, {length} tokens"),
            );
            let batch = PackedBatch::from_sequences(&[&ids], &device()).unwrap();
            let logits = model.logits(&batch, int_tensor(0..length as i32, &device()));
            assert_close(
                &read(logits),
                &reference.mlm_logits(&ids).concat(),
                1e-5,
                "logits",
            );
        }
    }
}

/// Two layers with weights of a usual size: within 1e-6 of the largest value in f32.
#[test]
fn two_layers_equal_the_independent_model_to_1e_6() {
    let config = toy::config(2);
    let model = toy::edit(model(&config), |name, values| {
        if !name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value *= 0.25);
        }
    });
    let weights = toy::values(&model);
    let reference = Reference {
        config: &config,
        weights: &weights,
    };
    for length in [1, 5, 23] {
        let ids = tokens(length);
        let expected = reference.encode(&ids).concat();
        assert_close(&hidden(&model, &ids), &expected, 1e-6, "hidden states");
    }
}

/// `Wqkv`'s rows are `[3, heads, head_dim]` and `attn.Wo`'s columns `[heads, head_dim]`: heads may change places in both, and a head
/// whose query rows are permuted is another head.
#[test]
fn heads_may_change_places_and_have_rows_of_their_own() {
    const HIDDEN: usize = 16;
    const HEAD: usize = 8;
    let config = toy::config(3);
    let original = model(&config);
    let ids = tokens(20);
    let before = hidden(&original, &ids);
    let swapped = toy::edit(original.clone(), |name, values| {
        if name.ends_with("attn.Wqkv.weight") {
            for part in values.chunks_mut(HIDDEN * HIDDEN) {
                part.rotate_left(HEAD * HIDDEN);
            }
        } else if name.ends_with("attn.Wo.weight") {
            values
                .chunks_mut(HIDDEN)
                .for_each(|row| row.rotate_left(HEAD));
        }
    });
    assert!(distance(&before, &hidden(&swapped, &ids)) < 1e-4);
    let other_layout = toy::edit(original.clone(), |name, values| {
        if name.ends_with("attn.Wqkv.weight") {
            values.rotate_left(HEAD * HIDDEN);
        } else if name.ends_with("attn.Wo.weight") {
            values
                .chunks_mut(HIDDEN)
                .for_each(|row| row.rotate_left(HEAD));
        }
    });
    assert!(distance(&before, &hidden(&other_layout, &ids)) > 1e-2);
    let permuted = toy::edit(original, |name, values| {
        if name.ends_with("attn.Wqkv.weight") {
            values[..HEAD * HIDDEN].rotate_left(HIDDEN);
        }
    });
    assert!(distance(&before, &hidden(&permuted, &ids)) > 1e-2);
}

#[test]
fn every_layer_kind_and_theta_is_the_configured_one() {
    let mut config = toy::config(3).with_every_n(2);
    (
        config.global_rope_theta,
        config.local_rope_theta,
        config.local_attention,
    ) = (50.0, 7.0, 4);
    let model = model(&config);
    let weights = toy::values(&model);
    let expected = Reference {
        config: &config,
        weights: &weights,
    }
    .encode(&tokens(20))
    .concat();
    assert_close(
        &hidden(&model, &tokens(20)),
        &expected,
        1e-5,
        "global, local, global",
    );
}

#[test]
fn biases_take_part_where_the_config_has_them() {
    let mut config = toy::config(2);
    (
        config.attention_bias,
        config.mlp_bias,
        config.classifier_bias,
    ) = (true, true, true);
    config.norm_bias = true;
    let model = model(&config);
    let weights = toy::values(&model);
    let expected = Reference {
        config: &config,
        weights: &weights,
    }
    .mlm_logits(&tokens(9))
    .concat();
    let batch = PackedBatch::from_sequences(&[tokens(9)], &device()).unwrap();
    assert_close(
        &read(model.logits(&batch, int_tensor(0..9, &device()))),
        &expected,
        1e-5,
        "logits",
    );
}

#[test]
fn swapping_the_thetas_changes_the_output() {
    let config = toy::config(4);
    let mut swapped = config.clone();
    (swapped.global_rope_theta, swapped.local_rope_theta) =
        (config.local_rope_theta, config.global_rope_theta);
    let ids = tokens(20);
    assert!(
        distance(
            &hidden(&model(&config), &ids),
            &hidden(&model(&swapped), &ids)
        ) > 1e-3
    );
}

#[test]
fn swapping_the_halves_of_wi_changes_the_output() {
    let config = toy::config(2);
    let swapped = toy::edit(model(&config), |name, values| {
        if name.ends_with("Wi.weight") {
            let half = values.len() / 2;
            values.rotate_left(half);
        }
    });
    assert!(
        distance(
            &hidden(&model(&config), &tokens(9)),
            &hidden(&swapped, &tokens(9))
        ) > 0.01
    );
}

#[test]
fn the_tanh_gelu_is_another_option_and_close() {
    let config = toy::config(2);
    let mut tanh = config.clone();
    tanh.hidden_activation = Activation::GeluTanh;
    let difference = distance(
        &hidden(&model(&config), &tokens(9)),
        &hidden(&model(&tanh), &tokens(9)),
    );
    assert!(difference > 1e-6 && difference < 0.02, "{difference}");
}

/// A layer whose output reveals its input. With `Wo Wv = P - 1` attention turns the embedding block's output x of a lone token into
/// P x, the MLP adds nothing, and the final norm returns `(P x - mean) / sqrt(var(P x) + eps)`.
fn probed(probe: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let config = toy::config(1);
    let width = config.hidden_size;
    let model = initialize(MaskedLm::new(&config, &device()).unwrap(), &config, 7);
    let model = toy::edit(model, |name, values| {
        if name.ends_with("Wqkv.weight") {
            values.fill(0.0);
            (0..width).for_each(|i| values[(2 * width + i) * width + i] = 1.0);
        } else if name.ends_with("attn.Wo.weight") {
            for (i, value) in values.iter_mut().enumerate() {
                let (row, column) = (i / width, i % width);
                *value = probe(row, column) - if row == column { 1.0 } else { 0.0 };
            }
        } else if name.ends_with("mlp.Wo.weight") {
            values.fill(0.0);
        }
    });
    let sequences: Vec<[u32; 1]> = (0..toy::VOCAB as u32).map(|id| [id]).collect();
    read(
        model
            .model
            .forward(&PackedBatch::from_sequences(&sequences, &device()).unwrap()),
    )
}

#[test]
fn the_embedding_block_has_mean_0_and_variance_1_at_init() {
    // P = sqrt(eps): what comes back has the mean square v / (v + 1) for a variance v.
    let scale = 1e-5f32.sqrt();
    for row in probed(|row, column| if row == column { scale } else { 0.0 }).chunks(16) {
        let mean_square = row.iter().map(|x| x * x).sum::<f32>() / 16.0;
        let variance = mean_square / (1.0 - mean_square);
        // Embeddings of deviation 0.0176 lose a few percent to eps.
        assert!((0.9..1.01).contains(&variance), "variance {variance}");
    }
    // P x = ± the mean of x, half the rows each: what comes back is the mean over sqrt(mean² + eps).
    let means = probed(|row, _| if row < 8 { 1.0 / 16.0 } else { -1.0 / 16.0 });
    assert!(
        means.iter().all(|m| m.abs() < 1e-3),
        "a mean of 1e-5 would show as 0.003"
    );
}

#[test]
fn scaling_an_embedding_changes_nothing() {
    let config = toy::config(4);
    let scaled = toy::edit(model(&config), |name, values| {
        if name.ends_with("tok_embeddings.weight") {
            values.iter_mut().for_each(|x| *x *= 64.0);
        }
    });
    let (before, after) = (
        hidden(&model(&config), &tokens(9)),
        hidden(&scaled, &tokens(9)),
    );
    assert!(
        distance(&before, &after) < 2e-3,
        "a norm follows the embedding"
    );
    assert!(
        distance(&before, &after) > 0.0,
        "the scale enters through eps alone"
    );
}

#[test]
fn local_layers_see_as_far_as_their_windows_add_up() {
    let config = toy::config(3).with_every_n(0);
    let model = model(&config);
    let before_ids = tokens(40);
    let mut after_ids = before_ids.clone();
    after_ids[20] = (after_ids[20] + 1) % toy::VOCAB as u32;
    let changed = |model: &MaskedLm| -> Vec<usize> {
        let (before, after) = (hidden(model, &before_ids), hidden(model, &after_ids));
        (0..40)
            .filter(|i| bits(&before[i * 16..][..16]) != bits(&after[i * 16..][..16]))
            .collect()
    };
    assert_eq!(
        changed(&model),
        (8..=32).collect::<Vec<_>>(),
        "three windows of four"
    );
    let global = toy::build(
        |device| MaskedLm::new(&toy::config(3), device).unwrap(),
        1,
        &device(),
    );
    assert_eq!(
        changed(&global),
        (0..40).collect::<Vec<_>>(),
        "one global layer sees everything"
    );
}

#[test]
fn an_empty_batch_has_no_hidden_states() {
    let encoder = toy::build(
        |device| ModernBert::new(&toy::config(2), device).unwrap(),
        1,
        &device(),
    );
    for sequences in [vec![], vec![vec![], vec![]]] {
        let batch = PackedBatch::from_sequences::<Vec<u32>>(&sequences, &device()).unwrap();
        assert_eq!(encoder.forward(&batch).dims(), [0, 16]);
    }
}

/// Eight bits of mantissa through four layers.
#[test]
fn bf16_products_stay_within_three_percent_of_f32() {
    if !computes_in(DType::BF16) {
        return;
    }
    let config = toy::config(4);
    let model = model(&config);
    let expected = hidden(&model, &tokens(30));
    let half = model.with_precision(Precision::Bf16);
    let batch = PackedBatch::from_sequences(&[tokens(30)], &device()).unwrap();
    let found = half.model.forward(&batch);
    assert_eq!(found.dtype(), DType::F32, "the residual stream stays f32");
    let error = relative_rms_error(&wide(&read(found)), &wide(&expected));
    assert!((1e-4..0.03).contains(&error), "{error}");
}

/// A residual stream in bf16 is another rounding of the same computation; the hidden states are f32 between all layers.
#[test]
fn a_bf16_residual_stream_stays_within_four_percent_of_f32() {
    if !computes_in(DType::BF16) {
        return;
    }
    let config = toy::config(4);
    let model = model(&config);
    let expected = hidden(&model, &tokens(30));
    let batch = PackedBatch::from_sequences(&[tokens(30)], &device()).unwrap();
    let half = model.model.with_precision(Precision::Bf16);
    let usual = read(half.forward(&batch));
    let half = half.with_half_residual(true);
    let found = half.forward(&batch);
    assert_eq!(found.dtype(), DType::F32);
    let found = read(found);
    let error = relative_rms_error(&wide(&found), &wide(&expected));
    assert!((1e-4..0.04).contains(&error), "{error}");
    assert!(distance(&found, &usual) > 0.0, "the option changes nothing");
    let states = half.hidden_states(&batch);
    assert!(states.iter().all(|state| state.dtype() == DType::F32));
    // Without half precision no residual stream is rounded.
    let full = half.with_precision(Precision::F32);
    assert_eq!(bits(&read(full.forward(&batch))), bits(&expected));
}
