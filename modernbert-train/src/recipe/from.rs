//! `model.from`: continued pretraining of a published model.

use modernbert::Loader;
use modernbert::checkpoint::{SourceError, read_config};
use modernbert::config::{Family, FlexOptions, ModernBertConfig};
use std::path::{Path, PathBuf};

use super::{ModelRecipe, Recipe, RecipeError, TokenizerSource};

impl Recipe {
    /// The recipe with sizes and tokenizer of the model that `model.from` names, and that model's folder; the unchanged recipe if it names
    /// none. A model of the Hub is downloaded unless it is in the cache. Of the model's files the result depends only on
    /// weights and tokenizer.
    ///
    /// # Errors
    /// A model that can't be found, sizes or a tokenizer that contradict it, a model of another kind.
    pub fn resolve_model(mut self) -> Result<(Self, Option<PathBuf>), RecipeError> {
        let Some(from) = self.model.from.clone() else {
            return Ok((self, None));
        };
        let not_found = |source| RecipeError::Source {
            from: from.clone(),
            source: Box::new(source),
        };
        let folder = Loader::from(&from).folder().map_err(not_found)?;
        let config = read_config(&folder).map_err(|error| not_found(SourceError::from(error)))?;
        if self.model.tile_from.is_some() {
            let reason = "model.tile_from is given as well; weights come from one of the two";
            return Err(wrong(&from, reason));
        }
        self.model = self.model.with_sizes_of(&config, &from)?;
        let absolute = |path: &Path| path.canonicalize().unwrap_or(path.to_path_buf());
        let folder = absolute(&folder);
        match &self.data.tokenizer {
            TokenizerSource::Train => self.data.tokenizer = TokenizerSource::Path(folder.clone()),
            TokenizerSource::Path(path) if absolute(path) == folder => {}
            TokenizerSource::Path(path) => {
                let reason = format!(
                    "data.tokenizer is {}; the model needs its own tokenizer: leave data.tokenizer out",
                    path.display()
                );
                return Err(wrong(&from, reason));
            }
        }
        Ok((self, Some(folder)))
    }
}

fn wrong(from: &str, reason: impl Into<String>) -> RecipeError {
    RecipeError::From {
        from: from.to_owned(),
        reason: reason.into(),
    }
}

impl ModelRecipe {
    /// `[model]` with every size written out as in `config`.
    fn with_sizes_of(mut self, config: &ModernBertConfig, from: &str) -> Result<Self, RecipeError> {
        if config.family != Family::ModernBert {
            let reason = format!(
                "its model_type is {}, whose models can be finetuned and run but not pretrained; name a ModernBERT",
                config.family.model_type()
            );
            return Err(wrong(from, reason));
        }
        if self.flexbert != FlexOptions::default() && self.flexbert != config.flexbert {
            let reason = "its choices differ from those of [model.flexbert]; leave that table out";
            return Err(wrong(from, reason));
        }
        self.flexbert = config.flexbert.clone();
        let listed = self.flexbert.sliding_windows.is_some();
        let every_n = match config.global_every_n() {
            _ if listed => None,
            Some(n) => Some(n),
            None => {
                let reason =
                    "its global layers are not every n-th; such a model can be run but not trained";
                return Err(wrong(from, reason));
            }
        };
        if let Some(name) = self.preset.take() {
            let preset = ModernBertConfig::preset(&name)?;
            let sizes = |config: &ModernBertConfig| {
                (
                    config.num_hidden_layers,
                    config.hidden_size,
                    config.intermediate_size,
                    config.num_attention_heads,
                )
            };
            if sizes(&preset) != sizes(config) {
                let reason =
                    format!("it is no model of the preset {name:?}; leave model.preset out");
                return Err(wrong(from, reason));
            }
        }
        for (key, field, size) in [
            ("vocab_size", &mut self.vocab_size, config.vocab_size),
            ("hidden_size", &mut self.hidden_size, config.hidden_size),
            (
                "intermediate_size",
                &mut self.intermediate_size,
                config.intermediate_size,
            ),
            (
                "num_hidden_layers",
                &mut self.num_hidden_layers,
                config.num_hidden_layers,
            ),
            (
                "num_attention_heads",
                &mut self.num_attention_heads,
                config.num_attention_heads,
            ),
            (
                "local_attention",
                &mut self.local_attention,
                config.local_attention,
            ),
        ] {
            if field.is_some_and(|given| given != size) {
                let given = field.unwrap_or_default();
                let reason =
                    format!("model.{key} is {given}, and the model has {size}; leave it out");
                return Err(wrong(from, reason));
            }
            *field = Some(size);
        }
        if let Some(n) = every_n {
            let given = self.global_attn_every_n_layers.replace(n);
            if let Some(given) = given.filter(|given| *given != n) {
                let reason = format!(
                    "model.global_attn_every_n_layers is {given}, and the model has {n}; leave it out"
                );
                return Err(wrong(from, reason));
            }
        }
        self.max_position_embeddings
            .get_or_insert(config.max_position_embeddings);
        self.global_rope_theta
            .get_or_insert(config.global_rope_theta);
        self.local_rope_theta.get_or_insert(config.local_rope_theta);
        self.initializer_range
            .get_or_insert(config.initializer_range);
        let mine = self.config(1)?;
        if let Some(name) = other_kind(&mine, config) {
            let reason = format!(
                "its config.json has another {name} than the recipe; set model.{name} to the model's value"
            );
            return Err(wrong(from, reason));
        }
        Ok(self)
    }
}

/// The first field, apart from sizes, heads and dropout rates, in which a recipe's config differs from `config`.
fn other_kind(mine: &ModernBertConfig, config: &ModernBertConfig) -> Option<&'static str> {
    let same = [
        (
            mine.hidden_activation == config.hidden_activation,
            "hidden_activation",
        ),
        (mine.norm_eps == config.norm_eps, "norm_eps"),
        (mine.norm_bias == config.norm_bias, "norm_bias"),
        (
            mine.attention_bias == config.attention_bias,
            "attention_bias",
        ),
        (mine.mlp_bias == config.mlp_bias, "mlp_bias"),
        (mine.decoder_bias == config.decoder_bias, "decoder_bias"),
        (
            mine.classifier_bias == config.classifier_bias,
            "classifier_bias",
        ),
        (
            mine.classifier_activation == config.classifier_activation,
            "classifier_activation",
        ),
        (
            mine.tie_word_embeddings == config.tie_word_embeddings,
            "tie_word_embeddings",
        ),
        (mine.layer_types == config.layer_types, "layer_types"),
    ];
    let other = same.into_iter().find(|(same, _)| !same);
    other.map(|(_, name)| name)
}
