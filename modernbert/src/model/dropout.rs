//! The dropouts of a config.

use crate::batch::DropoutRates;
use crate::config::ModernBertConfig;

/// The rates a config asks for, at the sites where transformers has them: `attention_dropout` both of the probabilities and after the
/// output projection.
impl From<&ModernBertConfig> for DropoutRates {
    fn from(config: &ModernBertConfig) -> Self {
        Self {
            embedding: config.embedding_dropout,
            attention_probabilities: config.attention_dropout,
            attention_output: config.attention_dropout,
            mlp: config.mlp_dropout,
            classifier: config.classifier_dropout,
        }
    }
}
