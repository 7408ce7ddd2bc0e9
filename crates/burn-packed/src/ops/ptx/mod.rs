//! PTX instructions of the kernels for NVIDIA GPUs, which CubeCL does not have.
//!
//! | file | instructions |
//! |---|---|
//! | `memory.rs` | addresses, loads, stores, `cp.async`, `stmatrix` |
//! | `barriers.rs` | mbarriers, named barriers, clusters, fences, `setmaxnreg` |
//! | `bulk.rs` | TMA, `cp.async.bulk` |
//! | `math.rs` | conversions of pairs, `ex2`, `lg2`, `rcp`, GELU, sums of four lanes |
//! | `wgmma.rs` | descriptors of tiles, and WGMMA |
//!
//! A function is one instruction or a few; its documentation says what the instruction does, the PTX ISA how.

mod barriers;
mod bulk;
mod math;
mod memory;
pub(in crate::ops) mod wgmma;

pub(in crate::ops) use barriers::*;
pub(in crate::ops) use bulk::*;
pub(in crate::ops) use math::*;
pub(in crate::ops) use memory::*;

/// CubeCL's name of the architecture of compute capability 9.0.
pub(in crate::ops) const HOPPER: &str = "ptx_sm90";

/// Bytes in a row of a tile in shared memory: 64 elements of two bytes, the span of the 128-byte swizzle.
pub(in crate::ops) const ROW_BYTES: u32 = 128;
