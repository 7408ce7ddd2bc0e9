//! LayerNorm on CubeCL devices: sizes of the launches, and what goes to operations every backend has.

mod kernels;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::CubeCount;

use super::{AddNormBackward, Saved, fallback};
use crate::ops::primitive::cast;
use crate::ops::rows::{Deal, address, column_sums, elems, empty, grid, resident, vector_size};
use kernels::{Backward, Source};

/// Units of a cube: several rows to a cube forward; few of them backward, where a unit takes many registers.
const FORWARD_UNITS: usize = 256;
const BACKWARD_UNITS: usize = 128;
/// Elements of a row that a unit holds, at most.
const FORWARD_HELD: usize = 64;
const BACKWARD_HELD: usize = 32;
/// Cubes of a backward per multiprocessor: what its registers allow.
const BACKWARD_CUBES: usize = 4;
/// Tensors of the forward and of the backward kernel that has the most. (WebGPU promises eight, of which CubeCL takes one.)
const FORWARD_BUFFERS: u32 = 6;
const BACKWARD_BUFFERS: u32 = 8;

/// Sizes of a launch.
struct Size {
    units: usize,
    held: usize,
    buffers: u32,
}

const FORWARD: Size = Size {
    units: FORWARD_UNITS,
    held: FORWARD_HELD,
    buffers: FORWARD_BUFFERS,
};
const BACKWARD: Size = Size {
    units: BACKWARD_UNITS,
    held: BACKWARD_HELD,
    buffers: BACKWARD_BUFFERS,
};

/// How rows are dealt, in vectors of which size. The weight and the sums are in f32: vectors are as wide as f32 allows.
fn deal(like: &CubeTensor, width: usize, size: &Size) -> Option<(Deal, usize)> {
    let client = &like.client;
    let vector = vector_size(client, width, &[DType::F32]);
    (client.properties().hardware.max_bindings >= size.buffers)
        .then(|| Deal::new(client, width, vector, size.units, size.held))?
        .map(|deal| (deal, vector))
}

fn f32_row(weight: CubeTensor) -> CubeTensor {
    into_contiguous(cast::<CubeBackend>(weight, DType::F32))
}

pub(crate) fn forward(input: CubeTensor, weight: CubeTensor, eps: f64, out: DType) -> CubeTensor {
    let [rows, width] = input.shape().dims();
    let types = [input.dtype, out];
    let plan = deal(&input, width, &FORWARD);
    let (Some((deal, vector)), Some(elems)) = (plan, elems(types)) else {
        return fallback::forward::<CubeBackend>(input, weight, eps, out);
    };
    let result = empty(&input, [rows, width], out);
    if rows == 0 {
        return result;
    }
    let (input, weight) = (into_contiguous(input), f32_row(weight));
    let client = input.client.clone();
    // SAFETY: rows beyond the last read row 0 and write nothing; vectors beyond a row are neither read nor written.
    unsafe {
        kernels::forward_kernel::launch_unchecked(
            &client,
            grid(&client, rows.div_ceil(deal.rows)),
            deal.dim(),
            address(&[&input, &result]),
            vector,
            input.into_buffer_arg(),
            weight.into_buffer_arg(),
            result.clone().into_buffer_arg(),
            rows,
            eps as f32,
            deal,
            elems,
        );
    }
    result
}

pub(crate) fn add_forward(
    x: CubeTensor,
    branch: CubeTensor,
    weight: CubeTensor,
    eps: f64,
    out: DType,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [rows, width] = x.shape().dims();
    let plan = deal(&x, width, &FORWARD);
    let (Some((deal, vector)), Some(elems), DType::F32) =
        (plan, elems([branch.dtype, out]), x.dtype)
    else {
        return fallback::add_forward::<CubeBackend>(x, branch, weight, eps, out);
    };
    let sum = empty(&x, [rows, width], DType::F32);
    let normed = empty(&x, [rows, width], out);
    let inv_std = empty(&x, [rows], DType::F32);
    if rows == 0 {
        return (sum, normed, inv_std);
    }
    let (x, branch, weight) = (into_contiguous(x), into_contiguous(branch), f32_row(weight));
    let client = x.client.clone();
    // SAFETY: as in `forward`.
    unsafe {
        kernels::add_forward_kernel::launch_unchecked(
            &client,
            grid(&client, rows.div_ceil(deal.rows)),
            deal.dim(),
            address(&[&x, &branch, &normed]),
            vector,
            x.into_buffer_arg(),
            branch.into_buffer_arg(),
            weight.into_buffer_arg(),
            sum.clone().into_buffer_arg(),
            normed.clone().into_buffer_arg(),
            inv_std.clone().into_buffer_arg(),
            rows,
            eps as f32,
            deal,
            elems,
        );
    }
    (sum, normed, inv_std)
}

pub(crate) fn backward(
    d_out: CubeTensor,
    input: CubeTensor,
    weight: CubeTensor,
    eps: f64,
) -> (CubeTensor, CubeTensor) {
    let dtype = input.dtype;
    let call = Call {
        d_out,
        saved: input,
        inv_std: None,
        weight,
        d_sum: None,
        eps,
        source: Source::Input,
        dtype,
        branch: dtype,
    };
    match call.run() {
        Ok((d_input, _, d_weight)) => (d_input, d_weight),
        Err(call) => fallback::backward::<CubeBackend>(call.d_out, call.saved, call.weight, eps),
    }
}

pub(crate) fn add_backward(
    d_sum: CubeTensor,
    d_normed: CubeTensor,
    saved: CubeTensor,
    inv_std: CubeTensor,
    weight: CubeTensor,
    spec: AddNormBackward,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let call = Call {
        d_out: d_normed.clone(),
        saved: saved.clone(),
        inv_std: Some(inv_std.clone()),
        weight: weight.clone(),
        d_sum: spec.joined.then(|| d_sum.clone()),
        eps: spec.eps,
        source: match spec.saved {
            Saved::Sum => Source::Input,
            Saved::Normed => Source::Output,
        },
        dtype: spec.sum,
        branch: spec.branch,
    };
    call.run().unwrap_or_else(|_| {
        fallback::add_backward::<CubeBackend>(d_sum, d_normed, saved, inv_std, weight, &spec)
    })
}

/// A backward of either op.
struct Call {
    d_out: CubeTensor,
    saved: CubeTensor,
    inv_std: Option<CubeTensor>,
    weight: CubeTensor,
    d_sum: Option<CubeTensor>,
    eps: f64,
    source: Source,
    /// Dtype of the input's gradient.
    dtype: DType,
    /// Dtype of the branch's gradient, which is the input's where they agree.
    branch: DType,
}

impl Call {
    /// Gradients of the input, the branch and the weight; the call itself where no kernel serves it.
    #[allow(clippy::result_large_err)] // nothing fails often here, and the tensors go on to the other path
    fn run(self) -> Result<(CubeTensor, CubeTensor, CubeTensor), Self> {
        let [rows, width] = self.saved.shape().dims();
        let plan = deal(&self.saved, width, &BACKWARD);
        let types = elems([self.d_out.dtype, self.saved.dtype, self.dtype, self.branch]);
        let (Some((deal, vector)), Some(types)) = (plan, types) else {
            return Err(self);
        };
        let d_sum_differs = self.d_sum.as_ref().is_some_and(|d| d.dtype != self.dtype);
        if rows == 0 || d_sum_differs {
            return Err(self);
        }
        let split = self.branch != self.dtype;
        let spec = Backward {
            deal,
            source: self.source,
            joined: self.d_sum.is_some(),
            split,
        };
        let like = self.saved.clone();
        let client = like.client.clone();
        let (d_out, saved) = (into_contiguous(self.d_out), into_contiguous(self.saved));
        let weight_dtype = self.weight.dtype;
        let weight = f32_row(self.weight);
        let cubes = rows
            .div_ceil(deal.rows)
            .min(resident(&client, BACKWARD_CUBES));
        let d_x = empty(&like, [rows, width], self.dtype);
        // Arguments that a kernel isn't compiled to touch still want a buffer.
        let unused = |dtype| empty(&like, [vector], dtype);
        let d_branch = if split {
            empty(&like, [rows, width], self.branch)
        } else {
            unused(self.branch)
        };
        let d_sum = match self.d_sum {
            Some(d_sum) => into_contiguous(d_sum),
            None => unused(self.dtype),
        };
        let inv_std = match self.inv_std {
            Some(inv_std) => into_contiguous(inv_std),
            None => unused(DType::F32),
        };
        let partials = empty(&like, [cubes, width], DType::F32);
        // SAFETY: rows beyond the last read row 0 and write nothing; vectors beyond a row are neither read nor written; buffers that
        // are one vector long belong to arguments that the comptime flags keep untouched.
        unsafe {
            kernels::backward_kernel::launch_unchecked(
                &client,
                CubeCount::Static(cubes as u32, 1, 1),
                deal.dim(),
                address(&[&d_out, &saved, &d_x, &partials]),
                vector,
                d_out.into_buffer_arg(),
                saved.into_buffer_arg(),
                inv_std.into_buffer_arg(),
                weight.into_buffer_arg(),
                d_sum.into_buffer_arg(),
                d_x.clone().into_buffer_arg(),
                d_branch.clone().into_buffer_arg(),
                partials.clone().into_buffer_arg(),
                rows,
                self.eps as f32,
                spec,
                types,
            );
        }
        // Single columns to a unit: a vector each would leave most of the device idle.
        let d_weight = column_sums(partials, ElemType::Float(FloatKind::F32), 1);
        let d_branch = if split { d_branch } else { d_x.clone() };
        Ok((d_x, d_branch, cast::<CubeBackend>(d_weight, weight_dtype)))
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::TensorData;
    use burn_cubecl::CubeDevice;

    use super::*;

    /// The suites would pass on the operations every backend has just as well.
    #[test]
    fn the_kernels_serve_every_width_of_the_model() {
        if !crate::ops::test_device::is("wgpu") {
            return;
        }
        let data = TensorData::new(vec![0.0f32; 4], vec![1, 4]);
        let like = CubeBackend::float_from_data(data, &CubeDevice::default());
        for width in [1, 33, 192, 768, 1024, 2052, 4096] {
            for size in [&FORWARD, &BACKWARD] {
                assert!(deal(&like, width, size).is_some(), "width {width}");
            }
        }
    }
}
