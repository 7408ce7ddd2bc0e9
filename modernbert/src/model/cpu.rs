//! The encoder's layers on CPUs, with packed weights: see [`cpu_encoder`].

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use cpu_encoder::{Builder, Encoder, Format, Layer, Shape};
use cpu_gemm::{Team, Unit};

use super::encoder::ModernBert;
use super::layer::EncoderLayer;
use super::norm::Norm;
use super::precision::Precision;
use crate::batch::PackedBatch;
use crate::config::Activation;
use crate::config::flexbert::{BlockKind, LayerSpec, NormKind, NormSpec};

/// Packed layers and final norm; clones share them.
#[derive(Clone, Debug)]
pub(super) struct CpuLayers {
    encoder: Arc<Encoder>,
}

impl CpuLayers {
    /// Packs the layers of a model on a CPU, which are removed from `layers`. `None`, with the layers as they were, where another device computes, the
    /// architecture is not the published one, or the precision has no packed form.
    pub(super) fn pack(
        layers: &mut Vec<EncoderLayer>,
        final_norm: Option<&Norm>,
        specs: &[LayerSpec],
        device: &Device,
        precision: Precision,
        int8: bool,
    ) -> Option<Self> {
        let format = match (precision, int8) {
            (Precision::F32, false) => Format::F32,
            (Precision::Bf16, false) => Format::Bf16,
            (_, true) => Format::Int8,
            (Precision::F16, false) => return None,
        };
        if *device != Device::flex() || !serves(specs) {
            return None;
        }
        let (first, final_norm) = (specs.first()?, final_norm?);
        // Where the system refuses threads, the tensor operations remain.
        let (unit, team) = (
            Unit::current(),
            Team::new(rayon::current_num_threads()).ok()?,
        );
        let shape = Shape {
            hidden: first.norm.width,
            heads: first.attention.heads,
            head_dim: first.attention.head_dim,
            inner: first.mlp.inner,
            eps: first.norm.eps as f32,
        };
        let mut builder = Builder::new(shape, format, unit);
        let norm = |norm: &Norm| values(norm.weight(device));
        for (layer, spec) in std::mem::take(layers).into_iter().zip(specs) {
            let weights = layer.weights();
            let rotary = spec.attention.rotary.as_ref();
            let frequencies = rotary.map(|rotary| rotary.frequencies(1).0);
            let attention_norm = weights.attention_norm.map(norm);
            builder.push(&Layer {
                half_window: spec.attention.half_window,
                frequencies: frequencies.as_deref(),
                attention_norm: attention_norm.as_deref(),
                wqkv: &values(weights.wqkv),
                attention_out: &values(weights.attention_out),
                mlp_norm: &norm(weights.mlp_norm),
                wi: &values(weights.wi),
                mlp_out: &values(weights.mlp_out),
            });
        }
        cpu_gemm::aligned::return_freed_memory();
        Some(Self {
            encoder: Arc::new(builder.finish(&norm(final_norm), team)),
        })
    }

    /// Hidden states after the final norm.
    pub(super) fn forward(&self, model: &ModernBert, batch: &PackedBatch) -> Tensor<2> {
        let input = values(model.embed(batch));
        let out = self.encoder.forward(input, batch.layout.cu_seqlens());
        rows(out, model)
    }

    /// The states between the layers, and the hidden states after the final norm.
    pub(super) fn hidden_states(&self, model: &ModernBert, batch: &PackedBatch) -> Vec<Tensor<2>> {
        let input = values(model.embed(batch));
        let cu_seqlens = batch.layout.cu_seqlens();
        let (states, last) = self.encoder.hidden_states(input, cu_seqlens);
        states
            .into_iter()
            .chain([last])
            .map(|state| rows(state, model))
            .collect()
    }

    /// The instruction set of the GEMMs.
    pub(super) fn unit(&self) -> Unit {
        self.encoder.unit()
    }
}

/// Returns whether the layers are those of the published architecture, in any size.
fn serves(specs: &[LayerSpec]) -> bool {
    let Some(first) = specs.first() else {
        return false;
    };
    let plain = |norm: &NormSpec| norm.kind == NormKind::Layernorm && !norm.bias;
    specs.iter().enumerate().all(|(i, spec)| {
        let (attention, mlp) = (&spec.attention, &spec.mlp);
        spec.block == BlockKind::Prenorm
            && (spec.attention_norm || i == 0)
            && plain(&spec.norm)
            && spec.norm == first.norm
            && attention.heads == attention.kv_heads
            && (attention.heads, attention.head_dim)
                == (first.attention.heads, first.attention.head_dim)
            && !attention.is_composed()
            && attention.softcap.is_none()
            && !attention.qkv_bias
            && !attention.out_bias
            && attention.rotary.as_ref().is_none_or(|rotary| {
                !rotary.interleaved
                    && rotary.dim == rotary.head_dim
                    && rotary.frequencies(1).1 == 1.0
            })
            && mlp.gated
            && mlp.activation == Activation::Gelu
            && mlp.inner == first.mlp.inner
            && !mlp.in_bias
            && !mlp.out_bias
    })
}

/// Values of a tensor on the CPU, in f32.
fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .try_into_vec_as::<f32>()
        .expect("a tensor in the memory of the machine is read")
}

fn rows(values: Vec<f32>, model: &ModernBert) -> Tensor<2> {
    let hidden = model.config().hidden_size;
    let shape = [values.len() / hidden, hidden];
    Tensor::from_data(TensorData::new(values, shape), &model.device())
}
