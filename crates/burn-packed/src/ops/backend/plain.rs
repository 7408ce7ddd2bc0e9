//! Switching this crate's own versions off, for comparisons.

use std::sync::atomic::{AtomicU32, Ordering};

/// An op, forward and backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Packed attention.
    Attention,
    /// Matrix products.
    Linear,
    /// GeGLU.
    Geglu,
    /// LayerNorm, alone and with the residual's sum.
    LayerNorm,
    /// Cross-entropy, and the sums it needs.
    CrossEntropy,
    /// Lookups of the token embedding.
    Embedding,
    /// The optimizer's step.
    Optimizer,
    /// Dropout.
    Dropout,
    /// Sums over whole tensors.
    Sum,
}

impl Op {
    /// Every op.
    pub const ALL: [Self; 9] = [
        Self::Attention,
        Self::Linear,
        Self::Geglu,
        Self::LayerNorm,
        Self::CrossEntropy,
        Self::Embedding,
        Self::Optimizer,
        Self::Dropout,
        Self::Sum,
    ];

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Linear => "linear",
            Self::Geglu => "geglu",
            Self::LayerNorm => "layer-norm",
            Self::CrossEntropy => "cross-entropy",
            Self::Embedding => "embedding",
            Self::Optimizer => "optimizer",
            Self::Dropout => "dropout",
            Self::Sum => "sum",
        }
    }
}

impl std::str::FromStr for Op {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|op| op.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("unknown op `{name}`; there are {known}")
        })
    }
}

static PLAIN: AtomicU32 = AtomicU32::new(0);

/// From now on these ops, and no others, are computed in this process by operations that Burn's backends have themselves, on
/// every device: what a fast version is held against. Nothing but comparisons should want it.
pub fn use_plain(ops: &[Op]) {
    let bits = ops.iter().fold(0, |bits, op| bits | 1 << *op as u32);
    PLAIN.store(bits, Ordering::Relaxed);
}

#[cfg(any(feature = "cube", feature = "flex"))]
pub(super) fn plain(op: Op) -> bool {
    PLAIN.load(Ordering::Relaxed) & 1 << op as u32 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for op in Op::ALL {
            assert_eq!(op.name().parse::<Op>(), Ok(op));
        }
        let message = "softmax".parse::<Op>().unwrap_err();
        assert!(message.contains("layer-norm"), "{message}");
    }
}
