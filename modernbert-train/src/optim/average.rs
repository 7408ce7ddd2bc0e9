//! Exponential moving average of the weights (EMA).
//!
//! The average starts at the weights before the first step. After every step whose number is a multiple of `every` each average `a` follows
//! its weight `w`: `a ← a + (1 - k)(w - a)` with `k = 2^(-every / half_life)`, so that a weight's share is halved in `half_life` steps. This
//! is the EMA of Composer (`composer/algorithms/ema`), which the authors tried with half-lives of 1000 and 5000 steps without a gain (paper,
//! appendix D). In this form of `k a + (1 - k) w` the average of a constant weight is that weight, bit for bit.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, FloatDType, Tensor};
use modernbert::model::{NamedMapper, checkpoint_name, map_named};
use std::any::Any;
use std::collections::BTreeMap;

/// Settings of the average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AverageSettings {
    /// Steps after which a weight's share in the average is halved; above 0.
    pub half_life: f64,
    /// Steps between updates of the average; 1 or more.
    pub every: u64,
    /// True if evaluations and the models that a run writes are those of the average.
    pub evaluate: bool,
}

impl AverageSettings {
    /// Share of the old average that an update keeps: `2^(-every / half_life)`.
    pub fn kept(&self) -> f64 {
        (-(self.every as f64) / self.half_life).exp2()
    }
}

/// The averages of a module's parameters, in f32, by name.
#[derive(Default)]
pub(super) struct WeightAverages {
    pub(super) settings: Option<AverageSettings>,
    /// `Tensor<D>` of each parameter of rank D.
    tensors: BTreeMap<String, Box<dyn Any + Send>>,
}

impl WeightAverages {
    /// The averages with other settings; those of a run without settings are dropped.
    pub(super) fn with(mut self, settings: Option<AverageSettings>) -> Self {
        self.settings = settings;
        if settings.is_none() {
            self.tensors.clear();
        }
        self
    }

    pub(super) fn clear(&mut self) {
        self.tensors.clear();
    }

    /// Starts averages at the weights, before the first step.
    pub(super) fn begin<M: Module>(&mut self, module: &M) {
        if self.settings.is_some() && self.tensors.is_empty() {
            self.update(module, 1.0);
        }
    }

    /// Updates the averages after step number `step`, counted from 1.
    pub(super) fn after_step<M: Module>(&mut self, module: &M, step: u64) {
        if let Some(settings) = self.settings
            && step.is_multiple_of(settings.every)
        {
            self.update(module, 1.0 - settings.kept());
        }
    }

    fn update<M: Module>(&mut self, module: &M, rate: f64) {
        module.visit(&mut Follow {
            path: Vec::new(),
            rate,
            tensors: &mut self.tensors,
        });
    }

    /// The average of a parameter, if there is one.
    pub(super) fn get<const D: usize>(&self, name: &str) -> Option<&Tensor<D>> {
        self.tensors.get(name)?.downcast_ref()
    }

    pub(super) fn insert<const D: usize>(&mut self, name: String, average: Tensor<D>) {
        self.tensors.insert(name, Box::new(average));
    }

    /// The module with the averages as its parameters, each in the dtype of its parameter.
    pub(super) fn applied<M: Module>(&self, module: M) -> M {
        map_named(module, &mut Apply(self))
    }
}

struct Follow<'a> {
    path: Vec<String>,
    rate: f64,
    tensors: &'a mut BTreeMap<String, Box<dyn Any + Send>>,
}

impl ModuleVisitor for Follow<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = checkpoint_name(&self.path);
        let weight = param.val().inner();
        let weight = match weight.dtype() {
            DType::F32 => weight,
            _ => weight.cast(FloatDType::F32),
        };
        let old = self.tensors.remove(&name);
        let average = match old.and_then(|old| old.downcast::<Tensor<D>>().ok()) {
            Some(old) => {
                let old = *old;
                old.clone() + (weight - old) * self.rate
            }
            // A copy: the optimizer updates weights in place.
            None => weight * 1.0,
        };
        self.tensors.insert(name, Box::new(average));
    }
}

struct Apply<'a>(&'a WeightAverages);

impl NamedMapper for Apply<'_> {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let Some(average) = self.0.get::<D>(name) else {
            return value;
        };
        let average = match value.dtype() {
            DType::F32 => average.clone(),
            dtype => average.clone().cast(dtype),
        };
        match value.device().is_autodiff() {
            true => Tensor::from_inner(average),
            false => average,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::optim::{NamedOptimizer, StableAdamWConfig, StoredTensor};
    use crate::snapshot::tests::{stepped, trained};
    use modernbert::model::MaskedLm;

    fn values(model: &MaskedLm) -> BTreeMap<String, Vec<f32>> {
        struct Collect(BTreeMap<String, Vec<f32>>);
        impl NamedMapper for Collect {
            fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
                let numbers = value.to_data().try_to_vec().unwrap();
                self.0.insert(name.to_owned(), numbers);
                value
            }
        }
        let mut collect = Collect(BTreeMap::new());
        let _ = map_named(model.clone(), &mut collect);
        collect.0
    }

    fn averages(stored: &[StoredTensor]) -> BTreeMap<String, Vec<f32>> {
        let named = |one: &StoredTensor| {
            let name = one.name.strip_suffix(".average")?;
            Some((name.to_owned(), one.values.clone()))
        };
        stored.iter().filter_map(named).collect()
    }

    fn optimizer(settings: AverageSettings) -> NamedOptimizer {
        NamedOptimizer::new(StableAdamWConfig::new(1e-2)).with_average(Some(settings))
    }

    #[test]
    fn the_average_follows_its_formula_in_f64() {
        for (half_life, every) in [(4.0, 1), (10.0, 3), (0.5, 2)] {
            let settings = AverageSettings {
                half_life,
                every,
                evaluate: true,
            };
            // Composer's form: exp(-ln 2 / (half_life / every)).
            let kept = (-std::f64::consts::LN_2 / (half_life / every as f64)).exp();
            let (mut model, mut optimizer) = (trained(0).0, optimizer(settings));
            let mut expected: BTreeMap<String, Vec<f64>> = values(&model)
                .into_iter()
                .map(|(name, values)| (name, values.iter().map(|&x| f64::from(x)).collect()))
                .collect();
            for step in 1..=9 {
                model = stepped(model, &mut optimizer, step as f32);
                let weights = values(&model);
                if step % every == 0 {
                    for (name, average) in &mut expected {
                        for (a, &w) in average.iter_mut().zip(&weights[name]) {
                            *a = kept * *a + (1.0 - kept) * f64::from(w);
                        }
                    }
                }
                let found = averages(&optimizer.moments(&model).unwrap());
                assert_eq!(found.len(), expected.len());
                for (name, found) in &found {
                    assert_eq!(found.len(), expected[name].len());
                    for (found, expected) in found.iter().zip(&expected[name]) {
                        let error = (f64::from(*found) - expected).abs();
                        assert!(
                            error <= 1e-6 * expected.abs().max(1e-2),
                            "{name}: {found} {expected}"
                        );
                    }
                }
                // Evaluations use the averages, training continues with the weights.
                assert_eq!(values(&optimizer.evaluated(model.clone())), found);
                assert!(values(&model) != found);
            }
        }
    }

    #[test]
    fn the_average_of_constant_weights_is_these_weights() {
        let settings = AverageSettings {
            half_life: 7.0,
            every: 1,
            evaluate: true,
        };
        let model = trained(2).0;
        let (mut averages, before) = (
            WeightAverages::default().with(Some(settings)),
            values(&model),
        );
        averages.begin(&model);
        for step in 1..=50 {
            averages.after_step(&model, step);
        }
        assert!(values(&averages.applied(model)) == before);
    }

    #[test]
    fn averages_are_restored_bit_for_bit_and_can_be_left_unused() {
        let settings = AverageSettings {
            half_life: 5.0,
            every: 2,
            evaluate: false,
        };
        let (mut model, mut whole) = (trained(0).0, optimizer(settings));
        for step in 1..=3 {
            model = stepped(model, &mut whole, step as f32);
        }
        let stored = whole.moments(&model).unwrap();
        let mut resumed = NamedOptimizer::new(StableAdamWConfig::new(1e-2));
        let read = |name: &str| {
            let found = stored.iter().find(|one| one.name == name)?;
            Some((found.shape.clone(), found.values.clone()))
        };
        resumed.restore(&model, 3, read).unwrap();
        let mut resumed = resumed.with_average(Some(settings));
        let mut other = model.clone();
        for step in 4..=8 {
            model = stepped(model, &mut whole, step as f32);
            other = stepped(other, &mut resumed, step as f32);
        }
        let (a, b) = (
            whole.moments(&model).unwrap(),
            resumed.moments(&other).unwrap(),
        );
        assert_eq!(averages(&a).len(), values(&model).len());
        assert!(
            a == b,
            "weights, moments and averages go on as if nothing had been"
        );
        // Unused, they change no evaluation; without settings they are dropped.
        assert!(values(&whole.evaluated(model.clone())) == values(&model));
        let without = whole.with_average(None);
        assert!(averages(&without.moments(&model).unwrap()).is_empty());
    }
}
