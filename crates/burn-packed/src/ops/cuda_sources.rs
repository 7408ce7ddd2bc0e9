//! CUDA C++ of kernels, as the CUDA runtime would pass it to NVRTC, generated without a device.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::path::PathBuf;
use std::sync::Arc;

use cubecl::Compiler;
use cubecl::ir::{DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties};
use cubecl::prelude::*;
use cubecl::profile::TimingMethod;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;

/// Properties of a device of this compute capability (80, 90, …), with `shared_bytes` of shared memory for a block.
pub(super) fn device(capability: u32, shared_bytes: usize) -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: shared_bytes,
        max_cube_count: (i32::MAX as u32, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_cpu_cores: None,
        last_level_cache_size: None,
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let mut properties = DeviceProperties::new(
        Default::default(),
        MemoryDeviceProperties::new(1 << 30, 512),
        hardware,
        TimingMethod::Device,
        DeviceIdentity {
            name: "none".into(),
            fingerprint: format!("ptx_sm{capability}"),
            physical: None,
        },
    );
    cubecl_cpp::register_supported_types(&mut properties);
    Arc::new(properties)
}

/// Settings with which the kernels of this crate are launched: unchecked, in blocks of `units` threads, with 32-bit addresses.
pub(super) fn settings(units: u32) -> KernelSettings {
    let dim = CubeDim::new_1d(units);
    KernelSettings::new(dim.into(), ExecutionMode::Unchecked, AddressType::U32)
}

/// The argument of a kernel's constructor for a buffer.
pub(super) fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

/// Source of a kernel, and its bytes of shared memory.
pub(super) fn compile(kernel: &dyn CubeKernel) -> (String, usize) {
    let definition = cubecl::define_kernel(kernel).unwrap();
    let options = CompilationOptions {
        supports_features: CppSupportedFeatures {
            grid_constants: true,
            fast_math: true,
            dp4a: true,
            fast_tanh: true,
            ..Default::default()
        },
        ..Default::default()
    };
    let compiled = CppCompiler::<Cuda>::default()
        .compile(definition, &options)
        .unwrap();
    (compiled.source, compiled.shared_memory_size)
}

/// The folder for sources, which `MODERNBERT_KERNEL_SOURCES` names; created if it doesn't exist.
pub(super) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("MODERNBERT_KERNEL_SOURCES").map(PathBuf::from)?;
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}
