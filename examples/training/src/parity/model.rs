//! The model that a folder's `architectures` names.

use anyhow::{Result, bail, ensure};
use burn::tensor::{Device, Tensor};
use modernbert::Loader;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::save;
use modernbert::model::{
    MaskedLm, ModernBert, MultipleChoice, QuestionAnswerer, SequenceClassifier, TokenClassifier,
};
use std::path::Path;

use super::Case;

/// An encoder with the head of a folder, or without a head.
#[derive(Debug)]
pub enum AnyModel {
    /// `ModernBertModel`.
    Encoder(ModernBert),
    /// `ModernBertForMaskedLM`.
    MaskedLm(MaskedLm),
    /// `ModernBertForSequenceClassification`.
    Sequence(SequenceClassifier),
    /// `ModernBertForTokenClassification`.
    Token(TokenClassifier),
    /// `ModernBertForQuestionAnswering`.
    Question(QuestionAnswerer),
    /// `ModernBertForMultipleChoice`.
    Choice(MultipleChoice),
}

/// An output, and the meaning of its rows.
pub(super) enum Output {
    /// One row per token, computed block by block: `decode` computes `[rows, width]` from hidden states.
    Tokens,
    /// One row per sequence.
    Sequences,
}

impl AnyModel {
    /// Loads the model of a case; every tensor of its class must be in the file.
    ///
    /// # Errors
    /// An unknown class, or an error of loading.
    pub fn load(case: &Case, device: &Device) -> Result<Self> {
        let folder = &case.folder;
        let class = case.config.architectures.first().map_or("", String::as_str);
        let loader = Loader::new(folder).device(device);
        Ok(match class {
            "ModernBertModel" | "" => Self::Encoder(ModernBert::load(loader)?),
            "ModernBertForMaskedLM" => Self::MaskedLm(MaskedLm::load(loader)?),
            "ModernBertForSequenceClassification" => {
                Self::Sequence(SequenceClassifier::load(loader)?)
            }
            "ModernBertForTokenClassification" => Self::Token(TokenClassifier::load(loader)?),
            "ModernBertForQuestionAnswering" => Self::Question(QuestionAnswerer::load(loader)?),
            "ModernBertForMultipleChoice" => {
                ensure!(
                    case.choices.is_some(),
                    "a multiple-choice case needs input_ids [questions, choices, tokens]"
                );
                Self::Choice(MultipleChoice::load(loader)?)
            }
            other => bail!(
                "config.json: architectures names {other}; known are ModernBertModel and ModernBertFor + MaskedLM, \
                 SequenceClassification, TokenClassification, QuestionAnswering, MultipleChoice"
            ),
        })
    }

    /// The encoder.
    pub fn encoder(&self) -> &ModernBert {
        match self {
            Self::Encoder(model) => model,
            Self::MaskedLm(model) => &model.model,
            Self::Sequence(model) => &model.model,
            Self::Token(model) => &model.model,
            Self::Question(model) => &model.model,
            Self::Choice(model) => &model.model,
        }
    }

    /// Returns whether the output `name` of this head has a row per token or per sequence; `None` if the head has no such output.
    pub(super) fn kind(&self, name: &str) -> Option<Output> {
        match (self, name) {
            (Self::MaskedLm(_) | Self::Token(_), "logits") => Some(Output::Tokens),
            (Self::Question(_), "start_logits" | "end_logits") => Some(Output::Tokens),
            (Self::Sequence(_) | Self::Choice(_), "logits") => Some(Output::Sequences),
            _ => None,
        }
    }

    /// The token-wise output `name` for hidden states `[rows, hidden]`: `[rows, width]`.
    pub(super) fn decode_tokens(&self, name: &str, hidden: Tensor<2>) -> Option<Tensor<2>> {
        match self {
            Self::MaskedLm(model) => Some(model.decode(hidden)),
            Self::Token(model) => Some(model.decode(hidden)),
            Self::Question(model) => {
                let spans = model.decode(hidden);
                let scores = if name == "end_logits" {
                    spans.end
                } else {
                    spans.start
                };
                Some(scores.unsqueeze_dim(1))
            }
            _ => None,
        }
    }

    /// The output per sequence, `[sequences, width]`.
    pub(super) fn decode_sequences(
        &self,
        hidden: Tensor<2>,
        batch: &PackedBatch,
    ) -> Option<Tensor<2>> {
        match self {
            Self::Sequence(model) => Some(model.decode(hidden, batch)),
            Self::Choice(model) => Some(model.decode(hidden, batch).unsqueeze_dim(1)),
            _ => None,
        }
    }
}

/// Loads the model of the case in `folder` and writes it to `target`.
///
/// # Errors
/// Errors of loading and saving.
pub fn save_copy(folder: &Path, target: &Path, device: &Device) -> Result<()> {
    let case = Case::open(folder)?;
    let config = &case.config;
    match AnyModel::load(&case, device)? {
        AnyModel::Encoder(model) => save(&model, config, target),
        AnyModel::MaskedLm(model) => save(&model, config, target),
        AnyModel::Sequence(model) => save(&model, config, target),
        AnyModel::Token(model) => save(&model, config, target),
        AnyModel::Question(model) => save(&model, config, target),
        AnyModel::Choice(model) => save(&model, config, target),
    }?;
    Ok(())
}
