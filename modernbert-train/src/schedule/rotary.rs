//! Gradual rotary base: the base of global layers rises in steps over the first tokens of a phase.

/// A ramp of the rotary base.
///
/// The base starts at `from` and rises by `step` at a time, at equal distances, so that it is `to` after `tokens` tokens; the last step is
/// shorter where `step` does not divide the distance. Source: `src/algorithms/rope_schedule.py` of ModernBERT's training code, whose setter
/// did not refresh the cached frequencies; here the tables follow the base.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RotaryRamp {
    /// The first base.
    pub from: f64,
    /// Difference between one base and the next, above 0.
    pub step: f64,
    /// The last base, above `from`.
    pub to: f64,
    /// Tokens of the ramp, padding not counted.
    pub tokens: u64,
}

impl RotaryRamp {
    /// The base after `tokens_seen` tokens of the phase.
    pub fn at(&self, tokens_seen: u64) -> f64 {
        if tokens_seen >= self.tokens {
            return self.to;
        }
        let steps = ((self.to - self.from) / self.step).ceil();
        let done = (tokens_seen as f64 / self.tokens as f64 * steps).floor();
        (self.from + done * self.step).min(self.to)
    }
}
