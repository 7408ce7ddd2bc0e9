//! Memory of a recipe, by formula.

use modernbert::config::flexbert::{LayerSpec, NormKind};
use modernbert::config::{Activation, ModernBertConfig};
use modernbert::device::{NamedDevice, total_memory};
use modernbert::ops::cross_entropy::{DecoderSpec, SMALL_CHUNK, chunk_bytes};

use super::error::{Result, invalid};
use crate::mask::label_cap;
use crate::recipe::{Phase, Recipe};

/// Name of the CPU device, on which a readback costs nothing and memory is that of the machine.
pub(super) const CPU: &str = "flex";

/// Bytes that training needs at its peak, by purpose: the sum of the tensors. Not included are temporaries of single operations and, where
/// memory is allocated in pages (CubeCL's pools), the gaps in them; together they add a tenth to a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TrainingMemory {
    /// Weights, gradients, two moments and, where weights are averaged, the average of every parameter, in f32.
    pub state: u64,
    /// Activations of a micro-batch saved for backward in the layers, and the residual stream between them.
    pub activations: u64,
    /// Scores over the vocabulary of a chunk of labelled rows with their gradient, and the gradient of the decoder's weight.
    pub logits: u64,
}

impl TrainingMemory {
    /// The estimate for a model trained by a recipe (of one phase) on a device whose decoder scores chunks of at most `chunk_bytes`
    /// ([`chunk_bytes`](modernbert::ops::cross_entropy::chunk_bytes)).
    ///
    /// Of each token a layer saves, in the dtype of the GEMMs: the two normalized inputs, queries, keys and values, the result of
    /// attention and the input of GeGLU, `6 hidden + 2 intermediate` numbers; in f32 the log-sum-exps and the norms' inverse deviations.
    /// In f32 the norms save their inputs as well. Measured: docs/performance.md. Parts that are composed of tensor operations save more, see
    /// docs/flexbert.md.
    pub fn of(config: &ModernBertConfig, recipe: &Recipe, chunk_bytes: usize) -> Self {
        let tokens = recipe.batch.tokens as u128;
        let hidden = config.hidden_size as u128;
        let vocab = config.vocab_size as u128;
        let dtype = recipe.precision().dtype();
        let size = match recipe.run.precision {
            crate::recipe::TrainingPrecision::Bf16 => 2,
            crate::recipe::TrainingPrecision::F32 => 4,
        };
        let spec = config.spec();
        let layers = spec.layers.len() as u128;
        let of_layer = |layer| saved_of_token(layer, recipe, hidden, size);
        let layer = spec.layers.iter().map(of_layer).max().unwrap_or(0);
        let all_layers: u128 = spec.layers.iter().map(of_layer).sum();
        // With activation checkpointing a layer saves its input, and one layer at a time the other activations.
        let of_token = match recipe.batch.recompute {
            true => layer + layers * hidden * 4,
            false => all_layers,
        };
        // The stream and its gradient in f32, and a branch that is added to it.
        let stream = 3 * 4 * hidden;
        let labelled = label_cap(recipe.batch.tokens, recipe.mask.train) as u128;
        let chunk = DecoderSpec::with_chunks(true, config.vocab_size, dtype, chunk_bytes).rows;
        let scores = labelled.min(chunk as u128) * vocab * size * 2;
        // The head's four tensors of a labelled row: its input, dense layer, activation and norm.
        let head = labelled * hidden * 4 * 4;
        let of_parameter = 16 + if recipe.average().is_some() { 4 } else { 0 };
        let bytes = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
        Self {
            state: config.mlm_parameters().saturating_mul(of_parameter),
            activations: bytes(tokens * (of_token + stream) + head),
            logits: bytes(scores + 2 * 4 * vocab * hidden),
        }
    }

    /// The sum of all purposes.
    pub fn total(&self) -> u64 {
        self.passes().saturating_add(self.state)
    }

    /// All that depends on the micro-batch.
    fn passes(&self) -> u64 {
        self.activations.saturating_add(self.logits)
    }
}

/// Bytes that a layer saves of each token, with `size` bytes for a number of the GEMMs.
fn saved_of_token(layer: &LayerSpec, recipe: &Recipe, hidden: u128, size: u128) -> u128 {
    let (attention, mlp) = (&layer.attention, &layer.mlp);
    let norms = if layer.is_parallel() { 1 } else { 2 };
    let width = attention.width() as u128;
    let inner = mlp.inner as u128;
    // Queries, keys and values of all heads, the result of attention, the input of the activation.
    let mut numbers = norms * hidden + 4 * width + mlp.in_rows() as u128;
    if !mlp.gated || mlp.activation != Activation::Gelu {
        // The steps of a composed activation, and its result.
        numbers += 3 * inner;
    }
    let mut bytes = numbers * size + 4 * attention.heads as u128 + 8;
    match layer.norm.kind {
        NormKind::Rmsnorm => bytes += norms * 3 * 4 * hidden,
        NormKind::Layernorm if size == 4 => bytes += norms * 4 * hidden,
        NormKind::Layernorm => {}
    }
    if attention.is_composed() || recipe.dropout.attention_probabilities > 0.0 {
        let length = recipe.data.sequence_length;
        let keys = attention
            .half_window
            .map_or(length, |half| length.min(2 * half + 64));
        // Scores and probabilities in f32, and queries, keys and values in f32.
        bytes += 3 * 4 * (attention.heads * keys) as u128 + 3 * 4 * width;
    }
    bytes
}

/// A number of bytes that Linux reports about the machine's memory.
fn reported(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(1024 * kilobytes)
}

/// Memory available to new programs, in bytes, on Linux.
fn available() -> Option<u64> {
    reported("MemAvailable")
}

/// Refuses phases that the machine could not hold with all of its memory and swap, before any work.
///
/// # Errors
/// The first of them, with the sizes.
pub(super) fn check(phases: &[Phase]) -> Result<()> {
    let Some(memory) = reported("MemTotal") else {
        return Ok(());
    };
    let whole = memory.saturating_add(reported("SwapTotal").unwrap_or(0));
    for Phase { name, recipe } in phases {
        // Sizes that make no model are reported where the model is made.
        if let Ok(config) = recipe.model.config(recipe.data.tokenizer_vocab) {
            let needed = TrainingMemory::of(&config, recipe, SMALL_CHUNK);
            check_phase(name, &needed, ("this machine", whole))?;
        }
    }
    Ok(())
}

/// Refuses phases that a device could not hold with all of its own memory, before any of it is allocated. Devices whose memory is not known
/// are not checked.
///
/// # Errors
/// The first of them, with the sizes.
pub(super) fn check_device<'a>(
    phases: impl IntoIterator<Item = (&'a Phase, &'a ModernBertConfig)>,
    device: &NamedDevice,
) -> Result<()> {
    let Some(whole) = total_memory(&device.device) else {
        return Ok(());
    };
    for (Phase { name, recipe }, config) in phases {
        let needed = TrainingMemory::of(config, recipe, chunk_bytes(&device.device));
        check_phase(name, &needed, (&device.name, whole))?;
    }
    Ok(())
}

fn check_phase(name: &str, needed: &TrainingMemory, (owner, whole): (&str, u64)) -> Result<()> {
    // Weights and moments are exact. Of a pass at least half is needed, since buffers are used again.
    let least = needed.state.saturating_add(needed.passes() / 2);
    if least <= whole {
        return Ok(());
    }
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let of_phase = if name.is_empty() {
        String::new()
    } else {
        format!("phase {name}: ")
    };
    invalid(format!(
        "{of_phase}training takes about {:.1} GB ({:.1} for weights and moments, {:.1} for a micro-batch), and {owner} has {:.1} GB; {}",
        gigabytes(needed.total()),
        gigabytes(needed.state),
        gigabytes(needed.passes()),
        gigabytes(whole),
        crate::engine::SMALLER_STEP
    ))
}

/// Returns a warning if the recipe may not fit into the memory of the device: a system without free memory kills the process without a
/// message. Where the memory is not known, returns the memory that the phase takes.
pub(super) fn warning(
    config: &ModernBertConfig,
    recipe: &Recipe,
    device: &NamedDevice,
) -> Option<String> {
    let needed = TrainingMemory::of(config, recipe, chunk_bytes(&device.device));
    let takes = format!(
        "this phase takes about {:.1} GB ({:.1} for weights and moments, {:.1} for a micro-batch)",
        needed.total() as f64 / 1e9,
        needed.state as f64 / 1e9,
        needed.passes() as f64 / 1e9,
    );
    let (there, what) = if device.name == CPU {
        (available()?, "are free".to_string())
    } else if let Some(whole) = total_memory(&device.device) {
        (whole, format!("is the memory of {}", device.name))
    } else {
        return Some(format!(
            "{takes}; the memory of {} is not known",
            device.name
        ));
    };
    (needed.total() > there).then(|| {
        format!(
            "warning: {takes}, {:.1} GB {what}; {}",
            there as f64 / 1e9,
            crate::engine::SMALLER_STEP
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::builtin;
    use modernbert::ops::cross_entropy::LARGE_CHUNK;

    #[test]
    fn the_estimate_is_the_measured_sum_of_saved_tensors() {
        // docs/performance.md: 910 MB a layer at 65,536 tokens of base in bf16, 20.0 GB in 22 layers; the driver saw 25.8 GB.
        let mut recipe = base();
        recipe.batch.tokens = 65_536;
        let config = recipe.model.config(50_368).unwrap();
        let memory = TrainingMemory::of(&config, &recipe, LARGE_CHUNK);
        let stream_and_head = 65_536 * 12 * 768 + label_cap(65_536, 0.3) as u64 * 768 * 16;
        let layers = (memory.activations - stream_and_head) as f64 / 1e9;
        assert!((layers - 20.0).abs() < 0.05, "{layers}");
        let total = memory.total() as f64 / 1e9;
        assert!((23.0..25.8).contains(&total), "{total}");
        recipe.batch.recompute = true;
        let less = TrainingMemory::of(&config, &recipe, LARGE_CHUNK);
        assert!(less.activations * 3 < memory.activations, "{less:?}");
    }

    fn base() -> Recipe {
        let recipe = builtin("base").unwrap().unwrap();
        recipe.phases().unwrap().remove(0).recipe
    }

    #[test]
    fn scores_are_those_of_a_chunk_on_the_device() {
        let recipe = base();
        let config = recipe.model.config(50_368).unwrap();
        let of = |bytes| TrainingMemory::of(&config, &recipe, bytes);
        let (cpu, cuda) = (of(SMALL_CHUNK), of(LARGE_CHUNK));
        // 640 and 5248 rows of scores in bf16, each with its gradient.
        assert_eq!(cuda.logits - cpu.logits, (5248 - 640) * 50_368 * 2 * 2);
        assert_eq!((cuda.state, cuda.activations), (cpu.state, cpu.activations));
    }

    #[test]
    fn a_micro_batch_half_as_long_takes_half() {
        let recipe = base();
        let config = recipe.model.config(50_368).unwrap();
        let whole = TrainingMemory::of(&config, &recipe, LARGE_CHUNK);
        let mut half = recipe.clone();
        half.batch.tokens /= 2;
        let half = TrainingMemory::of(&config, &half, LARGE_CHUNK);
        assert_eq!(half.state, whole.state);
        let ratio = whole.activations as f64 / half.activations as f64;
        assert!((ratio - 2.0).abs() < 1e-3, "{ratio}");
        // 98,304 tokens: the driver saw 44.7 GB with dropout and pages.
        assert!(
            (30e9..44.7e9).contains(&(whole.total() as f64)),
            "{whole:?}"
        );
        // More than any machine has: the warning precedes the run.
        let mut endless = recipe;
        endless.batch.tokens = 1 << 40;
        if available().is_some() {
            let cpu = modernbert::device::select(Some(CPU)).unwrap();
            let text = warning(&config, &endless, &cpu).unwrap();
            assert!(
                text.contains("GB are free") && text.contains("batch.tokens"),
                "{text}"
            );
            let phase = Phase {
                name: "long".to_string(),
                recipe: endless,
            };
            let error = check(&[phase]).unwrap_err().to_string();
            assert!(
                error.contains("phase long: training takes about")
                    && error.contains("batch.tokens"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_phase_is_refused_where_half_of_its_passes_and_its_state_do_not_fit() {
        let needed = TrainingMemory {
            state: 100,
            activations: 60,
            logits: 40,
        };
        assert!(check_phase("", &needed, ("cuda:0", 150)).is_ok());
        let refused = check_phase("", &needed, ("cuda:0", 149)).unwrap_err();
        assert!(refused.to_string().contains("and cuda:0 has"), "{refused}");
        let endless = TrainingMemory {
            state: u64::MAX,
            activations: u64::MAX,
            logits: u64::MAX,
        };
        assert!(check_phase("", &endless, ("cuda:0", u64::MAX - 1)).is_err());
    }
}
