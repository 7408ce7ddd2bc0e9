//! The kernels of this folder as CUDA C++, made without a device: a definition that can't be expanded fails here, and what is written
//! compiles with NVRTC anywhere.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::sync::Arc;

use cubecl::ir::TargetProperties;

use crate::ops::cuda_sources;

use super::hopper::{Tiling, UNITS, hopper_gemm};
use super::plan::WalkCompilationArg;

/// With `MODERNBERT_KERNEL_SOURCES` set to a folder, the sources are written there.
#[test]
fn every_tiling_has_a_source_within_shared_memory() {
    let folder = cuda_sources::folder();
    for (columns, cluster) in [128, 192, 256].into_iter().flat_map(|n| [(n, 1), (n, 2)]) {
        for (a_outer, b_outer) in [(false, false), (false, true), (true, true)] {
            for (half, wide) in [(false, false), (false, true), (true, false)] {
                let tiling = Tiling::new((columns, cluster), a_outer, b_outer, half, wide);
                let kernel = hopper_gemm::HopperGemm::new(
                    cuda_sources::settings(UNITS),
                    cuda_sources::device(90, 227 * 1024),
                    Arc::new(TargetProperties::default()),
                    (),
                    (),
                    (),
                    WalkCompilationArg {
                        tiles: (),
                        per_split: (),
                        first: (),
                        row_tiles: (),
                        column_tiles: (),
                        steps: (),
                        steps_per_split: (),
                    },
                    tiling,
                );
                let (source, shared_bytes) = cuda_sources::compile(&kernel);
                assert!(shared_bytes <= 227 * 1024, "{tiling:?}");
                assert!(source.contains("wgmma.mma_async"));
                if let Some(folder) = &folder {
                    let name =
                        format!("gemm-{columns}-{cluster}-{a_outer}-{b_outer}-{half}-{wide}.cu");
                    std::fs::write(folder.join(name), source).unwrap();
                }
            }
        }
    }
}
