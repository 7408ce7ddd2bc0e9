//! The encoder against its definition in f64, on every instruction set of this processor.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use cpu_encoder::{Builder, EncoderDtype, EncoderSizes, Layer, PackedEncoder, WeightMatrix};
use cpu_gemm::{InstructionSet, Team};
use proptest::prelude::*;

/// Numbers of a hash, in [-1, 1).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn vector(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.next() * scale).collect()
    }

    /// A norm's weight.
    fn norm(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| 1.0 + 0.2 * self.next()).collect()
    }
}

struct Parameters {
    half_window: Option<usize>,
    frequencies: Option<Vec<f32>>,
    attention_norm: Option<Vec<f32>>,
    wqkv: Vec<f32>,
    attention_out: Vec<f32>,
    mlp_norm: Vec<f32>,
    wi: Vec<f32>,
    mlp_out: Vec<f32>,
}

struct Model {
    sizes: EncoderSizes,
    layers: Vec<Parameters>,
    final_norm: Vec<f32>,
}

impl Model {
    fn new(
        hidden: usize,
        heads: usize,
        head_dim: usize,
        inner: usize,
        layers: usize,
        seed: u64,
    ) -> Self {
        let mut numbers = Numbers(seed);
        let width = heads * head_dim;
        let size = |inner: usize| 1.7 / (inner as f32).sqrt();
        let frequencies = |theta: f32| {
            (0..head_dim / 2)
                .map(|d| theta.powf(-2.0 * d as f32 / head_dim as f32))
                .collect()
        };
        let layers = (0..layers)
            .map(|i| Parameters {
                half_window: (i % 3 != 0).then_some(5 + 20 * (i % 2)),
                frequencies: (i != 2)
                    .then(|| frequencies(if i % 3 == 0 { 160_000.0 } else { 10_000.0 })),
                attention_norm: (i > 0).then(|| numbers.norm(hidden)),
                wqkv: numbers.vector(3 * width * hidden, size(hidden)),
                attention_out: numbers.vector(hidden * width, size(width)),
                mlp_norm: numbers.norm(hidden),
                wi: numbers.vector(2 * inner * hidden, size(hidden)),
                mlp_out: numbers.vector(hidden * inner, size(inner)),
            })
            .collect();
        Self {
            sizes: EncoderSizes {
                hidden,
                heads,
                head_dim,
                intermediate_size: inner,
                eps: 1e-5,
            },
            layers,
            final_norm: numbers.norm(hidden),
        }
    }

    fn encoder(&self, format: EncoderDtype, isa: InstructionSet, threads: usize) -> PackedEncoder {
        let mut builder = Builder::new(self.sizes, format, isa, Team::new(threads).unwrap());
        for layer in &self.layers {
            builder.push(&Layer {
                half_window: layer.half_window,
                frequencies: layer.frequencies.as_deref(),
                attention_norm: layer.attention_norm.as_deref(),
                wqkv: WeightMatrix::Float(&layer.wqkv),
                attention_out: WeightMatrix::Float(&layer.attention_out),
                mlp_norm: &layer.mlp_norm,
                wi: WeightMatrix::Float(&layer.wi),
                mlp_out: WeightMatrix::Float(&layer.mlp_out),
            });
        }
        builder.build(&self.final_norm)
    }

    /// The definition, in f64: states before each layer, and the result.
    fn reference(&self, input: &[f32], lengths: &[usize]) -> (Vec<Vec<f64>>, Vec<f64>) {
        let EncoderSizes {
            hidden,
            heads,
            head_dim,
            intermediate_size: inner,
            eps,
        } = self.sizes;
        let width = heads * head_dim;
        let total: usize = lengths.iter().sum();
        let mut x: Vec<f64> = input.iter().map(|&x| f64::from(x)).collect();
        let norm = |x: &[f64], weight: &[f32]| -> Vec<f64> {
            x.chunks(hidden)
                .flat_map(|row| {
                    let mean = row.iter().sum::<f64>() / hidden as f64;
                    let variance =
                        row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / hidden as f64;
                    let inverse = 1.0 / (variance + f64::from(eps)).sqrt();
                    row.iter()
                        .zip(weight)
                        .map(|(x, w)| (x - mean) * inverse * f64::from(*w))
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let times = |x: &[f64], weight: &[f32], k: usize| -> Vec<f64> {
            x.chunks(k)
                .flat_map(|row| {
                    weight
                        .chunks(k)
                        .map(|w| row.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum())
                        .collect::<Vec<f64>>()
                })
                .collect()
        };
        let mut states = Vec::new();
        for layer in &self.layers {
            states.push(x.clone());
            let normed = match &layer.attention_norm {
                Some(weight) => norm(&x, weight),
                None => x.clone(),
            };
            let qkv = times(&normed, &layer.wqkv, hidden);
            let mut attended = vec![0.0; total * width];
            let mut first = 0;
            for &length in lengths {
                for head in 0..heads {
                    let part = |token: usize, part: usize| -> Vec<f64> {
                        let start = (first + token) * 3 * width + part * width + head * head_dim;
                        let row = &qkv[start..][..head_dim];
                        let Some(frequencies) = layer.frequencies.as_ref().filter(|_| part < 2)
                        else {
                            return row.to_vec();
                        };
                        let half = head_dim / 2;
                        let mut out = row.to_vec();
                        for d in 0..half {
                            let angle = token as f64 * f64::from(frequencies[d]);
                            out[d] = row[d] * angle.cos() - row[half + d] * angle.sin();
                            out[half + d] = row[half + d] * angle.cos() + row[d] * angle.sin();
                        }
                        out
                    };
                    for i in 0..length {
                        let query = part(i, 0);
                        let sees =
                            |j: usize| layer.half_window.is_none_or(|half| i.abs_diff(j) <= half);
                        let scores: Vec<(usize, f64)> = (0..length)
                            .filter(|&j| sees(j))
                            .map(|j| {
                                (
                                    j,
                                    query
                                        .iter()
                                        .zip(part(j, 1))
                                        .map(|(q, k)| q * k)
                                        .sum::<f64>()
                                        / (head_dim as f64).sqrt(),
                                )
                            })
                            .collect();
                        let sum: f64 = scores.iter().map(|(_, score)| score.exp()).sum();
                        for (j, score) in scores {
                            let p = score.exp() / sum;
                            for (d, v) in part(j, 2).into_iter().enumerate() {
                                attended[(first + i) * width + head * head_dim + d] += p * v;
                            }
                        }
                    }
                }
                first += length;
            }
            for (x, y) in x
                .iter_mut()
                .zip(times(&attended, &layer.attention_out, width))
            {
                *x += y;
            }
            let u = times(&norm(&x, &layer.mlp_norm), &layer.wi, hidden);
            let gated: Vec<f64> = u
                .chunks(2 * inner)
                .flat_map(|row| {
                    (0..inner)
                        .map(|j| gelu(row[j]) * row[inner + j])
                        .collect::<Vec<_>>()
                })
                .collect();
            for (x, y) in x.iter_mut().zip(times(&gated, &layer.mlp_out, inner)) {
                *x += y;
            }
        }
        let last = norm(&x, &self.final_norm);
        (states, last)
    }
}

/// `x Φ(x)`, by the series of erf where it converges fast and by its continued fraction elsewhere.
fn gelu(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let erf = if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = 0.0;
        for n in (1..60).rev() {
            fraction = f64::from(n) / 2.0 / (z + fraction);
        }
        1.0 - (-z * z).exp() / ((z + fraction) * std::f64::consts::PI.sqrt())
    };
    x * 0.5 * (1.0 + erf.copysign(x))
}

fn boundaries(lengths: &[usize]) -> Vec<u32> {
    let mut ends = vec![0];
    for length in lengths {
        ends.push(ends[ends.len() - 1] + *length as u32);
    }
    ends
}

/// Root mean square of the difference over that of the values.
fn distance(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square: f64 = found
        .iter()
        .zip(expected)
        .map(|(x, y)| (f64::from(*x) - y).powi(2))
        .sum();
    let size: f64 = expected.iter().map(|y| y * y).sum();
    (square / size).sqrt()
}

/// Largest allowed relative error of each format: about three times the measured error.
fn limit(format: EncoderDtype) -> f64 {
    match format {
        EncoderDtype::F32 => 2e-6,
        EncoderDtype::Bf16 => 2e-2,
        EncoderDtype::Int8 => 4e-2,
    }
}

const FORMATS: [EncoderDtype; 3] = [EncoderDtype::F32, EncoderDtype::Bf16, EncoderDtype::Int8];

fn check(model: &Model, lengths: &[usize], seed: u64) {
    let total: usize = lengths.iter().sum();
    let input = Numbers(seed).vector(total * model.sizes.hidden, 1.5);
    let (states, expected) = model.reference(&input, lengths);
    for format in FORMATS {
        for isa in InstructionSet::supported() {
            let encoder = model.encoder(format, isa, 2);
            let found = encoder.forward(input.clone(), &boundaries(lengths));
            let error = distance(&found, &expected);
            assert!(
                error < limit(format),
                "{format:?} on {isa}, {lengths:?}: {error:e}"
            );
            let (between, last) = encoder.hidden_states(input.clone(), &boundaries(lengths));
            assert!(
                last.iter()
                    .zip(&found)
                    .all(|(x, y)| x.to_bits() == y.to_bits())
            );
            assert_eq!(between.len(), states.len());
            for (between, states) in between.iter().zip(&states) {
                assert!(distance(between, states) < limit(format));
            }
        }
    }
}

#[test]
fn values_are_those_of_the_definition() {
    let model = Model::new(64, 2, 32, 96, 4, 1);
    // One batch that goes through the phases by panels, one by blocks of rows.
    check(&model, &[7, 1, 23], 2);
    check(&model, &[70, 1, 0, 40, 33, 64], 3);
}

#[test]
fn widths_that_fill_no_tile_are_padded() {
    let model = Model::new(40, 2, 20, 28, 3, 5);
    check(&model, &[3, 50], 6);
    check(&model, &[90, 41, 17], 7);
    let one = Model::new(8, 1, 2, 3, 1, 8);
    check(&one, &[1], 9);
}

#[test]
fn sequences_longer_than_a_chunk_of_keys_are_exact() {
    let model = Model::new(32, 1, 32, 32, 2, 10);
    check(&model, &[1100, 513], 11);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shape_and_batch_has_the_values_of_the_definition(
        heads in 1usize..4,
        half in 1usize..20,
        inner in 1usize..70,
        hidden in 2usize..70,
        layers in 1usize..4,
        lengths in proptest::collection::vec(0usize..60, 1..6),
        seed in 0u64..1000,
    ) {
        prop_assume!(lengths.iter().sum::<usize>() > 0);
        // Few elements have no meaningful average error.
        let hidden = hidden + 30;
        check(&Model::new(hidden, heads, 2 * half, inner, layers, seed), &lengths, seed + 1);
    }
}

#[test]
fn a_sequence_has_the_same_bits_in_every_batch_and_with_any_number_of_threads() {
    let model = Model::new(96, 3, 32, 64, 4, 20);
    let lengths = [40, 17, 130, 64, 3];
    let mut numbers = Numbers(21);
    let inputs: Vec<Vec<f32>> = lengths
        .iter()
        .map(|length| numbers.vector(length * 96, 1.0))
        .collect();
    for format in FORMATS {
        for isa in InstructionSet::supported() {
            let together = model
                .encoder(format, isa, 3)
                .forward(inputs.concat(), &boundaries(&lengths));
            let alone = model.encoder(format, isa, 1);
            let mut first = 0;
            for (input, length) in inputs.iter().zip(lengths) {
                let found = alone.forward(input.clone(), &[0, length as u32]);
                let expected = &together[first..first + length * 96];
                assert!(
                    found
                        .iter()
                        .zip(expected)
                        .all(|(x, y)| x.to_bits() == y.to_bits()),
                    "{format:?} on {isa}"
                );
                first += length * 96;
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_reach_the_result() {
    let model = Model::new(64, 2, 32, 96, 3, 30);
    for format in FORMATS {
        for isa in InstructionSet::supported() {
            let encoder = model.encoder(format, isa, 2);
            for bad in [f32::NAN, f32::INFINITY] {
                let mut input = Numbers(31).vector(20 * 64, 1.0);
                input[5 * 64 + 3] = bad;
                let found = encoder.forward(input, &[0, 12, 20]);
                // The token's own row is not finite; the other sequence is.
                assert!(
                    found[5 * 64..6 * 64].iter().all(|x| !x.is_finite()),
                    "{format:?} on {isa}"
                );
                assert!(found[12 * 64..].iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn an_empty_batch_has_no_rows() {
    let encoder =
        Model::new(32, 1, 32, 32, 2, 40).encoder(EncoderDtype::Bf16, InstructionSet::detected(), 2);
    assert_eq!(encoder.forward(Vec::new(), &[0]), Vec::<f32>::new());
    let (states, last) = encoder.hidden_states(Vec::new(), &[0, 0]);
    assert_eq!((states.len(), last.len()), (2, 0));
}

/// One value far beyond the others, which no weight reads: with one code of 8 bits for the row, the others would all be rounded away.
#[test]
fn an_outlier_of_a_token_does_not_cost_its_other_values_in_int8() {
    let hidden = 320;
    let mut model = Model::new(hidden, 2, 32, 64, 1, 50);
    let layer = &mut model.layers[0];
    for matrix in [&mut layer.wqkv, &mut layer.wi] {
        matrix.iter_mut().step_by(hidden).for_each(|w| *w = 0.0);
    }
    let lengths = [9, 30];
    let mut input = Numbers(51).vector(39 * hidden, 1.0);
    input.iter_mut().step_by(hidden).for_each(|x| *x = 200.0);
    let (_, expected) = model.reference(&input, &lengths);
    let others = |values: &[f64]| -> Vec<f64> {
        let rows = values.chunks(hidden);
        rows.flat_map(|row| row[1..].to_vec()).collect()
    };
    for isa in InstructionSet::supported() {
        let encoder = model.encoder(EncoderDtype::Int8, isa, 2);
        let found = encoder.forward(input.clone(), &boundaries(&lengths));
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        let found: Vec<f32> = others(&found).into_iter().map(|x| x as f32).collect();
        let error = distance(&found, &others(&expected));
        assert!(error < 1e-2, "{isa}: {error:e}");
    }
}
