//! Token embedding, with learned embeddings of positions and token types where the config has them, followed by a norm.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::linear::zeros;
use super::norm::Norm;
use super::positions::PositionEmbedding;
use super::token_types::TypeEmbedding;
use crate::batch::PackedBatch;
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

/// `norm(E[ids] + T[types] + P[positions])`, each part but the first where the specification has it.
#[derive(Module, Debug)]
pub(super) struct Embeddings {
    pub(super) tok_embeddings: TokenEmbedding,
    position_embeddings: Option<PositionEmbedding>,
    token_type_embeddings: Option<TypeEmbedding>,
    norm: Option<Norm>,
}

impl Embeddings {
    pub(super) fn new(spec: &ModelSpec, device: &Device) -> Self {
        let hidden = spec.hidden;
        Self {
            tok_embeddings: TokenEmbedding::new(spec.vocab, hidden, device),
            position_embeddings: spec
                .positions
                .map(|rows| PositionEmbedding::new(rows, spec.first_position, hidden, device)),
            token_type_embeddings: spec
                .token_types
                .map(|rows| TypeEmbedding::new(rows, hidden, device)),
            norm: spec.embed_norm.as_ref().map(|norm| Norm::new(norm, device)),
        }
    }

    /// The tokens of a batch to `[total, hidden]`.
    pub(super) fn forward(&self, batch: &PackedBatch) -> Tensor<2> {
        let table = self.tok_embeddings.weight.val();
        let mut rows = gather_rows(table, batch.ids.clone(), batch.order.clone());
        if let Some(embedding) = &self.token_type_embeddings {
            rows = rows + embedding.forward(batch);
        }
        if let Some(embedding) = &self.position_embeddings {
            rows = rows + embedding.forward(&batch.layout);
        }
        match &self.norm {
            Some(norm) => norm.forward(rows),
            None => rows,
        }
    }
}
