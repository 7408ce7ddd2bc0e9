#![allow(clippy::unwrap_used)]

use super::*;
use crate::schedule::{DecayShape, TokenSpan};
use proptest::prelude::*;
use std::collections::BTreeSet;

const DEMO: &str = include_str!("../../recipes/demo.toml");

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
fn two_lines_are_a_recipe() {
    let recipe =
        Recipe::from_str("model.preset = '17m'\nrun.total_tokens = 1_000_000", "x").unwrap();
    recipe.validate().unwrap();
    assert_eq!(
        (recipe.data.corpus.clone(), recipe.data.tokenizer.clone()),
        (Corpus::Registry, Tokenizer::Train)
    );
    assert_eq!(
        (recipe.run.seed, recipe.run.precision),
        (17, Precision::F32)
    );
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
        "data.max_train_bytes=1",
        "run.max_seconds=1",
        "run.read_every_steps=1",
        "data.seed=1",
        "data.eval_corpus=x",
        "optimizer.max_lr=1",
        "optimizer.max_grad_norm=1",
        "checkpoint.every_steps=1",
        "checkpoint.keep_every_steps=1",
    ];
    let recipe = set(&all).unwrap();
    let table = toml::Table::try_from(&recipe).unwrap();
    let found: BTreeSet<_> = set::dotted(&table).into_iter().collect();
    assert_eq!(found, set::KEYS.iter().map(|k| (*k).to_owned()).collect());
}

#[test]
fn overrides_replace_values() {
    let recipe = set(&[
        "optimizer.learning_rate=1e-3",
        "run.precision=bf16",
        "run.max_seconds=",
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
        (Precision::Bf16, None)
    );
    assert_eq!(recipe.data.corpus, Corpus::Paths(vec!["/some/text".into()]));
    assert_eq!(recipe.data.tokenizer, Tokenizer::Path("a b".into()));
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
        Corpus::Paths(vec!["a".into(), "b".into()])
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
            "--set run.total_tokens=many: invalid type: string",
        ),
        (&["run.total_tokens=2.5"], "--set run.total_tokens=2.5"),
        (
            &["run.total_tokens="],
            "run.total_tokens is missing; give it",
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
            "batch.tokens is 256; a sequence of data.sequence_length (512) has to fit",
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
            &["model.hidden_size="],
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

#[test]
fn a_phase_is_the_recipe_with_what_differs() {
    let recipe = Recipe::from_str(PHASES, "x").unwrap();
    recipe.validate().unwrap();
    let phases = recipe.phases().unwrap();
    let names: Vec<_> = phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    let (first, second) = (&phases[0].recipe, &phases[1].recipe);
    assert_eq!(
        (
            first.optimizer.learning_rate,
            second.optimizer.learning_rate
        ),
        (8e-4, 1e-4)
    );
    assert_eq!(
        (first.schedule.kind(), second.schedule.kind()),
        ("warmup_stable_decay", "one_minus_sqrt")
    );
    assert_eq!(
        (first.run.total_tokens, second.run.total_tokens),
        (1_000_000, 500_000)
    );
    assert_eq!(second.model.global_rope_theta, Some(160_000.0));
    assert_eq!(second.data, first.data);
    let text = recipe.to_toml().unwrap();
    assert_eq!(Recipe::from_str(&text, "x").unwrap(), recipe, "{text}");
    let alone = recipe.only_phase("second").unwrap();
    assert_eq!(alone.phases().unwrap(), [phases[1].clone()]);
    assert!(
        recipe
            .only_phase("third")
            .unwrap_err()
            .to_string()
            .contains("first, second")
    );
}

#[test]
fn a_recipe_without_phases_is_one_phase() {
    let phases = demo().phases().unwrap();
    assert_eq!(phases.len(), 1);
    assert_eq!(
        (phases[0].name.as_str(), &phases[0].recipe),
        ("train", &demo())
    );
}

#[test]
fn single_phases_are_changed_from_the_command_line() {
    let recipe = Recipe::from_str(PHASES, "x").unwrap();
    let set = |text: &str| recipe.with_overrides(&[text.to_owned()]);
    let changed = set("phase.second.optimizer.learning_rate=5e-5").unwrap();
    assert_eq!(
        changed.phases().unwrap()[1].recipe.optimizer.learning_rate,
        5e-5
    );
    let changed = set("phase.first.schedule.kind=constant").unwrap();
    assert_eq!(
        changed.phases().unwrap()[0].recipe.schedule.kind(),
        "constant"
    );
    let changed = set("optimizer.weight_decay=1e-6").unwrap();
    assert!(
        changed
            .phases()
            .unwrap()
            .iter()
            .all(|phase| phase.recipe.optimizer.weight_decay == 1e-6)
    );
    for (text, expected) in [
        (
            "run.total_tokens=7",
            "phases set it themselves (first, second): write phase.first.run.total_tokens=7",
        ),
        (
            "schedule.warmup_tokens=7",
            "phase.second.schedule.warmup_tokens=7",
        ),
        ("phase.third.run.seed=1", "the phases are: first, second"),
        ("phase.first=1", "write phase.NAME.key=value"),
        (
            "phase.first.model.hidden_size=64",
            "the same in every phase",
        ),
        ("phase.first.run.seed=1", "the same in every phase"),
        ("phase.first.optimizer.rate=1", "no setting optimizer.rate"),
        ("phase.first.optimizer.learning_rate=fast", "invalid type"),
    ] {
        let message = set(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
}

#[test]
fn mistakes_in_phases_are_named() {
    let cases = [
        (
            "optimizer.learning_rate = 1e-4",
            "optimizer.rate = 1",
            "x:12: there is no setting optimizer.rate",
        ),
        (
            "optimizer.learning_rate = 1e-4",
            "model.hidden_size = 64",
            "phase.second.model.hidden_size",
        ),
        ("name = 'second'", "name = 'a b'", "letters, digits"),
    ];
    for (from, to, expected) in cases {
        let message = Recipe::from_str(&PHASES.replace(from, to), "x")
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
    let cases = [
        (
            "total_tokens = 500_000",
            "total_tokens = 5",
            "phase second: run.total_tokens is 5",
        ),
        (
            "run.total_tokens = 1_000_000",
            "",
            "phase first: run.total_tokens is missing",
        ),
        ("name = 'second'", "name = 'first'", "two phases have it"),
        (
            "optimizer.learning_rate = 1e-4",
            "batch.warmup_tokens = 5",
            "phase second: batch.warmup_from is 1",
        ),
        (
            "optimizer.learning_rate = 1e-4",
            "checkpoint.keep_last = 0",
            "checkpoint.keep_last is 0",
        ),
    ];
    for (from, to, expected) in cases {
        let recipe = Recipe::from_str(&PHASES.replace(from, to), "x").unwrap();
        let message = recipe.validate().unwrap_err().to_string();
        assert!(message.contains(expected), "{message}\nlacks\n{expected}");
    }
}

/// Every number of the published recipes stands with its source.
#[test]
fn published_numbers_have_sources() {
    for text in [
        include_str!("../../recipes/base.toml"),
        include_str!("../../recipes/large.toml"),
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

#[test]
fn suggestions_are_near_or_none() {
    for key in [
        "colour",
        "optimizer.name",
        "x",
        "model.wings",
        "data.nothing_like_it",
    ] {
        let message = complaint(&[&format!("{key}=1")]);
        assert!(
            message.contains("docs/recipe.md lists all") && !message.contains("nearest"),
            "{message}"
        );
    }
    for (key, near) in [
        ("model.hiden_size", "model.hidden_size"),
        ("run.precison", "run.precision"),
        ("batches.tokens", "batch.tokens"),
    ] {
        let message = complaint(&[&format!("{key}=1")]);
        assert!(message.contains(near), "{message}");
    }
}

#[test]
fn a_setting_that_makes_no_sense_has_its_line_or_its_argument() {
    let text = "\
[model]
preset = '17m'

[batch]
tokens = 0

[[phase]]
name = 'a'
run.total_tokens = 100_000

[[phase]]
name = 'b'
run = { total_tokens = 5 }
optimizer.learning_rate = -1.0
";
    let message = |text: &str, overrides: &[&str]| {
        let overrides: Vec<String> = overrides.iter().map(|set| (*set).to_owned()).collect();
        let recipe = Recipe::from_str(text, "r.toml").unwrap();
        let error = recipe
            .with_overrides(&overrides)
            .and_then(|recipe| recipe.validate());
        let named = RecipeText::new("r.toml", text).with_overrides(&overrides);
        named.locate(error.unwrap_err()).to_string()
    };
    let said = message(text, &[]);
    assert!(
        said.starts_with("r.toml:5: ") && said.contains("batch.tokens is 0"),
        "{said}"
    );
    let fixed = text.replace("tokens = 0", "tokens = 1024");
    let said = message(&fixed, &[]);
    assert!(said.starts_with("r.toml:14: phase b: "), "{said}");
    let fixed = fixed.replace("-1.0", "1e-3");
    let said = message(&fixed, &[]);
    assert!(said.starts_with("r.toml:13: phase b: "), "{said}");
    let said = message(&fixed.replace("= 5 }", "= 100_000 }"), &["mask.train=2"]);
    assert!(said.starts_with("--set mask.train=2: "), "{said}");
    let said = message(
        &fixed.replace("= 5 }", "= 100_000 }"),
        &["phase.b.mask.eval=0"],
    );
    assert!(said.starts_with("--set phase.b.mask.eval=0: "), "{said}");
    // A default has no line.
    let said = message("model.preset = '17m'", &[]);
    assert!(
        said.starts_with("r.toml: run.total_tokens is missing"),
        "{said}"
    );
    // Durations and thread counts that would overflow a clock or a system.
    for set in [
        "checkpoint.every_minutes=1e300",
        "run.max_seconds=9_000_000_000_000",
        "data.loader_threads=1_000_000",
    ] {
        let text = "model.preset = '17m'\nrun.total_tokens = 1_000_000";
        let said = message(text, &[set]);
        assert!(said.starts_with(&format!("--set {set}: ")), "{said}");
    }
}

#[test]
fn paths_are_relative_to_the_recipe() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let text = "\
model = { from = 'model', tile_from = '/large' }
data = { corpus = ['a.txt', '/b'], eval_corpus = 'registry', tokenizer = 'tok' }
[[phase]]
name = 'x'
run.total_tokens = 1
data.corpus = 'registry'
[[phase]]
name = 'y'
run.total_tokens = 1
data.corpus = 'shards'
";
    std::fs::write(&path, text).unwrap();
    let recipe = Recipe::from_file(&path).unwrap();
    let inside = |name: &str| folder.path().join(name);
    assert_eq!(
        recipe.data.corpus,
        Corpus::Paths(vec![inside("a.txt"), "/b".into()])
    );
    assert_eq!(recipe.data.eval_corpus, Some(Corpus::Registry));
    assert_eq!(recipe.data.tokenizer, Tokenizer::Path(inside("tok")));
    assert_eq!(recipe.model.from.as_deref(), inside("model").to_str());
    assert_eq!(recipe.model.tile_from, Some("/large".into()));
    let phases = recipe.phases().unwrap();
    assert_eq!(phases[0].recipe.data.corpus, Corpus::Registry);
    assert_eq!(
        phases[1].recipe.data.corpus,
        Corpus::Paths(vec![inside("shards")])
    );
    std::fs::write(&path, "model.from = 'org/name'\nrun.total_tokens = 1").unwrap();
    let recipe = Recipe::from_file(&path).unwrap();
    assert_eq!(recipe.model.from.as_deref(), Some("org/name"));
}

#[test]
fn a_published_model_gives_sizes_and_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = modernbert::config::ModernBertConfig::of_shape(4, 32, 48, 2);
    config.vocab_size = 384;
    config.max_position_embeddings = 64;
    (config.bos_token_id, config.eos_token_id) = (None, None);
    (
        config.cls_token_id,
        config.sep_token_id,
        config.pad_token_id,
    ) = (None, None, None);
    config.global_rope_theta = 12_345.0;
    config.save(folder.path().join("config.json")).unwrap();
    let from = folder.path().to_str().unwrap();
    let recipe = |more: &str| {
        let text = format!("model.from = '{from}'\nrun.total_tokens = 1_000_000\n{more}");
        Recipe::from_str(&text, "r.toml").unwrap()
    };
    let (resolved, found) = recipe("").resolve_model().unwrap();
    let place = folder.path().canonicalize().unwrap();
    assert_eq!(found.as_ref(), Some(&place));
    assert_eq!(resolved.data.tokenizer, Tokenizer::Path(place));
    let mine = resolved.model.config(300).unwrap();
    let sizes = |c: &modernbert::config::ModernBertConfig| {
        (
            c.vocab_size,
            c.hidden_size,
            c.num_hidden_layers,
            c.global_rope_theta,
        )
    };
    assert_eq!(sizes(&mine), sizes(&config));
    // What was resolved is a recipe by itself.
    let again = Recipe::from_str(&resolved.to_toml().unwrap(), "x").unwrap();
    assert_eq!(again.resolve_model().unwrap().0, resolved);
    let longer = recipe("model.global_rope_theta = 160_000.0").resolve_model();
    assert_eq!(longer.unwrap().0.model.global_rope_theta, Some(160_000.0));
    for (more, said) in [
        (
            "model.hidden_size = 64",
            "model.hidden_size is 64, and the model has 32",
        ),
        ("model.preset = '17m'", "no model of the preset"),
        ("data.tokenizer = 'other'", "leave data.tokenizer out"),
        (
            "model.tile_from = 'other'",
            "weights come from one of the two",
        ),
    ] {
        let message = recipe(more).resolve_model().unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
    config.norm_eps = 1e-3;
    config.save(folder.path().join("config.json")).unwrap();
    let message = recipe("").resolve_model().unwrap_err().to_string();
    assert!(message.contains("norm_eps"), "{message}");
    let nowhere = Recipe::from_str("model.from = './nowhere'", "r.toml").unwrap();
    let message = nowhere.resolve_model().unwrap_err().to_string();
    assert!(message.contains("./nowhere"), "{message}");
}
