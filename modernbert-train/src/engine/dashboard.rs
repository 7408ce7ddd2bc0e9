//! burn-train's dashboard, its keys, and access to it from outside the loop.
//!
//! | key | effect |
//! |---|---|
//! | Ctrl-C | saves after the step and ends; a second one ends at once ([`stop_on_signals`](super::stop_on_signals)) |
//! | `q`, then `s` | saves after the step and ends |
//! | `q`, then `k` | ends at once; the last checkpoint is kept |
//! | `q`, then `c` | continues |

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use burn::train::Interrupter;
use burn::train::renderer::{MetricsRenderer, default_renderer};

use super::error::panic_text;
use super::terminal::{Terminal, outlive_a_hangup};
use modernbert_cli::INTERRUPTED;
use modernbert_cli::compiling::{Listener, announce_to};

/// Interval of the check whether the dashboard's `k` was pressed.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Longest wait for the dashboard's thread when it is closed.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);

/// No number of items.
const NONE: usize = usize::MAX;

/// Message of the panic that burn-train's renderer raises at every event after `k`.
const KILLED: &str = "Killing training from user input";

/// The dashboard on the screen, for code that ends the process or shows an event.
static ON_SCREEN: Mutex<Option<Arc<DashboardState>>> = Mutex::new(None);

struct DashboardState {
    renderer: Mutex<Option<Box<dyn MetricsRenderer>>>,
    terminal: Option<Terminal>,
    /// Finished items of the current split, which the watching thread repeats; [`NONE`] between splits. Changed with the renderer locked:
    /// the items of one split repeated in another would make its progress run backwards, on which burn-train's renderer panics.
    items: AtomicUsize,
    closed: AtomicBool,
}

/// burn-train's renderer of a terminal, which also counts compilations of kernels.
pub(super) struct Dashboard {
    shared: Arc<DashboardState>,
    watch: Option<JoinHandle<()>>,
    /// Registered for compilations while the dashboard lives.
    _listener: Arc<Listener>,
}

impl Dashboard {
    /// Owns the screen until the value is dropped.
    pub(super) fn new(interrupter: Interrupter) -> Self {
        let terminal = Terminal::remember();
        outlive_a_hangup();
        let renderer = default_renderer(interrupter, None);
        if let Some(terminal) = &terminal {
            terminal.raise_signals();
        }
        let shared = Arc::new(DashboardState {
            renderer: Mutex::new(Some(renderer)),
            terminal,
            items: AtomicUsize::new(NONE),
            closed: AtomicBool::new(false),
        });
        *on_screen() = Some(shared.clone());
        let to = shared.clone();
        let listener: Arc<Listener> = Arc::new(move |event| {
            to.draw(|renderer| renderer.log_event_training(event));
        });
        announce_to(&listener);
        let watched = shared.clone();
        let watch = std::thread::spawn(move || {
            while !watched.closed.load(Ordering::Relaxed) {
                std::thread::park_timeout(WATCH_EVERY);
                watched.repeat();
            }
        });
        Self {
            shared,
            watch: Some(watch),
            _listener: listener,
        }
    }

    /// Draws on the dashboard. After its `k` this call ends the process.
    pub(super) fn draw(&self, draw: impl FnOnce(&mut dyn MetricsRenderer)) {
        self.shared.draw(draw);
    }

    /// Shows the number of finished items of the current split.
    pub(super) fn update_split(&self, items: usize) {
        self.shared.update_split(items);
    }

    /// Ends the current split.
    pub(super) fn end_split(&self) {
        self.shared.end_split();
    }

    /// Begins a split of `total` items, of which `items` are finished.
    pub(super) fn start_split(&self, name: &str, total: usize, items: usize) {
        self.shared.start_split(name, total, items);
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        *on_screen() = None;
        // The renderer restores the screen when it is dropped: here, not in a clone of `shared` that outlives this value.
        let renderer = self.shared.renderer().take();
        let (ended, end) = mpsc::channel();
        let close = move || {
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(renderer)));
            // Nobody waits any more if it took too long.
            let _ = ended.send(dropped);
        };
        // If no thread can be started, the renderer is dropped with the closure.
        let _ = std::thread::Builder::new().spawn(close);
        match end.recv_timeout(CLOSE_WITHIN) {
            Ok(Err(panic)) => self.shared.panicked(panic),
            Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => {}
            // The dashboard's thread waits for the rest of a key's escape sequence and would wait forever.
            Err(RecvTimeoutError::Timeout) => {
                if let Some(terminal) = &self.shared.terminal {
                    terminal.restore();
                }
            }
        }
        if let Some(watch) = self.watch.take() {
            watch.thread().unpark();
            let _ = watch.join();
        }
    }
}

impl DashboardState {
    fn renderer(&self) -> MutexGuard<'_, Option<Box<dyn MetricsRenderer>>> {
        self.renderer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, draw: impl FnOnce(&mut dyn MetricsRenderer)) {
        let mut renderer = self.renderer();
        let Some(renderer) = renderer.as_mut() else {
            return;
        };
        let drawn = catch_unwind(AssertUnwindSafe(|| draw(&mut **renderer)));
        if let Err(panic) = drawn {
            self.panicked(panic);
        }
    }

    fn update_split(&self, items: usize) {
        self.draw(|renderer| {
            self.items.store(items, Ordering::Relaxed);
            renderer.update_split(items);
        });
    }

    fn end_split(&self) {
        self.draw(|renderer| {
            self.items.store(NONE, Ordering::Relaxed);
            renderer.end_split();
        });
    }

    fn start_split(&self, name: &str, total: usize, items: usize) {
        self.draw(|renderer| {
            renderer.start_split(name, total);
            self.items.store(items, Ordering::Relaxed);
            renderer.update_split(items);
        });
    }

    /// Repeats the values on the screen. After `k` any event makes the dashboard panic, and this one shows nothing new.
    fn repeat(&self) {
        self.draw(|renderer| {
            let items = self.items.load(Ordering::Relaxed);
            if items != NONE {
                renderer.update_split(items);
            }
        });
    }

    /// Ends the process if the panic was raised because of `k`; resumes any other panic.
    fn panicked(&self, panic: Box<dyn std::any::Any + Send>) {
        if panic_text(&*panic).contains(KILLED) {
            exit_now(self.terminal.as_ref());
        }
        resume_unwind(panic);
    }
}

fn on_screen() -> MutexGuard<'static, Option<Arc<DashboardState>>> {
    ON_SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows an event on the dashboard; `false` where there is none.
pub(super) fn show_event(event: &str) -> bool {
    let shared = on_screen().clone();
    match shared {
        Some(shared) => {
            shared.draw(|renderer| renderer.log_event_training(event.to_string()));
            true
        }
        None => false,
    }
}

/// Ends the process with [`INTERRUPTED`] after restoring the terminal. A checkpoint that is being written has a temporary name and is removed
/// by the next resume.
pub(super) fn end_process() -> ! {
    let shared = on_screen().clone();
    exit_now(shared.as_ref().and_then(|shared| shared.terminal.as_ref()))
}

fn exit_now(terminal: Option<&Terminal>) -> ! {
    if let Some(terminal) = terminal {
        terminal.restore();
    }
    std::process::exit(INTERRUPTED.into())
}

#[cfg(test)]
mod tests {
    use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
    use burn::train::metric::MetricDefinition;
    use burn::train::renderer::{
        EvaluationName, MetricState, MetricsRendererEvaluation, MetricsRendererTraining,
    };

    use super::*;

    /// As burn-train's progress bar: items that run backwards within a split, or come outside of one, are an error.
    #[derive(Default)]
    struct Bar {
        split: Option<(usize, usize)>,
        faults: Arc<AtomicUsize>,
        updates: Arc<AtomicUsize>,
    }

    impl TrainingProgressLogger for Bar {
        fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {}
        fn update_epoch(&mut self, _: usize) {}
        fn start_split(&mut self, _: &str, total: usize) {
            self.split = Some((0, total));
        }
        fn update_split(&mut self, items: usize) {
            self.updates.fetch_add(1, Ordering::Relaxed);
            match &mut self.split {
                Some((before, total)) if (*before..=*total).contains(&items) => *before = items,
                _ => {
                    self.faults.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        fn end_split(&mut self) {
            self.split = None;
        }
        fn end(&mut self) {}
        fn log_event_training(&mut self, _: String) {}
    }

    impl EvaluationProgressLogger for Bar {
        fn start_global_progress(&mut self, _: usize) {}
        fn start_test(&mut self, _: &str, _: usize) {}
        fn update_test_progress(&mut self, _: usize) {}
        fn end_test(&mut self) {}
        fn end_global_progress(&mut self) {}
        fn log_event_evaluation(&mut self, _: String) {}
    }

    impl MetricsRendererTraining for Bar {
        fn update_train(&mut self, _: MetricState) {}
        fn update_valid(&mut self, _: MetricState) {}
    }

    impl MetricsRendererEvaluation for Bar {
        fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
    }

    impl MetricsRenderer for Bar {
        fn manual_close(&mut self) {}
        fn register_metric(&mut self, _: MetricDefinition) {}
    }

    #[test]
    fn repeated_values_stay_in_their_split() {
        let bar = Bar::default();
        let (faults, updates) = (bar.faults.clone(), bar.updates.clone());
        let shared = Arc::new(DashboardState {
            renderer: Mutex::new(Some(Box::new(bar))),
            terminal: None,
            items: AtomicUsize::new(NONE),
            closed: AtomicBool::new(false),
        });
        let watched = shared.clone();
        let watch = std::thread::spawn(move || {
            while !watched.closed.load(Ordering::Relaxed) {
                watched.repeat();
            }
        });
        for epoch in 1..2000 {
            shared.start_split("train", 10_000, epoch);
            shared.update_split(epoch + 1);
            shared.end_split();
            shared.start_split("valid", 7, 0);
            shared.update_split(7);
            shared.end_split();
        }
        shared.closed.store(true, Ordering::Relaxed);
        assert!(watch.join().is_ok());
        assert_eq!(faults.load(Ordering::Relaxed), 0);
        assert!(updates.load(Ordering::Relaxed) >= 4 * 1999);
    }
}
