//! Small models with weights large enough to matter, and their parameters and gradients by name.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};
use modernbert::config::ModernBertConfig;
use modernbert::model::{NamedMapper, map_named, named_parameters};

use test_support::{normals, read, tensor, wide};

/// Values by parameter name.
pub(crate) type Named = BTreeMap<String, Vec<f32>>;

pub(crate) const VOCAB: usize = 37;

/// Layers global, local, local, global, …; two heads of 8; windows of 4 on each side.
pub(crate) fn config(layers: usize) -> ModernBertConfig {
    let mut config = ModernBertConfig::of_shape(layers, 16, 12, 2);
    config.vocab_size = VOCAB;
    config.local_attention = 8;
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

/// Random weights: matrices of deviation 0.4, norms around one, biases around zero.
pub(crate) fn randomize<M: Module>(module: M, seed: u64) -> M {
    struct Random(u64);
    impl NamedMapper for Random {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            let (mean, deviation) = match D {
                1 if name.ends_with("weight") => (1.0, 0.2),
                _ => (0.0, 0.4),
            };
            let seed = name.bytes().fold(self.0, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u64::from(byte))
            });
            let shape = value.dims();
            let values: Vec<f32> = normals(seed, shape.iter().product())
                .iter()
                .map(|x| mean + deviation * x)
                .collect();
            tensor(&values, shape, &value.device())
        }
    }
    map_named(module, &mut Random(seed))
}

/// Replaces the named parameters by what `change` makes of their values.
pub(crate) fn edit<M: Module>(module: M, change: impl FnMut(&str, &mut Vec<f32>)) -> M {
    struct Edit<F>(F);
    impl<F: FnMut(&str, &mut Vec<f32>)> NamedMapper for Edit<F> {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            let (shape, device) = (value.dims(), value.device());
            let mut values = read(value);
            (self.0)(name, &mut values);
            tensor(&values, shape, &device)
        }
    }
    map_named(module, &mut Edit(change))
}

/// Collects something of every parameter, in the order of `named_parameters`.
struct Visit<F> {
    see: F,
    found: Vec<Option<Vec<f32>>>,
}

trait See {
    fn see<const D: usize>(&self, value: Tensor<D>) -> Option<Tensor<D>>;
}

struct Values;

impl See for Values {
    fn see<const D: usize>(&self, value: Tensor<D>) -> Option<Tensor<D>> {
        Some(value)
    }
}

struct Slopes<'a>(&'a Gradients);

impl See for Slopes<'_> {
    fn see<const D: usize>(&self, value: Tensor<D>) -> Option<Tensor<D>> {
        value.grad(self.0)
    }
}

impl<F: See> ModuleVisitor for Visit<F> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(self.see.see(param.val()).map(read));
    }
}

fn visit<M: Module>(module: &M, see: impl See) -> Vec<(String, Option<Vec<f32>>)> {
    let mut visit = Visit {
        see,
        found: Vec::new(),
    };
    module.visit(&mut visit);
    let names = named_parameters(module).into_iter().map(|(name, _)| name);
    names.zip(visit.found).collect()
}

/// The value of every parameter.
pub(crate) fn values<M: Module>(module: &M) -> Named {
    visit(module, Values)
        .into_iter()
        .map(|(name, values)| (name, values.unwrap()))
        .collect()
}

/// The gradient of every parameter; each must have one.
pub(crate) fn gradients<M: Module>(module: &M, loss: &Tensor<1>) -> Named {
    let grads = loss.backward();
    let found = visit(module, Slopes(&grads)).into_iter();
    found
        .map(|(name, grad)| {
            let grad = grad.unwrap_or_else(|| panic!("{name} has no gradient"));
            (name, grad)
        })
        .collect()
}

/// Every gradient within `tolerance` of the other side's largest value of that parameter.
#[track_caller]
pub(crate) fn assert_gradients_close(found: &Named, expected: &Named, tolerance: f64) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, expected) in expected {
        assert!(
            expected.iter().any(|&x| x != 0.0),
            "{name} has a gradient of nothing but zeros"
        );
        test_support::assert_close(&found[name], &wide(expected), tolerance, name);
    }
}

/// A random model from its constructor.
pub(crate) fn build<M: Module>(make: impl Fn(&Device) -> M, seed: u64, device: &Device) -> M {
    randomize(make(device), seed)
}
