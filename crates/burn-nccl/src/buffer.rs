//! The device memory of a tensor.

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;
use cubecl_runtime::runtime::Runtime;

use crate::NcclError;

/// The memory of a one-dimensional f32 tensor on a CUDA device. It stays allocated as long as this value lives.
pub(crate) struct Buffer {
    tensor: CubeTensor,
    address: u64,
}

impl Buffer {
    /// The memory of `tensor`, whose operations are launched before this returns. They are done after a synchronization of the device.
    pub(crate) fn of(tensor: Tensor<1>) -> Result<Self, NcclError> {
        if tensor.dtype() != DType::F32 {
            return Err(NcclError::DType(format!("{:?}", tensor.dtype())));
        }
        let device = tensor.device();
        let other = || NcclError::Device(format!("{device:?}"));
        let DispatchTensorKind::Cube(BackendTensor::Float(fused)) = tensor.into_dispatch().kind
        else {
            return Err(other());
        };
        let client = fused.client.clone();
        let tensor = client.resolve_tensor_float::<CubeBackend>(fused);
        let tensor = burn_cubecl::kernel::into_contiguous(tensor);
        let handle = tensor.handle.clone();
        let memory = tensor
            .client
            .get_resource::<<CudaRuntime as Runtime>::Server>(handle)
            .map_err(|_| other())?;
        let address = memory.resource().ptr;
        Ok(Self { tensor, address })
    }

    /// Address of an element on the device.
    pub(crate) fn at(&self, element: usize) -> u64 {
        self.address + 4 * element as u64
    }

    /// Multiples of this many elements at which a part of a tensor may begin and end for Burn to view it without a copy.
    pub(crate) fn alignment(&self) -> usize {
        let bytes = self.tensor.client.properties().memory.alignment;
        (bytes as usize / 4).max(1)
    }

    /// Number of the GPU.
    pub(crate) fn gpu(&self) -> Option<usize> {
        match &self.tensor.device {
            burn_cubecl::CubeDevice::Cuda(device) => Some(device.index),
            _ => None,
        }
    }
}

/// A new tensor of `count` elements, and its memory, for an operation that writes it.
///
/// For Burn this memory is a tensor of zeros. Writing it is sound because nothing else refers to the tensor until the operation is done.
pub(crate) fn output(count: usize, device: &Device) -> Result<(Tensor<1>, Buffer), NcclError> {
    let tensor = Tensor::<1>::zeros([count], (device, DType::F32));
    let buffer = Buffer::of(tensor.clone())?;
    Ok((tensor, buffer))
}
