//! Architecture choices beyond ModernBERT's: the modular encoder FlexBERT.
//!
//! | item | contents |
//! |---|---|
//! | [`FlexOptions`] | the choices as files give them: each is optional, and absent means ModernBERT's |
//! | [`kinds`](BlockKind) | the values of the choices |
//! | [`rope`](RotarySpec) | rotary embeddings: partial, interleaved, scaled; their frequencies |
//! | [`spec`](ModelSpec) | the choices resolved once to one [`LayerSpec`] per layer, from which layers are built and counted |
//! | [`count`](ModelSpec::encoder_tensors) | names and shapes of the parameters of a specification |
//! | `refuse` | combinations that describe no model, each error with both settings |
//!
//! Equations, kernels and cost of each choice: `docs/flexbert.md`. Paper: <https://arxiv.org/abs/2412.13663>, section 1 and appendix D.

mod count;
mod kinds;
mod refuse;
mod rope;
mod spec;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::{Activation, Pooling};
pub(super) use count::elements;
pub use kinds::{AttentionKind, BlockKind, EmbeddingKind, MlpKind, NormKind};
pub use rope::{RopeParameters, RopeScaling, RopeType, RotarySpec};
pub use spec::{
    AttentionPart, HeadSpec, LayerSpec, LossSpec, MlpSpec, ModelSpec, NormSpec, alibi_slopes,
};

/// The choices of the `flexbert` object in `config.json` and of `[model.flexbert]` in a recipe. `None` is the published model's choice, or
/// follows from the others where the description says so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlexOptions {
    /// Order of norms and sums in a layer: `"prenorm"` (default), `"postnorm"`, or `"parallel_prenorm"`, which adds attention and MLP of one
    /// norm and needs `attention_layer` `rope_parallel` or `parallel` and `mlp_layer` `parallel_glu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bert_layer: Option<BlockKind>,
    /// `"rope"` (default) or `"base"`, without rotary embeddings; `"rope_parallel"` and `"parallel"` are the same with queries, keys, values
    /// and the MLP's input from one matrix, `Wqkvff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_layer: Option<AttentionKind>,
    /// `"glu"` (default): the activated half times the other half; `"mlp"`: no gate; `"parallel_glu"`: gated, from `Wqkvff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_layer: Option<MlpKind>,
    /// Number of first layers for which the `initial_` choices count. 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_initial_layers: Option<usize>,
    /// `bert_layer` of the first layers. That of the others by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_bert_layer: Option<BlockKind>,
    /// `attention_layer` of the first layers. That of the others by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_attention_layer: Option<AttentionKind>,
    /// `mlp_layer` of the first layers. That of the others by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_mlp_layer: Option<MlpKind>,
    /// True if the first layer has no norm before its attention. By default true if the embedding has a norm and the first layer is not
    /// `postnorm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_first_prenorm: Option<bool>,
    /// True (default) if a norm follows the embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed_norm: Option<bool>,
    /// True if a norm follows the last layer. True by default unless the last layer is `postnorm`; other values are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_norm: Option<bool>,
    /// `"layernorm"` (default) or `"rmsnorm"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalization: Option<NormKind>,
    /// True (default) if norms have a weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_scale: Option<bool>,
    /// `"sans_pos"` (default): tokens alone; `"absolute_pos"`: with a learned vector for each position; `"alibi"`: with a bias on the attention
    /// scores that grows with the distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_layer: Option<EmbeddingKind>,
    /// Batches are packed before the embedding in any case. The key is read for files of FlexBERT, which excludes `true` with `absolute_pos`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpad_embeddings: Option<bool>,
    /// Elements of a head with rotary embeddings, an even number; the others have no position. The whole head by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary_emb_dim: Option<usize>,
    /// Elements of a head with rotary embeddings in local layers. `rotary_emb_dim` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_attn_rotary_emb_dim: Option<usize>,
    /// True if rotary embeddings rotate elements 2d and 2d + 1; false (default) for d and d + dim / 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary_emb_interleaved: Option<bool>,
    /// XPos: scale base, the distance in tokens over which the decay factor of each pair of elements applies once. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary_emb_scale_base: Option<f64>,
    /// Scaling of rotary frequencies for longer sequences, by `full_attention` and `sliding_attention`; each has the fields of transformers'
    /// `rope_parameters` without the base: `rope_type` (`"default"`, `"linear"`, `"dynamic"`, `"yarn"`), `factor`, `original_max_position_embeddings`, and
    /// YaRN's `attention_factor`, `beta_fast`, `beta_slow`, `mscale`, `mscale_all_dim`, `truncate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<RopeParameters>,
    /// Total window of each layer, first to last, 0 for a global layer; replaces `local_attention` and the spacing of global layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sliding_windows: Option<Vec<usize>>,
    /// Width of a head. `hidden_size / num_attention_heads` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Heads of keys and values, a divisor of `num_attention_heads`; the query heads of a group share keys and values. By default each head has
    /// its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Bound `c` on attention scores, `c · tanh(score / c)`. Off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_softcap: Option<f64>,
    /// True if `Wqkv` (or `Wqkvff`) has a bias. `attention_bias` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_qkv_bias: Option<bool>,
    /// True if `Wo` of attention has a bias. `attention_bias` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_out_bias: Option<bool>,
    /// True if `Wi` of the MLP has a bias. `mlp_bias` by default; in a parallel layer that of `Wqkvff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_in_bias: Option<bool>,
    /// True if `Wo` of the MLP has a bias. `mlp_bias` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_out_bias: Option<bool>,
    /// Dropout after the output projection of attention. `attention_dropout` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_out_dropout_prob: Option<f64>,
    /// True if the dense layer of the masked-language-model head has a bias. `classifier_bias` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_pred_bias: Option<bool>,
    /// True (default) if the masked-language-model head has a norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_pred_norm: Option<bool>,
    /// Activation of the masked-language-model head. `classifier_activation` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_pred_act: Option<Activation>,
    /// True if the dense layer of the other heads has a bias. `classifier_bias` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_class_bias: Option<bool>,
    /// True (default) if the other heads have a norm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_class_norm: Option<bool>,
    /// Activation of the other heads. `classifier_activation` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_class_act: Option<Activation>,
    /// Pooling of a sequence classifier: `"cls"`, `"mean"` or `"max"`. `classifier_pooling` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling_type: Option<Pooling>,
    /// Share of the target that a cross-entropy spreads over all classes. 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f64>,
    /// Factor of the z-loss, the squared log-sum-exp of a row of scores, which is added to a cross-entropy. 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lse_square_scale: Option<f64>,
}

impl FlexOptions {
    /// The names of the choices, in the order of their description.
    pub const KEYS: [&str; 37] = [
        "bert_layer",
        "attention_layer",
        "mlp_layer",
        "num_initial_layers",
        "initial_bert_layer",
        "initial_attention_layer",
        "initial_mlp_layer",
        "skip_first_prenorm",
        "embed_norm",
        "final_norm",
        "normalization",
        "norm_scale",
        "embedding_layer",
        "unpad_embeddings",
        "rotary_emb_dim",
        "local_attn_rotary_emb_dim",
        "rotary_emb_interleaved",
        "rotary_emb_scale_base",
        "rope_parameters",
        "sliding_windows",
        "head_dim",
        "num_key_value_heads",
        "attn_softcap",
        "attn_qkv_bias",
        "attn_out_bias",
        "mlp_in_bias",
        "mlp_out_bias",
        "attn_out_dropout_prob",
        "head_pred_bias",
        "head_pred_norm",
        "head_pred_act",
        "head_class_bias",
        "head_class_norm",
        "head_class_act",
        "pooling_type",
        "label_smoothing",
        "lse_square_scale",
    ];
}
