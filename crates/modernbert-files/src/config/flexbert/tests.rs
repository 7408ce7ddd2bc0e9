#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{LayerType, ModernBertConfig};
use serde_json::json;

fn toy(change: impl FnOnce(&mut FlexOptions)) -> ModernBertConfig {
    let mut config = ModernBertConfig::of_shape(4, 32, 24, 4);
    change(&mut config.flexbert);
    config
}

fn complaint(change: impl FnOnce(&mut FlexOptions)) -> String {
    toy(change).validate().unwrap_err().to_string()
}

fn parallel(flex: &mut FlexOptions) {
    flex.bert_layer = Some(BlockKind::ParallelPrenorm);
    flex.attention_layer = Some(AttentionKind::RopeParallel);
    flex.mlp_layer = Some(MlpKind::ParallelGlu);
}

#[test]
fn combinations_that_describe_no_model_are_refused_with_both_settings() {
    type Change = fn(&mut FlexOptions);
    let cases: [(Change, [&str; 2]); 22] = [
        (
            |f| f.final_norm = Some(false),
            ["final_norm is false", "bert_layer prenorm"],
        ),
        (
            |f| (f.final_norm, f.bert_layer) = (Some(true), Some(BlockKind::Postnorm)),
            ["final_norm is true", "bert_layer postnorm"],
        ),
        (
            |f| (f.skip_first_prenorm, f.embed_norm) = (Some(true), Some(false)),
            ["skip_first_prenorm is true", "embed_norm"],
        ),
        (
            |f| (f.skip_first_prenorm, f.bert_layer) = (Some(true), Some(BlockKind::Postnorm)),
            ["skip_first_prenorm is true", "bert_layer postnorm"],
        ),
        (
            |f| f.bert_layer = Some(BlockKind::ParallelPrenorm),
            ["attention_layer is rope", "bert_layer parallel_prenorm"],
        ),
        (
            |f| {
                parallel(f);
                f.mlp_layer = None;
            },
            ["mlp_layer is glu", "bert_layer parallel_prenorm"],
        ),
        (
            |f| f.mlp_layer = Some(MlpKind::ParallelGlu),
            ["mlp_layer is parallel_glu", "Wqkvff"],
        ),
        (
            |f| f.attention_layer = Some(AttentionKind::RopeParallel),
            ["attention_layer is rope_parallel", "bert_layer is prenorm"],
        ),
        (
            |f| {
                (f.unpad_embeddings, f.embedding_layer) =
                    (Some(true), Some(EmbeddingKind::AbsolutePos))
            },
            ["unpad_embeddings is true", "embedding_layer absolute_pos"],
        ),
        (
            |f| f.embedding_layer = Some(EmbeddingKind::Alibi),
            ["embedding_layer is alibi", "attention_layer rope"],
        ),
        (
            |f| (f.rotary_emb_dim, f.attention_layer) = (Some(4), Some(AttentionKind::Base)),
            ["rotary_emb_dim is given", "attention_layer base"],
        ),
        (
            |f| f.rotary_emb_dim = Some(10),
            ["rotary_emb_dim is 10", "head_dim 8"],
        ),
        (
            |f| f.rotary_emb_dim = Some(3),
            ["rotary_emb_dim is 3", "head_dim 8"],
        ),
        (
            |f| f.num_key_value_heads = Some(3),
            ["num_key_value_heads is 3", "num_attention_heads (4)"],
        ),
        (
            |f| {
                parallel(f);
                f.mlp_in_bias = Some(true);
            },
            ["mlp_in_bias is true", "attn_qkv_bias (false)"],
        ),
        (
            |f| f.sliding_windows = Some(vec![0, 4, 4, 4]),
            ["sliding_windows is 4 for layer 3", "layer_types"],
        ),
        (
            |f| f.sliding_windows = Some(vec![0, 4]),
            ["sliding_windows is a list of 2", "num_hidden_layers (4)"],
        ),
        (
            |f| (f.num_initial_layers, f.initial_mlp_layer) = (Some(0), Some(MlpKind::Mlp)),
            ["initial_mlp_layer is given", "num_initial_layers 0"],
        ),
        (
            |f| f.initial_attention_layer = Some(AttentionKind::Parallel),
            ["attention_layer is parallel", "bert_layer is prenorm"],
        ),
        (
            |f| {
                f.rope_parameters = Some(RopeParameters {
                    sliding_attention: Some(RopeScaling {
                        rope_type: RopeType::Yarn,
                        ..RopeScaling::default()
                    }),
                    full_attention: None,
                });
            },
            [
                "rope_parameters.sliding_attention is one with rope_type yarn",
                "factor",
            ],
        ),
        (
            |f| {
                f.rotary_emb_dim = Some(2);
                f.rope_parameters = Some(RopeParameters {
                    full_attention: Some(RopeScaling {
                        rope_type: RopeType::Dynamic,
                        factor: Some(2.0),
                        ..RopeScaling::default()
                    }),
                    sliding_attention: None,
                });
            },
            ["rope_type dynamic", "rotary_emb_dim"],
        ),
        (
            |f| f.pooling_type = Some(Pooling::WeightedMean),
            ["pooling_type is weightedmean", "max"],
        ),
    ];
    for (change, parts) in cases {
        let message = complaint(change);
        for part in parts {
            assert!(message.contains(part), "{message}\nlacks\n{part}");
        }
    }
}

#[test]
fn the_first_layers_may_differ() {
    let config = toy(|f| {
        f.num_initial_layers = Some(2);
        f.initial_bert_layer = Some(BlockKind::Postnorm);
        f.initial_mlp_layer = Some(MlpKind::Mlp);
        f.initial_attention_layer = Some(AttentionKind::Base);
    });
    config.validate().unwrap();
    let spec = config.spec();
    let found: Vec<_> = spec
        .layers
        .iter()
        .map(|layer| {
            (
                layer.block,
                layer.mlp.gated,
                layer.attention.rotary.is_some(),
            )
        })
        .collect();
    let (first, other) = (
        (BlockKind::Postnorm, false, false),
        (BlockKind::Prenorm, true, true),
    );
    assert_eq!(found, [first, first, other, other]);
    assert!(spec.final_norm.is_some());
    // A postnorm layer has no norm before attention: no norm is skipped.
    assert!(spec.layers[0].attention_norm);
}

#[test]
fn the_published_specification_is_that_of_no_options() {
    let spec = ModernBertConfig::base().spec();
    let norms: Vec<_> = spec
        .layers
        .iter()
        .map(|layer| layer.attention_norm)
        .collect();
    assert_eq!(norms.iter().filter(|norm| !**norm).count(), 1);
    assert!(!norms[0] && spec.embed_norm.is_some() && spec.final_norm.is_some());
    assert!(
        spec.composed_parts().is_empty(),
        "{:?}",
        spec.composed_parts()
    );
    let windows: Vec<_> = spec
        .layers
        .iter()
        .map(|layer| layer.attention.half_window)
        .collect();
    assert_eq!(windows[..4], [None, Some(64), Some(64), None]);
    assert_eq!(
        spec.layers[1].attention.rotary.as_ref().unwrap().theta,
        10_000.0
    );
}

#[test]
fn windows_are_of_each_layer() {
    let mut config = toy(|f| f.sliding_windows = Some(vec![6, 0, 2, 0]));
    config.layer_types = [1, 0, 1, 0]
        .map(|local| [LayerType::Global, LayerType::Local][local])
        .to_vec();
    config.check_trainable().unwrap();
    let halves: Vec<_> = config
        .spec()
        .layers
        .iter()
        .map(|layer| layer.attention.half_window)
        .collect();
    assert_eq!(halves, [Some(3), None, Some(1), None]);
    let written = config.to_json_string();
    assert_eq!(
        ModernBertConfig::from_json_str(&written, "x").unwrap(),
        config
    );
    let read = ModernBertConfig::from_json_str(
        &json!({"num_hidden_layers": 2, "flexbert": {"sliding_windows": [4, 0]}}).to_string(),
        "x",
    );
    assert_eq!(
        read.unwrap().layer_types,
        [LayerType::Local, LayerType::Global]
    );
}

#[test]
fn files_have_the_choices_that_were_given_and_no_others() {
    let config = toy(|f| {
        parallel(f);
        f.normalization = Some(NormKind::Rmsnorm);
        f.head_class_act = Some(Activation::Prelu);
        f.pooling_type = Some(Pooling::Max);
        f.rope_parameters = Some(RopeParameters {
            full_attention: Some(RopeScaling {
                rope_type: RopeType::Yarn,
                factor: Some(4.0),
                original_max_position_embeddings: Some(64),
                ..RopeScaling::default()
            }),
            sliding_attention: None,
        });
    });
    let text = config.to_json_string();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["model_type"], "flexbert");
    assert_eq!(
        value["flexbert"],
        json!({
            "bert_layer": "parallel_prenorm", "attention_layer": "rope_parallel", "mlp_layer": "parallel_glu",
            "normalization": "rmsnorm", "head_class_act": "prelu", "pooling_type": "max",
            "rope_parameters": {
                "full_attention": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
            }
        })
    );
    assert_eq!(ModernBertConfig::from_json_str(&text, "x").unwrap(), config);
    // Choices equal to the published ones do not change the file.
    let same = toy(|f| (f.normalization, f.embed_norm) = (Some(NormKind::Layernorm), Some(true)));
    assert_eq!(same.to_json_string(), toy(|_| ()).to_json_string());
    let complaint = |value: serde_json::Value| {
        ModernBertConfig::from_json_str(&value.to_string(), "x")
            .unwrap_err()
            .to_string()
    };
    for (value, part) in [
        (
            json!({"flexbert": {"norm": "rmsnorm"}}),
            "unknown field `norm`",
        ),
        (json!({"flexbert": {"bert_layer": "midnorm"}}), "midnorm"),
        (
            json!({"flexbert": {"head_class_act": "snake"}}),
            "\"snake\" is no activation",
        ),
        (
            json!({"flexbert": {"final_norm": false}}),
            "x: final_norm is false",
        ),
    ] {
        let message = complaint(value);
        assert!(message.contains(part), "{message}\nlacks\n{part}");
    }
}

#[test]
fn scaling_is_read_as_transformers_writes_it() {
    let config = ModernBertConfig::from_json_str(
        &json!({"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 70.0}
        }})
        .to_string(),
        "x",
    )
    .unwrap();
    assert_eq!(
        (config.global_rope_theta, config.local_rope_theta),
        (5000.0, 70.0)
    );
    let spec = config.spec();
    let rotary = spec.layers[0].attention.rotary.clone().unwrap();
    assert_eq!(rotary.scaling.factor, Some(8.0));
    let (scaled, _) = rotary.frequencies(1);
    assert_eq!(scaled[0], 0.125);
    let local = spec.layers[1].attention.rotary.as_ref().unwrap();
    assert_eq!(local.scaling, RopeScaling::default());
}

#[test]
fn slopes_of_alibi_are_the_published_ones() {
    let halves = |n: i32| (1..=n).map(|i| 0.5f64.powi(i)).collect::<Vec<_>>();
    assert_eq!(alibi_slopes(8), halves(8));
    let sixteen: Vec<f64> = (1..=16).map(|i| 2f64.powf(-0.5 * f64::from(i))).collect();
    assert_eq!(alibi_slopes(16), sixteen);
    let mut twelve = halves(8);
    twelve.extend([0.5, 1.5, 2.5, 3.5].map(|x| 2f64.powf(-x)));
    assert_eq!(alibi_slopes(12), twelve);
    assert!(alibi_slopes(0).is_empty());
}

#[test]
fn elements_of_a_head_are_ordered_by_pairs() {
    let spec = |dim, interleaved| RotarySpec {
        theta: 10_000.0,
        dim,
        head_dim: 8,
        interleaved,
        scale_base: None,
        scaling: RopeScaling::default(),
        original_max: 16,
    };
    assert_eq!(spec(8, false).element_order(), None);
    assert_eq!(
        spec(8, true).element_order().unwrap(),
        [0, 2, 4, 6, 1, 3, 5, 7]
    );
    assert_eq!(
        spec(4, false).element_order().unwrap(),
        [0, 1, 4, 5, 2, 3, 6, 7]
    );
    assert_eq!(
        spec(4, true).element_order().unwrap(),
        [0, 2, 4, 5, 1, 3, 6, 7]
    );
}

#[test]
fn counts_follow_the_choices() {
    let count = |change: fn(&mut FlexOptions)| toy(change).encoder_parameters();
    let (hidden, inner, layers) = (32, 24, 4);
    let published = count(|_| ());
    assert_eq!(
        published - count(|f| f.mlp_layer = Some(MlpKind::Mlp)),
        layers * hidden * inner
    );
    // One norm less in each layer.
    assert_eq!(published - count(parallel), layers * hidden);
    // Keys and values of one head instead of four.
    let fewer = count(|f| f.num_key_value_heads = Some(1));
    assert_eq!(published - fewer, layers * hidden * 2 * 24);
    let scaleless = count(|f| f.norm_scale = Some(false));
    assert_eq!(published - scaleless, (2 * layers + 1) * hidden);
    let config = toy(|f| f.embedding_layer = Some(EmbeddingKind::AbsolutePos));
    assert_eq!(
        config.encoder_parameters() - published,
        hidden * config.max_position_embeddings as u64
    );
    let wide = toy(|f| f.head_dim = Some(16));
    assert_eq!(
        wide.attention_flops(&[5]),
        2 * toy(|_| ()).attention_flops(&[5])
    );
    assert_eq!(
        toy(|_| ()).linear_flops_per_token()
            - toy(|f| f.mlp_layer = Some(MlpKind::Mlp)).linear_flops_per_token(),
        2 * layers * hidden * inner
    );
}

#[test]
fn every_choice_is_known_by_name() {
    for key in FlexOptions::KEYS {
        let null = json!({ key: null });
        assert_eq!(
            serde_json::from_value::<FlexOptions>(null).unwrap(),
            FlexOptions::default()
        );
    }
    let error = serde_json::from_value::<FlexOptions>(json!({"other": null})).unwrap_err();
    let known = error.to_string().matches('`').count() / 2 - 1;
    assert_eq!(known, FlexOptions::KEYS.len(), "{error}");
}

#[test]
fn numbers_beyond_f32_and_choices_without_effect_are_refused() {
    type Change = fn(&mut FlexOptions);
    let cases: [(Change, &str); 7] = [
        (|f| f.attn_softcap = Some(1e-300), "attn_softcap is 1e-300"),
        (|f| f.attn_softcap = Some(1e300), "attn_softcap is 1e300"),
        (
            |f| f.rotary_emb_scale_base = Some(1e-300),
            "rotary_emb_scale_base is 1e-300",
        ),
        (
            |f| f.rotary_emb_scale_base = Some(8.0),
            "a sequence of max_position_embeddings (8192) tokens overflows f32",
        ),
        (
            |f| f.lse_square_scale = Some(1e300),
            "lse_square_scale is 1e300",
        ),
        (
            |f| f.label_smoothing = Some(0.999_999_999_999),
            "label_smoothing",
        ),
        (
            |f| f.num_initial_layers = Some(2),
            "num_initial_layers is 2",
        ),
    ];
    for (change, said) in cases {
        let message = complaint(change);
        assert!(message.contains(said), "{message}");
    }
}
