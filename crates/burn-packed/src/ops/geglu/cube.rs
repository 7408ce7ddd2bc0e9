//! GeGLU on CubeCL devices: one pass over the input; a thread loads a vector of both halves of a row.

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::fallback;
use crate::ops::primitive::cast;
use crate::ops::rows::{address, elem, empty, grid, vector_size};

/// Threads of a block.
const THREADS: usize = 256;
/// Vectors of each half that a thread works on. They are [`THREADS`] apart, so that neighboring threads read neighboring vectors.
const VECTORS: usize = 2;

/// Distribution function and density of the standard normal, each to within 4e-7.
///
/// `erfc(z) = exp(-z²) Q(1 / (1 + 0.4 z))` with the polynomial of `simd::normal`. One exponential serves both results, and the tail
/// keeps its relative precision, which `1 + erf` would lose.
#[cube]
fn normal<N: Size>(x: Vector<f32, N>) -> (Vector<f32, N>, Vector<f32, N>) {
    let one = Vector::<f32, N>::new(1.0f32);
    let z = x.abs() * Vector::new(0.707_106_77f32);
    let t = one / (one + z * Vector::new(0.4f32));
    let mut q = Vector::<f32, N>::new(0.073_934_734f32);
    q = q * t + Vector::new(-0.387_892_7f32);
    q = q * t + Vector::new(0.658_289_4f32);
    q = q * t + Vector::new(-0.327_295_62f32);
    q = q * t + Vector::new(0.363_386_46f32);
    q = q * t + Vector::new(0.164_593_17f32);
    q = q * t + Vector::new(0.229_150_98f32);
    q = q * t + Vector::new(0.225_833_6f32);
    let gauss = (x * x * Vector::new(-0.5f32)).exp();
    let tail = q * t * gauss * Vector::new(0.5f32);
    let zero = Vector::<f32, N>::new(0.0f32);
    let below = x.less_than(&zero);
    let cdf = select_many(below, tail, one - tail);
    (cdf, gauss * Vector::new(0.398_942_3f32))
}

/// `out[t, j] = gelu(input[t, j]) * input[t, half + j]`; `half` vectors per half row, `vectors` in `out`.
#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    input: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    #[comptime] half: usize,
    #[define(F)] _dtype: ElemType,
) {
    let first = CUBE_POS * comptime!(THREADS * VECTORS) + UNIT_POS as usize;
    let mut xs = Array::<Vector<F, N>>::new(VECTORS);
    let mut gates = Array::<Vector<F, N>>::new(VECTORS);
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * THREADS);
        let at = select(at < vectors, at, 0usize);
        let place = at + at / half * half;
        xs[i] = input[place];
        gates[i] = input[place + half];
    }
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * THREADS);
        if at < vectors {
            let x = Vector::<f32, N>::cast_from(xs[i]);
            let (cdf, _density) = normal::<N>(x);
            let gate = Vector::<f32, N>::cast_from(gates[i]);
            out[at] = Vector::cast_from(x * cdf * gate);
        }
    }
}

/// Gradient of the input; also the output of the forward pass if `with_output` (otherwise `out` is a placeholder).
#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    d_out: &[Vector<F, N>],
    input: &[Vector<F, N>],
    d_input: &mut [Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    #[comptime] half: usize,
    #[comptime] with_output: bool,
    #[define(F)] _dtype: ElemType,
) {
    let first = CUBE_POS * comptime!(THREADS * VECTORS) + UNIT_POS as usize;
    let mut xs = Array::<Vector<F, N>>::new(VECTORS);
    let mut gates = Array::<Vector<F, N>>::new(VECTORS);
    let mut grads = Array::<Vector<F, N>>::new(VECTORS);
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * THREADS);
        let at = select(at < vectors, at, 0usize);
        let place = at + at / half * half;
        xs[i] = input[place];
        gates[i] = input[place + half];
        grads[i] = d_out[at];
    }
    #[unroll]
    for i in 0..VECTORS {
        let at = first + comptime!(i * THREADS);
        if at < vectors {
            let place = at + at / half * half;
            let x = Vector::<f32, N>::cast_from(xs[i]);
            let gate = Vector::<f32, N>::cast_from(gates[i]);
            let d = Vector::<f32, N>::cast_from(grads[i]);
            let (cdf, density) = normal::<N>(x);
            let gelu = x * cdf;
            d_input[place] = Vector::cast_from(d * gate * (cdf + x * density));
            d_input[place + half] = Vector::cast_from(d * gelu);
            if comptime!(with_output) {
                out[at] = Vector::cast_from(gelu * gate);
            }
        }
    }
}

/// Sizes of a launch.
struct LaunchSizes {
    rows: usize,
    width: usize,
    vector: usize,
    elem: ElemType,
}

impl LaunchSizes {
    /// Returns the sizes for an input; `None` if no kernel supports it.
    fn new(input: &CubeTensor) -> Option<Self> {
        let [rows, double] = input.shape().dims();
        let width = double / 2;
        (width > 0).then_some(())?;
        Some(Self {
            rows,
            width,
            vector: vector_size(&input.client, width, &[input.dtype]),
            elem: elem(input.dtype)?,
        })
    }

    fn vectors(&self) -> usize {
        self.rows * self.width / self.vector
    }

    fn half(&self) -> usize {
        self.width / self.vector
    }

    fn count(&self, client: &Client) -> CubeCount {
        grid(client, self.vectors().div_ceil(THREADS * VECTORS))
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_1d(THREADS as u32)
    }
}

pub(crate) fn forward(input: CubeTensor) -> CubeTensor {
    let Some(sizes) = LaunchSizes::new(&input) else {
        return fallback::forward::<CubeBackend>(input);
    };
    let out = empty(&input, [sizes.rows, sizes.width], input.dtype);
    if sizes.rows == 0 {
        return out;
    }
    let input = into_contiguous(input);
    let client = input.client.clone();
    // SAFETY: vectors beyond the last read the first ones and write nothing.
    unsafe {
        forward_kernel::launch_unchecked(
            &client,
            sizes.count(&client),
            sizes.dim(),
            address(&[&input]),
            sizes.vector,
            input.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            sizes.vectors(),
            sizes.half(),
            sizes.elem,
        );
    }
    out
}

pub(crate) fn backward(d_out: CubeTensor, input: CubeTensor) -> CubeTensor {
    match LaunchSizes::new(&input) {
        Some(sizes) => launch_backward(sizes, d_out, input, false).0,
        None => fallback::backward::<CubeBackend>(d_out, input),
    }
}

/// Gradient of the input, and the output of the forward pass.
pub(crate) fn backward_with_output(
    d_out: CubeTensor,
    input: CubeTensor,
) -> (CubeTensor, CubeTensor) {
    match LaunchSizes::new(&input) {
        Some(sizes) => launch_backward(sizes, d_out, input, true),
        None => (
            fallback::backward::<CubeBackend>(d_out, input.clone()),
            fallback::forward::<CubeBackend>(input),
        ),
    }
}

fn launch_backward(
    sizes: LaunchSizes,
    d_out: CubeTensor,
    input: CubeTensor,
    with_output: bool,
) -> (CubeTensor, CubeTensor) {
    let dtype = input.dtype;
    let d_input = empty(&input, [sizes.rows, 2 * sizes.width], dtype);
    // Every argument needs a buffer, also one that the kernel is compiled not to use.
    let out_rows = if with_output { sizes.rows } else { 1 };
    let out = empty(&input, [out_rows, sizes.width], dtype);
    if sizes.rows > 0 {
        let d_out = into_contiguous(cast::<CubeBackend>(d_out, dtype));
        let input = into_contiguous(input);
        let client = input.client.clone();
        // SAFETY: vectors beyond the last read the first ones and write nothing.
        unsafe {
            backward_kernel::launch_unchecked(
                &client,
                sizes.count(&client),
                sizes.dim(),
                address(&[&input]),
                sizes.vector,
                d_out.into_buffer_arg(),
                input.into_buffer_arg(),
                d_input.clone().into_buffer_arg(),
                out.clone().into_buffer_arg(),
                sizes.vectors(),
                sizes.half(),
                with_output,
                sizes.elem,
            );
        }
    }
    (d_input, out)
}
