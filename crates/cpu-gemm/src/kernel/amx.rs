//! AMX: 32 × 32 elements of a result in four tile registers.
//!
//! Stable Rust has no intrinsics for AMX; the instructions are inline assembly. All eight tile registers have 16 rows of 64 bytes:
//!
//! ```text
//!                       tmm6 (columns 0..16)   tmm7 (columns 16..32)     a step of the panel
//! tmm4 (rows 0..16)     tmm0                   tmm1
//! tmm5 (rows 16..32)    tmm2                   tmm3
//! ```
//!
//! Linux gives a process the tiles' state on request (`arch_prctl`); each thread loads a configuration before its first tile instruction.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::sync::OnceLock;

use half::bf16;

use super::MicrokernelArgs;
use crate::pack::Panel;

/// Returns whether the processor has AMX for bf16 and i8 and the kernel permits it to this process.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && has_permission())
}

fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    /// The operating system saves tile configuration and tile data.
    const STATE: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || !is_x86_feature_detected!("xsave") {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let wanted = BF16 | TILE | INT8;
    // SAFETY: the processor has XSAVE and, because Rust detects AVX only then, its operating system enabled it.
    features & wanted == wanted
        && is_x86_feature_detected!("avx")
        && unsafe { state() } & STATE == STATE
}

#[target_feature(enable = "xsave")]
fn state() -> u64 {
    // SAFETY: register 0 exists wherever XSAVE is enabled, which the caller checked.
    unsafe { _xgetbv(0) }
}

/// Asks the kernel for tile data; without it the first tile instruction is SIGILL. Holds for all threads.
fn has_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call changes no memory of the process.
    unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        ) == 0
    }
}

/// The operand of `LDTILECFG`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Gives all tile registers of this thread 16 rows of 64 bytes.
pub(crate) fn configure() {
    let mut config = TileConfig {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    config.row_bytes[..8].fill(64);
    config.rows[..8].fill(16);
    // SAFETY: `InstructionSet::enter` is called for AMX only where `available` returned true; the operand is a valid configuration.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) }
}

/// Frees the tile state of this thread: context switches save less.
pub(crate) fn release() {
    // SAFETY: as for `configure`.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// Bytes of one step of a panel: two tiles.
const STEP_BYTES: usize = 2048;

/// A kernel of 32 and one of 16 rows with a multiplying instruction. `$element` is the type of the operands, of which a tile row holds 64 bytes.
macro_rules! kernels {
    ($(#[$doc:meta])* $name:ident, $element:ty, $multiply:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As [`super::Multiply::tile`].
        pub(super) unsafe fn $name(tile: MicrokernelArgs<$element>, panel: Panel<'_, $element>) {
            let steps = size_of_val(panel.data) / STEP_BYTES;
            let left_bytes = tile.left_stride * size_of::<$element>();
            let to_bytes = tile.to_stride * 4;
            let (left, right) = (tile.left.cast::<u8>(), panel.data.as_ptr().cast::<u8>());
            // The lower 16 rows; not read where there are at most 16.
            let lower = left.wrapping_add(16 * left_bytes);
            let to = tile.to.cast::<u8>();
            // SAFETY: the caller guarantees rows and result; `right` has `steps` steps of two tiles.
            unsafe {
                if tile.rows > 16 {
                    asm!(
                        "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                        "test {n}, {n}",
                        "jz 3f",
                        "2:",
                        "tileloadd tmm6, [{b} + {line}*1]",
                        "tileloadd tmm4, [{a} + {stride}*1]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{b} + {line}*1 + 1024]",
                        concat!($multiply, " tmm1, tmm4, tmm7"),
                        "tileloadd tmm5, [{c} + {stride}*1]",
                        concat!($multiply, " tmm2, tmm5, tmm6"),
                        concat!($multiply, " tmm3, tmm5, tmm7"),
                        "add {a}, 64",
                        "add {c}, 64",
                        "add {b}, 2048",
                        "dec {n}",
                        "jnz 2b",
                        "3:",
                        "tilestored [{to} + {to_stride}*1], tmm0",
                        "tilestored [{to} + {to_stride}*1 + 64], tmm1",
                        "tilestored [{to_lower} + {to_stride}*1], tmm2",
                        "tilestored [{to_lower} + {to_stride}*1 + 64], tmm3",
                        a = inout(reg) left => _,
                        b = inout(reg) right => _,
                        c = inout(reg) lower => _,
                        n = inout(reg) steps => _,
                        line = in(reg) 64usize,
                        stride = in(reg) left_bytes,
                        to = in(reg) to,
                        to_lower = in(reg) to.add(16 * to_bytes),
                        to_stride = in(reg) to_bytes,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                } else {
                    asm!(
                        "tilezero tmm0", "tilezero tmm1",
                        "test {n}, {n}",
                        "jz 3f",
                        "2:",
                        // The 32 cache lines of the step four steps ahead, into the L2 cache: with 16 rows a step is too short to hide
                        // the loads of the panel from memory. 8 KB ahead was measured to be faster than none (docs/lab-log.md).
                        "prefetcht1 [{b} + 8192]",
                        "prefetcht1 [{b} + 8256]",
                        "prefetcht1 [{b} + 8320]",
                        "prefetcht1 [{b} + 8384]",
                        "prefetcht1 [{b} + 8448]",
                        "prefetcht1 [{b} + 8512]",
                        "prefetcht1 [{b} + 8576]",
                        "prefetcht1 [{b} + 8640]",
                        "prefetcht1 [{b} + 8704]",
                        "prefetcht1 [{b} + 8768]",
                        "prefetcht1 [{b} + 8832]",
                        "prefetcht1 [{b} + 8896]",
                        "prefetcht1 [{b} + 8960]",
                        "prefetcht1 [{b} + 9024]",
                        "prefetcht1 [{b} + 9088]",
                        "prefetcht1 [{b} + 9152]",
                        "prefetcht1 [{b} + 9216]",
                        "prefetcht1 [{b} + 9280]",
                        "prefetcht1 [{b} + 9344]",
                        "prefetcht1 [{b} + 9408]",
                        "prefetcht1 [{b} + 9472]",
                        "prefetcht1 [{b} + 9536]",
                        "prefetcht1 [{b} + 9600]",
                        "prefetcht1 [{b} + 9664]",
                        "prefetcht1 [{b} + 9728]",
                        "prefetcht1 [{b} + 9792]",
                        "prefetcht1 [{b} + 9856]",
                        "prefetcht1 [{b} + 9920]",
                        "prefetcht1 [{b} + 9984]",
                        "prefetcht1 [{b} + 10048]",
                        "prefetcht1 [{b} + 10112]",
                        "prefetcht1 [{b} + 10176]",
                        "tileloadd tmm4, [{a} + {stride}*1]",
                        "tileloadd tmm6, [{b} + {line}*1]",
                        "tileloadd tmm7, [{b} + {line}*1 + 1024]",
                        concat!($multiply, " tmm0, tmm4, tmm6"),
                        concat!($multiply, " tmm1, tmm4, tmm7"),
                        "add {a}, 64",
                        "add {b}, 2048",
                        "dec {n}",
                        "jnz 2b",
                        "3:",
                        "tilestored [{to} + {to_stride}*1], tmm0",
                        "tilestored [{to} + {to_stride}*1 + 64], tmm1",
                        a = inout(reg) left => _,
                        b = inout(reg) right => _,
                        n = inout(reg) steps => _,
                        line = in(reg) 64usize,
                        stride = in(reg) left_bytes,
                        to = in(reg) to,
                        to_stride = in(reg) to_bytes,
                        out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                        options(nostack)
                    );
                }
            }
        }
    };
}

kernels! {
    /// `TDPBF16PS`: pairs of bf16, summed in f32; denormals count as 0.
    bf16_tile, bf16, "tdpbf16ps"
}
kernels! {
    /// `TDPBSSD`: quads of signed bytes, summed in i32.
    i8_tile, i8, "tdpbssd"
}
