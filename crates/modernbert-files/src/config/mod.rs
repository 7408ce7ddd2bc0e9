//! The configuration of a ModernBERT: sizes, flags and constants, as in Hugging Face's `config.json`.
//!
//! | item | contents |
//! |---|---|
//! | this file | the struct, and quantities that follow from it directly |
//! | [`hf`](ModernBertConfig::from_json_str) | `config.json` in and out, in the forms of transformers 4.x and 5.x |
//! | `bert`, [`Family`] | the same for BERT and RoBERTa |
//! | [`presets`](ModernBertConfig::preset) | the published sizes, by name |
//! | [`validate`](ModernBertConfig::validate) | checks, each error with its remedy |
//! | [`flexbert`] | architecture choices beyond the published ones; [`ModernBertConfig::spec`] resolves a config to plain data per layer |
//! | [`count`](ModernBertConfig::encoder_parameters) | parameters and floating-point operations, counted on that specification |
//! | [`shapes`] | how well a shape fills GPUs, constraints of the published shapes, search |
//!
//! Paper: <https://arxiv.org/abs/2412.13663>, table 4 and section 2.1.

mod activation;
mod bert;
mod count;
mod family;
pub mod flexbert;
mod hf;
mod hf_write;
mod presets;
pub mod shapes;
#[cfg(test)]
mod tests;
mod validate;

pub use activation::Activation;
pub use family::{Family, Head};
pub use flexbert::{FlexOptions, ModelSpec};
pub use hf::MAX_LABELS;
use validate::MAX_LAYERS;
pub use validate::{ConfigError, fits_f32, is_share};

/// The attention window of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerType {
    /// Every token of its own sequence: `full_attention`.
    Global,
    /// The tokens within [`ModernBertConfig::half_window`] on each side: `sliding_attention`.
    Local,
}

impl LayerType {
    /// The layer types of `num_layers` layers of which number 0, n, 2n, … are global; `None` if `n` is 0.
    /// The list ends at the 65536th layer, more than [`ModernBertConfig::validate`] accepts.
    pub fn every_n(num_layers: usize, n: usize) -> Option<Vec<Self>> {
        let layer = |i: usize| {
            if i.is_multiple_of(n) {
                Self::Global
            } else {
                Self::Local
            }
        };
        (n > 0).then(|| (0..num_layers.min(MAX_LAYERS)).map(layer).collect())
    }

    /// The name used by transformers 5.x.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "full_attention",
            Self::Local => "sliding_attention",
        }
    }
}

/// Reduction of token states to one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Pooling {
    /// The first token: `cls`.
    #[default]
    Cls,
    /// The mean over the real tokens: `mean`.
    Mean,
    /// The largest value of each feature over the real tokens: `max`. For embeddings; Hugging Face's classifiers don't know it.
    Max,
    /// The mean over the real tokens with weights 1, 2, 3, … by position: `weightedmean`. For embeddings only, as [`Self::Max`].
    WeightedMean,
}

/// An unknown name of a pooling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pooling; give one of {names}", names = Pooling::ALL.map(Pooling::name).join(", "))]
pub struct UnknownPooling(String);

impl Pooling {
    /// Every pooling. The readers and writers of files and the arguments of programs use this list.
    pub const ALL: [Self; 4] = [Self::Cls, Self::Mean, Self::Max, Self::WeightedMean];

    /// The name used in files and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cls => "cls",
            Self::Mean => "mean",
            Self::Max => "max",
            Self::WeightedMean => "weightedmean",
        }
    }

    /// The key that is true for this pooling in sentence-transformers' `1_Pooling/config.json`.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Cls => "pooling_mode_cls_token",
            Self::Mean => "pooling_mode_mean_tokens",
            Self::Max => "pooling_mode_max_tokens",
            Self::WeightedMean => "pooling_mode_weightedmean_tokens",
        }
    }
}

impl serde::Serialize for Pooling {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Pooling {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Pooling {
    type Err = UnknownPooling;

    /// Reads a name; hyphens are ignored, so that `weighted-mean` is accepted too.
    fn from_str(name: &str) -> Result<Self, UnknownPooling> {
        let plain = name.replace('-', "");
        let found = Self::ALL.into_iter().find(|one| one.name() == plain);
        found.ok_or_else(|| UnknownPooling(name.to_string()))
    }
}

/// The loss that a classifier is trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// Mean squared error: `regression`.
    Regression,
    /// Cross entropy over the labels: `single_label_classification`.
    SingleLabel,
    /// An independent yes or no for each label: `multi_label_classification`.
    MultiLabel,
}

impl ProblemType {
    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regression => "regression",
            Self::SingleLabel => "single_label_classification",
            Self::MultiLabel => "multi_label_classification",
        }
    }
}

/// The shapes and the arithmetic of a model.
///
/// The fields are public and may be set to anything; [`ModernBertConfig::validate`] checks that a model can be built from them.
#[derive(Clone, Debug, PartialEq)]
pub struct ModernBertConfig {
    /// The family of the model's files.
    pub family: Family,
    /// Rows of the token-type embedding, 0 for none; BERT and RoBERTa alone have one.
    pub token_types: usize,
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP after the gate; its input matrix has twice as many rows.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Heads per layer; must divide `hidden_size`.
    pub num_attention_heads: usize,
    /// Activation of the MLPs.
    pub hidden_activation: Activation,
    /// Activation of the heads.
    pub classifier_activation: Activation,
    /// Added to the variance inside the square root of every LayerNorm.
    pub norm_eps: f64,
    /// True if LayerNorms have a bias.
    pub norm_bias: bool,
    /// True if `Wqkv` and `Wo` of attention have a bias.
    pub attention_bias: bool,
    /// True if `Wi` and `Wo` of the MLP have a bias.
    pub mlp_bias: bool,
    /// True if the dense layer of the heads has a bias.
    pub classifier_bias: bool,
    /// True if the masked-language-model decoder has a bias.
    pub decoder_bias: bool,
    /// True if the decoder shares the token embedding.
    pub tie_word_embeddings: bool,
    /// The type of each layer, first to last.
    pub layer_types: Vec<LayerType>,
    /// Total width of the window of a local layer, the token itself not counted: 128 is 64 on each side.
    pub local_attention: usize,
    /// Base of the rotary frequencies of global layers.
    pub global_rope_theta: f64,
    /// Base of the rotary frequencies of local layers.
    pub local_rope_theta: f64,
    /// Longest sequence of the model, in tokens. Only learned positions depend on it.
    pub max_position_embeddings: usize,
    /// Dropout of the attention probabilities, and after the attention output projection, as in transformers.
    pub attention_dropout: f64,
    /// Dropout after the embedding norm.
    pub embedding_dropout: f64,
    /// Dropout inside the MLP, after the gate; in BERT and RoBERTa after the MLP.
    pub mlp_dropout: f64,
    /// Dropout before the classifier.
    pub classifier_dropout: f64,
    /// Pooling of a sequence classifier.
    pub classifier_pooling: Pooling,
    /// Standard deviation of the random initialization.
    pub initializer_range: f64,
    /// Random weights are cut off at this many standard deviations.
    pub initializer_cutoff_factor: f64,
    /// Id of the beginning-of-sequence token.
    pub bos_token_id: Option<u32>,
    /// Id of the end-of-sequence token.
    pub eos_token_id: Option<u32>,
    /// Id of `[CLS]`.
    pub cls_token_id: Option<u32>,
    /// Id of `[SEP]`.
    pub sep_token_id: Option<u32>,
    /// Id of `[PAD]`.
    pub pad_token_id: Option<u32>,
    /// Label names, in the order of their ids.
    pub id2label: Option<Vec<String>>,
    /// Number of labels; agrees with `id2label` where both are given.
    pub num_labels: Option<usize>,
    /// The loss that a classifier is trained with; `None` leaves it to the labels.
    pub problem_type: Option<ProblemType>,
    /// Classes the weights belong to, such as `ModernBertForMaskedLM`.
    pub architectures: Vec<String>,
    /// Choices in which the model differs from the published architecture.
    pub flexbert: FlexOptions,
}

impl ModernBertConfig {
    /// Width of one attention head. 0 when there are no heads, which [`Self::validate`] refuses.
    pub fn head_dim(&self) -> usize {
        let equal_shares = self.hidden_size.checked_div(self.num_attention_heads);
        self.flexbert.head_dim.or(equal_shares).unwrap_or(0)
    }

    /// Row of the position embedding of a sequence's first token: `pad_token_id + 1` in RoBERTa, whose first rows belong to padding, else 0.
    pub fn first_position(&self) -> usize {
        match (self.family.is_roberta(), self.pad_token_id) {
            (true, Some(pad)) => pad as usize + 1,
            _ => 0,
        }
    }

    /// Farthest distance, inclusive and on each side, at which a local layer attends: 64 for a window of 128.
    pub fn half_window(&self) -> usize {
        self.local_attention / 2
    }

    /// Base of the rotary frequencies for layers of this type.
    pub fn rope_theta(&self, layer_type: LayerType) -> f64 {
        match layer_type {
            LayerType::Global => self.global_rope_theta,
            LayerType::Local => self.local_rope_theta,
        }
    }

    /// Outputs of a classifier: `num_labels`, the number of label names, or 2 where the file gives neither, as in transformers.
    pub fn label_count(&self) -> usize {
        let named = self.id2label.as_ref().map(Vec::len);
        self.num_labels.or(named).unwrap_or(2)
    }

    /// Type of layer `index`; `None` past the last layer.
    pub fn layer_type(&self, index: usize) -> Option<LayerType> {
        self.layer_types.get(index).copied()
    }

    /// The `n` for which exactly the layers 0, n, 2n, … are global, if the layer types follow such a rule.
    /// Where several fit, 3 (the published rule) is preferred, then the smallest.
    pub fn global_every_n(&self) -> Option<usize> {
        let layers = self.layer_types.len();
        let is_global = |i: &usize| self.layer_types[*i] == LayerType::Global;
        let second = (1..layers).find(is_global).unwrap_or(layers);
        let fits =
            |n: &usize| LayerType::every_n(layers, *n).is_some_and(|t| t == self.layer_types);
        [3, second].into_iter().find(fits)
    }

    /// The same model with layers 0, n, 2n, … global and the others local. `n` = 0 makes every layer local.
    #[must_use]
    pub fn with_every_n(mut self, n: usize) -> Self {
        self.layer_types = LayerType::every_n(self.num_hidden_layers, n)
            .unwrap_or_else(|| vec![LayerType::Local; self.num_hidden_layers.min(MAX_LAYERS)]);
        self
    }
}
