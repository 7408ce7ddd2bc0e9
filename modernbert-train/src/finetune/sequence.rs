//! Classification, regression and multi-label classification of texts and pairs of texts.

use burn::tensor::Tensor;
use modernbert::batch::PackedBatch;
use modernbert::checkpoint::LoadReport;
use modernbert::device::read;
use modernbert::model::{Classification, ClassificationLabels, SequenceClassifier};
use modernbert::{HeadStart, LoadError, Loader};
use sha2::{Digest, Sha256};

use super::FinetuneError;
use super::example::{Example, cross_entropy};

/// The target of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A class id: cross-entropy.
    Class(u32),
    /// A number: squared error.
    Score(f32),
    /// Ids of the labels that apply, any number of them: binary cross-entropy of every label.
    Labels(Vec<u32>),
}

/// A tokenized sequence and its target.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Token ids with special tokens.
    pub ids: Vec<u32>,
    /// Position in `ids` of the first token of type 1; their number where there is none.
    pub second: usize,
    /// The target.
    pub target: Target,
}

impl Example for Sample {
    type Model = SequenceClassifier;

    fn load(
        loader: Loader,
        outputs: usize,
        seed: u64,
    ) -> Result<(Self::Model, LoadReport), LoadError> {
        SequenceClassifier::load_for_finetuning(loader, outputs, HeadStart::Fresh, seed)
    }

    fn outputs(model: &SequenceClassifier) -> usize {
        model.outputs()
    }

    fn sequences(&self) -> impl Iterator<Item = &[u32]> {
        std::iter::once(self.ids.as_slice())
    }

    fn seconds(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.second)
    }

    fn mismatch_reason(&self, first: &Self, outputs: usize) -> Option<String> {
        match (&self.target, &first.target) {
            (Target::Class(class), Target::Class(_)) => (*class as usize >= outputs)
                .then(|| format!("class {class}, but the model has {outputs} outputs")),
            (Target::Score(_), Target::Score(_)) if outputs != 1 => Some(format!(
                "a score, but the model has {outputs} outputs instead of one"
            )),
            (Target::Score(score), Target::Score(_)) => {
                (!score.is_finite()).then(|| format!("its score is {score}"))
            }
            (Target::Labels(labels), Target::Labels(_)) => {
                let label = labels.iter().find(|&&label| label as usize >= outputs)?;
                Some(format!(
                    "label {label}, but the model has {outputs} outputs"
                ))
            }
            _ => {
                Some("some samples have classes and some have scores or several labels".to_string())
            }
        }
    }

    fn loss(model: &SequenceClassifier, batch: &PackedBatch, examples: &[Self]) -> Tensor<1> {
        let labels = labels(examples, model.outputs());
        let Classification { loss, .. } = model.forward(batch, &labels);
        loss
    }

    fn predict(
        model: &SequenceClassifier,
        batch: &PackedBatch,
        _examples: &[&Self],
    ) -> Result<Vec<Vec<f32>>, FinetuneError> {
        logits(model, batch)
    }

    fn width(&self, outputs: usize) -> usize {
        outputs
    }

    fn loss_of(&self, outputs: &[f32]) -> Option<f64> {
        match &self.target {
            Target::Class(class) => cross_entropy(outputs, *class as usize),
            Target::Score(score) => {
                let [output] = outputs[..] else { return None };
                Some((f64::from(output) - f64::from(*score)).powi(2))
            }
            Target::Labels(labels) => {
                if labels.iter().any(|&label| label as usize >= outputs.len()) {
                    return None;
                }
                let losses = outputs.iter().enumerate().map(|(label, &x)| {
                    let applies = labels.contains(&(label as u32));
                    let x = f64::from(if applies { -x } else { x });
                    // ln(1 + e^x) without overflow.
                    x.max(0.0) + (-x.abs()).exp().ln_1p()
                });
                Some(losses.sum::<f64>() / outputs.len() as f64)
            }
        }
    }

    fn hash_target(&self, hash: &mut Sha256) {
        match &self.target {
            Target::Class(class) => hash.update(class.to_le_bytes()),
            Target::Score(score) => hash.update(score.to_bits().to_be_bytes()),
            Target::Labels(labels) => {
                hash.update((labels.len() as u64).to_le_bytes());
                labels.iter().for_each(|id| hash.update(id.to_le_bytes()));
            }
        }
    }
}

/// Logits of every sequence of a batch.
pub(super) fn logits(
    model: &SequenceClassifier,
    batch: &PackedBatch,
) -> Result<Vec<Vec<f32>>, FinetuneError> {
    let logits = model.logits(batch);
    let [_, width] = logits.dims();
    let values = read(logits)?;
    Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
}

/// Labels of a micro-batch; all targets are of one kind.
fn labels(examples: &[Sample], outputs: usize) -> ClassificationLabels {
    if let [
        Sample {
            target: Target::Labels(_),
            ..
        },
        ..,
    ] = examples
    {
        let mut values = vec![0.0; examples.len() * outputs];
        for (row, example) in values.chunks_mut(outputs).zip(examples) {
            if let Target::Labels(labels) = &example.target {
                labels.iter().for_each(|&label| row[label as usize] = 1.0);
            }
        }
        return ClassificationLabels::MultiLabel(values);
    }
    let classes: Option<Vec<u32>> = examples
        .iter()
        .map(|example| match example.target {
            Target::Class(class) => Some(class),
            _ => None,
        })
        .collect();
    match classes {
        Some(classes) => ClassificationLabels::Classes(classes),
        None => {
            let score = |example: &Sample| match example.target {
                Target::Score(score) => score,
                _ => f32::NAN,
            };
            ClassificationLabels::Scores(examples.iter().map(score).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::dev_loss;
    use super::*;

    fn sample(target: Target) -> Sample {
        Sample {
            ids: vec![1],
            second: 1,
            target,
        }
    }

    #[test]
    fn the_dev_loss_is_the_loss_of_training() {
        let classes = [sample(Target::Class(1)), sample(Target::Class(0))];
        let outputs = [vec![0.0, 2.0], vec![1000.0, 1001.0]];
        let expected = (0.126_928_011_042_972_5 + 1.313_261_687_518_222_8) / 2.0;
        let loss = dev_loss(&classes, &outputs).unwrap();
        assert!((loss - expected).abs() < 1e-12, "{loss}");
        let scores = [sample(Target::Score(1.5)), sample(Target::Score(-1.0))];
        assert_eq!(dev_loss(&scores, &[vec![2.5], vec![1.0]]), Some(2.5));
        // Placeholders instead of targets have no loss.
        assert_eq!(dev_loss(&classes, &[vec![1.0], vec![1.0]]), None);
        assert_eq!(dev_loss(&scores, &outputs), None);
    }

    #[test]
    fn several_labels_have_the_binary_cross_entropy_of_each() {
        // -ln σ(2), -ln(1 - σ(-1)) and -ln(1 - σ(1000)), by hand.
        let losses = [0.126_928_011_042_972_5, 0.313_261_687_518_222_8, 1000.0];
        let loss = sample(Target::Labels(vec![0]))
            .loss_of(&[2.0, -1.0, 1000.0])
            .unwrap();
        assert!((loss - losses.iter().sum::<f64>() / 3.0).abs() < 1e-9);
        let beyond = sample(Target::Labels(vec![3]));
        assert_eq!(beyond.loss_of(&[0.0; 3]), None);
    }
}
