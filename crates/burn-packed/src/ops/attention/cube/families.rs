//! All tensor-core kernels that a device supports, including those that are not chosen on it, compared with the f64 definition; and
//! measurements of their speed.
//!
//! The tests run where `MODERNBERT_TEST_DEVICE` is `cuda`.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::time::Instant;

use burn::backend::ops::FloatTensorOps;
use burn::tensor::FloatDType;
use burn_cubecl::CubeBackend;
use burn_cubecl::ops::into_data_sync;

use super::tensor_cores::{DispatchThresholds, Instructions};
use super::tests::{Problem, THETA, problem};
use super::*;
use crate::ops::primitive::narrow;
use crate::ops::{attention::reference, test_device};

/// A version of the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    instructions: Instructions,
    thresholds: DispatchThresholds,
}

/// Returns a version with RoPE inside the kernels for windows below `rope_inside`, and with the warp-specialized kernels for sequences
/// of `pipelined` tokens and more.
const fn version(instructions: Instructions, rope_inside: usize, pipelined: usize) -> Version {
    Version {
        instructions,
        thresholds: DispatchThresholds {
            rope_inside,
            pipelined_forward: pipelined,
            pipelined_backward: pipelined,
        },
    }
}

/// A length above all others: the warp-specialized kernels compute nothing.
const NEVER: usize = usize::MAX;
const ROPE_INSIDE: usize = DispatchThresholds::CHOSEN.rope_inside;
const PIPELINED: Version = version(Instructions::Hopper, ROPE_INSIDE, 1);
const VERSIONS: [Version; 6] = [
    version(Instructions::Hopper, 0, NEVER),
    version(Instructions::Hopper, ROPE_INSIDE, NEVER),
    PIPELINED,
    // A batch whose sequences are divided between the shared and the warp-specialized kernels.
    version(Instructions::Hopper, ROPE_INSIDE, 100),
    version(Instructions::Ampere, 0, NEVER),
    version(Instructions::Ampere, ROPE_INSIDE, NEVER),
];

impl Version {
    fn supports(self, qkv: &CubeTensor) -> bool {
        self.instructions.supports(qkv)
    }

    fn forward(self, p: &Problem) -> (CubeTensor, CubeTensor) {
        self.instructions.forward(self.thresholds, &p.call(&p.spec))
    }

    fn backward(self, p: &Problem, (out, lse): (CubeTensor, CubeTensor)) -> CubeTensor {
        let saved = SavedAttention::new(p.d_out.clone(), out, lse, p.qkv.dtype);
        self.instructions
            .backward(self.thresholds, &p.call(&p.spec), &saved)
    }
}

fn read(tensor: CubeTensor) -> Vec<f64> {
    let wide = CubeBackend::float_cast(tensor, FloatDType::F32);
    let values: Vec<f32> = into_data_sync(wide).try_to_vec().unwrap();
    values.into_iter().map(f64::from).collect()
}

/// Returns output, log-sum-exp and gradient, computed by a version.
fn found(version: Version, p: &Problem) -> [Vec<f64>; 3] {
    let (out, lse) = version.forward(p);
    let grad = version.backward(p, (out.clone(), lse.clone()));
    [out, lse, grad].map(read)
}

/// Returns the largest difference, relative to the largest expected value or 1, whichever is larger.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(1.0f64, |max, x| max.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, x| {
        if x.is_nan() {
            f64::INFINITY
        } else {
            x.max(max)
        }
    }) / largest
}

/// Returns descriptions of the results of `versions` whose error is above the bound.
fn faults(p: &Problem, versions: &[Version]) -> Vec<String> {
    let (qkv, d_out) = (read(p.qkv.clone()), read(p.d_out.clone()));
    let lengths: Vec<usize> = p.spec.layout.lengths().collect();
    let problem = reference::ReferenceInputs {
        qkv: &qkv,
        lengths: &lengths,
        heads: dims(&p.qkv)[2],
        head_dim: p.head_dim,
        half_window: p.spec.half_window,
        theta: p.spec.rope.then_some(THETA),
        scale: p.spec.scale,
        softcap: p.spec.softcap,
    };
    let expected = [
        problem.forward(),
        problem.log_sum_exp(),
        problem.backward(&d_out),
    ];
    // Spacing of the dtype's numbers above 1. Rounding a result costs half of it; sums of rounded numbers cost more.
    let step = if p.qkv.dtype == DType::F16 {
        1e-3
    } else {
        8e-3
    };
    let mut faults = Vec::new();
    for &version in versions.iter().filter(|v| v.supports(&p.qkv)) {
        let results = found(version, p);
        for ((name, allowed), (found, expected)) in [("out", 1.0), ("lse", 1.0), ("gradient", 2.0)]
            .into_iter()
            .zip(results.iter().zip(&expected))
        {
            let error = error(found, expected);
            if error >= allowed * step {
                faults.push(format!("{version:?}, {name}: {error:e}"));
            }
        }
        if results != found(version, p) {
            faults.push(format!("{version:?}: a second run is not bit-identical"));
        }
    }
    let spec = &p.spec;
    let what = format!(
        "head {}, {:?}, window {:?}, rotary {}, soft cap {:?}",
        p.head_dim, p.qkv.dtype, spec.half_window, spec.rope, spec.softcap
    );
    let faults = faults.into_iter();
    faults.map(|fault| format!("{fault}; {what}")).collect()
}

#[test]
fn every_version_computes_the_definition() {
    if !test_device::is("cuda") {
        return;
    }
    let lengths = [1, 65, 0, 130, 30, 200, 64, 192];
    let mut all = Vec::new();
    for dtype in [FloatDType::BF16, FloatDType::F16] {
        for window in [None, Some(0), Some(64), Some(65)] {
            for (rotary, softcap) in [(false, None), (true, None), (true, Some(2.0))] {
                let p = problem(&lengths, 2, 64, dtype, window, rotary, softcap);
                all.extend(faults(&p, &VERSIONS));
            }
        }
        for head_dim in [16, 32, 48, 80, 96, 112, 128] {
            for window in [None, Some(33)] {
                let p = problem(&lengths, 1, head_dim, dtype, window, true, None);
                all.extend(faults(&p, &VERSIONS));
            }
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Covers rings that wrap around several times, tiles that end at, before and after a sequence's end, and all orders of the sums of dQ.
#[test]
fn pipelined_kernels_compute_long_sequences() {
    if !test_device::is("cuda") {
        return;
    }
    let lengths = [127, 128, 129, 0, 191, 192, 193, 384, 1, 1000, 1531];
    let mut all = Vec::new();
    for dtype in [FloatDType::BF16, FloatDType::F16] {
        for rotary in [false, true] {
            let p = problem(&lengths, 2, 64, dtype, None, rotary, None);
            all.extend(faults(&p, &[PIPELINED]));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// Launches many more blocks than are resident: the order of the sums of dQ must not depend on which blocks run at the same time.
#[test]
fn pipelined_results_are_bit_identical_and_batch_invariant() {
    let lengths = [1500, 700, 2048, 1, 900, 1500, 333, 2000, 64, 1100];
    if !test_device::is("cuda") {
        return;
    }
    let (heads, head_dim) = (12, 64);
    let p = problem(
        &lengths,
        heads,
        head_dim,
        FloatDType::BF16,
        None,
        true,
        None,
    );
    if !PIPELINED.supports(&p.qkv) {
        return;
    }
    let expected = found(PIPELINED, &p);
    for run in 0..10 {
        assert!(found(PIPELINED, &p) == expected, "run {run} differs");
    }
    let shared = found(version(Instructions::Hopper, ROPE_INSIDE, NEVER), &p);
    for (name, (a, b)) in ["out", "lse", "gradient"]
        .into_iter()
        .zip(expected.iter().zip(&shared))
    {
        assert!(error(a, b) < 2e-2, "{name}: {:e}", error(a, b));
    }
    let mut start = 0;
    for length in lengths {
        let rows = start..start + length;
        start += length;
        let mut alone = problem(
            &[length],
            heads,
            head_dim,
            FloatDType::BF16,
            None,
            true,
            None,
        );
        alone.qkv = narrow::<CubeBackend>(p.qkv.clone(), 0, rows.clone());
        alone.d_out = narrow::<CubeBackend>(p.d_out.clone(), 0, rows.clone());
        let [out, _, grad] = found(PIPELINED, &alone);
        let width = heads * head_dim;
        let of = |all: &[f64], parts: usize| {
            all[rows.start * width * parts..rows.end * width * parts].to_vec()
        };
        assert!(out == of(&expected[0], 1), "out of {length} tokens alone");
        assert!(
            grad == of(&expected[2], 3),
            "gradient of {length} tokens alone"
        );
    }
}

/// A measurement: `cargo test --release … --lib -- --ignored --nocapture speed_of_pipelined_kernels`. Global layers of the base model,
/// 65,536 tokens a batch; the backward pass includes `delta`. The versions alternate, since a busy GPU is slower than an idle one.
#[test]
#[ignore = "a measurement"]
fn speed_of_pipelined_kernels() {
    if !test_device::is("cuda") {
        return;
    }
    const TOKENS: usize = 65_536;
    let versions = [
        ("before", version(Instructions::Hopper, ROPE_INSIDE, NEVER)),
        ("pipelined", PIPELINED),
    ];
    for length in [256, 384, 512, 768, 1024, 2048, 4096, 8192] {
        let lengths = vec![length; TOKENS / length];
        let p = problem(&lengths, 12, 64, FloatDType::BF16, None, false, None);
        let mut best = [[f64::INFINITY; 2]; 2];
        for _ in 0..3 {
            for ((_, version), best) in versions.iter().zip(&mut best) {
                let kept = version.forward(&p);
                best[0] = best[0].min(milliseconds(&p, || drop(version.forward(&p))));
                let backward = || drop(version.backward(&p, kept.clone()));
                best[1] = best[1].min(milliseconds(&p, backward));
            }
        }
        // Two GEMMs forward and five backward, 2 FLOPs per multiply-add.
        let flops = 2.0 * (lengths.len() * length * length * 12 * 64) as f64;
        for ((name, _), [forward, backward]) in versions.iter().zip(best) {
            println!(
                "{length:>5} tokens {name:<9} forward {forward:>7.3} ms {:>4.0} TFLOP/s, backward {backward:>7.3} ms {:>4.0} TFLOP/s",
                2e-9 * flops / forward,
                5e-9 * flops / backward
            );
        }
    }
}

/// A measurement: `cargo test --release … --lib -- --ignored --nocapture speed_of_every_version`.
#[test]
#[ignore = "a measurement"]
fn speed_of_every_version() {
    if !test_device::is("cuda") {
        return;
    }
    let batches = [("8192", vec![8192; 8]), ("512", vec![512; 128])];
    for (name, lengths) in &batches {
        for head_dim in [64, 128, 32, 80, 96] {
            for (window, rotary) in [(None, false), (Some(64), false), (Some(64), true)] {
                let p = problem(
                    lengths,
                    12,
                    head_dim,
                    FloatDType::BF16,
                    window,
                    rotary,
                    None,
                );
                for version in VERSIONS.into_iter().filter(|v| v.supports(&p.qkv)) {
                    let kept = version.forward(&p);
                    let forward = milliseconds(&p, || drop(version.forward(&p)));
                    let backward = milliseconds(&p, || drop(version.backward(&p, kept.clone())));
                    println!(
                        "{name:>5} head {head_dim:>3} window {window:?} rotary {rotary}: forward {forward:.3} ms, \
                         backward {backward:.3} ms, {version:?}"
                    );
                }
            }
        }
    }
}

fn milliseconds(p: &Problem, call: impl Fn()) -> f64 {
    const CALLS: usize = 10;
    // Reading a tensor back waits for the kernel that wrote it, not for kernels launched later.
    let wait = || cubecl::future::block_on(p.qkv.client.sync()).expect("the device answers");
    call();
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        wait();
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        wait();
        best = best.min(start.elapsed().as_secs_f64() * 1e3 / CALLS as f64);
    }
    best
}
