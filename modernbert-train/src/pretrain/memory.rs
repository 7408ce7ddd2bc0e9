//! Memory of a recipe, by formula.

use modernbert::config::ModernBertConfig;

use crate::mask::label_cap;
use crate::recipe::Recipe;

/// Bytes that training needs at its peak, by purpose. An estimate: temporaries of single operations are not included, and a
/// device that reuses buffers early needs less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TrainingMemory {
    /// Weights, gradients and two moments of every parameter, in f32.
    pub state: u64,
    /// Activations of a micro-batch saved for backward in the layers.
    pub activations: u64,
    /// Scores over the vocabulary at the labelled positions, their gradient and one temporary of that size.
    pub logits: u64,
}

impl TrainingMemory {
    /// The estimate for a model trained by a recipe (of one phase).
    ///
    /// A layer saves for each token its two normalized inputs, queries, keys and values before and after RoPE, attention's result,
    /// two residual sums, and the MLP's two halves and their product: about `13 hidden + 3 intermediate` numbers of 4 bytes, with
    /// GEMMs in bf16 two thirds of that.
    pub fn of(config: &ModernBertConfig, recipe: &Recipe) -> Self {
        let tokens = recipe.batch.tokens as u64;
        let (hidden, intermediate) = (config.hidden_size as u64, config.intermediate_size as u64);
        let layers = config.num_hidden_layers as u64;
        // With activation checkpointing each layer saves its input, and one layer at a time the other activations.
        let (whole, inputs) = if recipe.batch.recompute {
            (1, tokens * layers * hidden * 4)
        } else {
            (layers, 0)
        };
        let kept = tokens * whole * (13 * hidden + 3 * intermediate) * 4;
        let labelled = label_cap(recipe.batch.tokens, recipe.mask.train) as u64;
        let low = recipe.run.precision == crate::recipe::TrainingPrecision::Bf16;
        Self {
            state: 16 * config.mlm_parameters(),
            activations: inputs + if low { kept / 3 * 2 } else { kept },
            logits: labelled * config.vocab_size as u64 * 12,
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
    fn a_micro_batch_half_as_long_takes_half() {
        let recipe = builtin("base")
            .unwrap()
            .unwrap()
            .phases()
            .unwrap()
            .remove(0)
            .recipe;
        let config = recipe.model.config(50_368).unwrap();
        let whole = TrainingMemory::of(&config, &recipe);
        let mut half = recipe.clone();
        half.batch.tokens /= 2;
        let half = TrainingMemory::of(&config, &half);
        assert_eq!(half.state, whole.state);
        assert_eq!(half.activations * 2, whole.activations);
        assert!(whole.total() > 40_000_000_000, "{whole:?}");
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
