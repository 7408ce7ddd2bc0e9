//! A config resolved to plain data: one specification per layer, from which layers are built, counted and described.

use super::{
    AttentionKind, BlockKind, EmbeddingKind, FlexOptions, MlpKind, NormKind, RopeScaling,
    RotarySpec,
};
use crate::config::validate::MAX_LAYERS;
use crate::config::{Activation, Family, LayerType, ModernBertConfig, Pooling};

/// A norm over the features of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// Kind of norm.
    pub kind: NormKind,
    /// Number of features.
    pub width: usize,
    /// Added inside the square root.
    pub eps: f64,
    /// True if there is a weight.
    pub scale: bool,
    /// True if there is a bias.
    pub bias: bool,
}

/// Attention of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionPart {
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Keys on each side of a query, inclusive; `None` for all of the sequence.
    pub half_window: Option<usize>,
    /// Rotary embeddings.
    pub rotary: Option<RotarySpec>,
    /// True if scores have ALiBi's bias.
    pub alibi: bool,
    /// Bound on the scores.
    pub softcap: Option<f64>,
    /// True if the projection to queries, keys and values has a bias.
    pub qkv_bias: bool,
    /// True if the output projection has a bias.
    pub out_bias: bool,
}

impl AttentionPart {
    /// Width of attention's result: all heads.
    pub fn width(&self) -> usize {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Rows of the projection to queries, keys and values.
    pub fn qkv_rows(&self) -> usize {
        let heads = self.heads.saturating_add(self.kv_heads.saturating_mul(2));
        heads.saturating_mul(self.head_dim)
    }

    /// True if the scores of this layer are not what the fused attention kernels compute.
    pub fn is_composed(&self) -> bool {
        self.alibi || self.rotary.as_ref().is_some_and(RotarySpec::is_per_token)
    }
}

/// MLP of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MlpSpec {
    /// Width before the output matrix.
    pub inner: usize,
    /// True if the input matrix has a second half, the gate.
    pub gated: bool,
    /// The nonlinearity.
    pub activation: Activation,
    /// True if the input matrix has a bias.
    pub in_bias: bool,
    /// True if the output matrix has a bias.
    pub out_bias: bool,
}

impl MlpSpec {
    /// Rows of the input matrix.
    pub fn in_rows(&self) -> usize {
        self.inner.saturating_mul(1 + usize::from(self.gated))
    }
}

/// A layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Order of norms and sums.
    pub block: BlockKind,
    /// True if attention has a norm: false in a first layer whose input is normalized.
    pub attention_norm: bool,
    /// The layer's norms.
    pub norm: NormSpec,
    /// Attention.
    pub attention: AttentionPart,
    /// MLP.
    pub mlp: MlpSpec,
}

impl LayerSpec {
    /// True if attention and MLP share their input projection, `Wqkvff`.
    pub fn is_parallel(&self) -> bool {
        self.block == BlockKind::ParallelPrenorm
    }
}

/// The layer before a decoder or classifier, `norm(act(dense(x)))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadSpec {
    /// True if the dense layer has a bias.
    pub bias: bool,
    /// The nonlinearity.
    pub activation: Activation,
    /// The norm, if there is one.
    pub norm: Option<NormSpec>,
}

/// A model: embedding, layers, heads, losses.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Rows of the token embedding.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Rows of the learned position embedding, where there is one.
    pub positions: Option<usize>,
    /// Row of the position embedding of a sequence's first token.
    pub first_position: usize,
    /// Rows of the token-type embedding, where there is one.
    pub token_types: Option<usize>,
    /// Norm after the embedding.
    pub embed_norm: Option<NormSpec>,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// Norm after the last layer.
    pub final_norm: Option<NormSpec>,
    /// Head of masked language modeling.
    pub prediction: HeadSpec,
    /// Head of classifiers of sequences.
    pub classification: HeadSpec,
    /// Head of classifiers of tokens and of question answering; `None` where the classifier reads the encoder's states.
    pub token_classification: Option<HeadSpec>,
    /// Pooling of a sequence classifier.
    pub pooling: Pooling,
    /// The loss of a row of scores.
    pub loss: LossSpec,
}

/// Terms of a cross-entropy; both are 0 in the published models.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSpec {
    /// Share of a target spread over all classes.
    pub smoothing: f64,
    /// Factor of the squared log-sum-exp.
    pub z: f64,
}

impl LossSpec {
    /// True if the loss is the cross-entropy alone, for which there are kernels.
    pub fn is_cross_entropy(self) -> bool {
        self == Self::default()
    }
}

impl FlexOptions {
    /// The loss of a row of scores.
    pub fn loss(&self) -> LossSpec {
        LossSpec {
            smoothing: self.label_smoothing.unwrap_or(0.0),
            z: self.lse_square_scale.unwrap_or(0.0),
        }
    }

    /// Blocks, attention and MLP of layer `index`.
    pub(super) fn kinds(&self, index: usize) -> (BlockKind, AttentionKind, MlpKind) {
        let initial = index < self.num_initial_layers.unwrap_or(1);
        (
            self.initial_bert_layer
                .filter(|_| initial)
                .or(self.bert_layer)
                .unwrap_or_default(),
            self.initial_attention_layer
                .filter(|_| initial)
                .or(self.attention_layer)
                .unwrap_or_default(),
            self.initial_mlp_layer
                .filter(|_| initial)
                .or(self.mlp_layer)
                .unwrap_or_default(),
        )
    }

    /// True if the first layer has no norm before its attention.
    pub(super) fn skips_first_norm(&self) -> bool {
        let (first, ..) = self.kinds(0);
        self.skip_first_prenorm
            .unwrap_or(self.embed_norm.unwrap_or(true) && first != BlockKind::Postnorm)
    }

    /// True if a norm follows the last of `layers` layers.
    pub(super) fn has_final_norm(&self, layers: usize) -> bool {
        let (last, ..) = self.kinds(layers.saturating_sub(1));
        self.final_norm.unwrap_or(last != BlockKind::Postnorm)
    }

    /// The scaling of rotary embeddings in layers of this type.
    pub(super) fn rope_scaling(&self, layer_type: LayerType) -> RopeScaling {
        let given = self.rope_parameters.as_ref();
        let of_type = given.and_then(|given| match layer_type {
            LayerType::Global => given.full_attention.clone(),
            LayerType::Local => given.sliding_attention.clone(),
        });
        of_type.unwrap_or_default()
    }
}

impl ModernBertConfig {
    /// Every choice of this config, resolved. The specification of a config that [`Self::validate`] refuses describes no model.
    pub fn spec(&self) -> ModelSpec {
        let flex = &self.flexbert;
        let norm = self.norm_spec();
        let layers = self.num_hidden_layers.min(MAX_LAYERS);
        let head = |bias: Option<bool>, act: Option<Activation>, has_norm: Option<bool>| HeadSpec {
            bias: bias.unwrap_or(self.classifier_bias),
            activation: act.unwrap_or(self.classifier_activation),
            norm: has_norm.unwrap_or(true).then_some(norm),
        };
        let classification = head(
            flex.head_class_bias,
            flex.head_class_act,
            flex.head_class_norm,
        );
        ModelSpec {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            positions: (flex.embedding_layer == Some(EmbeddingKind::AbsolutePos)).then(|| {
                self.max_position_embeddings
                    .saturating_add(self.first_position())
            }),
            first_position: self.first_position(),
            token_types: (self.token_types > 0).then_some(self.token_types),
            embed_norm: flex.embed_norm.unwrap_or(true).then_some(norm),
            layers: (0..layers).map(|i| self.layer_spec(i)).collect(),
            final_norm: flex.has_final_norm(layers).then_some(norm),
            prediction: head(flex.head_pred_bias, flex.head_pred_act, flex.head_pred_norm),
            classification,
            token_classification: (self.family == Family::ModernBert).then_some(classification),
            pooling: flex.pooling_type.unwrap_or(self.classifier_pooling),
            loss: flex.loss(),
        }
    }

    fn norm_spec(&self) -> NormSpec {
        NormSpec {
            kind: self.flexbert.normalization.unwrap_or_default(),
            width: self.hidden_size,
            eps: self.norm_eps,
            scale: self.flexbert.norm_scale.unwrap_or(true),
            bias: self.norm_bias,
        }
    }

    /// The specification of layer `index`.
    pub fn layer_spec(&self, index: usize) -> LayerSpec {
        let flex = &self.flexbert;
        let (block, attention, mlp) = flex.kinds(index);
        let layer_type = self.layer_type(index).unwrap_or(LayerType::Global);
        let window = flex.sliding_windows.as_ref().map(|windows| {
            let window = windows.get(index).copied().unwrap_or(0);
            (window > 0).then_some(window / 2)
        });
        let by_type = match layer_type {
            LayerType::Global => None,
            LayerType::Local => Some(self.half_window()),
        };
        let qkv_bias = flex.attn_qkv_bias.unwrap_or(self.attention_bias);
        LayerSpec {
            block,
            attention_norm: index > 0 || !flex.skips_first_norm(),
            norm: self.norm_spec(),
            attention: AttentionPart {
                heads: self.num_attention_heads,
                kv_heads: flex.num_key_value_heads.unwrap_or(self.num_attention_heads),
                head_dim: self.head_dim(),
                half_window: window.unwrap_or(by_type),
                rotary: attention.has_rope().then(|| self.rotary_spec(layer_type)),
                alibi: flex.embedding_layer == Some(EmbeddingKind::Alibi),
                softcap: flex.attn_softcap,
                qkv_bias,
                out_bias: flex.attn_out_bias.unwrap_or(self.attention_bias),
            },
            mlp: MlpSpec {
                inner: self.intermediate_size,
                gated: mlp != MlpKind::Mlp,
                activation: self.hidden_activation,
                in_bias: match block {
                    BlockKind::ParallelPrenorm => qkv_bias,
                    _ => flex.mlp_in_bias.unwrap_or(self.mlp_bias),
                },
                out_bias: flex.mlp_out_bias.unwrap_or(self.mlp_bias),
            },
        }
    }

    fn rotary_spec(&self, layer_type: LayerType) -> RotarySpec {
        let flex = &self.flexbert;
        let head_dim = self.head_dim();
        let everywhere = flex.rotary_emb_dim.unwrap_or(head_dim);
        let scaling = flex.rope_scaling(layer_type);
        RotarySpec {
            theta: self.rope_theta(layer_type),
            dim: match layer_type {
                LayerType::Global => everywhere,
                LayerType::Local => flex.local_attn_rotary_emb_dim.unwrap_or(everywhere),
            },
            head_dim,
            interleaved: flex.rotary_emb_interleaved.unwrap_or(false),
            scale_base: flex.rotary_emb_scale_base,
            original_max: scaling
                .original_max_position_embeddings
                .unwrap_or(self.max_position_embeddings),
            scaling,
        }
    }
}

impl ModelSpec {
    /// The parts of the model that no fused kernel computes and that run as tensor operations instead, one line each.
    pub fn composed_parts(&self) -> Vec<&'static str> {
        let any = |part: fn(&LayerSpec) -> bool| self.layers.iter().any(part);
        let norm = self.layers.first().map(|layer| layer.norm);
        let parts = [
            (
                norm.is_some_and(|norm| norm.kind == NormKind::Rmsnorm),
                "RMSNorm",
            ),
            (any(|layer| layer.attention.alibi), "attention with ALiBi"),
            (
                any(|layer| {
                    let rotary = layer.attention.rotary.as_ref();
                    rotary.is_some_and(|rotary| rotary.scale_base.is_some())
                }),
                "attention with XPos",
            ),
            (
                any(|layer| {
                    let rotary = layer.attention.rotary.as_ref();
                    rotary
                        .is_some_and(|rotary| rotary.scaling.rope_type == super::RopeType::Dynamic)
                }),
                "attention with dynamic NTK scaling",
            ),
            (
                any(|layer| !layer.mlp.gated || layer.mlp.activation != Activation::Gelu),
                "the MLP's activation",
            ),
            (
                !self.loss.is_cross_entropy(),
                "the loss with label smoothing or z-loss",
            ),
        ];
        parts
            .into_iter()
            .filter_map(|(is_composed, name)| is_composed.then_some(name))
            .collect()
    }
}

/// ALiBi's slope of each of `heads` heads: `2^(-8 (i + 1) / n)` for a power of two n; else those of the largest power of two m below, then
/// every other slope of 2m heads, from the first.
pub fn alibi_slopes(heads: usize) -> Vec<f64> {
    let of_power = |n: usize| (0..n).map(move |i| 2f64.powf(-8.0 * (i + 1) as f64 / n as f64));
    if heads == 0 {
        return Vec::new();
    }
    let power = 1usize << heads.ilog2();
    let more = of_power(2 * power).step_by(2).take(heads - power);
    of_power(power).chain(more).collect()
}
