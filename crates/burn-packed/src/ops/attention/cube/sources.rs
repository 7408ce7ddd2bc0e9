//! The CUDA C++ of every attention kernel, as the CUDA runtime would pass it to NVRTC, generated without a device.
//!
//! `scripts/check-kernels` compiles it for each architecture and reads registers and spills.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::sync::Arc;

use cubecl::ir::{DeviceProperties, ElemType, FloatKind, TargetProperties};
use cubecl::prelude::*;

use super::portable;
use super::tensor_cores::ampere::Ampere;
use super::tensor_cores::backward::InputsCompilationArg;
use super::tensor_cores::config::{ArgsCompilationArg, KernelConfig};
use super::tensor_cores::family::{Family, HostFamily};
use super::tensor_cores::hopper::Hopper;
use super::tensor_cores::{KernelKind, backward, forward, passes, pipelined};
use crate::ops::cuda_sources::{self, buffer, settings};

/// Source of a kernel, and the resources of its launch.
struct KernelSource {
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
) -> KernelSource {
    let (text, shared_bytes) = cuda_sources::compile(kernel);
    KernelSource {
        name,
        architectures,
        units,
        shared_bytes,
        text,
    }
}

fn suffix_if(what: &str, on: bool) -> &str {
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

/// The inputs of a backward kernel.
fn inputs() -> InputsCompilationArg {
    InputsCompilationArg {
        qk: buffer(),
        qkv: buffer(),
        d_out: buffer(),
        lse: buffer(),
        delta: buffer(),
        tiles: buffer(),
        rotary: buffer(),
        args: args(),
    }
}

/// A kernel with a buffer for each token in brackets, then these arguments of its constructor.
macro_rules! kernel {
    ($($path:ident)::+ $(::<$family:ty>)?, $threads:expr, [$($buffer:tt)*], $($argument:expr),*) => {
        $($path)::+ $(::<$family>)? ::new(
            settings($threads),
            device(),
            Arc::new(TargetProperties::default()),
            $({ let _ = stringify!($buffer); buffer() },)*
            $($argument,)*
        )
    };
}

/// The kernels of a family for a head size, `variant` being a configuration's RoPE, softcap and dtype.
fn family_sources<F: Family + HostFamily>(
    all: &mut Vec<KernelSource>,
    family: &str,
    architectures: &'static [&'static str],
    head_dim: u32,
    variant: KernelConfig,
    suffix: &str,
) {
    let of = |kind| KernelConfig {
        rope_inside: variant.rope_inside,
        rope: variant.rope,
        capped: variant.capped,
        half: variant.half,
        ..F::config(kind, head_dim)
    };
    let mut add = |role: &str, config: KernelConfig, kernel: &dyn CubeKernel| {
        let name = format!("{family}_{role}_{head_dim}_{suffix}");
        all.push(source(name, architectures, config.threads(), kernel));
    };
    let config = of(KernelKind::Forward);
    let kernel = kernel!(
        forward::attention_forward::AttentionForward::<F>, config.threads(),
        [0 1 2 3 4 5], args(), config
    );
    add("forward", config, &kernel);
    // The backward pass never applies RoPE inside its kernels.
    if !variant.rope_inside {
        let config = of(KernelKind::Queries);
        let kernel = kernel!(
            backward::attention_queries::AttentionQueries::<F>,
            config.threads(),
            [],
            inputs(),
            buffer(),
            config
        );
        add("queries", config, &kernel);
        let config = of(KernelKind::Keys);
        let kernel = kernel!(
            backward::attention_keys::AttentionKeys::<F>,
            config.threads(),
            [],
            inputs(),
            buffer(),
            config
        );
        add("keys", config, &kernel);
    }
}

fn every_source() -> Vec<KernelSource> {
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
                suffix_if("_inside", rope_inside),
                suffix_if("_rotated", rope),
                suffix_if("_capped", capped)
            );
            let variant = KernelConfig {
                rope_inside,
                rope,
                capped,
                half,
                ..Hopper::config(KernelKind::Forward, 64)
            };
            family_sources::<Hopper>(&mut all, "hopper", HOPPER, 64, variant, &suffix);
            for head_dim in [32, 64, 80, 96, 128] {
                family_sources::<Ampere>(&mut all, "ampere", EVERY, head_dim, variant, &suffix);
            }
        }
        pipelined_sources(&mut all, half);
        for head_dim in [32, 64, 80, 96, 128] {
            let rope = kernel!(
                passes::rope_kernel::RopeKernel, passes::THREADS,
                [0 1 2 3], (), head_dim, half
            );
            all.push(source(
                format!("rotate_{head_dim}_{ty}"),
                EVERY,
                passes::THREADS,
                &rope,
            ));
            let delta = kernel!(
                passes::delta_kernel::DeltaKernel, passes::THREADS,
                [0 1 2], (), (), head_dim, half
            );
            all.push(source(
                format!("delta_{head_dim}_{ty}"),
                EVERY,
                passes::THREADS,
                &delta,
            ));
        }
    }
    portable_sources(&mut all);
    all
}

/// The warp-specialized kernels.
fn pipelined_sources(all: &mut Vec<KernelSource>, half: bool) {
    let ty = if half { "f16" } else { "bf16" };
    let mut add = |role: &str, threads: u32, kernel: &dyn CubeKernel| {
        all.push(source(
            format!("pipelined_{role}_64_{ty}"),
            HOPPER,
            threads,
            kernel,
        ));
    };
    let rope = true;
    let threads = pipelined::forward::THREADS;
    let forward = kernel!(
        pipelined::forward::pipelined_forward::PipelinedForward, threads,
        [0 1 2 3 4], args(), (), half
    );
    add("forward", threads, &forward);
    let threads = pipelined::backward::THREADS;
    let backward = kernel!(
        pipelined::backward::pipelined_backward::PipelinedBackward,
        threads,
        [],
        inputs(),
        buffer(),
        buffer(),
        buffer(),
        rope,
        half
    );
    add("backward", threads, &backward);
    let threads = pipelined::backward::FINISH_THREADS;
    let finish = kernel!(
        pipelined::backward::finish_queries::FinishQueries, threads,
        [0 1 2 3], args(), rope, half
    );
    add("finish", threads, &finish);
}

/// The portable kernels, which CUDA devices run in f32.
fn portable_sources(all: &mut Vec<KernelSource>) {
    let elem = ElemType::Float(FloatKind::F32);
    for (head_dim, softcap) in [(64, false), (64, true), (128, false), (256, true)] {
        let config = portable::KernelConfig {
            tile: 64,
            head_dim,
            rope: true,
            softcap,
        };
        let units = config.threads() as u32;
        let args = || portable::ArgsCompilationArg {
            heads: (),
            total: (),
            half_window: (),
            scale: (),
            softcap: (),
        };
        let mut add = |role: &str, kernel: &dyn CubeKernel| {
            let capped = suffix_if("_capped", softcap);
            let name = format!("portable_{role}_{head_dim}_f32{capped}");
            all.push(source(name, EVERY, units, kernel));
        };
        let forward = kernel!(
            portable::forward::forward_kernel::ForwardKernel, units,
            [0 1 2 3 4], args(), config, elem
        );
        add("forward", &forward);
        for (role, keys) in [("keys", true), ("queries", false)] {
            let backward = kernel!(
                portable::backward::backward_kernel::BackwardKernel, units,
                [0 1 2 3 4 5 6], args(), keys, config, elem
            );
            add(role, &backward);
        }
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
