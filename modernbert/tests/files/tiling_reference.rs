//! Tiling at the published widths, 768 to 1024 and 1152 to 2624, compared with the authors' own functions: checksums that
//! `scripts/parity/tiling.py` printed on 2026-11-29 with their code (AnswerDotAI/ModernBERT, commit 8c57a0f).

use burn::tensor::Tensor;
use modernbert::checkpoint::{
    save,
    tiling::{Tiling, tile_from_folder},
};
use modernbert::config::ModernBertConfig;
use modernbert::model::{MaskedLm, NamedMapper, map_named};
use std::collections::BTreeMap;

use crate::tiling::shape;
use test_support::{device, read, tensor};

/// Checksum of each tensor; of the tensors of all layers together.
type Checksums = [(&'static str, u64); 12];

const MIDDLE: Checksums = [
    (
        "model.embeddings.tok_embeddings.weight",
        0x0080_0001_9c76_5400,
    ),
    ("model.embeddings.norm.weight", 0x0000_07f7_b376_2a3c),
    ("attn_norm.weight", 0x0001_7fd5_79a0_f840),
    ("attn.Wqkv.weight", 0x7ff9_07c6_eade_d000),
    ("attn.Wo.weight", 0x8006_8907_9867_4000),
    ("mlp_norm.weight", 0x0001_876c_112e_92dc),
    ("mlp.Wi.weight", 0x8192_68d1_3ccd_2800),
    ("mlp.Wo.weight", 0xe06f_04bc_da90_d200),
    ("model.final_norm.weight", 0xffff_ffff_fff0_0000),
    ("head.dense.weight", 0x8000_0713_be65_f000),
    ("head.norm.weight", 0x0000_07fd_94ae_15a0),
    ("decoder.bias", 0x0000_0007_e4ac_aa7b),
];

const EDGE: Checksums = [
    (
        "model.embeddings.tok_embeddings.weight",
        0x007f_fd09_53d6_5400,
    ),
    ("model.embeddings.norm.weight", 0x0000_07fa_c33b_a63c),
    ("attn_norm.weight", 0x0001_8055_06a8_7840),
    ("attn.Wqkv.weight", 0x7ff7_8d12_b76e_d000),
    ("attn.Wo.weight", 0x8002_c3c5_4647_4000),
    ("mlp_norm.weight", 0x0001_8748_dafb_d6dc),
    ("mlp.Wi.weight", 0x819b_64bc_7f6d_2800),
    ("mlp.Wo.weight", 0xe03b_77a0_e9f6_a200),
    ("model.final_norm.weight", 0xffff_ffff_fff0_0000),
    ("head.dense.weight", 0x8000_5401_0d75_f000),
    ("head.norm.weight", 0x0000_0801_c473_9da0),
    ("decoder.bias", 0x0000_0007_e4ac_aa7b),
];

const CENTER: Checksums = [
    (
        "model.embeddings.tok_embeddings.weight",
        0x005f_ff96_0d30_bf00,
    ),
    ("model.embeddings.norm.weight", 0x0000_05fc_a87a_fcad),
    ("attn_norm.weight", 0x0001_1f86_cbaa_5a30),
    ("attn.Wqkv.weight", 0x07fc_8883_b1ce_5500),
    ("attn.Wo.weight", 0xc801_3b7f_2978_1400),
    ("mlp_norm.weight", 0x0001_25b6_2bb7_2125),
    ("mlp.Wi.weight", 0xe2f5_c3f2_41b8_3c00),
    ("mlp.Wo.weight", 0xf8bd_f18c_4ade_8c00),
    ("model.final_norm.weight", 0xffff_ffff_fff0_0000),
    ("head.dense.weight", 0x4800_03fa_4552_5700),
    ("head.norm.weight", 0x0000_0600_1024_f638),
    ("decoder.bias", 0x0000_0007_e4ac_aa7b),
];

/// 22 layers to 28, the center tiling of base to large.
const WHOLE: Checksums = [
    (
        "model.embeddings.tok_embeddings.weight",
        0x0080_0001_9c76_5400,
    ),
    ("model.embeddings.norm.weight", 0x0000_07f7_b376_2a3c),
    ("attn_norm.weight", 0x0018_78d8_d182_0f88),
    ("attn.Wqkv.weight", 0x00e5_831a_e470_3000),
    ("attn.Wo.weight", 0xffe7_f6a8_0a63_3000),
    ("mlp_norm.weight", 0x0018_7cfd_98dd_c924),
    ("mlp.Wi.weight", 0x1ca3_4056_1603_c600),
    ("mlp.Wo.weight", 0x03c3_a2ab_c3ae_9000),
    ("model.final_norm.weight", 0xffff_ffff_fff0_0000),
    ("head.dense.weight", 0x8000_0713_be65_f000),
    ("head.norm.weight", 0x0000_07fd_94ae_15a0),
    ("decoder.bias", 0x0000_0007_e4ac_aa7b),
];

/// Whole numbers below 2^24 that follow from the name, which f32 holds exactly.
fn numbers(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0u32, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(byte.into())
    });
    let number = |i: u32| i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8;
    (0..count as u32).map(|i| number(i) as f32).collect()
}

/// Gives every parameter the values of its name, or -1.
struct Fill {
    named: bool,
}

impl NamedMapper for Fill {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let count = value.shape().num_elements();
        let values = match self.named {
            true => numbers(name, count),
            false => vec![-1.0; count],
        };
        tensor(&values, value.dims(), &value.device())
    }
}

/// Sum over the elements, each times its own odd number, modulo 2^64.
fn checksum(values: &[f32]) -> u64 {
    (0u64..)
        .zip(values)
        .map(|(i, &value)| (value as i64 as u64).wrapping_mul(2 * i + 1))
        .fold(0, u64::wrapping_add)
}

/// Adds up the checksums of the tensors of a role, those of layer L times 2 L + 1.
struct Sums(BTreeMap<String, u64>);

impl NamedMapper for Sums {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let (role, weight) = match name.strip_prefix("model.layers.") {
            Some(rest) => {
                let (layer, role) = rest.split_once('.').unwrap();
                (role, 2 * layer.parse::<u64>().unwrap() + 1)
            }
            None => (name, 1),
        };
        let sum = checksum(&read(value.clone())).wrapping_mul(weight);
        let total = self.0.entry(role.to_string()).or_default();
        *total = total.wrapping_add(sum);
        value
    }
}

/// Tiles from `small` layers to `large` layers at the published widths.
fn assert_as_the_authors(small: usize, large: usize, tiling: Tiling, expected: &Checksums) {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (shape(small, 768, 1152, 64), shape(large, 1024, 2624, 64));
    let build = |config: &ModernBertConfig, named: bool| {
        let model = MaskedLm::new(config, &device()).unwrap();
        map_named(model, &mut Fill { named })
    };
    save(&build(&from, true), &from, folder.path()).unwrap();
    let (tiled, fresh) = tile_from_folder(build(&to, false), &to, folder.path(), tiling).unwrap();
    assert_eq!(fresh, ["model.final_norm.weight"]);
    let mut sums = Sums(BTreeMap::new());
    map_named(tiled, &mut sums);
    let expected: BTreeMap<String, u64> = expected
        .iter()
        .map(|&(role, sum)| (role.to_string(), sum))
        .collect();
    assert_eq!(sums.0, expected, "{tiling:?}");
}

#[test]
fn tensors_at_the_published_widths_are_the_authors() {
    assert_as_the_authors(4, 7, Tiling::Middle, &MIDDLE);
    assert_as_the_authors(4, 7, Tiling::Edge, &EDGE);
    assert_as_the_authors(4, 7, Tiling::Center, &CENTER);
}

#[test]
#[ignore = "takes 2 GB of memory; scripts/parity/tiling.py --layers 22 28 printed the checksums"]
fn base_to_large_as_published_is_the_authors() {
    assert_as_the_authors(22, 28, Tiling::Middle, &WHOLE);
}
