//! Token embedding, with a learned position embedding where the config has one, followed by a norm.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use super::linear::zeros;
use super::norm::Norm;
use super::positions::PositionEmbedding;
use crate::batch::{SequenceLayout, TokenOrder};
use crate::config::ModelSpec;
use crate::ops::gather_rows::gather_rows;

/// One row per token of the vocabulary, `[vocab, hidden]`.
#[derive(Module, Debug)]
pub(super) struct TokenEmbedding {
    pub(super) weight: Param<Tensor<2>>,
}

impl TokenEmbedding {
    fn new(rows: usize, hidden: usize, device: &Device) -> Self {
        Self {
            weight: zeros([rows, hidden], device),
        }
    }
}

/// `norm(E[ids] + P[positions])`, each part but the first where the specification has it.
#[derive(Module, Debug)]
pub(super) struct Embeddings {
    pub(super) tok_embeddings: TokenEmbedding,
    position_embeddings: Option<PositionEmbedding>,
    norm: Option<Norm>,
}

impl Embeddings {
    pub(super) fn new(spec: &ModelSpec, device: &Device) -> Self {
        let hidden = spec.hidden;
        Self {
            tok_embeddings: TokenEmbedding::new(spec.vocab, hidden, device),
            position_embeddings: spec
                .positions
                .map(|rows| PositionEmbedding::new(rows, hidden, device)),
            norm: spec.embed_norm.as_ref().map(|norm| Norm::new(norm, device)),
        }
    }

    /// `[total]` ids to `[total, hidden]`.
    pub(super) fn forward(
        &self,
        ids: Tensor<1, Int>,
        order: TokenOrder,
        layout: &SequenceLayout,
    ) -> Tensor<2> {
        let mut rows = gather_rows(self.tok_embeddings.weight.val(), ids, order);
        if let Some(embedding) = &self.position_embeddings {
            rows = rows + embedding.forward(layout);
        }
        match &self.norm {
            Some(norm) => norm.forward(rows),
            None => rows,
        }
    }
}
