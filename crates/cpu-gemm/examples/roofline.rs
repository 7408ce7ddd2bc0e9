//! Speed of the kernels of every instruction set, beside what the same kernel reaches when all operands are in the L1 cache.
//!
//! ```text
//! cargo run --release -p cpu-gemm --example roofline -- [THREADS [INSTRUCTION_SET]]
//! ```
//!
//! The shapes are the four GEMMs of a layer of ModernBERT-base, for batches of 16, 32, 128 and 1024 rows. Threads share the panels.

use std::time::Instant;

use cpu_gemm::aligned::Aligned;
use cpu_gemm::element::{Float, quantize_row};
use cpu_gemm::kernel::{MicrokernelArgs, Multiply, PANEL, ROWS};
use cpu_gemm::{InstructionSet, Panels, Team};
use half::bf16;

/// Inner dimension and columns.
const SHAPES: [(usize, usize); 4] = [(768, 2304), (768, 768), (768, 2304), (1152, 768)];

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let threads =
        threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let team = Team::new(threads).expect("threads");
    println!(
        "| operands | instruction set | rows | Gop/s | in L1 | share |\n|---|---|---:|---:|---:|---:|"
    );
    let wanted = std::env::args().nth(2);
    let wanted = |isa: &InstructionSet| wanted.as_ref().is_none_or(|name| isa.to_string() == *name);
    for isa in InstructionSet::supported().filter(wanted) {
        measure::<f32>("f32", isa, &team);
        measure::<bf16>("bf16", isa, &team);
        measure::<i8>("i8", isa, &team);
    }
}

fn measure<E: RooflineElement>(name: &str, isa: InstructionSet, team: &Team) {
    let peak = rate(isa, team, 32, &[E::pack(team, 256, PANEL)]);
    for rows in [16, 32, 128, 1024] {
        // All 22 layers, so that small batches read their weights from the memory.
        let weights: Vec<Panels<E>> = SHAPES
            .iter()
            .cycle()
            .take(88)
            .map(|(k, n)| E::pack(team, *k, *n))
            .collect();
        let found = rate(isa, team, rows, &weights);
        println!(
            "| {name} | {isa} | {rows} | {found:.0} | {peak:.0} | {:.2} |",
            found / peak
        );
    }
}

/// Values of a hash in [-1, 1): zeros would be one page of memory for all weights, and take less power.
fn values(len: usize) -> Vec<f32> {
    let hash = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9) ^ 0x5bd1_e995;
    (0..len)
        .map(|i| hash(i).wrapping_mul(0x85eb_ca6b) as i32 as f32 / i32::MAX as f32)
        .collect()
}

/// Packing and rounding of an operand type.
trait RooflineElement: Multiply {
    fn pack(team: &Team, depth: usize, columns: usize) -> Panels<Self>;
    fn fill(values: &[f32], to: &mut [Self]);
}

macro_rules! float {
    ($($element:ty),*) => {
        $(impl RooflineElement for $element {
            fn pack(team: &Team, depth: usize, columns: usize) -> Panels<Self> {
                let values = values(depth * columns);
                Panels::of_rows(team, depth, columns, |j| Some(&values[j * depth..][..depth]))
            }

            fn fill(values: &[f32], to: &mut [Self]) {
                <Self as Float>::slice_from_f32(values, to);
            }
        })*
    };
}

float!(f32, bf16);

impl RooflineElement for i8 {
    fn pack(team: &Team, depth: usize, columns: usize) -> Panels<i8> {
        let values = values(depth * columns);
        Panels::quantized(team, depth, columns, |j| {
            Some(&values[j * depth..][..depth])
        })
    }

    fn fill(values: &[f32], to: &mut [i8]) {
        quantize_row(values, to);
    }
}

/// Billions of operations per second, of all threads: the best of several passes over the weights.
fn rate<E: RooflineElement>(
    isa: InstructionSet,
    team: &Team,
    rows: usize,
    weights: &[Panels<E>],
) -> f64 {
    let widest = weights
        .iter()
        .map(|w| w.depth().next_multiple_of(64))
        .max()
        .unwrap_or(64);
    let mut left = Aligned::<E>::zeros(rows * widest);
    E::fill(&values(rows * widest), &mut left);
    let ops: f64 = weights
        .iter()
        .map(|w| 2.0 * (rows * w.depth() * w.columns()) as f64)
        .sum();
    let small = weights.len() == 1;
    let repeats = if small {
        20_000
    } else {
        (1e10 / ops).ceil() as usize
    };
    let mut best = 0.0f64;
    for _ in 0..3 {
        let start = Instant::now();
        team.run(&|worker| {
            let _guard = isa.enter();
            let mut tile = [E::Sum::default(); ROWS * PANEL];
            for _ in 0..repeats {
                for weight in weights {
                    let mut task = |index: usize| {
                        let panel = weight.panel(index);
                        for first in (0..rows).step_by(ROWS) {
                            if rows > ROWS && index + 1 < weight.count() {
                                weight
                                    .panel(index + 1)
                                    .prefetch(first / ROWS, rows.div_ceil(ROWS));
                            }
                            let place = MicrokernelArgs {
                                left: left[first * widest..].as_ptr(),
                                left_stride: widest,
                                rows: (rows - first).min(ROWS),
                                to: tile.as_mut_ptr(),
                                to_stride: PANEL,
                            };
                            // SAFETY: rows are multiples of 16, `tile` holds 32 × 32 elements, and the unit is supported.
                            unsafe { E::tile(isa, place, panel) }
                        }
                    };
                    match small {
                        true => task(0),
                        false => worker.parallel_for(weight.count(), task),
                    }
                }
            }
            std::hint::black_box(&tile);
        });
        let done = ops * repeats as f64 * if small { team.size() as f64 } else { 1.0 };
        best = best.max(done / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}
