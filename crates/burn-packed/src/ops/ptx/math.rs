//! Conversions, approximate functions, and reductions over the four lanes that share a row of an accumulator.

use cubecl::prelude::*;

/// Two floats rounded to `ty` (`bf16` or `f16`) in one register, `low` in the lower half.
#[cube]
pub(in crate::ops) fn pack(low: f32, high: f32, #[comptime] ty: &str) -> u32 {
    let packed: u32;
    gpu_asm!(
        "cvt.rn.{ty}x2.f32 {o}, {h}, {l};",
        o = out(_) packed, h = in(_) high, l = in(_) low, options(pure, nomem)
    );
    packed
}

/// The lower half of a register, a number of type `ty`, as f32.
#[cube]
pub(in crate::ops) fn unpack_low(packed: u32, #[comptime] ty: &str) -> f32 {
    let x: f32;
    gpu_asm!(
        "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {p}; cvt.f32.{ty} {x}, l; }}",
        x = out(_) x, p = in(_) packed, options(pure, nomem)
    );
    x
}

/// As [`unpack_low`], the upper half.
#[cube]
pub(in crate::ops) fn unpack_high(packed: u32, #[comptime] ty: &str) -> f32 {
    let x: f32;
    gpu_asm!(
        "{{ .reg .b16 l, h; mov.b32 {{l, h}}, {p}; cvt.f32.{ty} {x}, h; }}",
        x = out(_) x, p = in(_) packed, options(pure, nomem)
    );
    x
}

/// `2^x`, to within 2 ulp; minus infinity gives 0.
#[cube]
pub(in crate::ops) fn exp2(x: f32) -> f32 {
    let y: f32;
    gpu_asm!("ex2.approx.ftz.f32 {y}, {x};", y = out(_) y, x = in(_) x, options(pure, nomem));
    y
}

/// `log2(x)` for positive normal x.
#[cube]
pub(in crate::ops) fn log2(x: f32) -> f32 {
    let y: f32;
    gpu_asm!("lg2.approx.ftz.f32 {y}, {x};", y = out(_) y, x = in(_) x, options(pure, nomem));
    y
}

/// `1 / x` to within 1 ulp.
#[cube]
pub(in crate::ops) fn reciprocal(x: f32) -> f32 {
    let y: f32;
    gpu_asm!("rcp.approx.ftz.f32 {y}, {x};", y = out(_) y, x = in(_) x, options(pure, nomem));
    y
}

/// `x Φ(x)` with the distribution function of the standard normal to within 1e-6, by the approximate reciprocal and exponential.
///
/// `Φ(-|x|) = exp(-x² / 2) t Q(t) / 2` with `t = 1 / (1 + 0.4 |x| / √2)` and the polynomial of `simd::normal`.
#[cube]
pub(in crate::ops) fn gelu(x: f32) -> f32 {
    let t: f32;
    let gauss: f32;
    // f32 constants in PTX's hexadecimal form: 0.4 / √2, 1, and further below -log2(e) / 2.
    gpu_asm!(
        "{{ .reg .f32 a, b; abs.f32 a, {x}; fma.rn.f32 b, a, 0f3E90D0C3, 0f3F800000; rcp.approx.ftz.f32 {t}, b; }}",
        t = out(_) t, x = in(_) x, options(pure, nomem)
    );
    gpu_asm!(
        "{{ .reg .f32 a, b; mul.f32 a, {x}, {x}; mul.f32 b, a, 0fBF38AA3B; ex2.approx.ftz.f32 {g}, b; }}",
        g = out(_) gauss, x = in(_) x, options(pure, nomem)
    );
    let mut q = 0.073_934_734f32;
    q = fma(q, t, -0.387_892_7f32);
    q = fma(q, t, 0.658_289_4f32);
    q = fma(q, t, -0.327_295_62f32);
    q = fma(q, t, 0.363_386_46f32);
    q = fma(q, t, 0.164_593_17f32);
    q = fma(q, t, 0.229_150_98f32);
    q = fma(q, t, 0.225_833_6f32);
    let tail = q * t * gauss * 0.5f32;
    x * select(x < 0.0f32, tail, 1.0f32 - tail)
}

/// Largest value among the four lanes that share a row of an accumulator.
#[cube]
pub(in crate::ops) fn quad_max(x: f32) -> f32 {
    let a = max(x, plane_shuffle_xor(x, 1u32));
    max(a, plane_shuffle_xor(a, 2u32))
}

/// Sum over the four lanes that share a row of an accumulator; the same in each of them.
#[cube]
pub(in crate::ops) fn quad_sum(x: f32) -> f32 {
    let a = x + plane_shuffle_xor(x, 1u32);
    a + plane_shuffle_xor(a, 2u32)
}
