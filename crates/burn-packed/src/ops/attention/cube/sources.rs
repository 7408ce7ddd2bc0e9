//! The CUDA C++ of every attention kernel, as the CUDA runtime would pass it to NVRTC, generated without a device.
//!
//! `scripts/check-kernels` compiles it for each architecture and reads registers and spills.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::sync::Arc;

use cubecl::ir::{DeviceProperties, ElemType, FloatKind, TargetProperties};
use cubecl::prelude::*;

use super::portable;
use super::tensor_cores::ampere::Ampere;
use super::tensor_cores::hopper::Hopper;
use super::tensor_cores::shape::{ArgsCompilationArg, Shape};
use super::tensor_cores::{HostFamily, Pass, backward, forward, passes, pipelined};
use crate::ops::cuda_sources::{self, settings};

/// Source of a kernel, and the resources of its launch.
struct Source {
    name: String,
    /// Compute capabilities for which the source is compiled.
    architectures: &'static [&'static str],
    units: u32,
    shared_bytes: usize,
    text: String,
}

const EVERY: &[&str] = &["80", "86", "89", "90a"];
const HOPPER: &[&str] = &["90a"];

fn device() -> Arc<DeviceProperties> {
    cuda_sources::device(80, 99 * 1024)
}

fn source(
    name: String,
    architectures: &'static [&'static str],
    units: u32,
    kernel: &dyn CubeKernel,
) -> Source {
    let (text, shared_bytes) = cuda_sources::compile(kernel);
    Source {
        name,
        architectures,
        units,
        shared_bytes,
        text,
    }
}

/// The argument of a kernel's constructor for a buffer.
fn buffer() -> BufferCompilationArg {
    BufferCompilationArg { inplace: None }
}

fn named(what: &str, on: bool) -> &str {
    if on { what } else { "" }
}

/// The launch arguments in a kernel's constructor.
fn args() -> ArgsCompilationArg {
    ArgsCompilationArg {
        qk_row: (),
        k_offset: (),
        v_row: (),
        v_offset: (),
        heads: (),
        total: (),
        half_window: (),
        scale: (),
        scale_log2: (),
        softcap: (),
    }
}

/// A kernel with a buffer for each token in brackets.
macro_rules! kernel {
    ($($path:ident)::+, $family:ty, [$($buffer:tt)*], $shape:expr) => {
        $($path)::+::<$family>::new(
            settings($shape.threads()),
            device(),
            Arc::new(TargetProperties::default()),
            $({ let _ = stringify!($buffer); buffer() },)*
            args(),
            $shape,
        )
    };
}

/// The kernels of a family for a head size, `variant` being a shape's RoPE, softcap and dtype.
macro_rules! family_sources {
    ($all:expr, $family:ty, $name:literal, $architectures:expr, $head_dim:expr, $variant:expr, $suffix:expr) => {{
        let variant: Shape = $variant;
        let of = |pass| Shape {
            rope_inside: variant.rope_inside,
            rope: variant.rope,
            capped: variant.capped,
            half: variant.half,
            ..<$family>::shape(pass, $head_dim)
        };
        let mut add = |role: &str, shape: Shape, kernel: &dyn CubeKernel| {
            let name = format!("{}_{role}_{}_{}", $name, $head_dim, $suffix);
            $all.push(source(name, $architectures, shape.threads(), kernel));
        };
        let shape = of(Pass::Forward);
        add("forward", shape,
            &kernel!(forward::attention_forward::AttentionForward, $family, [0 1 2 3 4 5], shape));
        // The backward pass never applies RoPE inside its kernels.
        if !variant.rope_inside {
            let shape = of(Pass::Queries);
            add("queries", shape,
                &kernel!(backward::attention_queries::AttentionQueries, $family, [0 1 2 3 4 5 6 7], shape));
            let shape = of(Pass::Keys);
            add("keys", shape,
                &kernel!(backward::attention_keys::AttentionKeys, $family, [0 1 2 3 4 5 6 7], shape));
        }
    }};
}

fn every_source() -> Vec<Source> {
    let (device, target) = (device(), Arc::new(TargetProperties::default()));
    let mut all = Vec::new();
    for half in [false, true] {
        let ty = if half { "f16" } else { "bf16" };
        for (rope_inside, rope, capped) in [
            (false, false, false),
            (true, true, false),
            (false, true, true),
            (true, true, true),
        ] {
            let suffix = format!(
                "{ty}{}{}{}",
                named("_inside", rope_inside),
                named("_rotated", rope),
                named("_capped", capped)
            );
            let variant = Shape {
                rope_inside,
                rope,
                capped,
                half,
                ..Hopper::shape(Pass::Forward, 64)
            };
            family_sources!(all, Hopper, "hopper", HOPPER, 64, variant, suffix);
            for head_dim in [32, 64, 80, 96, 128] {
                family_sources!(all, Ampere, "ampere", EVERY, head_dim, variant, suffix);
            }
        }
        pipelined_sources(&mut all, half);
        for head_dim in [32, 64, 80, 96, 128] {
            all.push(source(
                format!("rotate_{head_dim}_{ty}"),
                EVERY,
                passes::THREADS,
                &passes::rope_kernel::RopeKernel::new(
                    settings(passes::THREADS),
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
                passes::THREADS,
                &passes::delta_kernel::DeltaKernel::new(
                    settings(passes::THREADS),
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
    portable_sources(&mut all);
    all
}

/// The warp-specialized kernels.
fn pipelined_sources(all: &mut Vec<Source>, half: bool) {
    let (device, target) = (device(), Arc::new(TargetProperties::default()));
    let ty = if half { "f16" } else { "bf16" };
    macro_rules! add {
        ($role:literal, $threads:expr, $($path:ident)::+, [$($buffer:tt)*], $($argument:expr),*) => {
            all.push(source(
                format!("pipelined_{}_64_{ty}", $role),
                HOPPER,
                $threads,
                &pipelined::$($path)::+::new(
                    settings($threads),
                    device.clone(),
                    target.clone(),
                    $({ let _ = stringify!($buffer); buffer() },)*
                    args(),
                    $($argument,)*
                ),
            ))
        };
    }
    add!("forward", pipelined::forward::THREADS, forward::pipelined_forward::PipelinedForward, [0 1 2 3 4], (), half);
    let rope = true;
    add!(
        "backward",
        pipelined::backward::THREADS,
        backward::pipelined_backward::PipelinedBackward,
        [0 1 2 3 4 5 6 7 8 9],
        rope,
        half
    );
    add!(
        "finish",
        pipelined::backward::FINISH_THREADS,
        backward::finish_queries::FinishQueries,
        [0 1 2 3],
        rope,
        half
    );
}

/// The portable kernels, which CUDA devices run in f32.
fn portable_sources(all: &mut Vec<Source>) {
    let (device, target) = (device(), Arc::new(TargetProperties::default()));
    let elem = ElemType::Float(FloatKind::F32);
    for (head_dim, softcap) in [(64, false), (64, true), (128, false), (256, true)] {
        let shape = portable::Shape {
            tile: 64,
            head_dim,
            rope: true,
            softcap,
        };
        let units = shape.threads() as u32;
        macro_rules! add {
            ($name:literal, $($path:ident)::+, [$($buffer:tt)*]) => {
                all.push(source(
                    format!("portable_{}_{head_dim}_f32{}", $name, named("_capped", softcap)),
                    EVERY,
                    units,
                    &$($path)::+::new(
                        settings(units),
                        device.clone(),
                        target.clone(),
                        $({ let _ = stringify!($buffer); buffer() },)*
                        portable::ArgsCompilationArg {
                            heads: (),
                            total: (),
                            half_window: (),
                            scale: (),
                            softcap: (),
                        },
                        shape,
                        elem,
                    ),
                ))
            };
        }
        add!("forward", portable::forward::forward_kernel::ForwardKernel, [0 1 2 3 4]);
        add!("keys", portable::backward::keys_kernel::KeysKernel, [0 1 2 3 4 5 6]);
        add!("queries", portable::backward::queries_kernel::QueriesKernel, [0 1 2 3 4 5 6]);
    }
}

/// Writes the sources into the folder that `MODERNBERT_KERNEL_SOURCES` names, with an index for the script.
#[test]
fn every_kernel_has_a_source() {
    let all = every_source();
    assert!(all.iter().all(|source| source.text.contains("__global__")));
    // Kernels of the Ampere family must fit the shared memory of a block of compute capability 8.6 (99 KiB).
    assert!(
        all.iter()
            .all(|source| source.architectures == HOPPER || source.shared_bytes <= 99 * 1024)
    );
    let Some(folder) = cuda_sources::folder() else {
        return;
    };
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
