//! The encoder: packed token ids to hidden states.

use burn::module::Module;
use burn::tensor::{Device, FloatDType, Tensor};
#[cfg(feature = "flex")]
use std::convert::Infallible;
use std::sync::Arc;

#[cfg(feature = "flex")]
use super::cpu::{CpuLayers, LayerValues, Packing};
use super::embeddings::Embeddings;
use super::graphs::Graphs;
use super::layer::{EncoderLayer, ResidualStream};
use super::limits;
use super::norm::Norm;
use super::precision::Precision;
use super::rotary::RotaryCache;
use crate::batch::{Dropout, PackedBatch, SequenceLayout};
use crate::checkpoint::{CheckpointError, LoadPlan};
#[cfg(feature = "flex")]
use crate::config::flexbert::LayerSpec;
use crate::config::{ConfigError, FlexOptions, ModernBertConfig};
use crate::ops::convert::convert;
use crate::ops::dropout::{DropoutSpec, Site, dropout};

/// The ModernBERT encoder without a head.
///
/// Field names are those of checkpoint files up to the case of `Wqkv`, `Wi` and `Wo`; see [`super::named_parameters`].
#[derive(Module, Debug)]
pub struct ModernBert {
    pub(super) embeddings: Embeddings,
    layers: Vec<EncoderLayer>,
    final_norm: Option<Norm>,
    #[module(skip)]
    config: Arc<ModernBertConfig>,
    #[module(skip)]
    precision: Precision,
    #[module(skip)]
    half_residual: bool,
    #[module(skip)]
    recomputes: bool,
    #[module(skip)]
    rotary: RotaryCache,
    #[module(skip)]
    graphs: Graphs,
    #[module(skip)]
    #[cfg_attr(not(feature = "flex"), allow(dead_code))] // read by the packed layers alone
    int8: bool,
    #[module(skip)]
    fp8: Fp8State,
    /// The packed layers and final norm of a model for inference on a CPU; `layers` is then empty.
    #[cfg(feature = "flex")]
    #[module(skip)]
    cpu: Option<CpuLayers>,
}

/// Whether the layers' matrix multiplications are in fp8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fp8State {
    Off,
    /// From [`ModernBert::for_inference`] on.
    Chosen,
    Quantized,
}

/// State shared by all layers of one forward pass; see [`ModernBert::pass`].
#[derive(Clone, Debug)]
pub struct ForwardPass {
    pub(super) layout: SequenceLayout,
    pub(super) device: Device,
    pub(super) precision: Precision,
    pub(super) rotary: RotaryCache,
    dropout: Option<Dropout>,
}

impl ForwardPass {
    /// Dropout at a site of a layer.
    pub(super) fn dropout_at(&self, layer: usize, site: Site) -> Option<DropoutSpec> {
        self.dropout
            .and_then(|dropout| DropoutSpec::of(&dropout, layer, site))
    }

    /// Applies the dropout of a site of a layer to `x`.
    pub(super) fn drop(&self, x: Tensor<2>, layer: usize, site: Site) -> Tensor<2> {
        match self.dropout_at(layer, site) {
            Some(spec) => dropout(x, spec),
            None => x,
        }
    }
}

impl ModernBert {
    /// An encoder of this shape with all weights zero and all norms one; load or [`super::initialize`] it before use.
    ///
    /// # Errors
    /// As [`ModernBertConfig::validate`]; a matrix larger than the device holds in one tensor.
    pub fn new(config: &ModernBertConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        limits::check_weights(config, device)?;
        let spec = config.spec();
        let layers = spec.layers.iter().enumerate();
        Ok(Self {
            embeddings: Embeddings::new(&spec, device),
            layers: layers
                .map(|(i, layer)| EncoderLayer::new(layer, i, spec.hidden, device))
                .collect(),
            final_norm: spec.final_norm.as_ref().map(|norm| Norm::new(norm, device)),
            config: Arc::new(config.clone()),
            precision: Precision::F32,
            half_residual: false,
            recomputes: false,
            rotary: RotaryCache::default(),
            graphs: Graphs::default(),
            int8: false,
            fp8: Fp8State::Off,
            #[cfg(feature = "flex")]
            cpu: None,
        })
    }

    /// The same encoder with its matrix multiplications in another dtype; parameters stay f32.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same encoder with another rotary base in its global layers, in its config as well. Tables of the old base are dropped; those of
    /// captured graphs too.
    pub fn with_global_rope_theta(mut self, theta: f64) -> Self {
        for layer in &mut self.layers {
            layer.set_global_theta(theta);
        }
        Arc::make_mut(&mut self.config).global_rope_theta = theta;
        self.rotary = RotaryCache::default();
        self.graphs = self.graphs.renewed();
        self
    }

    /// The same encoder for inference alone: weights of matrix multiplications are stored in the dtype of its precision, and on CUDA small
    /// batches (up to 2048 tokens) of the published architecture run as captured [graphs](crate::graph). The outputs have the same bits, except
    /// for batches that are padded to the size of their graph: their matrix multiplications have more rows.
    ///
    /// On CPUs the layers of the published architecture are packed for the processor's instruction set ([`cpu_encoder`]) in f32, bf16 or int8, and are no
    /// longer parameters of the module: the model can be neither saved nor trained. Intermediate results are rounded at other points than in the tensor operations, so that outputs differ by rounding.
    ///
    /// Its weights must not change afterwards, and are rounded to the precision when they are saved. Choose precision, rotary base and the residual
    /// stream's dtype before.
    pub fn for_inference(mut self) -> Self {
        #[cfg(feature = "flex")]
        if self.cpu.is_none() {
            self = self.with_packed_tensors();
        }
        if self.packed_for().is_some() {
            return self;
        }
        if self.fp8 == Fp8State::Chosen && self.supports_fp8() {
            self.layers.iter_mut().for_each(EncoderLayer::quantize);
            self.fp8 = Fp8State::Quantized;
        }
        if self.precision != Precision::F32 && self.fp8 != Fp8State::Quantized {
            for layer in &mut self.layers {
                layer.cast_weights_to(self.precision);
            }
        }
        // Other architectures make tensors on the host during a pass, which a graph can't replay.
        if self.config.flexbert == FlexOptions::default() {
            self.graphs = Graphs::enabled();
        }
        self
    }

    /// Packs the layers from their tensors, where they can be packed.
    #[cfg(feature = "flex")]
    fn with_packed_tensors(mut self) -> Self {
        let (specs, device) = (self.config.spec().layers, self.device());
        let Some(packing) = self.packing(&specs) else {
            return self;
        };
        let Some(norm) = self.final_norm.take() else {
            return self;
        };
        let mut layers = std::mem::take(&mut self.layers).into_iter();
        let norm = super::cpu::values(norm.weight(&device));
        let packed = packing.pack(&specs, &norm, |_| {
            let layer = layers.next().expect("a layer for each specification");
            Ok::<_, Infallible>(LayerValues::of_layer(layer, &device))
        });
        let Ok(packed) = packed;
        self.cpu = Some(packed);
        self
    }

    /// [`Self::for_inference`] of a model whose parameters are still those of [`Self::new`]: layers that can be packed are packed from the files of `plan`,
    /// and no tensors are made of them. What remains of the module is to be filled from the files.
    pub(crate) fn for_inference_from(
        #[cfg_attr(not(feature = "flex"), allow(unused_mut))] mut self,
        plan: &LoadPlan<'_>,
    ) -> Result<Self, CheckpointError> {
        #[cfg(feature = "flex")]
        {
            let spec = self.config.spec();
            let packing = self.packing(&spec.layers);
            if let (Some(packing), Some(norm)) = (packing, &spec.final_norm) {
                self.layers.clear();
                self.final_norm = None;
                let norm = super::cpu::final_norm(plan, norm)?;
                let packed = packing.pack(&spec.layers, &norm, |index| {
                    LayerValues::read(plan, index, &spec.layers[index])
                })?;
                self.cpu = Some(packed);
            }
        }
        #[cfg(not(feature = "flex"))]
        let _ = plan;
        Ok(self)
    }

    #[cfg(feature = "flex")]
    fn packing(&self, specs: &[LayerSpec]) -> Option<Packing> {
        match self.half_residual {
            true => None,
            false => Packing::new(specs, &self.device(), self.precision, self.int8),
        }
    }

    /// Dtype of the matrix multiplications of a head: f32 behind packed layers, where the weights are in f32 and few rows are multiplied with them.
    pub(super) fn head_precision(&self) -> Precision {
        #[cfg(feature = "flex")]
        if self.cpu.is_some() {
            return Precision::F32;
        }
        self.precision
    }

    /// The same encoder with its residual stream in the dtype of its precision, as in PyTorch models that are loaded in bf16: the norms read and
    /// write a third less. Each of the two additions of a layer is then rounded. The hidden states are f32 in any case. For inference.
    pub fn with_half_residual(mut self, half: bool) -> Self {
        self.half_residual = half;
        self
    }

    /// The same encoder with weights and left operands of its layers' matrix multiplications in int8, attention in bf16, once
    /// [`Self::for_inference`] packs them on a CPU; see [`Self::packed_for`]. Each output of a weight and each token of an operand has a scale of its own.
    pub fn with_int8(mut self, int8: bool) -> Self {
        self.int8 = int8;
        self
    }

    /// The same encoder with weights and left operands of its layers' matrix multiplications in fp8 (e4m3; [`crate::ops::fp8`]), once [`Self::for_inference`]
    /// quantizes them where [`Self::supports_fp8`]. Each output of a weight and each token of an operand has a scale of its own; attention and everything else
    /// are computed as without fp8.
    pub fn with_fp8(mut self, fp8: bool) -> Self {
        self.fp8 = match fp8 {
            true => Fp8State::Chosen,
            false => Fp8State::Off,
        };
        self
    }

    /// Returns whether the layers can be computed in fp8: the published architecture in bf16 or f16, on an NVIDIA GPU of compute capability 9.0.
    pub fn supports_fp8(&self) -> bool {
        super::fp8::supports(&self.config.spec().layers, &self.device(), self.precision)
    }

    /// Returns whether the layers are quantized for inference. Their matrices are no parameters of the module then: the model can be neither saved nor trained.
    pub fn is_quantized(&self) -> bool {
        self.fp8 == Fp8State::Quantized
    }

    /// The name of the CPU's instruction set that computes the layers, where [`Self::for_inference`] packed them.
    pub fn packed_for(&self) -> Option<String> {
        #[cfg(feature = "flex")]
        return self
            .cpu
            .as_ref()
            .map(|cpu| cpu.instruction_set().to_string());
        #[cfg(not(feature = "flex"))]
        None
    }

    /// The same encoder without captured graphs.
    pub fn without_graphs(mut self) -> Self {
        self.graphs = Graphs::default();
        self
    }

    /// The same encoder with activation checkpointing on or off: a training step saves only the input of each layer and recomputes
    /// the layer in the backward pass. The outputs don't change.
    pub fn with_recompute(mut self, recompute: bool) -> Self {
        self.recomputes = recompute;
        self
    }

    /// True if training uses activation checkpointing.
    pub fn recomputes(&self) -> bool {
        self.recomputes
    }

    /// The config of this encoder.
    pub fn config(&self) -> &ModernBertConfig {
        &self.config
    }

    /// Dtype of matrix multiplications and attention.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The device its parameters are on.
    pub fn device(&self) -> Device {
        self.embeddings.tok_embeddings.weight.val().device()
    }

    /// Hidden states after the final norm, `[total, hidden]` in f32, one row per token of the batch.
    ///
    /// Call [`ModernBert::check_tokens`] first where the device bounds its tensors.
    pub fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if let Some(cpu) = &self.cpu {
            return cpu.forward(self, batch);
        }
        if let Some(hidden) = self.graphs.run(self, batch) {
            return hidden;
        }
        self.launch(batch)
    }

    /// As [`Self::forward`], without captured graphs.
    pub(super) fn launch(&self, batch: &PackedBatch) -> Tensor<2> {
        self.run(batch, |_| {})
    }

    /// The states between the layers, each `[total, hidden]` in f32: the embeddings, then the output of every layer, the
    /// last one after the final norm. These are Hugging Face's `hidden_states`.
    pub fn hidden_states(&self, batch: &PackedBatch) -> Vec<Tensor<2>> {
        #[cfg(feature = "flex")]
        if let Some(cpu) = &self.cpu {
            return cpu.hidden_states(self, batch);
        }
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        let precision = self.precision;
        let last = self.run(batch, |state| states.push(precision.raise(state.clone())));
        states.push(last);
        states
    }

    /// Calls `see` with the input of each layer.
    fn run(&self, batch: &PackedBatch, mut see: impl FnMut(&Tensor<2>)) -> Tensor<2> {
        let pass = self.pass(batch);
        let x = self.embed(batch);
        let dtype = x.dtype();
        let mut stream = ResidualStream::start(match self.half_residual {
            true => self.precision.to_compute(x),
            false => x,
        });
        for layer in &self.layers {
            let (entered, behind) = layer.forward(stream, &pass);
            see(&entered);
            stream = behind;
        }
        match &self.final_norm {
            Some(norm) => stream.norm(norm, dtype).1,
            None => convert(stream.sum(), FloatDType::from(dtype)),
        }
    }

    // The stages of `forward`, for callers that run them one by one: activation checkpointing.

    /// State shared by all layers of a pass over `batch`.
    pub fn pass(&self, batch: &PackedBatch) -> ForwardPass {
        ForwardPass {
            layout: batch.layout.clone(),
            device: self.device(),
            precision: self.precision,
            rotary: self.rotary.clone(),
            dropout: batch.dropout,
        }
    }

    /// Number of layers.
    pub fn num_layers(&self) -> usize {
        self.config.num_hidden_layers
    }

    /// The input of the first layer, `[total, hidden]` in f32.
    pub fn embed(&self, batch: &PackedBatch) -> Tensor<2> {
        let x = self.embeddings.forward(batch);
        self.pass(batch).drop(x, 0, Site::Embedding)
    }

    /// The output of one layer, from its input; `[total, hidden]` in f32 both.
    ///
    /// # Panics
    /// If `index` is not below [`Self::num_layers`].
    pub fn layer(&self, index: usize, input: Tensor<2>, pass: &ForwardPass) -> Tensor<2> {
        let (_, behind) = self.layers[index].forward(ResidualStream::start(input), pass);
        behind.sum()
    }

    /// Hidden states from the output of the last layer: the final norm, where there is one.
    pub fn final_norm(&self, output: Tensor<2>) -> Tensor<2> {
        match &self.final_norm {
            Some(norm) => norm.forward(output),
            None => output,
        }
    }
}
