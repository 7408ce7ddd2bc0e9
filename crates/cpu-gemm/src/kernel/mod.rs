//! Tiles of a result: up to 32 rows of a left operand times one panel.
//!
//! | module | instruction sets |
//! |---|---|
//! | `amx` | [`InstructionSet::Amx`], for bf16 and i8 |
//! | `avx512` | [`InstructionSet::Avx512`] and [`InstructionSet::Avx512Native`]; [`InstructionSet::Amx`] for f32 |
//! | `avx2` | [`InstructionSet::Avx2`] |
//! | `portable` | [`InstructionSet::Portable`] |

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::bf16;

use crate::element::Element;
use crate::instruction_set::InstructionSet;
use crate::pack::Panel;

/// Columns of a panel.
pub const PANEL: usize = 32;
/// Rows of a tile at most.
pub const ROWS: usize = 32;

/// Rows of a left operand, and the destination of the result.
#[derive(Clone, Copy, Debug)]
pub struct MicrokernelArgs<E: Element> {
    /// First element of the left operand's first row.
    pub left: *const E,
    /// Elements from one row of the left operand to the next.
    pub left_stride: usize,
    /// Rows, 1 to [`ROWS`].
    pub rows: usize,
    /// First element of the result.
    pub to: *mut E::Sum,
    /// Elements from one row of the result to the next.
    pub to_stride: usize,
}

/// Operand types that have kernels.
pub trait Multiply: Element {
    /// Writes `rows × 32` elements of the GEMM of the left rows and the panel.
    ///
    /// # Safety
    /// - `isa` is supported by this processor, and the thread is inside [`InstructionSet::enter`].
    /// - The first `tile.rows` rows of the left operand, rounded up to a multiple of 16, are readable for the panel's steps.
    /// - The result is writable for the same number of rows of 32 elements.
    /// - A panel of i8 has the sums of its columns ([`Panel::with_sums`]).
    unsafe fn tile(isa: InstructionSet, tile: MicrokernelArgs<Self>, panel: Panel<'_, Self>);
}

impl Multiply for f32 {
    unsafe fn tile(isa: InstructionSet, tile: MicrokernelArgs<f32>, panel: Panel<'_, f32>) {
        // SAFETY: the caller guarantees the operands, and that the processor has the instructions.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Amx | InstructionSet::Avx512Native | InstructionSet::Avx512 => {
                    avx512::f32_tile(tile, panel)
                }
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => avx2::f32_tile(tile, panel),
                _ => portable::f32_tile(tile, panel),
            }
        }
    }
}

impl Multiply for bf16 {
    unsafe fn tile(isa: InstructionSet, tile: MicrokernelArgs<bf16>, panel: Panel<'_, bf16>) {
        // SAFETY: as for f32.
        unsafe {
            match isa {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                InstructionSet::Amx => amx::bf16_tile(tile, panel),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512Native => avx512::bf16_tile(tile, panel),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => avx512::widened_bf16_tile(tile, panel),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => avx2::bf16_tile(tile, panel),
                _ => portable::bf16_tile(tile, panel),
            }
        }
    }
}

impl Multiply for i8 {
    unsafe fn tile(isa: InstructionSet, tile: MicrokernelArgs<i8>, panel: Panel<'_, i8>) {
        // SAFETY: as for f32.
        unsafe {
            match isa {
                #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                InstructionSet::Amx => amx::i8_tile(tile, panel),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512Native => avx512::i8_tile(tile, panel),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => avx512::widened_i8_tile(tile, panel),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => avx2::i8_tile(tile, panel),
                _ => portable::i8_tile(tile, panel),
            }
        }
    }
}
