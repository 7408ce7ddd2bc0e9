//! PTX instructions that GEMM and attention kernels share.

use cubecl::prelude::*;

/// Address of a shared allocation in the shared state space.
#[cube]
pub(super) fn shared_address(pointer: *const u32) -> u32 {
    let address: u32;
    gpu_asm!(
        "{{ .reg .u64 t; cvta.to.shared.u64 t, {p}; cvt.u32.u64 {o}, t; }}",
        o = out(_) address, p = in(_) pointer,
    );
    address
}

/// Two floats rounded to `ty` (`bf16` or `f16`) in one register, `low` in the lower half.
#[cube]
pub(super) fn pack(low: f32, high: f32, #[comptime] ty: &str) -> u32 {
    let packed: u32;
    gpu_asm!(
        "cvt.rn.{ty}x2.f32 {o}, {h}, {l};",
        o = out(_) packed, h = in(_) high, l = in(_) low, options(pure, nomem)
    );
    packed
}

/// WGMMA's descriptor of a tile at byte address `address` of shared memory under the 128-byte swizzle (PTX ISA, "matrix descriptor"): groups
/// of eight rows are 1024 bytes apart. For tiles whose outer dimension is contiguous, `block` is the distance in bytes of blocks of 64
/// elements along it.
#[cube]
pub(super) fn descriptor(address: u32, #[comptime] block: u32) -> u64 {
    u64::cast_from(descriptor_low(address, block))
        | (u64::cast_from(comptime!(DESCRIPTOR_HIGH)) << 32u64)
}

/// Upper half of every [`descriptor`]: the swizzle and the distance of groups of eight rows.
pub(super) const DESCRIPTOR_HIGH: u32 = (1024 >> 4) | (1 << 30);

/// Lower half of a [`descriptor`]: the address of the tile and the distance of blocks.
#[cube]
pub(super) fn descriptor_low(address: u32, #[comptime] block: u32) -> u32 {
    ((address & 0x3FFFFu32) >> 4u32) | comptime!((block >> 4) << 16)
}
