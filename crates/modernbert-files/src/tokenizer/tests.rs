#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use proptest::prelude::*;
use serde::Deserialize;

use super::train::{train, train_and_count, words_of};
use super::*;

const TEXTS: [&str; 4] = [
    "The quick brown fox jumps over the lazy dog. The dog sleeps.",
    "fn main() {\n    let mut count = 0;\n    count += 1;\n}\n",
    "Voilà: ça marche, déjà vu, naïve café. 日本語 and русский.",
    "the the the the then there their they",
];

pub(super) fn small() -> Tokenizer {
    static SMALL: LazyLock<Tokenizer> = LazyLock::new(|| {
        train(
            TEXTS,
            &TrainOptions {
                vocab_size: 384,
                min_frequency: 2,
            },
        )
        .unwrap()
    });
    SMALL.clone()
}

#[test]
fn golden_ids_of_the_published_tokenizer() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        pair: Option<String>,
        ids: Vec<u32>,
    }
    let Some(data) = test_support::data() else {
        return;
    };
    let folder = data.join("tokenizer");
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    assert_eq!(tokenizer.vocab_size(), 50_368);
    for (id, name) in [(50_285, "[unused0]"), (50_367, "[unused82]")] {
        assert_eq!(tokenizer.token(id).as_deref(), Some(name));
    }
    assert_eq!(
        tokenizer.special().ids(),
        [50_280, 50_281, 50_282, 50_283, 50_284]
    );
    let golden = std::fs::read_to_string(folder.join("golden_ids.jsonl")).unwrap();
    let mut cases = 0;
    for line in golden.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let ids = match &case.pair {
            Some(pair) => tokenizer.encode_pair(&case.text, pair).unwrap(),
            None => tokenizer.encode(&case.text).unwrap(),
        };
        assert_eq!(ids, case.ids, "{:?} / {:?}", case.text, case.pair);
        let whole = tokenizer
            .encode_truncated(&case.text, case.pair.as_deref(), 8192)
            .unwrap();
        assert_eq!((whole.ids, whole.truncated), (ids, false));
        cases += 1;
    }
    assert!(cases > 200, "only {cases} cases");
    let paris = tokenizer.encode_plain(" Paris").unwrap();
    assert_eq!(paris.len(), 1);
    assert_eq!(tokenizer.token(paris[0]).unwrap(), " Paris");
}

#[test]
fn a_trained_tokenizer_has_the_published_form() {
    let tokenizer = small();
    assert_eq!(tokenizer.vocab_size(), 384);
    let special = tokenizer.special();
    // The specials follow the learned vocabulary one by one, the fillers follow them.
    assert_eq!(
        special.ids(),
        [0, 1, 2, 3, 4].map(|index| special.unk + index)
    );
    assert_eq!(tokenizer.token(special.mask).unwrap(), "[MASK]");
    assert_eq!(
        tokenizer.token(383).unwrap(),
        "[unused62]".replace("62", &(383 - special.mask - 1).to_string())
    );
    assert_eq!(tokenizer.token(384), None);
    let masked = tokenizer.encode("the dog [MASK] .").unwrap();
    assert_eq!(masked.first(), Some(&special.cls));
    assert_eq!(masked.last(), Some(&special.sep));
    assert!(masked.contains(&special.mask));
    // [MASK] takes the white space on its left.
    assert_eq!(
        tokenizer.encode("a [MASK]").unwrap(),
        tokenizer.encode("a[MASK]").unwrap()
    );
    assert_eq!(tokenizer.encode_plain("the").unwrap().len(), 1);
}

/// A tokenizer trained here, as Python's `tokenizers` and `transformers` read and use it (`scripts/tokenizer_fixtures.py`).
#[test]
fn a_trained_tokenizer_is_that_of_hugging_face() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
        decoded: String,
    }
    #[derive(Deserialize)]
    struct Pair {
        first: String,
        second: String,
        ids: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct Python {
        tokenizer_crc32: u32,
        vocab_size: usize,
        model_max_length: usize,
        specials: std::collections::BTreeMap<String, u32>,
        cases: Vec<Case>,
        pairs: Vec<Pair>,
    }
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tokenizer/fixtures");
    let options = TrainOptions {
        vocab_size: 448,
        min_frequency: 2,
    };
    let trained = train(include_str!("fixtures/text.txt").lines(), &options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    trained.save(folder.path()).unwrap();
    // The files that Python read are those that training writes today.
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let written = std::fs::read(folder.path().join(name)).unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(fixtures.join(name), &written).unwrap();
        }
        let read = std::fs::read(fixtures.join(name)).unwrap();
        assert!(
            written == read,
            "{name} is not that of the fixtures; see scripts/tokenizer_fixtures.py"
        );
    }
    let python = std::fs::read(fixtures.join("python.json")).unwrap();
    let python: Python = serde_json::from_slice(&python).unwrap();
    let read = std::fs::read(fixtures.join("tokenizer.json")).unwrap();
    // CRC-32 as in zlib.
    let checksum = !read.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg())
        })
    });
    assert_eq!(
        checksum, python.tokenizer_crc32,
        "run scripts/tokenizer_fixtures.py"
    );

    assert_eq!(trained.vocab_size(), python.vocab_size);
    assert_eq!(trained.max_length(), Some(python.model_max_length));
    let special = trained.special();
    for (name, id) in [
        ("UNK", special.unk),
        ("CLS", special.cls),
        ("SEP", special.sep),
        ("PAD", special.pad),
        ("MASK", special.mask),
    ] {
        assert_eq!(python.specials[name], id, "{name}");
    }
    assert!(python.cases.len() >= 15 && python.pairs.len() >= 3);
    for case in &python.cases {
        assert_eq!(
            trained.encode(&case.text).unwrap(),
            case.ids,
            "{:?}",
            case.text
        );
        let bare = trained.encode_plain(&case.text).unwrap();
        assert_eq!(trained.decode(&bare).unwrap(), case.decoded);
    }
    for pair in &python.pairs {
        let ids = trained.encode_pair(&pair.first, &pair.second).unwrap();
        assert_eq!(ids, pair.ids, "{:?} {:?}", pair.first, pair.second);
    }
}

#[test]
fn training_is_deterministic_and_blind_to_order() {
    let texts: Vec<String> = (0..600)
        .map(|i| format!("{} line {} {}", TEXTS[i % 4], i * 7919 % 613, i % 13))
        .collect();
    let options = TrainOptions {
        vocab_size: 1024,
        min_frequency: 2,
    };
    let first = train(&texts, &options).unwrap().to_json().unwrap();
    assert_eq!(first, train(&texts, &options).unwrap().to_json().unwrap());
    assert_eq!(
        first,
        train(texts.iter().rev(), &options)
            .unwrap()
            .to_json()
            .unwrap()
    );
}

#[test]
fn the_vocabulary_is_rounded_up_and_filled() {
    let tokenizer = train(
        ["ab"],
        &TrainOptions {
            vocab_size: 300,
            min_frequency: 2,
        },
    )
    .unwrap();
    assert_eq!(tokenizer.vocab_size(), 320);
    assert_eq!(tokenizer.special().unk, 256);
    let full = train(
        TEXTS,
        &TrainOptions {
            vocab_size: 320,
            min_frequency: 1,
        },
    )
    .unwrap();
    // Enough merges: no filler at all.
    assert_eq!(full.special().mask, 319);
}

#[test]
fn training_mistakes_are_named() {
    let tiny = train(
        TEXTS,
        &TrainOptions {
            vocab_size: 100,
            min_frequency: 2,
        },
    );
    assert!(matches!(
        tiny,
        Err(TokenizerError::VocabTooSmall { smallest: 320, .. })
    ));
    assert!(matches!(
        train([""; 3], &TrainOptions::default()),
        Err(TokenizerError::NoText)
    ));
}

#[test]
fn saved_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = small();
    tokenizer.save(folder.path().join("model")).unwrap();
    let again = Tokenizer::from_folder(folder.path().join("model")).unwrap();
    assert_eq!(tokenizer.to_json().unwrap(), again.to_json().unwrap());
    let config = std::fs::read(folder.path().join("model/tokenizer_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["model_max_length"], 8192);
    assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
    assert_eq!(
        config["added_tokens_decoder"][tokenizer.special().mask.to_string()]["lstrip"],
        true
    );
}

#[test]
fn malformed_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Tokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    assert!(missing.contains("tokenizer.json"), "{missing}");
    assert!(matches!(
        Tokenizer::from_bytes(b"{}", "x"),
        Err(TokenizerError::Parse { .. })
    ));

    let json = small().to_json().unwrap();
    let nameless = json.replace("[MASK]", "[HIDE]");
    let error = Tokenizer::from_bytes(nameless.as_bytes(), "x.json")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[MASK]") && error.contains("x.json"),
        "{error}"
    );

    let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
    value["post_processor"] = serde_json::Value::Null;
    let plain = Tokenizer::from_bytes(value.to_string().as_bytes(), "x.json");
    assert!(matches!(plain, Err(TokenizerError::Template { .. })));
}

#[test]
fn settings_in_the_file_do_not_cut_or_pad() {
    let mut value: serde_json::Value = serde_json::from_str(&small().to_json().unwrap()).unwrap();
    value["truncation"] = serde_json::json!({ "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 });
    value["padding"] = serde_json::json!({
        "strategy": { "Fixed": 64 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 3, "pad_type_id": 0, "pad_token": "[PAD]",
    });
    let tokenizer = Tokenizer::from_bytes(value.to_string().as_bytes(), "x").unwrap();
    assert_eq!(
        tokenizer.encode(TEXTS[0]).unwrap(),
        small().encode(TEXTS[0]).unwrap()
    );
}

#[test]
fn truncation_keeps_the_ends() {
    let tokenizer = small();
    let special = tokenizer.special();
    let cut = tokenizer.encode_truncated(TEXTS[0], None, 5).unwrap();
    assert!(cut.truncated);
    assert_eq!(cut.ids.len(), 5);
    assert_eq!((cut.ids[0], cut.ids[4]), (special.cls, special.sep));
    let pair = tokenizer
        .encode_truncated(TEXTS[0], Some("the"), 8)
        .unwrap();
    assert_eq!(pair.ids.len(), 8);
    // The short side is whole, the long one lost its tail.
    assert_eq!(
        &pair.ids[5..],
        [
            special.sep,
            tokenizer.encode_plain("the").unwrap()[0],
            special.sep
        ]
    );
    assert!(matches!(
        tokenizer.encode_truncated("a", Some("b"), 2),
        Err(TokenizerError::MaxLength { needed: 3, .. })
    ));
    // Special tokens alone would make the same sequence of every text.
    for (pair, needed) in [(None, 2), (Some("b"), 3)] {
        let message = tokenizer
            .encode_truncated("a", pair, needed)
            .unwrap_err()
            .to_string();
        assert!(message.contains("leaves no token"), "{message}");
        assert_eq!(
            tokenizer
                .encode_truncated("a a a", pair, needed + 1)
                .unwrap()
                .ids
                .len(),
            needed + 1
        );
    }
    assert!(tokenizer.encode_words(&["a"], true, 2).is_err());
}

#[test]
fn longest_first_shares() {
    assert_eq!(longest_first(3, 4, 10), (3, 4));
    assert_eq!(longest_first(10, 2, 7), (5, 2));
    assert_eq!(longest_first(10, 9, 7), (4, 3));
    assert_eq!(longest_first(9, 10, 7), (3, 4));
    assert_eq!(longest_first(9, 0, 7), (7, 0));
}

#[test]
fn offsets_point_into_the_text() {
    let text = "the dog, déjà";
    let encoded = small().encode_with_offsets(text).unwrap();
    assert_eq!(encoded.ids.len(), encoded.offsets.len());
    assert_eq!(encoded.offsets[0], (0, 0));
    assert_eq!(&text[encoded.offsets[1].0..encoded.offsets[1].1], "the");
}

#[test]
fn batches_keep_their_order() {
    let tokenizer = small();
    let one_by_one: Vec<_> = TEXTS
        .iter()
        .map(|text| tokenizer.encode(text).unwrap())
        .collect();
    assert_eq!(tokenizer.encode_batch(&TEXTS).unwrap(), one_by_one);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_come_back(text in "[a-zA-Z0-9 .,\n\t{}()éß日🙂]{0,60}") {
        let tokenizer = small();
        let ids = tokenizer.encode_plain(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }

    #[test]
    fn never_longer_than_asked(a in ".{0,40}", b in ".{0,40}", max_length in 4usize..30) {
        let tokenizer = small();
        let special = tokenizer.special();
        let encoded = tokenizer.encode_truncated(&a, Some(&b), max_length).unwrap();
        prop_assert!(encoded.ids.len() <= max_length);
        prop_assert_eq!(encoded.ids.first(), Some(&special.cls));
        prop_assert_eq!(encoded.ids.last(), Some(&special.sep));
    }
}

/// The work of training grows with the squares of the words' lengths.
#[test]
fn the_work_of_training_grows_with_the_text_alone() {
    let work = |text: &str| -> usize {
        let (words, _) = words_of(text).unwrap();
        words.iter().map(|word| word.chars().count().pow(2)).sum()
    };
    for unit in [
        "abcdefg",
        "0123456789",
        "#=+",
        "\u{4e2d}\u{6587}\u{5b57}",
        "\u{e9}\u{10348}",
    ] {
        let text = unit.repeat(9_000);
        let most = 256 * text.len();
        assert!(
            work(&text) <= most && work(&text.repeat(3)) <= 3 * most,
            "{unit}"
        );
        let (words, cut) = words_of(&text).unwrap();
        assert_eq!(cut, 1);
        // Parts of whole characters, with nothing lost.
        let (whole, _) = words_of(unit).unwrap();
        assert_eq!(words.concat(), whole.concat().repeat(9_000));
        for part in &words {
            let bytes: Vec<u8> = part.chars().map(byte_of).collect();
            assert!(
                bytes.len() <= 256 && std::str::from_utf8(&bytes).is_ok(),
                "{part}"
            );
        }
    }
    // Ordinary words are whole.
    let words = include_str!("fixtures/text.txt");
    assert_eq!(words_of(words).unwrap().1, 0);
    let long = "x".repeat(256);
    assert_eq!(words_of(&long).unwrap(), (vec![long.clone()], 0));
    let options = TrainOptions {
        vocab_size: 320,
        min_frequency: 1,
    };
    let texts = [
        long.repeat(2),
        "short words".into(),
        format!("a {long}yy b"),
    ];
    assert_eq!(train_and_count(&texts, &options).unwrap().cut_words, 2);
}

/// The byte that byte-level BPE shows as this character.
fn byte_of(shown: char) -> u8 {
    let is_shown = |byte: &u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(shown);
    if let Some(byte) = u8::try_from(code).ok().filter(is_shown) {
        return byte;
    }
    let mut others = (0..=u8::MAX).filter(|byte| !is_shown(byte));
    others.nth(code as usize - 256).unwrap()
}

/// Reads a tokenizer beside a `tokenizer_config.json` with other settings.
fn beside(settings: serde_json::Value) -> Result<Tokenizer, TokenizerError> {
    let folder = tempfile::tempdir().unwrap();
    small().save(folder.path()).unwrap();
    let path = folder.path().join("tokenizer_config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in settings.as_object().unwrap() {
        json[key] = value.clone();
    }
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::from_folder(folder.path())
}

/// Python's libraries change the tokenizer by these settings when they load it.
#[test]
fn settings_that_contradict_the_tokenizer_are_refused() {
    use serde_json::json;
    let token = |content: &str| json!({"content": content, "special": true});
    for (settings, said) in [
        (
            json!({"add_prefix_space": true}),
            "add_prefix_space is true",
        ),
        (
            json!({"added_tokens_decoder": {"7": token("<new>")}}),
            "\"<new>\"",
        ),
        (
            json!({"added_tokens_decoder": {"7": token("[MASK]")}}),
            "whose id",
        ),
        (
            json!({"additional_special_tokens": ["<new>"]}),
            "additional_special_tokens",
        ),
        (
            json!({"truncation_side": "left"}),
            "truncation_side is \"left\"",
        ),
        (
            json!({"split_special_tokens": true}),
            "split_special_tokens",
        ),
        (
            json!({"model_max_length": "512"}),
            "model_max_length is \"512\"",
        ),
        (json!({"cls_token": "[NOPE]"}), "[NOPE]"),
        (
            json!({"mask_token": "[SEP]"}),
            "also the one that opens, closes or pads",
        ),
    ] {
        let message = beside(settings.clone()).unwrap_err().to_string();
        assert!(message.contains(said), "{settings}: {message}");
    }
    let good = json!({"add_prefix_space": false, "truncation_side": "right", "model_max_length": 1e30, "additional_special_tokens": ["[MASK]"], "unk_token": "<none>"});
    assert_eq!(beside(good).unwrap().max_length(), None);
}

#[test]
fn flags_of_added_tokens_that_contradict_the_tokenizer_are_refused() {
    use serde_json::json;
    let mask = small().special().mask.to_string();
    let folder = tempfile::tempdir().unwrap();
    small().save(folder.path()).unwrap();
    let path = folder.path().join("tokenizer_config.json");
    let text = std::fs::read_to_string(path).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let added = &config["added_tokens_decoder"];
    assert!(beside(json!({"added_tokens_decoder": added})).is_ok());
    for flag in ["lstrip", "rstrip", "normalized", "special", "single_word"] {
        let mut other = added.clone();
        other[&mask][flag] = json!(!added[&mask][flag].as_bool().unwrap_or(false));
        let error = beside(json!({"added_tokens_decoder": other})).unwrap_err();
        let said = format!("added_tokens_decoder.{mask}.{flag}");
        assert!(error.to_string().contains(&said), "{error}");
    }
}

#[test]
fn two_tokens_of_one_id_are_refused() {
    let mut json: serde_json::Value = serde_json::from_str(&small().to_json().unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    let id = vocab["a"].clone();
    vocab["b"] = id;
    let error = Tokenizer::from_bytes(json.to_string().as_bytes(), "x").unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("\"a\" and \"b\" both have the id"),
        "{message}"
    );
}

#[test]
fn compatible_characters_are_one() {
    assert_eq!(
        compatible("cafe\u{301} \u{fb01} \u{ff21}"),
        "caf\u{e9} fi A"
    );
}
