//! Panics of libraries that read files, as errors: a damaged file must not end a program.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// True while a panic of this thread is expected and reported as an error.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// A panic, by its message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Panic(String);

/// Runs `work`; prints nothing if it panics.
///
/// # Errors
/// The panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !EXPECTED.get() {
                previous(info);
            }
        }));
    });
    let outer = EXPECTED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Panic(text.unwrap_or_else(|| "no message".to_string()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 3).unwrap(), 3);
        let fixed = caught::<()>(|| panic!("at once")).unwrap_err();
        assert_eq!(fixed.to_string(), "at once");
        let made = caught::<()>(|| panic!("number {}", 7)).unwrap_err();
        assert_eq!(made.to_string(), "number 7");
        let inner = caught(|| caught::<()>(|| panic!("inside")).unwrap_err().to_string());
        assert_eq!(inner.unwrap(), "inside");
        assert!(!EXPECTED.get());
    }
}
