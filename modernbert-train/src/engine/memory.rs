//! Memory in use.

use burn::tensor::Device;

/// Bytes in a MiB.
const MIB: f64 = 1_048_576.0;

/// Memory in use, in MiB: what the device's memory pools have reserved, or the resident memory of the process where the device has no
/// pools; `None` for such a device on systems other than Linux.
pub(super) fn memory_mib(device: &Device) -> Option<f64> {
    if let Some(pools) = device.memory_pool_usage() {
        return Some(pools.bytes_reserved as f64 / MIB);
    }
    resident_kib(&std::fs::read_to_string("/proc/self/status").ok()?).map(|kib| kib / 1024.0)
}

/// Resident memory in a `status` file of Linux, in KiB.
fn resident_kib(status: &str) -> Option<f64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_process_is_read_from_its_status() {
        let status = "Name:\tx\nVmHWM:\t  9000 kB\nVmRSS:\t    2048 kB\nThreads:\t1\n";
        assert_eq!(resident_kib(status), Some(2048.0));
        assert_eq!(resident_kib("Name:\tx\n"), None);
        if cfg!(target_os = "linux") {
            assert!(memory_mib(&test_support::device()).is_some_and(|mib| mib >= 0.0));
        }
    }
}
