//! The CUDA C++ of every tensor-core kernel, as the device's runtime would hand it to NVRTC, made without a device.
//!
//! `scripts/check-kernels` compiles what this writes for each architecture and reads registers and spills.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::sync::Arc;

use cubecl::ir::{DeviceProperties, ElemType, FloatKind, TargetProperties};
use cubecl::prelude::*;

use super::{ampere, hopper, rows};
use crate::ops::cuda_sources::{self, settings};

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
            (true, true, true),
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
            // The backward has tiles turned before.
            if !inside {
                let shape = of(hopper::Pass::Queries);
                add(
                    "hopper_queries_64",
                    HOPPER,
                    shape.units(),
                    &kernel!(hopper::backward::hopper_queries::HopperQueries, shape.units(),
                        [0 1 2 3 4 5 6 7], [0 1 2 3 4 5 6 7 8 9], shape),
                );
                let shape = of(hopper::Pass::Keys);
                add(
                    "hopper_keys_64",
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
                if inside {
                    continue;
                }
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
    portable_sources(&mut all);
    all
}

/// What CUDA runs where tensor cores don't serve: f32.
fn portable_sources(all: &mut Vec<Source>) {
    let (device, target) = (device(), Arc::new(TargetProperties::default()));
    let elem = ElemType::Float(FloatKind::F32);
    for (head_dim, softcap) in [(64, false), (64, true), (128, false), (256, true)] {
        let shape = super::Shape {
            tile: 64,
            head_dim,
            rotary: true,
            softcap,
        };
        let units = shape.units() as u32;
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
                        (), (), (), (), (),
                        shape,
                        elem,
                    ),
                ))
            };
        }
        add!("forward", super::portable_forward::forward_kernel::ForwardKernel, [0 1 2 3 4]);
        add!("keys", super::portable_backward::keys_kernel::KeysKernel, [0 1 2 3 4 5 6]);
        add!("queries", super::portable_backward::queries_kernel::QueriesKernel, [0 1 2 3 4 5 6]);
    }
}

/// Writes the sources into the folder that `MODERNBERT_KERNEL_SOURCES` names, with an index for the script.
#[test]
fn every_kernel_has_a_source() {
    let all = every_source();
    assert!(all.iter().all(|source| source.text.contains("__global__")));
    // Ampere's shared memory is at most what compute capability 8.6 gives a cube.
    assert!(all.iter().all(|source| source.shared_bytes <= 99 * 1024));
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
