//! Hugging Face's `config.json`, in and out.
//!
//! transformers 4.x has `global_attn_every_n_layers`, `global_rope_theta` and `local_rope_theta`; 5.x has `layer_types` and
//! `rope_parameters`. Both are read, also mixed in one file, and both are written, so that either version loads a saved model. Where the
//! two disagree the newer form is used, as in 5.x itself. Files of BERT and RoBERTa are read by `bert.rs`. Keys of other encoders that would change the model are refused, all others are
//! ignored.
//!
//! A missing key takes the default of the Hugging Face class, so that one file means the same model in both libraries. One default differs
//! from the presets: the class pools `cls`, the published files set `mean`.
//!
//! The rotary base of local layers can be absent in three ways: the key is missing (10000, the class default), it is `null`, or it is -1.
//! The last two come from early checkpoints, which had one base for all layers: they take the base of the global layers.

use super::flexbert::{FlexOptions, RopeParameters, RopeScaling};
use super::hf_write::io_error;
use super::validate::MAX_LAYERS;
use super::{Activation, ConfigError, Family, LayerType, ModernBertConfig, Pooling, ProblemType};
use crate::checkpoint::int8;
use crate::kinds::{self, plain_id};
use crate::wording::of_json_reader;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;

/// Name of the object with the choices beyond ModernBERT's, and the model type of files that have it.
pub(super) const FLEXBERT: &str = "flexbert";

/// Most labels of a classifier; more are a mistake.
pub const MAX_LABELS: usize = 1 << 16;

/// A JSON object and the file it came from, so that each error names the file and the key.
pub(super) struct Fields<'a> {
    pub(super) map: &'a Map<String, Value>,
    source: &'a str,
}

impl Fields<'_> {
    pub(super) fn wrong(&self, key: &str, expected: &str) -> ConfigError {
        let value = self.map.get(key).map_or("missing".into(), Value::to_string);
        self.wrong_value(key, value, expected)
    }

    fn wrong_value(&self, key: &str, value: String, expected: &str) -> ConfigError {
        ConfigError::Value {
            source_name: self.source.to_owned(),
            key: key.to_owned(),
            value,
            expected: expected.to_owned(),
        }
    }

    /// The value of `key`; `None` if it is missing or null.
    fn given(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn get<T>(
        &self,
        key: &str,
        default: T,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, ConfigError> {
        self.given(key).map_or(Ok(default), |value| {
            read(value).ok_or_else(|| self.wrong(key, expected))
        })
    }

    pub(super) fn size(&self, key: &str, default: usize) -> Result<usize, ConfigError> {
        let read = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.get(key, default, "a whole number, 0 or more", read)
    }

    pub(super) fn number(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        self.get(key, default, "a number", Value::as_f64)
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        self.get(key, default, "true or false", Value::as_bool)
    }

    pub(super) fn activation(&self, key: &str) -> Result<Activation, ConfigError> {
        let names: Vec<_> = Activation::names().collect();
        let expected = format!("one of {}", names.join(", "));
        self.get(key, Activation::Gelu, &expected, |value| {
            value.as_str().and_then(Activation::from_name)
        })
    }

    /// A missing key has the default if the default is a token of this vocabulary; null means no token.
    pub(super) fn token(
        &self,
        key: &str,
        default: u32,
        vocab_size: usize,
    ) -> Result<Option<u32>, ConfigError> {
        if !self.map.contains_key(key) {
            return Ok(Some(default).filter(|id| (*id as usize) < vocab_size));
        }
        let read = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok()).map(Some);
        self.get(key, None, "a token id or null", read)
    }

    fn layer_types(&self, num_layers: usize) -> Result<Vec<LayerType>, ConfigError> {
        let expected = format!(
            "a list of {num_layers} entries, \"full_attention\" or \"sliding_attention\", one for each of num_hidden_layers"
        );
        let Some(given) = self.given("layer_types") else {
            let windows = self
                .given(FLEXBERT)
                .and_then(|flex| flex.get("sliding_windows"));
            if let Some(windows) = windows
                .and_then(Value::as_array)
                .filter(|list| list.len() == num_layers)
            {
                let of_window = |window: &Value| match window.as_u64() {
                    Some(0) => LayerType::Global,
                    _ => LayerType::Local,
                };
                return Ok(windows.iter().map(of_window).collect());
            }
            let n = self.size("global_attn_every_n_layers", 3)?;
            return LayerType::every_n(num_layers, n)
                .ok_or_else(|| self.wrong("global_attn_every_n_layers", "1 or more"));
        };
        let one = |value: &Value| match value.as_str()? {
            "full_attention" => Some(LayerType::Global),
            "sliding_attention" => Some(LayerType::Local),
            _ => None,
        };
        let list = given.as_array().filter(|list| list.len() == num_layers);
        list.and_then(|list| list.iter().map(one).collect())
            .ok_or_else(|| self.wrong("layer_types", &expected))
    }

    /// The rotary base of the 5.x form for this type of layer, if there is one.
    fn rope_parameters(&self, layer_type: LayerType) -> Result<Option<f64>, ConfigError> {
        let Some(outer) = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find(|key| self.given(key).is_some())
        else {
            return Ok(None);
        };
        let object = self.given(outer).and_then(Value::as_object);
        let nested = object.filter(|map| {
            !["rope_type", "type", "rope_theta"]
                .iter()
                .any(|k| map.contains_key(*k))
        });
        let Some(nested) = nested else {
            return Err(self.wrong(
                outer,
                "an object with the keys full_attention and sliding_attention",
            ));
        };
        let entry = nested
            .get(layer_type.name())
            .filter(|value| !value.is_null());
        let Some(entry) = entry else { return Ok(None) };
        let path = format!("{outer}.{}", layer_type.name());
        let Some(entry) = entry.as_object() else {
            return Err(self.wrong_value(
                &path,
                entry.to_string(),
                "an object with rope_type and rope_theta",
            ));
        };
        let theta = entry.get("rope_theta").filter(|theta| !theta.is_null());
        let number = |theta: &Value| {
            theta.as_f64().ok_or_else(|| {
                self.wrong_value(&format!("{path}.rope_theta"), theta.to_string(), "a number")
            })
        };
        theta.map(number).transpose()
    }

    /// The scaling of frequencies in an entry of `rope_parameters`; `None` for the default.
    fn scaling_of(
        &self,
        path: &str,
        entry: &Map<String, Value>,
    ) -> Result<Option<RopeScaling>, ConfigError> {
        let kinds = ["rope_type", "type"].map(|key| (key, entry.get(key)));
        let given = kinds
            .into_iter()
            .filter_map(|(key, kind)| Some((key, kind?)));
        let (key, kind) = match given.collect::<Vec<_>>()[..] {
            [] => ("rope_type", &Value::Null),
            [one] => one,
            [(_, one), (key, other), ..] if one != other => {
                return Err(self.wrong_value(
                    &format!("{path}.{key}"),
                    other.to_string(),
                    &format!("the same as rope_type, {one}"),
                ));
            }
            [one, ..] => one,
        };
        let is_default = kind.is_null() || kind.as_str() == Some("default");
        let mut fields = entry.clone();
        fields.retain(|key, value| {
            !value.is_null() && !matches!(key.as_str(), "rope_theta" | "type" | "rope_type")
        });
        if let Some(share) = fields.remove("partial_rotary_factor")
            && share.as_f64() != Some(1.0)
        {
            return Err(self.wrong_value(
                &format!("{path}.partial_rotary_factor"),
                share.to_string(),
                "1; rotary embeddings of a part of each head are flexbert.rotary_emb_dim",
            ));
        }
        if let Some(field) = fields
            .keys()
            .find(|key| !RopeScaling::FIELDS.contains(&key.as_str()))
        {
            return Err(self.wrong_value(
                &format!("{path}.{field}"),
                fields[field].to_string(),
                &format!(
                    "none: a field of rotary embeddings is rope_type, rope_theta, {}",
                    RopeScaling::FIELDS.join(", ")
                ),
            ));
        }
        if !is_default {
            fields.insert("rope_type".to_owned(), kind.clone());
        }
        let read = serde_json::from_value::<RopeScaling>(Value::Object(fields));
        match read {
            Ok(scaling) if is_default => {
                Ok(Some(scaling).filter(|scaling| *scaling != RopeScaling::default()))
            }
            Ok(scaling) if scaling.factor.is_some() => Ok(Some(scaling)),
            _ => Err(self.wrong_value(
                &format!("{path}.{key}"),
                kind.to_string(),
                "\"default\", or \"linear\", \"dynamic\" or \"yarn\" with a factor",
            )),
        }
    }

    /// The `flexbert` object, with the scaling of `rope_parameters` where the object has none.
    fn flexbert(&self) -> Result<FlexOptions, ConfigError> {
        let mut options = match self.given(FLEXBERT) {
            None => FlexOptions::default(),
            Some(value @ Value::Object(_)) => {
                FlexOptions::deserialize(value).map_err(|error| ConfigError::Value {
                    source_name: self.source.to_owned(),
                    key: FLEXBERT.to_owned(),
                    value: format!(
                        "an object with an invalid entry ({})",
                        of_json_reader(&error.to_string())
                    ),
                    expected: "the choices that docs/flexbert.md lists".to_owned(),
                })?
            }
            Some(_) => {
                return Err(self.wrong(
                    FLEXBERT,
                    "an object of the choices that docs/flexbert.md lists",
                ));
            }
        };
        let found = self.scalings()?;
        if found != RopeParameters::default() {
            if options.rope_parameters.is_some() && options.rope_parameters.as_ref() != Some(&found)
            {
                return Err(self.wrong(
                    "rope_parameters",
                    "the scaling of flexbert.rope_parameters, or none: one of the two places",
                ));
            }
            options.rope_parameters = Some(found);
        }
        Ok(options)
    }

    /// The scaling in `rope_parameters`, or in `rope_scaling` where the file has no `rope_parameters`.
    fn scalings(&self) -> Result<RopeParameters, ConfigError> {
        let Some((outer, object)) = self.rope_object() else {
            return Ok(RopeParameters::default());
        };
        let types = [LayerType::Global, LayerType::Local];
        if let Some(key) = object
            .keys()
            .find(|key| !types.iter().any(|one| one.name() == key.as_str()))
        {
            return Err(self.wrong_value(
                &format!("{outer}.{key}"),
                object[key].to_string(),
                "none: the kinds of layers are full_attention and sliding_attention",
            ));
        }
        let of = |layer_type: LayerType| -> Result<Option<RopeScaling>, ConfigError> {
            let name = layer_type.name();
            match object.get(name).and_then(Value::as_object) {
                Some(entry) => self.scaling_of(&format!("{outer}.{name}"), entry),
                None => Ok(None),
            }
        };
        Ok(RopeParameters {
            full_attention: of(LayerType::Global)?,
            sliding_attention: of(LayerType::Local)?,
        })
    }

    /// The object with the rotary embeddings of the 5.x form, and its name.
    fn rope_object(&self) -> Option<(&'static str, &Map<String, Value>)> {
        let outer = ["rope_parameters", "rope_scaling"]
            .into_iter()
            .find(|key| self.given(key).is_some())?;
        Some((outer, self.given(outer)?.as_object()?))
    }

    /// Refuses keys of other encoders, which say that the model is another one than the rest of the file describes.
    fn check_other_keys(&self) -> Result<(), ConfigError> {
        let quantized = self.given(int8::CONFIG_KEY);
        if quantized.is_some_and(|value| !int8::is_supported(value)) {
            return Err(self.wrong(
                int8::CONFIG_KEY,
                "that of compressed-tensors' int-quantized weights, symmetric, 8 bits, one scale per channel, activations with scales of the run time, without \
                 caches, transforms or sparsity: others are not supported; take the model with weights in f32, f16 or bf16",
            ));
        }
        let heads = self.given("num_attention_heads").and_then(Value::as_u64);
        let head_dim = self
            .given("hidden_size")
            .and_then(Value::as_u64)
            .zip(heads.filter(|heads| *heads > 0))
            .map(|(hidden, heads)| hidden / heads);
        for key in FlexOptions::KEYS {
            let same = match key {
                "rope_parameters" => continue,
                "num_key_value_heads" => heads,
                "head_dim" => head_dim,
                _ => None,
            };
            let Some(value) = self.given(key) else {
                continue;
            };
            if same.is_none() || value.as_u64() != same {
                return Err(self.wrong(
                    key,
                    &format!("none here: an architecture choice is written in the object flexbert, as flexbert.{key}"),
                ));
            }
        }
        Ok(())
    }

    /// Refuses a window of local layers beside `local_attention` that contradicts it: transformers 5 sets `local_attention` to twice this value.
    fn check_window(&self, local_attention: usize) -> Result<(), ConfigError> {
        let window = self.given("sliding_window");
        let agrees = |value: &Value| {
            value.as_u64().map(|n| n.saturating_mul(2)) == Some(local_attention as u64)
        };
        match window {
            Some(value) if !agrees(value) => Err(self.wrong(
                "sliding_window",
                &format!(
                    "{}, half of local_attention ({local_attention}), or none: transformers 5 sets local_attention to twice this value",
                    local_attention / 2
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses rotary embeddings of another kind, which transformers also reads beside `rope_parameters`.
    fn check_rope_kind(&self) -> Result<(), ConfigError> {
        let scaling = self.given("rope_scaling").and_then(Value::as_object);
        for key in ["rope_type", "type"] {
            let kind = scaling.and_then(|map| map.get(key));
            if let Some(kind) = kind.filter(|kind| kind.as_str() != Some("default")) {
                return Err(self.wrong_value(
                    &format!("rope_scaling.{key}"),
                    kind.to_string(),
                    "\"default\"; others are read in rope_parameters, for each kind of layer",
                ));
            }
        }
        if self.number("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(self.wrong(
                "partial_rotary_factor",
                "1; rotary embeddings of a part of each head are flexbert.rotary_emb_dim",
            ));
        }
        Ok(())
    }

    fn thetas(&self) -> Result<(f64, f64), ConfigError> {
        self.check_rope_kind()?;
        let global = match self.rope_parameters(LayerType::Global)? {
            Some(theta) => theta,
            None => self.number("global_rope_theta", 160_000.0)?,
        };
        let local = match self.rope_parameters(LayerType::Local)? {
            Some(theta) => theta,
            None if self.map.contains_key("local_rope_theta") => {
                self.number("local_rope_theta", -1.0)?
            }
            None => 10_000.0,
        };
        Ok((global, if local == -1.0 { global } else { local }))
    }

    /// `{"0": "name", "1": "other"}` in the order of the ids, or a list of names. Names may be numbers, as some tools write them. An id
    /// below the largest that has no name is called `LABEL_id`, as in transformers. Without `id2label`, `label2id` is read.
    fn labels(&self) -> Result<Option<Vec<String>>, ConfigError> {
        let name = |value: &Value| match value {
            Value::String(name) => Some(name.clone()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(flag) => Some(flag.to_string()),
            _ => None,
        };
        let by_id = |pairs: Vec<(usize, String)>| {
            let mut ids = HashSet::new();
            if !pairs.iter().all(|(id, _)| ids.insert(*id)) {
                return None;
            }
            let count = pairs.iter().map(|(id, _)| id + 1).max()?;
            let mut names: Vec<String> = (0..count).map(|id| format!("LABEL_{id}")).collect();
            for (id, name) in pairs {
                names[id] = name;
            }
            Some(names)
        };
        let id = |id: &str| plain_id(id).filter(|id| *id < MAX_LABELS);
        let named = |value: &Value| match value {
            Value::Array(names) => names.iter().map(name).collect::<Option<Vec<_>>>(),
            Value::Object(map) if map.is_empty() => Some(Vec::new()),
            Value::Object(map) => {
                let pairs = map
                    .iter()
                    .map(|(key, value)| Some((id(key)?, name(value)?)));
                by_id(pairs.collect::<Option<_>>()?)
            }
            _ => None,
        };
        let expected = format!(
            "an object from ids below {MAX_LABELS}, such as \"0\", each of them once, to the names of the labels"
        );
        let names = self.get("id2label", None, &expected, |value| named(value).map(Some))?;
        if let Some(names) = names {
            let other = self.given("label2id").and_then(Value::as_object);
            let differs = |(at, name): (usize, &String)| {
                other
                    .and_then(|ids| ids.get(name)?.as_u64())
                    .filter(|id| *id != at as u64)
            };
            if let Some(id) = names.iter().enumerate().find_map(differs) {
                return Err(self.wrong(
                    "label2id",
                    &format!("the ids of id2label, where id {id} has another name: correct one of the two"),
                ));
            }
            return Ok(Some(names).filter(|names| !names.is_empty()));
        }
        let inverted = |value: &Value| {
            let map = value.as_object()?;
            let pairs = map
                .iter()
                .map(|(name, value)| Some((id(&value.to_string())?, name.clone())));
            let pairs: Vec<_> = pairs.collect::<Option<_>>()?;
            match pairs.is_empty() {
                true => Some(None),
                false => by_id(pairs).map(Some),
            }
        };
        let expected = "an object from the names of the labels to their ids, each of them once";
        self.get("label2id", None, expected, inverted)
    }

    /// `num_hidden_layers`, below the length of a list.
    pub(super) fn layers(&self, default: usize) -> Result<usize, ConfigError> {
        let layers = self.size("num_hidden_layers", default)?;
        match layers >= MAX_LAYERS {
            true => Err(self.wrong("num_hidden_layers", &format!("less than {MAX_LAYERS}"))),
            false => Ok(layers),
        }
    }

    /// Names and number of the labels.
    pub(super) fn labels_and_count(
        &self,
    ) -> Result<(Option<Vec<String>>, Option<usize>), ConfigError> {
        let id2label = self.labels()?;
        let given = self.given("num_labels");
        let given = given.map(|_| self.size("num_labels", 0)).transpose()?;
        let named = id2label.as_ref().map(Vec::len);
        if let (Some(named), Some(_)) = (named, given.filter(|given| Some(*given) != named)) {
            return Err(self.wrong(
                "num_labels",
                &format!("{named}, as many as id2label names, or none"),
            ));
        }
        Ok((id2label, named.or(given)))
    }

    /// `problem_type`; an empty text is none.
    pub(super) fn problem_type(&self) -> Result<Option<ProblemType>, ConfigError> {
        let problem = |value: &Value| {
            let all = [
                ProblemType::Regression,
                ProblemType::SingleLabel,
                ProblemType::MultiLabel,
            ];
            if value.as_str() == Some("") {
                return Some(None);
            }
            all.into_iter()
                .find(|p| value.as_str() == Some(p.name()))
                .map(Some)
        };
        self.get(
            "problem_type",
            None,
            "\"regression\", \"single_label_classification\" or \"multi_label_classification\"",
            problem,
        )
    }

    /// `architectures`.
    pub(super) fn architectures(&self) -> Result<Vec<String>, ConfigError> {
        let names = |value: &Value| {
            let name = |v: &Value| v.as_str().map(str::to_owned);
            value.as_array()?.iter().map(name).collect()
        };
        self.get("architectures", Vec::new(), "a list of class names", names)
    }

    fn config(&self) -> Result<ModernBertConfig, ConfigError> {
        let vocab_size = self.size("vocab_size", 50368)?;
        let num_hidden_layers = self.layers(22)?;
        self.check_other_keys()?;
        let (global_rope_theta, local_rope_theta) = self.thetas()?;
        let local_attention = self.size("local_attention", 128)?;
        self.check_window(local_attention)?;
        let (id2label, num_labels) = self.labels_and_count()?;
        let pooling = |value: &Value| match value.as_str()? {
            "cls" => Some(Pooling::Cls),
            "mean" => Some(Pooling::Mean),
            _ => None,
        };
        Ok(ModernBertConfig {
            family: Family::ModernBert,
            token_types: 0,
            vocab_size,
            hidden_size: self.size("hidden_size", 768)?,
            intermediate_size: self.size("intermediate_size", 1152)?,
            num_hidden_layers,
            num_attention_heads: self.size("num_attention_heads", 12)?,
            hidden_activation: self.activation("hidden_activation")?,
            classifier_activation: self.activation("classifier_activation")?,
            norm_eps: self.number("norm_eps", 1e-5)?,
            norm_bias: self.flag("norm_bias", false)?,
            attention_bias: self.flag("attention_bias", false)?,
            mlp_bias: self.flag("mlp_bias", false)?,
            classifier_bias: self.flag("classifier_bias", false)?,
            decoder_bias: self.flag("decoder_bias", true)?,
            tie_word_embeddings: self.flag("tie_word_embeddings", true)?,
            layer_types: self.layer_types(num_hidden_layers)?,
            local_attention,
            global_rope_theta,
            local_rope_theta,
            max_position_embeddings: self.size("max_position_embeddings", 8192)?,
            attention_dropout: self.number("attention_dropout", 0.0)?,
            embedding_dropout: self.number("embedding_dropout", 0.0)?,
            mlp_dropout: self.number("mlp_dropout", 0.0)?,
            classifier_dropout: self.number("classifier_dropout", 0.0)?,
            classifier_pooling: self.get(
                "classifier_pooling",
                Pooling::Cls,
                "\"cls\" or \"mean\"",
                pooling,
            )?,
            initializer_range: self.number("initializer_range", 0.02)?,
            initializer_cutoff_factor: self.number("initializer_cutoff_factor", 2.0)?,
            bos_token_id: self.token("bos_token_id", 50281, vocab_size)?,
            eos_token_id: self.token("eos_token_id", 50282, vocab_size)?,
            cls_token_id: self.token("cls_token_id", 50281, vocab_size)?,
            sep_token_id: self.token("sep_token_id", 50282, vocab_size)?,
            pad_token_id: self.token("pad_token_id", 50283, vocab_size)?,
            id2label,
            num_labels,
            problem_type: self.problem_type()?,
            architectures: self.architectures()?,
            flexbert: self.flexbert()?,
        })
    }
}

/// The family of a `model_type`.
fn family_of(model_type: &Value) -> Option<Family> {
    let name = model_type.as_str()?;
    let found = Family::ALL.into_iter().find(|one| one.model_type() == name);
    found.or((name == FLEXBERT).then_some(Family::ModernBert))
}

impl ModernBertConfig {
    /// Reads the text of a `config.json`; `source_name` is its name in errors.
    ///
    /// # Errors
    /// Text that is no JSON object, another model type, a value of the wrong kind, and everything [`Self::validate`] refuses.
    pub fn from_json_str(text: &str, source_name: &str) -> Result<Self, ConfigError> {
        let not_json = |message: String| ConfigError::Json {
            source_name: source_name.to_owned(),
            message,
        };
        let json: Value =
            crate::json::parse(text.as_bytes()).map_err(|error| not_json(error.to_string()))?;
        let checked = kinds::check(kinds::CONFIG, &json);
        let own_keys = kinds::check(kinds::BERT_CONFIG, &json);
        let Value::Object(map) = json else {
            return Err(not_json("another JSON value".to_owned()));
        };
        let family = match map.get("model_type") {
            None => Family::ModernBert,
            Some(found) => family_of(found).ok_or_else(|| ConfigError::ModelType {
                source_name: source_name.to_owned(),
                found: found
                    .as_str()
                    .map_or_else(|| found.to_string(), str::to_owned),
            })?,
        };
        let of_family = match family {
            Family::ModernBert => Ok(()),
            _ => own_keys,
        };
        checked.and(of_family).map_err(|wrong| ConfigError::Value {
            source_name: source_name.to_owned(),
            key: wrong.key,
            value: wrong.value,
            expected: wrong.expected,
        })?;
        let fields = Fields {
            map: &map,
            source: source_name,
        };
        let config = match family {
            Family::ModernBert => fields.config()?,
            _ => fields.bert(family)?,
        };
        config.validate().map_err(|error| match error {
            ConfigError::Setting {
                setting,
                value,
                remedy,
            } => ConfigError::InFile {
                source_name: source_name.to_owned(),
                setting,
                value,
                remedy,
            },
            other => other,
        })?;
        Ok(config)
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// A file that cannot be read, and those of [`Self::from_json_str`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = crate::read::text(path).map_err(|source| io_error(path, source))?;
        Self::from_json_str(&text, &path.display().to_string())
    }
}
