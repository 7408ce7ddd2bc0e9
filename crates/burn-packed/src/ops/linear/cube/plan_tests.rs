//! Every plan and tiling of the Hopper GEMM on a GPU, including those that the cost model does not choose; and measurements of their
//! speed.
//!
//! The tests need `MODERNBERT_TEST_DEVICE=cuda` and a GPU of compute capability 9.0.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::time::Instant;

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Distribution, FloatDType, TensorData};
use burn_cubecl::ops::into_data_sync;
use burn_cubecl::{CubeBackend, CubeDevice};

use super::plan::GemmPlan;
use super::*;
use crate::ops::test_device;

/// Values whose period does not divide a tile, so that swapped tiles do not go unnoticed.
fn aperiodic([rows, columns]: [usize; 2], step: f32) -> CubeTensor {
    let values: Vec<f32> = (0..rows * columns)
        .map(|i| (i as f32 * step).sin() * (1.0 + (i % 100_003) as f32 * 0.37).cos())
        .collect();
    let data = TensorData::new(values, vec![rows, columns]);
    let wide = CubeBackend::float_from_data(data, &CubeDevice::default());
    CubeBackend::float_cast(wide, FloatDType::BF16)
}

fn normals([rows, columns]: [usize; 2]) -> CubeTensor {
    CubeBackend::float_random(
        [rows, columns].into(),
        Distribution::Normal(0.0, 1.0),
        &CubeDevice::default(),
        FloatDType::BF16,
    )
}

fn operands(
    GemmShape { m, n, k }: GemmShape,
    transpose: Transpose,
    make: &dyn Fn([usize; 2], f32) -> CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let (lhs, rhs) = match transpose {
        Transpose::None => ([m, k], [k, n]),
        Transpose::Lhs => ([k, m], [k, n]),
        Transpose::Rhs => ([m, k], [n, k]),
    };
    (make(lhs, 0.731), make(rhs, 1.127))
}

fn read(tensor: CubeTensor) -> Vec<f32> {
    let wide = CubeBackend::float_cast(tensor, FloatDType::F32);
    into_data_sync(wide).try_to_vec().unwrap()
}

const TRANSPOSES: [Transpose; 3] = [Transpose::None, Transpose::Lhs, Transpose::Rhs];

fn shape(m: usize, n: usize, k: usize) -> GemmShape {
    GemmShape { m, n, k }
}

fn problem(operands: &(CubeTensor, CubeTensor), transpose: Transpose, out: DType) -> Gemm {
    let (lhs, rhs) = operands.clone();
    Gemm {
        shape: GemmShape::of(&lhs, &rhs, transpose),
        operand_element: elem(lhs.dtype).unwrap(),
        out_element: elem(out).unwrap(),
        lhs,
        rhs,
        transpose,
        out,
    }
}

/// Clusters of one and two blocks, all tile widths, splits and tails; few multiprocessors, so that each block loops over many tiles.
#[test]
fn every_plan_computes_the_gemm() {
    if !test_device::is("cuda") {
        return;
    }
    let cases = [
        (shape(1000, 520, 200), 4),
        (shape(130, 264, 4160), 4),
        (shape(1400, 264, 520), 6),
        // Ten or eleven tiles on four blocks or two clusters, 260 K steps: the last wave is split.
        (shape(1290, 248, 16_640), 4),
    ];
    let mut tails = 0;
    for (shape, multiprocessors) in cases {
        for transpose in TRANSPOSES {
            let operands = operands(shape, transpose, &aperiodic);
            let wide = |t: &CubeTensor| CubeBackend::float_cast(t.clone(), FloatDType::F32);
            let expected = read(super::gemm(
                wide(&operands.0),
                wide(&operands.1),
                transpose,
                true,
            ));
            let scale = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for cluster in [1, 2] {
                for plan in GemmPlan::candidates(shape, multiprocessors, &[cluster]) {
                    if plan.tile_n == 32 && transpose != Transpose::Rhs {
                        continue;
                    }
                    tails += usize::from(plan.tail_tiles > 0);
                    for (dtype, bound) in [(DType::F32, 2e-5), (DType::BF16, 4e-3)] {
                        let found = read(problem(&operands, transpose, dtype).run_by(&plan));
                        let worst = found
                            .iter()
                            .zip(&expected)
                            .fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
                        assert!(
                            worst <= bound * scale,
                            "{plan:?} {transpose:?}: {worst} of {scale}"
                        );
                    }
                }
            }
        }
    }
    assert!(tails > 0, "no case has a last wave to split");
}

/// GeGLU in the epilogue: every plan without splits, widths that are no multiple of a tile, and rows that do not fill one.
#[test]
fn every_plan_computes_geglu() {
    if !test_device::is("cuda") {
        return;
    }
    for (shape, multiprocessors) in [
        (shape(1000, 1200, 200), 4),
        (shape(33, 272, 768), 6),
        (shape(1, 16, 64), 4),
    ] {
        let operands = operands(shape, Transpose::Rhs, &aperiodic);
        let wide = |t: &CubeTensor| CubeBackend::float_cast(t.clone(), FloatDType::F32);
        // Smaller activations, so that both tails of the normal distribution matter.
        let operands = (
            CubeBackend::float_mul_scalar(operands.0, 0.1f32.into()),
            operands.1,
        );
        let product = super::gemm(wide(&operands.0), wide(&operands.1), Transpose::Rhs, true);
        let expected = read(crate::ops::geglu::cube::forward(product));
        let mut first: Option<Vec<f32>> = None;
        let mut plans = 0;
        for plan in GemmPlan::candidates(shape, multiprocessors, &[1, 2]) {
            if plan.splits > 1 || plan.tail_splits > 1 || ![64, 128, 256].contains(&plan.tile_n) {
                continue;
            }
            plans += 1;
            let found = read(problem(&operands, Transpose::Rhs, DType::BF16).run_geglu_by(&plan));
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let bound = 6e-3 * expected.abs() + 1e-5;
                assert!(
                    (found - expected).abs() <= bound,
                    "{plan:?}, element {i}: {found}, not {expected}"
                );
            }
            let first = first.get_or_insert_with(|| found.clone());
            assert!(*first == found, "{plan:?} differs from another plan");
        }
        assert_eq!(plans, if shape.m > 128 { 6 } else { 3 }, "{shape:?}");
    }
}

/// A measurement, not a check: `cargo test --release … --lib -- --ignored --nocapture speed_of_every_plan`.
#[test]
#[ignore = "a measurement"]
fn speed_of_every_plan() {
    if !test_device::is("cuda") {
        return;
    }
    let tokens = 65_536;
    let masked = tokens * 3 / 10;
    let forward = Transpose::Rhs;
    let d_input = Transpose::None;
    let d_weight = Transpose::Lhs;
    for (name, shape, transpose, dtype) in [
        (
            "base Wqkv forward",
            shape(tokens, 2304, 768),
            forward,
            DType::BF16,
        ),
        (
            "base attn.Wo forward",
            shape(tokens, 768, 768),
            forward,
            DType::BF16,
        ),
        (
            "base mlp.Wo d_input",
            shape(tokens, 1152, 768),
            d_input,
            DType::BF16,
        ),
        (
            "base Wi d_weight",
            shape(2304, 768, tokens),
            d_weight,
            DType::F32,
        ),
        (
            "large Wqkv forward",
            shape(tokens, 3072, 1024),
            forward,
            DType::BF16,
        ),
        (
            "large Wqkv d_input",
            shape(tokens, 1024, 3072),
            d_input,
            DType::BF16,
        ),
        (
            "large Wi d_input",
            shape(tokens, 1024, 5248),
            d_input,
            DType::BF16,
        ),
        (
            "large Wi d_weight",
            shape(5248, 1024, tokens),
            d_weight,
            DType::F32,
        ),
        (
            "large decoder forward",
            shape(masked, 50_368, 1024),
            forward,
            DType::BF16,
        ),
        (
            "large decoder d_input",
            shape(masked, 1024, 50_368),
            d_input,
            DType::BF16,
        ),
        (
            "large decoder d_weight",
            shape(50_368, 1024, masked),
            d_weight,
            DType::F32,
        ),
    ] {
        let operands = operands(shape, transpose, &|shape, _| normals(shape));
        let gemm = problem(&operands, transpose, dtype);
        let flops = 2e-9 * (shape.m * shape.n) as f64 * shape.k as f64;
        let mut versions =
            [1, 2].map(|cluster| (GemmPlan::new(shape, 132, &[cluster], false), Vec::new()));
        // The versions alternate: a GPU that has been busy is slower than one that was idle.
        for round in 0..7 {
            for (plan, times) in &mut versions {
                let start = Instant::now();
                for _ in 0..10 {
                    drop(gemm.run_by(plan));
                }
                cubecl::future::block_on(gemm.lhs.client.sync()).unwrap();
                // The first round compiles.
                if round > 0 {
                    times.push(start.elapsed().as_secs_f64() * 1e2);
                }
            }
        }
        for (plan, times) in &mut versions {
            times.sort_by(f64::total_cmp);
            let ms = times[times.len() / 2];
            println!(
                "{name:<23} {:>3} columns, {:>2} splits, tail {:>3}/{}, cluster {}: {ms:>6.3} ms {:>6.1} TFLOP/s",
                plan.tile_n,
                plan.splits,
                plan.tail_tiles,
                plan.tail_splits,
                plan.cluster,
                flops / ms
            );
        }
    }
}
