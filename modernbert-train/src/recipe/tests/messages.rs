//! Suggestions, and the file and line in messages.

use super::*;

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
    let whole = fixed.replace("= 5 }", "= 100_000 }");
    for (set, said) in [
        ("data.corpus=\"\"", "data.corpus is an empty path"),
        ("data.eval_corpus=\"\"", "data.eval_corpus is an empty path"),
        ("data.tokenizer=\"\"", "data.tokenizer is empty"),
        ("model.from=\"\"", "model.from is empty"),
        ("mask.train=1e-9", "less than one would be predicted"),
        ("phase.b.optimizer.learning_rate=1e-45", "too small for f32"),
    ] {
        let found = message(&whole, &[set]);
        assert!(found.contains(said), "{found}");
    }
    // Nor does an empty path become the recipe's folder.
    let recipe = Recipe::from_str(&whole, "r.toml").unwrap();
    let recipe = recipe
        .with_overrides(&["data.corpus=\"\"".to_owned()])
        .unwrap();
    let error = recipe
        .with_paths_in(std::path::Path::new("/texts"))
        .validate();
    assert!(error.unwrap_err().to_string().contains("an empty path"));
    // A default has no line.
    let said = message("model.preset = '17m'", &[]);
    assert!(
        said.starts_with("r.toml: run.total_tokens is missing"),
        "{said}"
    );
    // The settings of a schedule have their own places, where a section has none.
    for set in [
        "schedule.final_fraction=5",
        "schedule.decay_tokens=\"100%\"",
    ] {
        let text = "model.preset = '17m'\nrun.total_tokens = 1_000_000";
        let said = message(text, &[set]);
        assert!(said.starts_with(&format!("--set {set}: ")), "{said}");
    }
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

/// The message of a new run of `demo` with these overrides; `None` where it would begin.
fn refused(overrides: &[&str]) -> Option<String> {
    let overrides: Vec<String> = overrides.iter().map(|set| (*set).to_owned()).collect();
    let text =
        RecipeText::new("demo.toml", "[model]\nhidden_size = 1\n").with_overrides(&overrides);
    let checked = demo().with_overrides(&overrides).and_then(|recipe| {
        recipe.validate()?;
        recipe.check_used()
    });
    checked.err().map(|error| text.locate(error).to_string())
}

#[test]
fn settings_without_an_effect_are_refused() {
    assert_eq!(refused(&[]), None);
    for (key, with) in [
        ("ema.every_steps=3", "ema.half_life_steps=5"),
        ("ema.evaluate=false", "ema.half_life_steps=5"),
        ("optimizer.spike_window=3", "optimizer.skip_spikes=4.0"),
        (
            "data.length_warmup_from=16",
            "data.length_warmup_tokens=1000",
        ),
        (
            "data.length_warmup_step=4",
            "data.length_warmup_tokens=1000",
        ),
        ("batch.warmup_step=2", "batch.warmup_tokens=1000"),
        ("model.init_method=normal", "model.init_method=normal"),
    ] {
        let micro = ["batch.micro_batches=4", "data.sequence_length=128"];
        let both = [micro[0], micro[1], with, key];
        assert_eq!(refused(&both), None, "{key}");
        if key == with {
            continue;
        }
        let message = refused(&micro.iter().chain([&key]).copied().collect::<Vec<_>>()).unwrap();
        let needed = with.split('=').next().unwrap();
        assert!(message.starts_with(&format!("--set {key}: ")), "{message}");
        assert!(message.contains(needed), "{message}");
    }
    for (sets, said) in [
        (
            &["model.global_attn_every_n_layers=1"][..],
            "model.local_attention is given; no layer is local",
        ),
        (
            &[
                "model.global_attn_every_n_layers=unset",
                "model.flexbert.sliding_windows=[0,4,4,0]",
            ],
            "model.flexbert.sliding_windows has the windows of all layers",
        ),
        (
            &[
                "model.flexbert.attention_layer=base",
                "model.global_rope_theta=5000",
            ],
            "no layer has rotary embeddings",
        ),
        (
            &["model.init_method=mitchell"],
            "model.init_method does not read it",
        ),
    ] {
        let message = refused(sets).unwrap();
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn numbers_that_f32_does_not_hold_are_refused() {
    for (set, said) in [
        ("optimizer.learning_rate=1e300", "it is too large for f32"),
        ("optimizer.learning_rate=1e-300", "it is too small for f32"),
        ("optimizer.epsilon=1e300", "it is too large for f32"),
        ("optimizer.epsilon=1e-300", "it is too small for f32"),
        ("optimizer.max_grad_norm=1e-300", "that f32 holds"),
        (
            "optimizer.max_lr=1e-9",
            "would remove more than each weight",
        ),
        ("model.norm_eps=1e300", "that f32 holds"),
        ("model.initializer_range=1e300", "that f32 holds"),
        ("model.initializer_cutoff_factor=1e-9", "set 0.01 or more"),
        ("model.flexbert.attn_softcap=1e-300", "that f32 holds"),
    ] {
        let message = refused(&[set]).unwrap();
        // The argument is named, and the value in as many characters as it was written with.
        assert!(message.starts_with(&format!("--set {set}: ")), "{message}");
        assert!(message.contains(said) && message.len() < 250, "{message}");
    }
}

#[test]
fn a_fault_of_the_model_has_the_line_of_its_setting() {
    let text = "[run]\ntotal_tokens = 100_000\n[model]\npreset = '17m'\n\n[model.flexbert]\nnorm_scale = true\nhead_dim = 7\n";
    let error = Recipe::from_str(text, "r.toml")
        .unwrap()
        .validate()
        .unwrap_err();
    let message = RecipeText::new("r.toml", text).locate(error).to_string();
    assert!(
        message.starts_with("r.toml:8: [model]: head_dim is 7"),
        "{message}"
    );
    let text = text
        .replace("head_dim = 7\n", "")
        .replace("'17m'", "'17m'\nnorm_eps = -1.0");
    let error = Recipe::from_str(&text, "r.toml")
        .unwrap()
        .validate()
        .unwrap_err();
    let message = RecipeText::new("r.toml", &text).locate(error).to_string();
    assert!(
        message.starts_with("r.toml:5: [model]: norm_eps is -1"),
        "{message}"
    );
}

#[test]
fn an_integer_beyond_toml_is_called_too_large() {
    for set in [
        "run.seed=9223372036854775808",
        "run.total_tokens=99_999_999_999_999_999_999",
    ] {
        let message = refused(&[set]).unwrap();
        assert!(message.contains("too large"), "{message}");
        assert!(message.contains("below 2^63"), "{message}");
    }
}
