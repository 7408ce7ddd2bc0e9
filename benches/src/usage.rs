//! CPU time and peak memory of the process and the device.

use burn::tensor::Device;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most that [`peak_mib`] has seen reserved, in bytes.
static MOST_RESERVED: AtomicU64 = AtomicU64::new(0);

/// Returns the CPU time of all threads of this process so far, in seconds; `None` on systems other than Linux.
pub fn cpu_seconds() -> Option<f64> {
    // A file per thread, whose first field is nanoseconds.
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let mut nanoseconds = 0u64;
    for task in tasks {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(nanoseconds as f64 / 1e9)
}

/// Returns the peak memory so far, in MiB: the most that the device's memory pools had reserved at any call of this function, if the device
/// has pools, otherwise the peak of the process. Pools return pages to the driver, so callers ask after every step they measure.
pub fn peak_mib(device: &Device) -> Option<f64> {
    if let Some(pools) = device.memory_pool_usage() {
        let most = MOST_RESERVED.fetch_max(pools.bytes_reserved, Ordering::Relaxed);
        return Some(most.max(pools.bytes_reserved) as f64 / 1_048_576.0);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
