//! Schedules in TOML: spans of tokens, and the flat table a schedule is read from.

use super::{DecayShape, Schedule, ScheduleError};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Part of a run: a number of tokens (`3_000_000`), or a share of the run (`"5%"`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenSpan {
    /// Number of tokens.
    Tokens(u64),
    /// This share of the run's tokens, 0 to 1.
    Fraction(f64),
}

impl TokenSpan {
    /// The span in tokens, in a run of `total_tokens`; a share is rounded to the nearest token.
    pub fn tokens(&self, total_tokens: u64) -> u64 {
        match *self {
            Self::Tokens(tokens) => tokens,
            // A float becomes an integer by saturation, so no share can overflow; NaN becomes 0.
            Self::Fraction(fraction) => (total_tokens as f64 * fraction).round() as u64,
        }
    }
}

impl Default for TokenSpan {
    fn default() -> Self {
        Self::Tokens(0)
    }
}

impl Serialize for TokenSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tokens(tokens) => serializer.serialize_u64(*tokens),
            Self::Fraction(fraction) => {
                // 0.07 * 100 is 7.000000000000001: twelve decimals are more than anyone writes, and hide it.
                let percent = (fraction * 100.0 * 1e12).round() / 1e12;
                serializer.serialize_str(&format!("{percent}%"))
            }
        }
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = TokenSpan;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number of tokens such as 3_000_000, or a share of the run such as \"5%\"")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<TokenSpan, E> {
        Ok(TokenSpan::Tokens(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<TokenSpan, E> {
        let unexpected = serde::de::Unexpected::Signed(value);
        u64::try_from(value)
            .map(TokenSpan::Tokens)
            .map_err(|_| E::invalid_value(unexpected, &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<TokenSpan, E> {
        let percent = text
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok());
        match percent {
            Some(percent) if (0.0..=100.0).contains(&percent) => {
                Ok(TokenSpan::Fraction(percent / 100.0))
            }
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for TokenSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

/// Keys of a `[schedule]` table. They are read flat, so that a mistake is reported at its own line, and sorted into variants after.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    kind: SpanKind,
    warmup_tokens: Option<TokenSpan>,
    decay_tokens: Option<TokenSpan>,
    decay: Option<DecayShape>,
    final_fraction: Option<f64>,
    cosine_tokens: Option<TokenSpan>,
    cosine_floor: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SpanKind {
    Constant,
    WarmupStableDecay,
    OneMinusSqrt,
    LinearWithWarmup,
    CosineWithWarmup,
    CosineInverseSqrt,
}

impl TryFrom<Table> for Schedule {
    type Error = ScheduleError;

    fn try_from(table: Table) -> Result<Self, ScheduleError> {
        let Table {
            kind,
            warmup_tokens: warmup,
            decay_tokens: decay,
            decay: shape,
            final_fraction: last,
            cosine_tokens: cosine,
            cosine_floor: floor,
        } = table;
        let given = [
            ("warmup_tokens", warmup.is_some()),
            ("decay_tokens", decay.is_some()),
            ("decay", shape.is_some()),
            ("final_fraction", last.is_some()),
            ("cosine_tokens", cosine.is_some()),
            ("cosine_floor", floor.is_some()),
        ];
        let (schedule, keys): (Self, &[&str]) = match kind {
            SpanKind::Constant => (
                Self::Constant {
                    warmup_tokens: warmup.unwrap_or_default(),
                },
                &["warmup_tokens"],
            ),
            SpanKind::WarmupStableDecay => (
                Self::WarmupStableDecay {
                    warmup_tokens: warmup.unwrap_or_default(),
                    decay_tokens: decay.unwrap_or_default(),
                    decay: shape.unwrap_or_default(),
                    final_fraction: last.unwrap_or(0.0),
                },
                &["warmup_tokens", "decay_tokens", "decay", "final_fraction"],
            ),
            SpanKind::OneMinusSqrt => (
                Self::OneMinusSqrt {
                    decay_tokens: decay.unwrap_or(TokenSpan::Fraction(1.0)),
                    final_fraction: last.unwrap_or(0.001),
                },
                &["decay_tokens", "final_fraction"],
            ),
            SpanKind::LinearWithWarmup => (
                Self::LinearWithWarmup {
                    warmup_tokens: warmup.unwrap_or_default(),
                    final_fraction: last.unwrap_or(0.0),
                },
                &["warmup_tokens", "final_fraction"],
            ),
            SpanKind::CosineWithWarmup => (
                Self::CosineWithWarmup {
                    warmup_tokens: warmup.unwrap_or_default(),
                    final_fraction: last.unwrap_or(0.0),
                },
                &["warmup_tokens", "final_fraction"],
            ),
            SpanKind::CosineInverseSqrt => (
                Self::CosineInverseSqrt {
                    warmup_tokens: warmup.unwrap_or_default(),
                    cosine_tokens: cosine.unwrap_or(TokenSpan::Fraction(0.25)),
                    cosine_floor: floor.unwrap_or(0.1),
                    decay_tokens: decay.unwrap_or_default(),
                    decay: shape.unwrap_or_default(),
                    final_fraction: last.unwrap_or(0.0),
                },
                &[
                    "warmup_tokens",
                    "cosine_tokens",
                    "cosine_floor",
                    "decay_tokens",
                    "decay",
                    "final_fraction",
                ],
            ),
        };
        let unused = given
            .into_iter()
            .find(|(key, given)| *given && !keys.contains(key));
        match unused {
            Some((key, _)) => Err(ScheduleError::UnusedKey {
                key,
                kind: schedule.kind(),
            }),
            None => Ok(schedule),
        }
    }
}
