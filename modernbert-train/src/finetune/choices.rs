//! Multiple choice: a question with each of its choices, one of which is right.

use burn::tensor::Tensor;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::LoadReport;
use modernbert::device::read;
use modernbert::model::MultipleChoice;
use modernbert::parallel::try_map;
use modernbert::tokenizer::{Tokenizer, TokenizerError};
use modernbert::{HeadStart, LoadError, Loader};
use sha2::{Digest, Sha256};

use super::FinetuneError;
use super::example::{Example, cross_entropy};
use super::table::{ChoiceFile, ChoiceRow};

/// A question with each of its choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChoiceSample {
    /// Token ids of the question with each choice, special tokens included; all questions of a run have the same number of choices.
    pub sequences: Vec<Vec<u32>>,
    /// Position of the first token of type 1 in each sequence; its length where there is none.
    pub seconds: Vec<usize>,
    /// Number of the right choice, from 0.
    pub label: u32,
}

/// Questions with their choices, and how many are unusual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedChoices {
    /// One per question, in order.
    pub samples: Vec<ChoiceSample>,
    /// Number of questions that were truncated because they were longer than the limit with some choice; the longer text loses its end first.
    pub truncated: usize,
}

/// Tokenizes questions on all cores: `[CLS] question [SEP] choice [SEP]` for each choice, at most `max_length` tokens, as
/// [`Chooser`](modernbert::Chooser) reads them.
///
/// # Errors
/// A limit too small for the special tokens.
pub fn encode_choices(
    tokenizer: &Tokenizer,
    file: &ChoiceFile,
    max_length: usize,
) -> Result<EncodedChoices, TokenizerError> {
    let encode = |row: &ChoiceRow| {
        let mut truncated = false;
        let choices = row.choices.iter().map(|choice| {
            let encoded = tokenizer.encode_truncated(&row.prompt, Some(choice), max_length)?;
            truncated |= encoded.truncated;
            Ok((encoded.ids, encoded.second))
        });
        let choices = choices.collect::<Result<Vec<_>, TokenizerError>>()?;
        let (sequences, seconds) = choices.into_iter().unzip();
        let sample = ChoiceSample {
            sequences,
            seconds,
            label: row.label,
        };
        Ok((sample, truncated))
    };
    let rows = try_map::<_, _, TokenizerError>(&file.rows, encode)?;
    let truncated = rows.iter().filter(|(_, truncated)| *truncated).count();
    Ok(EncodedChoices {
        samples: rows.into_iter().map(|(sample, _)| sample).collect(),
        truncated,
    })
}

impl Example for ChoiceSample {
    type Model = MultipleChoice;

    fn load(
        loader: Loader,
        _outputs: usize,
        seed: u64,
    ) -> Result<(Self::Model, LoadReport), LoadError> {
        MultipleChoice::load_for_finetuning(loader, HeadStart::Fresh, seed)
    }

    fn outputs(_model: &MultipleChoice) -> usize {
        1
    }

    fn sequences(&self) -> impl Iterator<Item = &[u32]> {
        self.sequences.iter().map(Vec::as_slice)
    }

    fn seconds(&self) -> impl Iterator<Item = usize> {
        self.seconds.iter().copied()
    }

    fn mismatch_reason(&self, first: &Self, _outputs: usize) -> Option<String> {
        let (own, others) = (self.sequences.len(), first.sequences.len());
        if own != others || own == 0 {
            return Some(format!("{own} choices, the first example has {others}"));
        }
        (self.label as usize >= own).then(|| format!("label {} of {own} choices", self.label))
    }

    fn loss(model: &MultipleChoice, batch: &PackedBatch, examples: &[Self]) -> Tensor<1> {
        let choices = examples.first().map_or(1, |e| e.sequences.len());
        let labels: Vec<u32> = examples.iter().map(|e| e.label).collect();
        let output = model.forward(batch, choices, &labels);
        output.expect("choices are checked before the run").loss
    }

    fn predict(
        model: &MultipleChoice,
        batch: &PackedBatch,
        examples: &[&Self],
    ) -> Result<Vec<Vec<f32>>, FinetuneError> {
        let scores = read(model.decode(model.model.forward(batch), batch))?;
        let mut rest = scores.into_iter();
        let rows = examples.iter();
        Ok(rows
            .map(|e| rest.by_ref().take(e.sequences.len()).collect())
            .collect())
    }

    fn width(&self, _outputs: usize) -> usize {
        self.sequences.len()
    }

    fn loss_of(&self, outputs: &[f32]) -> Option<f64> {
        cross_entropy(outputs, self.label as usize)
    }

    fn hash_target(&self, hash: &mut Sha256) {
        hash.update((self.sequences.len() as u64).to_le_bytes());
        hash.update(self.label.to_le_bytes());
    }
}
