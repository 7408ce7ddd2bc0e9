//! Baselines for packed sequences: the same encoder with padding in some or all of its parts.
//!
//! | variant | embedding, norms, MLP | attention |
//! |---|---|---|
//! | [`PaddingStrategy::PerLayer`] | packed | repadded and unpadded in every layer, as in MosaicBERT |
//! | [`PaddingStrategy::Padded`] | on `sequences × longest` rows, padding included | on padded rows |
//! | [`PaddingStrategy::Kernel`] | packed | the library's packed attention |
//! | [`PaddingStrategy::KernelPerLayer`] | on padded rows | the library's packed attention: tokens are gathered before it and scattered after it in every layer |
//!
//! In the first two variants attention is dense: scores of all pairs, with a mask for padding and window. The weights are those of a
//! [`ModernBert`], and GEMMs and norms are the library's, so that a difference in time comes from the layout.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, ensure};
use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use modernbert::batch::{PackedBatch, SequenceLayout, int_tensor};
use modernbert::config::{Activation, FlexOptions, LayerType, ModernBertConfig};
use modernbert::model::{ModernBert, NamedMapper, Precision, map_named};
use modernbert::ops::attention::{AttentionSpec, attention, rotary_table};
use modernbert::ops::{geglu::geglu, layer_norm::layer_norm, linear::linear};

/// Parts of the encoder that compute on padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddingStrategy {
    /// Attention only.
    PerLayer,
    /// Everything.
    Padded,
    /// None; with the packed attention of the library.
    Kernel,
    /// Everything but attention, which is the library's packed attention.
    KernelPerLayer,
}

impl PaddingStrategy {
    /// Returns whether embedding, norms and MLP are computed on padded rows.
    fn is_padded(self) -> bool {
        matches!(self, Self::Padded | Self::KernelPerLayer)
    }
}

/// Added to the scores of masked keys; finite, so that a row with only masked keys does not become NaN.
const MASKED: f32 = -1e30;

/// Forward pass of an encoder on padded rows; residual stream and norms in f32, GEMMs and attention in the dtype of the model's precision.
pub struct PaddedEncoder {
    config: ModernBertConfig,
    precision: Precision,
    /// Matrices `[out, in]`, and norm weights as `[1, width]`, by their names in checkpoint files.
    weights: HashMap<String, Tensor<2>>,
    device: Device,
    /// Row indices by layout, computed once: a measurement repeats few batches.
    cache: RefCell<Vec<(SequenceLayout, Rc<Places>)>>,
}

/// Positions of the tokens of a packed batch in its padded form.
struct Places {
    rows: usize,
    width: usize,
    /// Row `sequence × width + position` of each token.
    indices: Tensor<1, Int>,
    /// Token of each row; padding repeats the batch's first token, which nothing reads.
    slots: Tensor<1, Int>,
    /// 0 for a token and [`MASKED`] for padding, `[rows, 1, 1, width]`.
    padding: Tensor<4>,
    /// Rotary tables of global and local layers.
    tables: [Tensor<2>; 2],
}

impl PaddedEncoder {
    /// Creates a padded encoder with the weights of `model`.
    ///
    /// # Errors
    /// If the config has biases, another activation than exact GELU or another choice of architecture than the published one.
    pub fn new(model: &ModernBert) -> anyhow::Result<Self> {
        let config = model.config().clone();
        let plain = !(config.attention_bias || config.mlp_bias || config.norm_bias);
        ensure!(
            plain
                && config.hidden_activation == Activation::Gelu
                && config.flexbert == FlexOptions::default(),
            "the padded baselines support only the published layers, without biases and with exact GELU"
        );
        struct Collect(HashMap<String, Tensor<2>>);
        impl NamedMapper for Collect {
            fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
                let width = value.dims().last().copied().unwrap_or(1);
                let matrix = value.clone().reshape([-1, width as i32]);
                self.0.insert(name.to_owned(), matrix);
                value
            }
        }
        let mut collect = Collect(HashMap::new());
        map_named(model.clone(), &mut collect);
        let precision = model.precision();
        for (name, weight) in &mut collect.0 {
            let is_vector = weight.dims()[0] == 1;
            if !is_vector && !name.starts_with("embeddings") {
                *weight = lower(weight.clone(), precision);
            }
        }
        Ok(Self {
            config,
            precision,
            weights: collect.0,
            device: model.device(),
            cache: RefCell::default(),
        })
    }

    /// Returns the hidden states of the tokens after the final norm, `[total, hidden]`, in the order of the packed batch.
    ///
    /// # Errors
    /// If the model lacks a weight.
    pub fn forward(&self, batch: &PackedBatch, way: PaddingStrategy) -> anyhow::Result<Tensor<2>> {
        let places = self.places(&batch.layout);
        let places = &*places;
        let ids = match way.is_padded() {
            false => batch.ids.clone(),
            true => batch.ids.clone().select(0, places.slots.clone()),
        };
        let embedded = self
            .weight("embeddings.tok_embeddings.weight")?
            .select(0, ids);
        let mut x = self.norm(embedded, "embeddings.norm")?;
        for (i, &kind) in self.config.layer_types.iter().enumerate() {
            let name = |part: &str| format!("layers.{i}.{part}");
            let normed = if i > 0 {
                self.norm(x.clone(), &name("attn_norm"))?
            } else {
                x.clone()
            };
            let project = |x: Tensor<2>, weight: &str| -> anyhow::Result<Tensor<2>> {
                Ok(linear(
                    lower(x, self.precision),
                    self.weight(&name(weight))?,
                    None,
                ))
            };
            let qkv = project(normed, "attn.Wqkv.weight")?;
            let attended = match way {
                PaddingStrategy::PerLayer => {
                    let attended = self.attention(places.repad(qkv), kind, places);
                    attended.select(0, places.indices.clone())
                }
                PaddingStrategy::Padded => self.attention(qkv, kind, places),
                PaddingStrategy::Kernel => self.packed_attention(qkv, kind, &batch.layout, places),
                PaddingStrategy::KernelPerLayer => {
                    let packed = qkv.select(0, places.indices.clone());
                    places.repad(self.packed_attention(packed, kind, &batch.layout, places))
                }
            };
            x = x + raise(project(attended, "attn.Wo.weight")?);
            let normed = self.norm(x.clone(), &name("mlp_norm"))?;
            let inner = geglu(project(normed, "mlp.Wi.weight")?);
            x = x + raise(project(inner, "mlp.Wo.weight")?);
        }
        let x = match way.is_padded() {
            false => x,
            true => x.select(0, places.indices.clone()),
        };
        self.norm(x, "final_norm")
    }

    fn weight(&self, name: &str) -> anyhow::Result<Tensor<2>> {
        let weight = self.weights.get(name).cloned();
        weight.with_context(|| format!("the model has no parameter {name}"))
    }

    fn norm(&self, x: Tensor<2>, name: &str) -> anyhow::Result<Tensor<2>> {
        let weight = self.weight(&format!("{name}.weight"))?;
        let [_, width] = weight.dims();
        Ok(layer_norm(
            x,
            weight.reshape([width]),
            None,
            self.config.norm_eps,
        ))
    }

    /// The row indices of a layout, from the cache if they were computed before.
    fn places(&self, layout: &SequenceLayout) -> Rc<Places> {
        let mut cache = self.cache.borrow_mut();
        if let Some((_, places)) = cache.iter().find(|(known, _)| known == layout) {
            return places.clone();
        }
        let places = Rc::new(self.compute_places(layout));
        cache.push((layout.clone(), places.clone()));
        places
    }

    fn compute_places(&self, layout: &SequenceLayout) -> Places {
        let (rows, width) = (layout.num_sequences(), layout.max_seqlen());
        let mut padding = vec![MASKED; rows * width];
        let mut slots = vec![0; rows * width];
        let mut indices = Vec::with_capacity(layout.total_tokens());
        for (row, length) in layout.lengths().enumerate() {
            padding[row * width..][..length].fill(0.0);
            for place in 0..length {
                let slot = row * width + place;
                slots[slot] = indices.len() as i32;
                indices.push(slot as i32);
            }
        }
        let head_dim = self.config.head_dim();
        let table =
            |kind| rotary_table(width, head_dim, self.config.rope_theta(kind), &self.device);
        Places {
            rows,
            width,
            indices: int_tensor(indices.into_iter(), &self.device),
            slots: int_tensor(slots.into_iter(), &self.device),
            padding: Tensor::from_data(TensorData::new(padding, [rows, 1, 1, width]), &self.device),
            tables: [table(LayerType::Global), table(LayerType::Local)],
        }
    }

    /// The library's packed attention, `[total, 3 × hidden]` to `[total, hidden]`.
    fn packed_attention(
        &self,
        qkv: Tensor<2>,
        kind: LayerType,
        layout: &SequenceLayout,
        places: &Places,
    ) -> Tensor<2> {
        let (heads, head_dim) = (self.config.num_attention_heads, self.config.head_dim());
        let [total, _] = qkv.dims();
        let table = places.table(kind);
        let window = (kind == LayerType::Local).then(|| self.config.half_window());
        let spec = AttentionSpec::new(layout.clone(), window, (head_dim as f64).powf(-0.5));
        let out = attention(qkv.reshape([total, 3, heads, head_dim]), Some(table), spec);
        out.reshape([total, heads * head_dim])
    }

    /// Dense attention, `[rows × width, 3 × hidden]` to `[rows × width, hidden]`.
    fn attention(&self, qkv: Tensor<2>, kind: LayerType, places: &Places) -> Tensor<2> {
        let (rows, width, heads) = (places.rows, places.width, self.config.num_attention_heads);
        let (hidden, head_dim) = (self.config.hidden_size, self.config.head_dim());
        let qkv = qkv.reshape([rows, width, 3, heads, head_dim]);
        // [rows, heads, width, head_dim]
        let part = |i: usize| -> Tensor<4> {
            qkv.clone()
                .narrow(2, i, 1)
                .reshape([rows, width, heads, head_dim])
                .swap_dims(1, 2)
        };
        let table = places.table(kind);
        let (query, key, value) = (rotate(part(0), &table), rotate(part(1), &table), part(2));
        let scores = query.matmul(key.swap_dims(2, 3)) * (head_dim as f64).powf(-0.5);
        let mut scores = scores + places.padding.clone();
        if kind == LayerType::Local {
            scores = scores + self.window(width);
        }
        let out = softmax(scores, 3).matmul(value);
        out.swap_dims(1, 2).reshape([rows * width, hidden])
    }

    /// Mask with 0 inside the window and [`MASKED`] outside it, `[1, 1, width, width]`.
    fn window(&self, width: usize) -> Tensor<4> {
        let half = self.config.half_window();
        let values: Vec<f32> = (0..width)
            .flat_map(|i| (0..width).map(move |j| if i.abs_diff(j) <= half { 0.0 } else { MASKED }))
            .collect();
        Tensor::from_data(TensorData::new(values, [1, 1, width, width]), &self.device)
    }
}

impl Places {
    fn table(&self, kind: LayerType) -> Tensor<2> {
        match kind {
            LayerType::Global => self.tables[0].clone(),
            LayerType::Local => self.tables[1].clone(),
        }
    }

    fn repad(&self, packed: Tensor<2>) -> Tensor<2> {
        packed.select(0, self.slots.clone())
    }
}

fn lower(x: Tensor<2>, precision: Precision) -> Tensor<2> {
    match precision {
        Precision::F32 => x,
        Precision::Bf16 => x.cast(FloatDType::BF16),
        Precision::F16 => x.cast(FloatDType::F16),
    }
}

fn raise(x: Tensor<2>) -> Tensor<2> {
    match x.dtype() {
        DType::F32 => x,
        _ => x.cast(FloatDType::F32),
    }
}

/// Applies RoPE to each pair of elements `d` and `d + head_dim / 2`; `table` holds cosines, then sines.
fn rotate(x: Tensor<4>, table: &Tensor<2>) -> Tensor<4> {
    let [_, _, width, head_dim] = x.dims();
    let half = head_dim / 2;
    let of = |start: usize| -> Tensor<4> {
        let columns = table.clone().narrow(0, 0, width).narrow(1, start, half);
        columns.reshape([1, 1, width, half])
    };
    let (cos, sin) = (of(0), of(half));
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    Tensor::cat(
        vec![
            a.clone() * cos.clone() - b.clone() * sin.clone(),
            b * cos + a * sin,
        ],
        3,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use modernbert::model::initialize;

    #[test]
    fn packed_and_padded_encoders_agree() {
        let device = test_support::device();
        let mut config = ModernBertConfig::of_shape(4, 32, 48, 4);
        (config.vocab_size, config.local_attention) = (100, 8);
        // Large weights make attention sharp; nearly uniform attention would not reveal a missing window.
        config.initializer_range = 0.4;
        config.pad_token_id = None;
        for token in [
            &mut config.bos_token_id,
            &mut config.eos_token_id,
            &mut config.cls_token_id,
            &mut config.sep_token_id,
        ] {
            *token = None;
        }
        let model = initialize(ModernBert::new(&config, &device).unwrap(), &config, 3);
        let texts: Vec<Vec<u32>> = [30usize, 1, 17, 24]
            .iter()
            .map(|&n| (0..n).map(|i| ((i * 31 + n * 7) % 100) as u32).collect())
            .collect();
        let batch = PackedBatch::from_sequences(&texts, &device).unwrap();
        let read = |t: Tensor<2>| -> Vec<f32> { t.into_data().try_to_vec().unwrap() };
        let packed = read(model.forward(&batch));
        let padded = PaddedEncoder::new(&model).unwrap();
        for way in [
            PaddingStrategy::PerLayer,
            PaddingStrategy::Padded,
            PaddingStrategy::Kernel,
            PaddingStrategy::KernelPerLayer,
        ] {
            let found = read(padded.forward(&batch, way).unwrap());
            let gaps = found.iter().zip(&packed).map(|(a, b)| (a - b).abs());
            let gap = gaps.fold(0.0, f32::max);
            assert!(found.len() == packed.len() && gap < 1e-4, "{way:?}: {gap}");
        }
    }

    #[test]
    fn refuses_layers_that_are_not_the_published_ones() {
        let refuses = |config: &ModernBertConfig| {
            let model = ModernBert::new(config, &test_support::device()).unwrap();
            PaddedEncoder::new(&model).is_err()
        };
        let mut config = ModernBertConfig::of_shape(1, 32, 48, 4);
        assert!(!refuses(&config));
        config.flexbert.attn_softcap = Some(30.0);
        assert!(refuses(&config));
        config.flexbert = FlexOptions::default();
        config.mlp_bias = true;
        assert!(refuses(&config));
    }
}
