//! A larger model that begins from a smaller one's weights, by the recipe's `model.tile_from`.
#![allow(clippy::unwrap_used)] // a test may fail loudly

mod place;

use place::{Place, assert_refused, assert_success, text};
use std::fs;

const LARGER: [&str; 8] = [
    "--set",
    "model.hidden_size=64",
    "--set",
    "model.intermediate_size=96",
    "--set",
    "model.num_attention_heads=4",
    "--set",
    "model.num_hidden_layers=7",
];

/// Loss of the first training row, and the output of the run.
fn first_loss(place: &Place, out: &str, more: &[&str]) -> (f64, String) {
    let mut arguments = vec![
        "--set",
        "run.log_every_steps=1",
        "--set",
        "run.total_tokens=600",
    ];
    arguments.extend(LARGER);
    arguments.extend(more);
    let said = assert_success(&place.run(out, &arguments));
    let log = fs::read_to_string(place.path(out).join("metrics.jsonl")).unwrap();
    let rows = log
        .lines()
        .map(|line| -> serde_json::Value { serde_json::from_str(line).unwrap() });
    let first = rows
        .into_iter()
        .find(|row| row["split"] == "train")
        .unwrap();
    assert_eq!(first["step"], 1);
    (first["loss"].as_f64().unwrap(), said)
}

#[test]
fn a_tiled_start_knows_what_the_smaller_model_knew() {
    let place = Place::new();
    assert_success(&place.run("small", &[]));
    let small = place.path("small");
    let from = format!("model.tile_from={:?}", text(&small));
    let tokenizer = format!("data.tokenizer={:?}", text(&small));
    let (random, _) = first_loss(&place, "random", &["--set", &tokenizer]);
    let (tiled, said) = first_loss(&place, "tiled", &["--set", &tokenizer, "--set", &from]);
    // A random start knows nothing of 384 ids; the smaller model knew how frequent each is, and more.
    let nothing = 384f64.ln();
    assert!((random - nothing).abs() < 0.6, "{random} against {nothing}");
    assert!(tiled < nothing - 1.0, "{tiled} against {nothing}");
    assert!(said.contains("weights: tiled from"), "{said}");
    let (center, _) = first_loss(
        &place,
        "center",
        &[
            "--set",
            &tokenizer,
            "--set",
            &from,
            "--set",
            "model.tiling=\"center\"",
        ],
    );
    assert!(
        center < nothing + 0.6 && center.to_bits() != tiled.to_bits(),
        "{center}"
    );
}

#[test]
fn what_cant_be_tiled_is_refused_by_its_setting() {
    let place = Place::new();
    let nowhere = format!("model.tile_from={:?}", text(&place.path("nowhere")));
    place.refuses(
        "no such folder",
        &["--set", &nowhere],
        &["model.tile_from", "nowhere"],
    );
    place.refuses(
        "tiling of nothing",
        &["--set", "model.tiling=\"middle\""],
        &["model.tiling", "model.tile_from"],
    );
    place.refuses(
        "no such tiling",
        &["--set", &nowhere, "--set", "model.tiling=\"spiral\""],
        &["model.tiling", "spiral"],
    );
    assert_success(&place.run("small", &["--set", "run.total_tokens=300"]));
    let small = place.path("small");
    let from = format!("model.tile_from={:?}", text(&small));
    let tokenizer = format!("data.tokenizer={:?}", text(&small));
    let same_size = place.run("refused", &["--set", &from, "--set", &tokenizer]);
    assert_refused(
        "as wide as it was",
        &same_size,
        &["model.tile_from", "hidden_size", "larger"],
    );
}
