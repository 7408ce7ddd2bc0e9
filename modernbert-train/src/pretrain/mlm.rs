//! Masked language modeling as a task of the training loop.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use modernbert::batch::PackedBatch;
use modernbert::config::ModernBertConfig;
use modernbert::device::read;
use modernbert::model::{MaskedLm, MaskedLmOutput, MaskedTokens};
use ranks::{Ranks, tree};
use std::sync::Arc;

use crate::engine::{BoxError, Counts, Evaluation, EvaluationError, LossSums, Task};
use crate::loader::{MlmItem, Prefetched};
use crate::optim::NamedOptimizer;
use crate::recipe::{BatchRecipe, CheckpointRecipe, ModelRecipe};
use crate::recompute;
use crate::run_dir::RunDir;
use crate::schedule::{BatchWarmup, RotaryRamp};
use crate::snapshot::RunState;

/// A phase's data and the folder of its checkpoints.
pub(super) struct MlmTask<'a> {
    /// Endless training rows.
    pub(super) rows: Prefetched,
    /// Micro-batches of a step.
    pub(super) batch: BatchWarmup,
    /// The settings that `batch` is made from.
    pub(super) batch_recipe: BatchRecipe,
    /// The rotary base of global layers, where it rises over the phase.
    pub(super) rotary: Option<RotaryRamp>,
    /// The settings that `rotary` is made from.
    pub(super) model_recipe: ModelRecipe,
    /// Held-out rows.
    pub(super) held_out: Vec<MlmItem>,
    /// The model's sizes, for FLOP counts, and its last rotary base.
    pub(super) config: ModernBertConfig,
    /// The run's folder.
    pub(super) dir: &'a RunDir,
    /// The processes that train together.
    pub(super) ranks: Arc<Ranks>,
    /// Rule for the checkpoints that are kept.
    pub(super) rule: &'a CheckpointRecipe,
}

/// A micro-batch on the model's device.
fn inputs(model: &MaskedLm, item: &MlmItem) -> (PackedBatch, MaskedTokens) {
    let device = model.model.device();
    let batch =
        PackedBatch::new(&item.input_ids, item.layout.clone(), &device).with_dropout(item.dropout);
    let labels = &item.labels;
    let masked = MaskedTokens::new(&labels.positions, &labels.labels, &labels.weights, &device);
    (batch, masked)
}

/// Lengths of the sequences of a micro-batch, without the padding at its end.
fn real_lengths(item: &MlmItem) -> impl Iterator<Item = usize> + '_ {
    let ranges = item.layout.ranges();
    let real = ranges.take_while(|range| range.end <= item.real_tokens);
    real.map(|range| range.len())
}

/// Sums and gradients of one micro-batch: the loss is divided by the labelled tokens of the whole step, so that micro-batches add up to
/// the token-exact mean.
pub(super) fn gradients(model: &MaskedLm, item: &MlmItem) -> (LossSums, GradientsParams) {
    let (batch, masked) = inputs(model, item);
    let denominator = item.step_labelled.max(1) as f64;
    if model.model.recomputes() {
        let (output, gradients) = recompute::gradients(model, &batch, &masked, denominator);
        return (sums(output), gradients);
    }
    let output = model.forward(&batch, &masked);
    let loss = output.loss_sum.clone() / denominator;
    let gradients = GradientsParams::from_grads(loss.backward(), model);
    let output = MaskedLmOutput {
        loss_sum: output.loss_sum.inner(),
        correct: output.correct.inner(),
    };
    (sums(output), gradients)
}

fn sums(output: MaskedLmOutput) -> LossSums {
    LossSums {
        loss: output.loss_sum,
        correct: Some(output.correct),
    }
}

impl Task for MlmTask<'_> {
    type Model = MaskedLm;
    type Batch = MlmItem;

    const SCORED: bool = false;
    const COUNTS_CORRECT: bool = true;
    const OVER_RANKS: bool = true;

    fn next_step(
        &mut self,
        _state: &RunState,
        seen: u64,
    ) -> Result<Option<Vec<MlmItem>>, BoxError> {
        let mut items = Vec::with_capacity(self.batch.full());
        for _ in 0..self.batch.size(seen) {
            match self.rows.next() {
                Some(item) => items.push(item?),
                None => return Ok(None),
            }
        }
        MlmItem::share_denominator(&mut items);
        Ok(Some(items))
    }

    fn adapt(&self, model: MaskedLm, seen: u64) -> MaskedLm {
        match self.rotary.map(|ramp| ramp.at(seen)) {
            Some(theta) if theta != model.model.config().global_rope_theta => {
                model.with_global_rope_theta(theta)
            }
            _ => model,
        }
    }

    fn counts(&self, items: &[MlmItem]) -> Counts {
        // Padding at the end of a row is a sequence of the layout, but its FLOP are not counted.
        let lengths: Vec<usize> = items.iter().flat_map(real_lengths).collect();
        let labelled: usize = items.iter().map(|item| item.labelled).sum();
        Counts {
            tokens: items.iter().map(|item| item.real_tokens as u64).sum(),
            slots: items.iter().map(|item| item.input_ids.len() as u64).sum(),
            rows: items.len() as u64,
            weight: labelled as u64,
            flops: self.config.train_flops(&lengths, labelled) as f64,
            position: items.last().and_then(|item| item.position_after(1)),
        }
    }

    fn gradients(&self, model: &MaskedLm, item: MlmItem) -> (LossSums, GradientsParams) {
        gradients(model, &item)
    }

    fn shortened(&mut self, total: u64) {
        self.batch = self.batch_recipe.warmup_over(total);
        self.rotary = self.model_recipe.rotary_ramp(&self.config, total);
    }

    fn evaluation_items(&self) -> usize {
        self.held_out.len()
    }

    fn evaluate(&mut self, model: &MaskedLm, _step: u64) -> Result<Evaluation, EvaluationError> {
        // Each rank evaluates its share; the sums are computed in the order of the items, for any number of ranks.
        let own = tree::range_of_rank(self.held_out.len(), self.ranks.rank(), self.ranks.size());
        let mut numbers = Vec::with_capacity(16 * own.len());
        for item in &self.held_out[own] {
            let (batch, masked) = inputs(model, item);
            let output = model.forward(&batch, &masked);
            // Loss and correct predictions, in one readback.
            let both = Tensor::cat(vec![output.loss_sum, output.correct], 0);
            for number in read(both).map_err(EvaluationError::other)? {
                numbers.extend(f64::from(number).to_le_bytes());
            }
        }
        let all = self.ranks.all_gather(&numbers);
        let all = all.map_err(EvaluationError::other)?.concat();
        let (numbers, _) = all.as_chunks::<8>();
        let (mut loss, mut correct) = (0.0, 0.0);
        for (index, number) in numbers.iter().enumerate() {
            let number = f64::from_le_bytes(*number);
            *(if index % 2 == 0 {
                &mut loss
            } else {
                &mut correct
            }) += number;
        }
        let labelled: usize = self.held_out.iter().map(|item| item.labelled).sum();
        if labelled == 0 {
            return Ok(Evaluation::default());
        }
        let count = labelled as f64;
        Ok(Evaluation {
            loss: Some(EvaluationError::finite("the held-out loss", loss / count)?),
            accuracy: Some(correct / count),
            items: labelled,
            ..Evaluation::default()
        })
    }

    fn warnings(&mut self) -> Vec<String> {
        self.dir.warnings()
    }

    fn save(
        &mut self,
        model: &MaskedLm,
        optimizer: &NamedOptimizer,
        state: &RunState,
    ) -> Result<(), BoxError> {
        self.dir.save(model, optimizer, state, self.rule)?;
        Ok(())
    }
}
