//! f32 GEMMs with packed weights of `cpu-gemm` and of crates from the registry, alternating.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/gemm-crates/Cargo.toml
//! ```
//!
//! A left operand of 32, 128 or 1024 rows is multiplied with 40 weights of 768 by 2304, on `RAYON_NUM_THREADS` threads (2 without it). Prints the median
//! of five rounds in billions of operations per second; every result is compared with that of `cpu-gemm`.
use cpu_gemm::{
    PANEL, Panels, ROWS, Team, InstructionSet,
    kernel::{MicrokernelArgs, Multiply},
};
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::{NdTensor, prelude::*};
use std::time::Instant;

fn values(len: usize) -> Vec<f32> {
    (0..len)
        .map(|i| {
            ((i as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995).wrapping_mul(0x85eb_ca6b) as i32
                as f32
                / i32::MAX as f32
        })
        .collect()
}

fn main() {
    let threads: usize = std::env::var("RAYON_NUM_THREADS")
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(2);
    let (k, n) = (768, 2304);
    for m in [32usize, 128, 1024] {
        // The number of weights of an encoder of 22 layers, so that they are read from memory.
        let count = 40;
        let b: Vec<Vec<f32>> = (0..count).map(|_| values(k * n)).collect(); // [n, k]
        let a = values(m * k);
        let mut out = vec![0.0f32; m * n];
        let ops = 2.0 * (m * n * k * count) as f64;
        let team = Team::new(threads).unwrap();
        let isa = InstructionSet::chosen().unwrap();
        let ours: Vec<Panels<f32>> = b
            .iter()
            .map(|b| Panels::of_rows(&team, k, n, |j| Some(&b[j * k..][..k])))
            .collect();
        let rten = GemmExecutor::<f32, f32, f32>::new();
        let bt: Vec<NdTensor<f32, 2>> = b
            .iter()
            .map(|b| NdTensor::from_data([n, k], b.clone()))
            .collect();
        let rten_packed: Vec<_> = bt
            .iter()
            .map(|b| rten.prepack_b(b.view().transposed()))
            .collect();
        let at = NdTensor::from_data([m, k], a.clone());
        let kit: Vec<_> = b
            .iter()
            .map(|b| gemmkit::prepack_rhs(gemmkit::MatRef::new(b, k, n, 1, k as isize)))
            .collect();
        let mut times = vec![Vec::new(); 4];
        for round in 0..6 {
            let t = Instant::now();
            let place = out.as_mut_ptr() as usize;
            for w in &ours {
                team.run(&|worker| {
                    let _guard = isa.enter();
                    worker.parallel_for(w.count(), |panel| {
                        for row in (0..m).step_by(ROWS) {
                            let tile = MicrokernelArgs {
                                left: a[row * k..].as_ptr(),
                                left_stride: k,
                                rows: ROWS.min(m - row),
                                to: (place as *mut f32).wrapping_add(row * n + panel * PANEL),
                                to_stride: n,
                            };
                            unsafe { f32::tile(isa, tile, w.panel(panel)) }
                        }
                    });
                });
            }
            times[0].push(t.elapsed().as_secs_f64());
            let expected = out.clone();
            let close = |out: &[f32], name: &str| {
                for (x, y) in out.iter().zip(&expected) {
                    assert!((x - y).abs() < 1e-2, "{name}: {x} {y}");
                }
            };
            let t = Instant::now();
            for w in &rten_packed {
                rten.gemm(
                    &mut out,
                    GemmInputA::Unpacked(at.view()),
                    GemmInputB::Packed(w),
                    GemmOptions::default(),
                )
                .unwrap();
            }
            times[1].push(t.elapsed().as_secs_f64());
            close(&out, "rten");
            let mut column_major = vec![0.0f32; m * n];
            let t = Instant::now();
            for w in &kit {
                gemmkit::gemm_packed_b(
                    1.0,
                    gemmkit::MatRef::new(&a, m, k, k as isize, 1),
                    w,
                    0.0,
                    gemmkit::MatMut::new(&mut column_major, m, n, 1, m as isize),
                    gemmkit::Parallelism::Rayon(threads),
                );
            }
            times[2].push(t.elapsed().as_secs_f64());
            let t = Instant::now();
            for w in &b {
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        out.as_mut_ptr(),
                        1,
                        n as isize,
                        false,
                        a.as_ptr(),
                        1,
                        k as isize,
                        w.as_ptr(),
                        k as isize,
                        1,
                        0.0f32,
                        1.0f32,
                        false,
                        false,
                        false,
                        gemm::Parallelism::Rayon(threads),
                    );
                }
            }
            times[3].push(t.elapsed().as_secs_f64());
            close(&out, "gemm");
            if round == 0 {
                for t in &mut times {
                    t.clear();
                }
            }
        }
        for (name, t) in ["cpu-gemm", "rten-gemm, packed", "gemmkit, packed", "gemm"]
            .iter()
            .zip(&times)
        {
            let mut t = t.clone();
            t.sort_by(f64::total_cmp);
            println!("m={m} {name}: {:.0} Gop/s", ops / t[t.len() / 2] / 1e9);
        }
    }
}
