//! One pass: its buffers, its phases, and the tasks that threads share.
//!
//! ```text
//! for each layer   normed = LN(x) (or x)            rows
//!                  qkv    = normed · Wqkvᵀ          GEMM
//!                  attended = attention(qkv)        heads of sequences
//!                  x     += attended · Woᵀ          GEMM
//!                  normed = LN(x)                   rows
//!                  gated  = geglu(normed · Wiᵀ)     GEMM
//!                  x     += gated · Woᵀ             GEMM
//! out = LN(x)
//! ```
//!
//! Large batches: a task is a block of up to 128 rows, which one thread computes from `attended` to the `qkv` of the next layer without a barrier. Small
//! batches: each line is a phase, and threads share the panels of its weight, so that every weight is read once.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cpu_gemm::aligned::{Aligned, Zero};
use cpu_gemm::element::Element;
use cpu_gemm::kernel::{MicrokernelArgs, Multiply};
use cpu_gemm::{InstructionSet, PANEL, ROWS, Worker};

use crate::attention::{HeadView, Scratch};
use crate::encoder::{EncoderSizes, PackedEncoder, PackedLayer};
use crate::outliers::OutlierRows;
use crate::profile::{Clock, Op, Profile};
use crate::rows::{OperandDtype, TileValues, add_tile, layer_norm, quantize, scale_tile};
use crate::shared::SharedRows;
use crate::weights::Weight;

/// Rows of a task of a large batch at most: the operands of the task fit into an L2 cache of 1 MB.
const BLOCK: usize = 128;

/// Rows of the tasks of a large batch, whole groups of [`ROWS`]. Threads take the blocks in order; a block is at most a thread's share of the rows that
/// are left, so that the last ones are small and the other threads wait only shortly for one that the system has interrupted. Small blocks alone would
/// read the weights more often.
fn row_blocks(total: usize, threads: usize) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let mut start = 0;
    while start < total {
        let share = (total - start).div_ceil(threads);
        let rows = share.next_multiple_of(ROWS).min(BLOCK);
        let end = (start + rows).min(total);
        blocks.push(start..end);
        start = end;
    }
    blocks
}

/// The left operands of a layer's GEMMs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GemmInput {
    Normed,
    Attended,
    Gated,
}

/// Additional results of a pass.
#[derive(Default)]
pub(crate) struct Outputs<'a> {
    /// The input of each layer.
    pub(crate) states: Option<&'a mut Vec<Vec<f32>>>,
    /// Times.
    pub(crate) profile: Option<&'a mut Profile>,
}

/// One pass over a batch.
pub(crate) struct Pass<'a, E: OperandDtype> {
    encoder: &'a PackedEncoder,
    layers: &'a [PackedLayer<E>],
    total: usize,
    /// Sequences, the longest first.
    sequences: Vec<Range<usize>>,
    longest: usize,
    tables: Vec<Arc<Vec<f32>>>,
    x: Vec<f32>,
    buffers: Buffers<E>,
    idle: &'a Idle<E>,
}

/// Activations between phases. Rows are padded to multiples of 32 and strides to whole steps of the operands. What is beyond a row's width is zero; rows beyond
/// the batch can have any values, for no row of a result depends on another row of its operand.
#[derive(Debug)]
pub(crate) struct Buffers<E: OperandDtype> {
    /// Rows of each of them.
    rows: usize,
    qkv: Aligned<E>,
    normed: Aligned<E>,
    attended: Aligned<E>,
    gated: Aligned<E>,
    /// Left operands of int8 GEMMs, and their scales.
    codes: Aligned<i8>,
    scales: Vec<f32>,
    /// Second codes of rows with outliers, and their scales, 0 for the other rows.
    more_codes: Aligned<i8>,
    more_scales: Vec<f32>,
}

/// Rows up to which an encoder keeps its buffers for the next pass.
const KEPT_ROWS: usize = 2048;

impl<E: OperandDtype> Buffers<E> {
    fn new(sizes: &EncoderSizes, rows: usize, int8: bool) -> Self {
        let width = sizes.heads * sizes.head_dim;
        let widest = widest(sizes);
        let int8_rows = if int8 { rows } else { 0 };
        Self {
            rows,
            qkv: Aligned::in_huge_pages(rows * 3 * width),
            normed: Aligned::in_huge_pages(rows * stride(sizes.hidden)),
            attended: Aligned::in_huge_pages(rows * stride(width)),
            gated: Aligned::in_huge_pages(rows * stride(sizes.intermediate_size)),
            codes: Aligned::in_huge_pages(int8_rows * widest),
            scales: vec![0.0; int8_rows],
            more_codes: Aligned::in_huge_pages(int8_rows * widest),
            more_scales: vec![0.0; int8_rows],
        }
    }
}

/// The buffers of the last pass, for reuse.
#[derive(Debug)]
pub(crate) struct Idle<E: OperandDtype>(Mutex<Option<Buffers<E>>>);

impl<E: OperandDtype> Default for Idle<E> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<E: OperandDtype> Idle<E> {
    fn take(&self, rows: usize) -> Option<Buffers<E>> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.take_if(|buffers| buffers.rows >= rows)
    }

    fn put(&self, buffers: Buffers<E>) {
        if buffers.rows <= KEPT_ROWS {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffers);
        }
    }
}

/// Elements of a row of the widest operand.
fn widest(sizes: &EncoderSizes) -> usize {
    let width = sizes.heads * sizes.head_dim;
    stride(sizes.hidden.max(width).max(sizes.intermediate_size))
}

/// The matrix of queries, keys and values: a block `[rows, 3, head_dim]` for each head where panels of 32 columns are within a head, so that attention reads
/// consecutive memory; `[rows, 3, heads, head_dim]` otherwise.
#[derive(Clone, Copy)]
struct QkvLayout {
    by_head: bool,
    width: usize,
    dim: usize,
    /// Rows of the buffer.
    rows: usize,
}

impl QkvLayout {
    fn new(sizes: &EncoderSizes, rows: usize) -> Self {
        Self {
            by_head: sizes.head_dim.is_multiple_of(PANEL),
            width: sizes.heads * sizes.head_dim,
            dim: sizes.head_dim,
            rows,
        }
    }

    /// Elements from one token to the next.
    fn stride(&self) -> usize {
        3 * self.qkv_stride()
    }

    /// Elements from a head's queries to its keys, and on to its values.
    fn qkv_stride(&self) -> usize {
        if self.by_head { self.dim } else { self.width }
    }

    /// Row and column, in the matrix of this stride, of a token's output `column` of `Wqkv`.
    fn qkv_index(&self, token: usize, column: usize) -> (usize, usize) {
        if !self.by_head {
            return (token, column);
        }
        let (projection, column) = (column / self.width, column % self.width);
        let (head, column) = (column / self.dim, column % self.dim);
        (head * self.rows + token, projection * self.dim + column)
    }
}

/// The buffers of a running pass, shared by its threads.
struct PassBuffers<E> {
    x: SharedRows<f32>,
    qkv: SharedRows<E>,
    normed: SharedRows<E>,
    attended: SharedRows<E>,
    gated: SharedRows<E>,
    codes: SharedRows<i8>,
    scales: SharedRows<f32>,
    more_codes: SharedRows<i8>,
    more_scales: SharedRows<f32>,
}

/// A thread's state.
struct ThreadState<'a, E: OperandDtype> {
    pass: &'a Context<'a, E>,
    tile: Box<TileValues>,
    sums: Box<[i32; ROWS * PANEL]>,
    row: Vec<f32>,
    rest: Vec<f32>,
    scratch: Scratch<E>,
    outliers: OutlierRows,
    clock: Clock,
}

/// Inputs that all threads of a pass read.
struct Context<'a, E: OperandDtype> {
    encoder: &'a PackedEncoder,
    layers: &'a [PackedLayer<E>],
    total: usize,
    sequences: &'a [Range<usize>],
    longest: usize,
    tables: &'a [Arc<Vec<f32>>],
    layout: QkvLayout,
    shared: PassBuffers<E>,
}

const fn stride(width: usize) -> usize {
    // Whole steps of every operand type: 64 bytes of i8.
    width.next_multiple_of(64)
}

impl<'a, E: OperandDtype> Pass<'a, E> {
    pub(crate) fn new(
        encoder: &'a PackedEncoder,
        layers: &'a [PackedLayer<E>],
        idle: &'a Idle<E>,
        x: Vec<f32>,
        cu_seqlens: &[u32],
    ) -> Self {
        let sizes = &encoder.sizes;
        let total = x.len() / sizes.hidden;
        let rows = total.next_multiple_of(ROWS);
        let mut sequences: Vec<Range<usize>> = cu_seqlens
            .windows(2)
            .map(|pair| pair[0] as usize..pair[1] as usize)
            .filter(|range| !range.is_empty())
            .collect();
        sequences.sort_by_key(|range| std::cmp::Reverse(range.len()));
        let longest = sequences.first().map_or(0, |range| range.len());
        let int8 = layers
            .iter()
            .any(|layer| matches!(layer.wqkv, Weight::Int8(_)));
        Self {
            encoder,
            layers,
            total,
            sequences,
            longest,
            tables: encoder
                .tables
                .iter()
                .map(|table| table.rows(longest))
                .collect(),
            x,
            buffers: idle
                .take(rows)
                .unwrap_or_else(|| Buffers::new(sizes, rows, int8)),
            idle,
        }
    }

    pub(crate) fn run(mut self, outputs: Outputs<'_>) -> Vec<f32> {
        let Outputs { states, profile } = outputs;
        let start = Instant::now();
        let sizes = self.encoder.sizes;
        let width = sizes.heads * sizes.head_dim;
        let widest = widest(&sizes);
        let buffers = &mut self.buffers;
        let layout = QkvLayout::new(&sizes, buffers.rows);
        let context = Context {
            encoder: self.encoder,
            layers: self.layers,
            total: self.total,
            sequences: &self.sequences,
            longest: self.longest,
            tables: &self.tables,
            layout,
            shared: PassBuffers {
                x: SharedRows::of(&mut self.x, sizes.hidden),
                qkv: SharedRows::of(&mut buffers.qkv, layout.stride()),
                normed: SharedRows::of(&mut buffers.normed, stride(sizes.hidden)),
                attended: SharedRows::of(&mut buffers.attended, stride(width)),
                gated: SharedRows::of(&mut buffers.gated, stride(sizes.intermediate_size)),
                codes: SharedRows::of(&mut buffers.codes, widest),
                scales: SharedRows::of(&mut buffers.scales, 1),
                more_codes: SharedRows::of(&mut buffers.more_codes, widest),
                more_scales: SharedRows::of(&mut buffers.more_scales, 1),
            },
        };
        let kept = states.is_some().then(|| Mutex::new(Vec::new()));
        let times = profile.is_some().then(Mutex::<Profile>::default);
        self.encoder.team.run(&|worker| {
            let _guard = self.encoder.isa.enter();
            let mut thread = ThreadState::new(&context, times.is_some());
            thread.run(worker, kept.as_ref());
            if let (Some(times), Some(own)) = (&times, &thread.clock.profile) {
                times
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .merge(own);
            }
        });
        if let (Some(profile), Some(times)) = (profile, times) {
            *profile = times.into_inner().unwrap_or_else(PoisonError::into_inner);
            profile.wall = start.elapsed();
        }
        if let (Some(states), Some(kept)) = (states, kept) {
            *states = kept.into_inner().unwrap_or_else(PoisonError::into_inner);
        }
        self.idle.put(self.buffers);
        self.x
    }
}

impl<'a, E: OperandDtype> ThreadState<'a, E> {
    fn new(pass: &'a Context<'a, E>, profiled: bool) -> Self {
        let sizes = &pass.encoder.sizes;
        let widest = sizes
            .hidden
            .max(sizes.intermediate_size)
            .max(sizes.heads * sizes.head_dim);
        Self {
            pass,
            tile: Box::new([0.0; ROWS * PANEL]),
            sums: Box::new([0; ROWS * PANEL]),
            row: vec![0.0; widest],
            rest: vec![0.0; widest],
            scratch: Scratch::new(pass.longest, sizes.head_dim),
            outliers: OutlierRows::default(),
            clock: Clock {
                profile: profiled.then(Profile::default),
            },
        }
    }

    /// The phases; every thread of the team makes the same calls of [`Worker::parallel_for`].
    fn run(&mut self, worker: &Worker<'_>, states: Option<&Mutex<Vec<Vec<f32>>>>) {
        let (total, layers) = (self.pass.total, self.pass.layers);
        let in_blocks = total.div_ceil(ROWS) >= 2 * worker.count();
        let blocks = row_blocks(total, worker.count());
        match layers.first() {
            Some(layer) if in_blocks => worker.parallel_for(blocks.len(), |index| {
                self.enter(layer, blocks[index].clone())
            }),
            Some(layer) => self.enter_shared(worker, layer),
            None => {}
        }
        for (index, layer) in layers.iter().enumerate() {
            if let Some(states) = states {
                worker.parallel_for(1, |_| self.keep(states));
            }
            let heads = self.pass.encoder.sizes.heads;
            worker.parallel_for(self.pass.sequences.len() * heads, |task| {
                self.attend(layer, &self.pass.sequences[task / heads], task % heads);
            });
            let next = layers.get(index + 1);
            if in_blocks {
                worker.parallel_for(blocks.len(), |index| {
                    self.leave(layer, blocks[index].clone());
                    if let Some(next) = next {
                        self.enter(next, blocks[index].clone());
                    }
                });
            } else {
                self.leave_shared(worker, layer);
                if let Some(next) = next {
                    self.enter_shared(worker, next);
                }
            }
        }
        worker.parallel_for(total, |row| self.final_norm_row(row));
    }

    /// From the residual stream to queries, keys and values, of a block of rows.
    fn enter(&mut self, layer: &PackedLayer<E>, rows: Range<usize>) {
        self.norm(layer.attention_norm.as_deref(), &layer.wqkv, rows.clone());
        self.qkv(layer, rows, 0..layer.wqkv.panels());
    }

    /// From attention's result through the MLP, of a block of rows.
    fn leave(&mut self, layer: &PackedLayer<E>, rows: Range<usize>) {
        self.quantize(GemmInput::Attended, &layer.attention_out, rows.clone());
        self.add(
            GemmInput::Attended,
            &layer.attention_out,
            rows.clone(),
            0..layer.attention_out.panels(),
        );
        self.norm(Some(&layer.mlp_norm), &layer.wi, rows.clone());
        self.geglu(layer, rows.clone(), 0..layer.wi.panels());
        self.quantize(GemmInput::Gated, &layer.mlp_out, rows.clone());
        self.add(
            GemmInput::Gated,
            &layer.mlp_out,
            rows,
            0..layer.mlp_out.panels(),
        );
    }

    /// [`Self::enter`] of all rows, in phases.
    fn enter_shared(&mut self, worker: &Worker<'_>, layer: &PackedLayer<E>) {
        let total = self.pass.total;
        worker.parallel_for(total, |row| {
            self.norm(layer.attention_norm.as_deref(), &layer.wqkv, row..row + 1)
        });
        share_panels(worker, layer.wqkv.panels(), |panels| {
            self.qkv(layer, 0..total, panels)
        });
    }

    /// [`Self::leave`] of all rows, in phases.
    fn leave_shared(&mut self, worker: &Worker<'_>, layer: &PackedLayer<E>) {
        let total = self.pass.total;
        let (out, mlp_out) = (&layer.attention_out, &layer.mlp_out);
        if let Weight::Int8(_) = out {
            worker.parallel_for(total, |row| {
                self.quantize(GemmInput::Attended, out, row..row + 1)
            });
        }
        share_panels(worker, out.panels(), |panels| {
            self.add(GemmInput::Attended, out, 0..total, panels)
        });
        worker.parallel_for(total, |row| {
            self.norm(Some(&layer.mlp_norm), &layer.wi, row..row + 1)
        });
        share_panels(worker, layer.wi.panels(), |panels| {
            self.geglu(layer, 0..total, panels)
        });
        if let Weight::Int8(_) = mlp_out {
            worker.parallel_for(total, |row| {
                self.quantize(GemmInput::Gated, mlp_out, row..row + 1)
            });
        }
        share_panels(worker, mlp_out.panels(), |panels| {
            self.add(GemmInput::Gated, mlp_out, 0..total, panels)
        });
    }

    /// Norms rows of the residual stream into the left operand of `weight`'s GEMM.
    fn norm(&mut self, norm: Option<&[f32]>, weight: &Weight<E>, rows: Range<usize>) {
        let sizes = &self.pass.encoder.sizes;
        let shared = &self.pass.shared;
        let hidden = sizes.hidden;
        let start = self.clock.start();
        for row in rows {
            // SAFETY: this thread alone uses this row between two barriers.
            let x = unsafe { shared.x.rows(row, 1) };
            let x = match norm {
                Some(norm) => {
                    layer_norm(x, norm, sizes.eps, &mut self.row[..hidden]);
                    &self.row[..hidden]
                }
                None => x,
            };
            // SAFETY: as above.
            unsafe {
                match weight {
                    Weight::Float(_) => E::slice_from_f32(x, shared.normed.row_mut(row, 0, hidden)),
                    Weight::Int8(_) => shared.quantize(x, row, &mut self.rest),
                }
            }
        }
        self.clock.stop(Op::Norm, start);
    }

    /// Quantizes rows of an operand, where `weight` is in bytes.
    fn quantize(&mut self, operand: GemmInput, weight: &Weight<E>, rows: Range<usize>) {
        if let Weight::Float(_) = weight {
            return;
        }
        let (source, width) = self.operand(operand);
        let shared = &self.pass.shared;
        let start = self.clock.start();
        for row in rows {
            // SAFETY: this thread alone uses this row between two barriers.
            unsafe {
                E::slice_to_f32(&source.rows(row, 1)[..width], &mut self.row[..width]);
                shared.quantize(&self.row[..width], row, &mut self.rest);
            }
        }
        self.clock.stop(Op::Quantize, start);
    }

    fn operand(&self, operand: GemmInput) -> (&'a SharedRows<E>, usize) {
        let (sizes, shared) = (&self.pass.encoder.sizes, &self.pass.shared);
        match operand {
            GemmInput::Normed => (&shared.normed, sizes.hidden),
            GemmInput::Attended => (&shared.attended, sizes.heads * sizes.head_dim),
            GemmInput::Gated => (&shared.gated, sizes.intermediate_size),
        }
    }

    fn qkv(&mut self, layer: &PackedLayer<E>, rows: Range<usize>, panels: Range<usize>) {
        let sizes = &self.pass.encoder.sizes;
        let out = 3 * sizes.heads * sizes.head_dim;
        let layout = self.pass.layout;
        let qkv = &self.pass.shared.qkv;
        self.gemm(
            Op::Qkv,
            GemmInput::Normed,
            &layer.wqkv,
            rows,
            panels,
            |tile, row, count, panel| {
                let column = panel * PANEL;
                let width = PANEL.min(out - column);
                let (row, column) = layout.qkv_index(row, column);
                let to = qkv.tile_mut(row, count, column, width);
                // SAFETY: this thread alone uses these rows of these columns.
                unsafe { E::store(tile, &to) }
            },
        );
    }

    fn geglu(&mut self, layer: &PackedLayer<E>, rows: Range<usize>, panels: Range<usize>) {
        let inner = self.pass.encoder.sizes.intermediate_size;
        let gated = &self.pass.shared.gated;
        self.gemm(
            Op::Gated,
            GemmInput::Normed,
            &layer.wi,
            rows,
            panels,
            |tile, row, count, panel| {
                let column = panel * PANEL / 2;
                let to = gated.tile_mut(row, count, column, (PANEL / 2).min(inner - column));
                // SAFETY: as in `qkv`.
                unsafe { E::store_geglu(tile, &to) }
            },
        );
    }

    /// Adds a GEMM's result to the residual stream.
    fn add(
        &mut self,
        operand: GemmInput,
        weight: &Weight<E>,
        rows: Range<usize>,
        panels: Range<usize>,
    ) {
        let hidden = self.pass.encoder.sizes.hidden;
        let x = &self.pass.shared.x;
        let op = match operand {
            GemmInput::Gated => Op::MlpOut,
            GemmInput::Normed | GemmInput::Attended => Op::AttentionOut,
        };
        self.gemm(
            op,
            operand,
            weight,
            rows,
            panels,
            |tile, row, count, panel| {
                let column = panel * PANEL;
                let to = x.tile_mut(row, count, column, PANEL.min(hidden - column));
                // SAFETY: as in `qkv`.
                unsafe { add_tile(tile, &to) }
            },
        );
    }

    /// GEMM of rows of an operand with panels of a weight; `epilogue(tile, first row, rows, panel)` receives each tile of the result.
    fn gemm(
        &mut self,
        op: Op,
        operand: GemmInput,
        weight: &Weight<E>,
        rows: Range<usize>,
        panels: Range<usize>,
        mut epilogue: impl FnMut(&TileValues, usize, usize, usize),
    ) {
        let isa = self.pass.encoder.isa;
        let shared = &self.pass.shared;
        let (left, _) = self.operand(operand);
        let tiles = rows.len().div_ceil(ROWS);
        let start = self.clock.start();
        if let Weight::Int8(_) = weight {
            // SAFETY: no thread writes rows that this one reads before the next barrier.
            unsafe {
                self.outliers
                    .gather(&shared.more_codes, &shared.more_scales, rows.clone())
            }
        }
        // A panel stays in the L1 and L2 caches for all rows of the block; the next panel is prefetched meanwhile.
        for panel in panels {
            if let Weight::Int8(weight) = weight {
                // SAFETY: as in the loop below.
                unsafe { self.outliers.multiply(isa, weight.panel(panel)) }
            }
            for (index, row) in rows.clone().step_by(ROWS).enumerate() {
                if tiles > 1 {
                    weight.prefetch(panel + 1, index, tiles);
                }
                let count = ROWS.min(rows.end - row);
                let padded = count.next_multiple_of(16);
                // SAFETY: operands have whole groups of 32 rows with strides of whole steps, and no thread writes rows that this one reads before the next
                // barrier; tiles hold 32 × 32 elements; `Builder::new` was given a supported unit, which this thread has entered.
                unsafe {
                    match weight {
                        Weight::Float(weight) => multiply(
                            isa,
                            left.rows(row, padded),
                            left.stride,
                            count,
                            weight.panel(panel),
                            &mut self.tile[..],
                        ),
                        Weight::Int8(weight) => {
                            let codes = &shared.codes;
                            multiply(
                                isa,
                                codes.rows(row, padded),
                                codes.stride,
                                count,
                                weight.panel(panel),
                                &mut self.sums[..],
                            );
                            let scales = shared.scales.rows(row, count);
                            scale_tile(&self.sums, scales, weight.scales(panel), &mut self.tile);
                            let first = row - rows.start;
                            self.outliers
                                .add(first, count, weight.scales(panel), &mut self.tile);
                        }
                    }
                }
                epilogue(&self.tile, row, count, panel);
            }
        }
        self.clock.stop(op, start);
    }

    fn attend(&mut self, layer: &PackedLayer<E>, sequence: &Range<usize>, head: usize) {
        let (sizes, shared) = (&self.pass.encoder.sizes, &self.pass.shared);
        let (dim, layout) = (sizes.head_dim, self.pass.layout);
        let column_of_head = head * dim;
        let (row, column) = layout.qkv_index(sequence.start, column_of_head);
        let start = self.clock.start();
        // SAFETY: the projection was written before the last barrier; this thread alone writes this head of these tokens.
        unsafe {
            let task = HeadView {
                qkv: &shared.qkv.rows(row, sequence.len())[column..],
                qkv_stride: layout.qkv_stride(),
                stride: layout.stride(),
                length: sequence.len(),
                dim,
                scale: 1.0 / (dim as f32).sqrt(),
                softcap: None,
                half_window: layer.half_window,
                rotary: layer.table.map(|table| self.pass.tables[table].as_slice()),
            };
            task.forward(
                self.pass.encoder.isa,
                &mut self.scratch,
                |token, row, total| {
                    let to = shared
                        .attended
                        .row_mut(sequence.start + token, column_of_head, dim);
                    E::scale(row, total.inverse(), to);
                },
            );
        }
        self.clock.stop(Op::Attention, start);
    }

    /// The final norm of a row, in place.
    fn final_norm_row(&mut self, row: usize) {
        let sizes = &self.pass.encoder.sizes;
        let start = self.clock.start();
        // SAFETY: this thread alone uses this row.
        let x = unsafe { self.pass.shared.x.row_mut(row, 0, sizes.hidden) };
        layer_norm(
            x,
            &self.pass.encoder.final_norm,
            sizes.eps,
            &mut self.row[..sizes.hidden],
        );
        x.copy_from_slice(&self.row[..sizes.hidden]);
        self.clock.stop(Op::Norm, start);
    }

    /// Copies the residual stream.
    fn keep(&self, states: &Mutex<Vec<Vec<f32>>>) {
        // SAFETY: no thread writes the residual stream in this phase.
        let x = unsafe { self.pass.shared.x.rows(0, self.pass.total) };
        states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(x.to_vec());
    }
}

/// Shares a weight's panels: four tasks for each thread.
fn share_panels(worker: &Worker<'_>, panels: usize, mut task: impl FnMut(Range<usize>)) {
    let group = panels.div_ceil(4 * worker.count()).max(1);
    worker.parallel_for(panels.div_ceil(group), |index| {
        task(index * group..((index + 1) * group).min(panels));
    });
}

impl<E> PassBuffers<E> {
    /// Quantizes row `row` of the left operand of the next int8 GEMM.
    ///
    /// # Safety
    /// No other thread uses this row before the next barrier.
    unsafe fn quantize(&self, values: &[f32], row: usize, rest: &mut [f32]) {
        let len = values.len();
        // Codes of a wider operand may remain behind the row.
        let padded = len.next_multiple_of(i8::STEP);
        // SAFETY: the caller's promise.
        let (codes, more, scale, more_scale) = unsafe {
            (
                self.codes.row_mut(row, 0, padded),
                self.more_codes.row_mut(row, 0, padded),
                self.scales.row_mut(row, 0, 1),
                self.more_scales.row_mut(row, 0, 1),
            )
        };
        [scale[0], more_scale[0]] = quantize(
            values,
            &mut codes[..len],
            &mut more[..len],
            &mut rest[..len],
        );
        codes[len..].fill(0);
        more[len..].fill(0);
    }
}

/// One tile.
///
/// # Safety
/// As [`Multiply::tile`]; `to` must hold 32 × 32 elements.
unsafe fn multiply<T: Multiply>(
    isa: InstructionSet,
    left: &[T],
    left_stride: usize,
    rows: usize,
    panel: cpu_gemm::pack::Panel<'_, T>,
    to: &mut [T::Sum],
) where
    T::Sum: Zero,
{
    let tile = MicrokernelArgs {
        left: left.as_ptr(),
        left_stride,
        rows,
        to: to.as_mut_ptr(),
        to_stride: PANEL,
    };
    // SAFETY: the caller's promise.
    unsafe { T::tile(isa, tile, panel) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_all_rows_in_whole_groups_and_the_last_are_small() {
        for threads in [1, 2, 3, 16] {
            for total in [1, 31, 64, 100, 512, 1000, 2048, 5000] {
                let blocks = row_blocks(total, threads);
                let ends: Vec<usize> = blocks.iter().map(|block| block.end).collect();
                let starts: Vec<usize> = blocks.iter().map(|block| block.start).collect();
                assert_eq!(starts[0], 0);
                assert_eq!(ends[..ends.len() - 1], starts[1..]);
                assert_eq!(ends.last(), Some(&total));
                assert!(starts.iter().all(|start| start % ROWS == 0));
                let sizes: Vec<usize> = blocks.iter().map(|block| block.len()).collect();
                assert!(
                    sizes.is_sorted_by(|a, b| a >= b) && sizes[0] <= BLOCK,
                    "{sizes:?}"
                );
                assert!(threads == 1 || sizes[sizes.len() - 1] <= ROWS);
            }
        }
        let sizes: Vec<usize> = row_blocks(512, 2).iter().map(|block| block.len()).collect();
        assert_eq!(sizes, [128, 128, 128, 64, 32, 32]);
    }
}
