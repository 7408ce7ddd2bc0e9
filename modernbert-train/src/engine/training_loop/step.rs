//! One optimizer step, and the readback of its losses.

use burn::optim::GradientsParams;
use ranks::tree;
use std::time::Instant;

use super::super::error::EngineError;
use super::super::over_ranks::{accumulate, reduce};
use super::super::readback::{Pending, read_back};
use super::super::task::{LossSums, Task};
use super::super::window::Window;
use super::Loop;
use crate::optim::{GradientSquares, clip_by_norm};

impl<T: Task> Loop<T> {
    /// One optimizer step: micro-batches, their gradients, the update.
    pub(super) fn step(&mut self, model: T::Model) -> Result<T::Model, EngineError> {
        let asked = Instant::now();
        let seen = self.seen();
        let batches = self.task.next_step(&self.state, seen);
        let batches = batches
            .map_err(EngineError::Data)?
            .ok_or(EngineError::DataEnded)?;
        let counts = self.task.counts(&batches);
        let known = Window {
            tokens: counts.tokens,
            timed_tokens: counts.tokens,
            slots: counts.slots,
            weight: counts.weight,
            flops: counts.flops,
            waited: asked.elapsed(),
            ..Window::default()
        };
        self.batch_tokens = counts.slots;

        let (sums, mut gradients) = self.gradients(&model, batches)?;
        let squares = GradientSquares::of(&model, &gradients);
        let step = self.state.step + 1;
        let mut pending = Pending::new(step, sums, &squares, known);
        let all_finite = self.all_finite.take().map(|flag| pending.gate(flag));
        self.all_finite.clone_from(&all_finite);
        let late = all_finite.is_some();
        let mut apply = all_finite;
        if let Some(spikes) = &mut self.spikes {
            // A step without a masked token has no loss to judge.
            let applied = match pending.has_loss() {
                true => spikes.judge(pending.loss()),
                false => spikes.applied(),
            };
            pending = pending.with_spikes(applied.clone(), spikes);
            apply = Some(match apply {
                Some(finite) => finite * applied,
                None => applied,
            });
        }
        self.pending.push(pending);
        // Without the flag, a non-finite value is found before the weights change.
        if !late {
            self.read_back()?;
        }
        if let Some(limit) = self.settings.max_grad_norm {
            gradients = clip_by_norm(&model, gradients, &squares, limit);
        }
        self.state.step = step;
        self.state.tokens += counts.tokens;
        self.state.phase_tokens += counts.tokens;
        self.state.rows += counts.rows;
        self.state.position = counts.position;
        let (after, total) = (self.seen(), self.total());
        let shortened = self.state.shortened;
        let rate = self
            .settings
            .learning_rate
            .of_step(seen, after, total, shortened);
        self.rate = Some(rate);
        let model = self.optimizer.step_if(apply, rate, model, gradients);
        self.state.optimizer_updates = self.optimizer.updates();
        self.steps_here += 1;
        self.report.tokens += counts.tokens;
        Ok(model)
    }

    /// Sums and gradients of a step, over all ranks. The code that uses them does not depend on the number of ranks.
    fn gradients(
        &self,
        model: &T::Model,
        mut batches: Vec<T::Batch>,
    ) -> Result<(Vec<LossSums>, GradientsParams), EngineError> {
        if !self.ranks.is_several() {
            return Ok(self.task.step(model, batches));
        }
        if !T::OVER_RANKS {
            return Err(EngineError::OneProcess);
        }
        let leaves = batches.len();
        let own = tree::range_of_rank(leaves, self.ranks.rank(), self.ranks.size());
        let mine = batches.drain(own.clone()).collect();
        let (sums, parts) = accumulate(&self.task, model, mine, leaves, &own);
        let over = (&*self.ranks, &self.gradient_sum);
        reduce(over, model, leaves, sums, parts)
    }

    /// Reads back the losses and norms that are still on the device.
    pub(super) fn read_back(&mut self) -> Result<(), EngineError> {
        let [time] = self.agreed([self.mark.elapsed()])?;
        self.mark = Instant::now();
        for window in read_back(std::mem::take(&mut self.pending), time)? {
            self.state.first_loss = self.state.first_loss.or(window.loss());
            if self.measured_from.is_some() {
                self.measured.add(&window);
            }
            self.window.add(&window);
            if window.spikes.is_some() {
                self.state.spikes = window.spikes;
            }
            self.state.phase_seconds += window.time.as_secs_f64();
            self.report.seconds += window.time.as_secs_f64();
        }
        Ok(())
    }
}
