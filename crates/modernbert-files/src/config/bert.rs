//! `config.json` of BERT and RoBERTa, in and out: the keys of transformers' classes as the architecture choices of this library.
//!
//! | key | choice |
//! |---|---|
//! | `hidden_act` | `hidden_activation`, and the activation of BERT's masked-language-model head; RoBERTa's head has GELU |
//! | `hidden_dropout_prob` | `embedding_dropout`, `mlp_dropout` (after `Wo` here), `flexbert.attn_out_dropout_prob` |
//! | `attention_probs_dropout_prob` | `attention_dropout` |
//! | `classifier_dropout` | `classifier_dropout`; null is `hidden_dropout_prob` |
//! | `layer_norm_eps` | `norm_eps` |
//! | `type_vocab_size` | `token_types` |
//! | `max_position_embeddings` | the same; RoBERTa's counts the positions below the first, `pad_token_id + 1`, as well |
//!
//! Blocks are `postnorm`, MLPs have no gate, positions are learned vectors, all layers are global, and every linear layer and norm has a bias.

use super::family::Family;
use super::flexbert::{AttentionKind, BlockKind, EmbeddingKind, MlpKind};
use super::hf::Fields;
use super::{Activation, ConfigError, FlexOptions, LayerType, ModernBertConfig, Pooling};
use serde_json::{Map, Value, json};

/// The oldest release of transformers that reads all keys written here.
const TRANSFORMERS_VERSION: &str = "4.9.0";

/// Choices that all models of these families share.
fn choices(family: Family, activation: Activation, dropout: f64) -> FlexOptions {
    FlexOptions {
        bert_layer: Some(BlockKind::Postnorm),
        attention_layer: Some(AttentionKind::Base),
        mlp_layer: Some(MlpKind::Mlp),
        embedding_layer: Some(EmbeddingKind::AbsolutePos),
        attn_out_dropout_prob: Some(dropout),
        head_pred_act: Some(match family.is_roberta() {
            true => Activation::Gelu,
            false => activation,
        }),
        head_class_act: Some(Activation::Tanh),
        head_class_norm: Some(false),
        ..FlexOptions::default()
    }
}

impl Fields<'_> {
    /// The config of a file whose model type is that of `family`, one of BERT and RoBERTa.
    pub(super) fn bert(&self, family: Family) -> Result<ModernBertConfig, ConfigError> {
        self.refuse_other_models()?;
        let vocab_size = self.size(
            "vocab_size",
            match family {
                Family::Roberta => 50265,
                _ => 30522,
            },
        )?;
        let num_hidden_layers = self.layers(12)?;
        let activation = self.activation("hidden_act")?;
        if activation.parameters() > 0 {
            return Err(self.wrong(
                "hidden_act",
                "an activation without parameters of its own, such as \"gelu\"",
            ));
        }
        let dropout = self.number("hidden_dropout_prob", 0.1)?;
        let (id2label, num_labels) = self.labels_and_count()?;
        let usual = |id: u32| family.is_roberta().then_some(id);
        let token = |key: &str, usual: Option<u32>| match usual {
            Some(usual) => self.token(key, usual, vocab_size),
            None if self.map.contains_key(key) => self.token(key, 0, vocab_size),
            None => Ok(None),
        };
        let pad_token_id = token("pad_token_id", Some(u32::from(family.is_roberta())))?;
        let (bos_token_id, eos_token_id) = (
            token("bos_token_id", usual(0))?,
            token("eos_token_id", usual(2))?,
        );
        let rows = self.size("max_position_embeddings", 512)?;
        let max_position_embeddings = match (family.is_roberta(), pad_token_id) {
            (false, _) => rows,
            (true, Some(pad)) if rows > pad as usize + 1 => rows - pad as usize - 1,
            (true, Some(pad)) => {
                return Err(self.wrong(
                    "max_position_embeddings",
                    &format!(
                        "more than {}: positions begin after pad_token_id ({pad})",
                        pad + 1
                    ),
                ));
            }
            (true, None) => {
                return Err(self.wrong(
                    "pad_token_id",
                    "the id of a token: the first position is the one after it",
                ));
            }
        };
        let token_types = self.size("type_vocab_size", 2)?;
        if token_types == 0 {
            return Err(self.wrong("type_vocab_size", "1 or more"));
        }
        let thetas = (160_000.0, 10_000.0); // No layer has rotary embeddings.
        Ok(ModernBertConfig {
            family,
            token_types,
            vocab_size,
            hidden_size: self.size("hidden_size", 768)?,
            intermediate_size: self.size("intermediate_size", 3072)?,
            num_hidden_layers,
            num_attention_heads: self.size("num_attention_heads", 12)?,
            hidden_activation: activation,
            classifier_activation: Activation::Gelu,
            norm_eps: self.number("layer_norm_eps", 1e-12)?,
            norm_bias: true,
            attention_bias: true,
            mlp_bias: true,
            classifier_bias: true,
            decoder_bias: true,
            tie_word_embeddings: self.flag("tie_word_embeddings", true)?,
            layer_types: vec![LayerType::Global; num_hidden_layers],
            local_attention: 128,
            global_rope_theta: thetas.0,
            local_rope_theta: thetas.1,
            max_position_embeddings,
            attention_dropout: self.number("attention_probs_dropout_prob", 0.1)?,
            embedding_dropout: dropout,
            mlp_dropout: dropout,
            classifier_dropout: self.number("classifier_dropout", dropout)?,
            classifier_pooling: Pooling::Cls,
            initializer_range: self.number("initializer_range", 0.02)?,
            initializer_cutoff_factor: 2.0,
            bos_token_id,
            eos_token_id,
            cls_token_id: token("cls_token_id", None)?,
            sep_token_id: token("sep_token_id", None)?,
            pad_token_id,
            id2label,
            num_labels,
            problem_type: self.problem_type()?,
            architectures: self.architectures()?,
            flexbert: choices(family, activation, dropout),
        })
    }

    /// Refuses settings with which transformers' class computes something else.
    fn refuse_other_models(&self) -> Result<(), ConfigError> {
        let absolute = |value: &Value| (value.as_str() == Some("absolute")).then_some(());
        self.get(
            "position_embedding_type",
            (),
            "\"absolute\": other encodings of positions are not supported in this family",
            absolute,
        )?;
        for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            if self.flag(key, false)? {
                return Err(self.wrong(key, "false: decoders are not supported"));
            }
        }
        let is_empty = |value: &Value| {
            let empty = value.as_object().is_some_and(Map::is_empty);
            empty.then_some(())
        };
        self.get(
            "pruned_heads",
            (),
            "an object without entries: pruned heads are not supported",
            is_empty,
        )?;
        let none = |_: &Value| None;
        let full = "none: weights of this family are read in f32, f16 and bf16";
        self.get("quantization_config", (), full, none)?;
        let choices = "none: the architecture of this family is fixed";
        self.get(super::hf::FLEXBERT, (), choices, none)
    }
}

impl ModernBertConfig {
    /// `config.json` of BERT and RoBERTa.
    pub(super) fn bert_json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
        let head = self.architectures.iter().map(|class| {
            let head = super::family::Head::of_class(class);
            head.map_or(class.as_str(), |head| self.family.class(head))
        });
        put("architectures", json!(head.collect::<Vec<_>>()));
        put(
            "attention_probs_dropout_prob",
            json!(self.attention_dropout),
        );
        put("bos_token_id", json!(self.bos_token_id));
        put("classifier_dropout", json!(self.classifier_dropout));
        put("dtype", json!("float32"));
        put("eos_token_id", json!(self.eos_token_id));
        put("hidden_act", json!(self.hidden_activation.name()));
        put("hidden_dropout_prob", json!(self.embedding_dropout));
        put("hidden_size", json!(self.hidden_size));
        self.put_labels(&mut put);
        put("initializer_range", json!(self.initializer_range));
        put("intermediate_size", json!(self.intermediate_size));
        put("layer_norm_eps", json!(self.norm_eps));
        put(
            "max_position_embeddings",
            json!(self.max_position_embeddings + self.first_position()),
        );
        put("model_type", json!(self.family.model_type()));
        put("num_attention_heads", json!(self.num_attention_heads));
        put("num_hidden_layers", json!(self.num_hidden_layers));
        put("pad_token_id", json!(self.pad_token_id));
        put("position_embedding_type", json!("absolute"));
        if let Some(problem) = self.problem_type {
            put("problem_type", json!(problem.name()));
        }
        put("tie_word_embeddings", json!(self.tie_word_embeddings));
        put("torch_dtype", json!("float32"));
        put("transformers_version", json!(TRANSFORMERS_VERSION));
        put("type_vocab_size", json!(self.token_types));
        put("use_cache", json!(true));
        put("vocab_size", json!(self.vocab_size));
        for (key, id) in [
            ("cls_token_id", self.cls_token_id),
            ("sep_token_id", self.sep_token_id),
        ] {
            if let Some(id) = id {
                put(key, json!(id));
            }
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(json: &Value) -> Result<ModernBertConfig, String> {
        let read = ModernBertConfig::from_json_str(&json.to_string(), "m/config.json");
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn missing_keys_have_the_defaults_of_transformers() {
        let bert = read(&json!({"model_type": "bert"})).unwrap();
        assert_eq!(bert.vocab_size, 30522);
        assert_eq!((bert.norm_eps, bert.token_types), (1e-12, 2));
        assert_eq!(
            (bert.max_position_embeddings, bert.first_position()),
            (512, 0)
        );
        assert_eq!((bert.pad_token_id, bert.bos_token_id), (Some(0), None));
        assert_eq!(
            (bert.classifier_dropout, bert.attention_dropout),
            (0.1, 0.1)
        );
        // 110 million parameters, without the pooler.
        assert_eq!(bert.encoder_parameters(), 109_482_240 - 590_592);
        let roberta =
            json!({"model_type": "roberta", "max_position_embeddings": 514, "type_vocab_size": 1});
        let roberta = read(&roberta).unwrap();
        assert_eq!(roberta.vocab_size, 50265);
        assert_eq!(
            (roberta.max_position_embeddings, roberta.first_position()),
            (512, 2)
        );
        assert_eq!(roberta.encoder_parameters(), 124_645_632 - 590_592);
        assert_eq!(roberta.eos_token_id, Some(2));
        let other =
            read(&json!({"model_type": "xlm-roberta", "hidden_dropout_prob": 0.3})).unwrap();
        assert_eq!(
            (other.family, other.classifier_dropout),
            (Family::XlmRoberta, 0.3)
        );
    }

    #[test]
    fn a_written_config_is_read_as_the_same() {
        for json in [
            json!({"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_act": "relu", "num_hidden_layers": 3}),
            json!({"model_type": "roberta", "classifier_dropout": 0.2, "id2label": {"0": "no", "1": "yes"}}),
            json!({"model_type": "xlm-roberta", "problem_type": "regression", "num_labels": 1, "tie_word_embeddings": false}),
        ] {
            let config = read(&json).unwrap();
            let written: Value = serde_json::from_str(&config.to_json_string()).unwrap();
            for (key, value) in json.as_object().unwrap() {
                assert_eq!(&written[key], value, "{key}");
            }
            assert_eq!(read(&written).unwrap(), config);
        }
    }

    #[test]
    fn the_class_is_written_in_the_names_of_the_family() {
        let mut config = read(&json!({"model_type": "roberta"})).unwrap();
        config.architectures = vec!["ModernBertForTokenClassification".to_owned()];
        assert!(
            config
                .to_json_string()
                .contains("\"RobertaForTokenClassification\"")
        );
    }

    #[test]
    fn settings_of_other_models_are_refused_with_file_and_key() {
        for (key, value) in [
            ("is_decoder", json!(true)),
            ("add_cross_attention", json!(true)),
            ("is_encoder_decoder", json!(true)),
            ("position_embedding_type", json!("relative_key")),
            ("position_embedding_type", json!("relative_key_query")),
            ("pruned_heads", json!({"1": [0]})),
            (
                "quantization_config",
                json!({"quant_method": "bitsandbytes"}),
            ),
            ("flexbert", json!({"bert_layer": "prenorm"})),
            ("type_vocab_size", json!(0)),
            ("type_vocab_size", json!("2")),
            ("hidden_act", json!("prelu")),
            ("hidden_act", json!("no_such")),
            ("hidden_act", json!(3)),
            ("hidden_dropout_prob", json!("0.1")),
            ("num_attention_heads", json!(7)),
            ("layer_norm_eps", json!(-1.0)),
            ("attention_probs_dropout_prob", json!(1.5)),
        ] {
            let message = read(&json!({"model_type": "bert", key: value})).unwrap_err();
            let named = match key {
                "layer_norm_eps" => "norm_eps",
                "attention_probs_dropout_prob" => "attention_dropout",
                key => key,
            };
            assert!(
                message.starts_with(&format!("m/config.json: {named} is ")),
                "{message}"
            );
        }
        let none = json!({"model_type": "roberta", "pad_token_id": null});
        let message = read(&none).unwrap_err();
        assert!(message.contains("pad_token_id is null"), "{message}");
        let few = json!({"model_type": "roberta", "max_position_embeddings": 2});
        let message = read(&few).unwrap_err();
        assert!(message.contains("more than 2"), "{message}");
        for other in ["albert", "electra", "distilbert", "camembert"] {
            let message = read(&json!({"model_type": other})).unwrap_err();
            assert!(message.contains("\"bert\", \"roberta\""), "{message}");
        }
    }
}
