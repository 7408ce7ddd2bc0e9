#![allow(clippy::unwrap_used)]

use super::*;
use crate::recipe::builtin;
use crate::schedule::{Schedule, TokenSpan};

/// A file with the keys of the published ones, of a phase of pretraining, in this project's words.
const FILE: &str = "\
max_seq_len: 1024
mlm_probability: 0.3
count_padding_tokens: false
run_name: one
model:
  name: flex_bert
  model_config:
    vocab_size: 50368
    init_method: full_megatron
    num_hidden_layers: 22
    hidden_size: 768
    intermediate_size: 1152
    num_attention_heads: 12
    attn_out_dropout_prob: 0.1
    loss_kwargs:
      reduction: mean
    norm_kwargs:
      eps: 1e-5
    rotary_emb_dim: null
    rotary_emb_base: 10000.0
    sliding_window: 128
    global_attn_every_n_layers: 3
train_loader:
  dataset:
    max_seq_len: ${max_seq_len}
    mlm_probability: ${mlm_probability}
    shuffle: true
  sequence_packing: true
  batch_size_warmup_min_size: ${device_train_microbatch_size}
  batch_size_warmup_tokens: 50_000_000_000tok
eval_loader:
  dataset:
    mlm_probability: 0.15
scheduler:
  name: warmup_stable_decay
  t_warmup: 3_000_000_000tok
  alpha_f: 0.00
  t_decay: 0tok
optimizer:
  name: decoupled_stableadamw
  lr: 8e-4
  betas:
  - 0.9
  - 0.98
  eps: 1.0e-06
  weight_decay: 1.0e-5
max_duration: 1_719_000_000_000tok
eval_interval: 4000ba
global_train_batch_size: 4608
seed: 17
device_train_microbatch_size: 96
precision: amp_bf16
console_log_interval: 100ba
callbacks:
  lr_monitor: {}
save_interval: 4000ba
save_num_checkpoints_to_keep: -1
";

fn outcome(converted: &Converted, key: &str) -> Outcome {
    let found = converted.keys.iter().find(|report| report.key == key);
    found.unwrap().outcome.clone()
}

#[test]
fn a_file_becomes_the_first_phase_of_the_built_in_recipe() {
    let converted = convert(FILE, "x.yaml", 8).unwrap();
    assert_eq!(converted.refused().count(), 0, "{:?}", converted.keys);
    let found = converted.recipe.phases().unwrap().remove(0).recipe;
    let base = builtin("base")
        .unwrap()
        .unwrap()
        .phases()
        .unwrap()
        .remove(0)
        .recipe;
    assert_eq!(
        found.model.config(50_368).unwrap(),
        base.model.config(50_368).unwrap()
    );
    assert_eq!(found.mask, base.mask);
    assert_eq!(found.dropout, base.dropout);
    assert_eq!(found.optimizer, base.optimizer);
    assert_eq!(found.batch, base.batch);
    assert_eq!(found.data.sequence_length, base.data.sequence_length);
    assert_eq!(found.data.long_documents, base.data.long_documents);
    assert_eq!(found.data_seed(), base.data_seed());
    let run = |recipe: &Recipe| {
        let run = &recipe.run;
        (
            run.total_tokens,
            run.seed,
            run.precision,
            run.eval_every_tokens,
        )
    };
    assert_eq!(run(&found), run(&base));
    assert_eq!(found.checkpoint.every_steps, base.checkpoint.every_steps);
    let total = base.run.total_tokens;
    for seen in [1, 1_500_000_000, 3_000_000_000, total / 2, total] {
        assert_eq!(
            found.schedule.factor(seen, total),
            base.schedule.factor(seen, total)
        );
    }
    assert_eq!(
        outcome(&converted, "train_loader.batch_size_warmup_min_size"),
        Outcome::Set(vec![
            "batch.warmup_from = 8".into(),
            "batch.warmup_step = 8".into()
        ])
    );
    assert!(matches!(
        outcome(&converted, "callbacks.lr_monitor"),
        Outcome::Ignored(_)
    ));
    assert_eq!(outcome(&converted, "count_padding_tokens"), Outcome::Same);
    // What is written is read back, and an override wins.
    let text = converted.recipe.to_toml().unwrap();
    let again = Recipe::from_str(&text, "x").unwrap();
    assert_eq!(again, converted.recipe);
    let other = again
        .with_overrides(&["optimizer.learning_rate=1e-4".to_string()])
        .unwrap();
    assert_eq!(other.optimizer.learning_rate, 1e-4);
    other.validate().unwrap();
}

#[test]
fn a_later_phase_has_its_schedule_and_its_bases() {
    let file = FILE
        .replace(
            "    rotary_emb_base: 10000.0\n",
            "    rotary_emb_base: 160000.0\n    local_attn_rotary_emb_base: 10000.0\n",
        )
        .replace(
            "  name: warmup_stable_decay\n  t_warmup: 3_000_000_000tok\n",
            "  name: one_minus_sqrt\n",
        )
        .replace("alpha_f: 0.00", "alpha_f: 0.001")
        .replace("t_decay: 0tok", "t_decay: ${max_duration}")
        .replace(
            "    shuffle: true\n",
            "    shuffle: true\n    shuffle_seed: 2998\n",
        );
    let converted = convert(&file, "x.yaml", 8).unwrap();
    assert_eq!(converted.refused().count(), 0, "{:?}", converted.keys);
    let recipe = converted.recipe;
    let bases = (
        recipe.model.global_rope_theta,
        recipe.model.local_rope_theta,
    );
    assert_eq!(bases, (Some(160_000.0), Some(10_000.0)));
    assert_eq!(
        recipe.schedule,
        Schedule::OneMinusSqrt {
            decay_tokens: TokenSpan::Fraction(1.0),
            final_fraction: 0.001
        }
    );
    assert_eq!(recipe.data.seed, Some(2998));
}

#[test]
fn a_file_names_its_update_rule() {
    for (name, kind) in [
        ("decoupled_stableadamw", "stable_adamw"),
        ("decoupled_adamw", "adamw"),
    ] {
        let file = FILE.replace("decoupled_stableadamw", name);
        let converted = convert(&file, "x.yaml", 8).unwrap();
        assert_eq!(
            outcome(&converted, "optimizer.name"),
            Outcome::Set(vec![format!("optimizer.kind = \"{kind}\"")])
        );
        assert_eq!(converted.recipe.optimizer.kind.name(), kind);
    }
}

#[test]
fn what_cant_be_expressed_is_refused_by_its_key() {
    for (from, to, key, why) in [
        (
            "run_name: one",
            "run_title: one",
            "run_title",
            "no such key",
        ),
        ("flex_bert", "mosaic_bert", "model.name", "only flex_bert"),
        (
            "count_padding_tokens: false",
            "count_padding_tokens: true",
            "count_padding_tokens",
            "only false",
        ),
        ("amp_bf16", "amp_fp16", "precision", "amp_bf16 and fp32"),
        (
            "eval_interval: 4000ba",
            "eval_interval: 2ep",
            "eval_interval",
            "neither in tokens",
        ),
        (
            "warmup_stable_decay",
            "zigzag",
            "scheduler.name",
            "no such schedule",
        ),
        (
            "global_train_batch_size: 4608",
            "global_train_batch_size: 4600",
            "global_train_batch_size",
            "no multiple",
        ),
        (
            "decoupled_stableadamw",
            "adamw",
            "optimizer.name",
            "only decoupled_stableadamw and decoupled_adamw",
        ),
        ("lr: 8e-4", "lr: high", "optimizer.lr", "no number"),
    ] {
        let converted = convert(&FILE.replace(from, to), "x.yaml", 8).unwrap();
        let refused: Vec<_> = converted.refused().collect();
        assert!(
            refused
                .iter()
                .any(|report| report.key == key && report.outcome.to_string().contains(why)),
            "{key}: {refused:?}"
        );
    }
    let error = convert("a:\n\tb: 1\n", "x.yaml", 8)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("x.yaml:2: "), "{error}");
}
