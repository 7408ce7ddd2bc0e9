//! The one training loop, for every kind of training.
//!
//! [`Loop`] trains a [`Task`]: masked language modeling ([`pretrain`](crate::pretrain)) and every head
//! of [`finetune`](crate::finetune). A step is
//!
//! 1. micro-batches of the task, each with the denominator of the whole step;
//! 2. [`Task::step`]: sums on the device and accumulated gradients;
//! 3. the squares of the gradients, from which the norm, clipping and the all-finite flag follow;
//! 4. [`NamedOptimizer::step_if`](crate::optim::NamedOptimizer::step_if) at the rate of [`LearningRate`](crate::schedule::LearningRate);
//! 5. the actions of [`Cadence::due`]: readback, fit to the time limit, log row, evaluation, checkpoint, end.
//!
//! | module | contents |
//! |---|---|
//! | `training_loop` | [`Loop`], [`LoopSettings`], [`LoopOutcome`] |
//! | `task` | [`Task`]: the data, loss, evaluation and checkpoints of a kind of training |
//! | `cadence` | [`Cadence`]: the actions due after a step, a pure function |
//! | `early_stopping` | [`EarlyStopping`]: the best score, patience |
//! | `readback`, `window`, `finite` | losses and norms from the device; sums between two log rows; checks for non-finite values |
//! | `spikes` | [`SpikeLimit`]: steps whose loss is far above the running mean are skipped |
//! | `memory` | memory in use, for the log |
//! | `reporter`, `series`, `dashboard`, `progress`, `log` | [`Reporter`]: burn-train's dashboard, plain lines, `metrics.jsonl` |
//! | `interrupt`, `terminal` | [`stop_on_signals`]: Ctrl-C, SIGTERM, SIGHUP; the dashboard's keys |
//! | `error` | [`EngineError`] |
//! | `over_ranks` | gradients in the order of the tree, summed over the ranks of a data-parallel run |
//! | `transport` | transports of these gradients: through host memory, or between GPUs by NCCL |
//! | `peaks` | peak FLOP/s of devices, for MFU |
//!
//! Non-finite values end a run before they are saved: a loss or gradient before its update is applied, a parameter before any checkpoint
//! and at the end, a loss, score or output of an evaluation at once. An evaluation without a single target is undefined: it has no
//! number in the log and is never best.
//!
//! # Extension points
//!
//! - **A task of another loss** implements [`Task`]; the loop, its log, checkpoints and keys stay as they are. If the loss is a sum over
//!   micro-batches, [`Task::gradients`] is enough.
//! - **A cached two-pass step (GradCache)**, whose loss needs the embeddings of all micro-batches at once, replaces [`Task::step`]:
//!   the first pass embeds each micro-batch without a graph, the loss gives a gradient for each embedding, the second pass recomputes
//!   each micro-batch with a graph and accumulates the gradients of its dot product with them. [`recompute`](crate::recompute) does the
//!   same within one micro-batch, layer by layer.
//! - **Another transport between ranks** (MPI, a fabric's own library) implements [`Transport`].
//!
//! # Ranks
//!
//! [`Loop::over`] trains on several [ranks](ranks::Ranks). Every rank reads all micro-batches of a step, which are a pure function of data
//! and settings, and computes the gradients of its share. Between the gradients of the micro-batches and the squares of the gradients, gradients and losses
//! are summed in the order of a binary [tree](ranks::tree) over the step's micro-batches. Norm, clipping and update depend on these sums
//! alone, so every rank makes the same update, and its bits do not depend on the number of ranks. What depends on a clock or a signal is
//! agreed on: rank 0's times count, and a stop of any rank stops all. Rank 0 writes checkpoints and the log.

mod cadence;
mod dashboard;
mod early_stopping;
mod error;
mod finite;
mod interrupt;
mod log;
#[cfg(test)]
mod loop_tests;
mod memory;
mod over_ranks;
mod peaks;
mod progress;
mod readback;
mod reporter;
mod series;
mod spikes;
mod task;
mod terminal;
mod training_loop;
mod transport;
#[cfg(test)]
mod transport_tests;
mod window;

pub use cadence::{Cadence, Due, Moment, ProgressUnit};
pub use early_stopping::EarlyStopping;
pub use error::{BoxError, EngineError, Failure, SMALLER_STEP};
pub use interrupt::{is_training, stop_on_signals};
pub use log::{LogRow, MetricsLog, read_log};
pub use peaks::{device_peak, peak_tflops};
pub use progress::Progress;
pub use readback::NotFinite;
pub use reporter::{Reporter, ReporterOptions, Suffix};
pub use spikes::SpikeLimit;
pub use task::{Counts, Evaluation, EvaluationError, LossSums, Task};
pub use training_loop::{Loop, LoopOutcome, LoopReport, LoopSettings};
pub use transport::{GradientSum, Host, Nccl, SumOrder, SumShares, Transport};
