//! Malformed files, truncated, overlapping, inconsistent or with giant sizes: an error, no panic, no memory beyond the file's size.

use modernbert::checkpoint::{CheckpointError, TensorFiles, open_checked, save};
use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, SequenceClassifier};
use modernbert::tokenizer::Tokenizer;
use modernbert::{HeadStart, LoadError, Loader};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

use crate::memory::largest;
use crate::model::{config, randomize, tokenizer};
use test_support::device;

/// A safetensors file with this length field and header, followed by `data` zero bytes.
fn file(header: &str, length: u64, data: usize) -> Vec<u8> {
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Opens the bytes as a file and reads every tensor; memory stays within a small multiple of the file.
fn read_all(bytes: &[u8]) -> Result<usize, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    let (result, largest) = largest(|| {
        let files = TensorFiles::open(&path)?;
        let mut read = 0;
        for name in files.names() {
            let (shape, values) = files.read(name)?.unwrap();
            assert_eq!(shape.iter().product::<usize>(), values.len());
            read += 1;
        }
        Ok(read)
    });
    let limit = 64 * bytes.len() + 65_536;
    assert!(
        largest <= limit,
        "{} bytes of file, {largest} of memory",
        bytes.len()
    );
    result
}

fn header(value: &Value) -> String {
    value.to_string()
}

/// The library uses one of the two entries, and another reader the other.
#[test]
fn a_tensor_named_twice_is_refused() {
    let one = r#""a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    let two = r#""b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}"#;
    let again = r#""a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}"#;
    let good = format!("{{{one}, {two}}}");
    assert_eq!(read_all(&file(&good, good.len() as u64, 8)).unwrap(), 2);
    for twice in [
        format!("{{{one}, {again}}}"),
        format!("{{{one}, {two}, {one}}}"),
    ] {
        let error = read_all(&file(&twice, twice.len() as u64, 8)).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("the key \"a\" is there twice"),
            "{message}"
        );
        assert!(message.contains("model.safetensors"), "{message}");
    }
}

#[test]
fn malformed_headers_are_refused() {
    let tensor = |shape: Value, offsets: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": offsets});
    let huge = u64::MAX;
    let malformed = [
        (
            "more bytes than there are",
            json!({"a": tensor(json!([4]), json!([0, 16]))}),
            8,
        ),
        (
            "a shape of other size",
            json!({"a": tensor(json!([3]), json!([0, 16]))}),
            16,
        ),
        (
            "a product that overflows",
            json!({"a": tensor(json!([huge, huge]), json!([0, 16]))}),
            16,
        ),
        (
            "a giant count",
            json!({"a": tensor(json!([1u64 << 62]), json!([0, 1u64 << 63]))}),
            16,
        ),
        (
            "offsets that go back",
            json!({"a": tensor(json!([4]), json!([16, 0]))}),
            16,
        ),
        (
            "tensors that overlap",
            json!({"a": tensor(json!([4]), json!([0, 16])), "b": tensor(json!([2]), json!([8, 16]))}),
            16,
        ),
        (
            "a hole between tensors",
            json!({"a": tensor(json!([2]), json!([0, 8])), "b": tensor(json!([1]), json!([12, 16]))}),
            16,
        ),
        (
            "bytes that belong to nothing",
            json!({"a": tensor(json!([2]), json!([0, 8]))}),
            16,
        ),
        (
            "negative offsets",
            json!({"a": tensor(json!([2]), json!([-8, 0]))}),
            16,
        ),
        (
            "an unknown dtype",
            json!({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}),
            4,
        ),
        ("no object", json!([1, 2]), 4),
    ];
    for (fault, value, data) in malformed {
        let text = header(&value);
        let found = read_all(&file(&text, text.len() as u64, data));
        assert!(
            matches!(found, Err(CheckpointError::Format { .. })),
            "{fault}: {found:?}"
        );
    }
    let text = header(&json!({"a": tensor(json!([4]), json!([0, 16]))}));
    for length in [0, 1, text.len() as u64 + 17, 1 << 32, 1 << 63, u64::MAX] {
        let found = read_all(&file(&text, length, 16));
        assert!(
            matches!(found, Err(CheckpointError::Format { .. })),
            "length {length}: {found:?}"
        );
    }
    let whole = file(&text, text.len() as u64, 16);
    assert_eq!(read_all(&whole).unwrap(), 1);
    assert!(matches!(
        read_all(&[]),
        Err(CheckpointError::Format { .. } | CheckpointError::Io { .. })
    ));
    for length in 0..whole.len() {
        assert!(read_all(&whole[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn weights_of_integers_are_refused_by_name() {
    let text = header(&json!({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}));
    let found = read_all(&file(&text, text.len() as u64, 8)).unwrap_err();
    assert!(
        found.to_string().contains("tensor `a` has dtype I64"),
        "{found}"
    );
}

fn model_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = config();
    let model = randomize(MaskedLm::new(&config, &device()).unwrap());
    save(&model, &config, folder.path()).unwrap();
    folder
}

fn edit_config(folder: &Path, change: impl Fn(&mut Value)) {
    let path = folder.join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    fs::write(&path, json.to_string()).unwrap();
}

#[test]
fn a_config_that_promises_a_giant_costs_nothing() {
    let size = |folder: &Path| {
        fs::metadata(folder.join("model.safetensors"))
            .unwrap()
            .len() as usize
    };
    let giants = [
        ("vocab_size", json!(1u64 << 30)),
        ("hidden_size", json!(1u64 << 30)),
        ("intermediate_size", json!(1u64 << 30)),
        ("num_hidden_layers", json!(60_000)),
    ];
    for (key, value) in giants {
        let folder = model_folder();
        edit_config(folder.path(), |json| {
            json[key] = value.clone();
            json.as_object_mut().unwrap().remove("layer_types");
        });
        let (found, most) = largest(|| MaskedLm::load(Loader::new(folder.path()).device(device())));
        let error = found.unwrap_err();
        assert!(
            matches!(
                error,
                LoadError::Checkpoint(
                    CheckpointError::Shape { .. } | CheckpointError::Missing { .. }
                )
            ),
            "{key}: {error}"
        );
        assert!(most <= size(folder.path()), "{key}: {most} bytes at once");
        assert!({
            let start = HeadStart::Kept;
            SequenceClassifier::load_for_finetuning(folder.path(), 2, start, 1).is_err()
        });
    }
    let folder = model_folder();
    assert!(open_checked(folder.path()).is_ok());
    edit_config(folder.path(), |json| json["hidden_size"] = json!(u64::MAX));
    assert!(matches!(
        open_checked(folder.path()),
        Err(CheckpointError::Config(_))
    ));
}

#[test]
fn an_index_that_lies_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (
        header(&json!({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})),
        header(&json!({"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})),
    );
    fs::write(
        folder.path().join("1.safetensors"),
        file(&one, one.len() as u64, 4),
    )
    .unwrap();
    fs::write(
        folder.path().join("2.safetensors"),
        file(&two, two.len() as u64, 4),
    )
    .unwrap();
    let open = |map: Value| {
        let index = folder.path().join("model.safetensors.index.json");
        fs::write(index, json!({ "weight_map": map }).to_string()).unwrap();
        TensorFiles::open(folder.path())
    };
    assert!(open(json!({"a": "1.safetensors", "b": "2.safetensors"})).is_ok());
    let malformed = [
        json!({"a": "1.safetensors", "b": "1.safetensors"}),
        json!({"a": "2.safetensors", "b": "1.safetensors"}),
        json!({"a": "../1.safetensors"}),
        json!({"a": "/etc/passwd"}),
        json!({"a": 1}),
        json!({"c": "1.safetensors"}),
        json!([]),
    ];
    for file in malformed {
        let found = open(file.clone()).err();
        assert!(
            matches!(found, Some(CheckpointError::Index { .. })),
            "{file}: {found:?}"
        );
    }
    assert!(matches!(
        open(json!({"a": "3.safetensors"})),
        Err(CheckpointError::Io { .. })
    ));
    assert!(open(json!({"a": "."})).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damaged_tensor_files_never_panic(
        position in 0usize..4096, byte in any::<u8>(), cut in 0usize..4096, grow in 0usize..64,
    ) {
        let header = header(&json!({
            "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
            "b": {"dtype": "BF16", "shape": [3], "data_offsets": [24, 30]},
        }));
        let mut bytes = file(&header, header.len() as u64, 30);
        bytes.extend(std::iter::repeat_n(7, grow));
        let at = position % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut % 40);
        let _ = read_all(&bytes);
    }

    #[test]
    fn any_bytes_are_a_file_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = read_all(&bytes);
        let (_, most) = largest(|| Tokenizer::from_bytes(&bytes, "bytes").is_ok());
        prop_assert!(most < 1 << 20);
        let text = String::from_utf8_lossy(&bytes);
        let (_, most) = largest(|| ModernBertConfig::from_json_str(&text, "bytes").is_ok());
        prop_assert!(most < 1 << 18);
    }

    #[test]
    fn configs_with_any_number_are_read_or_refused(key in 0usize..40, value in any::<i64>(), float in any::<f64>()) {
        let text = ModernBertConfig::base().to_json_string();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        let object = json.as_object_mut().unwrap();
        let key = object.keys().nth(key % object.len()).unwrap().clone();
        for new in [json!(value), json!(float), json!([value]), json!({"a": value}), Value::Null, json!("x")] {
            let mut json = json.clone();
            json[&key] = new;
            let text = json.to_string();
            let (_, most) = largest(|| ModernBertConfig::from_json_str(&text, "edited").is_ok());
            prop_assert!(most < 1 << 18, "{} asks for {}", key, most);
        }
    }

    #[test]
    fn damaged_tokenizers_never_panic(position in any::<usize>(), byte in any::<u8>(), cut in 0usize..3) {
        let mut bytes = tokenizer_json().as_bytes().to_vec();
        let at = position % bytes.len();
        bytes[at] = byte;
        if cut == 0 {
            bytes.truncate(at);
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(&bytes, "damaged") {
            let _ = tokenizer.encode("one two \u{e9} three");
        }
    }
}

/// Each made the library panic once.
#[test]
fn tokenizers_that_break_the_library_are_errors() {
    let change = |edit: &dyn Fn(&mut Value)| {
        let mut json: Value = serde_json::from_str(tokenizer_json()).unwrap();
        edit(&mut json);
        json.to_string()
    };
    let template = |json: &mut Value, piece: Value| json["post_processor"]["single"][0] = piece;
    let precompiled = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
    let broken = [
        tokenizer_json().replacen("\"decoder\":{", "\"decoder\":{\"a\"", 1),
        change(&|json| json["normalizer"] = precompiled.clone()),
        change(&|json| {
            json["normalizer"] = json!({"type": "Sequence", "normalizers": [precompiled]})
        }),
        change(&|json| template(json, json!({"SpecialToken": {"id": "[NO]", "type_id": 0}}))),
        change(&|json| template(json, json!({"Sequence": {"id": "B", "type_id": 0}}))),
    ];
    for text in broken {
        assert_ne!(text, tokenizer_json());
        let error = Tokenizer::from_bytes(text.as_bytes(), "broken").unwrap_err();
        assert!(error.to_string().starts_with("broken: "), "{error}");
    }
}

fn tokenizer_json() -> &'static str {
    static JSON: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    JSON.get_or_init(|| tokenizer().to_json().unwrap())
}
