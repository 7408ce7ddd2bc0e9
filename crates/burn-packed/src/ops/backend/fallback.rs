//! Process-wide switch from this crate's kernels to the fallbacks, for comparisons.

use std::sync::atomic::{AtomicU32, Ordering};

/// An op of this crate, forward and backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Packed attention.
    Attention,
    /// Matrix multiplications.
    Linear,
    /// GeGLU.
    Geglu,
    /// LayerNorm, alone and fused with a residual addition.
    LayerNorm,
    /// Cross-entropy, and the column sums of its gradient.
    CrossEntropy,
    /// Rows of a table by index: the token embedding, labelled rows.
    GatherRows,
    /// The optimizer step.
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
        Self::GatherRows,
        Self::Optimizer,
        Self::Dropout,
        Self::Sum,
    ];

    /// Name of the op on a command line, such as `layer-norm`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Linear => "linear",
            Self::Geglu => "geglu",
            Self::LayerNorm => "layer-norm",
            Self::CrossEntropy => "cross-entropy",
            Self::GatherRows => "gather-rows",
            Self::Optimizer => "optimizer",
            Self::Dropout => "dropout",
            Self::Sum => "sum",
        }
    }
}

/// Error for a name that no op has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown op `{name}`; use one of {}", Op::ALL.map(Op::name).join(", "))]
pub struct UnknownOp {
    /// The name as given.
    pub name: String,
}

impl std::str::FromStr for Op {
    type Err = UnknownOp;

    /// # Errors
    /// [`UnknownOp`] for a name that [`Op::name`] never returns.
    fn from_str(name: &str) -> Result<Self, UnknownOp> {
        let found = Self::ALL.into_iter().find(|op| op.name() == name);
        found.ok_or_else(|| UnknownOp { name: name.into() })
    }
}

/// A bit per op, at the position of its discriminant.
static FALLBACK: AtomicU32 = AtomicU32::new(0);

/// Computes these ops, and no others, with their fallbacks (tensor operations every backend has) from now on, in the whole
/// process and on every device. Only comparisons between kernels and fallbacks need this.
pub fn use_fallback(ops: &[Op]) {
    let bits = ops.iter().fold(0, |bits, op| bits | 1 << *op as u32);
    FALLBACK.store(bits, Ordering::Relaxed);
}

/// Returns whether [`use_fallback`] named this op.
#[cfg(any(feature = "cube", feature = "flex"))]
pub(super) fn uses_fallback(op: Op) -> bool {
    FALLBACK.load(Ordering::Relaxed) & 1 << op as u32 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_its_op() {
        for op in Op::ALL {
            assert_eq!(op.name().parse::<Op>(), Ok(op));
        }
    }

    #[test]
    fn unknown_name_lists_the_known_ones() {
        let message = "softmax".parse::<Op>().unwrap_err().to_string();
        assert!(
            message.contains("`softmax`") && message.contains("layer-norm"),
            "{message}"
        );
    }
}
