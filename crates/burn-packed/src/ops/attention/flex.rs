//! Attention on the CPU: one task per sequence and head, GEMMs over blocks of queries.
//!
//! A task applies RoPE to its queries and keys while it copies them into contiguous scratch (`length × head_dim`), so that
//! GEMMs read dense rows and RoPE is applied once per token. Scores exist for [`QUERY_BLOCK`] queries at a time.
//!
//! Where the processor has AVX-512, `avx512.rs` has a faster forward pass for head sizes that are multiples of 16.

use burn_flex::FlexTensor;
use gemm::{Parallelism, gemm};
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::{AttentionSpec, Block, QUERY_BLOCK, fallback};
use crate::ops::host::{HostTensor, is_native, tensor};
use crate::ops::simd;

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
    let shape = Dims::of(&qkv);
    let (qkv, rotary) = (HostTensor::new(qkv), HostTensor::new(rotary));
    let mut out = vec![0.0f32; shape.total * shape.heads * shape.head_dim];
    let mut lse = vec![0.0f32; shape.heads * shape.total];
    {
        let out = Shared(out.as_mut_ptr());
        let lse = Shared(lse.as_mut_ptr());
        tasks(spec, shape.heads).into_par_iter().for_each(|task| {
            #[cfg(target_arch = "x86_64")]
            if avx512::serves(shape.head_dim, spec) {
                let part = |part: usize| {
                    &qkv.values()
                        [((task.first * 3 + part) * shape.heads + task.head) * shape.head_dim..]
                };
                // SAFETY: `serves` checked the processor; the slices begin at the sequence's first token; only this task
                // writes these outputs: (head, token) pairs of different tasks differ.
                unsafe {
                    avx512::forward(
                        &avx512::Head {
                            q: part(0),
                            k: part(1),
                            v: part(2),
                            stride: 3 * shape.heads * shape.head_dim,
                            length: task.length,
                            dim: shape.head_dim,
                            rotary: rotary.values(),
                            out: out.at((task.first * shape.heads + task.head) * shape.head_dim),
                            out_stride: shape.heads * shape.head_dim,
                            lse: lse.at(task.head * shape.total + task.first),
                        },
                        spec,
                    );
                }
                return;
            }
            let head = Head::load(qkv.values(), rotary.values(), shape, &task, spec);
            let mut scores = Vec::new();
            for block in spec.blocks(task.length, QUERY_BLOCK) {
                let columns = block.keys.len();
                head.scores(&block, spec, &mut scores, None);
                for (row, i) in scores.chunks_mut(columns).zip(block.queries.clone()) {
                    hide(row, &block, i, spec);
                    let value = simd::softmax_row(row);
                    // SAFETY: (head, token) pairs of different tasks differ, so no two tasks write the same element.
                    unsafe { *lse.at(task.head * shape.total + task.first + i) = value };
                }
                // SAFETY: the destination rows belong to this task's tokens and head alone, and are inside `out`.
                unsafe {
                    multiply(
                        Matrix::new(scores.as_ptr(), columns, 1),
                        head.v_rows(block.keys.start),
                        MatrixMut::new(
                            out.at(
                                ((task.first + block.queries.start) * shape.heads + task.head)
                                    * shape.head_dim,
                            ),
                            shape.heads * shape.head_dim,
                        ),
                        [block.queries.len(), columns, shape.head_dim],
                        Accumulate::No,
                    );
                }
            }
        });
    }
    (
        tensor(out, [shape.total, shape.heads, shape.head_dim], dtype),
        tensor(lse, [shape.heads, shape.total], burn::tensor::DType::F32),
    )
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
    let shape = Dims::of(&qkv);
    let [d_out, qkv, out, lse, rotary] = [d_out, qkv, out, lse, rotary].map(HostTensor::new);
    let mut d_qkv = vec![0.0f32; qkv.values().len()];
    {
        let d_qkv = Shared(d_qkv.as_mut_ptr());
        tasks(spec, shape.heads).into_par_iter().for_each(|task| {
            let head = Head::load(qkv.values(), rotary.values(), shape, &task, spec);
            let [d_q, d_k, d_v] = head_backward(
                &head,
                d_out.values(),
                out.values(),
                &lse.values()[task.head * shape.total + task.first..][..task.length],
                spec,
            );
            for (part, mut rows) in [d_q, d_k, d_v].into_iter().enumerate() {
                for (i, row) in rows.chunks_exact_mut(shape.head_dim).enumerate() {
                    if spec.rope && part < 2 {
                        apply_rope(row, &rotary.values()[i * shape.head_dim..], -1.0);
                    }
                    let start =
                        (((task.first + i) * 3 + part) * shape.heads + task.head) * shape.head_dim;
                    // SAFETY: rows of different (sequence, head, part) never overlap, and `start` is inside `d_qkv`.
                    let target =
                        unsafe { std::slice::from_raw_parts_mut(d_qkv.at(start), shape.head_dim) };
                    target.copy_from_slice(row);
                }
            }
        });
    }
    tensor(d_qkv, [shape.total, 3, shape.heads, shape.head_dim], dtype)
}

/// Returns the gradients of q and k after RoPE and of v, of one head of one sequence, each `[length, head_dim]`.
fn head_backward(
    head: &Head,
    d_out: &[f32],
    out: &[f32],
    lse: &[f32],
    spec: &AttentionSpec,
) -> [Vec<f32>; 3] {
    let (length, dim) = (head.length, head.dims.head_dim);
    let row_of = |i: usize| ((head.first + i) * head.dims.heads + head.head) * dim;
    let row_stride = head.dims.heads * dim;
    let mut grads = [(); 3].map(|()| vec![0.0f32; length * dim]);
    let (mut p, mut d_p, mut slopes) = (Vec::new(), Vec::new(), Vec::new());
    for block in spec.blocks(length, QUERY_BLOCK) {
        let (rows, columns) = (block.queries.len(), block.keys.len());
        head.scores(&block, spec, &mut p, Some(&mut slopes));
        for (row, i) in p.chunks_mut(columns).zip(block.queries.clone()) {
            hide(row, &block, i, spec);
            simd::exp_shifted(row, lse[i], 1.0);
        }
        d_p.resize(rows * columns, 0.0);
        // SAFETY: every matrix below is inside the slice or vector its pointer comes from: rows `block.queries` of
        // d_out, rows `block.keys` of k and v, and the whole of p and d_p.
        unsafe {
            let d_out_rows = Matrix::new(
                d_out.as_ptr().add(row_of(block.queries.start)),
                row_stride,
                1,
            );
            let p_transposed = Matrix::new(p.as_ptr(), 1, columns);
            let [d_q, d_k, d_v] = &mut grads;
            let key_row = block.keys.start * dim;
            multiply(
                p_transposed,
                d_out_rows,
                MatrixMut::new(d_v.as_mut_ptr().add(key_row), dim),
                [columns, rows, dim],
                Accumulate::Yes,
            );
            multiply(
                d_out_rows,
                head.v_rows(block.keys.start).transposed(),
                MatrixMut::new(d_p.as_mut_ptr(), columns),
                [rows, dim, columns],
                Accumulate::No,
            );
            for (r, i) in block.queries.clone().enumerate() {
                let start = row_of(i);
                let delta = simd::dot(&d_out[start..start + dim], &out[start..start + dim]);
                let range = r * columns..(r + 1) * columns;
                simd::softmax_backward_row(
                    &p[range.clone()],
                    &mut d_p[range.clone()],
                    delta,
                    spec.scale as f32,
                );
                if spec.softcap.is_some() {
                    for (d, slope) in d_p[range.clone()].iter_mut().zip(&slopes[range]) {
                        *d *= slope;
                    }
                }
            }
            multiply(
                Matrix::new(d_p.as_ptr(), columns, 1),
                Matrix::new(head.k.as_ptr().add(key_row), dim, 1),
                MatrixMut::new(d_q.as_mut_ptr().add(block.queries.start * dim), dim),
                [rows, columns, dim],
                Accumulate::No,
            );
            multiply(
                Matrix::new(d_p.as_ptr(), 1, columns),
                Matrix::new(head.q.as_ptr().add(block.queries.start * dim), dim, 1),
                MatrixMut::new(d_k.as_mut_ptr().add(key_row), dim),
                [columns, rows, dim],
                Accumulate::Yes,
            );
        }
    }
    grads
}

#[derive(Clone, Copy)]
struct Dims {
    total: usize,
    heads: usize,
    head_dim: usize,
}

impl Dims {
    fn of(qkv: &FlexTensor) -> Self {
        let [total, _, heads, head_dim] = qkv.layout().shape().dims();
        Self {
            total,
            heads,
            head_dim,
        }
    }
}

struct Task {
    head: usize,
    first: usize,
    length: usize,
}

/// Returns one task per sequence and head; empty sequences have none.
fn tasks(spec: &AttentionSpec, heads: usize) -> Vec<Task> {
    spec.layout
        .ranges()
        .filter(|range| !range.is_empty())
        .flat_map(|range| {
            (0..heads).map(move |head| Task {
                head,
                first: range.start,
                length: range.len(),
            })
        })
        .collect()
}

/// One head of one sequence: q and k with RoPE applied, contiguous, and v in place.
struct Head<'a> {
    dims: Dims,
    head: usize,
    first: usize,
    length: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: &'a [f32],
}

impl<'a> Head<'a> {
    fn load(qkv: &'a [f32], rotary: &[f32], dims: Dims, task: &Task, spec: &AttentionSpec) -> Self {
        let dim = dims.head_dim;
        let start =
            |i: usize, part: usize| (((task.first + i) * 3 + part) * dims.heads + task.head) * dim;
        let copy = |part: usize| {
            let mut rows = Vec::with_capacity(task.length * dim);
            for i in 0..task.length {
                rows.extend_from_slice(&qkv[start(i, part)..][..dim]);
                if spec.rope {
                    apply_rope(&mut rows[i * dim..], &rotary[i * dim..], 1.0);
                }
            }
            rows
        };
        Self {
            dims,
            head: task.head,
            first: task.first,
            length: task.length,
            q: copy(0),
            k: copy(1),
            v: &qkv[start(0, 2)..],
        }
    }

    /// Returns v from row `first` of the sequence on, with the stride of the packed tensor.
    fn v_rows(&self, first: usize) -> Matrix {
        let stride = 3 * self.dims.heads * self.dims.head_dim;
        Matrix::new(self.v[first * stride..].as_ptr(), stride, 1)
    }

    /// Computes the scaled (and bounded) scores of a block, row-major `[queries, keys]`, before the window is applied; writes the
    /// derivative of the softcap to `slopes`.
    fn scores(
        &self,
        block: &Block,
        spec: &AttentionSpec,
        scores: &mut Vec<f32>,
        slopes: Option<&mut Vec<f32>>,
    ) {
        let (rows, columns, dim) = (block.queries.len(), block.keys.len(), self.dims.head_dim);
        // Scores of an earlier block may remain here; the GEMM overwrites them.
        scores.resize(rows * columns, 0.0);
        // SAFETY: rows `queries` of q and `keys` of k exist, and `scores` holds rows × columns elements.
        unsafe {
            multiply(
                Matrix::new(self.q.as_ptr().add(block.queries.start * dim), dim, 1),
                Matrix::new(self.k.as_ptr().add(block.keys.start * dim), dim, 1).transposed(),
                MatrixMut::new(scores.as_mut_ptr(), columns),
                [rows, dim, columns],
                Accumulate::No,
            );
        }
        let scale = spec.scale as f32;
        match spec.softcap {
            None => scores.iter_mut().for_each(|s| *s *= scale),
            Some(cap) => {
                let cap = cap as f32;
                let tanh = |s: &f32| (s * scale / cap).tanh();
                if let Some(slopes) = slopes {
                    slopes.clear();
                    slopes.extend(scores.iter().map(|s| 1.0 - tanh(s) * tanh(s)));
                }
                scores.iter_mut().for_each(|s| *s = cap * tanh(s));
            }
        }
    }
}

/// Hides the keys outside the window of query `i` in its row of a block.
fn hide(row: &mut [f32], block: &Block, i: usize, spec: &AttentionSpec) {
    let visible = spec.visible_in(block, i);
    row[..visible.start].fill(f32::NEG_INFINITY);
    row[visible.end..].fill(f32::NEG_INFINITY);
}

/// Applies RoPE to one row with a row of the table; `direction` is 1, or -1 for the gradient.
fn apply_rope(x: &mut [f32], table: &[f32], direction: f32) {
    let half = x.len() / 2;
    let (a, b) = x.split_at_mut(half);
    let (cos, sin) = table[..2 * half].split_at(half);
    for d in 0..half {
        let (p, q, s) = (a[d], b[d], direction * sin[d]);
        a[d] = p * cos[d] - q * s;
        b[d] = q * cos[d] + p * s;
    }
}

/// A matrix in memory: pointer to its first element, distance between rows and between columns.
#[derive(Clone, Copy)]
struct Matrix {
    start: *const f32,
    row: isize,
    column: isize,
}

impl Matrix {
    fn new(start: *const f32, row: usize, column: usize) -> Self {
        Self {
            start,
            row: row as isize,
            column: column as isize,
        }
    }

    fn transposed(self) -> Self {
        Self {
            row: self.column,
            column: self.row,
            ..self
        }
    }
}

struct MatrixMut {
    start: *mut f32,
    row: isize,
}

impl MatrixMut {
    fn new(start: *mut f32, row: usize) -> Self {
        Self {
            start,
            row: row as isize,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Accumulate {
    Yes,
    No,
}

/// `target (+)= left · right` for `[m, k] · [k, n]`, on the calling thread.
///
/// # Safety
/// All elements that the sizes and distances reach must be valid, and no other thread may touch those of `target`.
unsafe fn multiply(
    left: Matrix,
    right: Matrix,
    target: MatrixMut,
    [m, k, n]: [usize; 3],
    accumulate: Accumulate,
) {
    // SAFETY: the caller guarantees all elements that the sizes and distances reach.
    unsafe {
        gemm(
            m,
            n,
            k,
            target.start,
            1,
            target.row,
            accumulate == Accumulate::Yes,
            left.start,
            left.column,
            left.row,
            right.start,
            right.column,
            right.row,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A pointer that tasks share; each task writes its own elements.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: tasks write disjoint elements; the comment at each use of the pointer says why.
unsafe impl Send for Shared {}
// SAFETY: as for `Send`: no two tasks access one element.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `index` must be inside the vector the pointer was taken from.
    unsafe fn at(self, index: usize) -> *mut f32 {
        // SAFETY: the caller guarantees that `index` is inside the vector.
        unsafe { self.0.add(index) }
    }
}
