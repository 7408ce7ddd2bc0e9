//! The architecture that the kernels of whole layers compute.

use crate::config::Activation;
use crate::config::flexbert::{BlockKind, LayerSpec, NormKind, NormSpec};

/// Returns whether the layers are those of the published architecture, in any size.
pub(super) fn is_published(specs: &[LayerSpec]) -> bool {
    let Some(first) = specs.first() else {
        return false;
    };
    let plain = |norm: &NormSpec| norm.kind == NormKind::Layernorm && !norm.bias;
    specs.iter().enumerate().all(|(i, spec)| {
        let (attention, mlp) = (&spec.attention, &spec.mlp);
        spec.block == BlockKind::Prenorm
            && (spec.attention_norm || i == 0)
            && plain(&spec.norm)
            && spec.norm == first.norm
            && attention.heads == attention.kv_heads
            && (attention.heads, attention.head_dim)
                == (first.attention.heads, first.attention.head_dim)
            && !attention.is_composed()
            && attention.softcap.is_none()
            && !attention.qkv_bias
            && !attention.out_bias
            && attention.rotary.as_ref().is_none_or(|rotary| {
                !rotary.interleaved
                    && rotary.dim == rotary.head_dim
                    && rotary.frequencies(1).1 == 1.0
            })
            && mlp.gated
            && mlp.activation == Activation::Gelu
            && mlp.inner == first.mlp.inner
            && !mlp.in_bias
            && !mlp.out_bias
    })
}
