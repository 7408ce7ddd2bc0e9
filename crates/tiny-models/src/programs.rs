//! Runs of programs as a user starts them, and assertions about refused input.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `program` on the model in `folder`, with `input` on its standard input.
///
/// # Panics
/// If the program can't be started.
pub fn ask(program: &str, folder: &Path, more: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = Command::new(program)
        .args(["--device", "flex", "--model"])
        .arg(folder)
        .args(more)
        .env_remove("MODERNBERT_DEVICE")
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    child.wait_with_output().unwrap()
}

/// Runs `program` with arguments, and with these variables in its environment, in addition to the test's own.
///
/// # Panics
/// If the program can't be started.
pub fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(program)
        .args(arguments)
        .env_remove("MODERNBERT_DEVICE")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// Runs `program` with a standard output that is closed.
///
/// # Panics
/// If the program can't be started.
#[cfg(unix)]
pub fn without_stdout(program: &str, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args(["-c", "exec \"$@\" >&-", "sh", program])
        .args(arguments)
        .env_remove("MODERNBERT_DEVICE")
        .output()
        .unwrap()
}

/// Standard output of a program that succeeded.
///
/// # Panics
/// If the program failed, with what it printed.
pub fn stdout(output: &Output) -> &str {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {stderr}", output.status);
    std::str::from_utf8(&output.stdout).unwrap()
}

/// JSON lines on the standard output of a program that succeeded.
///
/// # Panics
/// As [`stdout`].
pub fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Asserts that a program ended with exit code 2 and one error message, which contains each of these phrases.
///
/// # Panics
/// If it didn't.
pub fn assert_refused(output: &Output, said: &[&str]) {
    assert_case_refused("the program", output, said);
}

/// As [`assert_refused`]; `case` names the case in the test's message.
///
/// # Panics
/// As there.
pub fn assert_case_refused(case: &str, output: &Output, said: &[&str]) {
    let [stderr, stdout] =
        [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    let all = format!("{stderr}\n--- stdout\n{stdout}");
    assert_eq!(output.status.code(), Some(2), "{case}: {all}");
    let errors = stderr.lines().filter(|line| line.starts_with("error:"));
    assert_eq!(errors.count(), 1, "{case}: {all}");
    for panic in ["panicked", "RUST_BACKTRACE"] {
        assert!(!all.contains(panic), "{case}: {all}");
    }
    for phrase in said {
        assert!(stderr.contains(phrase), "{case}: no {phrase:?} in: {all}");
    }
}
