//! The CUDA C++ of every tensor-core kernel, as the device's runtime would hand it to NVRTC, made without a device.
//!
//! `scripts/check-kernels` compiles what this writes for each architecture and reads registers and spills.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::path::PathBuf;
use std::sync::Arc;

use cubecl::Compiler;
use cubecl::ir::{
    DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties, TargetProperties,
};
use cubecl::prelude::*;
use cubecl::profile::TimingMethod;
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;

use super::{ampere, hopper, rows};

/// A kernel's source and what its launch asks for.
struct Source {
    name: String,
    /// Compute capabilities it is for.
    architectures: &'static [&'static str],
    units: u32,
    shared_bytes: usize,
    text: String,
}

const EVERY: &[&str] = &["80", "86", "89", "90a"];
const HOPPER: &[&str] = &["90a"];

fn device() -> Arc<DeviceProperties> {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 99 * 1024,
        max_cube_count: (i32::MAX as u32, 65_535, 65_535),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(1),
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
            fingerprint: "ptx_sm80".into(),
            physical: None,
        },
    );
    cubecl_cpp::register_supported_types(&mut properties);
    Arc::new(properties)
}

fn settings(units: u32) -> KernelSettings {
    let dim = CubeDim::new_1d(units);
    KernelSettings::new(dim.into(), ExecutionMode::Unchecked, AddressType::U32)
}

fn source(
    name: String,
    architectures: &'static [&'static str],
    units: u32,
    kernel: &dyn CubeKernel,
) -> Source {
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
    Source {
        name,
        architectures,
        units,
        shared_bytes: compiled.shared_memory_size,
        text: compiled.source,
    }
}

/// Arguments of a kernel's constructor for `buffers` buffers and scalars that say nothing about themselves.
fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

fn named(what: &str, on: bool) -> &str {
    if on { what } else { "" }
}

/// A kernel with `buffers` buffers, `scalars` scalars and a shape.
macro_rules! kernel {
    ($($path:ident)::+, $units:expr, [$($buffer:tt)*], [$($scalar:tt)*], $shape:expr) => {
        $($path)::+::new(
            settings($units),
            device(),
            Arc::new(TargetProperties::default()),
            $({ let _ = stringify!($buffer); buffer() },)*
            $({ let _ = stringify!($scalar); },)*
            $shape,
        )
    };
}

fn every_source() -> Vec<Source> {
    let (device, target) = (device(), Arc::new(TargetProperties::default()));
    let mut all = Vec::new();
    for half in [false, true] {
        let ty = if half { "f16" } else { "bf16" };
        for (inside, rotated, capped) in [
            (false, false, false),
            (true, true, false),
            (false, true, true),
        ] {
            let suffix = format!(
                "{ty}{}{}{}",
                named("_inside", inside),
                named("_rotated", rotated),
                named("_capped", capped)
            );
            let mut add = |name: &str, architectures, units, kernel: &dyn CubeKernel| {
                all.push(source(
                    format!("{name}_{suffix}"),
                    architectures,
                    units,
                    kernel,
                ));
            };
            let of = |pass| hopper::Shape {
                capped,
                half,
                ..hopper::shape(pass, rotated, inside)
            };
            let shape = of(hopper::Pass::Forward);
            add(
                "hopper_forward_64",
                HOPPER,
                shape.units(),
                &kernel!(hopper::forward::hopper_forward::HopperForward, shape.units(),
                    [0 1 2 3 4 5], [0 1 2 3 4 5 6 7 8], shape),
            );
            if !inside {
                let shape = of(hopper::Pass::Ahead);
                add(
                    "hopper_ahead_64",
                    HOPPER,
                    shape.units(),
                    &kernel!(hopper::ahead::hopper_global_forward::HopperGlobalForward, shape.units(),
                        [0 1 2 3 4], [0 1 2 3 4 5 6 7], shape),
                );
            }
            for in_place in [false, true] {
                let named = |name: &str| format!("{name}{}", named("_in_place", in_place));
                let shape = hopper::Shape {
                    in_place,
                    ..of(hopper::Pass::Queries)
                };
                add(
                    &named("hopper_queries_64"),
                    HOPPER,
                    shape.units(),
                    &kernel!(hopper::backward::hopper_queries::HopperQueries, shape.units(),
                        [0 1 2 3 4 5 6 7], [0 1 2 3 4 5 6 7 8 9], shape),
                );
                let shape = hopper::Shape {
                    in_place,
                    ..of(hopper::Pass::Keys)
                };
                add(
                    &named("hopper_keys_64"),
                    HOPPER,
                    shape.units(),
                    &kernel!(hopper::backward::hopper_keys::HopperKeys, shape.units(),
                        [0 1 2 3 4 5 6 7], [0 1 2 3 4 5 6 7 8 9], shape),
                );
            }
            for head_dim in [32, 64, 80, 96, 128] {
                let of = |backward| ampere::Shape {
                    capped,
                    half,
                    ..ampere::shape(head_dim, backward, rotated, inside)
                };
                add(
                    &format!("ampere_forward_{head_dim}"),
                    EVERY,
                    ampere::UNITS,
                    &kernel!(ampere::forward::ampere_forward::AmpereForward, ampere::UNITS,
                        [0 1 2 3 4 5], [0 1 2 3 4 5 6 7 8], of(false)),
                );
                add(
                    &format!("ampere_queries_{head_dim}"),
                    EVERY,
                    ampere::UNITS,
                    &kernel!(ampere::backward::ampere_queries::AmpereQueries, ampere::UNITS,
                        [0 1 2 3 4 5 6 7], [0 1 2 3 4 5 6 7 8 9], of(true)),
                );
                add(
                    &format!("ampere_keys_{head_dim}"),
                    EVERY,
                    ampere::UNITS,
                    &kernel!(ampere::backward::ampere_keys::AmpereKeys, ampere::UNITS,
                        [0 1 2 3 4 5 6 7], [0 1 2 3 4 5 6 7 8 9], of(true)),
                );
            }
        }
        for head_dim in [32, 64, 80, 96, 128] {
            all.push(source(
                format!("rotate_{head_dim}_{ty}"),
                EVERY,
                rows::UNITS,
                &rows::rotate_kernel::RotateKernel::new(
                    settings(rows::UNITS),
                    device.clone(),
                    target.clone(),
                    buffer(),
                    buffer(),
                    buffer(),
                    buffer(),
                    (),
                    head_dim,
                    half,
                ),
            ));
            all.push(source(
                format!("delta_{head_dim}_{ty}"),
                EVERY,
                rows::UNITS,
                &rows::delta_kernel::DeltaKernel::new(
                    settings(rows::UNITS),
                    device.clone(),
                    target.clone(),
                    buffer(),
                    buffer(),
                    buffer(),
                    (),
                    (),
                    head_dim,
                    half,
                ),
            ));
        }
    }
    all
}

/// Writes the sources into the folder that `MODERNBERT_KERNEL_SOURCES` names, with an index for the script.
#[test]
fn every_kernel_has_a_source() {
    let all = every_source();
    assert!(all.iter().all(|source| source.text.contains("__global__")));
    // Ampere's shared memory is at most what compute capability 8.6 gives a cube.
    assert!(all.iter().all(|source| source.shared_bytes <= 99 * 1024));
    let Some(folder) = std::env::var_os("MODERNBERT_KERNEL_SOURCES").map(PathBuf::from) else {
        return;
    };
    std::fs::create_dir_all(&folder).unwrap();
    let mut index = String::new();
    for source in all {
        std::fs::write(folder.join(format!("{}.cu", source.name)), &source.text).unwrap();
        index += &format!(
            "{} {} {} {}\n",
            source.name,
            source.architectures.join(","),
            source.units,
            source.shared_bytes
        );
    }
    std::fs::write(folder.join("index"), index).unwrap();
}
