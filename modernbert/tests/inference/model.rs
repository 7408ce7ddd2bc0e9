//! A small model whose weights are large enough for neighbours to show, and a tokenizer that fits it.

#![allow(dead_code)] // another test program uses a part of this module

use burn::module::Module;
use burn::tensor::Tensor;
use modernbert::config::ModernBertConfig;
use modernbert::model::{NamedMapper, map_named};
use modernbert::tokenizer::{Tokenizer, TrainOptions, train::train};

use test_support::{normals, tensor};

pub(crate) const TEXTS: [&str; 7] = [
    "one two three",
    "",
    "three two one two three two one two three two one two three two one two three two one",
    "one",
    "two two",
    "one two three one two three one two three one two three",
    "three two",
];

pub(crate) fn tokenizer() -> Tokenizer {
    let options = TrainOptions {
        vocab_size: 320,
        ..TrainOptions::default()
    };
    train(["one two three one two one two three"], &options).unwrap()
}

pub(crate) fn config() -> ModernBertConfig {
    let mut config = ModernBertConfig::of_shape(4, 32, 48, 2);
    config.vocab_size = tokenizer().vocab_size();
    config.local_attention = 8;
    config.max_position_embeddings = 64;
    config.pad_token_id = None;
    config
}

/// Matrices of deviation 0.3, norms of one.
pub(crate) fn randomize<M: Module>(module: M) -> M {
    struct Random(u64);
    impl NamedMapper for Random {
        fn map<const D: usize>(&mut self, _name: &str, value: Tensor<D>) -> Tensor<D> {
            self.0 += 1;
            let shape = value.dims();
            let count = shape.iter().product();
            let values: Vec<f32> = match D {
                1 => vec![1.0; count],
                _ => normals(self.0, count).iter().map(|x| 0.3 * x).collect(),
            };
            tensor(&values, shape, &value.device())
        }
    }
    map_named(module, &mut Random(40))
}
