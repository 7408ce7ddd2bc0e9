//! `[model]`: a preset, or sizes, or a preset with some sizes changed.

use super::RecipeError;
use crate::schedule::TokenSpan;
use modernbert::checkpoint::tiling::Tiling;
use modernbert::config::{Activation, FlexOptions, LayerType, ModernBertConfig};
use modernbert::model::InitMethod;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The vocabulary of a model is rounded up to a multiple of this; every other width is a multiple of it.
const VOCAB_MULTIPLE: usize = 64;

/// `[model]`. Without a preset the four sizes of the shape are needed; with one, each field given here replaces the preset's.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelRecipe {
    /// A published size, such as `"17m"` or `"base"`; see [`ModernBertConfig::preset`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Rows of the token embedding. By default the tokenizer's vocabulary, rounded up to a multiple of 64, independent of the preset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Width of the residual stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Width of the MLP after the gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Number of layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Heads per layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// Total window of local layers. 128 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_attention: Option<usize>,
    /// Every n-th layer is global, starting with the first. 3 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_attn_every_n_layers: Option<usize>,
    /// Rotary base of global layers. 160 000 by default; the first phase of pretraining used 10 000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_rope_theta: Option<f64>,
    /// Rotary base of local layers. 10 000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_rope_theta: Option<f64>,
    /// Gradual rotary base: tokens of the phase over which the base of global layers rises from `rope_warmup_from` to `global_rope_theta`;
    /// by default the base has its value at once, as in the published runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_warmup_tokens: Option<TokenSpan>,
    /// Rotary base of global layers at the start of the ramp. 10 000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_warmup_from: Option<f64>,
    /// Difference between one base of the ramp and the next. 10 000 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_warmup_step: Option<f64>,
    /// Longest sequence the model is meant for. 8192 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_position_embeddings: Option<usize>,
    /// Standard deviation of the initialization before truncation. 0.02 by default, chosen for a width of 768; narrow models learn faster
    /// with a larger one, about `0.02 · sqrt(768 / hidden_size)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f64>,
    /// Random weights are cut off at this many standard deviations. 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_cutoff_factor: Option<f64>,
    /// Method of initialization: `"full_megatron"` (the published one, the default), `"default"`, `"normal"`, `"mitchell"`, `"kaiming_normal"` or `"fan_in"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_method: Option<InitMethod>,
    /// True for a token embedding within 1e-4 of zero at first; not with `full_megatron`. False by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_small_embedding: Option<bool>,
    /// Activation of the MLPs, such as `"silu"`. `"gelu"` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_activation: Option<Activation>,
    /// Activation of the heads. `"gelu"` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_activation: Option<Activation>,
    /// Added inside the square root of every norm. 1e-5 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_eps: Option<f64>,
    /// True if norms have a bias. False by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_bias: Option<bool>,
    /// True if the projections of attention have a bias. False by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_bias: Option<bool>,
    /// True if the matrices of the MLPs have a bias. False by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_bias: Option<bool>,
    /// True if the dense layer of the heads has a bias. False by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_bias: Option<bool>,
    /// True if the decoder has a bias. True by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoder_bias: Option<bool>,
    /// True if the decoder shares the token embedding. True by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tie_word_embeddings: Option<bool>,
    /// A published model to continue: its folder, or its name on the Hugging Face Hub, such as `"answerdotai/ModernBERT-base"`. Sizes,
    /// weights and tokenizer are its own, the optimizer is fresh. Rotary bases and `model.max_position_embeddings` may be set in addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Folder of a trained smaller model for tiled initialization instead of random weights: each of its matrices is repeated into this
    /// model's, as the published large model was initialized from base. Set `data.tokenizer` to the same folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile_from: Option<PathBuf>,
    /// Method of tiled initialization: `"middle"` (the published one, the default), `"edge"`, or `"center"`, which leaves the other values random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiling: Option<Tiling>,
    /// Architecture choices other than the published ones, see `[model.flexbert]`.
    #[serde(skip_serializing_if = "is_default")]
    pub flexbert: FlexOptions,
}

fn is_default(choices: &FlexOptions) -> bool {
    *choices == FlexOptions::default()
}

impl ModelRecipe {
    /// The configuration for a tokenizer of `tokenizer_vocab` ids. Its special-token ids are all `None`; the tokenizer sets them.
    ///
    /// # Errors
    /// A preset that does not exist, a missing size, a vocabulary smaller than the tokenizer's, and everything
    /// [`ModernBertConfig::check_trainable`] refuses.
    pub fn config(&self, tokenizer_vocab: usize) -> Result<ModernBertConfig, RecipeError> {
        let mut config = match &self.preset {
            Some(name) => ModernBertConfig::preset(name)?,
            None => {
                let need = |value: Option<usize>, key: &str| {
                    value.ok_or_else(|| {
                        RecipeError::invalid(key, "missing", "give it, or name a model.preset")
                    })
                };
                ModernBertConfig::of_shape(
                    need(self.num_hidden_layers, "model.num_hidden_layers")?,
                    need(self.hidden_size, "model.hidden_size")?,
                    need(self.intermediate_size, "model.intermediate_size")?,
                    need(self.num_attention_heads, "model.num_attention_heads")?,
                )
            }
        };
        let rounded =
            tokenizer_vocab.saturating_add(VOCAB_MULTIPLE - 1) / VOCAB_MULTIPLE * VOCAB_MULTIPLE;
        let vocab_size = self.vocab_size.unwrap_or(rounded);
        if vocab_size < tokenizer_vocab {
            return Err(RecipeError::invalid(
                "model.vocab_size",
                vocab_size,
                format!(
                    "the tokenizer has {tokenizer_vocab} ids: set it to {rounded}, or leave it out"
                ),
            ));
        }
        config.vocab_size = vocab_size;
        let set = |field: &mut usize, value: Option<usize>| *field = value.unwrap_or(*field);
        set(&mut config.hidden_size, self.hidden_size);
        set(&mut config.intermediate_size, self.intermediate_size);
        set(&mut config.num_hidden_layers, self.num_hidden_layers);
        set(&mut config.num_attention_heads, self.num_attention_heads);
        set(&mut config.local_attention, self.local_attention);
        set(
            &mut config.max_position_embeddings,
            self.max_position_embeddings,
        );
        config.global_rope_theta = self.global_rope_theta.unwrap_or(config.global_rope_theta);
        config.local_rope_theta = self.local_rope_theta.unwrap_or(config.local_rope_theta);
        if let Some(range) = self.initializer_range {
            if !(range > 0.0 && range.is_finite()) {
                return Err(RecipeError::invalid(
                    "model.initializer_range",
                    range,
                    "set it above 0",
                ));
            }
            config.initializer_range = range;
        }
        self.set_architecture(&mut config);
        let method = self.init_method.unwrap_or_default();
        if self.init_small_embedding == Some(true) && method == InitMethod::FullMegatron {
            return Err(RecipeError::invalid(
                "model.init_small_embedding",
                true,
                "model.init_method full_megatron excludes it: choose another method, or leave it out",
            ));
        }
        if let (Some(_), None) = (self.tiling, &self.tile_from) {
            return Err(RecipeError::invalid(
                "model.tiling",
                "given",
                "name the smaller model in model.tile_from as well, or leave it out",
            ));
        }
        (config.bos_token_id, config.eos_token_id) = (None, None);
        (
            config.cls_token_id,
            config.sep_token_id,
            config.pad_token_id,
        ) = (None, None, None);
        if let Some(windows) = &self.flexbert.sliding_windows {
            if let Some(n) = self.global_attn_every_n_layers {
                return Err(RecipeError::invalid(
                    "model.global_attn_every_n_layers",
                    n,
                    "model.flexbert.sliding_windows lists the layers: leave one of the two out",
                ));
            }
            let of_window = |&window: &usize| match window {
                0 => LayerType::Global,
                _ => LayerType::Local,
            };
            config.layer_types = windows.iter().map(of_window).collect();
            if windows.len() != config.num_hidden_layers {
                return Err(RecipeError::invalid(
                    "model.flexbert.sliding_windows",
                    format!("a list of {}", windows.len()),
                    format!(
                        "give one entry for each of the model.num_hidden_layers ({}) layers",
                        config.num_hidden_layers
                    ),
                ));
            }
            config.check_trainable()?;
            return Ok(config);
        }
        let every_n = self.global_attn_every_n_layers.unwrap_or(3);
        if every_n == 0 {
            return Err(RecipeError::invalid(
                "model.global_attn_every_n_layers",
                0,
                "set it to 1 or more",
            ));
        }
        let config = config.with_every_n(every_n);
        config.check_trainable()?;
        Ok(config)
    }

    /// Sets the choices of the architecture that are not sizes.
    fn set_architecture(&self, config: &mut ModernBertConfig) {
        let set = |field: &mut bool, value: Option<bool>| *field = value.unwrap_or(*field);
        set(&mut config.norm_bias, self.norm_bias);
        set(&mut config.attention_bias, self.attention_bias);
        set(&mut config.mlp_bias, self.mlp_bias);
        set(&mut config.classifier_bias, self.classifier_bias);
        set(&mut config.decoder_bias, self.decoder_bias);
        set(&mut config.tie_word_embeddings, self.tie_word_embeddings);
        let set = |field: &mut Activation, value: Option<Activation>| {
            *field = value.unwrap_or(*field);
        };
        set(&mut config.hidden_activation, self.hidden_activation);
        set(
            &mut config.classifier_activation,
            self.classifier_activation,
        );
        config.norm_eps = self.norm_eps.unwrap_or(config.norm_eps);
        config.initializer_cutoff_factor = self
            .initializer_cutoff_factor
            .unwrap_or(config.initializer_cutoff_factor);
        config.flexbert = self.flexbert.clone();
    }
}
