//! Every plan and tiling of the tensor-core product on a card, those that would not be picked too; and their speeds.
//!
//! Run where `MODERNBERT_TEST_DEVICE` says `cuda`, on a card of compute capability 9.0.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::time::Instant;

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Distribution, FloatDType, TensorData};
use burn_cubecl::ops::into_data_sync;
use burn_cubecl::{CubeBackend, CubeDevice};

use super::launch::gemm_by;
use super::plan::Plan;
use super::*;
use crate::ops::test_device;

/// Numbers without a period that a tile could share.
fn waves([rows, columns]: [usize; 2], step: f32) -> CubeTensor {
    let values: Vec<f32> = (0..rows * columns)
        .map(|i| (i as f32 * step).sin() * (1.0 + (i % 100_003) as f32 * 0.37).cos())
        .collect();
    let data = TensorData::new(values, vec![rows, columns]);
    let wide = CubeBackend::float_from_data(data, &CubeDevice::default());
    CubeBackend::float_cast(wide, FloatDType::BF16)
}

fn drawn([rows, columns]: [usize; 2]) -> CubeTensor {
    CubeBackend::float_random(
        [rows, columns].into(),
        Distribution::Normal(0.0, 1.0),
        &CubeDevice::default(),
        FloatDType::BF16,
    )
}

fn operands(
    sizes: Sizes,
    transpose: Transpose,
    make: &dyn Fn([usize; 2], f32) -> CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let Sizes {
        rows,
        columns,
        inner,
    } = sizes;
    let (lhs, rhs) = match transpose {
        Transpose::None => ([rows, inner], [inner, columns]),
        Transpose::Lhs => ([inner, rows], [inner, columns]),
        Transpose::Rhs => ([rows, inner], [columns, inner]),
    };
    (make(lhs, 0.731), make(rhs, 1.127))
}

fn read(tensor: CubeTensor) -> Vec<f32> {
    let wide = CubeBackend::float_cast(tensor, FloatDType::F32);
    into_data_sync(wide).try_to_vec().unwrap()
}

const TRANSPOSES: [Transpose; 3] = [Transpose::None, Transpose::Lhs, Transpose::Rhs];

fn sizes(rows: usize, columns: usize, inner: usize) -> Sizes {
    Sizes {
        rows,
        columns,
        inner,
    }
}

/// Clusters of one and two cubes, few multiprocessors (so that each walks over many tiles), all widths, splits and tails.
#[test]
fn every_plan_computes_the_product() {
    if !test_device::is("cuda") {
        return;
    }
    let cases = [
        (sizes(1000, 520, 200), 4),
        (sizes(130, 264, 4160), 4),
        (sizes(1400, 264, 520), 6),
        // Ten or eleven tiles on four or two places, 260 stages: the last round is split.
        (sizes(1290, 248, 16_640), 4),
    ];
    let mut tails = 0;
    for (sizes, cubes) in cases {
        for transpose in TRANSPOSES {
            let (lhs, rhs) = operands(sizes, transpose, &waves);
            let wide = |t: &CubeTensor| CubeBackend::float_cast(t.clone(), FloatDType::F32);
            let expected = read(super::gemm(wide(&lhs), wide(&rhs), transpose, true));
            let scale = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            for cluster in [1, 2] {
                for plan in Plan::all_possible(sizes, cubes, &[cluster]) {
                    tails += usize::from(plan.tail > 0);
                    for (dtype, bound) in [(DType::F32, 2e-5), (DType::BF16, 4e-3)] {
                        let (lhs, rhs) = (lhs.clone(), rhs.clone());
                        let dtype = (dtype, elems([dtype]).unwrap()[0]);
                        let found = read(gemm_by(&plan, lhs, rhs, transpose, sizes, dtype));
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
    assert!(tails > 0, "no case has a last round to split");
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
    for (name, sizes, transpose, dtype) in [
        (
            "base Wqkv forward",
            sizes(tokens, 2304, 768),
            forward,
            DType::BF16,
        ),
        (
            "base attn.Wo forward",
            sizes(tokens, 768, 768),
            forward,
            DType::BF16,
        ),
        (
            "base mlp.Wo d_input",
            sizes(tokens, 1152, 768),
            d_input,
            DType::BF16,
        ),
        (
            "base Wi d_weight",
            sizes(2304, 768, tokens),
            d_weight,
            DType::F32,
        ),
        (
            "large Wqkv forward",
            sizes(tokens, 3072, 1024),
            forward,
            DType::BF16,
        ),
        (
            "large Wqkv d_input",
            sizes(tokens, 1024, 3072),
            d_input,
            DType::BF16,
        ),
        (
            "large Wi d_input",
            sizes(tokens, 1024, 5248),
            d_input,
            DType::BF16,
        ),
        (
            "large Wi d_weight",
            sizes(5248, 1024, tokens),
            d_weight,
            DType::F32,
        ),
        (
            "large decoder forward",
            sizes(masked, 50_368, 1024),
            forward,
            DType::BF16,
        ),
        (
            "large decoder d_input",
            sizes(masked, 1024, 50_368),
            d_input,
            DType::BF16,
        ),
        (
            "large decoder d_weight",
            sizes(50_368, 1024, masked),
            d_weight,
            DType::F32,
        ),
    ] {
        let (lhs, rhs) = operands(sizes, transpose, &|shape, _| drawn(shape));
        let flops = 2e-9 * (sizes.rows * sizes.columns) as f64 * sizes.inner as f64;
        let mut versions = [1, 2].map(|cluster| (Plan::new(sizes, 132, &[cluster]), Vec::new()));
        // All versions in turn, again and again: a card that has worked is slower than one that has waited.
        for round in 0..7 {
            for (plan, times) in &mut versions {
                let start = Instant::now();
                for _ in 0..10 {
                    let (lhs, rhs) = (lhs.clone(), rhs.clone());
                    let dtype = (dtype, elems([dtype]).unwrap()[0]);
                    drop(gemm_by(plan, lhs, rhs, transpose, sizes, dtype));
                }
                cubecl::future::block_on(lhs.client.sync()).unwrap();
                // The first one compiles.
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
                plan.columns,
                plan.splits,
                plan.tail,
                plan.tail_splits,
                plan.cluster,
                flops / ms
            );
        }
    }
}
