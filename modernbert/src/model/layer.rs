//! One pre-norm layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`.

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use super::attention::Attention;
use super::encoder::ForwardPass;
use super::mlp::Mlp;
use super::norm::LayerNorm;
use super::precision::Precision;
use crate::config::{LayerType, ModernBertConfig};
use crate::ops::dropout::Site;

/// A layer of the encoder. The first one has no attention norm, because the embeddings end in a norm.
#[derive(Module, Debug)]
pub(super) struct EncoderLayer {
    #[module(skip)]
    index: usize,
    attn_norm: Option<LayerNorm>,
    attn: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl EncoderLayer {
    pub(super) fn new(
        config: &ModernBertConfig,
        index: usize,
        kind: LayerType,
        device: &Device,
    ) -> Self {
        Self {
            index,
            attn_norm: (index > 0).then(|| LayerNorm::new(config, device)),
            attn: Attention::new(config, kind, device),
            mlp_norm: LayerNorm::new(config, device),
            mlp: Mlp::new(config, device),
        }
    }

    /// Sets the rotary base if the layer is global.
    pub(super) fn set_global_theta(&mut self, theta: f64) {
        self.attn.set_global_theta(theta);
    }

    /// Stores the weights of matrix multiplications in the dtype of `precision`.
    pub(super) fn lower(&mut self, precision: Precision) {
        self.attn.lower(precision);
        self.mlp.lower(precision);
    }

    /// The layer's input, `[total, hidden]` in f32, and the stream after the layer.
    pub(super) fn forward(&self, stream: Stream, pass: &ForwardPass) -> (Tensor<2>, Stream) {
        let precision = pass.precision;
        let (entered, normed) = match &self.attn_norm {
            Some(norm) => stream.norm(norm, precision.dtype()),
            None => {
                let x = stream.sum();
                (x.clone(), precision.lower(x))
            }
        };
        let attended = self.attn.forward(normed, pass, self.index);
        let attended = pass.drop(attended, self.index, Site::AttentionOutput);
        let (x, normed) =
            Stream::new(entered.clone(), attended).norm(&self.mlp_norm, precision.dtype());
        (
            entered,
            Stream::new(x, self.mlp.forward(normed, pass, self.index)),
        )
    }
}

/// The residual stream between two blocks: `x` in f32, and the last block's output, which is added to it by the norm that
/// follows: sum and norm are one op.
pub(super) struct Stream {
    x: Tensor<2>,
    branch: Option<Tensor<2>>,
}

impl Stream {
    /// The stream before the first block.
    pub(super) fn start(x: Tensor<2>) -> Self {
        Self { x, branch: None }
    }

    fn new(x: Tensor<2>, branch: Tensor<2>) -> Self {
        Self {
            x,
            branch: Some(branch),
        }
    }

    /// The sum in f32.
    pub(super) fn sum(self) -> Tensor<2> {
        match self.branch {
            Some(branch) => {
                let dtype = self.x.dtype();
                self.x + branch.cast(dtype)
            }
            None => self.x,
        }
    }

    /// The sum in f32 and its norm in `dtype`.
    pub(super) fn norm(self, norm: &LayerNorm, dtype: DType) -> (Tensor<2>, Tensor<2>) {
        match self.branch {
            Some(branch) => norm.add_forward(self.x, branch, dtype),
            None => {
                let normed = norm.forward_to(self.x.clone(), dtype);
                (self.x, normed)
            }
        }
    }
}
