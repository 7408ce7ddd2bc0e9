//! Settings that nothing reads, because another setting is off or missing.

use super::check::want;
use super::{DataRecipe, Recipe, RecipeError};
use crate::recipe::{BatchRecipe, EmaRecipe, OptimizerRecipe};
use modernbert::config::FlexOptions;
use modernbert::config::flexbert::RopeParameters;
use modernbert::model::InitMethod;

/// A setting, the one that it belongs to, whether a phase has that, the setting's value in a phase, and its default.
type Part = (
    &'static str,
    &'static str,
    fn(&Recipe) -> bool,
    fn(&Recipe) -> u64,
    u64,
);

impl Recipe {
    /// Refuses settings that have no effect in any phase. A new run is checked; runs of earlier versions can be resumed with such settings.
    ///
    /// # Errors
    /// The first such setting, with the one that it belongs to; those of [`Self::check_corpora`].
    pub fn check_used(&self) -> Result<(), RecipeError> {
        self.check_corpora()?;
        let phases = self.phases()?;
        let recipes = || phases.iter().map(|phase| &phase.recipe);
        // A setting with a default can't be told from its absence.
        let of_parts: [Part; 6] = [
            (
                "ema.every_steps",
                "ema.half_life_steps",
                |recipe| recipe.ema.half_life_steps.is_some(),
                |recipe| recipe.ema.every_steps,
                EmaRecipe::default().every_steps,
            ),
            (
                "optimizer.spike_window",
                "optimizer.skip_spikes",
                |recipe| recipe.optimizer.skip_spikes.is_some(),
                |recipe| recipe.optimizer.spike_window,
                OptimizerRecipe::default().spike_window,
            ),
            (
                "data.length_warmup_from",
                "data.length_warmup_tokens",
                |recipe| recipe.length_warmup().is_some(),
                |recipe| recipe.data.length_warmup_from as u64,
                DataRecipe::default().length_warmup_from as u64,
            ),
            (
                "data.length_warmup_step",
                "data.length_warmup_tokens",
                |recipe| recipe.length_warmup().is_some(),
                |recipe| recipe.data.length_warmup_step as u64,
                DataRecipe::default().length_warmup_step as u64,
            ),
            (
                "batch.warmup_from",
                "batch.warmup_tokens",
                Recipe::has_batch_warmup,
                |recipe| recipe.batch.warmup_from as u64,
                BatchRecipe::default().warmup_from as u64,
            ),
            (
                "batch.warmup_step",
                "batch.warmup_tokens",
                Recipe::has_batch_warmup,
                |recipe| recipe.batch.warmup_step as u64,
                BatchRecipe::default().warmup_step as u64,
            ),
        ];
        for (key, needed, is_used, value, default) in of_parts {
            let given = recipes().map(value).find(|value| *value != default);
            want(
                given.is_none() || recipes().any(is_used),
                key,
                given.unwrap_or_default(),
                format!("it has no effect without {needed}: give that as well, or leave it out"),
            )?;
        }
        want(
            self.ema.evaluate || self.ema.half_life_steps.is_some(),
            "ema.evaluate",
            false,
            "it has no effect without ema.half_life_steps: give that as well, or leave it out",
        )?;
        let Some(first) = phases.first() else {
            return Ok(());
        };
        first.recipe.check_used_model()
    }

    fn has_batch_warmup(&self) -> bool {
        self.batch.warmup_tokens.tokens(self.run.total_tokens) > 0
    }

    /// The settings of `[model]`, which all phases share except for rotary bases.
    fn check_used_model(&self) -> Result<(), RecipeError> {
        let model = &self.model;
        let method = model.init_method.unwrap_or_default();
        let names = ["model.initializer_range", "model.initializer_cutoff_factor"];
        let used = match method {
            InitMethod::FullMegatron | InitMethod::Normal => [true, true],
            InitMethod::Default => [true, false],
            InitMethod::Mitchell | InitMethod::KaimingNormal | InitMethod::FanIn => [false, false],
        };
        let given = [model.initializer_range, model.initializer_cutoff_factor];
        for ((key, given), used) in names.into_iter().zip(given).zip(used) {
            want(
                used || given.is_none(),
                key,
                given.unwrap_or_default(),
                "model.init_method does not read it: choose another method, or leave it out",
            )?;
        }
        if model.from.is_some() && model.hidden_size.is_none() {
            return Ok(());
        }
        let layers = model.config(1)?.spec().layers;
        let flex: &FlexOptions = &model.flexbert;
        let has_local = layers
            .iter()
            .any(|layer| layer.attention.half_window.is_some());
        let has_rotary = layers.iter().any(|layer| layer.attention.rotary.is_some());
        let scaling = flex.rope_parameters.as_ref();
        let is_scaled = |part: fn(&RopeParameters) -> bool| scaling.is_some_and(part);
        let local =
            "no layer is local: set model.global_attn_every_n_layers to 2 or more, or leave it out";
        let rotary = "no layer has rotary embeddings: choose another model.flexbert.attention_layer, or leave it out";
        let checks = [
            (
                "model.local_attention",
                model.local_attention.is_some(),
                has_local,
                local,
            ),
            (
                "model.local_rope_theta",
                model.local_rope_theta.is_some(),
                has_local,
                local,
            ),
            (
                "model.flexbert.local_attn_rotary_emb_dim",
                flex.local_attn_rotary_emb_dim.is_some(),
                has_local,
                local,
            ),
            (
                "model.flexbert.rope_parameters",
                is_scaled(|scaling| scaling.sliding_attention.is_some()),
                has_local,
                "it has sliding_attention, and no layer is local: set model.global_attn_every_n_layers to 2 or more, or leave that part out",
            ),
            (
                "model.local_attention",
                model.local_attention.is_some(),
                flex.sliding_windows.is_none(),
                "model.flexbert.sliding_windows has the windows of all layers: leave one of the two out",
            ),
            (
                "model.global_rope_theta",
                model.global_rope_theta.is_some(),
                has_rotary,
                rotary,
            ),
            (
                "model.local_rope_theta",
                model.local_rope_theta.is_some(),
                has_rotary,
                rotary,
            ),
            (
                "model.rope_warmup_tokens",
                model.rope_warmup_tokens.is_some(),
                has_rotary,
                rotary,
            ),
        ];
        for (key, is_given, has_effect, remedy) in checks {
            want(!is_given || has_effect, key, "given", remedy)?;
        }
        Ok(())
    }
}
