//! Log records of kernel compilations, and counted launches. The test needs `MODERNBERT_TEST_DEVICE` to name a GPU, and a process of its
//! own, because CubeCL reads its configuration once.

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
fn logs_compilations_by_name_and_counts_launches() {
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
    // Outside of a count.
    normed();
    assert_eq!(count_launches(|| ()).1, 0);
    // Another thread writes the records.
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
