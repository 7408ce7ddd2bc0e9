#![allow(clippy::unwrap_used)]

use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::train::Interrupter;
use std::time::Duration;

use super::*;
use crate::optim::{NamedOptimizer, StableAdamWConfig};
use crate::schedule::{LearningRate, Schedule, TokenSpan};
use crate::snapshot::RunState;

/// Steps over one matrix whose loss is a constant that each step chooses, with a small gradient.
struct Steps {
    losses: Vec<f64>,
    /// The weights before each step.
    before: Vec<Vec<f32>>,
}

impl Task for Steps {
    type Model = Linear;
    type Batch = f64;

    const SCORED: bool = false;
    const COUNTS_CORRECT: bool = false;

    fn next_step(&mut self, state: &RunState, _seen: u64) -> Result<Option<Vec<f64>>, BoxError> {
        let loss = self.losses.get(state.step as usize);
        let loss = loss.ok_or_else(|| BoxError::from("rows.jsonl:7: no text"))?;
        Ok(Some(vec![*loss]))
    }

    fn counts(&self, _batches: &[f64]) -> Counts {
        Counts {
            tokens: 1,
            slots: 1,
            rows: 1,
            weight: 1,
            ..Counts::default()
        }
    }

    fn gradients(&self, model: &Linear, loss: f64) -> (LossSums, GradientsParams) {
        let input = Tensor::<2>::ones([1, 3], &model.weight.val().device());
        let output = model.forward(input).sum() * 0.01 + loss;
        let gradients = GradientsParams::from_grads(output.backward(), model);
        let sums = LossSums {
            loss: output.inner(),
            correct: None,
        };
        (sums, gradients)
    }

    fn evaluation_items(&self) -> usize {
        1
    }

    fn evaluate(&mut self, model: &Linear, _step: u64) -> Result<Evaluation, EvaluationError> {
        self.before
            .push(model.weight.val().into_data().try_to_vec().unwrap());
        Ok(Evaluation {
            loss: Some(1.0),
            ..Evaluation::default()
        })
    }

    fn save(&mut self, _: &Linear, _: &NamedOptimizer, _: &RunState) -> Result<(), BoxError> {
        Ok(())
    }
}

/// The weights after each step and the log's rows.
fn train(
    losses: &[f64],
    read_every: u64,
    spikes: Option<SpikeLimit>,
) -> (Vec<Vec<f32>>, Vec<LogRow>) {
    let (outcome, rows) = train_for(losses.len() as u64, losses, read_every, spikes);
    (outcome.unwrap().task.before, rows)
}

/// `steps` steps, of which those beyond `losses` have no data, and the log's rows.
fn train_for(
    steps: u64,
    losses: &[f64],
    read_every: u64,
    spikes: Option<SpikeLimit>,
) -> (Result<LoopOutcome<Steps>, Box<Failure>>, Vec<LogRow>) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("metrics.jsonl");
    let settings = LoopSettings {
        cadence: Cadence {
            unit: ProgressUnit::Steps,
            evaluate_every: 1,
            log_every: 1,
            log_before_evaluation: false,
            read_every,
            save_every_steps: None,
            save_every: None,
            evaluate_before_save: false,
            time_limit: None,
        },
        learning_rate: LearningRate {
            peak: 0.1,
            schedule: Schedule::Constant {
                warmup_tokens: TokenSpan::default(),
            },
            margin: 0,
        },
        max_grad_norm: None,
        spikes,
        patience: None,
        saves: true,
        peak_flops: None,
    };
    let interrupter = Interrupter::new();
    let reporter = Reporter::new::<Steps>(
        ReporterOptions {
            progress: Progress::Silent,
            title: String::new(),
            prefix: String::new(),
            suffix: None,
            unit: ProgressUnit::Steps,
            evaluations: 1,
            line_every: Duration::ZERO,
            log: Some(MetricsLog::open(&log).unwrap()),
            has_mfu: false,
            skips_spikes: spikes.is_some(),
        },
        &interrupter,
    );
    let state = RunState {
        phase_total: steps,
        next_evaluation: 1,
        ..RunState::default()
    };
    let task = Steps {
        losses: losses.to_vec(),
        before: Vec::new(),
    };
    let optimizer = NamedOptimizer::new(StableAdamWConfig::new(0.1));
    let device = test_support::device();
    device.seed(1);
    let model = LinearConfig::new(3, 2).with_bias(false).init(&device);
    let training = Loop::new(task, settings, (optimizer, state), reporter, interrupter);
    let outcome = training.run(model).map_err(Box::new);
    (outcome, read_log(&log).unwrap())
}

/// An error of the data, such as one of a loader thread, ends the run; the caller receives the message and the number of steps done.
#[test]
fn an_error_of_the_data_reaches_the_caller() {
    let (outcome, rows) = train_for(5, &[5.0; 3], 1, None);
    let failure = outcome.err().unwrap();
    assert_eq!(failure.step, 3);
    assert!(
        matches!(&failure.error, EngineError::Data(source) if source.to_string() == "rows.jsonl:7: no text"),
        "{failure}"
    );
    let trained = rows.iter().filter(|row| row.split == "train");
    assert_eq!(trained.map(|row| row.step).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_bad_batch_is_skipped_and_logged() {
    // Losses around 5 with a bad batch at step 15, counted from 1.
    let losses: Vec<f64> = (0..20)
        .map(|step| {
            if step == 14 {
                50.0
            } else {
                5.0 + f64::from(step % 3) / 10.0
            }
        })
        .collect();
    let limit = Some(SpikeLimit {
        deviations: 5.0,
        window: 8,
    });
    for read_every in [1, 4] {
        let (weights, rows) = train(&losses, read_every, limit);
        assert_eq!(weights.len(), 20);
        for step in 1..20 {
            let moved = weights[step] != weights[step - 1];
            assert_eq!(moved, step != 14, "step {} of {read_every}", step + 1);
        }
        let skipped = rows.iter().filter(|row| row.split == "train");
        let skipped: Vec<u64> = skipped.map(|row| row.skipped.unwrap()).collect();
        let expected: Vec<u64> = (0..20).map(|step| u64::from(step == 14)).collect();
        assert_eq!(skipped, expected);
    }
    // Without the setting the bad batch moves the weights, and the log has no such column.
    let (weights, rows) = train(&losses, 1, None);
    assert!(weights.windows(2).all(|pair| pair[0] != pair[1]));
    assert!(rows.iter().all(|row| row.skipped.is_none()));
}
