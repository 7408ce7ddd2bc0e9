//! Five tasks of SuperGLUE (Wang et al. 2019) as kinds of finetuning, from the JSON lines that the benchmark distributes.
//!
//! | task | kind | input | scores (the first decides) |
//! |---|---|---|---|
//! | BoolQ | classes of a pair | question, passage | accuracy |
//! | CB | classes of a pair | premise, hypothesis | mean of accuracy and macro F1; both |
//! | COPA | choices | premise with the question for its cause or effect; the alternatives | accuracy |
//! | MultiRC | classes of a pair | passage, question with one of its answers | mean of F1 over all answers (`f1a`) and exact match by question; both |
//! | WiC | classes of a pair | the word with the first sentence, the second sentence | accuracy |
//!
//! CB and MultiRC have two metrics, whose mean is the task's score (section 3.3 of the paper). WiC is put into text instead of comparing the
//! vectors of two words: T5 does so (Raffel et al. 2020, appendix D), it needs no head of its own, and the folder is one that `classify` reads.

mod metrics;
mod read;
#[cfg(test)]
mod tests;

pub use metrics::{exact_by_group, macro_f1};
pub use read::{ChoiceSet, PairRow, PairSet, read_choices, read_pairs};

use modernbert_train::finetune::DevScore;

use crate::metrics::classification::{accuracy, f1};

/// A task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuperTask {
    /// Does the passage answer the question with yes?
    BoolQ,
    /// CommitmentBank: does the premise entail the hypothesis?
    Cb,
    /// Which alternative is the cause, or the effect, of the premise?
    Copa,
    /// Is the answer to the question about the passage right?
    MultiRc,
    /// Does the word mean the same in both sentences?
    Wic,
}

impl SuperTask {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::BoolQ, Self::Cb, Self::Copa, Self::MultiRc, Self::Wic];

    /// Its name, which is that of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::BoolQ => "BoolQ",
            Self::Cb => "CB",
            Self::Copa => "COPA",
            Self::MultiRc => "MultiRC",
            Self::Wic => "WiC",
        }
    }

    /// The task of a name, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|task| task.name().eq_ignore_ascii_case(name))
    }

    /// Examples of the training and the dev set as they are distributed; of MultiRC one for each answer.
    pub fn official_examples(self) -> (usize, usize) {
        match self {
            Self::BoolQ => (9427, 3270),
            Self::Cb => (250, 56),
            Self::Copa => (400, 100),
            Self::MultiRc => (27_243, 4848),
            Self::Wic => (5428, 638),
        }
    }

    /// Names of the classes by id; none for COPA, which has choices.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::BoolQ | Self::Wic => &["False", "True"],
            Self::Cb => &["entailment", "contradiction", "neutral"],
            Self::MultiRc => &["0", "1"],
            Self::Copa => &[],
        }
    }

    /// Score of predicted classes, or of predicted choices for COPA. `groups` numbers the question of each example for MultiRC.
    pub fn score(self, truth: &[usize], predicted: &[usize], groups: &[usize]) -> DevScore {
        let accuracy = accuracy(truth, predicted);
        let both = |names: [&str; 2], values: [Option<f64>; 2]| {
            let metrics = names.map(str::to_string).into_iter().zip(values);
            let mean = values[0].zip(values[1]).map(|(a, b)| (a + b) / 2.0);
            DevScore {
                main: mean,
                metrics: metrics.collect(),
            }
        };
        match self {
            Self::Cb => both(
                ["accuracy", "macro_f1"],
                [accuracy, macro_f1(truth, predicted)],
            ),
            Self::MultiRc => both(
                ["f1a", "exact_match"],
                [
                    f1(truth, predicted),
                    exact_by_group(truth, predicted, groups),
                ],
            ),
            _ => DevScore {
                main: accuracy,
                metrics: vec![("accuracy".to_string(), accuracy)],
            },
        }
    }
}
