//! Tokenizers of other forms, files on which the library panics, positions, and long texts.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::tests::small;
use super::*;

fn json() -> Value {
    serde_json::from_str(&small().to_json().unwrap()).unwrap()
}

fn changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, TokenizerError> {
    let mut json = json();
    change(&mut json);
    Tokenizer::from_bytes(json.to_string().as_bytes(), "x.json")
}

/// The small tokenizer with its special tokens under other names.
fn renamed() -> String {
    let mut text = small().to_json().unwrap();
    for (old, new) in [
        ("[UNK]", "<unk>"),
        ("[CLS]", "<bos>"),
        ("[SEP]", "<eos>"),
        ("[PAD]", "<fill>"),
        ("[MASK]", "<hide>"),
    ] {
        text = text.replace(old, new);
    }
    text
}

#[test]
fn special_tokens_may_have_other_names() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), renamed()).unwrap();
    let message = Tokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    assert!(message.contains("[PAD]"), "{message}");
    let config = json!({
        "bos_token": "<bos>", "cls_token": "<bos>", "sep_token": {"content": "<eos>"}, "pad_token": "<fill>",
        "mask_token": "<hide>", "unk_token": "<unk>", "model_max_length": 1e30,
    });
    std::fs::write(
        folder.path().join("tokenizer_config.json"),
        config.to_string(),
    )
    .unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.special(), small().special());
    assert_eq!(tokenizer.max_length(), None);
    assert_eq!(
        tokenizer.encode("the dog").unwrap(),
        small().encode("the dog").unwrap()
    );

    // They keep their names when it is written, and the length is that of the model.
    let again = folder.path().join("again");
    tokenizer.with_max_length(77).save(&again).unwrap();
    let written = std::fs::read_to_string(again.join("tokenizer_config.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["cls_token"], "<bos>");
    assert_eq!(written["mask_token"], "<hide>");
    assert_eq!(written["model_max_length"], 77);
    let again = Tokenizer::from_folder(&again).unwrap();
    assert_eq!(
        (again.special(), again.max_length()),
        (small().special(), Some(77))
    );

    let wrong = json!({"mask_token": "<nowhere>", "pad_token": "<fill>"});
    std::fs::write(
        folder.path().join("tokenizer_config.json"),
        wrong.to_string(),
    )
    .unwrap();
    let message = Tokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    assert!(message.contains("<nowhere>"), "{message}");
    std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
    let message = Tokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    assert!(message.contains("tokenizer_config.json"), "{message}");
}

#[test]
fn files_on_which_the_library_panics_are_refused() {
    let sequence = |kind: &str, part: Value| json!({"type": "Sequence", kind: [part]});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let cases: Vec<(&str, Value)> = vec![
        (
            "/pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}, byte_level]}),
        ),
        (
            "/normalizer",
            sequence(
                "normalizers",
                json!({"type": "Replace", "pattern": {"Regex": "(("}, "content": "x"}),
            ),
        ),
        ("/post_processor/special_tokens", json!({})),
        (
            "/post_processor/special_tokens/[CLS]",
            json!({"id": "[CLS]", "ids": [], "tokens": []}),
        ),
        ("/model/merges", json!([["", ""]])),
        (
            "/model/continuing_subword_prefix",
            json!("日本語日本語日本語"),
        ),
        (
            "/normalizer",
            json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "x".repeat(2000)}),
        ),
    ];
    for (place, value) in cases {
        let found = changed(|json| match json.pointer_mut(place) {
            Some(old) => *old = value.clone(),
            None => panic!("no {place}"),
        });
        let message = found.unwrap_err().to_string();
        assert!(message.contains("x.json"), "{place} {value}: {message}");
    }
}

#[test]
fn empty_patterns_never_panic() {
    for pattern in [
        json!({"String": ""}),
        json!({"Regex": ""}),
        json!({"Regex": "$"}),
    ] {
        for behavior in [
            "Removed",
            "Isolated",
            "MergedWithPrevious",
            "MergedWithNext",
            "Contiguous",
        ] {
            let split =
                json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": false});
            let replace = json!({"type": "Replace", "pattern": pattern, "content": ""});
            for (key, value) in [("pre_tokenizer", split), ("normalizer", replace)] {
                // Refused or usable, but without a panic.
                if let Ok(tokenizer) = changed(|json| json[key] = value.clone()) {
                    let _ = tokenizer.encode("the dog, déjà");
                    let _ = tokenizer.encode_with_offsets("the dog, déjà");
                }
            }
        }
    }
}

#[test]
fn a_normalizer_that_explodes_is_refused() {
    let grow = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(40)});
    let found = changed(|json| {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": vec![grow.clone(); 9]});
    });
    let message = found.unwrap_err().to_string();
    assert!(message.contains("times as long"), "{message}");
    let found = changed(|json| json["normalizer"] = grow.clone());
    found.unwrap();
}

/// The text between each pair of offsets.
fn cut<'t>(text: &'t str, offsets: &[(usize, usize)]) -> Vec<&'t str> {
    offsets
        .iter()
        .map(|&(start, end)| &text[start..end])
        .collect()
}

#[test]
fn marks_belong_to_the_token_of_their_letter() {
    // Tokens that have a part of a character alone still have the whole of it.
    let text = "cafe\u{301} in Zu\u{308}rich \u{1112}\u{1161}\u{11ab} naïve";
    let offsets = small().encode_with_offsets(text).unwrap().offsets;
    let pieces = cut(text, &offsets);
    for (piece, next) in pieces
        .iter()
        .zip(&offsets)
        .map(|(piece, o)| (piece, &text[o.1..]))
    {
        let mark = next.chars().next();
        assert!(
            !matches!(mark, Some('\u{301}' | '\u{308}' | '\u{1161}' | '\u{11ab}')),
            "{piece:?} leaves {mark:?} behind"
        );
    }
    assert!(
        pieces.contains(&"e\u{301}") && pieces.contains(&"u\u{308}"),
        "{pieces:?}"
    );
    assert!(pieces.contains(&"\u{1112}\u{1161}\u{11ab}"), "{pieces:?}");
}

#[test]
fn stripped_accents_belong_to_their_letter_and_punctuation_to_nobody() {
    let tokenizer = changed(|json| {
        let strip = [json!({"type": "NFD"}), json!({"type": "StripAccents"})];
        json["normalizer"] = json!({"type": "Sequence", "normalizers": strip});
        let comma = json!({"type": "Split", "pattern": {"String": ","}, "behavior": "Removed", "invert": false});
        let pre = [comma, json["pre_tokenizer"].clone()];
        json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": pre});
    });
    let text = "e\u{301}\u{323},x";
    let pieces = tokenizer.unwrap().encode_with_offsets(text).unwrap();
    assert_eq!(cut(text, &pieces.offsets), ["", "e\u{301}\u{323}", "x", ""]);
}

#[test]
fn long_texts_in_pieces_have_the_tokens_of_the_whole() {
    let tokenizer = small();
    let line = "The quick brown fox,  it's  déjà\n\n vu 12345 日本語 \t the end. ";
    let text = line.repeat((3 << 20) / line.len());
    let whole = guarded(|| tokenizer.inner.encode_fast(text.as_str(), true))
        .unwrap()
        .unwrap();
    assert_eq!(tokenizer.encode(&text).unwrap(), whole.get_ids());
    let offsets = tokenizer.encode_with_offsets(&text).unwrap();
    assert_eq!(offsets.ids, whole.get_ids());
    assert!(
        offsets
            .offsets
            .windows(2)
            .skip(1)
            .take(100_000)
            .all(|w| w[0].0 <= w[1].0)
    );
    for length in [3, 4, 100, 8192] {
        let cut = tokenizer.encode_truncated(&text, None, length).unwrap();
        assert!(cut.truncated);
        assert_eq!(cut.ids[..length - 1], whole.get_ids()[..length - 1]);
        let (beginning, more) = tokenizer
            .encode_beginning_with_offsets(&text, length)
            .unwrap();
        assert!(more && beginning.ids.len() < 200_000);
        assert_eq!(
            beginning.offsets[..length - 1],
            offsets.offsets[..length - 1]
        );
    }
    let pair = tokenizer.encode_truncated(&text, Some(&text), 101).unwrap();
    assert_eq!((pair.ids.len(), pair.truncated), (101, true));
}

#[test]
fn a_text_without_blanks_is_cut_too() {
    let tokenizer = small();
    let text = "日本語".repeat(1 << 18);
    let cut = tokenizer.encode_truncated(&text, None, 512).unwrap();
    assert_eq!((cut.ids.len(), cut.truncated), (512, true));
    let start = tokenizer.encode_plain(&text[..9 << 10]).unwrap();
    assert_eq!(cut.ids[1..511], start[..510]);
}
