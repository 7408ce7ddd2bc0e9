//! Time of each operation of a pass.

use std::time::{Duration, Instant};

/// Operations of a layer; each GEMM with its epilogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// LayerNorm, with rounding or quantization of the result; the final norm too.
    Norm,
    /// Queries, keys and values: `normed · Wqkvᵀ`.
    Qkv,
    /// RoPE, scores, softmax and sums of values.
    Attention,
    /// `attended · Woᵀ`, added to the residual stream.
    AttentionOut,
    /// `normed · Wiᵀ` and GeGLU.
    Gated,
    /// `gated · Woᵀ`, added to the residual stream.
    MlpOut,
    /// Quantization of `attended` and `gated`.
    Quantize,
}

impl Op {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Norm,
        Self::Qkv,
        Self::Attention,
        Self::AttentionOut,
        Self::Gated,
        Self::MlpOut,
        Self::Quantize,
    ];

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Norm => "norms",
            Self::Qkv => "Wqkv",
            Self::Attention => "attention",
            Self::AttentionOut => "Wo of attention",
            Self::Gated => "Wi, GeGLU",
            Self::MlpOut => "Wo of the MLP",
            Self::Quantize => "quantization",
        }
    }
}

/// Times of one pass.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    times: [Duration; Op::ALL.len()],
    /// From the beginning of the pass to its end.
    pub wall: Duration,
}

impl Profile {
    /// Time of an operation, of all threads together.
    pub fn time(&self, op: Op) -> Duration {
        self.times[op as usize]
    }

    pub(crate) fn add(&mut self, op: Op, time: Duration) {
        self.times[op as usize] += time;
    }

    /// Adds the times of another thread.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (time, more) in self.times.iter_mut().zip(other.times) {
            *time += more;
        }
    }
}

/// A thread's clock, which runs if the pass is profiled.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub(crate) profile: Option<Profile>,
}

impl Clock {
    pub(crate) fn start(&self) -> Option<Instant> {
        self.profile.as_ref().map(|_| Instant::now())
    }

    pub(crate) fn stop(&mut self, op: Op, start: Option<Instant>) {
        if let (Some(profile), Some(start)) = (&mut self.profile, start) {
            profile.add(op, start.elapsed());
        }
    }
}
