//! JSON types of the settings in a model's folder.
//!
//! One table for each file says which type each known key has. Every reader of such a file calls [`check`] first, so that a value of another type is an
//! error also where the reader does not need the key, or would take the value for a missing one. Keys that are not in a table are left alone.
//! `null` counts as missing.

use serde_json::{Map, Value};
use std::fmt;

/// The type of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Text,
    Flag,
    /// A whole number, 0 or more.
    Count,
    Number,
    /// The text of a token, or an object with it as `content` and with flags.
    Token,
    /// The path of a folder inside the model's.
    Inside,
    List(&'static Kind),
    /// An object of any keys, whose values have one type; null is allowed as a value.
    Map(&'static Kind),
    /// As `Map`, with ids such as `"0"` as keys.
    ById(&'static Kind),
    /// An object of which these keys are known.
    Fields(&'static [(&'static str, Kind)]),
    /// One of several types.
    Either(&'static [Kind]),
}

use Kind::{ById, Count, Either, Fields, Flag, Inside, List, Number, Text, Token};

const OBJECT: Kind = Fields(&[]);

/// `config.json`: the keys that the reader of configs takes, and those that say how transformers is to use the model.
pub(crate) const CONFIG: Kind = Fields(&[
    ("_name_or_path", Text),
    ("architectures", List(&Text)),
    ("attention_bias", Flag),
    ("attention_dropout", Number),
    ("auto_map", OBJECT),
    ("bos_token_id", Count),
    ("classifier_activation", Text),
    ("classifier_bias", Flag),
    ("classifier_dropout", Number),
    ("classifier_pooling", Text),
    ("cls_token_id", Count),
    ("decoder_bias", Flag),
    ("deterministic_flash_attn", Flag),
    ("dtype", Text),
    ("embedding_dropout", Number),
    ("eos_token_id", Count),
    ("flexbert", OBJECT),
    ("global_attn_every_n_layers", Count),
    ("global_rope_theta", Number),
    ("gradient_checkpointing", Flag),
    ("hidden_activation", Text),
    ("hidden_size", Count),
    ("id2label", Either(&[ById(&LABEL), List(&LABEL)])),
    ("initializer_cutoff_factor", Number),
    ("initializer_range", Number),
    ("intermediate_size", Count),
    ("is_decoder", Flag),
    ("label2id", Kind::Map(&Count)),
    ("layer_norm_eps", Number),
    ("layer_types", List(&Text)),
    ("local_attention", Count),
    ("local_rope_theta", Number),
    ("max_position_embeddings", Count),
    ("mlp_bias", Flag),
    ("mlp_dropout", Number),
    ("model_type", Text),
    ("norm_bias", Flag),
    ("norm_eps", Number),
    ("num_attention_heads", Count),
    ("num_hidden_layers", Count),
    ("num_labels", Count),
    ("pad_token_id", Count),
    ("partial_rotary_factor", Number),
    ("position_embedding_type", Text),
    ("problem_type", Text),
    ("quantization_config", OBJECT),
    ("reference_compile", Flag),
    ("rope_parameters", ROPES),
    ("rope_scaling", ROPES),
    ("sep_token_id", Count),
    ("sparse_pred_ignore_index", Number),
    ("sparse_prediction", Flag),
    ("tie_word_embeddings", Flag),
    ("torch_dtype", Text),
    ("transformers_version", Text),
    ("use_cache", Flag),
    ("vocab_size", Count),
]);

/// `config.json` of BERT and RoBERTa: the keys that [`CONFIG`] does not have.
pub(crate) const BERT_CONFIG: Kind = Fields(&[
    ("add_cross_attention", Flag),
    ("attention_probs_dropout_prob", Number),
    ("chunk_size_feed_forward", Count),
    ("hidden_act", Text),
    ("hidden_dropout_prob", Number),
    ("is_encoder_decoder", Flag),
    ("pruned_heads", OBJECT),
    ("type_vocab_size", Count),
]);

/// Rotary embeddings of each kind of layer.
const ROPES: Kind = Fields(&[("full_attention", ROPE), ("sliding_attention", ROPE)]);

const ROPE: Kind = Fields(&[
    ("attention_factor", Number),
    ("beta_fast", Number),
    ("beta_slow", Number),
    ("factor", Number),
    ("mscale", Number),
    ("mscale_all_dim", Number),
    ("original_max_position_embeddings", Count),
    ("partial_rotary_factor", Number),
    ("rope_theta", Number),
    ("rope_type", Text),
    ("truncate", Flag),
    ("type", Text),
]);

/// The name of a label; some tools write numbers.
const LABEL: Kind = Either(&[Text, Number, Flag]);

/// `tokenizer_config.json` and `special_tokens_map.json`.
pub(crate) const TOKENIZER_CONFIG: Kind = Fields(&[
    ("add_prefix_space", Flag),
    ("added_tokens_decoder", ById(&Token)),
    ("additional_special_tokens", List(&Token)),
    ("bos_token", Token),
    ("clean_up_tokenization_spaces", Flag),
    ("cls_token", Token),
    ("do_lower_case", Flag),
    ("eos_token", Token),
    (
        "extra_special_tokens",
        Either(&[List(&Token), Kind::Map(&Token)]),
    ),
    ("mask_token", Token),
    ("max_length", Count),
    ("model_input_names", List(&Text)),
    ("model_max_length", Number),
    ("model_specific_special_tokens", Kind::Map(&Token)),
    ("pad_to_multiple_of", Count),
    ("pad_token", Token),
    ("padding_side", Text),
    ("sep_token", Token),
    ("split_special_tokens", Flag),
    ("stride", Count),
    ("tokenizer_class", Text),
    ("truncation_side", Text),
    ("truncation_strategy", Text),
    ("unk_token", Token),
]);

/// `added_tokens.json` of older tokenizers.
pub(crate) const ADDED_TOKENS: Kind = Kind::Map(&Count);

/// `modules.json`.
pub(crate) const MODULES: Kind = List(&Fields(&[
    ("idx", Count),
    ("kwargs", List(&Text)),
    ("name", Text),
    ("path", Inside),
    ("type", Text),
]));

/// `1_Pooling/config.json`.
pub(crate) const POOLING: Kind = Fields(&[
    ("embedding_dimension", Count),
    ("include_prompt", Flag),
    ("pooling_mode", Either(&[Text, List(&Text)])),
    ("pooling_mode_cls_token", Flag),
    ("pooling_mode_lasttoken", Flag),
    ("pooling_mode_max_tokens", Flag),
    ("pooling_mode_mean_sqrt_len_tokens", Flag),
    ("pooling_mode_mean_tokens", Flag),
    ("pooling_mode_weightedmean_tokens", Flag),
    ("word_embedding_dimension", Count),
]);

/// `sentence_bert_config.json`.
pub(crate) const SENTENCE_BERT: Kind = Fields(&[
    ("config_args", OBJECT),
    ("do_lower_case", Flag),
    ("max_seq_length", Count),
    ("model_args", OBJECT),
    ("tokenizer_args", OBJECT),
]);

/// `config_sentence_transformers.json`, with PyLate's keys.
pub(crate) const SENTENCE_TRANSFORMERS: Kind = Fields(&[
    ("__version__", Kind::Map(&Text)),
    ("attend_to_expansion_tokens", Flag),
    ("default_prompt_name", Text),
    ("do_query_expansion", Flag),
    ("document_length", Count),
    ("document_prefix", Text),
    ("model_type", Text),
    ("prompts", Kind::Map(&Text)),
    ("query_length", Count),
    ("query_prefix", Text),
    ("similarity_fn_name", Text),
    ("skiplist_words", List(&Text)),
    ("truncate_dim", Count),
]);

/// `config.json` of a stage that is one matrix.
pub(crate) const DENSE: Kind = Fields(&[
    ("activation_function", Text),
    ("bias", Flag),
    ("in_features", Count),
    ("out_features", Count),
    ("use_residual", Flag),
]);

/// `model.safetensors.index.json`.
pub(crate) const WEIGHTS_INDEX: Kind = Fields(&[
    ("metadata", Fields(&[("total_size", Number)])),
    ("weight_map", Kind::Map(&Text)),
]);

/// A value of another type than its key has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrongKind {
    /// The key, dotted where it is nested; empty for the whole file.
    pub(crate) key: String,
    /// The value, shortened.
    pub(crate) value: String,
    /// The type, in words.
    pub(crate) expected: String,
}

impl WrongKind {
    /// The fault, for messages whose remedy follows.
    pub(crate) fn fault(&self) -> String {
        match self.key.is_empty() {
            true => format!("the file is {}", self.value),
            false => format!("{} is {}", self.key, self.value),
        }
    }

    /// The remedy.
    pub(crate) fn remedy(&self) -> String {
        format!("expected {}", self.expected)
    }
}

/// Compares the types in `json` with those of its file.
///
/// # Errors
/// The first value of another type.
pub(crate) fn check(kind: Kind, json: &Value) -> Result<(), WrongKind> {
    at("", kind, json)
}

/// Reads an id as it is written everywhere: digits without a sign, blanks or leading zeros.
pub(crate) fn plain_id(text: &str) -> Option<usize> {
    let id = text.parse::<usize>().ok()?;
    (id.to_string() == text).then_some(id)
}

/// The value for a message: itself, or only its type where it is long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match value {
        Value::Object(_) if text.len() > 60 => "an object".to_owned(),
        Value::Array(_) if text.len() > 60 => "a list".to_owned(),
        _ => text,
    }
}

fn joined(path: &str, key: impl fmt::Display) -> String {
    match path.is_empty() {
        true => key.to_string(),
        false => format!("{path}.{key}"),
    }
}

fn at(path: &str, kind: Kind, json: &Value) -> Result<(), WrongKind> {
    let wrong = || WrongKind {
        key: path.to_owned(),
        value: shown(json),
        expected: kind.to_string(),
    };
    let want = |good: bool| if good { Ok(()) } else { Err(wrong()) };
    let object = || json.as_object().ok_or_else(wrong);
    match kind {
        Kind::Text => want(json.is_string()),
        Kind::Flag => want(json.is_boolean()),
        Kind::Count => want(json.is_u64()),
        Kind::Number => want(json.is_number()),
        Kind::Token => want(is_token(json)),
        Kind::Inside => want(json.as_str().is_some_and(is_inside)),
        Kind::List(of) => {
            let list = json.as_array().ok_or_else(wrong)?;
            let entry = |(i, value)| at(&joined(path, i), *of, value);
            list.iter().enumerate().try_for_each(entry)
        }
        Kind::Map(of) => values(path, *of, object()?),
        Kind::ById(of) => {
            let map = object()?;
            match map.keys().find(|key| plain_id(key).is_none()) {
                Some(key) => Err(WrongKind {
                    key: path.to_owned(),
                    value: format!("an object with the key {key:?}"),
                    expected: kind.to_string(),
                }),
                None => map
                    .iter()
                    .try_for_each(|(key, value)| at(&joined(path, key), *of, value)),
            }
        }
        Kind::Fields(fields) => {
            let map = object()?;
            let field = |(key, of): &(&str, Kind)| match map.get(*key) {
                None | Some(Value::Null) => Ok(()),
                Some(value) => at(&joined(path, key), *of, value),
            };
            fields.iter().try_for_each(field)
        }
        Kind::Either(kinds) => {
            // The fault is inside of the value where its outer type is one of them.
            let alike = |of: &&Kind| match of {
                Kind::List(_) => json.is_array(),
                Kind::Map(_) | Kind::ById(_) | Kind::Fields(_) => json.is_object(),
                _ => at(path, **of, json).is_ok(),
            };
            kinds
                .iter()
                .find(alike)
                .map_or_else(|| Err(wrong()), |of| at(path, *of, json))
        }
    }
}

fn values(path: &str, of: Kind, map: &Map<String, Value>) -> Result<(), WrongKind> {
    let mut given = map.iter().filter(|(_, value)| !value.is_null());
    given.try_for_each(|(key, value)| at(&joined(path, key), of, value))
}

fn is_token(json: &Value) -> bool {
    let flags = [
        ("lstrip", Flag),
        ("normalized", Flag),
        ("rstrip", Flag),
        ("single_word", Flag),
        ("special", Flag),
    ];
    match json {
        Value::String(_) => true,
        Value::Object(fields) => {
            let is_flag = |(key, of): &(&str, Kind)| {
                fields
                    .get(*key)
                    .is_none_or(|value| value.is_null() || at("", *of, value).is_ok())
            };
            fields.get("content").is_some_and(Value::is_string) && flags.iter().all(is_flag)
        }
        _ => false,
    }
}

fn is_inside(path: &str) -> bool {
    !path.split(['/', '\\']).any(|part| part == "..") && !std::path::Path::new(path).is_absolute()
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Flag => f.write_str("true or false"),
            Self::Count => f.write_str("a whole number, 0 or more"),
            Self::Number => f.write_str("a number"),
            Self::Token => {
                f.write_str("the text of a token, or an object with it as content and with flags")
            }
            Self::Inside => f.write_str("a path inside the folder"),
            Self::List(Self::Text) => f.write_str("a list of texts"),
            Self::List(Self::Token) => f.write_str("a list of tokens"),
            Self::List(_) => f.write_str("a list"),
            Self::Map(Self::Text) => f.write_str("an object from names to texts"),
            Self::Map(Self::Token) => f.write_str("an object from names to tokens"),
            Self::Map(_) => f.write_str("an object from names to whole numbers, 0 or more"),
            Self::ById(Self::Token) => f.write_str("an object from ids, such as \"0\", to tokens"),
            Self::ById(_) => f.write_str("an object from ids, such as \"0\", to names"),
            Self::Fields(_) => f.write_str("an object"),
            Self::Either(kinds) => {
                for (i, kind) in kinds.iter().enumerate() {
                    if i > 0 {
                        f.write_str(" or ")?;
                    }
                    kind.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A value of the type.
    fn good(kind: Kind) -> Value {
        match kind {
            Kind::Text | Kind::Token | Kind::Inside => json!("x"),
            Kind::Flag => json!(true),
            Kind::Count => json!(3),
            Kind::Number => json!(0.5),
            Kind::List(of) => json!([good(*of)]),
            Kind::Map(of) => json!({"x": good(*of)}),
            Kind::ById(of) => json!({"0": good(*of)}),
            Kind::Fields(fields) => {
                let field = |(key, of): &(&str, Kind)| ((*key).to_owned(), good(*of));
                Value::Object(fields.iter().map(field).collect())
            }
            Kind::Either(kinds) => good(kinds[0]),
        }
    }

    /// Values of every other type of JSON.
    fn others(kind: Kind) -> Vec<Value> {
        let accepts = |value: &Value| match kind {
            Kind::Either(kinds) => kinds.iter().any(|kind| at("", *kind, value).is_ok()),
            _ => at("", kind, value).is_ok(),
        };
        let all = [
            json!("x"),
            json!("../x"),
            json!(true),
            json!(-1),
            json!(7.5),
            json!([]),
            json!([[[]]]),
            json!({}),
            json!({"x": [[]]}),
            json!({"00": "x"}),
        ];
        all.into_iter().filter(|value| !accepts(value)).collect()
    }

    const FILES: [Kind; 10] = [
        CONFIG,
        BERT_CONFIG,
        TOKENIZER_CONFIG,
        ADDED_TOKENS,
        MODULES,
        POOLING,
        SENTENCE_BERT,
        SENTENCE_TRANSFORMERS,
        DENSE,
        WEIGHTS_INDEX,
    ];

    #[test]
    fn each_key_of_each_file_has_its_type() {
        let mut count = 0;
        for file in FILES {
            assert_eq!(check(file, &good(file)), Ok(()));
            let fields = match file {
                Kind::List(Kind::Fields(fields)) => *fields,
                Kind::Fields(fields) => fields,
                _ => &[],
            };
            let whole = |value: Value| match file {
                Kind::List(_) => json!([value]),
                _ => value,
            };
            for (key, kind) in fields {
                assert_eq!(check(file, &whole(json!({ *key: null }))), Ok(()));
                for value in others(*kind) {
                    let wrong = check(file, &whole(json!({ *key: value }))).unwrap_err();
                    assert!(wrong.key.contains(key), "{wrong:?}");
                    count += 1;
                }
            }
            for value in others(file) {
                assert!(check(file, &value).is_err(), "{value}");
            }
        }
        assert!(count > 500, "{count}");
    }

    #[test]
    fn messages_name_the_key_and_the_type() {
        for (file, json, said) in [
            (
                CONFIG,
                json!({"label2id": {"a": "0"}}),
                "label2id.a is \"0\"; expected a whole number, 0 or more",
            ),
            (
                CONFIG,
                json!({"id2label": {"+0": "a"}}),
                "id2label is an object with the key \"+0\"; expected an object from ids",
            ),
            (
                TOKENIZER_CONFIG,
                json!({"added_tokens_decoder": []}),
                "added_tokens_decoder is []; expected an object from ids",
            ),
            (
                TOKENIZER_CONFIG,
                json!({"extra_special_tokens": 3}),
                "extra_special_tokens is 3; expected a list of tokens or an object from names to tokens",
            ),
            (
                TOKENIZER_CONFIG,
                json!({"extra_special_tokens": {"image_token": 3}}),
                "extra_special_tokens.image_token is 3; expected the text of a token",
            ),
            (MODULES, json!({}), "the file is {}; expected a list"),
            (
                MODULES,
                json!([{"path": 1}]),
                "0.path is 1; expected a path inside",
            ),
        ] {
            let message =
                check(file, &json).map_err(|wrong| wrong.fault() + "; " + &wrong.remedy());
            let message = message.err().unwrap_or_default();
            assert!(message.starts_with(said), "{message}");
        }
    }

    #[test]
    fn ids_are_written_one_way() {
        assert_eq!(plain_id("0"), Some(0));
        assert_eq!(plain_id("65535"), Some(65_535));
        for other in ["", "+0", "00", "-0", " 0", "0 ", "1e0", "1.0", "٣"] {
            assert_eq!(plain_id(other), None, "{other:?}");
        }
    }
}
