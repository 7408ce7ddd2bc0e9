//! Dropout of a training batch: its rates, and the key that decides which elements are dropped.

/// How likely elements are dropped at each site of the model in training; 0 leaves a site out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropoutRates {
    /// After the embedding norm.
    pub embedding: f64,
    /// Of the attention probabilities. Such attention is computed from plain tensor operations, which is slow.
    pub attention_probabilities: f64,
    /// After the attention output projection: 0.1 in the published pretraining runs.
    pub attention_output: f64,
    /// Inside the MLP, after the gate.
    pub mlp: f64,
    /// Before a classifier.
    pub classifier: f64,
}

impl DropoutRates {
    /// Whether nothing is dropped anywhere.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Dropout of one batch.
///
/// Which elements are dropped is a pure function of `seed`, `batch`, the layer, the site and the place of the element; see
/// the dropout op of `burn-packed`. A step that is repeated, after a resume or in a recomputed layer, drops the same elements again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// How likely.
    pub rates: DropoutRates,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the micro-batch over the whole run and all ranks, which stands for step and micro-batch at once.
    pub batch: u64,
}
