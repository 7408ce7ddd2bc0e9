//! Problems for tests of kernels; the portable kernels of every tile size compared with the fallback. The test suites cover only the
//! size that is chosen on their device.
//!
//! The tests run where `MODERNBERT_TEST_DEVICE` is `wgpu`, which needs a graphics driver.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::time::Instant;

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{FloatDType, TensorData};
use burn_cubecl::CubeDevice;
use burn_cubecl::ops::into_data_sync;

use super::portable::{KernelConfig, TILES};
use super::*;
use crate::batch::{Bucket, SequenceLayout};
use crate::ops::test_device;

pub(super) const THETA: f64 = 10_000.0;

/// A call and its tensors.
pub(super) struct Problem {
    pub(super) head_dim: usize,
    pub(super) qkv: CubeTensor,
    pub(super) d_out: CubeTensor,
    pub(super) rotary: CubeTensor,
    pub(super) spec: AttentionSpec,
}

pub(super) fn problem(
    lengths: &[usize],
    heads: usize,
    head_dim: usize,
    dtype: FloatDType,
    half_window: Option<usize>,
    rotary: bool,
    softcap: Option<f64>,
) -> Problem {
    let device = CubeDevice::default();
    let total = lengths.iter().sum::<usize>();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let tensor = |shape: &[usize], step: f32| {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count)
            .map(|i| 1.5 * (i as f32 * step).sin() * (1.0 + (i % 100_003) as f32 * 0.37).cos())
            .collect();
        let wide = CubeBackend::float_from_data(TensorData::new(values, shape.to_vec()), &device);
        CubeBackend::float_cast(wide, dtype)
    };
    let half = head_dim / 2;
    let angle = |p: usize, d: usize| p as f64 * THETA.powf(-2.0 * d as f64 / head_dim as f64);
    let table: Vec<f32> = (0..longest)
        .flat_map(|p| {
            let cos = (0..half).map(move |d| angle(p, d).cos() as f32);
            cos.chain((0..half).map(move |d| angle(p, d).sin() as f32))
        })
        .collect();
    Problem {
        head_dim,
        qkv: tensor(&[total, 3, heads, head_dim], 0.731),
        d_out: tensor(&[total, heads, head_dim], 1.127),
        rotary: CubeBackend::float_from_data(
            TensorData::new(table, vec![longest, head_dim]),
            &device,
        ),
        spec: AttentionSpec {
            layout: SequenceLayout::from_lengths(lengths.iter().copied()).unwrap(),
            half_window,
            scale: 1.0 / (head_dim as f64).sqrt(),
            softcap,
            rope: rotary,
        },
    }
}

/// An f32 problem with two heads and RoPE, where the device under test is `wgpu`.
fn on_wgpu(lengths: &[usize], head_dim: usize, half_window: Option<usize>) -> Option<Problem> {
    test_device::is("wgpu").then(|| {
        problem(
            lengths,
            2,
            head_dim,
            FloatDType::F32,
            half_window,
            true,
            None,
        )
    })
}

type Found = [Vec<f32>; 3];

impl Problem {
    fn config(&self, tile: usize) -> KernelConfig {
        KernelConfig {
            tile,
            head_dim: self.head_dim,
            rope: true,
            softcap: false,
        }
    }

    fn found(&self, (out, lse): (CubeTensor, CubeTensor), grad: CubeTensor) -> Found {
        [out, lse, grad].map(|tensor| into_data_sync(tensor).try_to_vec().unwrap())
    }

    pub(super) fn call<'a>(&self, spec: &'a AttentionSpec) -> Call<'a> {
        Call::new(self.qkv.clone(), self.rotary.clone(), spec)
    }

    fn by_kernels(&self, tile: usize) -> Found {
        let (config, call) = (self.config(tile), self.call(&self.spec));
        let (out, lse) = portable::forward(config, &call);
        let saved =
            SavedAttention::new(self.d_out.clone(), out.clone(), lse.clone(), self.qkv.dtype);
        self.found((out, lse), portable::backward(config, &call, &saved))
    }

    fn by_fallback(&self) -> Found {
        let (qkv, rotary, spec) = (&self.qkv, &self.rotary, &self.spec);
        let (out, lse) = fallback::forward::<CubeBackend>(qkv.clone(), rotary.clone(), spec);
        let grad = fallback::backward::<CubeBackend>(
            self.d_out.clone(),
            qkv.clone(),
            out.clone(),
            lse.clone(),
            rotary.clone(),
            spec,
        );
        self.found((out, lse), grad)
    }
}

#[test]
fn every_tile_size_equals_the_fallback() {
    for (head_dim, window) in [(64, None), (64, Some(20)), (80, Some(64)), (16, Some(0))] {
        let Some(problem) = on_wgpu(&[1, 33, 0, 64, 100], head_dim, window) else {
            return;
        };
        let expected = problem.by_fallback();
        for tile in TILES {
            let found = problem.by_kernels(tile);
            for (name, (found, expected)) in ["out", "lse", "gradient"]
                .into_iter()
                .zip(found.iter().zip(&expected))
            {
                let error = found
                    .iter()
                    .zip(expected)
                    .fold(0f32, |max, (a, b)| max.max((a - b).abs()));
                assert!(
                    error < 2e-5,
                    "{name}, tile {tile}, head {head_dim}, window {window:?}: {error}"
                );
            }
        }
    }
}

/// A measurement: `cargo test … --lib -- --ignored --nocapture speed_of_kernels_and_fallback`.
#[test]
#[ignore = "a measurement; takes a minute"]
fn speed_of_kernels_and_fallback() {
    let ragged = [1000, 7, 130, 64, 300, 31, 512, 4];
    for (name, lengths) in [("512", &[512, 512, 512, 512][..]), ("ragged", &ragged)] {
        for window in [None, Some(64)] {
            let Some(problem) = on_wgpu(lengths, 64, window) else {
                return;
            };
            let time = |run: &dyn Fn() -> Found| {
                run();
                let millis = (0..3).map(|_| {
                    let start = Instant::now();
                    run();
                    start.elapsed().as_secs_f64() * 1e3
                });
                millis.fold(f64::INFINITY, f64::min)
            };
            let by_fallback = time(&|| problem.by_fallback());
            let tiles = TILES.map(|tile| time(&|| problem.by_kernels(tile)));
            println!(
                "{name}, window {window:?}: fallback {by_fallback:.0} ms, tiles of {TILES:?} {tiles:.0?} ms"
            );
        }
    }
}

/// The tables of a bucket serve one batch after the other: each gives the bits of its own boundaries, whatever was computed before.
#[test]
fn tables_of_a_bucket_serve_batches_of_other_boundaries() {
    for (id, half_window) in [(u64::MAX, None), (u64::MAX - 1, Some(8))] {
        let Some(problem) = on_wgpu(&[40, 24], 32, half_window) else {
            return;
        };
        let bucket = Bucket { id, sequences: 6 };
        let of = |layout: SequenceLayout| {
            let spec = AttentionSpec {
                layout,
                ..problem.spec.clone()
            };
            let (out, lse) = portable::forward(problem.config(32), &problem.call(&spec));
            [out, lse].map(|tensor| -> Vec<u32> {
                let values: Vec<f32> = into_data_sync(tensor).try_to_vec().unwrap();
                values.into_iter().map(f32::to_bits).collect()
            })
        };
        let mut seen = Vec::new();
        for lengths in [&[40, 24][..], &[5, 40, 19], &[1, 1, 30, 2, 30], &[40, 24]] {
            let plain = SequenceLayout::from_lengths(lengths.iter().copied()).unwrap();
            tile_table::write(id, &plain);
            let found = of(SequenceLayout::of_bucket(64, 40, bucket).unwrap());
            assert!(found == of(plain), "{lengths:?}, window {half_window:?}");
            seen.push(found);
        }
        assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] == seen[3]);
        tile_table::forget(id);
    }
}
