//! LayerNorm on CubeCL devices: launches of the kernels, and the choice between kernels and fallback.

#[cfg(feature = "ptx")]
mod fp8;
mod kernels;

#[cfg(feature = "ptx")]
pub(crate) use fp8::add_forward_fp8;

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::CubeCount;

use super::{AddNormBackward, SavedNorm, fallback};
use crate::ops::primitive::cast;
use crate::ops::rows::{
    RowPartition, address, column_sums, elems, empty, grid, placeholder, resident_blocks,
    vector_size,
};
use kernels::{BackwardConfig, NormInput};

/// Limits of a kernel's launches.
struct LaunchLimits {
    /// Threads of a block: enough for several rows forward, fewer backward, where a thread takes many registers.
    threads: usize,
    /// Elements of a row that a thread holds in registers, at most.
    held: usize,
    /// Buffers of the largest kernel. (WebGPU guarantees eight per launch, of which CubeCL uses one.)
    buffers: u32,
}

const FORWARD: LaunchLimits = LaunchLimits {
    threads: 256,
    held: 64,
    buffers: 6,
};
const BACKWARD: LaunchLimits = LaunchLimits {
    threads: 128,
    held: 32,
    buffers: 8,
};
/// Blocks per multiprocessor of a backward launch: the number that the registers of a multiprocessor allow.
const BACKWARD_BLOCKS: usize = 4;

/// Returns the partition of rows and the vector size; `None` if no kernel supports rows of this width. Weight and sums are f32, so
/// vectors are as wide as f32 allows.
fn partition(
    like: &CubeTensor,
    width: usize,
    limits: &LaunchLimits,
) -> Option<(RowPartition, usize)> {
    let client = &like.client;
    if client.properties().hardware.max_bindings < limits.buffers {
        return None;
    }
    let vector = vector_size(client, width, &[DType::F32]);
    let partition = RowPartition::new(client, width, vector, limits.threads, limits.held)?;
    Some((partition, vector))
}

fn f32_row(weight: CubeTensor) -> CubeTensor {
    into_contiguous(cast::<CubeBackend>(weight, DType::F32))
}

pub(crate) fn forward(input: CubeTensor, weight: CubeTensor, eps: f64, out: DType) -> CubeTensor {
    let [rows, width] = input.shape().dims();
    let types = [input.dtype, out];
    let plan = partition(&input, width, &FORWARD);
    let (Some((partition, vector)), Some(elems)) = (plan, elems(types)) else {
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
            grid(&client, rows.div_ceil(partition.block_rows)),
            partition.block_dim(),
            address(&[&input, &result]),
            vector,
            input.into_buffer_arg(),
            weight.into_buffer_arg(),
            result.clone().into_buffer_arg(),
            rows,
            eps as f32,
            partition,
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
    let plan = partition(&x, width, &FORWARD);
    let (Some((partition, vector)), Some(elems)) = (plan, elems([x.dtype, branch.dtype, out]))
    else {
        return fallback::add_forward::<CubeBackend>(x, branch, weight, eps, out);
    };
    let sum = empty(&x, [rows, width], x.dtype);
    let normed = empty(&x, [rows, width], out);
    let inv_std = empty(&x, [rows], DType::F32);
    if rows == 0 {
        return (sum, normed, inv_std);
    }
    let (x, branch, weight) = (into_contiguous(x), into_contiguous(branch), f32_row(weight));
    let client = x.client.clone();
    // SAFETY: rows beyond the last read row 0 and write nothing; vectors beyond a row are neither read nor written.
    unsafe {
        kernels::add_forward_kernel::launch_unchecked(
            &client,
            grid(&client, rows.div_ceil(partition.block_rows)),
            partition.block_dim(),
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
            partition,
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
    let arguments = BackwardArguments {
        d_out: d_out.clone(),
        saved: input.clone(),
        inv_std: None,
        weight: weight.clone(),
        d_sum: None,
        eps,
        source: NormInput::Input,
        d_x: dtype,
        d_branch: dtype,
    };
    match arguments.launch() {
        Some((d_input, _, d_weight)) => (d_input, d_weight),
        None => fallback::backward::<CubeBackend>(d_out, input, weight, eps),
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
    let arguments = BackwardArguments {
        d_out: d_normed.clone(),
        saved: saved.clone(),
        inv_std: Some(inv_std.clone()),
        weight: weight.clone(),
        d_sum: spec.has_d_sum.then(|| d_sum.clone()),
        eps: spec.eps,
        source: match spec.saved {
            SavedNorm::Sum => NormInput::Input,
            SavedNorm::Normed => NormInput::Output,
        },
        d_x: spec.sum,
        d_branch: spec.branch,
    };
    arguments.launch().unwrap_or_else(|| {
        fallback::add_backward::<CubeBackend>(d_sum, d_normed, saved, inv_std, weight, &spec)
    })
}

/// Arguments of a backward launch, of either op.
struct BackwardArguments {
    d_out: CubeTensor,
    saved: CubeTensor,
    inv_std: Option<CubeTensor>,
    weight: CubeTensor,
    d_sum: Option<CubeTensor>,
    eps: f64,
    source: NormInput,
    /// Dtype of the input's gradient.
    d_x: DType,
    /// Dtype of the branch's gradient; if the same, the two gradients are one tensor.
    d_branch: DType,
}

impl BackwardArguments {
    /// Launches the kernel: gradients of the input, the branch and the weight. `None` if no kernel supports the call.
    fn launch(self) -> Option<(CubeTensor, CubeTensor, CubeTensor)> {
        let [rows, width] = self.saved.shape().dims();
        let (partition, vector) = partition(&self.saved, width, &BACKWARD)?;
        let types = elems([self.d_out.dtype, self.saved.dtype, self.d_x, self.d_branch])?;
        let d_sum_differs = self.d_sum.as_ref().is_some_and(|d| d.dtype != self.d_x);
        if rows == 0 || d_sum_differs {
            return None;
        }
        let config = BackwardConfig {
            partition,
            source: self.source,
            has_d_sum: self.d_sum.is_some(),
            writes_d_branch: self.d_branch != self.d_x,
        };
        let like = self.saved.clone();
        let client = like.client.clone();
        let (d_out, saved) = (into_contiguous(self.d_out), into_contiguous(self.saved));
        let weight_dtype = self.weight.dtype;
        let weight = f32_row(self.weight);
        let blocks = rows
            .div_ceil(partition.block_rows)
            .min(resident_blocks(&client, BACKWARD_BLOCKS));
        let d_x = empty(&like, [rows, width], self.d_x);
        let d_branch = config
            .writes_d_branch
            .then(|| empty(&like, [rows, width], self.d_branch));
        let d_branch = placeholder(d_branch, &like, vector, self.d_branch);
        let d_sum = placeholder(self.d_sum, &like, vector, self.d_x);
        let inv_std = placeholder(self.inv_std, &like, vector, DType::F32);
        let partials = empty(&like, [blocks, width], DType::F32);
        // SAFETY: rows beyond the last read row 0 and write nothing; vectors beyond a row are neither read nor written; the kernel is
        // compiled not to touch placeholders.
        unsafe {
            kernels::backward_kernel::launch_unchecked(
                &client,
                CubeCount::Static(blocks as u32, 1, 1),
                partition.block_dim(),
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
                config,
                types,
            );
        }
        // One column per thread: vectors would leave most of the device idle.
        let d_weight = column_sums(partials, ElemType::Float(FloatKind::F32), 1);
        let d_branch = if config.writes_d_branch {
            d_branch
        } else {
            d_x.clone()
        };
        Some((d_x, d_branch, cast::<CubeBackend>(d_weight, weight_dtype)))
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::TensorData;
    use burn_cubecl::CubeDevice;

    use super::*;

    /// Checked here because the test suites would also pass if these calls took the fallback.
    #[test]
    fn kernels_support_every_width_of_the_model() {
        if !crate::ops::test_device::is("wgpu") {
            return;
        }
        let data = TensorData::new(vec![0.0f32; 4], vec![1, 4]);
        let like = CubeBackend::float_from_data(data, &CubeDevice::default());
        for width in [1, 33, 192, 768, 1024, 2052, 4096] {
            for limits in [&FORWARD, &BACKWARD] {
                assert!(partition(&like, width, limits).is_some(), "width {width}");
            }
        }
    }
}
