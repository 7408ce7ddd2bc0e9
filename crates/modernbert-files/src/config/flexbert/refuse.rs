//! Combinations of choices that describe no model: each error names both settings.

use super::{BlockKind, EmbeddingKind, FlexOptions, RopeScaling, RopeType};
use crate::config::validate::{MAX_SIZE, fits_f32, is_share, refuse};
use crate::config::{ConfigError, LayerType, ModernBertConfig, Pooling};
use crate::wording::short;

impl ModernBertConfig {
    /// Refuses choices that are out of range or exclude each other.
    pub(in crate::config) fn validate_flexbert(&self) -> Result<(), ConfigError> {
        if self.flexbert == FlexOptions::default() {
            return Ok(());
        }
        self.refuse_blocks()?;
        self.refuse_norms()?;
        self.refuse_positions()?;
        self.refuse_rotary()?;
        self.refuse_windows()?;
        self.refuse_heads()?;
        self.refuse_biases()?;
        self.refuse_losses()
    }

    /// Layers for which the initial choices count, and those for which they do not: an index of each.
    fn kinds_of_layers(&self) -> impl Iterator<Item = usize> + use<> {
        let initial = self.flexbert.num_initial_layers.unwrap_or(1);
        [0, initial]
            .into_iter()
            .take(1 + usize::from(initial > 0 && initial < self.num_hidden_layers))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn refuse_blocks(&self) -> Result<(), ConfigError> {
        let flex = &self.flexbert;
        let initial = [
            flex.initial_bert_layer.is_some(),
            flex.initial_attention_layer.is_some(),
            flex.initial_mlp_layer.is_some(),
        ];
        if let Some(layers) = flex.num_initial_layers.filter(|layers| *layers > 0)
            && !initial.contains(&true)
        {
            refuse(
                "num_initial_layers",
                layers,
                "the first layers have no choice of their own: give initial_bert_layer, initial_attention_layer or initial_mlp_layer as well, or \
                 leave it out",
            )?;
        }
        if let Some(layers) = flex
            .num_initial_layers
            .filter(|layers| *layers > self.num_hidden_layers)
        {
            refuse(
                "num_initial_layers",
                layers,
                format!(
                    "the model has num_hidden_layers {}: give at most that many",
                    self.num_hidden_layers
                ),
            )?;
        }
        if flex.num_initial_layers == Some(0) {
            let given = [
                ("initial_bert_layer", flex.initial_bert_layer.is_some()),
                (
                    "initial_attention_layer",
                    flex.initial_attention_layer.is_some(),
                ),
                ("initial_mlp_layer", flex.initial_mlp_layer.is_some()),
            ];
            if let Some((name, _)) = given.into_iter().find(|(_, given)| *given) {
                refuse(
                    name,
                    "given",
                    "with num_initial_layers 0 no layer has it: set num_initial_layers to 1 or more, or leave it out",
                )?;
            }
        }
        for layer in self.kinds_of_layers() {
            let (block, attention, mlp) = flex.kinds(layer);
            let parallel = block == BlockKind::ParallelPrenorm;
            if parallel != attention.is_parallel() {
                let remedy = match parallel {
                    true => format!(
                        "bert_layer parallel_prenorm needs the fused Wqkvff of attention: set attention_layer to {}",
                        if attention.has_rope() {
                            "rope_parallel"
                        } else {
                            "parallel"
                        }
                    ),
                    false => format!(
                        "its fused Wqkvff needs bert_layer parallel_prenorm, and bert_layer is {}",
                        block.name()
                    ),
                };
                refuse("attention_layer", attention.name(), remedy)?;
            }
            if parallel != (mlp == super::MlpKind::ParallelGlu) {
                let remedy = match parallel {
                    true => "bert_layer parallel_prenorm needs the fused Wqkvff: set mlp_layer to parallel_glu".to_owned(),
                    false => format!(
                        "it needs the fused Wqkvff of bert_layer parallel_prenorm with attention_layer rope_parallel or parallel; bert_layer is {} \
                         and attention_layer {}",
                        block.name(),
                        attention.name()
                    ),
                };
                refuse("mlp_layer", mlp.name(), remedy)?;
            }
        }
        Ok(())
    }

    fn refuse_norms(&self) -> Result<(), ConfigError> {
        let flex = &self.flexbert;
        let (first, ..) = flex.kinds(0);
        let (last, ..) = flex.kinds(self.num_hidden_layers.saturating_sub(1));
        let postnorm = BlockKind::Postnorm;
        match flex.final_norm {
            Some(false) if last != postnorm => refuse(
                "final_norm",
                false,
                format!(
                    "the sum of bert_layer {} is not normalized: set final_norm to true, or leave it out",
                    last.name()
                ),
            )?,
            Some(true) if last == postnorm => refuse(
                "final_norm",
                true,
                "bert_layer postnorm ends in a norm: set final_norm to false, or leave it out",
            )?,
            _ => {}
        }
        if flex.skip_first_prenorm == Some(true) {
            if flex.embed_norm == Some(false) {
                refuse(
                    "skip_first_prenorm",
                    true,
                    "without embed_norm nothing normalizes the first layer's input: set embed_norm to true, or skip_first_prenorm to false",
                )?;
            }
            if first == postnorm {
                refuse(
                    "skip_first_prenorm",
                    true,
                    "the first layer's bert_layer postnorm has no norm before attention: leave skip_first_prenorm out",
                )?;
            }
        }
        Ok(())
    }

    fn refuse_positions(&self) -> Result<(), ConfigError> {
        let flex = &self.flexbert;
        let kind = flex.embedding_layer.unwrap_or_default();
        if kind == EmbeddingKind::AbsolutePos && flex.unpad_embeddings == Some(true) {
            refuse(
                "unpad_embeddings",
                true,
                "FlexBERT excludes it with embedding_layer absolute_pos: leave unpad_embeddings out (batches are packed in any case)",
            )?;
        }
        if kind == EmbeddingKind::Alibi
            && let Some((_, attention, _)) = self
                .kinds_of_layers()
                .map(|layer| flex.kinds(layer))
                .find(|(_, attention, _)| attention.has_rope())
        {
            refuse(
                "embedding_layer",
                "alibi",
                format!(
                    "attention_layer {} has relative positions already: set attention_layer to base or parallel",
                    attention.name()
                ),
            )?;
        }
        Ok(())
    }

    fn refuse_rotary(&self) -> Result<(), ConfigError> {
        let flex = &self.flexbert;
        let given = [
            ("rotary_emb_dim", flex.rotary_emb_dim.is_some()),
            (
                "local_attn_rotary_emb_dim",
                flex.local_attn_rotary_emb_dim.is_some(),
            ),
            (
                "rotary_emb_interleaved",
                flex.rotary_emb_interleaved == Some(true),
            ),
            (
                "rotary_emb_scale_base",
                flex.rotary_emb_scale_base.is_some(),
            ),
            ("rope_parameters", flex.rope_parameters.is_some()),
        ];
        let rotates = self
            .kinds_of_layers()
            .any(|layer| flex.kinds(layer).1.has_rope());
        if let Some((name, _)) = given.into_iter().find(|(_, given)| *given && !rotates) {
            refuse(
                name,
                "given",
                "attention_layer base and parallel have no rotary embeddings: set attention_layer to rope or rope_parallel, or leave it out",
            )?;
        }
        let head_dim = self.head_dim();
        for (name, dim) in [
            ("rotary_emb_dim", flex.rotary_emb_dim),
            ("local_attn_rotary_emb_dim", flex.local_attn_rotary_emb_dim),
        ] {
            if let Some(dim) = dim
                && (dim == 0 || !dim.is_multiple_of(2) || dim > head_dim)
            {
                refuse(
                    name,
                    dim,
                    format!(
                        "set an even number from 2 to the width of a head, head_dim {head_dim}"
                    ),
                )?;
            }
        }
        if let Some(base) = flex.rotary_emb_scale_base {
            positive("rotary_emb_scale_base", base)?;
            // The first pair of a head decays most, by 1.4 / 0.4 for each `base` tokens from the middle of a sequence.
            let most = (self.max_position_embeddings / 2) as f64 / base * 3.5f64.ln();
            if most > f64::from(f32::MAX).ln() {
                refuse(
                    "rotary_emb_scale_base",
                    short(base),
                    format!(
                        "a sequence of max_position_embeddings ({}) tokens overflows f32: raise it, or lower max_position_embeddings",
                        self.max_position_embeddings
                    ),
                )?;
            }
        }
        for layer_type in [LayerType::Global, LayerType::Local] {
            self.refuse_scaling(&flex.rope_scaling(layer_type), layer_type)?;
        }
        Ok(())
    }

    fn refuse_scaling(
        &self,
        scaling: &RopeScaling,
        layer_type: LayerType,
    ) -> Result<(), ConfigError> {
        let place = match layer_type {
            LayerType::Global => "rope_parameters.full_attention",
            LayerType::Local => "rope_parameters.sliding_attention",
        };
        let kind = scaling.rope_type;
        match scaling.factor {
            Some(factor) if !(factor >= 1.0 && fits_f32(factor)) => refuse(
                place,
                format!("one with factor {}", short(factor)),
                "set a factor of 1 or more that f32 holds",
            )?,
            None if kind != RopeType::Default => refuse(
                place,
                format!("one with rope_type {kind:?}").to_lowercase(),
                "set its factor as well",
            )?,
            _ => {}
        }
        if let Some((field, types)) = unused_field(scaling) {
            refuse(
                place,
                format!("one with {field} and rope_type {kind:?}").to_lowercase(),
                format!("{field} belongs to {types}: change rope_type, or leave {field} out"),
            )?;
        }
        let numbers = [
            ("attention_factor", scaling.attention_factor),
            ("beta_fast", scaling.beta_fast),
            ("beta_slow", scaling.beta_slow),
        ];
        if let Some((name, value)) = numbers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .find(|(_, value)| !fits_f32(*value))
        {
            refuse(
                place,
                format!("one with {name} {}", short(value)),
                "set a positive number that f32 holds, or leave it out",
            )?;
        }
        let (fast, slow) = scaling.betas();
        if fast < slow {
            refuse(
                place,
                format!("one with beta_fast {fast} and beta_slow {slow}"),
                "set beta_fast to beta_slow or more",
            )?;
        }
        if kind == RopeType::Yarn && !fits_f32(scaling.yarn_magnitude()) {
            refuse(
                place,
                format!(
                    "one whose mscale and mscale_all_dim make the attention factor {}",
                    short(scaling.yarn_magnitude())
                ),
                "change them so that it is a positive number that f32 holds",
            )?;
        }
        let original = scaling.original_max_position_embeddings;
        if original.is_some_and(|n| n == 0 || n >= MAX_SIZE) {
            refuse(
                place,
                "one with an original_max_position_embeddings out of range",
                format!("set it to 1 or more, below {MAX_SIZE}"),
            )?;
        }
        let dim = match layer_type {
            LayerType::Global => self.flexbert.rotary_emb_dim,
            LayerType::Local => self
                .flexbert
                .local_attn_rotary_emb_dim
                .or(self.flexbert.rotary_emb_dim),
        };
        if kind == RopeType::Dynamic && dim.unwrap_or(self.head_dim()) <= 2 {
            refuse(
                place,
                "one with rope_type dynamic",
                "its exponent dim / (dim - 2) needs rotary_emb_dim of 4 or more",
            )?;
        }
        if kind == RopeType::Yarn && self.rope_theta(layer_type) <= 1.0 {
            refuse(
                place,
                "one with rope_type yarn",
                "it needs a rope_theta above 1",
            )?;
        }
        if kind == RopeType::Dynamic {
            let (dim, longest) = (
                dim.unwrap_or(self.head_dim()) as f64,
                self.max_position_embeddings as f64,
            );
            let known = original.unwrap_or(self.max_position_embeddings) as f64;
            let factor = scaling.factor.unwrap_or(1.0);
            let stretch = (factor * longest.max(known) / known - (factor - 1.0)).max(1.0);
            let base = self.rope_theta(layer_type) * stretch.powf(dim / (dim - 2.0));
            if !fits_f32(base) {
                refuse(
                    place,
                    format!("one with factor {}", short(factor)),
                    format!(
                        "the base of a sequence of max_position_embeddings ({longest}) tokens overflows f32: set a smaller factor, or a larger \
                         original_max_position_embeddings"
                    ),
                )?;
            }
        }
        Ok(())
    }

    fn refuse_windows(&self) -> Result<(), ConfigError> {
        let Some(windows) = &self.flexbert.sliding_windows else {
            return Ok(());
        };
        if windows.len() != self.num_hidden_layers {
            refuse(
                "sliding_windows",
                format!("a list of {}", windows.len()),
                format!(
                    "give one entry for each of the num_hidden_layers ({}) layers",
                    self.num_hidden_layers
                ),
            )?;
        }
        if let Some(window) = windows
            .iter()
            .find(|window| !window.is_multiple_of(2) || **window >= MAX_SIZE)
        {
            refuse(
                "sliding_windows",
                format!("a list with {window}"),
                "an entry is the total window, half of it on each side: set even numbers, 0 for a global layer",
            )?;
        }
        let differs = |(layer, window): (usize, &usize)| {
            (self.layer_types.get(layer) == Some(&LayerType::Global)) != (*window == 0)
        };
        if let Some(layer) = windows.iter().enumerate().position(differs) {
            refuse(
                "sliding_windows",
                format!("{} for layer {layer}", windows[layer]),
                "layer_types disagrees: a layer of full_attention has window 0, one of sliding_attention another",
            )?;
        }
        Ok(())
    }

    fn refuse_heads(&self) -> Result<(), ConfigError> {
        let flex = &self.flexbert;
        let heads = self.num_attention_heads;
        if let Some(groups) = flex.num_key_value_heads
            && (groups == 0 || !heads.is_multiple_of(groups))
        {
            refuse(
                "num_key_value_heads",
                groups,
                format!("choose a divisor of num_attention_heads ({heads})"),
            )?;
        }
        if let Some(dim) = flex.head_dim
            && (dim == 0 || !dim.is_multiple_of(2) || dim >= MAX_SIZE)
        {
            refuse("head_dim", dim, "set an even number, 2 or more")?;
        }
        if let Some(cap) = flex.attn_softcap {
            positive("attn_softcap", cap)?;
        }
        if let Some(pooling) = flex.pooling_type
            && pooling == Pooling::WeightedMean
        {
            refuse(
                "pooling_type",
                pooling.name(),
                "a classifier pools by \"cls\", \"mean\" or \"max\"",
            )?;
        }
        Ok(())
    }

    fn refuse_biases(&self) -> Result<(), ConfigError> {
        let flex = &self.flexbert;
        let qkv = flex.attn_qkv_bias.unwrap_or(self.attention_bias);
        let parallel = self
            .kinds_of_layers()
            .any(|layer| flex.kinds(layer).0 == BlockKind::ParallelPrenorm);
        match flex.mlp_in_bias {
            Some(given) if parallel && given != qkv => refuse(
                "mlp_in_bias",
                given,
                format!(
                    "bert_layer parallel_prenorm has one matrix Wqkvff, whose bias is attn_qkv_bias ({qkv}): make the two agree"
                ),
            ),
            _ => Ok(()),
        }
    }

    fn refuse_losses(&self) -> Result<(), ConfigError> {
        let flex = &self.flexbert;
        let probabilities = [
            ("label_smoothing", flex.label_smoothing),
            ("attn_out_dropout_prob", flex.attn_out_dropout_prob),
        ];
        for (name, value) in probabilities {
            if let Some(value) = value
                && !is_share(value)
            {
                refuse(
                    name,
                    value,
                    "set a number of at least 0 and below 1, also in f32",
                )?;
            }
        }
        if let Some(scale) = flex.lse_square_scale
            && !(scale == 0.0 || fits_f32(scale))
        {
            refuse(
                "lse_square_scale",
                short(scale),
                "set a number of at least 0 that f32 holds",
            )?;
        }
        Ok(())
    }
}

fn positive(setting: &'static str, value: f64) -> Result<(), ConfigError> {
    match fits_f32(value) {
        true => Ok(()),
        false => refuse(
            setting,
            short(value),
            "set a positive number that f32 holds, or leave it out",
        ),
    }
}

/// A field of a scaling that its type does not read, and the types that do.
fn unused_field(scaling: &RopeScaling) -> Option<(&'static str, &'static str)> {
    use RopeType::{Dynamic, Linear, Yarn};
    let scaled: (&[RopeType], _) = (&[Linear, Dynamic, Yarn], "linear, dynamic and yarn");
    let yarn: (&[RopeType], _) = (&[Yarn], "yarn");
    [
        (
            "factor",
            scaling.factor.is_some_and(|factor| factor != 1.0),
            scaled,
        ),
        (
            "original_max_position_embeddings",
            scaling.original_max_position_embeddings.is_some(),
            scaled,
        ),
        ("attention_factor", scaling.attention_factor.is_some(), yarn),
        ("beta_fast", scaling.beta_fast.is_some(), yarn),
        ("beta_slow", scaling.beta_slow.is_some(), yarn),
        ("mscale", scaling.mscale.is_some(), yarn),
        ("mscale_all_dim", scaling.mscale_all_dim.is_some(), yarn),
        ("truncate", scaling.truncate.is_some(), yarn),
    ]
    .into_iter()
    .find(|(_, given, (types, _))| *given && !types.contains(&scaling.rope_type))
    .map(|(field, _, (_, types))| (field, types))
}
