//! Suggestions, and the places that messages name.

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
