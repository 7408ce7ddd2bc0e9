//! Memory of a recipe, by formula.

use modernbert::config::ModernBertConfig;
use modernbert::ops::cross_entropy::{DecoderSpec, LARGE_CHUNK as CHUNK_BYTES};

use crate::mask::label_cap;
use crate::recipe::Recipe;

/// Bytes that training needs at its peak, by purpose: the sum of the tensors. Not included are temporaries of single operations and, where
/// memory is allocated in pages (CubeCL's pools), the gaps in them; together they add a tenth to a third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TrainingMemory {
    /// Weights, gradients and two moments of every parameter, in f32.
    pub state: u64,
    /// Activations of a micro-batch saved for backward in the layers, and the residual stream between them.
    pub activations: u64,
    /// Scores over the vocabulary of a chunk of labelled rows with their gradient, and the gradient of the decoder's weight.
    pub logits: u64,
}

impl TrainingMemory {
    /// The estimate for a model trained by a recipe (of one phase).
    ///
    /// Of each token a layer saves, in the dtype of the GEMMs: the two normalized inputs, queries, keys and values, the result of
    /// attention and the input of GeGLU, `6 hidden + 2 intermediate` numbers; in f32 the log-sum-exps and the norms' inverse deviations.
    /// In f32 the norms save their inputs as well. Measured: docs/performance.md.
    pub fn of(config: &ModernBertConfig, recipe: &Recipe) -> Self {
        let tokens = recipe.batch.tokens as u64;
        let (hidden, intermediate) = (config.hidden_size as u64, config.intermediate_size as u64);
        let layers = config.num_hidden_layers as u64;
        let vocab = config.vocab_size as u64;
        let dtype = recipe.precision().dtype();
        let (size, norm_inputs) = match recipe.run.precision {
            crate::recipe::TrainingPrecision::Bf16 => (2, 0),
            crate::recipe::TrainingPrecision::F32 => (4, 2 * 4 * hidden),
        };
        let heads = config.num_attention_heads as u64;
        let layer = (6 * hidden + 2 * intermediate) * size + norm_inputs + 4 * heads + 8;
        // With activation checkpointing a layer saves its input, and one layer at a time the other activations.
        let of_token = match recipe.batch.recompute {
            true => layer + layers * hidden * 4,
            false => layers * layer,
        };
        // The stream and its gradient in f32, and a branch that is added to it.
        let stream = 3 * 4 * hidden;
        let labelled = label_cap(recipe.batch.tokens, recipe.mask.train) as u64;
        let chunk = DecoderSpec::with_chunks(true, config.vocab_size, dtype, CHUNK_BYTES).rows;
        let scores = labelled.min(chunk as u64) * vocab * size * 2;
        // The head's four tensors of a labelled row: its input, dense layer, activation and norm.
        let head = labelled * hidden * 4 * 4;
        Self {
            state: 16 * config.mlm_parameters(),
            activations: tokens * (of_token + stream) + head,
            logits: scores + 2 * 4 * vocab * hidden,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.state + self.activations + self.logits
    }
}

/// Memory available to new programs, in bytes, on Linux.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(1024 * kilobytes)
}

/// Returns a warning if the recipe may not fit into this machine's memory: a system without free memory kills the process without a
/// message.
pub(super) fn warning(config: &ModernBertConfig, recipe: &Recipe) -> Option<String> {
    let needed = TrainingMemory::of(config, recipe);
    let free = available()?;
    (needed.total() > free).then(|| {
        format!(
            "warning: this phase takes about {:.1} GB ({:.1} for weights and moments, {:.1} for a micro-batch), {:.1} GB are free; {}",
            needed.total() as f64 / 1e9,
            needed.state as f64 / 1e9,
            (needed.activations + needed.logits) as f64 / 1e9,
            free as f64 / 1e9,
            crate::engine::SMALLER_STEP
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::builtin;

    #[test]
    fn the_estimate_is_the_measured_sum_of_saved_tensors() {
        // docs/performance.md: 910 MB a layer at 65,536 tokens of base in bf16, 20.0 GB in 22 layers; the driver saw 25.8 GB.
        let mut recipe = base();
        recipe.batch.tokens = 65_536;
        let config = recipe.model.config(50_368).unwrap();
        let memory = TrainingMemory::of(&config, &recipe);
        let stream_and_head = 65_536 * 12 * 768 + label_cap(65_536, 0.3) as u64 * 768 * 16;
        let layers = (memory.activations - stream_and_head) as f64 / 1e9;
        assert!((layers - 20.0).abs() < 0.05, "{layers}");
        let total = memory.total() as f64 / 1e9;
        assert!((23.0..25.8).contains(&total), "{total}");
        recipe.batch.recompute = true;
        let less = TrainingMemory::of(&config, &recipe);
        assert!(less.activations * 3 < memory.activations, "{less:?}");
    }

    fn base() -> Recipe {
        let recipe = builtin("base").unwrap().unwrap();
        recipe.phases().unwrap().remove(0).recipe
    }

    #[test]
    fn a_micro_batch_half_as_long_takes_half() {
        let recipe = base();
        let config = recipe.model.config(50_368).unwrap();
        let whole = TrainingMemory::of(&config, &recipe);
        let mut half = recipe.clone();
        half.batch.tokens /= 2;
        let half = TrainingMemory::of(&config, &half);
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
            let text = warning(&config, &endless).unwrap();
            assert!(
                text.contains("GB are free") && text.contains("batch.tokens"),
                "{text}"
            );
        }
    }
}
