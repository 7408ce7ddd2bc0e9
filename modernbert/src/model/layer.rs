//! One layer: norms, attention and MLP in one of three orders.
//!
//! ```text
//! prenorm     y = x + attention(N1 x)       y + mlp(N2 y)
//! postnorm    y = N1(x + attention(x))      N2(y + mlp(y))
//! parallel    x + attention(N1 x) + mlp(N1 x), both from one matrix Wqkvff
//! ```

use burn::module::Module;
use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::attention::Attention;
use super::encoder::ForwardPass;
use super::fp8::{Fp8Weights, project, project_geglu};
use super::linear::Linear;
use super::mlp::Mlp;
use super::norm::Norm;
use super::precision::Precision;
use crate::config::flexbert::{BlockKind, LayerSpec};
use crate::ops::convert::convert;
use crate::ops::dropout::Site;
use crate::ops::fp8::Quantized;

/// A layer of the encoder. The first one has no attention norm where the embeddings end in a norm.
#[derive(Module, Debug)]
pub(super) struct EncoderLayer {
    #[module(skip)]
    index: usize,
    #[module(skip)]
    block: BlockKind,
    attn_norm: Option<Norm>,
    wqkvff: Option<Linear>,
    attn: Attention,
    mlp_norm: Option<Norm>,
    mlp: Mlp,
    /// The matrices in fp8; the modules have none then.
    #[module(skip)]
    fp8: Option<Fp8Weights>,
}

/// Parameters of a layer whose attention and MLP follow each other.
#[cfg(feature = "flex")]
pub(super) struct LayerWeights {
    pub(super) attention_norm: Option<Norm>,
    pub(super) wqkv: Tensor<2>,
    pub(super) attention_out: Tensor<2>,
    pub(super) mlp_norm: Norm,
    pub(super) wi: Tensor<2>,
    pub(super) mlp_out: Tensor<2>,
}

impl EncoderLayer {
    /// The parameters of a layer that is not parallel.
    #[cfg(feature = "flex")]
    pub(super) fn into_weights(self) -> LayerWeights {
        let mlp_norm = self.mlp_norm().clone();
        let [wqkv, attention_out] = self.attn.into_weights();
        let [wi, mlp_out] = self.mlp.into_weights();
        LayerWeights {
            attention_norm: self.attn_norm,
            wqkv,
            attention_out,
            mlp_norm,
            wi,
            mlp_out,
        }
    }

    pub(super) fn new(spec: &LayerSpec, index: usize, hidden: usize, device: &Device) -> Self {
        let parallel = spec.is_parallel();
        let fused = || {
            let rows = spec.attention.qkv_rows() + spec.mlp.in_rows();
            Linear::new(hidden, rows, spec.attention.qkv_bias, device)
        };
        Self {
            index,
            block: spec.block,
            attn_norm: spec.attention_norm.then(|| Norm::new(&spec.norm, device)),
            wqkvff: parallel.then(fused),
            attn: Attention::new(spec, hidden, device),
            mlp_norm: (!parallel).then(|| Norm::new(&spec.norm, device)),
            mlp: Mlp::new(spec, hidden, device),
            fp8: None,
        }
    }

    /// Quantizes the matrices to fp8. For layers that [`super::fp8::supports`].
    pub(super) fn quantize(&mut self) {
        let [wqkv, attention_out] = self.attn.take_weights().map(Quantized::new);
        let [wi, mlp_out] = self.mlp.take_weights().map(Quantized::new);
        self.fp8 = Some(Fp8Weights {
            wqkv,
            attention_out,
            wi,
            mlp_out,
        });
    }

    /// Sets the rotary base if the layer is global.
    pub(super) fn set_global_theta(&mut self, theta: f64) {
        self.attn.set_global_theta(theta);
    }

    /// Stores the weights of matrix multiplications in the dtype of `precision`.
    pub(super) fn cast_weights_to(&mut self, precision: Precision) {
        self.wqkvff
            .iter_mut()
            .for_each(|fused| fused.cast_weights_to(precision));
        self.attn.cast_weights_to(precision);
        self.mlp.cast_weights_to(precision);
    }

    /// The layer's input, `[total, hidden]` in f32, and the stream after the layer.
    pub(super) fn forward(
        &self,
        stream: ResidualStream,
        pass: &ForwardPass,
    ) -> (Tensor<2>, ResidualStream) {
        if let Some(weights) = &self.fp8 {
            return self.prenorm_fp8(stream, pass, weights);
        }
        match self.block {
            BlockKind::Prenorm => self.prenorm(stream, pass),
            BlockKind::Postnorm => self.postnorm(stream, pass),
            BlockKind::ParallelPrenorm => self.parallel(stream, pass),
        }
    }

    fn prenorm(&self, stream: ResidualStream, pass: &ForwardPass) -> (Tensor<2>, ResidualStream) {
        let (entered, normed) = self.enter(stream, pass);
        let attended = self.attended(self.attn.forward(normed, pass, self.index), pass);
        let sum = ResidualStream::start(entered.clone()).add(attended);
        let (x, normed) = sum.norm(self.mlp_norm(), pass.precision.dtype());
        let branch = self.mlp.forward(normed, pass, self.index);
        (entered, ResidualStream::start(x).add(branch))
    }

    /// [`Self::prenorm`] with the matrices in fp8: the norms, the heads' outputs and GeGLU's are quantized by tokens.
    fn prenorm_fp8(
        &self,
        stream: ResidualStream,
        pass: &ForwardPass,
        weights: &Fp8Weights,
    ) -> (Tensor<2>, ResidualStream) {
        let precision = pass.precision;
        let (entered, normed) = match &self.attn_norm {
            Some(norm) => stream.norm_fp8(norm),
            None => {
                let x = stream.sum();
                (x.clone(), Quantized::new(x))
            }
        };
        let qkv = project(&normed, &weights.wqkv, precision);
        let heads = Quantized::new(self.attn.attended(qkv, pass, self.index));
        let attended = project(&heads, &weights.attention_out, precision);
        let (x, normed) = ResidualStream::start(entered.clone())
            .add(attended)
            .norm_fp8(self.mlp_norm());
        let gated = Quantized::new(project_geglu(&normed, &weights.wi, precision));
        let branch = project(&gated, &weights.mlp_out, precision);
        (entered, ResidualStream::start(x).add(branch))
    }

    fn postnorm(&self, stream: ResidualStream, pass: &ForwardPass) -> (Tensor<2>, ResidualStream) {
        let precision = pass.precision;
        let entered = stream.sum();
        let dtype = entered.dtype();
        let attended = self
            .attn
            .forward(precision.to_compute(entered.clone()), pass, self.index);
        let sum = ResidualStream::start(entered.clone()).add(self.attended(attended, pass));
        let x = match &self.attn_norm {
            Some(norm) => sum.norm(norm, dtype).1,
            None => sum.sum(),
        };
        let branch = self
            .mlp
            .forward(precision.to_compute(x.clone()), pass, self.index);
        let (_, x) = ResidualStream::start(x)
            .add(branch)
            .norm(self.mlp_norm(), dtype);
        (entered, ResidualStream::start(x))
    }

    fn parallel(&self, stream: ResidualStream, pass: &ForwardPass) -> (Tensor<2>, ResidualStream) {
        let (entered, normed) = self.enter(stream, pass);
        let fused = self.wqkvff.as_ref().expect("Wqkvff of a parallel layer");
        let both = fused.forward_rows(normed, self.attn.row_order());
        let [_, rows] = both.dims();
        let qkv = self.attn.qkv_rows();
        let attended = self
            .attn
            .attend(both.clone().narrow(1, 0, qkv), pass, self.index);
        let branch = self
            .mlp
            .output(both.narrow(1, qkv, rows - qkv), pass, self.index);
        let stream = ResidualStream::start(entered.clone()).add(self.attended(attended, pass));
        (entered, stream.add(branch))
    }

    /// The layer's input in f32, and its norm in the dtype of the pass.
    fn enter(&self, stream: ResidualStream, pass: &ForwardPass) -> (Tensor<2>, Tensor<2>) {
        match &self.attn_norm {
            Some(norm) => stream.norm(norm, pass.precision.dtype()),
            None => {
                let x = stream.sum();
                (x.clone(), pass.precision.to_compute(x))
            }
        }
    }

    fn attended(&self, attended: Tensor<2>, pass: &ForwardPass) -> Tensor<2> {
        pass.drop(attended, self.index, Site::AttentionOutput)
    }

    fn mlp_norm(&self) -> &Norm {
        self.mlp_norm
            .as_ref()
            .expect("the MLP's norm of a layer that is not parallel")
    }
}

/// The residual stream between two blocks: `x` in f32, and the output of the last block. The next norm adds this output to `x`: sum and norm
/// are one op.
pub(super) struct ResidualStream {
    x: Tensor<2>,
    branch: Option<Tensor<2>>,
}

impl ResidualStream {
    /// The stream before the first block.
    pub(super) fn start(x: Tensor<2>) -> Self {
        Self { x, branch: None }
    }

    /// The stream with the output of one more block. An output that is not yet added is first added to `x` in f32: the two outputs of a parallel
    /// layer are never summed in half precision.
    pub(super) fn add(self, branch: Tensor<2>) -> Self {
        Self {
            x: self.sum(),
            branch: Some(branch),
        }
    }

    /// The sum in f32.
    pub(super) fn sum(self) -> Tensor<2> {
        match self.branch {
            Some(branch) => {
                let dtype = self.x.dtype();
                self.x + convert(branch, FloatDType::from(dtype))
            }
            None => self.x,
        }
    }

    /// The sum and its norm, quantized.
    pub(super) fn norm_fp8(self, norm: &Norm) -> (Tensor<2>, Quantized) {
        match self.branch {
            Some(branch) => norm.add_forward_fp8(self.x, branch),
            None => {
                let normed = norm.forward(self.x.clone());
                (self.x, Quantized::new(normed))
            }
        }
    }

    /// The sum in f32 and its norm in `dtype`.
    pub(super) fn norm(self, norm: &Norm, dtype: DType) -> (Tensor<2>, Tensor<2>) {
        match self.branch {
            Some(branch) => norm.add_forward(self.x, branch, dtype),
            None => {
                let normed = norm.forward_to(self.x.clone(), dtype);
                (self.x, normed)
            }
        }
    }
}
