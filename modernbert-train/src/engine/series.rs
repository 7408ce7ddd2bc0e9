//! Columns of the log as series of burn-train's dashboard.

use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    MetricAttributes, MetricDefinition, MetricEntry, MetricId, NumericAttributes,
};
use burn::train::renderer::MetricState;
use std::sync::Arc;

use super::log::LogRow;

/// One column of the log on the dashboard: its name, unit, digits, and running mean.
pub(super) struct Series {
    name: Arc<String>,
    unit: Option<&'static str>,
    higher_is_better: bool,
    digits: usize,
    pick: fn(&LogRow) -> Option<f64>,
    state: NumericMetricState,
}

/// The optional series of a task.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Columns {
    pub(super) accuracy: bool,
    pub(super) score: bool,
    pub(super) mfu: bool,
    pub(super) spikes: bool,
}

impl Series {
    /// The series of a training, in the order of their tabs.
    pub(super) fn all(columns: Columns) -> Vec<Self> {
        let mut all = vec![Self::new("Loss", None, false, 4, |row| row.loss)];
        if columns.accuracy {
            all.push(Self::new("Masked Accuracy", Some("%"), true, 2, |row| {
                Some(100.0 * row.masked_accuracy?)
            }));
        }
        if columns.score {
            all.push(Self::new("Dev Score", None, true, 4, |row| row.score));
        }
        all.extend([
            Self::new("Learning Rate", None, false, 6, |row| row.lr),
            Self::new("Gradient Norm", None, false, 4, |row| row.grad_norm),
            Self::new("Tokens", Some("tok/s"), true, 0, |row| row.tok_s),
            Self::new("Data Wait", Some("%"), false, 2, |row| {
                Some(100.0 * row.data_wait?)
            }),
            Self::new("Batch Size", Some("k tokens"), true, 1, |row| {
                Some(row.batch_tokens? as f64 / 1e3)
            }),
            Self::new("Packing", Some("%"), true, 2, |row| {
                Some(100.0 * row.packing?)
            }),
            Self::new("Tokens Left", Some("M"), false, 3, |row| {
                Some(row.tokens_left? as f64 / 1e6)
            }),
            Self::new("Time Left", Some("min"), false, 1, |row| {
                Some(row.seconds_left? / 60.0)
            }),
            Self::new("Memory", Some("MiB"), false, 0, |row| row.memory_mib),
        ]);
        if columns.spikes {
            all.push(Self::new("Skipped", Some("steps"), false, 0, |row| {
                Some(row.skipped? as f64)
            }));
        }
        if columns.mfu {
            all.push(Self::new("MFU", Some("%"), true, 2, |row| {
                Some(100.0 * row.mfu?)
            }));
        }
        all
    }

    fn new(
        name: &str,
        unit: Option<&'static str>,
        higher_is_better: bool,
        digits: usize,
        pick: fn(&LogRow) -> Option<f64>,
    ) -> Self {
        Self {
            name: Arc::new(name.to_string()),
            unit,
            higher_is_better,
            digits,
            pick,
            state: NumericMetricState::new(),
        }
    }

    fn id(&self) -> MetricId {
        MetricId::new(self.name.clone())
    }

    /// The series as burn-train's renderers register it.
    pub(super) fn definition(&self) -> MetricDefinition {
        let attributes = NumericAttributes {
            unit: self.unit.map(str::to_string),
            higher_is_better: self.higher_is_better,
        };
        MetricDefinition {
            metric_id: self.id(),
            name: self.name.clone(),
            description: None,
            attributes: MetricAttributes::from(attributes),
        }
    }

    /// Adds a row's value, a mean over `weight` items; `None` where the row has no finite value.
    pub(super) fn update(&mut self, row: &LogRow, weight: u64) -> Option<MetricState> {
        let value = (self.pick)(row).filter(|value| value.is_finite())?;
        self.state.update(value, (weight as usize).max(1));
        let format = FormatOptions::new(self.name.clone()).precision(self.digits);
        let format = match self.unit {
            Some(unit) => format.unit(unit),
            None => format,
        };
        let entry = MetricEntry::new(self.id(), self.state.compute_update(format));
        Some(MetricState::Numeric(
            entry,
            Some(self.state.current_value()),
        ))
    }

    /// Begins a new running mean.
    pub(super) fn reset(&mut self) {
        self.state.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_the_series_of_its_columns() {
        let names = |columns| -> Vec<String> {
            let all = Series::all(columns);
            all.iter().map(|series| series.name.to_string()).collect()
        };
        let finetuning = names(Columns {
            score: true,
            ..Columns::default()
        });
        assert_eq!(finetuning[..3], ["Loss", "Dev Score", "Learning Rate"]);
        let pretraining = names(Columns {
            accuracy: true,
            mfu: true,
            ..Columns::default()
        });
        assert_eq!(pretraining[..2], ["Loss", "Masked Accuracy"]);
        assert_eq!(pretraining.last().unwrap(), "MFU");
    }

    #[test]
    fn rows_without_a_finite_value_leave_a_series_as_it_is() {
        let mut loss = Series::all(Columns::default()).remove(0);
        let row = |loss| LogRow {
            loss,
            ..LogRow::default()
        };
        assert!(loss.update(&row(None), 3).is_none());
        assert!(loss.update(&row(Some(f64::NAN)), 3).is_none());
        let Some(MetricState::Numeric(_, Some(value))) = loss.update(&row(Some(2.0)), 3) else {
            panic!("a numeric state");
        };
        assert_eq!(value.current(), 2.0);
    }
}
