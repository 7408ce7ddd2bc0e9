//! Devices by name, as programs take them on the command line.
//!
//! A cargo feature says which backends are compiled in; a name chooses among them at run time:
//!
//! | name | feature | what it is |
//! |---|---|---|
//! | `flex` | `flex` | any CPU, pure Rust |
//! | `cuda`, `cuda:1` | `cuda` | an NVIDIA GPU |
//! | `wgpu` | `wgpu` | any GPU through the system's graphics API |
//! | `vulkan` | `vulkan` | any GPU through Vulkan |
//! | `metal` | `metal` | an Apple GPU |
//! | `tch`, `tch:cuda:0` | `tch` | LibTorch |
//!
//! Kernels for `cuda` and graphics APIs are compiled when they are first used. With the feature `kernel-cache`, [`select`] has
//! them kept on disk, so that a program's second start compiles nothing: in the user's cache folder (`~/.cache/cubecl`), or
//! where a `cubecl.toml` in the working directory or above says (`[environment] path`). [`select`] also has each compilation
//! reported to the `log` crate, at level info under [`COMPILATION_LOG`]; a program that wants to hear of it installs a logger.

use burn::tensor::{DType, Device};

/// Why a device can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name means nothing.
    #[error("unknown device `{name}`; this program knows {}", compiled().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The backend exists but is not in this program.
    #[error(
        "device `{name}` needs the cargo feature `{feature}`, which this program was built without; \
         it has {}", compiled().join(", ")
    )]
    NotCompiled {
        /// What was asked for.
        name: String,
        /// The feature to build with.
        feature: &'static str,
    },
    /// Compiled in, but the machine has none.
    #[error("no {name} device answers on this machine; try another of {}", compiled().join(", "))]
    Absent {
        /// What was asked for.
        name: String,
    },
    /// No backend at all.
    #[error("this program was built without any backend; build it with `--features flex`")]
    NoBackend,
}

/// Target of the log records that name kernels being compiled: `[Compiling kernel] NAME`.
pub const COMPILATION_LOG: &str = "cubecl::compilation";

/// Names of the backends compiled into this program, fastest first.
pub fn compiled() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda-unfused")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
        ("wgpu", cfg!(feature = "wgpu")),
        ("tch", cfg!(feature = "tch")),
        ("flex", cfg!(feature = "flex")),
    ];
    all.into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
}

/// Whether what this crate computes on `device` may be in `dtype`.
///
/// Burn's own answer, with one correction: through a graphics API (wgpu, Vulkan, Metal) f64 is for sums and products
/// alone. SPIR-V defines exponentials, logarithms and tangents for 16 and 32 bits only, so that drivers which announce f64
/// return anything at all for them.
pub fn computes_in(device: &Device, dtype: impl Into<DType>) -> bool {
    let dtype = dtype.into();
    device.supports_dtype(dtype) && !(dtype == DType::F64 && is_graphics(device))
}

/// Bytes of the largest tensor that `device` takes in one piece; `None` where only its memory limits it.
///
/// Graphics APIs bind a buffer to a program whole, and drivers bound that: WebGPU promises 128 MiB, and software drivers
/// give no more. CUDA's allocator here hands out at most a quarter of the card's memory at once.
pub fn largest_tensor(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(device) = device.clone().inner().as_dispatch() {
        return Some(device.client().properties().memory.max_page_size);
    }
    let _ = device;
    None
}

/// Has `device` cut its memory into pages of `bytes` bytes from now on, before a program's tensors make it choose for itself;
/// returns the size taken, or `None` where memory isn't cut into pages (`flex`, LibTorch).
///
/// CubeCL's pools take pages as large as the largest tensor they have met, and move what lives on smaller ones when a larger
/// one comes along. A training step meets its largest tensors (scores over the vocabulary) when everything the backward needs
/// is alive: without this, that moment needs twice the memory of any later one. Large pages also waste less between
/// tensors. `bytes` is bounded by [`largest_tensor`].
pub fn page_size(device: &Device, bytes: u64) -> Option<u64> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(cube) = device.clone().inner().as_dispatch() {
        // The pools add a megabyte of slack to what they are asked for.
        const SLACK: u64 = 2 << 20;
        let client = cube.client();
        let bytes = bytes.min(
            client
                .properties()
                .memory
                .max_page_size
                .saturating_sub(SLACK),
        );
        drop(client.empty(bytes as usize));
        return Some(bytes);
    }
    let _ = (device, bytes);
    None
}

/// Pages for training on `device`: a sixteenth of the largest tensor it takes, which is a 64th of an NVIDIA card's memory.
/// See [`page_size`].
pub fn pages_for_training(device: &Device) -> Option<u64> {
    page_size(device, largest_tensor(device)? / 16)
}

fn is_graphics(device: &Device) -> bool {
    let name = format!("{device:?}").to_lowercase();
    ["wgpu", "vulkan", "metal"]
        .iter()
        .any(|kind| name.contains(kind))
}

/// A device and the name it is printed under.
#[derive(Clone, Debug)]
pub struct NamedDevice {
    /// For printing: `flex`, `cuda:0`, …
    pub name: String,
    /// For computing.
    pub device: Device,
}

/// The device called `name`, or the best one compiled in that answers on this machine.
///
/// # Errors
/// An unknown name, a backend that is not compiled in, a machine without such a device.
pub fn select(name: Option<&str>) -> Result<NamedDevice, DeviceError> {
    #[cfg(feature = "cube")]
    configure_kernels();
    if let Some(name) = name {
        return by_name(name);
    }
    let mut last = DeviceError::NoBackend;
    for name in compiled() {
        match by_name(name) {
            Ok(device) => return Ok(device),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn by_name(name: &str) -> Result<NamedDevice, DeviceError> {
    let unknown = || DeviceError::Unknown {
        name: name.to_string(),
    };
    let (kind, rest) = match name.split_once(':') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (name, None),
    };
    let index = |rest: Option<&str>| match rest {
        None => Ok(0usize),
        Some(digits) => digits.parse().map_err(|_| unknown()),
    };
    let (printed, device) = match kind {
        "flex" | "cpu" if rest.is_none() => ("flex".to_string(), flex(name)?),
        "cuda" => {
            let index = index(rest)?;
            (format!("cuda:{index}"), cuda(name, index)?)
        }
        "wgpu" if rest.is_none() => (name.to_string(), wgpu(name)?),
        "vulkan" if rest.is_none() => (name.to_string(), vulkan(name)?),
        "metal" if rest.is_none() => (name.to_string(), metal(name)?),
        "tch" => {
            let gpu = match rest {
                None => None,
                Some(rest) => {
                    let rest = rest.strip_prefix("cuda").ok_or_else(unknown)?;
                    Some(index(rest.strip_prefix(':'))?)
                }
            };
            (name.to_string(), tch(name, gpu)?)
        }
        _ => return Err(unknown()),
    };
    Ok(NamedDevice {
        name: printed,
        device,
    })
}

/// What `work` returns, and how many GPU kernels this process launched meanwhile, from whatever thread; 0 where no backend with
/// kernels is compiled in. Operations that wait to be fused are counted when they are launched: read something back or
/// synchronise within `work`.
pub fn count_launches<R>(work: impl FnOnce() -> R) -> (R, usize) {
    #[cfg(feature = "cube")]
    {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};

        use cubecl::logging::{LaunchObservation, LaunchObserver};

        #[derive(Default)]
        struct Count(AtomicUsize);
        impl LaunchObserver for Count {
            fn launched(&self, _kernel: &'static str) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let count = Arc::new(Count::default());
        let observation = LaunchObservation::new(count.clone());
        let done = work();
        drop(observation);
        (done, count.0.load(Ordering::Relaxed))
    }
    #[cfg(not(feature = "cube"))]
    (work(), 0)
}

/// Has compilations reported, and turns CubeCL's store of compiled kernels on, before the first device reads the configuration. A
/// program that has set or read its own configuration keeps it, and so does one whose configuration logs compilations already.
#[cfg(feature = "cube")]
fn configure_kernels() {
    use cubecl::config::compilation::CompilationLogLevel;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    let logger = &mut config.compilation.logger;
    if matches!(logger.level, CompilationLogLevel::Disabled) {
        logger.level = CompilationLogLevel::Basic;
        // At level info.
        logger.log = Some(Default::default());
    }
    #[cfg(feature = "kernel-cache")]
    {
        use cubecl::config::cache::CacheConfig;
        config.compilation.cache = true;
        // CubeCL's own choice, a `target` folder above the working directory, is one for developing kernels.
        if matches!(config.environment.path, CacheConfig::Target) {
            config.environment.path = CacheConfig::Global;
        }
    }
    CubeClRuntimeConfig::try_set(config);
}

#[cfg(feature = "flex")]
fn flex(_name: &str) -> Result<Device, DeviceError> {
    Ok(Device::flex())
}

#[cfg(feature = "cuda-unfused")]
fn cuda(name: &str, index: usize) -> Result<Device, DeviceError> {
    present(name, burn::tensor::DeviceType::Cuda, index)?;
    Ok(Device::cuda(index))
}

#[cfg(feature = "wgpu")]
fn wgpu(name: &str) -> Result<Device, DeviceError> {
    present(name, burn::tensor::DeviceType::Wgpu, 0)?;
    Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(feature = "vulkan")]
fn vulkan(name: &str) -> Result<Device, DeviceError> {
    present(name, burn::tensor::DeviceType::Vulkan, 0)?;
    Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(feature = "metal")]
fn metal(name: &str) -> Result<Device, DeviceError> {
    present(name, burn::tensor::DeviceType::Metal, 0)?;
    Ok(Device::metal(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(feature = "tch")]
#[allow(deprecated)] // Burn announces the end of this backend for its next version; until then it is supported here.
fn tch(_name: &str, gpu: Option<usize>) -> Result<Device, DeviceError> {
    Ok(match gpu {
        None => Device::libtorch(),
        Some(index) => Device::libtorch_cuda(index),
    })
}

/// Asks the driver before the device is opened: opening one that isn't there would end the program.
#[cfg(any(feature = "cuda-unfused", feature = "wgpu"))]
fn present(name: &str, kind: burn::tensor::DeviceType, index: usize) -> Result<(), DeviceError> {
    let absent = || DeviceError::Absent {
        name: name.to_string(),
    };
    let found = std::panic::catch_unwind(|| Device::enumerate(kind).into_vec().len());
    match found {
        Ok(count) if count > index => Ok(()),
        _ => Err(absent()),
    }
}

macro_rules! not_compiled {
    ($($name:ident, $feature:literal without $compiled:literal, ($($argument:ident: $kind:ty),*);)*) => {
        $(
            #[cfg(not(feature = $compiled))]
            fn $name(name: &str $(, $argument: $kind)*) -> Result<Device, DeviceError> {
                $(let _ = $argument;)*
                Err(DeviceError::NotCompiled { name: name.to_string(), feature: $feature })
            }
        )*
    };
}

not_compiled! {
    flex, "flex" without "flex", ();
    cuda, "cuda" without "cuda-unfused", (index: usize);
    wgpu, "wgpu" without "wgpu", ();
    vulkan, "vulkan" without "vulkan", ();
    metal, "metal" without "metal", ();
    tch, "tch" without "tch", (gpu: Option<usize>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        for name in ["gpu", "cuda:x", "flex:1", "tch:vulkan", ""] {
            let message = select(Some(name)).unwrap_err().to_string();
            assert!(message.contains("unknown device"), "{name}: {message}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda-unfused"))]
    fn a_backend_that_is_not_compiled_in_names_its_feature() {
        let message = select(Some("cuda:0")).unwrap_err().to_string();
        assert!(message.contains("cargo feature `cuda`"), "{message}");
    }

    #[test]
    #[cfg(feature = "flex")]
    fn the_cpu_is_always_there() {
        assert_eq!(select(Some("flex")).unwrap().name, "flex");
        assert!(select(None).is_ok());
    }
}
