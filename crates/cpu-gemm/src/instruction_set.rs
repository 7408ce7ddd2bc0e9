//! Instruction sets: detection, choice at run time, and the state that AMX needs per thread.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::OnceLock;

/// The environment variable that forces an instruction set: `amx`, `avx512-native`, `avx512`, `avx2` or `portable`.
pub const VARIABLE: &str = "MODERNBERT_CPU_UNIT";

/// An instruction set for GEMMs. Each one includes the vector instructions of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstructionSet {
    /// Loops that the compiler vectorizes for the build's target.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512F; bf16 operands are widened to f32, i8 operands to 16 bits.
    Avx512,
    /// AVX-512 with its dot products of bf16 pairs (`VDPBF16PS`) and i8 quads (`VPDPBUSD`): AMD Zen 4, Intel Cooper Lake and later.
    Avx512Native,
    /// AMX: 16 × 16 tiles of a result by `TDPBF16PS` and `TDPBSSD`; f32 as [`InstructionSet::Avx512`]. Intel Sapphire Rapids and later.
    Amx,
}

/// Reason why an instruction set can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionSetError {
    /// No instruction set has this name.
    Unknown(String),
    /// This processor, or its operating system, lacks it.
    Unsupported(InstructionSet),
}

impl fmt::Display for InstructionSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(
                f,
                "{VARIABLE}: unknown instruction set {name:?}; known are amx, avx512-native, avx512, avx2 and portable"
            ),
            Self::Unsupported(isa) => write!(
                f,
                "{VARIABLE}: this processor does not support {isa}; unset the variable, or choose one up to {}",
                InstructionSet::detected()
            ),
        }
    }
}

impl std::error::Error for InstructionSetError {}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Native => "avx512-native",
            Self::Amx => "amx",
        })
    }
}

impl FromStr for InstructionSet {
    type Err = InstructionSetError;

    fn from_str(name: &str) -> Result<Self, InstructionSetError> {
        let found = Self::ALL.into_iter().find(|isa| isa.to_string() == name);
        found.ok_or_else(|| InstructionSetError::Unknown(name.to_string()))
    }
}

impl InstructionSet {
    /// All instruction sets, the least first.
    pub const ALL: [Self; 5] = [
        Self::Portable,
        Self::Avx2,
        Self::Avx512,
        Self::Avx512Native,
        Self::Amx,
    ];

    /// The best instruction set of this processor.
    pub fn detected() -> Self {
        static DETECTED: OnceLock<InstructionSet> = OnceLock::new();
        *DETECTED.get_or_init(detect)
    }

    /// The instruction set that [`VARIABLE`] names, or the best one of this processor where it is unset or empty.
    ///
    /// # Errors
    /// A name that is unknown, or an instruction set that the processor lacks.
    pub fn chosen() -> Result<Self, InstructionSetError> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => {
                let isa: Self = name.parse()?;
                isa.checked()
            }
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(Self::detected()),
            Err(std::env::VarError::NotUnicode(name)) => Err(InstructionSetError::Unknown(
                name.to_string_lossy().into_owned(),
            )),
        }
    }

    /// The result of [`Self::chosen`] at the first call in this process. Where it was an error, which programs report when they choose their device,
    /// the best instruction set of this processor.
    pub fn current() -> Self {
        static CURRENT: OnceLock<InstructionSet> = OnceLock::new();
        *CURRENT.get_or_init(|| Self::chosen().unwrap_or_else(|_| Self::detected()))
    }

    /// The same instruction set, if this processor supports it.
    ///
    /// # Errors
    /// [`InstructionSetError::Unsupported`] otherwise.
    pub fn checked(self) -> Result<Self, InstructionSetError> {
        match self <= Self::detected() {
            true => Ok(self),
            false => Err(InstructionSetError::Unsupported(self)),
        }
    }

    /// The instruction sets of this processor, the least first.
    pub fn supported() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| *isa <= Self::detected())
    }

    /// Prepares the calling thread: AMX needs a tile configuration. Kernels of this instruction set run while the guard lives.
    ///
    /// # Panics
    /// If this processor does not support the instruction set.
    pub fn enter(self) -> Guard {
        assert!(
            self <= Self::detected(),
            "this processor does not support {self}"
        );
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self == Self::Amx {
            crate::kernel::amx::configure();
        }
        Guard {
            isa: self,
            thread: PhantomData,
        }
    }
}

/// The state of a thread that runs kernels; see [`InstructionSet::enter`]. It is bound to its thread. Guards are not nested: the inner one's end releases the tiles.
#[derive(Debug)]
pub struct Guard {
    isa: InstructionSet,
    /// Neither `Send` nor `Sync`: the tile state is the thread's.
    thread: PhantomData<*const ()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if self.isa == InstructionSet::Amx {
            crate::kernel::amx::release();
        }
        let _ = self.isa;
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> InstructionSet {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return InstructionSet::Portable;
    }
    if !(is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl"))
    {
        return InstructionSet::Avx2;
    }
    if !(is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni")) {
        return InstructionSet::Avx512;
    }
    #[cfg(target_os = "linux")]
    if crate::kernel::amx::available() {
        return InstructionSet::Amx;
    }
    InstructionSet::Avx512Native
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> InstructionSet {
    InstructionSet::Portable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for isa in InstructionSet::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
        let error = "sse".parse::<InstructionSet>().unwrap_err().to_string();
        assert!(
            error.contains("\"sse\"") && error.contains("amx"),
            "{error}"
        );
        let error = "a\n\u{1b}[31m"
            .parse::<InstructionSet>()
            .unwrap_err()
            .to_string();
        assert!(!error.contains(char::is_control), "{error:?}");
    }

    #[test]
    fn an_instruction_set_above_the_detected_one_is_refused() {
        for isa in InstructionSet::ALL {
            assert_eq!(isa.checked().is_ok(), isa <= InstructionSet::detected());
        }
    }
}
