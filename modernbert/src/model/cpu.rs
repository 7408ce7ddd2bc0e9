//! The encoder's layers on CPUs, with packed weights: see [`cpu_encoder`].

use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use cpu_encoder::{Builder, EncoderDtype, EncoderSizes, Layer, PackedEncoder, WeightMatrix};
use cpu_gemm::{InstructionSet, Team};

use super::encoder::ModernBert;
use super::layer::EncoderLayer;
use super::norm::Norm;
use super::precision::Precision;
use super::published::is_published;
use crate::batch::PackedBatch;
use crate::checkpoint::{CheckpointError, LoadPlan, TensorValues};
use crate::config::flexbert::{LayerSpec, NormSpec};
use crate::device;

/// Packed layers and final norm; clones share them.
#[derive(Clone, Debug)]
pub(super) struct CpuLayers {
    encoder: Arc<PackedEncoder>,
}

/// The dtype, instruction set and threads of layers that can be packed.
pub(super) struct Packing {
    format: EncoderDtype,
    isa: InstructionSet,
    team: Team,
}

/// One layer's parameters.
pub(super) struct LayerValues<'a> {
    attention_norm: Option<Vec<f32>>,
    wqkv: TensorValues<'a>,
    attention_out: TensorValues<'a>,
    mlp_norm: Vec<f32>,
    wi: TensorValues<'a>,
    mlp_out: TensorValues<'a>,
}

impl Packing {
    /// `None` where another device computes, the architecture is not the published one, or the precision has no packed form.
    pub(super) fn new(
        specs: &[LayerSpec],
        device: &Device,
        precision: Precision,
        int8: bool,
    ) -> Option<Self> {
        let format = match (precision, int8) {
            (Precision::F32, false) => EncoderDtype::F32,
            (Precision::Bf16, false) => EncoderDtype::Bf16,
            (_, true) => EncoderDtype::Int8,
            (Precision::F16, false) => return None,
        };
        if !device::is_host(device) || !is_published(specs) {
            return None;
        }
        Some(Self {
            format,
            isa: InstructionSet::current(),
            // Where the system refuses threads, the tensor operations remain.
            team: Team::new(rayon::current_num_threads()).ok()?,
        })
    }

    /// Packs layers of these specifications. `values(i)` gives the parameters of layer i, which are freed before the parameters of the next layer are requested.
    pub(super) fn pack<'a, E>(
        self,
        specs: &[LayerSpec],
        final_norm: &[f32],
        mut values: impl FnMut(usize) -> Result<LayerValues<'a>, E>,
    ) -> Result<CpuLayers, E> {
        let first = &specs[0];
        let sizes = EncoderSizes {
            hidden: first.norm.width,
            heads: first.attention.heads,
            head_dim: first.attention.head_dim,
            intermediate_size: first.mlp.inner,
            eps: first.norm.eps as f32,
        };
        let int8 = self.format == EncoderDtype::Int8;
        let mut builder = Builder::new(sizes, self.format, self.isa, self.team);
        for (index, spec) in specs.iter().enumerate() {
            let rotary = spec.attention.rotary.as_ref();
            let frequencies = rotary.map(|rotary| rotary.frequencies(1).0);
            let values = values(index)?.in_floats_unless(int8);
            builder.push(&Layer {
                half_window: spec.attention.half_window,
                frequencies: frequencies.as_deref(),
                attention_norm: values.attention_norm.as_deref(),
                wqkv: matrix(&values.wqkv),
                attention_out: matrix(&values.attention_out),
                mlp_norm: &values.mlp_norm,
                wi: matrix(&values.wi),
                mlp_out: matrix(&values.mlp_out),
            });
        }
        cpu_gemm::aligned::return_freed_memory();
        Ok(CpuLayers {
            encoder: Arc::new(builder.build(final_norm)),
        })
    }
}

impl LayerValues<'_> {
    /// The parameters of a module, which is consumed.
    pub(super) fn of_layer(layer: EncoderLayer, device: &Device) -> Self {
        let weights = layer.into_weights();
        let matrix = |tensor| TensorValues::Float(Cow::Owned(values::<2>(tensor)));
        let norm = |norm: &Norm| values(norm.weight(device));
        Self {
            attention_norm: weights.attention_norm.as_ref().map(norm),
            wqkv: matrix(weights.wqkv),
            attention_out: matrix(weights.attention_out),
            mlp_norm: norm(&weights.mlp_norm),
            wi: matrix(weights.wi),
            mlp_out: matrix(weights.mlp_out),
        }
    }

    /// With codes multiplied by their scales, unless the encoder computes with them.
    fn in_floats_unless(self, int8: bool) -> Self {
        let floats = |values: TensorValues<'_>| TensorValues::Float(Cow::Owned(values.into_f32()));
        if int8 || !matches!(self.wqkv, TensorValues::Int8 { .. }) {
            return self;
        }
        Self {
            wqkv: floats(self.wqkv),
            attention_out: floats(self.attention_out),
            wi: floats(self.wi),
            mlp_out: floats(self.mlp_out),
            ..self
        }
    }
}

impl<'a> LayerValues<'a> {
    /// The parameters of layer `index` in files.
    pub(super) fn read(
        plan: &LoadPlan<'a>,
        index: usize,
        spec: &LayerSpec,
    ) -> Result<Self, CheckpointError> {
        let values = |name: &str| plan.encoder_values(&format!("layers.{index}.{name}.weight"));
        let norm = |name: &str| match spec.norm.scale {
            true => values(name).map(TensorValues::into_f32),
            false => Ok(vec![1.0; spec.norm.width]),
        };
        Ok(Self {
            attention_norm: spec.attention_norm.then(|| norm("attn_norm")).transpose()?,
            wqkv: values("attn.Wqkv")?,
            attention_out: values("attn.Wo")?,
            mlp_norm: norm("mlp_norm")?,
            wi: values("mlp.Wi")?,
            mlp_out: values("mlp.Wo")?,
        })
    }
}

/// The final norm's weight in files.
pub(super) fn final_norm(
    plan: &LoadPlan<'_>,
    norm: &NormSpec,
) -> Result<Vec<f32>, CheckpointError> {
    match norm.scale {
        true => plan
            .encoder_values("final_norm.weight")
            .map(TensorValues::into_f32),
        false => Ok(vec![1.0; norm.width]),
    }
}

fn matrix<'a>(values: &'a TensorValues<'_>) -> WeightMatrix<'a> {
    match values {
        TensorValues::Float(values) => WeightMatrix::Float(values),
        TensorValues::Int8 { codes, scales } => WeightMatrix::Int8 { codes, scales },
    }
}

impl CpuLayers {
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
    pub(super) fn instruction_set(&self) -> InstructionSet {
        self.encoder.instruction_set()
    }
}

/// Values of a tensor on the CPU, in f32.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .try_into_vec_as::<f32>()
        .expect("a tensor in the memory of the machine is read")
}

fn rows(values: Vec<f32>, model: &ModernBert) -> Tensor<2> {
    let hidden = model.config().hidden_size;
    let sizes = [values.len() / hidden, hidden];
    Tensor::from_data(TensorData::new(values, sizes), &model.device())
}
