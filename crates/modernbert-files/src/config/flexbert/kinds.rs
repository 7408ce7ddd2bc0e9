//! The values of the architecture choices.

use serde::{Deserialize, Serialize};

/// Order of norms and sums in a layer. With the norms `N1`, `N2`:
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// `y = x + attention(N1 x)`, then `y + mlp(N2 y)`.
    #[default]
    Prenorm,
    /// `y = N1(x + attention(x))`, then `N2(y + mlp(y))`.
    Postnorm,
    /// `x + attention(N1 x) + mlp(N1 x)`.
    ParallelPrenorm,
}

impl BlockKind {
    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prenorm => "prenorm",
            Self::Postnorm => "postnorm",
            Self::ParallelPrenorm => "parallel_prenorm",
        }
    }
}

/// Projections and positions of attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKind {
    /// `Wqkv`, without rotary embeddings.
    Base,
    /// `Wqkvff`, without rotary embeddings.
    Parallel,
    /// `Wqkv`, with rotary embeddings.
    #[default]
    Rope,
    /// `Wqkvff`, with rotary embeddings.
    RopeParallel,
}

impl AttentionKind {
    /// True if queries, keys and values come from `Wqkvff`, which they share with the MLP.
    pub fn is_parallel(self) -> bool {
        matches!(self, Self::Parallel | Self::RopeParallel)
    }

    /// True if queries and keys have rotary embeddings.
    pub fn has_rope(self) -> bool {
        matches!(self, Self::Rope | Self::RopeParallel)
    }

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Parallel => "parallel",
            Self::Rope => "rope",
            Self::RopeParallel => "rope_parallel",
        }
    }
}

/// The MLP of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MlpKind {
    /// `Wo · act(Wi x)`.
    Mlp,
    /// `Wo · (act(p) ⊙ g)` with `[p, g] = Wi x`.
    #[default]
    Glu,
    /// The same with `[p, g]` from `Wqkvff`.
    ParallelGlu,
}

impl MlpKind {
    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Glu => "glu",
            Self::ParallelGlu => "parallel_glu",
        }
    }
}

/// Encoding of positions in addition to, or instead of, rotary embeddings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmbeddingKind {
    /// None.
    #[default]
    SansPos,
    /// A learned vector for each of `max_position_embeddings` positions, added to the token's.
    AbsolutePos,
    /// `-slope · |i - j|` added to the attention scores of query i and key j, with a slope for each head.
    Alibi,
}

impl EmbeddingKind {
    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::SansPos => "sans_pos",
            Self::AbsolutePos => "absolute_pos",
            Self::Alibi => "alibi",
        }
    }
}

/// Normalization of a token's features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// `(x - mean) / sqrt(variance + eps)`.
    #[default]
    #[serde(alias = "triton_layernorm")]
    Layernorm,
    /// `x / sqrt(mean(x²) + eps)`.
    #[serde(alias = "triton_rmsnorm")]
    Rmsnorm,
}

impl NormKind {
    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layernorm => "layernorm",
            Self::Rmsnorm => "rmsnorm",
        }
    }
}
