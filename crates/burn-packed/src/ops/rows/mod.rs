//! What the CubeCL kernels that work on rows share: how a row is dealt to units, sums over a row, sizes of launches.
//!
//! A row belongs to `lanes` neighbouring units of a cube; unit `l` of them holds the vectors `l`, `l + lanes`, … of the row in
//! registers, so that neighbouring units read neighbouring vectors and a row is read once. Where the device has planes of one
//! known size, a row belongs to a plane and sums pass through its shuffles; elsewhere through shared memory. Sums are taken in
//! one order, whatever the number of rows.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::ops::reshape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::features::Plane;
use cubecl::ir::{AddressType, ElemType, FloatKind};
use cubecl::prelude::*;

/// Units of a row: the size of a plane on the devices that matter.
const LANES: usize = 32;
/// Units of a row too wide for the registers of a plane.
const WIDE_LANES: usize = 256;
/// How rows are dealt to the units of a cube. Part of a kernel's identity: the number of rows isn't in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Deal {
    /// Vectors of a row.
    pub(crate) vectors: usize,
    /// Elements of a row.
    pub(crate) width: usize,
    /// Units of a row.
    pub(crate) lanes: usize,
    /// Rows a cube works on at a time.
    pub(crate) rows: usize,
    /// Whether sums pass through the shuffles of a plane.
    pub(crate) plane: bool,
}

impl Deal {
    /// Rows of `width` elements in vectors of `vector`, in cubes of about `units` units that hold at most `held` elements of a row
    /// each; `None` where that is no whole row, or the device doesn't hold the cube.
    pub(crate) fn new(
        client: &Client,
        width: usize,
        vector: usize,
        units: usize,
        held: usize,
    ) -> Option<Self> {
        let properties = client.properties();
        let hardware = &properties.hardware;
        let lanes = [LANES, WIDE_LANES]
            .into_iter()
            .find(|lanes| width.div_ceil(lanes * vector) * vector <= held)?;
        let deal = Self {
            vectors: width / vector,
            width,
            lanes,
            rows: (units / lanes).max(1),
            plane: properties.features.plane.contains(Plane::Ops)
                && hardware.plane_size_min as usize == lanes
                && hardware.plane_size_max as usize == lanes,
        };
        let fits = deal.units() <= hardware.max_units_per_cube as usize
            && deal.units() <= hardware.max_cube_dim.0 as usize
            && 4 * (deal.width + deal.units()) <= hardware.max_shared_memory_size;
        (width > 0 && fits).then_some(deal)
    }

    /// Units of a cube.
    pub(crate) fn units(self) -> usize {
        self.lanes * self.rows
    }

    /// Vectors of a row that a unit holds, at most.
    pub(crate) fn held(self) -> usize {
        self.vectors.div_ceil(self.lanes)
    }

    /// Elements of shared memory that [`row_sum`] needs.
    pub(crate) fn exchange(self) -> usize {
        if self.plane { 1 } else { self.units() }
    }

    pub(crate) fn dim(self) -> CubeDim {
        CubeDim::new_1d(self.units() as u32)
    }
}

/// Widest vector of a row of `width` elements that the device reads at once in the widest of these dtypes.
pub(crate) fn vector_size(client: &Client, width: usize, dtypes: &[DType]) -> usize {
    let bytes = dtypes.iter().map(|dtype| dtype.size()).max().unwrap_or(4);
    let most = client.properties().hardware.max_vector_size;
    client
        .io_optimized_vector_sizes(bytes)
        .find(|&vector| width.is_multiple_of(vector) && vector <= most)
        .unwrap_or(1)
}

/// The tensor in one piece, and nobody else's: a copy where somebody else holds it.
pub(crate) fn own(tensor: CubeTensor) -> CubeTensor {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() {
        return tensor;
    }
    // The backend sets rows of a copy apart on some devices, but not where there is only one.
    let shape = tensor.shape();
    let flat = reshape(tensor, Shape::new([shape.num_elements()]));
    reshape(flat.copy(), shape)
}

/// A grid of at least `cubes` cubes within the device's limits; kernels count them with `CUBE_POS` and skip those beyond.
pub(crate) fn grid(client: &Client, cubes: usize) -> CubeCount {
    let (most, _, _) = client.properties().hardware.max_cube_count;
    let y = cubes.div_ceil(most as usize).max(1);
    CubeCount::Static(cubes.div_ceil(y) as u32, y as u32, 1)
}

/// Cubes that keep the device busy with `per_processor` of them to a multiprocessor.
pub(crate) fn resident(client: &Client, per_processor: usize) -> usize {
    let hardware = &client.properties().hardware;
    // Where the device doesn't say, as many as a small one has.
    per_processor * hardware.num_streaming_multiprocessors.unwrap_or(16) as usize
}

/// The type kernels know a dtype by; `None` for those they don't compute in.
pub(crate) fn elem(dtype: DType) -> Option<ElemType> {
    match dtype {
        DType::F32 => Some(ElemType::Float(FloatKind::F32)),
        DType::F16 => Some(ElemType::Float(FloatKind::F16)),
        DType::BF16 => Some(ElemType::Float(FloatKind::BF16)),
        _ => None,
    }
}

/// As [`elem`], of several at once.
pub(crate) fn elems<const N: usize>(dtypes: [DType; N]) -> Option<[ElemType; N]> {
    let found = dtypes.map(elem);
    found
        .iter()
        .all(Option::is_some)
        .then(|| found.map(|elem| elem.unwrap_or(ElemType::Float(FloatKind::F32))))
}

/// Sum over the units of a cube of `units`, a power of two, halved in a fixed order; the same in each of them.
#[cube]
pub(crate) fn sum_of_cube(x: f32, #[comptime] units: usize) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    shared[unit] = x;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(units.trailing_zeros() as usize) {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            shared[unit] += shared[unit + half];
        }
        sync_cube();
    }
    shared[0]
}

/// An uninitialised tensor on the device of `like`.
pub(crate) fn empty<const D: usize>(
    like: &CubeTensor,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        Shape::new(shape),
        dtype,
    )
}

/// Width of the indices that serve every one of these tensors.
pub(crate) fn address(tensors: &[&CubeTensor]) -> AddressType {
    tensors
        .iter()
        .map(|tensor| tensor.required_address_type())
        .max()
        .unwrap_or_default()
}

/// Sum of `x` over the units of a row, the same in each of them. Every unit of the cube must come here.
#[cube]
pub(crate) fn row_sum(x: f32, exchange: &mut Shared<[f32]>, #[comptime] deal: Deal) -> f32 {
    if comptime!(deal.plane) {
        let mut sum = x;
        #[unroll]
        for step in 0..comptime!(deal.lanes.trailing_zeros() as usize) {
            sum += plane_shuffle_xor(sum, comptime!(deal.lanes as u32 >> (step + 1)));
        }
        sum
    } else {
        sync_cube();
        exchange[UNIT_POS as usize] = x;
        sync_cube();
        let first = UNIT_POS as usize / deal.lanes * deal.lanes;
        let mut sum = 0.0f32;
        for lane in 0..deal.lanes {
            sum += exchange[first + lane];
        }
        sum
    }
}

/// Sum of the elements of a vector.
#[cube]
pub(crate) fn within<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        sum += vector.extract(k);
    }
    sum
}

/// Units that share a column in [`columns_kernel`], and columns (vectors of them) of a cube.
const SLICES: usize = 8;
const COLUMNS: usize = 32;
/// Sums that a unit keeps apart, so that their reads overlap.
const CHAINS: usize = 4;

/// Sum of each column of `input [parts, vectors]`, in an order that depends on the number of parts alone.
#[cube(launch_unchecked, address_type = "dynamic")]
fn columns_kernel<F: Float, N: Size>(
    input: &[Vector<F, N>],
    sums: &mut [Vector<f32, N>],
    parts: usize,
    vectors: usize,
    #[define(F)] _dtype: ElemType,
) {
    let mut shared = Shared::<[Vector<f32, N>]>::new_slice(comptime!(SLICES * COLUMNS));
    let slice = UNIT_POS as usize / COLUMNS;
    let column = CUBE_POS * COLUMNS + UNIT_POS as usize % COLUMNS;
    let inside = column < vectors;
    let mut chains = Array::<Vector<f32, N>>::new(CHAINS);
    #[unroll]
    for chain in 0..CHAINS {
        chains[chain] = Vector::new(0.0f32);
    }
    if inside {
        let mut read = Array::<Vector<F, N>>::new(CHAINS);
        let mut part = slice;
        while part < parts {
            #[unroll]
            for chain in 0..CHAINS {
                let at = part + comptime!(chain * SLICES);
                read[chain] = input[select(at < parts, at, part) * vectors + column];
            }
            #[unroll]
            for chain in 0..CHAINS {
                let at = part + comptime!(chain * SLICES);
                if at < parts {
                    chains[chain] += Vector::<f32, N>::cast_from(read[chain]);
                }
            }
            part += comptime!(CHAINS * SLICES);
        }
    }
    let mut sum = chains[0];
    #[unroll]
    for chain in 1..CHAINS {
        sum += chains[chain];
    }
    shared[UNIT_POS as usize] = sum;
    sync_cube();
    if inside && slice == 0 {
        let mut total = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for other in 0..SLICES {
            total += shared[UNIT_POS as usize + comptime!(other * COLUMNS)];
        }
        sums[column] = total;
    }
}

/// Sum of each column of a contiguous `[rows, width]` of type `elem`, `[width]` in f32.
pub(crate) fn column_sums(input: CubeTensor, elem: ElemType, vector: usize) -> CubeTensor {
    let (rows, width) = (input.meta.shape()[0], input.meta.shape()[1]);
    let sums = empty(&input, [width], DType::F32);
    let client = input.client.clone();
    let vectors = width / vector;
    // SAFETY: columns beyond the last and rows beyond the last are neither read nor written.
    unsafe {
        columns_kernel::launch_unchecked(
            &client,
            grid(&client, vectors.div_ceil(COLUMNS)),
            CubeDim::new_1d((SLICES * COLUMNS) as u32),
            address(&[&input]),
            vector,
            input.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            rows,
            vectors,
            elem,
        );
    }
    sums
}
