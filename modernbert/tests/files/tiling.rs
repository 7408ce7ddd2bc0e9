//! Tiled initialization of a large model from a small one.

use modernbert::checkpoint::{
    save,
    tiling::{Tiling, TilingError, source_layer, tile_from_folder},
};
use modernbert::config::flexbert::{AttentionKind, BlockKind, MlpKind, NormKind};
use modernbert::config::{FlexOptions, ModernBertConfig};
use modernbert::model::{MaskedLm, initialize, named_parameters};
use std::collections::BTreeMap;

use test_support::{device, read, tensor};

/// The shapes of base and large, thirty-two times narrower: heads of 2, offsets 4 (hidden) and 23 (inner).
fn small() -> ModernBertConfig {
    shape(22, 24, 36, 2)
}

fn large() -> ModernBertConfig {
    shape(28, 32, 82, 2)
}

pub(crate) fn shape(layers: usize, hidden: usize, inner: usize, head: usize) -> ModernBertConfig {
    let mut config = ModernBertConfig::of_shape(layers, hidden, inner, hidden / head);
    config.vocab_size = 64;
    let tokens = [
        &mut config.bos_token_id,
        &mut config.eos_token_id,
        &mut config.cls_token_id,
        &mut config.sep_token_id,
        &mut config.pad_token_id,
    ];
    for token in tokens {
        *token = None;
    }
    config
}

type Named = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn values(model: &MaskedLm) -> Named {
    use burn::tensor::Tensor;
    use modernbert::model::{NamedMapper, map_named};
    struct Collect(Named);
    impl NamedMapper for Collect {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            let shape = value.dims().to_vec();
            self.0
                .insert(name.to_string(), (shape, read(value.clone())));
            value
        }
    }
    let mut collect = Collect(BTreeMap::new());
    map_named(model.clone(), &mut collect);
    collect.0
}

fn build(config: &ModernBertConfig, seed: u64) -> MaskedLm {
    initialize(MaskedLm::new(config, &device()).unwrap(), config, seed)
}

/// Norms and biases with values of their own: all ones and zeros would be equal after any tiling.
fn distinct(model: MaskedLm) -> MaskedLm {
    use burn::tensor::Tensor;
    use modernbert::model::{NamedMapper, map_named};
    struct Distinct;
    impl NamedMapper for Distinct {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            if D > 1 {
                return value;
            }
            let first = name.len() as f32;
            let values: Vec<f32> = (0..value.shape().num_elements())
                .map(|i| first + i as f32)
                .collect();
            tensor(&values, value.dims(), &value.device())
        }
    }
    map_named(model, &mut Distinct)
}

/// `large[r][c] = small[(r - row offset) mod rows][(c - column offset) mod columns]`, checked for rows `from..`.
fn assert_periodic(
    new: &[f32],
    old: &[f32],
    [rows, columns]: [usize; 2],
    [old_rows, old_columns]: [usize; 2],
    what: &str,
) {
    let shift = |j: usize, new: usize, old: usize| {
        (j as isize - ((new - old) / 2) as isize).rem_euclid(old as isize) as usize
    };
    for r in 0..rows {
        for c in 0..columns {
            let source = shift(r, rows, old_rows) * old_columns + shift(c, columns, old_columns);
            assert_eq!(new[r * columns + c], old[source], "{what} [{r}][{c}]");
        }
    }
}

#[test]
fn base_to_large_in_small() {
    let folder = tempfile::tempdir().unwrap();
    let source = distinct(build(&small(), 1));
    save(&source, &small(), folder.path()).unwrap();
    let start = build(&large(), 2);
    let untouched = values(&start);
    let (tiled, fresh) = tile_from_folder(start, &large(), folder.path(), Tiling::Middle).unwrap();
    assert_eq!(fresh, ["model.final_norm.weight"]);
    let (old, new) = (values(&source), values(&tiled));
    let (h, oh, i, oi) = (32, 24, 82, 36);

    let of = |named: &Named, name: &str| named[name].1.clone();
    let pair = |name: &str, from: &str| (of(&new, name), of(&old, from));
    let (a, b) = pair(
        "model.embeddings.tok_embeddings.weight",
        "model.embeddings.tok_embeddings.weight",
    );
    assert_periodic(&a, &b, [64, h], [64, oh], "embedding");
    for layer in 0..28 {
        let from = source_layer(layer, 22, 28);
        let name = |rest: &str| {
            (
                format!("model.layers.{layer}.{rest}"),
                format!("model.layers.{from}.{rest}"),
            )
        };
        let tensors = |rest: &str| {
            let (to, from) = name(rest);
            pair(&to, &from)
        };
        for norm in ["attn_norm.weight", "mlp_norm.weight"] {
            // The first layer has no attention norm.
            if from > 0 || norm == "mlp_norm.weight" {
                let (a, b) = tensors(norm);
                assert_periodic(&a, &b, [1, h], [1, oh], norm);
            }
        }
        let (a, b) = tensors("attn.Wo.weight");
        assert_periodic(&a, &b, [h, h], [oh, oh], "attn.Wo");
        let (a, b) = tensors("mlp.Wo.weight");
        assert_periodic(&a, &b, [h, i], [oh, oi], "mlp.Wo");
        let (a, b) = tensors("attn.Wqkv.weight");
        for part in 0..3 {
            let (a, b) = (&a[part * h * h..][..h * h], &b[part * oh * oh..][..oh * oh]);
            assert_periodic(a, b, [h, h], [oh, oh], "Wqkv");
        }
        let (a, b) = tensors("mlp.Wi.weight");
        for part in 0..2 {
            let (a, b) = (&a[part * i * h..][..i * h], &b[part * oi * oh..][..oi * oh]);
            assert_periodic(a, b, [i, h], [oi, oh], "Wi");
        }
    }
    for norm in ["model.embeddings.norm.weight", "head.norm.weight"] {
        let (a, b) = pair(norm, norm);
        assert_periodic(&a, &b, [1, h], [1, oh], norm);
    }
    let name = "model.final_norm.weight";
    assert_eq!(of(&new, name), of(&untouched, name), "keeps its start");
    let (a, b) = pair("head.dense.weight", "head.dense.weight");
    assert_periodic(&a, &b, [h, h], [oh, oh], "head.dense");
    assert_eq!(of(&new, "decoder.bias"), of(&old, "decoder.bias"));
    // Tied again: the decoder is the embedding.
    assert!(
        named_parameters(&tiled)
            .iter()
            .all(|(name, _)| name != "decoder.weight")
    );
}

#[test]
fn the_centre_without_tiling_leaves_the_random_rest() {
    let folder = tempfile::tempdir().unwrap();
    let source = build(&small(), 1);
    save(&source, &small(), folder.path()).unwrap();
    let start = build(&large(), 2);
    let before = values(&start);
    let (tiled, _) = tile_from_folder(start, &large(), folder.path(), Tiling::Center).unwrap();
    let (old, new) = (values(&source), values(&tiled));
    let name = "model.layers.0.attn.Wo.weight";
    for r in 0..32 {
        for c in 0..32 {
            let inside = (4..28).contains(&r) && (4..28).contains(&c);
            let expected = if inside {
                old[name].1[(r - 4) * 24 + c - 4]
            } else {
                before[name].1[r * 32 + c]
            };
            assert_eq!(new[name].1[r * 32 + c], expected, "[{r}][{c}]");
        }
    }
}

#[test]
fn a_bare_encoder_leaves_the_head_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    save(&build(&small(), 1).model, &small(), folder.path()).unwrap();
    let (_, fresh) =
        tile_from_folder(build(&large(), 2), &large(), folder.path(), Tiling::Edge).unwrap();
    assert_eq!(
        fresh,
        [
            "model.final_norm.weight",
            "head.dense.weight",
            "head.norm.weight",
            "decoder.bias"
        ]
    );
}

#[test]
fn what_is_not_larger_is_refused_by_setting() {
    let folder = tempfile::tempdir().unwrap();
    save(&build(&small(), 1), &small(), folder.path()).unwrap();
    let refused = |change: fn(&mut ModernBertConfig)| {
        let mut config = large();
        change(&mut config);
        match tile_from_folder(build(&config, 2), &config, folder.path(), Tiling::Middle) {
            Err(TilingError::Size { setting, .. }) => setting,
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("accepted"),
        }
    };
    assert_eq!(
        refused(|c| (c.hidden_size, c.num_attention_heads) = (24, 12)),
        "hidden_size"
    );
    assert_eq!(refused(|c| c.intermediate_size = 30), "intermediate_size");
    assert_eq!(refused(|c| *c = shape(19, 32, 82, 2)), "num_hidden_layers");
    assert_eq!(refused(|c| c.vocab_size = 128), "vocab_size");
    assert_eq!(refused(|c| c.attention_bias = true), "attention_bias");
}

#[test]
fn a_parallel_layer_is_tiled_part_by_part() {
    let parallel = |mut config: ModernBertConfig| {
        config.flexbert = FlexOptions {
            bert_layer: Some(BlockKind::ParallelPrenorm),
            attention_layer: Some(AttentionKind::RopeParallel),
            mlp_layer: Some(MlpKind::ParallelGlu),
            ..FlexOptions::default()
        };
        config
    };
    let (small, large) = (parallel(shape(2, 8, 6, 2)), parallel(shape(2, 12, 10, 2)));
    let folder = tempfile::tempdir().unwrap();
    let source = build(&small, 1);
    save(&source, &small, folder.path()).unwrap();
    let (tiled, _) =
        tile_from_folder(build(&large, 2), &large, folder.path(), Tiling::Edge).unwrap();
    let name = "model.layers.1.Wqkvff.weight";
    let ((_, old), (shape, new)) = (&values(&source)[name], &values(&tiled)[name]);
    assert_eq!(shape, &[3 * 12 + 2 * 10, 12]);
    // Queries, keys, values, activated and linear half: rows of the small and of the large part.
    let (mut from, mut to) = (0, 0);
    for (old_rows, rows) in [(8, 12), (8, 12), (8, 12), (6, 10), (6, 10)] {
        for row in 0..rows {
            for column in 0..12 {
                let expected = old[(from + row % old_rows) * 8 + column % 8];
                assert_eq!(new[(to + row) * 12 + column], expected, "{row} {column}");
            }
        }
        (from, to) = (from + old_rows, to + rows);
    }
    let mut other = large.clone();
    other.flexbert.normalization = Some(NormKind::Rmsnorm);
    let error =
        tile_from_folder(build(&other, 2), &other, folder.path(), Tiling::Edge).unwrap_err();
    assert!(error.to_string().contains("rmsnorm"), "{error}");
}
