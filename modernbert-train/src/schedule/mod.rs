//! Learning rates over a run: a factor between 0 and 1 on the peak rate, [`Schedule`]; the rate itself, [`LearningRate`]. Batch-size
//! warmup: [`BatchWarmup`].
//!
//! Schedules count tokens, not steps, so that they don't change with the batch size, and are pure functions: a resumed run needs
//! only the number of tokens it has seen. Paper: <https://arxiv.org/abs/2412.13663>, section 2.2.2; the square-root
//! decay is that of <https://arxiv.org/abs/2405.18392>.

mod batch;
mod rate;
mod span;
#[cfg(test)]
mod tests;

pub use batch::BatchWarmup;
pub use rate::LearningRate;

use serde::{Deserialize, Serialize};
pub use span::TokenSpan;

/// Shape of the decay at the end of a run. `x` runs from 0 at its start to 1 at its end, `f` is the last factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// `1 - x (1 - f)`.
    Linear,
    /// `f + (1 - f)(1 - √x)`: steep at first, then flat.
    #[default]
    OneMinusSqrt,
}

impl DecayShape {
    fn at(self, x: f64, final_fraction: f64) -> f64 {
        match self {
            Self::Linear => (1.0 - x * (1.0 - final_fraction)).max(0.0),
            Self::OneMinusSqrt => {
                (final_fraction + (1.0 - final_fraction) * (1.0 - x.sqrt())).max(final_fraction)
            }
        }
    }
}

/// A learning-rate schedule. In TOML the field `kind` names the variant, in snake case; fields left out take their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", try_from = "span::Table")]
pub enum Schedule {
    /// Linear warmup, then the peak rate to the end.
    Constant {
        /// Length of the warmup; none by default.
        warmup_tokens: TokenSpan,
    },
    /// The trapezoid: linear warmup, constant rate, and a decay that ends with the run.
    WarmupStableDecay {
        /// Length of the warmup; none by default.
        warmup_tokens: TokenSpan,
        /// Length of the decay; none by default, as in the first phase of pretraining.
        decay_tokens: TokenSpan,
        /// Shape of the decay; 1-sqrt by default.
        decay: DecayShape,
        /// The factor at the very end; 0 by default.
        final_fraction: f64,
    },
    /// The peak rate, then a 1-sqrt decay: the last phase of pretraining.
    OneMinusSqrt {
        /// Length of the decay; the whole run by default.
        decay_tokens: TokenSpan,
        /// The factor at the very end; 0.001 by default.
        final_fraction: f64,
    },
    /// Linear warmup, then linear decay to the end: the usual schedule of finetuning.
    LinearWithWarmup {
        /// Length of the warmup; none by default.
        warmup_tokens: TokenSpan,
        /// The factor at the very end; 0 by default.
        final_fraction: f64,
    },
}

/// Reason why a schedule does not fit a run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// Warmup and decay do not fit one after the other.
    #[error(
        "schedule.warmup_tokens ({warmup}) and schedule.decay_tokens ({decay}) are {} together, more than the run's \
         {total}; shorten one of them or raise run.total_tokens",
        warmup.saturating_add(*decay)
    )]
    TooLong {
        /// Tokens of warmup.
        warmup: u64,
        /// Tokens of decay.
        decay: u64,
        /// Tokens of the run.
        total: u64,
    },
    /// A key that schedules of this kind don't have.
    #[error("schedule.{key} has no meaning for kind = \"{kind}\"; remove it or change the kind")]
    UnusedKey {
        /// Name of the key.
        key: &'static str,
        /// Kind of the schedule.
        kind: &'static str,
    },
    /// The last factor is not between 0 and 1.
    #[error("schedule.final_fraction is {0}; set a fraction of the peak rate from 0 to 1")]
    FinalFraction(f64),
}

impl Default for Schedule {
    /// The trapezoid of a short run: 5 % warmup, 30 % 1-sqrt decay to 0.
    fn default() -> Self {
        Self::WarmupStableDecay {
            warmup_tokens: TokenSpan::Fraction(0.05),
            decay_tokens: TokenSpan::Fraction(0.3),
            decay: DecayShape::OneMinusSqrt,
            final_fraction: 0.0,
        }
    }
}

impl Schedule {
    /// The name that `kind` has in TOML.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Constant { .. } => "constant",
            Self::WarmupStableDecay { .. } => "warmup_stable_decay",
            Self::OneMinusSqrt { .. } => "one_minus_sqrt",
            Self::LinearWithWarmup { .. } => "linear_with_warmup",
        }
    }

    /// Warmup and decay of a run of `total_tokens`, in tokens, with the decay's shape and last factor.
    fn parts(&self, total_tokens: u64) -> (u64, u64, DecayShape, f64) {
        let tokens = |span: &TokenSpan| span.tokens(total_tokens);
        match self {
            Self::Constant { warmup_tokens } => (tokens(warmup_tokens), 0, DecayShape::Linear, 1.0),
            Self::WarmupStableDecay {
                warmup_tokens,
                decay_tokens,
                decay,
                final_fraction,
            } => (
                tokens(warmup_tokens),
                tokens(decay_tokens),
                *decay,
                *final_fraction,
            ),
            Self::OneMinusSqrt {
                decay_tokens,
                final_fraction,
            } => (
                0,
                tokens(decay_tokens),
                DecayShape::OneMinusSqrt,
                *final_fraction,
            ),
            Self::LinearWithWarmup {
                warmup_tokens,
                final_fraction,
            } => {
                let warmup = tokens(warmup_tokens);
                (
                    warmup,
                    total_tokens.saturating_sub(warmup),
                    DecayShape::Linear,
                    *final_fraction,
                )
            }
        }
    }

    /// The factor on the peak rate after `tokens_seen` tokens of a run of `total_tokens`, padding not counted in either.
    ///
    /// A warmup starts at 0 (the trapezoid's at 1e-10, so that no rate is ever exactly 0) and reaches 1 at its end. After the end of the
    /// run the last factor applies. Where warmup and decay overlap, which [`Self::check`] refuses, the warmup comes first.
    pub fn factor(&self, tokens_seen: u64, total_tokens: u64) -> f64 {
        let (warmup, decay, shape, final_fraction) = self.parts(total_tokens);
        if tokens_seen < warmup {
            let risen = tokens_seen as f64 / warmup as f64;
            let floor = match self {
                Self::WarmupStableDecay { .. } => 1e-10,
                _ => 0.0,
            };
            return floor + risen * (1.0 - floor);
        }
        let start = total_tokens.saturating_sub(decay);
        if decay == 0 || tokens_seen < start {
            return 1.0;
        }
        let x = (tokens_seen - start) as f64 / decay as f64;
        shape.at(x.min(1.0), final_fraction)
    }

    /// Checks that the schedule fits a run of `total_tokens`.
    ///
    /// # Errors
    /// Warmup and decay longer than the run, and a last factor outside 0 to 1.
    pub fn check(&self, total_tokens: u64) -> Result<(), ScheduleError> {
        let (warmup, decay, _, final_fraction) = self.parts(total_tokens);
        if warmup.saturating_add(decay) > total_tokens {
            return Err(ScheduleError::TooLong {
                warmup,
                decay,
                total: total_tokens,
            });
        }
        if !(0.0..=1.0).contains(&final_fraction) {
            return Err(ScheduleError::FinalFraction(final_fraction));
        }
        Ok(())
    }
}
