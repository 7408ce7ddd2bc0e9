//! The published sizes.
//!
//! `base` and `large` are ModernBERT (paper, table 4). The others are the sizes of the Ettin family of encoders, which has the same
//! architecture; only their shapes are given here, under ModernBERT's vocabulary and constants.

use super::{Activation, ConfigError, Family, FlexOptions, LayerType, ModernBertConfig, Pooling};

/// Name, layers, hidden size, intermediate size, heads.
const PRESETS: [(&str, usize, usize, usize, usize); 7] = [
    ("17m", 7, 256, 384, 4),
    ("32m", 10, 384, 576, 6),
    ("68m", 19, 512, 768, 8),
    ("base", 22, 768, 1152, 12),
    ("large", 28, 1024, 2624, 16),
    ("400m", 28, 1024, 2624, 16),
    ("1b", 28, 1792, 3840, 28),
];

impl ModernBertConfig {
    /// Names of the presets, smallest model first; see [`Self::preset`].
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.0)
    }

    /// ModernBERT-base: 22 layers of width 768, 149 million parameters.
    pub fn base() -> Self {
        Self::of_shape(22, 768, 1152, 12)
    }

    /// ModernBERT-large: 28 layers of width 1024, 395 million parameters.
    pub fn large() -> Self {
        Self::of_shape(28, 1024, 2624, 16)
    }

    /// The model of this name: `17m`, `32m`, `68m`, `base`, `large`, `400m` or `1b`.
    ///
    /// # Errors
    /// [`ConfigError::Preset`] for any other name.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        let found = PRESETS.iter().find(|preset| preset.0 == name);
        let Some(&(_, layers, hidden, intermediate, heads)) = found else {
            let known: Vec<_> = Self::preset_names().collect();
            return Err(ConfigError::Preset {
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        Ok(Self::of_shape(layers, hidden, intermediate, heads))
    }

    /// A model of this shape with every other setting as in ModernBERT: vocabulary 50368, every third layer global.
    pub fn of_shape(
        num_hidden_layers: usize,
        hidden_size: usize,
        intermediate_size: usize,
        num_attention_heads: usize,
    ) -> Self {
        Self {
            family: Family::ModernBert,
            token_types: 0,
            vocab_size: 50368,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            hidden_activation: Activation::Gelu,
            classifier_activation: Activation::Gelu,
            norm_eps: 1e-5,
            norm_bias: false,
            attention_bias: false,
            mlp_bias: false,
            classifier_bias: false,
            decoder_bias: true,
            tie_word_embeddings: true,
            layer_types: LayerType::every_n(num_hidden_layers, 3).unwrap_or_default(),
            local_attention: 128,
            global_rope_theta: 160_000.0,
            local_rope_theta: 10_000.0,
            max_position_embeddings: 8192,
            attention_dropout: 0.0,
            embedding_dropout: 0.0,
            mlp_dropout: 0.0,
            classifier_dropout: 0.0,
            classifier_pooling: Pooling::Mean,
            initializer_range: 0.02,
            initializer_cutoff_factor: 2.0,
            bos_token_id: Some(50281),
            eos_token_id: Some(50282),
            cls_token_id: Some(50281),
            sep_token_id: Some(50282),
            pad_token_id: Some(50283),
            id2label: None,
            num_labels: None,
            problem_type: None,
            architectures: vec!["ModernBertForMaskedLM".to_owned()],
            flexbert: FlexOptions::default(),
        }
    }
}
