//! The rows of a weight in another order, so that RoPE rotates the pairs of elements that the attention kernels expect.

use burn::module::Param;
use burn::tensor::Tensor;

use crate::batch::int_tensor;
use crate::config::flexbert::{AttentionPart, LayerSpec};

/// Rows of the input projection of a layer, the MLP's of a parallel layer included, with the elements of each head of queries and keys in the order of
/// [`RotarySpec::element_order`](crate::config::flexbert::RotarySpec::element_order); `None` where that is the order in which they are. Scores do
/// not depend on an order that queries and keys share.
pub(super) fn row_order(part: &AttentionPart, layer: &LayerSpec) -> Option<Vec<usize>> {
    let order = part.rotary.as_ref()?.element_order()?;
    let rotated = part.heads + part.kv_heads;
    let more = if layer.is_parallel() {
        layer.mlp.in_rows()
    } else {
        0
    };
    let of_heads =
        (0..rotated).flat_map(|head| order.iter().map(move |d| head * part.head_dim + d));
    let rest = rotated * part.head_dim..part.qkv_rows() + more;
    Some(of_heads.chain(rest).collect())
}

/// Weight and bias with row `order[i]` at row i.
pub(super) fn in_order(
    weight: &Param<Tensor<2>>,
    bias: Option<&Param<Tensor<1>>>,
    order: &[usize],
) -> (Tensor<2>, Option<Tensor<1>>) {
    let weight = weight.val();
    let order = int_tensor(order.iter().map(|&row| row as i32), &weight.device());
    let bias = bias.map(|bias| bias.val().select(0, order.clone()));
    (weight.select(0, order), bias)
}
