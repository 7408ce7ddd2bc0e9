//! `[ema]`: an exponential moving average of the weights.

use serde::{Deserialize, Serialize};

use super::check::want;
use super::{Recipe, RecipeError};
use crate::optim::AverageSettings;

/// `[ema]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmaRecipe {
    /// Average the weights exponentially: steps after which a weight's share in the average is halved. Off by default; the authors tried
    /// 1000 and 5000 steps and found no gain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub half_life_steps: Option<f64>,
    /// Steps between updates of the average. 1 by default; Composer's default is a tenth of the half-life.
    pub every_steps: u64,
    /// Evaluate the averages and write them as the run's model, also in `export` and `average`; if false, they are in checkpoints alone.
    /// True by default. Training continues from the weights in either case.
    pub evaluate: bool,
}

impl Default for EmaRecipe {
    fn default() -> Self {
        Self {
            half_life_steps: None,
            every_steps: 1,
            evaluate: true,
        }
    }
}

impl Recipe {
    /// `[ema]` as the settings of the optimizer; `None` where weights are not averaged.
    pub fn average(&self) -> Option<AverageSettings> {
        Some(AverageSettings {
            half_life: self.ema.half_life_steps?,
            every: self.ema.every_steps,
            evaluate: self.ema.evaluate,
        })
    }

    pub(super) fn validate_ema(&self) -> Result<(), RecipeError> {
        let half_life = self.ema.half_life_steps;
        want(
            half_life.is_none_or(|steps| steps.is_finite() && steps > 0.0),
            "ema.half_life_steps",
            half_life.unwrap_or_default(),
            "set a positive number of steps, or leave it out",
        )?;
        want(
            self.ema.every_steps > 0,
            "ema.every_steps",
            self.ema.every_steps,
            "set 1 or more",
        )
    }
}
