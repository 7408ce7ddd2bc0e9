//! For tests of kernels, which need one device and no other.

/// Returns whether `MODERNBERT_TEST_DEVICE` is `device`; reports a skipped test otherwise.
pub(crate) fn is(device: &str) -> bool {
    let there = std::env::var("MODERNBERT_TEST_DEVICE").as_deref() == Ok(device);
    if !there {
        test_support::skip(&format!("MODERNBERT_TEST_DEVICE is not {device}"));
    }
    there
}
