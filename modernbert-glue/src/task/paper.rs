//! The ModernBERT paper's settings and scores per task.
//!
//! Source: Warner et al. 2024, <https://arxiv.org/abs/2412.13663>: Table 6 (chosen hyperparameters), Table 5 (dev scores)
//! and Appendix E.1 (protocol: sweep, early stopping, which tasks start from MNLI). Batch 64 for every task: the
//! published ACL version. The weight decays are those of decoupled decay, which is not multiplied by the learning rate.

use super::Task;

/// One of the two published models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelSize {
    /// ModernBERT-base, 149M parameters.
    Base,
    /// ModernBERT-large, 395M parameters.
    Large,
}

/// Learning rates of the paper's sweep.
pub const SWEEP_LEARNING_RATES: [f64; 4] = [1e-5, 3e-5, 5e-5, 8e-5];
/// Weight decays of the paper's sweep.
pub const SWEEP_WEIGHT_DECAYS: [f64; 4] = [1e-6, 5e-6, 8e-6, 1e-5];

/// Settings of finetuning one task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hyperparameters {
    /// Highest learning rate of the schedule.
    pub learning_rate: f64,
    /// Fully decoupled weight decay: the share subtracted per step at the highest learning rate.
    pub weight_decay: f64,
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples per optimizer step.
    pub batch_size: usize,
}

impl Task {
    /// The paper's hyperparameters; none for WNLI and AX, which it does not use.
    pub fn paper_hyperparameters(self, size: ModelSize) -> Option<Hyperparameters> {
        let (base, large) = match self {
            Self::Cola => ((8e-5, 1e-6, 5), (3e-5, 8e-6, 5)),
            Self::Mnli => ((5e-5, 5e-6, 1), (3e-5, 1e-5, 1)),
            Self::Mrpc => ((5e-5, 5e-6, 10), (8e-5, 5e-6, 2)),
            Self::Qnli => ((8e-5, 5e-6, 2), (3e-5, 5e-6, 2)),
            Self::Qqp => ((5e-5, 5e-6, 10), (5e-5, 8e-6, 2)),
            Self::Rte => ((5e-5, 1e-5, 3), (5e-5, 8e-6, 3)),
            Self::Sst2 => ((8e-5, 1e-5, 2), (1e-5, 1e-6, 3)),
            Self::Stsb => ((8e-5, 5e-6, 10), (8e-5, 1e-5, 10)),
            Self::Wnli | Self::Ax => return None,
        };
        let (learning_rate, weight_decay, epochs) = match size {
            ModelSize::Base => base,
            ModelSize::Large => large,
        };
        Some(Hyperparameters {
            learning_rate,
            weight_decay,
            epochs,
            batch_size: 64,
        })
    }

    /// Epochs of the paper's sweep; those of RTE for WNLI, which it does not use.
    pub fn sweep_epochs(self) -> &'static [usize] {
        match self {
            Self::Sst2 | Self::Mnli | Self::Rte | Self::Wnli | Self::Ax => &[1, 2, 3],
            _ => &[2, 5, 10],
        }
    }

    /// The paper's dev score, times 100 as printed; none for WNLI and AX.
    pub fn paper_score(self, size: ModelSize) -> Option<f64> {
        let (base, large) = match self {
            Self::Cola => (65.1, 71.4),
            Self::Sst2 => (96.0, 97.1),
            Self::Mrpc => (92.2, 91.7),
            Self::Stsb => (91.8, 92.8),
            Self::Qqp => (92.1, 92.7),
            Self::Mnli => (89.1, 90.8),
            Self::Qnli => (93.9, 95.2),
            Self::Rte => (87.4, 92.1),
            Self::Wnli | Self::Ax => return None,
        };
        Some(match size {
            ModelSize::Base => base,
            ModelSize::Large => large,
        })
    }

    /// The task whose finetuned checkpoint this one starts from, in the paper: MNLI for RTE, MRPC and STS-B.
    pub fn starts_from(self) -> Option<Task> {
        matches!(self, Self::Rte | Self::Mrpc | Self::Stsb).then_some(Self::Mnli)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Table 6 of the paper, written out a second time: rate, weight decay and epochs of each task, base and then large.
    #[test]
    fn the_choices_are_those_of_table_6() {
        let table = [
            (Task::Cola, (8e-5, 1e-6, 5), (3e-5, 8e-6, 5)),
            (Task::Mnli, (5e-5, 5e-6, 1), (3e-5, 1e-5, 1)),
            (Task::Mrpc, (5e-5, 5e-6, 10), (8e-5, 5e-6, 2)),
            (Task::Qnli, (8e-5, 5e-6, 2), (3e-5, 5e-6, 2)),
            (Task::Qqp, (5e-5, 5e-6, 10), (5e-5, 8e-6, 2)),
            (Task::Rte, (5e-5, 1e-5, 3), (5e-5, 8e-6, 3)),
            (Task::Sst2, (8e-5, 1e-5, 2), (1e-5, 1e-6, 3)),
            (Task::Stsb, (8e-5, 5e-6, 10), (8e-5, 1e-5, 10)),
        ];
        assert_eq!(table.len(), Task::PAPER.len());
        for (task, base, large) in table {
            for (size, (learning_rate, weight_decay, epochs)) in
                [(ModelSize::Base, base), (ModelSize::Large, large)]
            {
                let expected = Hyperparameters {
                    learning_rate,
                    weight_decay,
                    epochs,
                    batch_size: 64,
                };
                assert_eq!(task.paper_hyperparameters(size), Some(expected), "{task}");
            }
        }
    }

    #[test]
    fn every_choice_lies_in_the_sweep_of_the_appendix() {
        for task in Task::PAPER {
            for size in [ModelSize::Base, ModelSize::Large] {
                let chosen = task.paper_hyperparameters(size).unwrap();
                assert!(
                    SWEEP_LEARNING_RATES.contains(&chosen.learning_rate),
                    "{task}"
                );
                assert!(SWEEP_WEIGHT_DECAYS.contains(&chosen.weight_decay), "{task}");
                assert!(task.sweep_epochs().contains(&chosen.epochs), "{task}");
                assert_eq!(chosen.batch_size, 64);
            }
        }
        assert_eq!(Task::Wnli.paper_hyperparameters(ModelSize::Base), None);
    }

    #[test]
    fn rte_mrpc_and_stsb_start_from_mnli_and_no_other_task_does() {
        for task in Task::PAPER.into_iter().chain([Task::Wnli, Task::Ax]) {
            let expected = match task {
                Task::Rte | Task::Mrpc | Task::Stsb => Some(Task::Mnli),
                _ => None,
            };
            assert_eq!(task.starts_from(), expected, "{task}");
        }
    }

    #[test]
    fn the_scores_have_the_mean_of_the_overview_table() {
        for (size, mean) in [(ModelSize::Base, 88.4), (ModelSize::Large, 90.4)] {
            let sum: f64 = Task::PAPER
                .iter()
                .filter_map(|task| task.paper_score(size))
                .sum();
            assert!((sum / 8.0 - mean).abs() < 0.08, "{}", sum / 8.0);
        }
    }
}
