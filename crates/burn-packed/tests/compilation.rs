//! Whoever installs a logger hears which kernels are being compiled, and launches can be counted. Runs where
//! `MODERNBERT_TEST_DEVICE` names a GPU, in a process of its own, since a device's configuration is read once.

#![allow(clippy::unwrap_used)] // a test may fail loudly

use std::sync::Mutex;
use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use burn_packed::device::{COMPILATION_LOG, count_launches, select};
use burn_packed::ops::layer_norm::layer_norm;

struct Heard(Mutex<Vec<String>>);

static HEARD: Heard = Heard(Mutex::new(Vec::new()));

impl log::Log for Heard {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.target() == COMPILATION_LOG
    }
    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }
    fn flush(&self) {}
}

#[test]
fn compilations_are_reported_by_name_and_launches_counted() {
    let name = std::env::var("MODERNBERT_TEST_DEVICE").unwrap_or_default();
    if !["wgpu", "vulkan", "metal", "cuda"].contains(&name.as_str()) {
        test_support::skip("MODERNBERT_TEST_DEVICE names no GPU");
        return;
    }
    log::set_logger(&HEARD).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let device = select(Some(&name)).unwrap().device;
    let x = Tensor::<2>::ones([3, 8], &device);
    let weight = Tensor::<1>::ones([8], &device);
    let normed = || {
        let y = layer_norm(x.clone(), weight.clone(), None, 1e-5);
        y.try_into_data().unwrap()
    };
    normed();
    let (_, once) = count_launches(normed);
    let (_, thrice) = count_launches(|| {
        for _ in 0..3 {
            normed();
        }
    });
    assert!(once > 0);
    assert_eq!(thrice, 3 * once);
    // Nobody counts any more.
    normed();
    assert_eq!(count_launches(|| ()).1, 0);
    // Reports come on a thread of their own.
    let named = || {
        let heard = HEARD.0.lock().unwrap();
        heard
            .iter()
            .any(|line| line.contains("burn_packed::ops::layer_norm::"))
    };
    let start = Instant::now();
    while !named() && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(named(), "{:?}", HEARD.0.lock().unwrap());
}
