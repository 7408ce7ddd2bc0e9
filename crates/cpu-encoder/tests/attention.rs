//! Attention and its gradients against their definition in f64, on every instruction set of this processor.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use cpu_encoder::attention::{
    BackwardScratch, Gradients, HeadView, OperandDtype, Scratch, TileMut,
};
use cpu_gemm::InstructionSet;
use half::bf16;
use proptest::prelude::*;

/// Numbers of a hash, in [-1, 1).
fn number(seed: u64, i: usize) -> f32 {
    let mut x = seed
        .wrapping_add(i as u64)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^= x >> 32;
    (x >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

#[derive(Clone, Debug)]
struct Case {
    length: usize,
    dim: usize,
    half_window: Option<usize>,
    softcap: Option<f32>,
    rope: bool,
    seed: u64,
}

/// Result, log-sum-exp and the gradients of queries, keys and values.
#[derive(Default)]
struct Results {
    out: Vec<f64>,
    lse: Vec<f64>,
    gradients: [Vec<f64>; 3],
}

impl Case {
    fn rows<E: OperandDtype>(&self, projection: u64, scale: f32) -> Vec<E> {
        let len = self.length * self.dim;
        (0..len)
            .map(|i| E::of(scale * number(self.seed * 10 + projection, i)))
            .collect()
    }

    fn table(&self) -> Vec<f32> {
        let half = self.dim / 2;
        let angle = |t: usize, d: usize| t as f32 * 0.01f32.powf(d as f32 / half as f32);
        (0..self.length)
            .flat_map(|t| {
                let cosines = (0..half).map(move |d| angle(t, d).cos());
                cosines.chain((0..half).map(move |d| angle(t, d).sin()))
            })
            .collect()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// The definition, in f64, on the same rounded operands.
    fn expected<E: OperandDtype>(&self) -> Results {
        let (n, dim) = (self.length, self.dim);
        let wide = |projection: u64, scale: f32| -> Vec<f64> {
            let rows = self.rows::<E>(projection, scale);
            let mut wide = vec![0.0; rows.len()];
            E::slice_to_f32(&rows, &mut wide);
            wide.into_iter().map(f64::from).collect()
        };
        let (mut q, mut k, v, d_out) = (wide(0, 2.0), wide(1, 2.0), wide(2, 1.0), wide(3, 1.0));
        let table: Vec<f64> = self.table().into_iter().map(f64::from).collect();
        let turn = |x: &mut [f64], direction: f64| {
            for (row, table) in x.chunks_exact_mut(dim).zip(table.chunks_exact(dim)) {
                for d in 0..dim / 2 {
                    let (a, b) = (row[d], row[d + dim / 2]);
                    let (cos, sin) = (table[d], direction * table[d + dim / 2]);
                    row[d] = a * cos - b * sin;
                    row[d + dim / 2] = b * cos + a * sin;
                }
            }
        };
        if self.rope {
            turn(&mut q, 1.0);
            turn(&mut k, 1.0);
        }
        let dot = |a: &[f64], i: usize, b: &[f64], j: usize| -> f64 {
            (0..dim).map(|d| a[i * dim + d] * b[j * dim + d]).sum()
        };
        let scale = f64::from(self.scale());
        let mut results = Results {
            out: vec![0.0; n * dim],
            lse: vec![0.0; n],
            gradients: std::array::from_fn(|_| vec![0.0; n * dim]),
        };
        for i in 0..n {
            let seen = |j: usize| self.half_window.is_none_or(|w| i.abs_diff(j) <= w);
            let keys: Vec<usize> = (0..n).filter(|j| seen(*j)).collect();
            let bounded: Vec<(f64, f64)> = keys
                .iter()
                .map(|&j| {
                    let s = scale * dot(&q, i, &k, j);
                    match self.softcap.map(f64::from) {
                        None => (s, 1.0),
                        Some(cap) => {
                            let t = (s / cap).tanh();
                            (cap * t, 1.0 - t * t)
                        }
                    }
                })
                .collect();
            let max = bounded.iter().map(|s| s.0).fold(f64::MIN, f64::max);
            let sum: f64 = bounded.iter().map(|s| (s.0 - max).exp()).sum();
            results.lse[i] = max + sum.ln();
            let p: Vec<f64> = bounded.iter().map(|s| (s.0 - max).exp() / sum).collect();
            for (&j, p) in keys.iter().zip(&p) {
                for d in 0..dim {
                    results.out[i * dim + d] += p * v[j * dim + d];
                }
            }
            let delta = dot(&results.out, i, &d_out, i);
            for ((&j, p), (_, slope)) in keys.iter().zip(&p).zip(&bounded) {
                let d_s = p * (dot(&d_out, i, &v, j) - delta) * slope * scale;
                let [d_q, d_k, d_v] = &mut results.gradients;
                for d in 0..dim {
                    d_q[i * dim + d] += d_s * k[j * dim + d];
                    d_k[j * dim + d] += d_s * q[i * dim + d];
                    d_v[j * dim + d] += p * d_out[i * dim + d];
                }
            }
        }
        if self.rope {
            turn(&mut results.gradients[0], -1.0);
            turn(&mut results.gradients[1], -1.0);
        }
        results
    }

    fn computed<E: OperandDtype>(&self, isa: InstructionSet) -> Results {
        let (n, dim) = (self.length, self.dim);
        let _guard = isa.enter();
        let qkv = [
            self.rows::<E>(0, 2.0),
            self.rows::<E>(1, 2.0),
            self.rows::<E>(2, 1.0),
        ]
        .concat();
        let table = self.table();
        let head = HeadView {
            qkv: &qkv,
            qkv_stride: n * dim,
            stride: dim,
            length: n,
            dim,
            scale: self.scale(),
            softcap: self.softcap,
            half_window: self.half_window,
            rotary: self.rope.then_some(table.as_slice()),
        };
        let (mut out, mut lse) = (vec![0.0f32; n * dim], vec![0.0f32; n]);
        // SAFETY: the unit is supported and entered.
        unsafe {
            head.forward(isa, &mut Scratch::new(n + 7, dim), |i, row, total| {
                lse[i] = total.log_sum_exp();
                for (to, x) in out[i * dim..][..dim].iter_mut().zip(row) {
                    *to = x * total.inverse();
                }
            });
        }
        let d_out = self.rows::<E>(3, 1.0);
        let rounded: Vec<E> = out.iter().map(|x| E::of(*x)).collect();
        let mut gradients: [Vec<E>; 3] = std::array::from_fn(|_| vec![E::of(f32::NAN); n * dim]);
        let starts = gradients
            .each_mut()
            .map(|projection| projection.as_mut_ptr());
        let task = Gradients {
            head,
            d_out: &d_out,
            out: &rounded,
            out_stride: dim,
            lse: &lse,
        };
        // SAFETY: as above; the places are rows of the three matrices.
        unsafe {
            let mut scratch = BackwardScratch::new(n + 70, dim);
            self.leave_nan(isa, &mut scratch, &head, &d_out);
            task.compute(isa, &mut scratch, |projection, rows| {
                TileMut::new(
                    starts[projection].add(rows.start * dim),
                    dim,
                    rows.len(),
                    dim,
                )
            });
        }
        let gradients = gradients.map(|projection| {
            let mut wide = vec![0.0; projection.len()];
            E::slice_to_f32(&projection, &mut wide);
            wide.into_iter().map(f64::from).collect()
        });
        Results {
            out: out.into_iter().map(f64::from).collect(),
            lse: lse.into_iter().map(f64::from).collect(),
            gradients,
        }
    }

    /// Leaves values that are not numbers in the buffers of a longer sequence.
    ///
    /// # Safety
    /// `isa` is entered.
    unsafe fn leave_nan<E: OperandDtype>(
        &self,
        isa: InstructionSet,
        scratch: &mut BackwardScratch<E>,
        head: &HeadView<'_, E>,
        d_out: &[E],
    ) {
        let length = self.length + 33;
        let qkv = vec![E::of(1.0); 3 * length * self.dim];
        let out = vec![E::of(f32::NAN); length * self.dim];
        let lse = vec![f32::NAN; length];
        let table = vec![1.0f32; length * self.dim];
        let mut unused = vec![E::of(0.0); length * self.dim];
        let start = unused.as_mut_ptr();
        let dim = self.dim;
        let longer = Gradients {
            head: HeadView {
                qkv: &qkv,
                qkv_stride: length * dim,
                length,
                rotary: head.rotary.map(|_| table.as_slice()),
                ..*head
            },
            d_out: &[d_out, &out[d_out.len()..]].concat(),
            out: &out,
            out_stride: dim,
            lse: &lse,
        };
        // SAFETY: the caller's promise; each part overwrites the one before.
        unsafe {
            longer.compute(isa, scratch, |_, rows| {
                TileMut::new(start.add(rows.start * dim), dim, rows.len(), dim)
            });
        }
    }

    /// Compares every result with the definition: the largest error is at most `tolerance` times the largest value.
    fn check<E: OperandDtype>(&self, tolerance: f64) {
        let expected = self.expected::<E>();
        for isa in InstructionSet::supported() {
            let found = self.computed::<E>(isa);
            let [q, k, v] = [0, 1, 2].map(|projection| {
                (
                    &found.gradients[projection],
                    &expected.gradients[projection],
                )
            });
            let named = [
                ("out", (&found.out, &expected.out)),
                ("lse", (&found.lse, &expected.lse)),
                ("d_q", q),
                ("d_k", k),
                ("d_v", v),
            ];
            for (name, (found, expected)) in named {
                // Gradients of queries and keys can vanish: a sequence of one token has none.
                let most = expected.iter().fold(0.02, |most: f64, x| most.max(x.abs()));
                for (i, (x, y)) in found.iter().zip(expected).enumerate() {
                    let error = (x - y).abs();
                    assert!(
                        error <= tolerance * most,
                        "{isa:?} {self:?} {name}[{i}]: {x} instead of {y}, largest {most}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn attention_and_gradients_are_their_definition(
        length in 1usize..150,
        dim in prop::sample::select(vec![8usize, 16, 32, 64, 80]),
        window in prop::option::of(0usize..70),
        softcap in prop::option::of(0.5f32..8.0),
        rope: bool,
        seed in 0u64..1000,
    ) {
        let case = Case { length, dim, half_window: window, softcap, rope, seed };
        case.check::<f32>(2e-5);
        case.check::<bf16>(3e-2);
    }
}

#[test]
fn sequences_of_several_chunks_are_their_definition() {
    for half_window in [None, Some(64), Some(600), Some(usize::MAX)] {
        for softcap in [None, Some(3.0)] {
            let case = Case {
                length: 1100,
                dim: 64,
                half_window,
                softcap,
                rope: true,
                seed: 7,
            };
            case.check::<f32>(2e-5);
            case.check::<bf16>(3e-2);
        }
    }
}

#[test]
fn a_token_that_is_not_a_number_reaches_results_and_gradients() {
    let case = Case {
        length: 40,
        dim: 64,
        half_window: None,
        softcap: None,
        rope: false,
        seed: 3,
    };
    let mut values = case.rows::<bf16>(0, 1.0);
    values.extend(case.rows::<bf16>(1, 1.0));
    values.extend(case.rows::<bf16>(2, 1.0));
    values[case.length * case.dim + 5] = bf16::NAN;
    for isa in InstructionSet::supported() {
        let _guard = isa.enter();
        let head = HeadView {
            qkv: &values,
            qkv_stride: case.length * case.dim,
            stride: case.dim,
            length: case.length,
            dim: case.dim,
            scale: 0.125,
            softcap: None,
            half_window: None,
            rotary: None,
        };
        let mut is_nan = true;
        // SAFETY: the unit is supported and entered.
        unsafe {
            head.forward(isa, &mut Scratch::new(40, 64), |_, row, total| {
                is_nan &= (row[0] * total.inverse()).is_nan();
            });
        }
        assert!(is_nan, "{isa:?}: every query sees the key");
    }
}
