//! Random weights: truncated normals as the published models were started from (`full_megatron`).
//!
//! | parameter | standard deviation before truncation |
//! |---|---|
//! | token embedding, `Wqkv`, `Wi`, dense of the MLM head | `initializer_range` (0.02) |
//! | `attn.Wo`, `mlp.Wo` | `initializer_range / sqrt(2 · layers)` |
//! | `classifier`, untied decoder | `1 / sqrt(hidden)` |
//! | biases | 0 |
//! | norm weights | 1 |
//!
//! Values beyond `initializer_cutoff_factor` (2) standard deviations are drawn again, which leaves 0.8796 of the
//! deviation. Source: the official repository, `src/bert_layers/initialization.py`; Hugging Face gives the dense of the
//! MLM head the deviation of the output projections instead.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::named::{NamedMapper, map_named};
use crate::config::ModernBertConfig;

/// Gives every parameter of `module` (an encoder, with or without head) a fresh random value.
///
/// Each tensor has a random stream of its own, chosen by `seed` and its name: the same on every backend, and
/// independent of what else the module holds.
pub fn initialize<M: Module>(module: M, config: &ModernBertConfig, seed: u64) -> M {
    map_named(module, &mut Initialize { config, seed })
}

struct Initialize<'a> {
    config: &'a ModernBertConfig,
    seed: u64,
}

impl NamedMapper for Initialize<'_> {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let deviation = self.deviation(name, D);
        let shape = value.dims();
        let count: usize = shape.iter().product();
        let values = match deviation {
            Deviation::Constant(x) => vec![x; count],
            Deviation::Normal(sigma) => {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ fingerprint(name));
                let cutoff = self.config.initializer_cutoff_factor;
                (0..count)
                    .map(|_| (sigma * truncated_normal(&mut rng, cutoff)) as f32)
                    .collect()
            }
        };
        Tensor::from_data(TensorData::new(values, shape), &value.device())
    }
}

enum Deviation {
    Constant(f32),
    Normal(f64),
}

impl Initialize<'_> {
    fn deviation(&self, name: &str, rank: usize) -> Deviation {
        let base = self.config.initializer_range;
        if name.ends_with("bias") {
            Deviation::Constant(0.0)
        } else if rank == 1 {
            Deviation::Constant(1.0)
        } else if name.ends_with("Wo.weight") {
            Deviation::Normal(base / (2.0 * self.config.num_hidden_layers as f64).sqrt())
        } else if name.starts_with("classifier") || name.starts_with("decoder") {
            Deviation::Normal(1.0 / (self.config.hidden_size as f64).sqrt())
        } else {
            Deviation::Normal(base)
        }
    }
}

/// A standard normal with values beyond `cutoff` drawn again (Box–Muller).
fn truncated_normal(rng: &mut ChaCha8Rng, cutoff: f64) -> f64 {
    loop {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let x = radius * (std::f64::consts::TAU * rng.random::<f64>()).cos();
        if x.abs() <= cutoff {
            return x;
        }
    }
}

/// FNV-1a of a name: a stable number for it.
fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
