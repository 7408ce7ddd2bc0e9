//! Token embedding followed by a norm. There are no position or type embeddings.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use super::norm::LayerNorm;
use crate::batch::TokenOrder;
use crate::config::ModernBertConfig;
use crate::ops::gather_rows::gather_rows;

/// One row per token of the vocabulary, `[vocab, hidden]`.
#[derive(Module, Debug)]
pub(super) struct TokenEmbedding {
    pub(super) weight: Param<Tensor<2>>,
}

/// `norm(E[ids])`.
#[derive(Module, Debug)]
pub(super) struct Embeddings {
    pub(super) tok_embeddings: TokenEmbedding,
    norm: LayerNorm,
}

impl Embeddings {
    pub(super) fn new(config: &ModernBertConfig, device: &Device) -> Self {
        Self {
            tok_embeddings: TokenEmbedding {
                weight: Param::from_tensor(Tensor::zeros(
                    [config.vocab_size, config.hidden_size],
                    device,
                )),
            },
            norm: LayerNorm::new(config, device),
        }
    }

    /// `[total]` ids to `[total, hidden]`.
    pub(super) fn forward(&self, ids: Tensor<1, Int>, order: TokenOrder) -> Tensor<2> {
        let rows = gather_rows(self.tok_embeddings.weight.val(), ids, order);
        self.norm.forward(rows)
    }
}
