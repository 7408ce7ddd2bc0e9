//! `[model.flexbert]` and the keys of the architecture.

use super::*;
use modernbert::config::flexbert::{BlockKind, NormKind};
use modernbert::config::{Activation, LayerType};
use modernbert::model::InitMethod;

#[test]
fn every_choice_of_the_architecture_is_a_setting() {
    let text = "
run.total_tokens = 1_000_000
[model]
preset = '17m'
hidden_activation = 'silu'
norm_eps = 1e-6
init_method = 'mitchell'
init_small_embedding = true

[model.flexbert]
bert_layer = 'parallel_prenorm'
attention_layer = 'rope_parallel'
mlp_layer = 'parallel_glu'
normalization = 'rmsnorm'
rope_parameters = { full_attention = { rope_type = 'yarn', factor = 4.0 } }
";
    let recipe = Recipe::from_str(text, "x").unwrap();
    recipe.validate().unwrap();
    let config = recipe.model.config(4096).unwrap();
    assert_eq!(config.flexbert.bert_layer, Some(BlockKind::ParallelPrenorm));
    assert_eq!(config.hidden_activation, Activation::Silu);
    assert_eq!(config.norm_eps, 1e-6);
    assert_eq!(recipe.model.init_method, Some(InitMethod::Mitchell));
    let again = Recipe::from_str(&recipe.to_toml().unwrap(), "x").unwrap();
    assert_eq!(again, recipe);
    let set = |overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|s| (*s).to_owned()).collect();
        recipe.with_overrides(&overrides)
    };
    let changed = set(&[
        "model.flexbert.normalization=layernorm",
        "model.flexbert.rope_parameters=unset",
    ])
    .unwrap();
    assert_eq!(
        changed.model.flexbert.normalization,
        Some(NormKind::Layernorm)
    );
    assert_eq!(changed.model.flexbert.rope_parameters, None);
    assert_eq!(demo().model.flexbert, Default::default());
}

#[test]
fn unknown_and_contradictory_choices_are_named() {
    let complaint = |more: &str| {
        let text = format!("model.preset = '17m'\n{more}");
        let recipe = Recipe::from_str(&text, "r.toml");
        recipe
            .and_then(|recipe| recipe.validate())
            .unwrap_err()
            .to_string()
    };
    for (more, parts) in [
        (
            "model.flexbert.normalisation = 'rmsnorm'",
            &[
                "r.toml:2",
                "model.flexbert.normalisation",
                "the nearest is model.flexbert.normalization",
            ][..],
        ),
        (
            "model.flexbert.bert_layer = 'midnorm'",
            &["r.toml:2", "midnorm"],
        ),
        (
            "model.flexbert.final_norm = false",
            &["final_norm is false", "bert_layer prenorm"],
        ),
        (
            "model.init_small_embedding = true",
            &[
                "model.init_small_embedding is true",
                "model.init_method full_megatron",
            ],
        ),
        (
            "model.global_attn_every_n_layers = 2\nmodel.flexbert.sliding_windows = [0, 8, 8, 0, 8, 8, 0]",
            &[
                "model.global_attn_every_n_layers is 2",
                "model.flexbert.sliding_windows",
            ],
        ),
        (
            "model.flexbert.sliding_windows = [0, 8]",
            &[
                "model.flexbert.sliding_windows is a list of 2",
                "num_hidden_layers (7)",
            ],
        ),
        (
            "[[phase]]\nname = 'a'\nmodel.flexbert.normalization = 'rmsnorm'",
            &[
                "phase.a.model.flexbert.normalization",
                "the same in every phase",
            ],
        ),
        ("model.flexbert = 3", &["model.flexbert"]),
    ] {
        let message = complaint(more);
        for part in parts {
            assert!(message.contains(part), "{message}\nlacks\n{part}");
        }
    }
}

#[test]
fn windows_are_listed_by_layer() {
    let text = "model.preset = '17m'\nmodel.flexbert.sliding_windows = [8, 8, 0, 16, 0, 8, 8]";
    let config = Recipe::from_str(text, "x")
        .unwrap()
        .model
        .config(4096)
        .unwrap();
    let globals = config
        .layer_types
        .iter()
        .filter(|kind| **kind == LayerType::Global);
    assert_eq!(globals.count(), 2);
    assert_eq!(config.spec().layers[3].attention.half_window, Some(8));
}
