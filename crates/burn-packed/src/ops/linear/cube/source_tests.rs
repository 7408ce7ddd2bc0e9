//! CUDA C++ of the Hopper GEMM, generated without a device: a kernel that CubeCL cannot expand fails here, and the sources can be
//! compiled with NVRTC on any machine.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::sync::Arc;

use cubecl::ir::TargetProperties;

use crate::ops::cuda_sources;

use super::hopper::{THREADS, TileConfig, hopper_fp8_gemm, hopper_gemm};
use super::plan::TileScheduleCompilationArg;

/// Writes the sources into the folder that `MODERNBERT_KERNEL_SOURCES` names, if it is set.
#[test]
fn every_tiling_has_a_source_within_shared_memory() {
    for (tile_n, cluster) in [32, 64, 128, 192, 256]
        .into_iter()
        .flat_map(|n| [(n, 1), (n, 2)])
    {
        for (a_m_major, b_n_major) in [(false, false), (false, true), (true, true)] {
            for (f16, f32_out) in [(false, false), (false, true), (true, false)] {
                if tile_n == 32 && b_n_major {
                    continue;
                }
                let config = TileConfig::new((tile_n, cluster), a_m_major, b_n_major, f16, f32_out);
                let name =
                    format!("gemm-{tile_n}-{cluster}-{a_m_major}-{b_n_major}-{f16}-{f32_out}.cu");
                write_source(config, &name);
            }
        }
        if [64, 128, 256].contains(&tile_n) {
            for f16 in [false, true] {
                let config = TileConfig {
                    geglu: true,
                    ..TileConfig::new((tile_n, cluster), false, false, f16, false)
                };
                write_source(config, &format!("geglu-{tile_n}-{cluster}-{f16}.cu"));
            }
        }
        for geglu in [false, true] {
            if geglu && ![64, 128, 256].contains(&tile_n) {
                continue;
            }
            let config = TileConfig {
                geglu,
                fp8: true,
                ..TileConfig::new((tile_n, cluster), false, false, false, false)
            };
            write_source(config, &format!("fp8-{tile_n}-{cluster}-{geglu}.cu"));
        }
    }
}

fn schedule() -> TileScheduleCompilationArg {
    TileScheduleCompilationArg {
        tiles: (),
        tiles_per_split: (),
        first_tile: (),
        row_tiles: (),
        column_tiles: (),
        k_steps: (),
        k_steps_per_split: (),
        gate: (),
    }
}

fn write_source(config: TileConfig, name: &str) {
    let settings = cuda_sources::settings(THREADS);
    let device = cuda_sources::device(90, 227 * 1024);
    let properties = Arc::new(TargetProperties::default());
    let (source, shared_bytes) = if config.fp8 {
        cuda_sources::compile(&hopper_fp8_gemm::HopperFp8Gemm::new(
            settings,
            device,
            properties,
            (),
            (),
            (),
            cuda_sources::buffer(),
            cuda_sources::buffer(),
            (),
            (),
            schedule(),
            config,
        ))
    } else {
        cuda_sources::compile(&hopper_gemm::HopperGemm::new(
            settings,
            device,
            properties,
            (),
            (),
            (),
            schedule(),
            config,
        ))
    };
    assert!(shared_bytes <= 227 * 1024, "{config:?}");
    assert!(source.contains("wgmma.mma_async"));
    if let Some(folder) = cuda_sources::folder() {
        std::fs::write(folder.join(name), source).unwrap();
    }
}
