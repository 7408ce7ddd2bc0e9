//! Learning rates over a run: a factor between 0 and 1 on the peak rate, [`Schedule`]; the rate itself, [`LearningRate`]. Batch-size
//! warmup: [`BatchWarmup`]; gradual rotary base: [`RotaryRamp`].
//!
//! Schedules count tokens, not steps, so that they don't change with the batch size, and are pure functions: a resumed run needs
//! only the number of tokens it has seen. Paper: <https://arxiv.org/abs/2412.13663>, section 2.2.2; the square-root
//! decay is that of <https://arxiv.org/abs/2405.18392>.

mod batch;
mod rate;
mod rotary;
mod span;
#[cfg(test)]
mod tests;

pub use batch::BatchWarmup;
pub use rate::{LearningRate, Shortened};
pub use rotary::RotaryRamp;

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
    /// `f + (1 - f)(1 + cos πx) / 2`: flat at both ends.
    Cosine,
}

impl DecayShape {
    fn at(self, x: f64, final_fraction: f64) -> f64 {
        match self {
            Self::Linear => (1.0 - x * (1.0 - final_fraction)).max(0.0),
            Self::OneMinusSqrt => {
                (final_fraction + (1.0 - final_fraction) * (1.0 - x.sqrt())).max(final_fraction)
            }
            Self::Cosine => {
                let half = 0.5 * (1.0 + (std::f64::consts::PI * x).cos());
                final_fraction + (1.0 - final_fraction) * half
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
    /// Linear warmup, then half a period of a cosine down to the end: `f + (1 - f)(1 + cos πx) / 2`.
    CosineWithWarmup {
        /// Length of the warmup; none by default.
        warmup_tokens: TokenSpan,
        /// The factor at the very end; 0 by default.
        final_fraction: f64,
    },
    /// Linear warmup, a quarter of a period of a cosine, then the inverse square root of the tokens, and a decay that ends with the run:
    /// the schedule the authors compared theirs with (paper, appendix D).
    ///
    /// With t tokens after the warmup, c of the cosine and a its floor: `a + (1 - a)(1 + cos(πt / 2c)) / 2` up to `t = c`, where the
    /// factor is `(1 + a) / 2`, and `γ / √(t + δ)` beyond, with `c + δ = c (1 + a) / (π (1 - a))` and `γ = (1 + a) / 2 · √(c + δ)`: value
    /// and slope are continuous.
    CosineInverseSqrt {
        /// Length of the warmup; none by default.
        warmup_tokens: TokenSpan,
        /// Length of the cosine after the warmup; a quarter of the run by default.
        cosine_tokens: TokenSpan,
        /// The floor that the cosine would reach after twice its length; 0.1 by default.
        cosine_floor: f64,
        /// Length of the decay; none by default.
        decay_tokens: TokenSpan,
        /// Shape of the decay; 1-sqrt by default. It starts from the factor reached.
        decay: DecayShape,
        /// The factor at the very end if there is a decay, as a share of the factor at the decay's start; 0 by default.
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
    /// The cosine does not fit between warmup and decay.
    #[error(
        "schedule.cosine_tokens is {cosine}, between warmup and decay {room} of the run's tokens are left; set it above 0 and to {room} at \
         most, or shorten the others"
    )]
    Cosine {
        /// Tokens of the cosine.
        cosine: u64,
        /// Tokens between warmup and decay.
        room: u64,
    },
    /// The cosine's floor is not between 0 and 1.
    #[error(
        "schedule.cosine_floor is {0}; set a fraction of the peak rate of at least 0 and below 1"
    )]
    CosineFloor(f64),
    /// The last factor is not between 0 and 1.
    #[error("schedule.final_fraction is {0}; set a fraction of the peak rate from 0 to 1")]
    FinalFraction(f64),
}

impl ScheduleError {
    /// The key of the section `schedule` that is at fault.
    pub fn key(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "decay_tokens",
            Self::UnusedKey { key, .. } => key,
            Self::Cosine { .. } => "cosine_tokens",
            Self::CosineFloor(_) => "cosine_floor",
            Self::FinalFraction(_) => "final_fraction",
        }
    }
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
            Self::CosineWithWarmup { .. } => "cosine_with_warmup",
            Self::CosineInverseSqrt { .. } => "cosine_inverse_sqrt",
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
            }
            | Self::CosineWithWarmup {
                warmup_tokens,
                final_fraction,
            } => {
                let warmup = tokens(warmup_tokens);
                let shape = match self {
                    Self::CosineWithWarmup { .. } => DecayShape::Cosine,
                    _ => DecayShape::Linear,
                };
                (
                    warmup,
                    total_tokens.saturating_sub(warmup),
                    shape,
                    *final_fraction,
                )
            }
            Self::CosineInverseSqrt {
                warmup_tokens,
                decay_tokens,
                decay,
                final_fraction,
                ..
            } => (
                tokens(warmup_tokens),
                tokens(decay_tokens),
                *decay,
                *final_fraction,
            ),
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
            return self.before_decay(tokens_seen - warmup, total_tokens);
        }
        let x = (tokens_seen - start) as f64 / decay as f64;
        let from = self.before_decay(start.saturating_sub(warmup), total_tokens);
        from * shape.at(x.min(1.0), final_fraction)
    }

    /// The factor between warmup and decay, `t` tokens after the warmup: 1, but for the inverse square root.
    fn before_decay(&self, t: u64, total_tokens: u64) -> f64 {
        let Self::CosineInverseSqrt {
            cosine_tokens,
            cosine_floor,
            ..
        } = self
        else {
            return 1.0;
        };
        use std::f64::consts::PI;
        let (t, floor) = (t as f64, *cosine_floor);
        let cosine = cosine_tokens.tokens(total_tokens).max(1) as f64;
        if t < cosine {
            return floor + (1.0 - floor) * 0.5 * (1.0 + (0.5 * PI * t / cosine).cos());
        }
        let shifted = cosine * (1.0 + floor) / (PI * (1.0 - floor));
        0.5 * (1.0 + floor) * (shifted / (t - cosine + shifted)).sqrt()
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
        if let Self::CosineInverseSqrt {
            cosine_tokens,
            cosine_floor,
            ..
        } = self
        {
            let cosine = cosine_tokens.tokens(total_tokens);
            let room = total_tokens - warmup - decay;
            if cosine == 0 || cosine > room {
                return Err(ScheduleError::Cosine { cosine, room });
            }
            if !(0.0..1.0).contains(cosine_floor) {
                return Err(ScheduleError::CosineFloor(*cosine_floor));
            }
        }
        Ok(())
    }
}
