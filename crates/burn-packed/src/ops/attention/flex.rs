//! Attention on the CPU: one work item per sequence and head, by the kernels of [`cpu_encoder::attention`] in f32 or bf16.
//!
//! Operands in bf16 stay in bf16, for the bf16 kernels of `cpu-gemm`; sums and softmax are in f32.

use burn::tensor::DType;
use burn_flex::FlexTensor;
use cpu_encoder::attention::{
    BackwardScratch, Gradients, HeadView, OperandDtype, Scratch, TileMut,
};
use cpu_gemm::InstructionSet;
use half::bf16;
use rayon::prelude::*;

use super::{AttentionSpec, fallback};
use crate::ops::host::{
    HostTensor, Native, contiguous, elements, in_dtype, is_native, unspecified,
};

/// Returns output `[total, heads, head_dim]` and log-sum-exp `[heads, total]`; see [`super::attention`].
pub(crate) fn forward(
    qkv: FlexTensor,
    rotary: FlexTensor,
    spec: &AttentionSpec,
) -> (FlexTensor, FlexTensor) {
    if !is_native(&qkv) {
        return fallback::forward::<burn::backend::Flex>(qkv, rotary, spec);
    }
    let dtype = qkv.dtype();
    let call = Call::new(qkv, rotary, spec);
    let (out, lse) = match dtype {
        DType::BF16 => call.forward::<bf16>(),
        _ => call.forward::<f32>(),
    };
    (in_dtype(out, dtype), lse)
}

/// Returns the gradient `[total, 3, heads, head_dim]` of `qkv`.
pub(crate) fn backward(
    d_out: FlexTensor,
    qkv: FlexTensor,
    out: FlexTensor,
    lse: FlexTensor,
    rotary: FlexTensor,
    spec: &AttentionSpec,
) -> FlexTensor {
    if !is_native(&qkv) {
        return fallback::backward::<burn::backend::Flex>(d_out, qkv, out, lse, rotary, spec);
    }
    let dtype = qkv.dtype();
    let call = Call::new(qkv, rotary, spec);
    let [d_out, out] = [d_out, out].map(|x| contiguous(in_dtype(x, call.qkv.dtype())));
    let lse = HostTensor::new(lse);
    let d_qkv = match dtype {
        DType::BF16 => call.backward::<bf16>(&d_out, &out, lse.values()),
        _ => call.backward::<f32>(&d_out, &out, lse.values()),
    };
    in_dtype(d_qkv, dtype)
}

/// Operands of a call: bf16 stays, other dtypes become f32.
struct Call<'a> {
    qkv: FlexTensor,
    rotary: HostTensor,
    spec: &'a AttentionSpec,
    total: usize,
    heads: usize,
    dim: usize,
}

/// One head of one sequence, which is not empty.
struct WorkItem {
    head: usize,
    first: usize,
    length: usize,
}

/// A pointer to outputs that work items write at the same time. Tokens of different sequences and different heads have no element in common.
struct DisjointOutput<T>(*mut T);

// SAFETY: each work item writes the rows of its own sequence and head.
unsafe impl<T: Send> Sync for DisjointOutput<T> {}

impl<T> DisjointOutput<T> {
    /// `len` elements from `index` on.
    ///
    /// # Safety
    /// The elements are inside of the buffer, and nothing else uses them.
    #[allow(clippy::mut_from_ref)] // the caller's promise makes the borrow exclusive
    unsafe fn slice(&self, index: usize, len: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(index), len) }
    }
}

impl<'a> Call<'a> {
    fn new(qkv: FlexTensor, rotary: FlexTensor, spec: &'a AttentionSpec) -> Self {
        let [total, _, heads, dim] = qkv.layout().shape().dims();
        let qkv = match qkv.dtype() {
            DType::BF16 => qkv,
            _ => in_dtype(qkv, DType::F32),
        };
        Self {
            qkv: contiguous(qkv),
            rotary: HostTensor::new(rotary),
            spec,
            total,
            heads,
            dim,
        }
    }

    fn items(&self) -> Vec<WorkItem> {
        let sequences = self.spec.layout.ranges().filter(|range| !range.is_empty());
        sequences
            .flat_map(|range| {
                (0..self.heads).map(move |head| WorkItem {
                    head,
                    first: range.start,
                    length: range.len(),
                })
            })
            .collect()
    }

    fn longest(items: &[WorkItem]) -> usize {
        items.iter().map(|item| item.length).max().unwrap_or(0)
    }

    fn head_view<E: Native>(&'a self, item: &WorkItem) -> HeadView<'a, E> {
        let start = (item.first * 3 * self.heads + item.head) * self.dim;
        HeadView {
            qkv: &elements::<E>(&self.qkv)[start..],
            qkv_stride: self.heads * self.dim,
            stride: 3 * self.heads * self.dim,
            length: item.length,
            dim: self.dim,
            scale: self.spec.scale as f32,
            softcap: self.spec.softcap.map(|cap| cap as f32),
            half_window: self.spec.half_window,
            rotary: self.spec.rope.then(|| self.rotary.values()),
        }
    }

    fn forward<E: Native + OperandDtype>(&self) -> (FlexTensor, FlexTensor) {
        let (items, isa) = (self.items(), InstructionSet::current());
        let stride = self.heads * self.dim;
        let mut out = unspecified::<E>(self.total * stride);
        let mut lse = unspecified::<f32>(self.heads * self.total);
        {
            let (out, lse) = (
                DisjointOutput(out.as_mut_ptr()),
                DisjointOutput(lse.as_mut_ptr()),
            );
            let scratch = || Scratch::<E>::new(Self::longest(&items), self.dim);
            items.par_iter().for_each_init(scratch, |scratch, item| {
                let _guard = isa.enter();
                // SAFETY: `current` returns a supported unit. The rows are those of the item's tokens and head.
                unsafe {
                    let lse = lse.slice(item.head * self.total + item.first, item.length);
                    self.head_view::<E>(item)
                        .forward(isa, scratch, |i, row, total| {
                            lse[i] = total.log_sum_exp();
                            let start = (item.first + i) * stride + item.head * self.dim;
                            E::scale(row, total.inverse(), out.slice(start, self.dim));
                        });
                }
            });
        }
        (
            E::tensor(out, [self.total, self.heads, self.dim]),
            f32::tensor(lse, [self.heads, self.total]),
        )
    }

    fn backward<E: Native + OperandDtype>(
        &self,
        d_out: &FlexTensor,
        out: &FlexTensor,
        lse: &[f32],
    ) -> FlexTensor {
        let (items, isa) = (self.items(), InstructionSet::current());
        let stride = self.heads * self.dim;
        let (d_out, out) = (elements::<E>(d_out), elements::<E>(out));
        let mut d_qkv = unspecified::<E>(self.total * 3 * stride);
        {
            let d_qkv = &DisjointOutput(d_qkv.as_mut_ptr());
            let scratch = || BackwardScratch::<E>::new(Self::longest(&items), self.dim);
            items.par_iter().for_each_init(scratch, |scratch, item| {
                let _guard = isa.enter();
                let start = item.first * stride + item.head * self.dim;
                let gradients = Gradients {
                    head: self.head_view::<E>(item),
                    d_out: &d_out[start..],
                    out: &out[start..],
                    out_stride: stride,
                    lse: &lse[item.head * self.total + item.first..][..item.length],
                };
                // SAFETY: as in `forward`; projections of a token have no element in common.
                unsafe {
                    gradients.compute(isa, scratch, |projection, rows| {
                        let token = (item.first + rows.start) * 3 + projection;
                        let start = (token * self.heads + item.head) * self.dim;
                        TileMut::new(d_qkv.0.add(start), 3 * stride, rows.len(), self.dim)
                    });
                }
            });
        }
        E::tensor(d_qkv, [self.total, 3, self.heads, self.dim])
    }
}
