//! Parameters and floating-point operations, counted on the specification of a config. One multiply-add counts as two operations.

use super::ModernBertConfig;
use super::flexbert::{HeadSpec, LayerSpec, ModelSpec, elements};

/// Sizes are below 2³¹ (see `validate`), so the sums fit an `u128`; returned counts fit an `u64` for any model that fits a disk.
fn narrow(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Query-key pairs of a local layer in one sequence: the number of `(i, j)` with `|i - j| <= half_window`.
fn local_pairs(length: u128, half_window: u128) -> u128 {
    if length <= half_window {
        length * length
    } else {
        length * (2 * half_window + 1) - half_window * (half_window + 1)
    }
}

impl ModernBertConfig {
    fn encoder(&self) -> u128 {
        elements(self.spec().encoder_tensors().iter().map(|(_, shape)| shape))
    }

    fn head(&self, of: impl Fn(&ModelSpec) -> HeadSpec) -> u128 {
        let tensors = of(&self.spec()).tensors(self.hidden_size);
        elements(tensors.iter().map(|(_, shape)| shape))
    }

    /// Weights in the token embedding.
    pub fn embedding_parameters(&self) -> u64 {
        narrow(elements([[self.vocab_size, self.hidden_size]]))
    }

    /// Weights in the matrices of one layer, without norms and biases: the mean over the layers, which differ only where initial layers have
    /// choices of their own.
    pub fn layer_matrix_parameters(&self) -> u64 {
        let spec = self.spec();
        narrow(spec.layer_matrices() / spec.layers.len().max(1) as u128)
    }

    /// Parameters of the encoder, token embedding included.
    pub fn encoder_parameters(&self) -> u64 {
        narrow(self.encoder())
    }

    /// Parameters of the dense layer and norm of the masked-language-model head; classification heads have the same unless
    /// [`flexbert`](Self::flexbert) says otherwise.
    pub fn head_parameters(&self) -> u64 {
        narrow(self.head(|spec| spec.prediction))
    }

    /// Parameters of the encoder with the masked-language-model head; a tied decoder is not counted twice.
    pub fn mlm_parameters(&self) -> u64 {
        let (v, h) = (self.vocab_size as u128, self.hidden_size as u128);
        let decoder =
            v * h * u128::from(!self.tie_word_embeddings) + v * u128::from(self.decoder_bias);
        narrow(self.encoder() + self.head(|spec| spec.prediction) + decoder)
    }

    /// Parameters of the encoder with a sequence classifier of `num_labels` labels; a token classifier has as many in ModernBERT.
    pub fn classification_parameters(&self, num_labels: usize) -> u64 {
        let head = self.head(|spec| spec.classification);
        narrow(self.encoder() + head + (self.hidden_size as u128 + 1) * num_labels as u128)
    }

    /// Forward operations of all layers' matrices for one token, two for each weight: `2L(4H² + 3HI)` in the published architecture.
    pub fn linear_flops_per_token(&self) -> u64 {
        narrow(2 * self.spec().layer_matrices())
    }

    /// Forward operations of all layers' attention GEMMs over sequences of these lengths: four for each query-key pair and element of the heads.
    pub fn attention_flops(&self, lengths: &[usize]) -> u64 {
        let of_layer = |layer: &LayerSpec| {
            let attention = &layer.attention;
            let pairs = |length: &usize| {
                let s = *length as u128;
                match attention.half_window {
                    None => s * s,
                    Some(half) => local_pairs(s, half as u128),
                }
            };
            4 * attention.width() as u128 * lengths.iter().map(pairs).sum::<u128>()
        };
        narrow(self.spec().layers.iter().map(of_layer).sum())
    }

    /// Forward operations of the masked-language-model head for one predicted token: `2(H² + HV)`.
    pub fn mlm_head_flops_per_prediction(&self) -> u64 {
        let (v, h) = (self.vocab_size as u128, self.hidden_size as u128);
        narrow(2 * (h * h + h * v))
    }

    /// Forward operations over sequences of these lengths, `predicted` of whose tokens go through the masked-language-model head.
    /// Norms, activations and the embedding look-up are not counted.
    pub fn forward_flops(&self, lengths: &[usize], predicted: usize) -> u64 {
        let tokens: u128 = lengths.iter().map(|length| *length as u128).sum();
        let linear = u128::from(self.linear_flops_per_token()) * tokens;
        let head = u128::from(self.mlm_head_flops_per_prediction()) * predicted as u128;
        narrow(linear + head + u128::from(self.attention_flops(lengths)))
    }

    /// Operations of a training step, taken as three times the forward pass: the backward pass has two GEMMs for each GEMM of the forward pass.
    pub fn train_flops(&self, lengths: &[usize], predicted: usize) -> u64 {
        self.forward_flops(lengths, predicted).saturating_mul(3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_counts_of_base_and_large() {
        let (base, large) = (ModernBertConfig::base(), ModernBertConfig::large());
        let counts = |c: &ModernBertConfig| {
            let labels = [1, 2, 3].map(|n| c.classification_parameters(n));
            let rest = c.encoder_parameters() - c.embedding_parameters();
            (
                [
                    c.embedding_parameters(),
                    c.layer_matrix_parameters(),
                    c.encoder_parameters(),
                    rest,
                ],
                [c.head_parameters(), c.mlm_parameters()],
                labels,
            )
        };
        assert_eq!(
            counts(&base),
            (
                [38_682_624, 5_013_504, 149_014_272, 110_331_648],
                [590_592, 149_655_232],
                [149_605_633, 149_606_402, 149_607_171]
            )
        );
        assert_eq!(
            counts(&large),
            (
                [51_576_832, 12_255_232, 394_781_696, 343_204_864],
                [1_049_600, 395_881_664],
                [395_832_321, 395_833_346, 395_834_371]
            )
        );
    }

    #[test]
    fn biases_and_an_untied_decoder_are_counted() {
        let plain = ModernBertConfig::of_shape(1, 4, 6, 2);
        let mut rich = plain.clone();
        (
            rich.attention_bias,
            rich.mlp_bias,
            rich.norm_bias,
            rich.classifier_bias,
        ) = (true, true, true, true);
        rich.tie_word_embeddings = false;
        // Wqkv 12, Wo 4, Wi 12, Wo 4; embedding norm, MLP norm, final norm 4 each.
        assert_eq!(
            rich.encoder_parameters() - plain.encoder_parameters(),
            12 + 4 + 12 + 4 + 3 * 4
        );
        // Dense 4, norm 4.
        assert_eq!(rich.head_parameters() - plain.head_parameters(), 8);
        assert_eq!(
            rich.mlm_parameters() - plain.mlm_parameters(),
            44 + 8 + 50368 * 4
        );
    }

    #[test]
    fn operations_per_token_of_base_and_large() {
        let totals = |config: &ModernBertConfig| {
            [128, 512, 1024, 8192].map(|s: usize| config.forward_flops(&[s], 0) / s as u64)
        };
        let (base, large) = (ModernBertConfig::base(), ModernBertConfig::large());
        assert_eq!(base.linear_flops_per_token(), 220_594_176);
        assert_eq!(large.linear_flops_per_token(), 686_292_992);
        assert_eq!(
            totals(&base),
            [227_890_176, 238_375_680, 251_133_312, 427_446_960]
        );
        assert_eq!(
            totals(&large),
            [698_650_624, 716_176_384, 737_447_424, 1_031_310_784]
        );
        assert_eq!(
            totals(&base.clone().with_every_n(1)),
            [229_244_928, 255_197_184, 289_800_192, 774_242_304]
        );
        assert_eq!(
            totals(&large.clone().with_every_n(1)),
            [700_973_056, 745_013_248, 803_733_504, 1_625_817_088]
        );
        assert_eq!(base.attention_flops(&[512]), 17_781_504 * 512);
        assert_eq!(base.mlm_head_flops_per_prediction(), 78_544_896);
        assert_eq!(large.mlm_head_flops_per_prediction(), 105_250_816);
        let step =
            base.linear_flops_per_token() * 6 + base.attention_flops(&[2, 4]) + 2 * 78_544_896;
        assert_eq!(base.train_flops(&[2, 4], 2), 3 * step);
    }

    #[test]
    fn local_pairs_are_what_counting_gives() {
        let config = ModernBertConfig {
            local_attention: 6,
            ..ModernBertConfig::of_shape(1, 2, 2, 1)
        }
        .with_every_n(0);
        for length in 0..12usize {
            let pairs = (0..length).flat_map(|i| (0..length).map(move |j| i.abs_diff(j)));
            let near = pairs.filter(|distance| *distance <= 3).count() as u64;
            assert_eq!(config.attention_flops(&[length]), 8 * near, "{length}");
        }
    }
}
