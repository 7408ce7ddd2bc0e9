//! `docs/recipe.md`, generated from the doc comments of the recipe's structs and their defaults.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::set::KEYS;
use super::*;
use modernbert::config::FlexOptions;

/// Sections in the order of the page, with the struct that describes each and the text it is in.
const SECTIONS: [(&str, &str, &str); 11] = [
    ("model", "ModelRecipe", include_str!("model.rs")),
    (
        "model.flexbert",
        "FlexOptions",
        include_str!("../../../crates/modernbert-files/src/config/flexbert/mod.rs"),
    ),
    ("data", "DataRecipe", include_str!("mod.rs")),
    ("batch", "BatchRecipe", include_str!("mod.rs")),
    ("mask", "MaskRecipe", include_str!("mod.rs")),
    ("dropout", "DropoutRecipe", include_str!("mod.rs")),
    ("optimizer", "OptimizerRecipe", include_str!("mod.rs")),
    ("ema", "EmaRecipe", include_str!("ema.rs")),
    ("schedule", "", ""),
    ("run", "RunRecipe", include_str!("mod.rs")),
    ("checkpoint", "CheckpointRecipe", include_str!("mod.rs")),
];

const HEAD: &str = "\
# Recipe reference

Every setting of a recipe, generated from `modernbert-train/src/recipe` (the test `the_reference_is_current` compares this page with the code;
`UPDATE_DOCS=1 cargo test --workspace --lib -- the_reference_is_current` writes it). A recipe is a TOML file; `--set section.key=value`
replaces one setting, `--set phase.NAME.section.key=value` that of one phase, and the value `unset` restores the default. Relative paths
are relative to the recipe's folder.
A text `\"${section.key}\"` has the value of another setting of the file, in a phase the phase's own first; `--set` counts before the file.
";

const PHASES: &str = "
## [[phase]]

Phases of a run, in order. Each has a `name` and the settings in which it differs from those outside, under the same keys, such as
`data.sequence_length = 8192`. At a phase transition weights and moments are kept; tokens, schedule, batch-size warmup and data start again.
The same in every phase, and set outside of them: all of `[model]` except the rotary bases and their ramp, `data.tokenizer`, `data.tokenizer_vocab`,
`data.eval_bytes`, `data.eval_corpus`, `run.precision`, `run.seed`.
";

const SCHEDULE: [(&str, &str); 7] = [
    (
        "kind",
        "`\"warmup_stable_decay\"` (the trapezoid), `\"constant\"` (after a warmup), `\"one_minus_sqrt\"` (the last phase of \
         pretraining), `\"linear_with_warmup\"`, `\"cosine_with_warmup\"`, or `\"cosine_inverse_sqrt\"` (a quarter of a cosine, then \
         the inverse square root of the tokens).",
    ),
    (
        "warmup_tokens",
        "Length of the linear warmup: tokens, or a share of the run such as `\"5%\"`. Not for `one_minus_sqrt`.",
    ),
    (
        "decay_tokens",
        "Length of the decay, which ends with the run. For `warmup_stable_decay`, `one_minus_sqrt` and `cosine_inverse_sqrt`.",
    ),
    (
        "decay",
        "Shape of the decay: `\"one_minus_sqrt\"`, `\"linear\"` or `\"cosine\"`. For `warmup_stable_decay` and `cosine_inverse_sqrt`.",
    ),
    (
        "final_fraction",
        "Factor on the peak rate at the end. Not for `constant`.",
    ),
    (
        "cosine_tokens",
        "Length of the cosine after the warmup; a quarter of the run by default. Only for `cosine_inverse_sqrt`.",
    ),
    (
        "cosine_floor",
        "Factor that the cosine would reach after twice its length; 0.1 by default. Only for `cosine_inverse_sqrt`.",
    ),
];

/// The doc comments of a struct's fields.
fn fields(name: &str, source: &str) -> BTreeMap<String, String> {
    let start = source.find(&format!("pub struct {name} {{")).unwrap();
    let body = &source[start..];
    let body = &body[..body.find("\n}").unwrap()];
    let (mut found, mut doc) = (BTreeMap::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
        } else if let Some(field) = line.strip_prefix("pub ") {
            let Some((name, _)) = field.split_once(':') else {
                continue;
            };
            found.insert(name.to_owned(), doc.join(" "));
            doc.clear();
        }
    }
    found
}

/// Links of rustdoc as code: `[`a`](b)` and `[`a`]` become `a`.
fn plain(doc: &str) -> String {
    let mut out = doc.to_owned();
    while let Some(start) = out.find("[`") {
        let end = start + out[start..].find("`]").unwrap();
        let name = out[start + 2..end].rsplit("::").next().unwrap().to_owned();
        out.replace_range(start..end + 2, &format!("`{name}`"));
    }
    out.replace('|', "\\|")
}

fn page() -> String {
    let defaults = Recipe::from_str("model.preset = 'base'", "x").unwrap();
    let table = toml::Table::try_from(&defaults).unwrap();
    let default = |section: &str, key: &str| {
        let value = table.get(section).and_then(|inner| inner.get(key));
        match value {
            Some(value) if section != "model" => format!("`{value}`"),
            _ => "–".to_owned(),
        }
    };
    let mut text = HEAD.to_owned();
    for (section, name, source) in SECTIONS {
        let docs = match name {
            "" => SCHEDULE
                .iter()
                .map(|(key, doc)| (key.to_string(), doc.to_string()))
                .collect(),
            _ => fields(name, source),
        };
        write!(
            text,
            "\n## [{section}]\n\n| key | default | meaning |\n|---|---|---|\n"
        )
        .unwrap();
        let prefix = format!("{section}.");
        let choices: &[&str] = match section {
            "model.flexbert" => &FlexOptions::KEYS,
            _ => &[],
        };
        let own = KEYS.iter().filter_map(|key| key.strip_prefix(&prefix));
        for key in own.chain(choices.iter().copied()) {
            let doc = docs.get(key).unwrap_or_else(|| panic!("{section}.{key}"));
            assert!(!doc.is_empty(), "{section}.{key} has no doc comment");
            writeln!(
                text,
                "| `{key}` | {} | {} |",
                default(section, key),
                plain(doc)
            )
            .unwrap();
        }
    }
    text + PHASES
}

#[test]
fn the_reference_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/recipe.md");
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/recipe.md is not what the code says; run UPDATE_DOCS=1 cargo test --workspace --lib -- the_reference_is_current"
    );
}

#[test]
fn every_key_is_in_a_section() {
    let known = |key: &&&str| {
        SECTIONS
            .iter()
            .any(|(section, ..)| key.starts_with(section))
    };
    assert_eq!(KEYS.iter().filter(known).count(), KEYS.len());
}
