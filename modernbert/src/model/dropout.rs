//! The dropout rates of a config.

use crate::batch::DropoutRates;
use crate::config::{Family, ModernBertConfig};

/// Returns the rates a config asks for, at the sites where transformers has them: `attention_dropout` applies both to the
/// probabilities and after the output projection, unless `flexbert.attn_out_dropout_prob` sets the latter. In BERT and RoBERTa `mlp_dropout` applies after the
/// MLP, and RoBERTa's head of sequence classification has `classifier_dropout` before its dense layer too.
pub fn dropout_rates(config: &ModernBertConfig) -> DropoutRates {
    let inside = config.family == Family::ModernBert;
    let mlp = |here: bool| if here { config.mlp_dropout } else { 0.0 };
    let drops_pooled = config.family.is_roberta();
    DropoutRates {
        embedding: config.embedding_dropout,
        attention_probabilities: config.attention_dropout,
        attention_output: config
            .flexbert
            .attn_out_dropout_prob
            .unwrap_or(config.attention_dropout),
        mlp: mlp(inside),
        mlp_output: mlp(!inside),
        head: if drops_pooled {
            config.classifier_dropout
        } else {
            0.0
        },
        classifier: config.classifier_dropout,
    }
}
