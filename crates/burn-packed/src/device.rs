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
//! Kernels for `cuda` and graphics APIs are compiled at their first use. With the feature `kernel-cache`, [`select`] enables a cache on
//! disk, so that a program's second start compiles nothing: in the user's cache folder (`~/.cache/cubecl`), or in the folder that
//! `[environment] path` names in a `cubecl.toml` in the working directory or above. [`select`] also enables log records of compilations
//! (crate `log`, level info, target [`COMPILATION_LOG`]) for programs that install a logger.

use burn::tensor::{DType, Device, Int, Tensor};

/// Reasons why a device is not available.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name is not that of a device.
    #[error("unknown device `{name}`; this program knows {}", compiled().join(", "))]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// The backend is not compiled into this program.
    #[error(
        "device `{name}` needs the cargo feature `{feature}`, which this program was built without; \
         rebuild it with the feature or use one of {}", compiled().join(", ")
    )]
    NotCompiled {
        /// The name as given.
        name: String,
        /// The feature to build with.
        feature: &'static str,
    },
    /// The backend is compiled in, but the machine has no such device.
    #[error("no device `{name}` found on this machine; use one of {}", compiled().join(", "))]
    Absent {
        /// The name as given.
        name: String,
    },
    /// The environment variable for the CPU's instruction set has an unknown value, or names one that the processor lacks.
    #[error("{0}")]
    Instructions(String),
    /// No backend is compiled in.
    #[error("this program was built without a backend; rebuild it with `--features flex`")]
    NoBackend,
}

/// A device that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device could not be read: {0}")]
pub struct ReadError(String);

/// Returns the values of a tensor on the host as f32, in row-major order.
///
/// # Errors
/// A device that fails, for example out of memory.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ReadError> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| ReadError(error.to_string()))
}

/// Returns the values of a tensor of integers on the host as i32, in row-major order.
///
/// # Errors
/// A device that fails, for example out of memory.
pub fn read_ints<const D: usize>(tensor: Tensor<D, Int>) -> Result<Vec<i32>, ReadError> {
    tensor
        .try_into_vec_as::<i32>()
        .map_err(|error| ReadError(error.to_string()))
}

/// Target of the log records that name kernels being compiled: `[Compiling kernel] NAME`.
pub const COMPILATION_LOG: &str = "cubecl::compilation";

/// Returns the names of the backends compiled into this program, fastest first.
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

/// Returns whether the ops of this crate support `dtype` on `device`.
///
/// This is Burn's `supports_dtype` with one exception: through a graphics API (wgpu, Vulkan, Metal) f64 is not supported. SPIR-V defines
/// exponentials, logarithms and tangents only for 16 and 32 bits, and drivers that report f64 return wrong values for them.
pub fn computes_in(device: &Device, dtype: impl Into<DType>) -> bool {
    let dtype = dtype.into();
    device.supports_dtype(dtype) && !(dtype == DType::F64 && is_graphics(device))
}

/// Returns whether `device` is a CPU with instructions for bf16 GEMMs (AMX, AVX-512-BF16), which are faster than f32 GEMMs.
pub fn is_cpu_with_bf16(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if let burn::backend::DispatchDevice::Flex(_) = device.clone().inner().as_dispatch() {
        use cpu_gemm::InstructionSet;
        return matches!(
            InstructionSet::current(),
            InstructionSet::Amx | InstructionSet::Avx512Native
        );
    }
    let _ = device;
    false
}

/// Returns the size of the largest tensor on `device` in bytes; `None` if only its memory is a limit.
///
/// Graphics APIs limit the size of a buffer: WebGPU guarantees 128 MiB, and software drivers offer no more. On CUDA, CubeCL allocates at
/// most a quarter of the GPU's memory at once.
pub fn largest_tensor(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(device) = device.clone().inner().as_dispatch() {
        return Some(device.client().properties().memory.max_page_size);
    }
    let _ = device;
    None
}

/// Returns the memory of `device` in bytes; `None` if the backend does not report it (graphics APIs, LibTorch) or computes in the
/// machine's memory (`flex`).
pub fn total_memory(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(device) = device.clone().inner().as_dispatch() {
        return device.client().properties().memory.max_memory();
    }
    let _ = device;
    None
}

/// Returns whether `device` computes on the memory of this process, without copies of its own: `flex`.
pub fn is_host(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return *device == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}

/// Sets the page size of `device`'s memory pools to `bytes`, at most [`largest_tensor`]. Call it before the first tensor is allocated.
/// Returns the size used, or `None` if the backend has no memory pages (`flex`, LibTorch).
///
/// By default CubeCL's pools use pages of the size of the largest tensor so far, and move tensors from smaller pages when a larger one
/// is allocated. A training step allocates its largest tensors (scores over the vocabulary) when all activations saved for backward
/// are alive: without this call, the first step needs twice the memory of later ones. Large pages also waste less memory between
/// tensors.
pub fn page_size(device: &Device, bytes: u64) -> Option<u64> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(cube) = device.clone().inner().as_dispatch() {
        // The pools add a megabyte of slack to a request.
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

/// Sets the page size for training on `device`: a sixteenth of [`largest_tensor`], which is a 64th of an NVIDIA GPU's memory. See
/// [`page_size`].
pub fn pages_for_training(device: &Device) -> Option<u64> {
    page_size(device, largest_tensor(device)? / 16)
}

fn is_graphics(device: &Device) -> bool {
    let name = format!("{device:?}").to_lowercase();
    ["wgpu", "vulkan", "metal"]
        .iter()
        .any(|kind| name.contains(kind))
}

/// A device and its name.
#[derive(Clone, Debug)]
pub struct NamedDevice {
    /// Name with its index: `flex`, `cuda:0`, …
    pub name: String,
    /// The device.
    pub device: Device,
}

/// Returns the device called `name`; without a name, the first of [`compiled`] that this machine has.
///
/// # Errors
/// If the name is unknown, the backend is not compiled in, or the machine has no such device.
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

/// Runs `work` and returns its result with the number of GPU kernels that all threads of this process launched meanwhile; 0 if no GPU
/// backend is compiled in. Operations that Fusion has not launched yet are not counted: read a result back or synchronize within
/// `work`.
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

/// Enables log records of compilations and CubeCL's cache of compiled kernels; must run before the first device reads the configuration.
/// It does not override a configuration that the program has set or read, nor its own choice of a compilation log.
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
        // CubeCL's default, a `target` folder above the working directory, is meant for developing kernels.
        if matches!(config.environment.path, CacheConfig::Target) {
            config.environment.path = CacheConfig::Global;
        }
    }
    CubeClRuntimeConfig::try_set(config);
}

#[cfg(feature = "flex")]
fn flex(_name: &str) -> Result<Device, DeviceError> {
    // Checked here, so that an invalid value is reported before any computation.
    cpu_gemm::InstructionSet::chosen()
        .map_err(|error| DeviceError::Instructions(error.to_string()))?;
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
#[allow(deprecated)] // Burn 0.22 deprecates its LibTorch backend, but still has it.
fn tch(_name: &str, gpu: Option<usize>) -> Result<Device, DeviceError> {
    Ok(match gpu {
        None => Device::libtorch(),
        Some(index) => Device::libtorch_cuda(index),
    })
}

/// Checks that the machine has the device: opening one that does not exist would abort the program.
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
    fn unknown_name_lists_the_known_ones() {
        for name in ["gpu", "cuda:x", "flex:1", "tch:vulkan", ""] {
            let message = select(Some(name)).unwrap_err().to_string();
            assert!(message.contains("unknown device"), "{name}: {message}");
        }
    }

    #[test]
    #[cfg(not(feature = "cuda-unfused"))]
    fn missing_backend_names_its_feature() {
        let message = select(Some("cuda:0")).unwrap_err().to_string();
        assert!(message.contains("cargo feature `cuda`"), "{message}");
    }

    #[test]
    #[cfg(feature = "flex")]
    fn flex_is_always_available() {
        assert_eq!(select(Some("flex")).unwrap().name, "flex");
        assert!(select(None).is_ok());
    }

    #[test]
    #[cfg(feature = "flex")]
    fn values_are_read_in_row_major_order() {
        let tensor = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0]], &Device::flex());
        let values = read(tensor.clone().transpose()).unwrap();
        assert_eq!(values, [1.0, 3.0, 2.0, 4.0]);
        assert_eq!(
            read(tensor.cast(DType::BF16)).unwrap(),
            [1.0, 2.0, 3.0, 4.0]
        );
    }

    #[test]
    #[cfg(feature = "flex")]
    fn a_cpu_has_no_memory_of_its_own() {
        assert_eq!(total_memory(&Device::flex()), None);
    }
}
