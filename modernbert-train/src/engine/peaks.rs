//! Peak FLOP/s of devices, for MFU.

use modernbert::device::NamedDevice;
use modernbert::model::Precision;

/// Part of a device's name, peak of dense matrix multiplications in TFLOP/s in bf16 (with f32 accumulation) and in f32 (without tensor
/// cores, as the kernels here compute). Source: the makers' data sheets, without sparsity.
const PEAKS: [(&str, f64, f64); 14] = [
    ("H200", 989.0, 67.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100", 989.0, 67.0),
    ("B200", 2250.0, 80.0),
    ("A100", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("L4", 121.0, 30.3),
    ("A10", 125.0, 31.2),
    ("V100", 125.0, 15.7),
    ("RTX 5090", 209.5, 104.8),
    ("RTX 4090", 165.2, 82.6),
    ("RTX 3090", 71.0, 35.6),
    ("T4", 65.0, 8.1),
];

/// Peak of the device of this name in TFLOP/s; `None` for one that isn't in the table, CPUs among them.
pub fn peak_tflops(name: &str, precision: Precision) -> Option<f64> {
    let found = PEAKS.iter().find(|(part, ..)| {
        name.match_indices(part).any(|(at, _)| {
            // "L4" must not be found in "L40S", nor "A10" in "A100".
            !name[at + part.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
        })
    });
    found.map(|&(_, low, full)| match precision {
        Precision::F32 => full,
        Precision::Bf16 | Precision::F16 => low,
    })
}

/// Peak FLOP/s of a device at a precision, from its name; `None` for devices that are not in the table.
pub fn device_peak(device: &NamedDevice, precision: Precision) -> Option<f64> {
    let index = device.name.strip_prefix("cuda:")?.parse().ok()?;
    let peak = peak_tflops(&cuda_name(index)?, precision)?;
    Some(peak * 1e12)
}

/// Name of CUDA device number `index` as the driver gives it, on Linux.
fn cuda_name(index: usize) -> Option<String> {
    let mut folders: Vec<_> = std::fs::read_dir("/proc/driver/nvidia/gpus")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort();
    let text = std::fs::read_to_string(folders.get(index)?.join("information")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
    Some(line.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_a_part_of_their_name() {
        let bf16 = |name| peak_tflops(name, Precision::Bf16);
        assert_eq!(bf16("NVIDIA H100 80GB HBM3"), Some(989.0));
        assert_eq!(bf16("NVIDIA H100 PCIe"), Some(756.0));
        assert_eq!(bf16("NVIDIA L40S"), Some(362.0));
        assert_eq!(bf16("NVIDIA L4"), Some(121.0));
        assert_eq!(bf16("NVIDIA A100-SXM4-80GB"), Some(312.0));
        assert_eq!(peak_tflops("NVIDIA A10", Precision::F32), Some(31.2));
        assert_eq!(bf16("Intel Xeon"), None);
    }
}
