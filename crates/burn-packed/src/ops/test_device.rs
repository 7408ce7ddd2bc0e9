//! For tests of kernels, which need one device and no other.

/// Whether `MODERNBERT_TEST_DEVICE` names `device`; says so where it doesn't, since the test is then skipped.
pub(crate) fn is(device: &str) -> bool {
    let there = std::env::var("MODERNBERT_TEST_DEVICE").as_deref() == Ok(device);
    if !there {
        eprintln!("skipped: MODERNBERT_TEST_DEVICE doesn't say {device}");
    }
    there
}
