//! Row gather on CubeCL devices: the gather itself, and its gradient as sums over runs of equal ids, in two kernels.

use burn::backend::TensorMetadata;
use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::tensor::{DType, FloatDType, IntDType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::fallback;
use crate::batch::TokenOrder;
use crate::ops::rows::{
    COLUMN_BLOCK, COLUMN_SLICES, RowPartition, address, elem, empty, grid, sum_of_slices,
    vector_size,
};

/// Threads of a block of the gather and of the kernel for pieces.
const THREADS: usize = 256;
/// Vectors that a thread of the gather copies.
const VECTORS: usize = 4;
/// Elements of a row that a thread of the kernel for pieces holds, at most.
const HELD: usize = 32;
/// Tokens of a piece of a run, at most.
const PIECE: usize = 32;
/// Rows that are loaded before they are added, so that the loads overlap.
const AHEAD: usize = 2;
/// Numbers of a piece in its table: first position, number of positions, row it is written to, whether that row is a partial sum.
const PIECE_ENTRY: usize = 4;
/// Numbers of a long run in its table: first partial row, number of partial rows, row of the gradient.
const RUN_ENTRY: usize = 3;

/// `out[t] = table[ids[t]]`; `total` vectors in `out`, `vectors` per row, [`VECTORS`] per thread.
#[cube(launch_unchecked, address_type = "dynamic")]
fn gather_kernel<F: Float, N: Size>(
    table: &[Vector<F, N>],
    ids: &[i32],
    out: &mut [Vector<F, N>],
    total: usize,
    #[comptime] vectors: usize,
    #[define(F)] _dtype: ElemType,
) {
    let first = CUBE_POS * comptime!(THREADS * VECTORS) + UNIT_POS as usize;
    let mut read = Array::<Vector<F, N>>::new(VECTORS);
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * THREADS);
        let at = select(at < total, at, 0usize);
        let row = usize::cast_from(ids[at / vectors]);
        read[i] = table[row * vectors + at % vectors];
    }
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * THREADS);
        if at < total {
            out[at] = read[i];
        }
    }
}

/// Sums the rows of each piece's tokens, into the gradient or, for pieces of a long run, into the piece's row of `partials`.
///
/// `d_out` is `[tokens, width]`; `positions` are token positions grouped by id; `pieces` is `[count, PIECE_ENTRY]`. A piece belongs to
/// the lanes of one row of `partition`, and its tokens are added in the order of the batch.
#[cube(launch_unchecked, address_type = "dynamic")]
fn pieces_kernel<F: Float, N: Size>(
    d_out: &[Vector<F, N>],
    positions: &[u32],
    pieces: &[u32],
    d_table: &mut [Vector<f32, N>],
    partials: &mut [Vector<f32, N>],
    count: usize,
    #[comptime] partition: RowPartition,
    #[define(F)] _dtype: ElemType,
) {
    let held = comptime!(partition.held());
    let lane = UNIT_POS as usize % partition.lanes;
    let piece = CUBE_POS * partition.block_rows + UNIT_POS as usize / partition.lanes;
    if piece < count {
        let entry = piece * PIECE_ENTRY;
        let start = pieces[entry] as usize;
        let length = pieces[entry + 1] as usize;
        let row = pieces[entry + 2] as usize;
        let partial = pieces[entry + 3] == 1u32;
        let mut sums = Array::<Vector<f32, N>>::new(held);
        #[unroll]
        for i in 0..held {
            sums[i] = Vector::new(0.0f32);
        }
        let mut read = Array::<Vector<F, N>>::new(comptime!(AHEAD * held));
        let mut token = 0usize;
        while token < length {
            #[unroll]
            for ahead in 0..AHEAD {
                let next = select(token + ahead < length, token + ahead, token);
                let from = positions[start + next] as usize * partition.vectors;
                #[unroll]
                for i in 0..held {
                    let at = lane + comptime!(i * partition.lanes);
                    read[comptime!(ahead * held + i)] =
                        d_out[from + select(at < partition.vectors, at, 0usize)];
                }
            }
            #[unroll]
            for ahead in 0..AHEAD {
                if token + ahead < length {
                    #[unroll]
                    for i in 0..held {
                        let value = read[comptime!(ahead * held + i)];
                        sums[i] += Vector::<f32, N>::cast_from(value);
                    }
                }
            }
            token += AHEAD;
        }
        #[unroll]
        for i in 0..held {
            let at = lane + comptime!(i * partition.lanes);
            if at < partition.vectors {
                let to = row * partition.vectors + at;
                if partial {
                    partials[to] = sums[i];
                } else {
                    d_table[to] = sums[i];
                }
            }
        }
    }
}

/// Sums the partial rows of each long run into its row of the gradient; `long` is `[count, RUN_ENTRY]`.
///
/// A block has [`COLUMN_BLOCK`] vectors of one run, and [`COLUMN_SLICES`] threads per vector.
#[cube(launch_unchecked, address_type = "dynamic")]
fn long_kernel<N: Size>(
    partials: &[Vector<f32, N>],
    long: &[u32],
    d_table: &mut [Vector<f32, N>],
    count: usize,
    #[comptime] vectors: usize,
) {
    let blocks = comptime!(vectors.div_ceil(COLUMN_BLOCK));
    let run = CUBE_POS / blocks;
    if run < count {
        let first = long[run * RUN_ENTRY] as usize;
        let parts = long[run * RUN_ENTRY + 1] as usize;
        let row = long[run * RUN_ENTRY + 2] as usize;
        let slice = UNIT_POS as usize / COLUMN_BLOCK;
        let column = CUBE_POS % blocks * COLUMN_BLOCK + UNIT_POS as usize % COLUMN_BLOCK;
        let inside = column < vectors;
        let mut sum = Vector::<f32, N>::new(0.0f32);
        if inside {
            let mut part = slice;
            while part < parts {
                sum += partials[(first + part) * vectors + column];
                part += COLUMN_SLICES;
            }
        }
        let total = sum_of_slices::<N>(sum);
        if inside && slice == 0 {
            d_table[row * vectors + column] = total;
        }
    }
}

pub(crate) fn forward(table: CubeTensor, ids: CubeTensor) -> CubeTensor {
    let [_, width] = table.shape().dims();
    let [tokens] = ids.shape().dims();
    let (Some(elem), true) = (elem(table.dtype), width > 0 && tokens > 0) else {
        return fallback::forward::<CubeBackend>(table, ids);
    };
    let table = into_contiguous(table);
    let ids = into_contiguous(CubeBackend::int_cast(ids, IntDType::I32));
    let client = table.client.clone();
    let vector = vector_size(&client, width, &[table.dtype]);
    let out = empty(&table, [tokens, width], table.dtype);
    let total = tokens * width / vector;
    // SAFETY: vectors beyond the last read the first token and write nothing; ids are rows of the table.
    unsafe {
        gather_kernel::launch_unchecked(
            &client,
            grid(&client, total.div_ceil(THREADS * VECTORS)),
            CubeDim::new_1d(THREADS as u32),
            address(&[&table, &out]),
            vector,
            table.into_buffer_arg(),
            ids.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            total,
            width / vector,
            elem,
        );
    }
    out
}

/// Tables for [`pieces_kernel`] and [`long_kernel`], made on the host.
struct Tables {
    /// `[pieces, PIECE_ENTRY]`
    pieces: Vec<u32>,
    /// `[long runs, RUN_ENTRY]`
    long: Vec<u32>,
    /// Rows of partial sums.
    partials: usize,
}

impl Tables {
    fn new(order: &TokenOrder) -> Self {
        let runs = order.runs();
        let (mut pieces, mut long) = (Vec::new(), Vec::new());
        let (mut start, mut partials) = (0u32, 0u32);
        for (id, positions) in runs.iter() {
            let parts = positions.len().div_ceil(PIECE) as u32;
            if parts > 1 {
                long.extend([partials, parts, id]);
            }
            for part in positions.chunks(PIECE) {
                let length = part.len() as u32;
                if parts > 1 {
                    pieces.extend([start, length, partials, 1]);
                    partials += 1;
                } else {
                    pieces.extend([start, length, id, 0]);
                }
                start += length;
            }
        }
        Self {
            pieces,
            long,
            partials: partials as usize,
        }
    }
}

pub(crate) fn backward(
    d_out: CubeTensor,
    ids: CubeTensor,
    order: TokenOrder,
    rows: usize,
) -> CubeTensor {
    let [tokens, width] = d_out.shape().dims();
    let client = d_out.client.clone();
    let vector = vector_size(&client, width, &[DType::F32]);
    let partition = RowPartition::new(&client, width, vector, THREADS, HELD);
    let (Some(elem), Some(partition), true) = (elem(d_out.dtype), partition, tokens > 0) else {
        return fallback::backward::<CubeBackend>(d_out, ids, rows);
    };
    let d_out = into_contiguous(d_out);
    let tables = Tables::new(&order);
    let upload = |values: &[u32]| {
        let handle = client.create_from_slice(u32::as_bytes(values));
        CubeTensor::new_contiguous(
            client.clone(),
            d_out.device.clone(),
            Shape::new([values.len()]),
            handle,
            DType::U32,
        )
    };
    let zeros = CubeBackend::float_zeros(Shape::new([rows, width]), &d_out.device, FloatDType::F32);
    let d_table = into_contiguous(zeros);
    let partials = empty(&d_out, [tables.partials.max(1), width], DType::F32);
    let count = tables.pieces.len() / PIECE_ENTRY;
    let runs = tables.long.len() / RUN_ENTRY;
    let index = address(&[&d_out, &d_table, &partials]);
    // SAFETY: the tables hold positions, rows and partial rows that exist; pieces and runs beyond the last do nothing, vectors
    // beyond a row's last read its first and write nothing.
    unsafe {
        pieces_kernel::launch_unchecked(
            &client,
            grid(&client, count.div_ceil(partition.block_rows)),
            partition.block_dim(),
            index,
            vector,
            d_out.clone().into_buffer_arg(),
            upload(&order.runs().positions).into_buffer_arg(),
            upload(&tables.pieces).into_buffer_arg(),
            d_table.clone().into_buffer_arg(),
            partials.clone().into_buffer_arg(),
            count,
            partition,
            elem,
        );
        if runs > 0 {
            long_kernel::launch_unchecked(
                &client,
                grid(&client, runs * partition.vectors.div_ceil(COLUMN_BLOCK)),
                CubeDim::new_1d((COLUMN_SLICES * COLUMN_BLOCK) as u32),
                index,
                vector,
                partials.into_buffer_arg(),
                upload(&tables.long).into_buffer_arg(),
                d_table.clone().into_buffer_arg(),
                runs,
                partition.vectors,
            );
        }
    }
    d_table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_long_runs_into_pieces() {
        let mut ids = vec![5u32; PIECE + 1];
        ids.extend([3, 9, 3]);
        let tables = Tables::new(&TokenOrder::new(ids));
        let (whole, rest) = (PIECE as u32, 1);
        assert_eq!(
            tables.pieces,
            [
                0,
                2,
                3,
                0, // id 3
                2,
                whole,
                0,
                1, // id 5, first piece
                2 + whole,
                rest,
                1,
                1, // id 5, second piece
                3 + whole,
                1,
                9,
                0, // id 9
            ]
        );
        assert_eq!(tables.long, [0, 2, 5]);
        assert_eq!(tables.partials, 2);
    }
}
