//! Settings of a finetuning.

use modernbert::batch::DropoutRates;
use modernbert::config::{ModernBertConfig, is_share};
use modernbert::model::dropout_rates;

use super::error::FinetuneError;
use super::example::Example;
use crate::optim::{DecoupledAdamW, UpdateRule};
use crate::schedule::{LearningRate, Schedule, TokenSpan};

/// Settings of a finetuning.
#[derive(Clone, Debug, PartialEq)]
pub struct FinetuneOptions {
    /// Passes over the training examples.
    pub epochs: usize,
    /// Examples of a step.
    pub batch_size: usize,
    /// Micro-batches of a step, whose gradients are accumulated: more of them take less memory.
    pub micro_batches: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Share of a weight removed per step at the peak.
    pub weight_decay: f64,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Dropout after the attention output projection, instead of the config's `attention_dropout`, which drops attention probabilities as
    /// well; `None` takes the config's. The authors finetuned with 0.1 there and none elsewhere.
    pub attention_output_dropout: Option<f64>,
    /// Seed of the order of examples.
    pub seed: u64,
    /// Steps between two evaluations on the dev set; `None` evaluates after every epoch. The last step is always evaluated.
    pub evaluate_every: Option<usize>,
    /// Evaluations in a row without a better score after which training stops; `None` never stops early.
    pub patience: Option<usize>,
    /// Name of the run on the dashboard and in its lines.
    pub label: String,
}

impl Default for FinetuneOptions {
    /// Settings that suit many small data sets and base-sized models: 3 epochs in batches of 32 at 5e-5.
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 32,
            micro_batches: 1,
            learning_rate: 5e-5,
            weight_decay: 5e-6,
            warmup: 0.06,
            attention_output_dropout: None,
            seed: 0,
            evaluate_every: None,
            patience: None,
            label: "finetune".to_string(),
        }
    }
}

/// Most passes over the examples: beyond, counts of steps and tokens could overflow.
const MOST_EPOCHS: usize = 1_000_000;

impl FinetuneOptions {
    /// Refuses settings with which nothing can be trained.
    ///
    /// # Errors
    /// [`FinetuneError::Setting`]: the first of them.
    pub fn check(&self) -> Result<(), FinetuneError> {
        let Self {
            epochs,
            batch_size,
            micro_batches,
            learning_rate: rate,
            weight_decay: decay,
            warmup,
            ..
        } = self;
        let dropout = self.attention_output_dropout.unwrap_or(0.0);
        let value = |value: &dyn ToString| value.to_string();
        let positive = "at least 1";
        let checks = [
            ("epochs", value(epochs), *epochs > 0, positive),
            (
                "epochs",
                value(epochs),
                *epochs <= MOST_EPOCHS,
                "at most 1000000",
            ),
            ("batch_size", value(batch_size), *batch_size > 0, positive),
            (
                "micro_batches",
                value(micro_batches),
                *micro_batches > 0,
                positive,
            ),
            (
                "micro_batches",
                value(micro_batches),
                micro_batches <= batch_size,
                "at most batch_size, the examples of a step",
            ),
            (
                "learning_rate",
                value(rate),
                // Weights are f32: a smaller rate would be 0 there, a larger one infinite.
                (f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX)).contains(rate),
                "a positive number that f32 holds",
            ),
            (
                "weight_decay",
                value(decay),
                is_share(*decay),
                "from 0 to below 1",
            ),
            (
                "attention_output_dropout",
                value(&dropout),
                is_share(dropout),
                "from 0 to below 1",
            ),
            (
                "warmup",
                value(warmup),
                (0.0..=1.0).contains(warmup),
                "from 0 to 1",
            ),
        ];
        let wrong = checks.into_iter().find(|(_, _, works, _)| !works);
        let Some((setting, value, _, wanted)) = wrong else {
            return Ok(());
        };
        Err(FinetuneError::Setting {
            label: self.label.clone(),
            setting,
            value,
            wanted,
        })
    }

    /// Steps of one pass over `samples` samples.
    pub fn steps_per_epoch(&self, samples: usize) -> usize {
        samples.div_ceil(self.batch_size.max(1))
    }

    /// Steps between two evaluations.
    pub fn evaluation_interval(&self, samples: usize) -> usize {
        let epoch = self.steps_per_epoch(samples).max(1);
        self.evaluate_every.unwrap_or(epoch).max(1)
    }

    /// Work of a run without early stopping, in tokens of a forward pass (a training step counts three), for
    /// [`JobClock`](super::JobClock).
    pub fn cost_in_tokens<E: Example>(&self, train: &[E], dev: &[E]) -> u64 {
        let tokens = |examples: &[E]| examples.iter().map(|e| e.tokens() as u64).sum::<u64>();
        let steps = self
            .steps_per_epoch(train.len())
            .saturating_mul(self.epochs);
        let evaluations = steps.div_ceil(self.evaluation_interval(train.len()));
        let training = tokens(train).saturating_mul(3u64.saturating_mul(self.epochs as u64));
        training.saturating_add(tokens(dev).saturating_mul(evaluations as u64))
    }

    /// Dropout rates of training: those of the model's config, but for [`Self::attention_output_dropout`].
    pub fn dropout_rates(&self, config: &ModernBertConfig) -> DropoutRates {
        let rates = dropout_rates(config);
        DropoutRates {
            attention_output: self
                .attention_output_dropout
                .unwrap_or(rates.attention_output),
            ..rates
        }
    }

    /// The rule by which parameters are updated.
    pub fn update_rule(&self) -> UpdateRule {
        DecoupledAdamW::new(self.learning_rate, self.weight_decay).into()
    }

    /// The rate over the steps: linear warmup, then linear to zero. The first step has the first share of the warmup, the last step the
    /// last share of the decay: neither is zero.
    pub fn rate(&self) -> LearningRate {
        LearningRate {
            peak: self.learning_rate,
            schedule: Schedule::LinearWithWarmup {
                warmup_tokens: TokenSpan::Fraction(self.warmup),
                final_fraction: 0.0,
            },
            margin: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The authors' finetuning: decoupled AdamW with betas of 0.9 and 0.98 and epsilon 1e-6; the rate rises over 6 or 10 % of the steps and falls
    /// linearly to the zero of the step after the last.
    #[test]
    fn the_optimizer_and_the_rates_are_those_of_the_authors() {
        let options = |warmup| FinetuneOptions {
            learning_rate: 8e-5,
            weight_decay: 5e-6,
            warmup,
            ..FinetuneOptions::default()
        };
        let expected = UpdateRule::DecoupledAdamW(DecoupledAdamW {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            weight_decay: 5e-6,
            initial_lr: 8e-5,
        });
        assert_eq!(options(0.06).update_rule(), expected);
        assert_eq!(FinetuneOptions::default().warmup, 0.06);
        for (warmup, golden) in [
            (
                0.06,
                [
                    (1, 1.0 / 12.0),
                    (6, 0.5),
                    (12, 1.0),
                    (106, 0.5),
                    (199, 1.0 / 188.0),
                ],
            ),
            (
                0.1,
                [
                    (1, 0.05),
                    (10, 0.5),
                    (20, 1.0),
                    (110, 0.5),
                    (199, 1.0 / 180.0),
                ],
            ),
        ] {
            let rate = options(warmup).rate();
            for (step, factor) in golden {
                let found = rate.of_step(step - 1, step, 199, None);
                assert!(
                    (found - 8e-5 * factor).abs() < 1e-17,
                    "{warmup}, step {step}: {found}"
                );
            }
        }
    }

    #[test]
    fn settings_with_which_nothing_can_be_trained_are_named() {
        let good = FinetuneOptions::default;
        assert!(good().check().is_ok());
        type Change = fn(&mut FinetuneOptions);
        let changes: [(&str, Change); 13] = [
            ("epochs", |o| o.epochs = 0),
            ("epochs", |o| o.epochs = usize::MAX),
            ("batch_size", |o| o.batch_size = 0),
            ("micro_batches", |o| o.micro_batches = 0),
            ("learning_rate", |o| o.learning_rate = 0.0),
            ("learning_rate", |o| o.learning_rate = -1e-5),
            ("learning_rate", |o| o.learning_rate = f64::NAN),
            ("learning_rate", |o| o.learning_rate = f64::INFINITY),
            ("learning_rate", |o| o.learning_rate = 1e-46),
            ("learning_rate", |o| o.learning_rate = 1e39),
            ("weight_decay", |o| o.weight_decay = 1.0),
            ("weight_decay", |o| o.weight_decay = f64::NAN),
            ("warmup", |o| o.warmup = 1.5),
        ];
        for (setting, change) in changes {
            let mut options = good();
            change(&mut options);
            let message = options.check().map_err(|error| error.to_string());
            let wrong = message.expect_err(setting);
            assert!(
                wrong.starts_with(&format!("finetune: {setting} is ")),
                "{wrong}"
            );
        }
    }
}
