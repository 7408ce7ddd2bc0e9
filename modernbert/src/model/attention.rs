//! The attention block: projection to q, k, v, packed attention, output projection.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::encoder::ForwardPass;
use super::linear::Linear;
use super::precision::Precision;
use super::rotary::token_rows;
use super::row_order::row_order;
use crate::config::flexbert::{AttentionPart, LayerSpec, alibi_slopes};
use crate::ops::attention::{AttentionSpec, Composed, Positions, attention, attention_composed};
use crate::ops::dropout::{Site, attention_with_dropout};

/// Self-attention of one layer. A parallel layer has its input projection itself.
#[derive(Module, Debug)]
pub(super) struct Attention {
    wqkv: Option<Linear>,
    wo: Linear,
    #[module(skip)]
    part: AttentionPart,
    /// Order of the rows of the input projection in which RoPE's pairs are those of the kernels; `None` for the order in which they are.
    #[module(skip)]
    row_order: Option<Vec<usize>>,
}

impl Attention {
    pub(super) fn new(layer: &LayerSpec, hidden: usize, device: &Device) -> Self {
        let part = layer.attention.clone();
        Self {
            wqkv: (!layer.is_parallel())
                .then(|| Linear::new(hidden, part.qkv_rows(), part.qkv_bias, device)),
            wo: Linear::new(part.width(), hidden, part.out_bias, device),
            row_order: row_order(&part, layer),
            part,
        }
    }

    /// Sets the rotary base if the layer is global.
    pub(super) fn set_global_theta(&mut self, theta: f64) {
        if let (None, Some(rotary)) = (self.part.half_window, &mut self.part.rotary) {
            rotary.theta = theta;
        }
    }

    /// Stores the weights in the dtype of `precision`.
    pub(super) fn cast_weights_to(&mut self, precision: Precision) {
        self.wqkv
            .iter_mut()
            .for_each(|wqkv| wqkv.cast_weights_to(precision));
        self.wo.cast_weights_to(precision);
    }

    /// `Wqkv` and `Wo` of a layer that is not parallel.
    #[cfg(feature = "flex")]
    pub(super) fn into_weights(self) -> [Tensor<2>; 2] {
        let wqkv = self.wqkv.expect("Wqkv of a layer that is not parallel");
        [wqkv.weight.into_value(), self.wo.weight.into_value()]
    }

    /// `Wqkv` and `Wo` of a layer that is not parallel, in whose place zeros remain that take no memory.
    pub(super) fn take_weights(&mut self) -> [Tensor<2>; 2] {
        let wqkv = self.wqkv.as_mut();
        let wqkv = wqkv.expect("Wqkv of a layer that is not parallel");
        [wqkv.take_weight(), self.wo.take_weight()]
    }

    fn wqkv(&self) -> &Linear {
        self.wqkv
            .as_ref()
            .expect("Wqkv of a layer that is not parallel")
    }

    /// Rows of the projection to queries, keys and values.
    pub(super) fn qkv_rows(&self) -> usize {
        self.part.qkv_rows()
    }

    /// Order of the rows of the input projection; see the field.
    pub(super) fn row_order(&self) -> Option<&[usize]> {
        self.row_order.as_deref()
    }

    /// `[total, hidden]` in and out, in the dtype of the input, of a layer that is not parallel.
    pub(super) fn forward(&self, input: Tensor<2>, pass: &ForwardPass, layer: usize) -> Tensor<2> {
        let qkv = self.wqkv().forward_rows(input, self.row_order());
        self.attend(qkv, pass, layer)
    }

    /// The block from its projected input `[total, rows]`, to `[total, hidden]`.
    pub(super) fn attend(&self, qkv: Tensor<2>, pass: &ForwardPass, layer: usize) -> Tensor<2> {
        self.wo.forward(self.attended(qkv, pass, layer))
    }

    /// The outputs of all heads, `[total, heads * head_dim]`, before the output projection.
    pub(super) fn attended(&self, qkv: Tensor<2>, pass: &ForwardPass, layer: usize) -> Tensor<2> {
        let [total, _] = qkv.dims();
        let part = &self.part;
        let layout = &pass.layout;
        let qkv = self.of_all_heads(qkv);
        let scale = 1.0 / (part.head_dim as f64).sqrt();
        let spec =
            AttentionSpec::new(layout.clone(), part.half_window, scale).with_softcap(part.softcap);
        let table = || {
            let rotary = part.rotary.as_ref()?;
            let longest = layout.max_seqlen();
            Some(pass.rotary.table(longest, rotary, &pass.device))
        };
        let dropout = pass.dropout_at(layer, Site::AttentionProbabilities);
        let out = match (part.is_composed(), dropout) {
            (false, None) => attention(qkv, table(), spec),
            (false, Some(dropped)) => attention_with_dropout(qkv, table(), &spec, dropped),
            (true, dropout) => {
                let composed = Composed {
                    positions: match &part.rotary {
                        None => Positions::None,
                        Some(rotary) => {
                            Positions::Tokens(Box::new(token_rows(layout, rotary, &pass.device)))
                        }
                    },
                    slopes: part.alibi.then(|| alibi_slopes(part.heads)),
                    dropout,
                };
                attention_composed(qkv, &spec, composed)
            }
        };
        out.reshape([total, part.width()])
    }

    /// Queries, keys and values `[total, 3, heads, head_dim]`: heads that share keys and values have copies of them.
    fn of_all_heads(&self, qkv: Tensor<2>) -> Tensor<4> {
        let [total, _] = qkv.dims();
        let AttentionPart {
            heads,
            kv_heads,
            head_dim,
            ..
        } = self.part;
        if heads == kv_heads {
            return qkv.reshape([total, 3, heads, head_dim]);
        }
        if total == 0 {
            return Tensor::zeros([0, 3, heads, head_dim], (&qkv.device(), qkv.dtype()));
        }
        let group = heads / kv_heads;
        let columns =
            |first: usize, count: usize| qkv.clone().narrow(1, first * head_dim, count * head_dim);
        let shared = |first: usize| -> Tensor<2> {
            columns(first, kv_heads)
                .reshape([total, kv_heads, 1, head_dim])
                .repeat_dim(2, group)
                .reshape([total, heads * head_dim])
        };
        let parts = vec![columns(0, heads), shared(heads), shared(heads + kv_heads)];
        Tensor::cat(parts, 1).reshape([total, 3, heads, head_dim])
    }
}
