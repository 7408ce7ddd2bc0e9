//! The kernels of this folder as CUDA C++, made without a device: a definition that can't be expanded fails here, and what is written
//! compiles with NVRTC anywhere.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::sync::Arc;

use cubecl::Compiler;
use cubecl::benchmark::TimingMethod;
use cubecl::ir::{
    DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties, TargetProperties,
};
use cubecl::prelude::*;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;

use super::hopper::{Tiling, UNITS, hopper_gemm};

fn device() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 227 * 1024,
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
            fingerprint: "ptx_sm90".into(),
            physical: None,
        },
    );
    cubecl_cpp::register_supported_types(&mut properties);
    Arc::new(properties)
}

/// With `MODERNBERT_KERNEL_SOURCES` set to a folder, the sources are written there.
#[test]
fn every_tiling_has_a_source_within_shared_memory() {
    let folder = std::env::var_os("MODERNBERT_KERNEL_SOURCES").map(std::path::PathBuf::from);
    for columns in [128, 192, 256] {
        for (a_outer, b_outer) in [(false, false), (false, true), (true, true)] {
            for (half, wide) in [(false, false), (false, true), (true, false)] {
                let tiling = Tiling::new(columns, a_outer, b_outer, half, wide);
                let settings = KernelSettings::new(
                    CubeDim::new_1d(UNITS).into(),
                    ExecutionMode::Unchecked,
                    AddressType::U32,
                );
                let kernel = hopper_gemm::HopperGemm::new(
                    settings,
                    device(),
                    Arc::new(TargetProperties::default()),
                    (),
                    (),
                    (),
                    (),
                    (),
                    (),
                    (),
                    (),
                    tiling,
                );
                let definition = cubecl::define_kernel(&kernel).unwrap();
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
                assert!(compiled.shared_memory_size <= 227 * 1024, "{tiling:?}");
                assert!(compiled.source.contains("wgmma.mma_async"));
                if let Some(folder) = &folder {
                    let name = format!("gemm-{columns}-{a_outer}-{b_outer}-{half}-{wide}.cu");
                    std::fs::write(folder.join(name), compiled.source).unwrap();
                }
            }
        }
    }
}
