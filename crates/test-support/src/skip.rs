//! Tests that need data or a device which is not available.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Reports that the calling test, or a part of it, does not run, as a line `skipped: TEST: REASON` on standard error.
///
/// The line bypasses the capture of the test harness, which hides what a passing test prints. `.ci/run` counts these lines.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let mut line = String::new();
    let _ = writeln!(
        line,
        "skipped: {}: {reason}",
        thread.name().unwrap_or("main")
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Returns the folder of third-party data that `MODERNBERT_DATA` names; reports a skipped test where the variable is not set.
pub fn data() -> Option<PathBuf> {
    variable("MODERNBERT_DATA")
}

/// Returns the path in the environment variable `name`; reports a skipped test where the variable is not set.
pub fn variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name);
    if value.is_none() {
        skip(&format!("{name} is not set"));
    }
    value.map(PathBuf::from)
}
