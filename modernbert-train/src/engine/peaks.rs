//! Peak FLOP/s of devices, for MFU.

use modernbert::device::NamedDevice;
use modernbert::model::Precision;

/// Part of a device's name, peak of dense matrix multiplications in TFLOP/s in bf16 (with f32 accumulation) and in f32 (without tensor
/// cores, as the kernels here compute). Source: the makers' data sheets, without sparsity.
const PEAKS: [(&str, f64, f64); 22] = [
    ("H200", 989.0, 67.0),
    ("H100 NVL", 835.0, 60.0),
    ("H100 PCIe", 756.0, 51.0),
    ("H100", 989.0, 67.0),
    ("H800", 989.0, 67.0),
    ("H20", 148.0, 44.0),
    ("B200", 2250.0, 80.0),
    ("A100", 312.0, 19.5),
    ("A800", 312.0, 19.5),
    ("L40S", 362.0, 91.6),
    ("L40", 181.0, 90.5),
    ("L4", 121.0, 30.3),
    ("A10G", 70.0, 31.5),
    ("A10", 125.0, 31.2),
    ("A30", 165.0, 10.3),
    ("A40", 149.7, 37.4),
    ("A6000", 154.8, 38.7),
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
    let variable = |name: &str| std::env::var(name).ok();
    let visible = variable("CUDA_VISIBLE_DEVICES");
    let by_bus = variable("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID");
    let name = cuda_name(index, &gpus()?, visible.as_deref(), by_bus)?;
    Some(peak_tflops(&name, precision)? * 1e12)
}

/// A GPU as the driver lists it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Gpu {
    model: String,
    uuid: String,
}

/// The GPUs of this machine in the order of their PCI addresses, on Linux.
fn gpus() -> Option<Vec<Gpu>> {
    let mut folders: Vec<_> = std::fs::read_dir("/proc/driver/nvidia/gpus")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort();
    let read = |folder: &std::path::PathBuf| std::fs::read_to_string(folder.join("information"));
    folders
        .iter()
        .map(|folder| Some(gpu(&read(folder).ok()?)))
        .collect()
}

/// A GPU's `information` file.
fn gpu(text: &str) -> Gpu {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim().to_string()
    };
    Gpu {
        model: field("Model:"),
        uuid: field("GPU UUID:"),
    }
}

/// Name of CUDA device number `index` among `gpus`, those in the order of their PCI addresses. `visible` is the variable
/// CUDA_VISIBLE_DEVICES, whose entries are numbers or the beginnings of UUIDs; CUDA ignores what follows the first invalid entry. Numbers
/// count PCI addresses with `by_bus`, otherwise an order of speed that the driver does not report: among different models the name is
/// unknown then. A part of a GPU (MIG) is unknown too, as its peak is not that of the GPU.
fn cuda_name(index: usize, gpus: &[Gpu], visible: Option<&str>, by_bus: bool) -> Option<String> {
    let alike = gpus.windows(2).all(|pair| pair[0].model == pair[1].model);
    let number = |number: usize| gpus.get(number).filter(|_| alike || by_bus);
    let found = match visible {
        None => number(index),
        Some(list) => {
            let entries = list.split(',').map(str::trim).map(|entry| {
                if let Ok(at) = entry.parse::<usize>() {
                    return gpus.get(at).map(|_| number(at));
                }
                let uuid = |gpu: &&Gpu| entry.len() > 4 && gpu.uuid.starts_with(entry);
                let mut matching = gpus.iter().filter(uuid);
                match (matching.next(), matching.next()) {
                    (Some(gpu), None) => Some(Some(gpu)),
                    _ => entry.starts_with("MIG").then_some(None),
                }
            });
            entries.map_while(|entry| entry).nth(index).flatten()
        }
    };
    found.map(|gpu| gpu.model.clone())
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

    #[test]
    fn a_longer_name_is_another_device() {
        let bf16 = |name| peak_tflops(name, Precision::Bf16);
        assert_eq!(bf16("NVIDIA A10G"), Some(70.0));
        assert_eq!(peak_tflops("NVIDIA A10G", Precision::F32), Some(31.5));
        assert_eq!(bf16("NVIDIA L40"), Some(181.0));
        assert_eq!(bf16("NVIDIA H20"), Some(148.0));
        assert_eq!(bf16("NVIDIA GH200 480GB"), Some(989.0));
        assert_eq!(bf16("NVIDIA RTX A6000"), Some(154.8));
        // Not in the table, and not its neighbor either.
        assert_eq!(bf16("NVIDIA A10M"), None);
    }

    #[test]
    fn visible_devices_are_counted_as_cuda_counts_them() {
        let one = gpu("Model: \t\t NVIDIA L4\nIRQ:   \t\t 11\nGPU UUID: \t GPU-aa11-22\n");
        assert_eq!(
            (one.model.as_str(), one.uuid.as_str()),
            ("NVIDIA L4", "GPU-aa11-22")
        );
        let gpus = |models: &[&str]| -> Vec<Gpu> {
            let each = models.iter().enumerate();
            each.map(|(i, model)| Gpu {
                model: (*model).to_string(),
                uuid: format!("GPU-{i}a-{i}b"),
            })
            .collect()
        };
        let mixed = gpus(&["L4", "H100", "H200"]);
        let name = |index, visible, by_bus| cuda_name(index, &mixed, visible, by_bus);
        assert_eq!(name(1, None, true).as_deref(), Some("H100"));
        assert_eq!(name(0, Some("2,1"), true).as_deref(), Some("H200"));
        assert_eq!(name(1, Some("2,1"), true).as_deref(), Some("H100"));
        assert_eq!(name(2, Some("2,1"), true), None);
        assert_eq!(name(0, Some("GPU-1a-1b"), false).as_deref(), Some("H100"));
        assert_eq!(
            name(1, Some("GPU-1a, GPU-0a"), false).as_deref(),
            Some("L4")
        );
        // What follows an invalid entry is not visible.
        assert_eq!(name(1, Some("0,9,1"), true), None);
        assert_eq!(name(0, Some(""), true), None);
        assert_eq!(name(0, Some("-1"), true), None);
        assert_eq!(name(0, Some("MIG-5"), true), None);
        // In the order of speed the driver does not say which one a number is.
        assert_eq!(name(0, None, false), None);
        let same = gpus(&["H100", "H100"]);
        assert_eq!(cuda_name(1, &same, None, false).as_deref(), Some("H100"));
        assert_eq!(
            cuda_name(0, &same, Some("1"), false).as_deref(),
            Some("H100")
        );
        assert_eq!(cuda_name(2, &same, None, false), None);
    }
}
