//! Sequence-length warmup and gradual rotary base: settings that rise over the first tokens of a phase.

use modernbert::config::ModernBertConfig;

use super::check::want;
use super::{ModelRecipe, Recipe, RecipeError};
use crate::loader::LengthWarmup;
use crate::schedule::RotaryRamp;

/// Rotary base at which a ramp starts where the recipe names none: that of the first phase of pretraining.
const FIRST_BASE: f64 = 10_000.0;
/// The step of a ramp of the rotary base where the recipe names none.
const BASE_STEP: f64 = 10_000.0;

impl Recipe {
    /// `data.length_warmup_…` as the setting of the data loader; `None` where every row has sequences of full length.
    pub fn length_warmup(&self) -> Option<LengthWarmup> {
        let data = &self.data;
        let tokens = data.length_warmup_tokens.tokens(self.run.total_tokens);
        (tokens > 0).then_some(LengthWarmup {
            from: data.length_warmup_from,
            step: data.length_warmup_step,
            to: data.sequence_length,
            tokens,
        })
    }

    pub(super) fn validate_length_warmup(&self) -> Result<(), RecipeError> {
        let Some(warmup) = self.length_warmup() else {
            return Ok(());
        };
        want(
            self.batch.packing,
            "data.length_warmup_tokens",
            warmup.tokens,
            "it needs batch.packing, which keeps the tokens of a step the same while sequences are short: turn packing on, or leave the \
             warmup out",
        )?;
        want(
            warmup.tokens <= self.run.total_tokens,
            "data.length_warmup_tokens",
            warmup.tokens,
            format!(
                "it exceeds run.total_tokens ({}): shorten it",
                self.run.total_tokens
            ),
        )?;
        want(
            warmup.from >= 8,
            "data.length_warmup_from",
            warmup.from,
            "set 8 or more",
        )?;
        want(
            warmup.from < warmup.to,
            "data.length_warmup_from",
            warmup.from,
            format!(
                "a warmup grows to data.sequence_length ({}): lower it, raise the other, or leave data.length_warmup_tokens out",
                warmup.to
            ),
        )?;
        want(
            warmup.step > 0,
            "data.length_warmup_step",
            warmup.step,
            "set 1 or more",
        )
    }

    pub(super) fn validate_rope_warmup(&self) -> Result<(), RecipeError> {
        let model = &self.model;
        let total = self.run.total_tokens;
        // The base of a published model is unknown here; the run checks the ramp again when it is known.
        let to = match (&model.from, model.hidden_size) {
            (Some(_), None) => model.global_rope_theta.unwrap_or(f64::INFINITY),
            _ => model.config(1)?.global_rope_theta,
        };
        let Some(ramp) = model.ramp_to(to, total) else {
            for (key, given) in [
                ("model.rope_warmup_from", model.rope_warmup_from),
                ("model.rope_warmup_step", model.rope_warmup_step),
            ] {
                want(
                    given.is_none(),
                    key,
                    given.unwrap_or_default(),
                    "it belongs to a ramp of the rotary base: give model.rope_warmup_tokens as well, or leave it out",
                )?;
            }
            return Ok(());
        };
        want(
            ramp.tokens <= total,
            "model.rope_warmup_tokens",
            ramp.tokens,
            format!("it exceeds run.total_tokens ({total}): shorten it"),
        )?;
        want(
            ramp.step > 0.0 && ramp.step.is_finite(),
            "model.rope_warmup_step",
            ramp.step,
            "set a positive number",
        )?;
        want(
            ramp.from >= 1.0 && ramp.from < ramp.to,
            "model.rope_warmup_from",
            ramp.from,
            format!(
                "the base rises to model.global_rope_theta ({}): set at least 1 and less than that, or leave model.rope_warmup_tokens out",
                ramp.to
            ),
        )
    }
}

impl ModelRecipe {
    /// The ramp of the global layers' rotary base up to that of `config`, in a phase of `total_tokens`; `None` where it does not change.
    pub fn rotary_ramp(&self, config: &ModernBertConfig, total_tokens: u64) -> Option<RotaryRamp> {
        self.ramp_to(config.global_rope_theta, total_tokens)
    }

    fn ramp_to(&self, to: f64, total_tokens: u64) -> Option<RotaryRamp> {
        let tokens = self.rope_warmup_tokens?.tokens(total_tokens);
        (tokens > 0).then_some(RotaryRamp {
            from: self.rope_warmup_from.unwrap_or(FIRST_BASE),
            step: self.rope_warmup_step.unwrap_or(BASE_STEP),
            to,
            tokens,
        })
    }
}
