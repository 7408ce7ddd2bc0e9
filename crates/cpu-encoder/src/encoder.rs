//! The encoder: sizes, packed layers, rotary tables, and the threads that run a pass.

use std::sync::{Arc, Mutex, PoisonError};

use cpu_gemm::{InstructionSet, Team};
use half::bf16;

use crate::pass::{Idle, Outputs, Pass};
use crate::profile::Profile;
use crate::rows::OperandDtype;
use crate::weights::{Weight, WeightMatrix};

/// Dtypes of weights and operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderDtype {
    /// f32.
    F32,
    /// bf16, sums in f32.
    Bf16,
    /// Weights and left operands of the four GEMMs of a layer as bytes, sums in i32; attention in bf16.
    Int8,
}

/// Sizes of an encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderSizes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Width between the two matrices of the MLP, after GeGLU.
    pub intermediate_size: usize,
    /// Epsilon of the norms.
    pub eps: f32,
}

/// One layer's parameters, row-major.
#[derive(Clone, Debug)]
pub struct Layer<'a> {
    /// Number of keys that a query sees on each side; `None` in a global layer.
    pub half_window: Option<usize>,
    /// Frequencies of the rotary embedding, one for each of the first pairs of a head; `None` without one.
    pub frequencies: Option<&'a [f32]>,
    /// `[hidden]`; `None` where the layer's input is normalized already.
    pub attention_norm: Option<&'a [f32]>,
    /// `[3 * heads * head_dim, hidden]`.
    pub wqkv: WeightMatrix<'a>,
    /// `[hidden, heads * head_dim]`.
    pub attention_out: WeightMatrix<'a>,
    /// `[hidden]`.
    pub mlp_norm: &'a [f32],
    /// `[2 * intermediate_size, hidden]`, the activated half first.
    pub wi: WeightMatrix<'a>,
    /// `[hidden, intermediate_size]`.
    pub mlp_out: WeightMatrix<'a>,
}

/// An encoder with packed weights, and its threads.
#[derive(Debug)]
pub struct PackedEncoder {
    pub(crate) sizes: EncoderSizes,
    pub(crate) isa: InstructionSet,
    pub(crate) team: Team,
    weights: PackedWeights,
    pub(crate) final_norm: Vec<f32>,
    pub(crate) tables: Vec<Table>,
}

#[derive(Debug)]
enum PackedWeights {
    F32(Vec<PackedLayer<f32>>, Idle<f32>),
    /// Floats or bytes; operands in bf16 either way.
    Bf16(Vec<PackedLayer<bf16>>, Idle<bf16>),
}

#[derive(Debug)]
pub(crate) struct PackedLayer<E: OperandDtype> {
    pub(crate) half_window: Option<usize>,
    /// Index of the layer's rotary table.
    pub(crate) table: Option<usize>,
    pub(crate) attention_norm: Option<Vec<f32>>,
    pub(crate) mlp_norm: Vec<f32>,
    pub(crate) wqkv: Weight<E>,
    pub(crate) attention_out: Weight<E>,
    pub(crate) wi: Weight<E>,
    pub(crate) mlp_out: Weight<E>,
}

/// Cosines and sines, `[positions, head_dim]`; it grows with the longest sequence.
#[derive(Debug)]
pub(crate) struct Table {
    frequencies: Vec<f32>,
    head_dim: usize,
    values: Mutex<Arc<Vec<f32>>>,
}

impl Table {
    pub(crate) fn rows(&self, positions: usize) -> Arc<Vec<f32>> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if values.len() < positions * self.head_dim {
            let half = self.head_dim / 2;
            let mut table = Vec::with_capacity(positions.next_power_of_two() * self.head_dim);
            for position in 0..positions.next_power_of_two() {
                let angle = |d: usize| self.frequencies.get(d).map(|f| position as f32 * f);
                table.extend((0..half).map(|d| angle(d).map_or(1.0, f32::cos)));
                table.extend((0..half).map(|d| angle(d).map_or(0.0, f32::sin)));
            }
            *values = Arc::new(table);
        }
        values.clone()
    }
}

/// An encoder whose layers are packed one after the other, so that the caller can free each one.
#[derive(Debug)]
pub struct Builder {
    sizes: EncoderSizes,
    isa: InstructionSet,
    team: Team,
    int8: bool,
    weights: PackedWeights,
    tables: Vec<Table>,
}

impl Builder {
    /// An encoder without layers. `isa` must be supported by this processor ([`InstructionSet::chosen`]). The threads of `team` pack the weights and run the passes.
    pub fn new(sizes: EncoderSizes, format: EncoderDtype, isa: InstructionSet, team: Team) -> Self {
        Self {
            sizes,
            isa,
            team,
            int8: format == EncoderDtype::Int8,
            weights: match format {
                EncoderDtype::F32 => PackedWeights::F32(Vec::new(), Idle::default()),
                EncoderDtype::Bf16 | EncoderDtype::Int8 => {
                    PackedWeights::Bf16(Vec::new(), Idle::default())
                }
            },
            tables: Vec::new(),
        }
    }

    /// Packs the next layer.
    ///
    /// # Panics
    /// If a parameter has another length than its shape, or codes for an encoder of floats.
    pub fn push(&mut self, layer: &Layer<'_>) {
        let table = layer.frequencies.map(|frequencies| {
            let mut known = self.tables.iter();
            let known = known.position(|table| table.frequencies == frequencies);
            known.unwrap_or_else(|| {
                self.tables.push(Table {
                    frequencies: frequencies.to_vec(),
                    head_dim: self.sizes.head_dim,
                    values: Mutex::default(),
                });
                self.tables.len() - 1
            })
        });
        match &mut self.weights {
            PackedWeights::F32(layers, _) => {
                layers.push(PackedLayer::new(
                    &self.team,
                    &self.sizes,
                    layer,
                    table,
                    self.int8,
                ));
            }
            PackedWeights::Bf16(layers, _) => {
                layers.push(PackedLayer::new(
                    &self.team,
                    &self.sizes,
                    layer,
                    table,
                    self.int8,
                ));
            }
        }
    }

    /// The encoder.
    ///
    /// # Panics
    /// If the norm has another length than the hidden states.
    pub fn build(self, final_norm: &[f32]) -> PackedEncoder {
        assert_eq!(final_norm.len(), self.sizes.hidden, "final norm");
        PackedEncoder {
            sizes: self.sizes,
            isa: self.isa,
            team: self.team,
            weights: self.weights,
            final_norm: final_norm.to_vec(),
            tables: self.tables,
        }
    }
}

impl PackedEncoder {
    /// The instruction set of the GEMMs.
    pub fn instruction_set(&self) -> InstructionSet {
        self.isa
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.team.size()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            PackedWeights::F32(layers, _) => layers.iter().map(PackedLayer::bytes).sum(),
            PackedWeights::Bf16(layers, _) => layers.iter().map(PackedLayer::bytes).sum(),
        }
    }

    /// Hidden states after the final norm, `[tokens, hidden]`, from the first layer's input of the same shape. `cu_seqlens` has the boundaries of the
    /// sequences, from 0 to the number of tokens.
    ///
    /// # Panics
    /// If the boundaries do not begin at 0 or decrease, or the input has another number of tokens.
    pub fn forward(&self, input: Vec<f32>, cu_seqlens: &[u32]) -> Vec<f32> {
        self.run(input, cu_seqlens, Outputs::default())
    }

    /// As [`Self::forward`], with the time of each operation.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn profile(&self, input: Vec<f32>, cu_seqlens: &[u32]) -> (Vec<f32>, Profile) {
        let mut profile = Profile::default();
        let outputs = Outputs {
            profile: Some(&mut profile),
            ..Outputs::default()
        };
        let last = self.run(input, cu_seqlens, outputs);
        (last, profile)
    }

    /// As [`Self::forward`], with the input of each layer, which `forward` overwrites.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn hidden_states(&self, input: Vec<f32>, cu_seqlens: &[u32]) -> (Vec<Vec<f32>>, Vec<f32>) {
        let mut states = Vec::new();
        let outputs = Outputs {
            states: Some(&mut states),
            ..Outputs::default()
        };
        let last = self.run(input, cu_seqlens, outputs);
        (states, last)
    }

    fn run(&self, input: Vec<f32>, cu_seqlens: &[u32], outputs: Outputs<'_>) -> Vec<f32> {
        let total = cu_seqlens.last().map_or(0, |&end| end as usize);
        // Threads write the rows of their sequences: those of two sequences must not overlap.
        assert!(
            cu_seqlens.first().is_none_or(|start| *start == 0) && cu_seqlens.is_sorted(),
            "boundaries of sequences begin at 0 and do not decrease: {cu_seqlens:?}"
        );
        assert_eq!(
            input.len(),
            total * self.sizes.hidden,
            "tokens of the input"
        );
        if total == 0 {
            if let Some(states) = outputs.states {
                states.resize(self.layers(), Vec::new());
            }
            return Vec::new();
        }
        match &self.weights {
            PackedWeights::F32(layers, idle) => {
                Pass::new(self, layers, idle, input, cu_seqlens).run(outputs)
            }
            PackedWeights::Bf16(layers, idle) => {
                Pass::new(self, layers, idle, input, cu_seqlens).run(outputs)
            }
        }
    }

    fn layers(&self) -> usize {
        match &self.weights {
            PackedWeights::F32(layers, _) => layers.len(),
            PackedWeights::Bf16(layers, _) => layers.len(),
        }
    }
}

impl<E: OperandDtype> PackedLayer<E> {
    fn new(
        team: &Team,
        sizes: &EncoderSizes,
        layer: &Layer<'_>,
        table: Option<usize>,
        int8: bool,
    ) -> Self {
        let (hidden, inner) = (sizes.hidden, sizes.intermediate_size);
        let width = sizes.heads * sizes.head_dim;
        let check = |name: &str, found: usize, expected: usize| {
            assert_eq!(found, expected, "{name}: number of elements");
        };
        check("Wqkv", layer.wqkv.len(), 3 * width * hidden);
        check("attention's Wo", layer.attention_out.len(), hidden * width);
        check("Wi", layer.wi.len(), 2 * inner * hidden);
        check("the MLP's Wo", layer.mlp_out.len(), hidden * inner);
        check("the MLP's norm", layer.mlp_norm.len(), hidden);
        for matrix in [&layer.wqkv, &layer.attention_out, &layer.wi, &layer.mlp_out] {
            assert!(
                int8 || matches!(matrix, WeightMatrix::Float(_)),
                "codes for an encoder of floats"
            );
        }
        if let Some(norm) = layer.attention_norm {
            check("attention's norm", norm.len(), hidden);
        }
        Self {
            half_window: layer.half_window,
            table,
            attention_norm: layer.attention_norm.map(<[f32]>::to_vec),
            mlp_norm: layer.mlp_norm.to_vec(),
            wqkv: Weight::pack(team, &layer.wqkv, hidden, 3 * width, int8, Some),
            attention_out: Weight::pack(team, &layer.attention_out, width, hidden, int8, Some),
            wi: Weight::pack_gated(team, &layer.wi, hidden, inner, int8),
            mlp_out: Weight::pack(team, &layer.mlp_out, inner, hidden, int8, Some),
        }
    }

    fn bytes(&self) -> usize {
        [&self.wqkv, &self.attention_out, &self.wi, &self.mlp_out]
            .into_iter()
            .map(Weight::bytes)
            .sum()
    }
}
