#![allow(clippy::unwrap_used)]

use super::*;
use crate::optim::{DecoupledAdamW, StableAdamWConfig, UpdateRule};
use crate::schedule::{DecayShape, TokenSpan};
use proptest::prelude::*;
use std::collections::BTreeSet;

const DEMO: &str = include_str!("../../../recipes/demo.toml");

mod flexbert;
mod messages;
mod phases;
mod sources;

fn demo() -> Recipe {
    Recipe::from_str(DEMO, "demo.toml").unwrap()
}

fn set(overrides: &[&str]) -> Result<Recipe, RecipeError> {
    demo().with_overrides(
        &overrides
            .iter()
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>(),
    )
}

fn complaint(overrides: &[&str]) -> String {
    set(overrides)
        .and_then(|recipe| recipe.validate())
        .unwrap_err()
        .to_string()
}

#[test]
fn clipping_with_stable_adamw_gives_a_warning() {
    let recipe = |more: &str| {
        let text = format!("model.preset = '17m'\nrun.total_tokens = 1_000_000\n{more}");
        Recipe::from_str(&text, "x").unwrap()
    };
    assert!(recipe("").warnings().is_empty());
    let warnings = recipe("[optimizer]\nmax_grad_norm = 1.0").warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("optimizer.max_grad_norm is 1"),
        "{warnings:?}"
    );
    for (setting, key) in [
        ("skip_spikes = 0.0", "optimizer.skip_spikes"),
        ("spike_window = 1", "optimizer.spike_window"),
    ] {
        let recipe = recipe(&format!("[optimizer]\n{setting}"));
        let message = recipe.validate().unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn the_update_rule_is_a_setting() {
    let given = "optimizer.beta1=0.8 optimizer.beta2=0.95 optimizer.epsilon=1e-8 optimizer.weight_decay=1e-3 optimizer.learning_rate=2e-3 \
                 optimizer.max_lr=4e-3 optimizer.max_grad_norm=1.0 optimizer.skip_spikes=6.0 optimizer.spike_window=50";
    let given: Vec<&str> = given.split_whitespace().collect();
    let with = |kind: &str| {
        let kind = format!("optimizer.kind={kind}");
        set(&[&given[..], &[&kind]].concat()).unwrap()
    };
    // The recipes of earlier versions have no such key, and their text, of which runs keep the hash, is the same.
    let before = set(&given).unwrap();
    assert_eq!(before, with("stable_adamw"));
    assert!(
        !before
            .to_toml()
            .unwrap()
            .contains("kind = \"stable_adamw\"")
    );
    let stable = StableAdamWConfig {
        beta1: 0.8,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 1e-3,
        max_lr: 4e-3,
    };
    assert_eq!(before.update_rule(), UpdateRule::StableAdamW(stable));

    // AdamW reads the same settings, and clipping is meant beside it.
    let adamw = with("adamw");
    let rule = DecoupledAdamW {
        beta1: 0.8,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 1e-3,
        initial_lr: 4e-3,
    };
    assert_eq!(adamw.update_rule(), UpdateRule::DecoupledAdamW(rule));
    adamw.validate().unwrap();
    adamw.check_used().unwrap();
    assert_eq!(
        (before.warnings().len(), adamw.warnings()),
        (1, Vec::<String>::new())
    );
    let again = Recipe::from_str(&adamw.to_toml().unwrap(), "x").unwrap();
    assert_eq!(again, adamw);
    let peak = set(&["optimizer.kind=adamw", "optimizer.learning_rate=2e-3"]).unwrap();
    assert!(
        matches!(peak.update_rule(), UpdateRule::DecoupledAdamW(rule) if rule.initial_lr == 2e-3)
    );

    let message = set(&["optimizer.kind=adam"]).unwrap_err().to_string();
    assert!(
        message.contains("--set optimizer.kind=adam")
            && message.contains("`stable_adamw` or `adamw`"),
        "{message}"
    );
}

#[test]
fn averages_and_ramps_are_checked() {
    let off = set(&[]).unwrap();
    assert_eq!(off.average(), None);
    assert_eq!(off.length_warmup(), None);
    let config = off.model.config(4096).unwrap();
    assert_eq!(off.model.rotary_ramp(&config, off.run.total_tokens), None);
    let base = "model.global_rope_theta=160_000.0";
    let on = set(&[
        "ema.half_life_steps=1000",
        "ema.every_steps=100",
        "run.total_tokens=1_000_000",
        "data.length_warmup_tokens='10%'",
        "model.rope_warmup_tokens='20%'",
        base,
    ])
    .unwrap();
    on.validate().unwrap();
    let config = on.model.config(4096).unwrap();
    let average = on.average().unwrap();
    assert_eq!((average.every, average.evaluate), (100, true));
    assert!((average.kept() - 0.933_032_991_536_807).abs() < 1e-15);
    let warmup = on.length_warmup().unwrap();
    assert_eq!(
        (warmup.from, warmup.to, warmup.step),
        (64, on.data.sequence_length, 8)
    );
    assert_eq!(warmup.tokens, 100_000);
    let ramp = on.model.rotary_ramp(&config, 1_000_000).unwrap();
    assert_eq!(
        (ramp.from, ramp.step, ramp.tokens),
        (10_000.0, 10_000.0, 200_000)
    );
    assert_eq!(ramp.to, 160_000.0);
    for (settings, said) in [
        (
            &["ema.half_life_steps=0"][..],
            "ema.half_life_steps is 0; set a positive number",
        ),
        (&["ema.half_life_steps=-3.5"], "ema.half_life_steps is -3.5"),
        (
            &["ema.every_steps=0"],
            "ema.every_steps is 0; set 1 or more",
        ),
        (
            &["data.length_warmup_tokens=100", "data.length_warmup_step=0"],
            "data.length_warmup_step is 0; set 1 or more",
        ),
        (
            &["data.length_warmup_tokens=100", "data.length_warmup_from=7"],
            "data.length_warmup_from is 7; set 8 or more",
        ),
        (
            &["model.rope_warmup_from=20_000.0"],
            "model.rope_warmup_from is 20000; it belongs to a ramp of the rotary base",
        ),
        (
            &[
                "model.rope_warmup_tokens=100",
                "model.rope_warmup_from=160_000.0",
                base,
            ],
            "model.rope_warmup_from is 160000; the base rises to model.global_rope_theta (160000)",
        ),
        (
            &["model.rope_warmup_tokens=100", "model.rope_warmup_step=0.0"],
            "model.rope_warmup_step is 0; set a positive number",
        ),
        (
            &["model.rope_warmup_tokens=9_000_000_000", base],
            "model.rope_warmup_tokens is 9000000000; it exceeds run.total_tokens",
        ),
    ] {
        let message = complaint(settings);
        assert!(message.contains(said), "{message}");
    }
    // Each phase has its own ramp.
    let text = "model.preset = '17m'\nmodel.global_rope_theta = 10_000.0\n[[phase]]\nname = 'a'\nrun.total_tokens = 1_000_000\n\
                [[phase]]\nname = 'b'\nrun.total_tokens = 1_000_000\nmodel.global_rope_theta = 160_000.0\nmodel.rope_warmup_tokens = '50%'\n\
                ema.half_life_steps = 10.0";
    let recipe = Recipe::from_str(text, "x").unwrap();
    recipe.validate().unwrap();
    let phases = recipe.phases().unwrap();
    assert_eq!(phases[0].recipe.model.rope_warmup_tokens, None);
    assert_eq!(
        phases[1].recipe.model.rope_warmup_tokens,
        Some(TokenSpan::Fraction(0.5))
    );
    assert!(phases[0].recipe.average().is_none() && phases[1].recipe.average().is_some());
}

#[test]
fn the_recipes_in_the_folder_are_good() {
    for name in builtin_names() {
        let recipe = builtin(name).unwrap().unwrap();
        recipe
            .validate()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            Recipe::from_str(&recipe.to_toml().unwrap(), "x").unwrap(),
            recipe
        );
    }
    let config = demo().model.config(4096).unwrap();
    assert_eq!(
        (config.head_dim(), config.half_window(), config.vocab_size),
        (64, 64, 4096)
    );
    assert_eq!(demo().tokens_per_step(), 2048);
    assert_eq!(demo().schedule, Schedule::default());
}

#[test]
fn the_sections_are_those_of_the_keys() {
    let of_keys: std::collections::BTreeSet<&str> = super::set::KEYS
        .iter()
        .filter_map(|key| Some(key.split_once('.')?.0))
        .collect();
    assert_eq!(of_keys, SECTIONS.into_iter().collect());
}

#[test]
fn two_lines_are_a_recipe() {
    let recipe =
        Recipe::from_str("model.preset = '17m'\nrun.total_tokens = 1_000_000", "x").unwrap();
    recipe.validate().unwrap();
    assert_eq!(
        (recipe.data.corpus.clone(), recipe.data.tokenizer.clone()),
        (CorpusSource::Registry, TokenizerSource::Train)
    );
    assert_eq!(
        (recipe.run.seed, recipe.run.precision),
        (17, TrainingPrecision::F32)
    );
    // Of the paper: 30 % of the tokens are predicted in training, 15 % in evaluation.
    assert_eq!((recipe.mask.train, recipe.mask.eval), (0.3, 0.15));
    let config = recipe.model.config(4000).unwrap();
    assert_eq!(
        (config.hidden_size, config.vocab_size, config.pad_token_id),
        (256, 4032, None)
    );
}

#[test]
fn the_list_of_keys_is_the_structs() {
    let all = [
        "model.preset=17m",
        "model.vocab_size=4096",
        "model.tile_from=x",
        "model.from=x",
        "model.tiling=edge",
        "model.attention_bias=true",
        "model.classifier_activation=silu",
        "model.classifier_bias=true",
        "model.decoder_bias=false",
        "model.hidden_activation=silu",
        "model.init_method=mitchell",
        "model.init_small_embedding=true",
        "model.initializer_cutoff_factor=3",
        "model.mlp_bias=true",
        "model.norm_bias=true",
        "model.norm_eps=1e-6",
        "model.tie_word_embeddings=false",
        "data.max_train_bytes=1",
        "run.max_seconds=1",
        "run.read_every_steps=1",
        "data.seed=1",
        "data.eval_corpus=x",
        "ema.half_life_steps=1",
        "model.rope_warmup_from=1",
        "model.rope_warmup_step=1",
        "model.rope_warmup_tokens=1",
        "optimizer.kind=adamw",
        "optimizer.max_lr=1",
        "optimizer.max_grad_norm=1",
        "optimizer.skip_spikes=6",
        "checkpoint.every_steps=1",
        "checkpoint.keep_every_steps=1",
    ];
    let keys = |overrides: &[&str]| {
        let table = toml::Table::try_from(set(overrides).unwrap()).unwrap();
        set::dotted(&table)
    };
    let mut found: BTreeSet<_> = keys(&all).into_iter().collect();
    // Only this schedule has the cosine's keys.
    found.extend(keys(&["schedule.kind=cosine_inverse_sqrt"]));
    assert_eq!(found, set::KEYS.iter().map(|k| (*k).to_owned()).collect());
}

#[test]
fn overrides_replace_values() {
    let recipe = set(&[
        "optimizer.learning_rate=1e-3",
        "run.precision=bf16",
        "run.max_seconds=unset",
        "data.corpus=/some/text",
        "schedule.warmup_tokens=7%",
        "schedule.kind=constant",
        "optimizer.weight_decay = 0",
        "data.tokenizer='a b'",
    ]);
    let recipe = recipe.unwrap();
    assert_eq!(recipe.optimizer.learning_rate, 1e-3);
    assert_eq!(
        (recipe.run.precision, recipe.run.max_seconds),
        (TrainingPrecision::Bf16, None)
    );
    assert_eq!(
        recipe.data.corpus,
        CorpusSource::Paths(vec!["/some/text".into()])
    );
    assert_eq!(recipe.data.tokenizer, TokenizerSource::Path("a b".into()));
    assert_eq!(
        recipe.schedule,
        Schedule::Constant {
            warmup_tokens: TokenSpan::Fraction(0.07)
        }
    );
    assert_eq!(recipe.optimizer.weight_decay, 0.0);
    let paths = set(&["data.corpus=['a', 'b']", "schedule.decay=linear"]).unwrap();
    assert_eq!(
        paths.data.corpus,
        CorpusSource::Paths(vec!["a".into(), "b".into()])
    );
    assert!(matches!(
        paths.schedule,
        Schedule::WarmupStableDecay {
            decay: DecayShape::Linear,
            ..
        }
    ));
}

#[test]
fn an_empty_override_removes_nothing() {
    for key in set::KEYS.iter().copied().chain([
        "model.flexbert.normalization",
        "phase.decay.run.max_seconds",
    ]) {
        for text in [format!("{key}="), format!("{key} =  ")] {
            let message = complaint(&[&text]);
            let said = format!("--set {key}=: the value is empty; give one, or write {key}=unset");
            assert!(message.starts_with(&said), "{message}");
        }
    }
    // `unset` restores the default; in quotes it is a value.
    let default = Recipe::from_str("model.preset = '17m'", "x").unwrap();
    let recipe = set(&["data.corpus=/some/text", "data.corpus=unset"]).unwrap();
    assert_eq!(recipe.data.corpus, default.data.corpus);
    let recipe = set(&["data.tokenizer=\"unset\""]).unwrap();
    assert_eq!(recipe.data.tokenizer, TokenizerSource::Path("unset".into()));
}

#[test]
fn an_override_that_does_not_fit_is_explained() {
    let cases: [(&[&str], &str); 8] = [
        (
            &["optimizer.learning_rat=1"],
            "no setting optimizer.learning_rat; the nearest is optimizer.learning_rate",
        ),
        (
            &["learning_rate=1"],
            "the nearest is optimizer.learning_rate",
        ),
        (&["optimizer.learning_rate"], "write it as key=value"),
        (
            &["run.total_tokens=many"],
            "--set run.total_tokens=many: found the text",
        ),
        (&["run.total_tokens=2.5"], "--set run.total_tokens=2.5"),
        (
            &["run.total_tokens=unset"],
            "run.total_tokens is missing or 0; give it",
        ),
        (&["data.long_documents=drop"], "`split` or `truncate`"),
        (
            &["schedule.kind=constant", "schedule.decay_tokens=5"],
            "no meaning for kind = \"constant\"",
        ),
    ];
    for (overrides, expected) in cases {
        let message = complaint(overrides);
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
}

#[test]
fn a_mistake_in_a_file_is_shown_with_its_line() {
    let edited = |from: &str, to: &str| {
        assert!(DEMO.contains(from));
        Recipe::from_str(&DEMO.replace(from, to), "my.toml")
            .unwrap_err()
            .to_string()
    };
    let cases = [
        (
            edited("seed = 17", "sed = 17"),
            "there is no setting run.sed; the nearest are data.seed, run.seed",
        ),
        (edited("[mask]", "[masks]"), "no setting masks."),
        (edited("seed = 17", "seed = 'x'"), "seed = 'x'"),
        (edited("beta1 = 0.9", "beta1 = "), "(`beta1 =`)"),
        (edited("\"5%\"", "\"5\""), "warmup_tokens = \"5\""),
        (
            edited("corpus = \"registry\"", "corpus = 5"),
            "expected \"registry\", a path, or a list of paths",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
        let place = message.split(": ").next().unwrap();
        let line = place.strip_prefix("my.toml:").unwrap();
        assert!(line.parse::<usize>().unwrap() > 3, "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let missing = Recipe::from_file("/nonexistent/r.toml")
        .unwrap_err()
        .to_string();
    assert!(missing.starts_with("/nonexistent/r.toml: "));
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    let cases: [(&[&str], &str); 21] = [
        (
            &["batch.tokens=256"],
            "batch.tokens is 256; it must be at least data.sequence_length (512)",
        ),
        (
            &["data.sequence_length=1024"],
            "model.max_position_embeddings (512)",
        ),
        (
            &["run.total_tokens=100"],
            "run.total_tokens is 100; one step takes 2048",
        ),
        (&["mask.train=0"], "mask.train is 0"),
        (
            &["optimizer.learning_rate=-1"],
            "optimizer.learning_rate is -1",
        ),
        (
            &["optimizer.learning_rate=nan"],
            "optimizer.learning_rate is NaN",
        ),
        (&["optimizer.beta2=1"], "optimizer.beta2 is 1"),
        (&["optimizer.weight_decay=1"], "optimizer.weight_decay is 1"),
        (&["batch.micro_batches=0"], "batch.micro_batches is 0"),
        (&["run.log_every_steps=0"], "run.log_every_steps is 0"),
        (&["schedule.warmup_tokens=80%"], "shorten one of them"),
        (
            &["model.num_hidden_layers=5"],
            "[model]: num_hidden_layers is 5",
        ),
        (
            &["model.num_hidden_layers=9223372036854775807"],
            "[model]: num_hidden_layers is 9223372036854775807",
        ),
        (
            &["model.hidden_size=unset"],
            "model.hidden_size is missing; give it, or name a model.preset",
        ),
        (
            &["model.preset=tiny"],
            "[model]: there is no preset \"tiny\"",
        ),
        (
            &["model.vocab_size=4000"],
            "model.vocab_size is 4000; the tokenizer has 4096 ids",
        ),
        (
            &["model.global_attn_every_n_layers=0"],
            "set it to 1 or more",
        ),
        (&["data.tokenizer_vocab=100"], "data.tokenizer_vocab is 100"),
        (&["data.corpus=[]"], "data.corpus is an empty list"),
        (&["dropout.mlp=1"], "dropout.mlp is 1"),
        (&["data.loader_threads=0"], "data.loader_threads is 0"),
    ];
    for (overrides, expected) in cases {
        let message = complaint(overrides);
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
}

proptest! {
    #[test]
    fn no_override_panics(text in "[ -~\n]{0,40}", key in 0..set::KEYS.len()) {
        let _ = demo().with_overrides(&[text.clone(), format!("{}={text}", set::KEYS[key])]);
        if let Ok(recipe) = demo().with_overrides(&[format!("{}={text}", set::KEYS[key])]) {
            let _ = recipe.validate();
        }
        let _ = Recipe::from_str(&text, "x");
    }
}

const PHASES: &str = "
model.preset = '17m'
model.global_rope_theta = 10_000.0
data.sequence_length = 256
[[phase]]
name = 'first'
run.total_tokens = 1_000_000
[[phase]]
name = 'second'
model.global_rope_theta = 160_000.0
schedule.kind = 'one_minus_sqrt'
optimizer.learning_rate = 1e-4
run = { total_tokens = 500_000, eval_every_tokens = 100_000 }
";

/// Every number of the published recipes has its source.
#[test]
fn published_numbers_have_sources() {
    for text in [
        include_str!("../../../recipes/base.toml"),
        include_str!("../../../recipes/large.toml"),
    ] {
        for line in text
            .lines()
            .filter(|line| line.contains(" = ") && !line.starts_with('#'))
        {
            let comment = line.split_once('#').map(|(_, comment)| comment.trim());
            let sourced = comment.is_some_and(|comment| {
                ["P", "Y", "C", "this"]
                    .iter()
                    .any(|s| comment.starts_with(s))
            });
            assert!(sourced || line.starts_with("name"), "{line}");
        }
    }
    let base = builtin("base").unwrap().unwrap();
    let phases = base.phases().unwrap();
    let first = &phases[0].recipe;
    let sizes: Vec<usize> = first
        .batch_warmup()
        .sizes()
        .iter()
        .map(|(size, _)| size * 96)
        .collect();
    assert_eq!(sizes, [768, 1536, 2304, 3072, 3840]);
    assert_eq!(first.batch_warmup().sizes()[0].1, 3_333_333_334);
    let steps: Vec<u64> = phases
        .iter()
        .map(|phase| phase.recipe.tokens_per_step())
        .collect();
    assert_eq!(steps, [4_718_592; 3]);
    let last = &phases[2].recipe;
    let rate =
        last.optimizer.learning_rate * last.schedule.factor(50_000_000_000, last.run.total_tokens);
    assert!((rate - 3e-7).abs() < 1e-15, "{rate}");
}
