//! Device check for kernel tests that need a particular device.

/// Returns whether `MODERNBERT_TEST_DEVICE` is `device`; reports a skipped test otherwise.
pub(crate) fn is(device: &str) -> bool {
    let is_named = std::env::var("MODERNBERT_TEST_DEVICE").as_deref() == Ok(device);
    if !is_named {
        test_support::skip(&format!("MODERNBERT_TEST_DEVICE is not {device}"));
    }
    is_named
}
