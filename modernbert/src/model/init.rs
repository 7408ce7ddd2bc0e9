//! Random initialization: truncated normals, by the method of the published models (`full_megatron`).
//!
//! | parameter | standard deviation before truncation |
//! |---|---|
//! | token and position embedding, `Wqkv`, `Wi`, `Wqkvff`, dense of the MLM head | `initializer_range` (0.02) |
//! | `attn.Wo`, `mlp.Wo`, dense of a classifier's head | `initializer_range / sqrt(2 · layers)` |
//! | `classifier`, untied decoder | `1 / sqrt(hidden)` |
//! | biases | 0 |
//! | norm weights | 1 |
//! | slopes of `prelu` | 0.25 |
//!
//! Values beyond `initializer_cutoff_factor` (2) standard deviations are drawn again, which leaves 0.8796 of the
//! deviation. Source: the official repository, `src/bert_layers/initialization.py`; Hugging Face initializes the dense layer of the
//! MLM head with the deviation of the output projections too.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::activation::PRELU_SLOPE;
use super::named::{NamedMapper, map_named, named_parameters};
use crate::config::ModernBertConfig;

/// Method of initialization, as in the official repository.
///
/// `dim` is the width a matrix reads (its columns), `L` the number of layers, `std` is `initializer_range`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitMethod {
    /// The published models' method, see the table in the module docs.
    #[default]
    FullMegatron,
    /// Normal with deviation `std`, never truncated; the row of the padding token is zero.
    Default,
    /// Normal with deviation `std`, truncated at the config's factor; `Wo` of attention and MLP divided by `sqrt(2 L)`.
    Normal,
    /// Normal with deviation `1 / sqrt(dim)`, truncated at 3; both `Wo` of layer `i` divided by `sqrt(2 (i + 1))`.
    Mitchell,
    /// Normal with deviation `sqrt(2 / dim)`, never truncated.
    KaimingNormal,
    /// Normal with deviation `1 / sqrt(dim)`, never truncated.
    FanIn,
}

/// Two settings that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a small token embedding can't be combined with full_megatron; choose another initialization, or leave the embedding as it is"
)]
pub struct InitError;

/// Initializes every parameter of `module` (an encoder, with or without head) by the published method.
///
/// Each tensor has a random stream of its own, chosen by `seed` and its name: the same on every backend, and
/// independent of the other parameters.
pub fn initialize<M: Module>(module: M, config: &ModernBertConfig, seed: u64) -> M {
    draw(module, config, InitMethod::FullMegatron, false, seed)
}

/// As [`initialize`], by another method. With `small_embedding` the token embedding is uniform within 1e-4 of zero.
///
/// # Errors
/// A small embedding with [`InitMethod::FullMegatron`].
pub fn initialize_with<M: Module>(
    module: M,
    config: &ModernBertConfig,
    method: InitMethod,
    small_embedding: bool,
    seed: u64,
) -> Result<M, InitError> {
    if small_embedding && method == InitMethod::FullMegatron {
        return Err(InitError);
    }
    Ok(draw(module, config, method, small_embedding, seed))
}

fn draw<M: Module>(
    module: M,
    config: &ModernBertConfig,
    method: InitMethod,
    small_embedding: bool,
    seed: u64,
) -> M {
    let classifies = named_parameters(&module)
        .iter()
        .any(|(name, _)| name.starts_with("classifier."));
    let mut mapper = Initialize {
        config,
        classifies,
        method,
        small_embedding,
        seed,
    };
    map_named(module, &mut mapper)
}

/// Numbers drawn from one stream of the generator.
const STREAM: usize = 1 << 16;

/// `count` numbers by `draw`, on all cores: the same ones on any number of cores, because each stream has its own numbers.
fn drawn(count: usize, seed: u64, draw: impl Fn(&mut ChaCha8Rng) -> f64 + Sync) -> Vec<f32> {
    let mut values = vec![0.0f32; count];
    let streams = values.par_chunks_mut(STREAM).enumerate();
    streams.for_each(|(stream, values)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream as u64);
        values.fill_with(|| draw(&mut rng) as f32);
    });
    values
}

struct Initialize<'a> {
    config: &'a ModernBertConfig,
    /// True if the module's head is a classifier.
    classifies: bool,
    method: InitMethod,
    small_embedding: bool,
    seed: u64,
}

impl NamedMapper for Initialize<'_> {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let shape = value.dims();
        let count: usize = shape.iter().product();
        let seed = self.seed ^ fingerprint(name);
        let mut values = match self.distribution(name, &shape) {
            Distribution::Constant(x) => vec![x; count],
            Distribution::Uniform(bound) => {
                drawn(count, seed, |rng| bound * (2.0 * rng.random::<f64>() - 1.0))
            }
            Distribution::Normal { sigma, cutoff } => {
                drawn(count, seed, |rng| sigma * truncated_normal(rng, cutoff))
            }
        };
        if self.method == InitMethod::Default
            && name.ends_with(EMBEDDING)
            && let (Some(pad), [_, width]) = (self.config.pad_token_id, &shape[..])
            && let Some(row) = values.chunks_mut(*width).nth(pad as usize)
        {
            row.fill(0.0);
        }
        Tensor::from_data(TensorData::new(values, shape), &value.device())
    }
}

const EMBEDDING: &str = "tok_embeddings.weight";

enum Distribution {
    Constant(f32),
    Uniform(f64),
    /// Truncated at `cutoff` deviations.
    Normal {
        sigma: f64,
        cutoff: f64,
    },
}

impl Initialize<'_> {
    fn distribution(&self, name: &str, shape: &[usize]) -> Distribution {
        if name.ends_with("bias") {
            return Distribution::Constant(0.0);
        }
        if name.ends_with("act.weight") {
            return Distribution::Constant(PRELU_SLOPE);
        }
        let &[_, dim] = shape else {
            return Distribution::Constant(1.0);
        };
        if self.small_embedding && name.ends_with(EMBEDDING) {
            return Distribution::Uniform(1e-4);
        }
        let config = self.config;
        let base = config.initializer_range;
        let output =
            name.ends_with("Wo.weight") || (self.classifies && name.ends_with("head.dense.weight"));
        let by_depth = (2.0 * config.num_hidden_layers as f64).sqrt();
        let by_dim = 1.0 / (dim as f64).sqrt();
        let cut = config.initializer_cutoff_factor;
        let (sigma, cutoff) = match self.method {
            InitMethod::FullMegatron if output => (base / by_depth, cut),
            InitMethod::FullMegatron
                if name.starts_with("classifier") || name.starts_with("decoder") =>
            {
                (1.0 / (config.hidden_size as f64).sqrt(), cut)
            }
            InitMethod::FullMegatron => (base, cut),
            InitMethod::Default => (base, f64::INFINITY),
            InitMethod::Normal if output => (base / by_depth, cut),
            InitMethod::Normal => (base, cut),
            InitMethod::Mitchell => match layer_of(name).filter(|_| output) {
                Some(layer) => (by_dim / (2.0 * (layer as f64 + 1.0)).sqrt(), 3.0),
                None => (by_dim, 3.0),
            },
            InitMethod::KaimingNormal => (std::f64::consts::SQRT_2 * by_dim, f64::INFINITY),
            InitMethod::FanIn => (by_dim, f64::INFINITY),
        };
        Distribution::Normal { sigma, cutoff }
    }
}

/// The layer a parameter belongs to.
fn layer_of(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once("layers.")?;
    rest.split('.').next()?.parse().ok()
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
