//! Cases of the benchmark, one file per op: inputs, the check of the results, the timed calls and the bytes they move.

mod gather_rows;
mod geglu;
mod loss;
mod norms;
mod optimizer;

use burn::tensor::DType;
use modernbert::config::ModernBertConfig;

pub(crate) use gather_rows::gather_rows;
pub(crate) use geglu::geglu;
pub(crate) use loss::{decoder, losses};
pub(crate) use norms::norms;
pub(crate) use optimizer::optimizer;

/// Rows of a result that are compared with a reference.
const CHECKED: usize = 48;
/// Share of tokens that are labelled.
const LABELLED: f64 = 0.3;

/// Sizes of a model and of the batch.
pub(crate) struct BatchSizes {
    name: String,
    tokens: usize,
    hidden: usize,
    inner: usize,
    vocab: usize,
    layers: usize,
    dtype: DType,
}

impl BatchSizes {
    pub(crate) fn new(name: &str, config: &ModernBertConfig, tokens: usize, dtype: DType) -> Self {
        Self {
            name: name.to_owned(),
            tokens,
            hidden: config.hidden_size,
            inner: config.intermediate_size,
            vocab: config.vocab_size,
            layers: config.layer_types.len(),
            dtype,
        }
    }

    /// Bytes of `[tokens, width]` with `each` bytes per element.
    fn bytes(&self, width: usize, each: usize) -> f64 {
        (self.tokens * width * each) as f64
    }
}

/// Ids distributed as in training: a fifth of them is the mask token, of the others small ids are more frequent.
fn training_ids(tokens: usize, vocab: usize) -> Vec<u32> {
    // A linear congruential generator: any fixed sequence will do.
    let mut state = 1u64;
    (0..tokens)
        .map(|token| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 11) as f64 / (1u64 << 53) as f64;
            if token % 5 == 0 {
                (vocab - 1) as u32
            } else {
                // Log-uniform, close to the distribution of words.
                ((vocab as f64).powf(uniform) as u32).min(vocab as u32 - 1)
            }
        })
        .collect()
}
