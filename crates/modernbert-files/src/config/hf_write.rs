//! Writing `config.json` in the forms of both transformers 4.x and 5.x.

use super::hf::FLEXBERT;
use super::{ConfigError, Family, FlexOptions, LayerType, ModernBertConfig};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The first release with this model, and the oldest one that reads the written files.
const TRANSFORMERS_VERSION: &str = "4.48.0";

pub(super) fn io_error(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Io {
        path: path.to_owned(),
        source,
    }
}

impl ModernBertConfig {
    /// The text of a `config.json` that transformers 4.48 and later, 5.x included, read as this model.
    ///
    /// A model with choices beyond the published architecture has them in an object `flexbert`, and is of type `flexbert`, which transformers
    /// refuses to load.
    ///
    /// 4.x has no key for layer types that follow no rule; `global_attn_every_n_layers` is left out then, and only 5.x reads the model
    /// correctly.
    ///
    /// A model of another [`Family`] is written in the form of that family.
    pub fn to_json_string(&self) -> String {
        if self.family != Family::ModernBert {
            return format!("{:#}\n", self.bert_json());
        }
        let rope = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
        let layer_types: Vec<_> = self.layer_types.iter().map(|t| t.name()).collect();
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        put("architectures", json!(self.architectures));
        put("attention_bias", json!(self.attention_bias));
        put("attention_dropout", json!(self.attention_dropout));
        put("bos_token_id", json!(self.bos_token_id));
        put(
            "classifier_activation",
            json!(self.classifier_activation.name()),
        );
        put("classifier_bias", json!(self.classifier_bias));
        put("classifier_dropout", json!(self.classifier_dropout));
        put("classifier_pooling", json!(self.classifier_pooling.name()));
        put("cls_token_id", json!(self.cls_token_id));
        put("decoder_bias", json!(self.decoder_bias));
        put("deterministic_flash_attn", json!(false));
        put("dtype", json!("float32"));
        put("embedding_dropout", json!(self.embedding_dropout));
        put("eos_token_id", json!(self.eos_token_id));
        if let Some(n) = self.global_every_n() {
            put("global_attn_every_n_layers", json!(n));
        }
        put("global_rope_theta", json!(self.global_rope_theta));
        put("gradient_checkpointing", json!(false));
        put("hidden_activation", json!(self.hidden_activation.name()));
        put("hidden_size", json!(self.hidden_size));
        self.put_labels(&mut put);
        put(
            "initializer_cutoff_factor",
            json!(self.initializer_cutoff_factor),
        );
        put("initializer_range", json!(self.initializer_range));
        put("intermediate_size", json!(self.intermediate_size));
        put("layer_norm_eps", json!(self.norm_eps));
        put("layer_types", json!(layer_types));
        put("local_attention", json!(self.local_attention));
        put("local_rope_theta", json!(self.local_rope_theta));
        put(
            "max_position_embeddings",
            json!(self.max_position_embeddings),
        );
        put("mlp_bias", json!(self.mlp_bias));
        put("mlp_dropout", json!(self.mlp_dropout));
        // transformers would load another architecture as ModernBERT and ignore the choices, so that such files have a type of their own.
        let choices = self.flexbert_value();
        let model_type = choices.as_ref().map_or("modernbert", |_| FLEXBERT);
        if let Some(choices) = choices {
            put(FLEXBERT, choices);
        }
        put("model_type", json!(model_type));
        put("norm_bias", json!(self.norm_bias));
        put("norm_eps", json!(self.norm_eps));
        put("num_attention_heads", json!(self.num_attention_heads));
        put("num_hidden_layers", json!(self.num_hidden_layers));
        put("pad_token_id", json!(self.pad_token_id));
        put("position_embedding_type", json!("absolute"));
        if let Some(problem) = self.problem_type {
            put("problem_type", json!(problem.name()));
        }
        put(
            "rope_parameters",
            json!({
                LayerType::Global.name(): rope(self.global_rope_theta),
                LayerType::Local.name(): rope(self.local_rope_theta),
            }),
        );
        put("sep_token_id", json!(self.sep_token_id));
        put("tie_word_embeddings", json!(self.tie_word_embeddings));
        put("torch_dtype", json!("float32"));
        put("transformers_version", json!(TRANSFORMERS_VERSION));
        put("vocab_size", json!(self.vocab_size));
        format!("{:#}\n", Value::Object(map))
    }

    /// Names, or number, of the labels.
    pub(super) fn put_labels(&self, put: &mut impl FnMut(&str, Value) -> Option<Value>) {
        if let Some(labels) = &self.id2label {
            let by_id = labels.iter().enumerate();
            let ids = by_id
                .clone()
                .map(|(id, name)| (id.to_string(), json!(name)));
            put("id2label", Value::Object(ids.collect()));
            let names = by_id.map(|(id, name)| (name.clone(), json!(id)));
            put("label2id", Value::Object(names.collect()));
        } else if let Some(n) = self.num_labels {
            put("num_labels", json!(n));
        }
    }

    /// The `flexbert` object; `None` for the published architecture, however it is described.
    fn flexbert_value(&self) -> Option<Value> {
        let published = Self {
            flexbert: FlexOptions::default(),
            ..self.clone()
        };
        let same = self.spec() == published.spec() && self.flexbert.attn_out_dropout_prob.is_none();
        // Numbers, names, lists and objects of these: always valid JSON.
        let value = || serde_json::to_value(&self.flexbert).unwrap_or(Value::Null);
        (!same).then(value)
    }

    /// Writes a `config.json`; see [`Self::to_json_string`]. The file appears complete or not at all.
    ///
    /// # Errors
    /// [`ConfigError::Io`], with the path.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ConfigError> {
        let path = path.as_ref();
        let written = crate::atomic::write_atomically(path, self.to_json_string().as_bytes());
        written.map_err(|source| io_error(path, source))
    }
}
