//! Matrices of the encoder, packed.

use cpu_gemm::element::Float;
use cpu_gemm::{PANEL, Panels, Team};

/// A weight `[out, in]`, row-major.
#[derive(Clone, Copy, Debug)]
pub enum WeightMatrix<'a> {
    /// Values.
    Float(&'a [f32]),
    /// Codes and the scale of each row: `weight[i][k] = scales[i] * codes[i][k]`. An encoder of [`EncoderDtype::Int8`](crate::EncoderDtype::Int8) alone takes them.
    Int8 {
        /// `[out, in]`.
        codes: &'a [i8],
        /// `[out]`.
        scales: &'a [f32],
    },
}

impl WeightMatrix<'_> {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Int8 { codes, .. } => codes.len(),
        }
    }
}

/// A weight `[out, in]`, packed as the right operand of `x · weightᵀ`.
#[derive(Debug)]
pub enum Weight<E: Float> {
    /// In the dtype of the activations.
    Float(Panels<E>),
    /// Bytes with a scale per output.
    Int8(Panels<i8>),
}

impl<E: Float> Weight<E> {
    /// Packs a row-major weight of `out` rows. `row(j)` is the row of output j, or `None` for an output of padding.
    pub(crate) fn pack(
        team: &Team,
        weight: &WeightMatrix<'_>,
        depth: usize,
        out: usize,
        int8: bool,
        row: impl Fn(usize) -> Option<usize> + Sync,
    ) -> Self {
        match weight {
            WeightMatrix::Float(values) => {
                let row = |j: usize| row(j).map(|row| &values[row * depth..][..depth]);
                match int8 {
                    false => Self::Float(Panels::of_rows(team, depth, out, row)),
                    true => Self::Int8(Panels::quantized(team, depth, out, row)),
                }
            }
            WeightMatrix::Int8 { codes, scales } => {
                Self::Int8(Panels::of_codes(team, depth, out, |j| {
                    row(j).map(|row| (&codes[row * depth..][..depth], scales[row]))
                }))
            }
        }
    }

    /// Packs the input matrix of a gated MLP: `[2 * intermediate_size, in]`, activated half first. Each panel has 16 outputs of the activated half, then the
    /// 16 outputs of the gate that belong to them, so that GeGLU needs one tile.
    pub(crate) fn pack_gated(
        team: &Team,
        weight: &WeightMatrix<'_>,
        hidden: usize,
        intermediate_size: usize,
        int8: bool,
    ) -> Self {
        let half = PANEL / 2;
        let out = intermediate_size.div_ceil(half) * PANEL;
        Self::pack(team, weight, hidden, out, int8, |j| {
            let output = j / PANEL * half + j % half;
            (output < intermediate_size).then(|| {
                output
                    + if j % PANEL < half {
                        0
                    } else {
                        intermediate_size
                    }
            })
        })
    }

    /// Number of panels.
    pub(crate) fn panels(&self) -> usize {
        match self {
            Self::Float(panels) => panels.count(),
            Self::Int8(panels) => panels.count(),
        }
    }

    /// Prefetches slice `slice` of `slices` of a panel, if there is one.
    pub(crate) fn prefetch(&self, panel: usize, slice: usize, slices: usize) {
        if panel < self.panels() {
            match self {
                Self::Float(panels) => panels.panel(panel).prefetch(slice, slices),
                Self::Int8(panels) => panels.panel(panel).prefetch(slice, slices),
            }
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Float(panels) => panels.bytes(),
            Self::Int8(panels) => panels.bytes(),
        }
    }
}
