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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use burn::train::Interrupter;
use burn::train::renderer::{MetricsRenderer, default_renderer};

use super::error::panic_text;
use super::terminal::Terminal;
use modernbert_cli::INTERRUPTED;
use modernbert_cli::compiling::{Listener, announce_to};

/// Interval of the check whether the dashboard's `k` was pressed.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// No number of items.
const NONE: usize = usize::MAX;

/// Message of the panic that burn-train's renderer raises at every event after `k`.
const KILLED: &str = "Killing training from user input";

/// The dashboard on the screen, for code that ends the process or shows an event.
static ON_SCREEN: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

struct Shared {
    renderer: Mutex<Option<Box<dyn MetricsRenderer>>>,
    terminal: Option<Terminal>,
    /// Finished items of the current split, which the watching thread repeats; [`NONE`] before the first split.
    items: AtomicUsize,
    closed: AtomicBool,
}

/// burn-train's renderer of a terminal, which also counts compilations of kernels.
pub(super) struct Dashboard {
    shared: Arc<Shared>,
    watch: Option<JoinHandle<()>>,
    /// Registered for compilations while the dashboard lives.
    _listener: Arc<Listener>,
}

impl Dashboard {
    /// Owns the screen until the value is dropped.
    pub(super) fn new(interrupter: Interrupter) -> Self {
        let terminal = Terminal::remember();
        let renderer = default_renderer(interrupter, None);
        if let Some(terminal) = &terminal {
            terminal.raise_signals();
        }
        let shared = Arc::new(Shared {
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
                // After `k` any event makes the dashboard panic; this event repeats the values on the screen.
                let items = watched.items.load(Ordering::Relaxed);
                if items != NONE {
                    watched.draw(|renderer| renderer.update_split(items));
                }
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
        self.shared.items.store(items, Ordering::Relaxed);
        self.shared.draw(|renderer| renderer.update_split(items));
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        *on_screen() = None;
        // The renderer restores the screen when it is dropped: here, not in a clone of `shared` that outlives this value.
        let renderer = self.shared.renderer().take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(renderer)));
        if let Err(panic) = dropped {
            self.shared.panicked(panic);
        }
        if let Some(watch) = self.watch.take() {
            watch.thread().unpark();
            let _ = watch.join();
        }
    }
}

impl Shared {
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

    /// Ends the process if the panic was raised because of `k`; resumes any other panic.
    fn panicked(&self, panic: Box<dyn std::any::Any + Send>) {
        if panic_text(&*panic).contains(KILLED) {
            exit_now(self.terminal.as_ref());
        }
        resume_unwind(panic);
    }
}

fn on_screen() -> MutexGuard<'static, Option<Arc<Shared>>> {
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
