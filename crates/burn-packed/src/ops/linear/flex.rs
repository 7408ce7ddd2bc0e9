//! GEMM of bf16 matrices on the CPU, on its matrix units: see [`cpu_gemm`].
//!
//! Both operands are copied into the layouts that the kernels read, which takes a time proportional to their sizes: the left operand with rows padded
//! to whole steps, the right operand as panels of 32 columns. Tasks are blocks of 256 rows by groups of panels, so that a block stays in the L2 cache.

use burn::tensor::DType;
use burn_flex::FlexTensor;
use cpu_encoder::attention::{OperandDtype, TileMut};
use cpu_gemm::aligned::Aligned;
use cpu_gemm::element::Element;
use cpu_gemm::kernel::{MicrokernelArgs, Multiply};
use cpu_gemm::pack::{Panel, pack_group, step_len, transpose, transpose_left};
use cpu_gemm::{InstructionSet, PANEL, ROWS};
use half::bf16;
use rayon::prelude::*;

use super::Transpose;
use crate::ops::host::{Native, contiguous, elements, unspecified};

/// Rows of a task.
const BLOCK: usize = 256;
/// Elements of the inner dimension of one step.
const STEP: usize = <bf16 as Element>::STEP;

/// Returns `lhs · rhs` of bf16 matrices, one of them read transposed, summed in f32 and in the dtype `out`: bf16 or f32.
pub(crate) fn gemm(
    lhs: FlexTensor,
    rhs: FlexTensor,
    transpose: Transpose,
    out: DType,
) -> FlexTensor {
    let ([l0, l1], [r0, r1]) = (dims(&lhs), dims(&rhs));
    let (m, k, n) = match transpose {
        Transpose::None => (l0, l1, r1),
        Transpose::Lhs => (l1, l0, r1),
        Transpose::Rhs => (l0, l1, r0),
    };
    let (lhs, rhs) = (contiguous(lhs), contiguous(rhs));
    let product = Product {
        isa: InstructionSet::current(),
        rows: m,
        columns: n,
        steps: k.div_ceil(STEP),
        left: PaddedLeft::new(elements(&lhs), m, k, transpose == Transpose::Lhs),
        panels: panels(elements(&rhs), k, n, transpose == Transpose::Rhs),
    };
    match out {
        DType::F32 => f32::tensor(product.compute(), [m, n]),
        _ => bf16::tensor(product.compute(), [m, n]),
    }
}

/// Returns whether [`gemm`] takes these operands.
pub(crate) fn supports(lhs: &FlexTensor, rhs: &FlexTensor) -> bool {
    lhs.dtype() == DType::BF16 && rhs.dtype() == DType::BF16
}

fn dims(tensor: &FlexTensor) -> [usize; 2] {
    tensor.layout().shape().dims()
}

/// A left operand as the kernels read it: rows of whole steps, and a number of rows that is a multiple of 16.
enum PaddedLeft<'a> {
    /// The tensor itself, where it has such rows.
    Whole(&'a [bf16]),
    Padded(Aligned<bf16>),
}

impl<'a> PaddedLeft<'a> {
    /// The operand `[m, k]`; `transposed` if `values` is `[k, m]`.
    fn new(values: &'a [bf16], m: usize, k: usize, transposed: bool) -> Self {
        if !transposed && m.is_multiple_of(ROWS / 2) && k.is_multiple_of(STEP) {
            return Self::Whole(values);
        }
        let stride = k.next_multiple_of(STEP);
        let mut left = Aligned::unspecified(m.next_multiple_of(ROWS) * stride);
        if m == 0 || k == 0 {
            return Self::Padded(left);
        }
        left.par_chunks_mut(ROWS * stride)
            .enumerate()
            .for_each(|(block, rows)| {
                let first = block * ROWS;
                let count = ROWS.min(m - first);
                if count < ROWS || k < stride {
                    rows.fill(bf16::ZERO);
                }
                if transposed {
                    transpose_left(&values[first..], m, count, k, rows, stride);
                } else {
                    for (row, from) in rows
                        .chunks_exact_mut(stride)
                        .zip(values[first * k..][..count * k].chunks_exact(k))
                    {
                        row[..k].copy_from_slice(from);
                    }
                }
            });
        Self::Padded(left)
    }

    fn values(&self) -> &[bf16] {
        match self {
            Self::Whole(values) => values,
            Self::Padded(values) => values,
        }
    }
}

/// The right operand `[k, n]` as panels; `transposed` if `values` is `[n, k]`.
fn panels(values: &[bf16], k: usize, n: usize, transposed: bool) -> Aligned<bf16> {
    let steps = k.div_ceil(STEP);
    let len = steps * step_len::<bf16>();
    let mut panels = Aligned::unspecified(n.div_ceil(PANEL) * len);
    if n == 0 || k == 0 {
        return panels;
    }
    panels
        .par_chunks_mut(len)
        .enumerate()
        .for_each(|(index, panel)| {
            let first = index * PANEL;
            let count = PANEL.min(n - first);
            if transposed {
                if count == PANEL && k == steps * STEP {
                    transpose(&values[first * k..][..PANEL * k], panel);
                    return;
                }
                let mut columns = vec![bf16::ZERO; PANEL * steps * STEP];
                for (column, from) in columns
                    .chunks_exact_mut(steps * STEP)
                    .zip(values[first * k..][..count * k].chunks_exact(k))
                {
                    column[..k].copy_from_slice(from);
                }
                transpose(&columns, panel);
            } else {
                let zeros = [bf16::ZERO; PANEL];
                if count < PANEL || k < steps * STEP {
                    panel.fill(bf16::ZERO);
                }
                for i in (0..k).step_by(2) {
                    let row = |i: usize| match i < k {
                        true => &values[i * n + first..][..count],
                        false => &zeros[..count],
                    };
                    pack_group(panel, steps, i, &[row(i), row(i + 1)], count);
                }
            }
        });
    panels
}

/// Operands in the layouts of the kernels.
struct Product<'a> {
    isa: InstructionSet,
    rows: usize,
    columns: usize,
    steps: usize,
    left: PaddedLeft<'a>,
    panels: Aligned<bf16>,
}

/// A pointer that tasks share; they write different elements.
struct Out<T>(*mut T);

// SAFETY: see `Product::compute`.
unsafe impl<T: Send> Sync for Out<T> {}

impl<T> Out<T> {
    fn at(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

impl Product<'_> {
    /// The product, rounded to `T`.
    fn compute<T: Native + OperandDtype>(&self) -> Vec<T> {
        let len = self.rows * self.columns;
        let mut out = unspecified::<T>(len);
        if len == 0 {
            return out;
        }
        let (blocks, count) = (self.rows.div_ceil(BLOCK), self.columns.div_ceil(PANEL));
        // At least four tasks for each thread.
        let groups = (4 * rayon::current_num_threads())
            .div_ceil(blocks)
            .clamp(1, count);
        let group = count.div_ceil(groups);
        let place = Out(out.as_mut_ptr());
        let sums = || [0.0f32; ROWS * PANEL];
        let tasks = (0..blocks * groups).into_par_iter();
        tasks.for_each_init(sums, |sums, task| {
            let (block, first) = (task / groups, task % groups * group);
            let _guard = self.isa.enter();
            let rows = block * BLOCK..((block + 1) * BLOCK).min(self.rows);
            for panel in first..(first + group).min(count) {
                for row in rows.clone().step_by(ROWS) {
                    self.tile(panel, row, sums, &place);
                }
            }
        });
        out
    }

    /// One tile of the result. Tiles of different panels or rows have no element in common.
    fn tile<T: Native + OperandDtype>(
        &self,
        panel: usize,
        row: usize,
        sums: &mut [f32; ROWS * PANEL],
        out: &Out<T>,
    ) {
        let stride = self.steps * STEP;
        let rows = ROWS.min(self.rows - row);
        let len = self.steps * step_len::<bf16>();
        let tile = MicrokernelArgs {
            left: self.left.values()[row * stride..].as_ptr(),
            left_stride: stride,
            rows,
            to: sums.as_mut_ptr(),
            to_stride: PANEL,
        };
        // SAFETY: the left operand has a multiple of 16 rows, the tile 32 × 32 elements; the unit is supported, and `compute` has entered it.
        unsafe {
            bf16::tile(
                self.isa,
                tile,
                Panel::of(&self.panels[panel * len..][..len]),
            )
        }
        let first = panel * PANEL;
        let width = PANEL.min(self.columns - first);
        let start = out.at(row * self.columns + first);
        // SAFETY: the rows and columns of this tile, which no other task has, are inside of the result.
        unsafe { T::store(sums, &TileMut::new(start, self.columns, rows, width)) }
    }
}
