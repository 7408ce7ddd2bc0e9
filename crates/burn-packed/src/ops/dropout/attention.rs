//! Attention with dropout of its probabilities.
//!
//! No published ModernBERT is trained this way, so there is no kernel: this is [`attention_composed`] with [`super::dropout`] between softmax and the
//! matmul with V. The probabilities of all query blocks are saved for backward.

use burn::tensor::Tensor;

use super::DropoutSpec;
use crate::ops::attention::{AttentionSpec, Composed, Positions, attention_composed};

/// [`crate::ops::attention::attention`] with dropout of the probabilities, with the same arguments and result.
///
/// The key of a probability depends on the sequence's index in the batch, the head, the query and the key.
///
/// # Panics
/// As [`crate::ops::attention::attention`].
pub fn attention_with_dropout(
    qkv: Tensor<4>,
    rotary: Option<Tensor<2>>,
    spec: &AttentionSpec,
    drop: DropoutSpec,
) -> Tensor<3> {
    let composed = Composed {
        positions: rotary.map_or(Positions::None, Positions::Table),
        slopes: None,
        dropout: Some(drop),
    };
    attention_composed(qkv, spec, composed)
}
