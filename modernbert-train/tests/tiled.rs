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
    let arguments = ["--set", "run.total_tokens=600"];
    let arguments = [&arguments[..], &LARGER, more].concat();
    let (losses, said) = losses(place, out, &arguments);
    (losses[0], said)
}

/// Losses of the training steps, and the words that the run said.
fn losses(place: &Place, out: &str, more: &[&str]) -> (Vec<f64>, String) {
    let arguments = [&["--set", "run.log_every_steps=1"][..], more].concat();
    let said = assert_success(&place.run(out, &arguments));
    let log = fs::read_to_string(place.path(out).join("metrics.jsonl")).unwrap();
    let rows = log
        .lines()
        .map(|line| -> serde_json::Value { serde_json::from_str(line).unwrap() });
    let rows: Vec<_> = rows.filter(|row| row["split"] == "train").collect();
    assert_eq!(rows[0]["step"], 1);
    let losses = rows.iter().map(|row| row["loss"].as_f64().unwrap());
    (losses.collect(), said)
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

/// Heads 3 to 4 and widths 48 to 64 and 72 to 164, in the proportions of base to large, and 4 layers to 7. With heads of 8 the first column of
/// the smaller model is a head's first in the larger one too, as in base and large, with heads of 16 it is in the middle of a head.
#[test]
fn three_heads_become_four_and_four_layers_seven() {
    let place = Place::new();
    for [few, many] in [["3", "4"], ["6", "8"]] {
        let train = |out: &str, sizes: &[(&str, &str)], more: &[&str]| {
            let sizes = sizes.iter();
            let sizes: Vec<String> = sizes
                .flat_map(|(key, value)| ["--set".to_owned(), format!("model.{key}={value}")])
                .collect();
            let sizes = sizes.iter().map(String::as_str);
            let arguments: Vec<&str> = sizes.chain(more.iter().copied()).collect();
            losses(&place, &format!("{out}-{few}"), &arguments)
        };
        let small = [
            ("hidden_size", "48"),
            ("intermediate_size", "72"),
            ("num_attention_heads", few),
        ];
        let large = [
            ("hidden_size", "64"),
            ("intermediate_size", "164"),
            ("num_attention_heads", many),
            ("num_hidden_layers", "7"),
        ];
        let (small, _) = train("small", &small, &[]);
        let small = small[small.len() - 1];
        let folder = place.path(&format!("small-{few}"));
        let from = format!("model.tile_from={:?}", text(&folder));
        let tokenizer = format!("data.tokenizer={:?}", text(&folder));
        let more = ["--set", &tokenizer, "--set", "run.total_tokens=1200"];
        let (random, _) = train("random", &large, &more);
        let (tiled, said) = train("tiled", &large, &[&more[..], &["--set", &from]].concat());
        assert!(said.contains("weights: tiled from"), "{said}");
        let losses = format!("small {small}, random {random:?}, tiled {tiled:?}");
        // A start that knows nothing has a loss of ln 384 = 5.95; the tiled one begins near the smaller model and stays ahead.
        assert!(random[0] > 384f64.ln() - 0.6, "{losses}");
        assert!(tiled[0] < small + 0.6, "{losses}");
        let is_ahead = tiled
            .iter()
            .zip(&random)
            .all(|(tiled, random)| tiled < random);
        assert!(is_ahead && tiled.len() >= 4, "{losses}");
    }
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
