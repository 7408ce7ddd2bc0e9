//! Loops without intrinsics.

use half::bf16;

use super::{MicrokernelArgs, PANEL};
use crate::element::Element;
use crate::pack::{Panel, TILE, step_len};

/// The product with `widen` to the accumulator's type. Sums over the inner dimension in order.
///
/// # Safety
/// As [`super::Multiply::tile`].
#[inline(always)]
unsafe fn tile_of<E: Element>(
    tile: MicrokernelArgs<E>,
    panel: Panel<'_, E>,
    zero: E::Sum,
    add: impl Fn(E::Sum, E, E) -> E::Sum,
) {
    let steps = panel.data.len() / step_len::<E>();
    for row in 0..tile.rows {
        let mut sums = [zero; PANEL];
        for step in 0..steps {
            // SAFETY: the caller guarantees the row for all steps.
            let left = unsafe {
                let start = tile.left.add(row * tile.left_stride + step * E::STEP);
                std::slice::from_raw_parts(start, E::STEP)
            };
            let right = &panel.data[step * step_len::<E>()..][..step_len::<E>()];
            for (half, tile) in right.chunks_exact(TILE * E::STEP).enumerate() {
                let sums = &mut sums[half * TILE..][..TILE];
                for (left, right) in left
                    .chunks_exact(E::GROUP)
                    .zip(tile.chunks_exact(TILE * E::GROUP))
                {
                    for (sum, right) in sums.iter_mut().zip(right.chunks_exact(E::GROUP)) {
                        for (l, r) in left.iter().zip(right) {
                            *sum = add(*sum, *l, *r);
                        }
                    }
                }
            }
        }
        // SAFETY: the caller guarantees the result's rows.
        let to =
            unsafe { std::slice::from_raw_parts_mut(tile.to.add(row * tile.to_stride), PANEL) };
        to.copy_from_slice(&sums);
    }
}

/// # Safety
/// As [`super::Multiply::tile`].
pub(super) unsafe fn f32_tile(tile: MicrokernelArgs<f32>, panel: Panel<'_, f32>) {
    // SAFETY: the caller's promise.
    unsafe { tile_of(tile, panel, 0.0, |sum, l, r| sum + l * r) }
}

/// # Safety
/// As [`super::Multiply::tile`].
pub(super) unsafe fn bf16_tile(tile: MicrokernelArgs<bf16>, panel: Panel<'_, bf16>) {
    let wide = |x: bf16| f32::from_bits(u32::from(x.to_bits()) << 16);
    // SAFETY: the caller's promise.
    unsafe { tile_of(tile, panel, 0.0, |sum, l, r| sum + wide(l) * wide(r)) }
}

/// # Safety
/// As [`super::Multiply::tile`].
pub(super) unsafe fn i8_tile(tile: MicrokernelArgs<i8>, panel: Panel<'_, i8>) {
    // SAFETY: the caller's promise.
    unsafe {
        tile_of(tile, panel, 0, |sum, l, r| {
            sum + i32::from(l) * i32::from(r)
        })
    }
}
