//! Dropout of a training batch: rates, and the key that determines which elements are dropped.

/// Probability of dropping an element at each site of the model during training; 0 for no dropout.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropoutRates {
    /// After the embedding norm.
    pub embedding: f64,
    /// Of the attention probabilities. Attention is then computed by a fallback without kernels, which is slow.
    pub attention_probabilities: f64,
    /// After the attention output projection: 0.1 in the published pretraining runs.
    pub attention_output: f64,
    /// Inside the MLP, after the gate.
    pub mlp: f64,
    /// After the MLP's output projection, as in BERT.
    pub mlp_output: f64,
    /// Before the dense layer of a sequence classifier's head, as in RoBERTa.
    pub head: f64,
    /// Before a classifier.
    pub classifier: f64,
}

impl DropoutRates {
    /// Returns whether all rates are 0.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Dropout of one batch.
///
/// The dropped elements are a pure function of `seed`, `batch`, the layer, the site and the index of the element; see the dropout op
/// of `burn-packed`. A repeated step, after a resume or in a recomputed layer, therefore drops the same elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probabilities.
    pub rates: DropoutRates,
    /// Seed of the run.
    pub seed: u64,
    /// Index of the micro-batch in the whole run, over all steps and ranks.
    pub batch: u64,
}
