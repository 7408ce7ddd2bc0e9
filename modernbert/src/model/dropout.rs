//! The dropout rates of a config.

use crate::batch::DropoutRates;
use crate::config::ModernBertConfig;

/// Returns the rates a config asks for, at the sites where transformers has them: `attention_dropout` applies both to the
/// probabilities and after the output projection, unless `flexbert.attn_out_dropout_prob` sets the latter.
pub fn dropout_rates(config: &ModernBertConfig) -> DropoutRates {
    DropoutRates {
        embedding: config.embedding_dropout,
        attention_probabilities: config.attention_dropout,
        attention_output: config
            .flexbert
            .attn_out_dropout_prob
            .unwrap_or(config.attention_dropout),
        mlp: config.mlp_dropout,
        classifier: config.classifier_dropout,
        mlp_output: 0.0,
        head: 0.0,
    }
}
