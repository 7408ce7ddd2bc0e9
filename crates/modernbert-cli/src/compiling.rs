//! Messages about GPU kernels that are being compiled: a program that runs on a machine for the first time spends its first seconds on
//! compilation, and would otherwise seem to hang.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use burn_packed::device::COMPILATION_LOG;

/// Lines are at least this far apart.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows an event instead of a line on standard error; registered by a dashboard that owns the screen.
pub type Listener = dyn Fn(String) + Send + Sync;

static ANNOUNCER: Announcer = Announcer(Mutex::new(State::new()));

/// Announces compilations from now on: to the listener while there is one, otherwise by a line on standard error at most once a second.
/// If a program has a logger of its own, the logger receives the records instead.
pub fn announce() {
    if log::set_logger(&ANNOUNCER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Sends announcements to this listener until it is dropped.
pub fn announce_to(listener: &Arc<Listener>) {
    ANNOUNCER.state().listener = Some(Arc::downgrade(listener));
}

struct Announcer(Mutex<State>);

impl Announcer {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl log::Log for Announcer {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.target() == COMPILATION_LOG
    }

    fn log(&self, record: &log::Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        let mut state = self.state();
        let line = state.line(&short_name(&message), Instant::now());
        let listener = state.listener.as_ref().and_then(Weak::upgrade);
        drop(state);
        if let Some(listener) = listener {
            listener("Kernels compiled".to_owned());
        } else if let Some(line) = line {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn flush(&self) {}
}

struct State {
    compiled: usize,
    last_line: Option<Instant>,
    /// Invalid after its owner was dropped.
    listener: Option<Weak<Listener>>,
}

impl State {
    const fn new() -> Self {
        Self {
            compiled: 0,
            last_line: None,
            listener: None,
        }
    }

    /// Counts a kernel; the line that is due now, if one is.
    fn line(&mut self, kernel: &str, now: Instant) -> Option<String> {
        self.compiled += 1;
        let due = self
            .last_line
            .is_none_or(|last| now.duration_since(last) >= PAUSE);
        due.then(|| {
            self.last_line = Some(now);
            format!("compiling kernel {}: {kernel}", self.compiled)
        })
    }
}

/// `linear HopperGemm` of `[Compiling kernel] burn_packed::ops::linear::cube::hopper::HopperGemm<…>`: the op, for a kernel of this project,
/// and the kernel.
fn short_name(message: &str) -> String {
    let name = message.rsplit("] ").next().unwrap_or(message);
    let path = name.split('<').next().unwrap_or(name).trim();
    let kernel = path.rsplit("::").next().unwrap_or(path);
    let op = path
        .strip_prefix("burn_packed::ops::")
        .and_then(|rest| rest.split("::").next());
    match op {
        Some(op) => format!("{op} {kernel}"),
        None => kernel.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_paths_and_generics() {
        for (message, name) in [
            (
                "[Compiling kernel] burn_packed::ops::linear::cube::hopper::HopperGemm",
                "linear HopperGemm",
            ),
            ("[Compiling kernel] a::ops::b::Other", "Other"),
            (
                "[Compiling kernel] a::SumRows<c::Runtime, d::F32>",
                "SumRows",
            ),
            ("[Compiling kernel] Plain", "Plain"),
            ("something else", "something else"),
        ] {
            assert_eq!(short_name(message), name);
        }
    }

    #[test]
    fn every_kernel_is_counted_and_one_line_a_second_is_due() {
        let mut state = State::new();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert_eq!(
            state.line("A", at(0)).as_deref(),
            Some("compiling kernel 1: A")
        );
        assert_eq!(state.line("B", at(10)), None);
        assert_eq!(state.line("C", at(999)), None);
        assert_eq!(
            state.line("D", at(1000)).as_deref(),
            Some("compiling kernel 4: D")
        );
        assert_eq!(state.line("E", at(1500)), None);
    }
}
