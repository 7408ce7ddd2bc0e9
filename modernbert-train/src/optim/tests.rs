use super::*;
use burn::optim::Optimizer;
use burn::tensor::Tensor;

/// One step in f64 from the formulas; shares no code with the code under test.
struct Reference {
    theta: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    t: i32,
}

impl Reference {
    fn new(theta: &[f64]) -> Self {
        let zeros = vec![0.0; theta.len()];
        Self {
            theta: theta.to_vec(),
            m: zeros.clone(),
            v: zeros,
            t: 0,
        }
    }

    fn step(&mut self, g: &[f64], lr: f64, c: &StableAdamWConfig, decay: bool) {
        self.t += 1;
        let fold = |b: f64| (b.powi(self.t) - b) / (b.powi(self.t) - 1.0);
        let (b1, b2) = (fold(c.beta1), fold(c.beta2));
        let mut ratio = 0.0;
        for (i, g) in g.iter().enumerate() {
            self.m[i] += (1.0 - b1) * (g - self.m[i]);
            self.v[i] = b2 * self.v[i] + (1.0 - b2) * g * g;
            ratio += g * g / self.v[i].max(c.epsilon * c.epsilon);
        }
        let eta = lr / (ratio / g.len() as f64).sqrt().max(1.0);
        for i in 0..g.len() {
            if decay {
                self.theta[i] *= 1.0 - eta / c.max_lr * c.weight_decay;
            }
            self.theta[i] -= eta * self.m[i] / (self.v[i].sqrt() + c.epsilon);
        }
    }
}

fn config() -> StableAdamWConfig {
    StableAdamWConfig {
        weight_decay: 0.01,
        ..StableAdamWConfig::new(0.01)
    }
}

const GRADIENTS: [[f64; 3]; 4] = [
    [0.1, -0.2, 0.3],
    [0.1, -0.2, 0.3],
    [1.0, 2.0, -3.0],
    [0.0, 0.05, -0.01],
];
const GOLDEN: [[f64; 3]; 4] = [
    [0.9800001, -1.97000005, 0.485000033],
    [0.960200199, -1.940300099, 0.470150066],
    [0.950225486, -1.931934594, 0.470440848],
    [0.934682561, -1.917033607, 0.47003197],
];

#[test]
fn the_reference_follows_the_golden_trace() {
    let mut reference = Reference::new(&[1.0, -2.0, 0.5]);
    for (g, golden) in GRADIENTS.iter().zip(GOLDEN) {
        reference.step(g, 0.01, &config(), true);
        for (x, expected) in reference.theta.iter().zip(golden) {
            assert!((x - expected).abs() < 1e-8, "{x} {expected}");
        }
    }
}

#[test]
fn the_tensors_follow_the_golden_trace() {
    let device = test_support::device();
    let mut theta = Tensor::<2>::from_floats([[1.0, -2.0, 0.5]], &device);
    let mut state = None;
    for (g, golden) in GRADIENTS.iter().zip(GOLDEN) {
        let g = Tensor::<2>::from_floats([[g[0] as f32, g[1] as f32, g[2] as f32]], &device);
        (theta, state) = config().build().step(0.01, theta, g, state);
        let values: Vec<f32> = theta.to_data().try_to_vec().unwrap();
        for (x, expected) in values.iter().zip(golden) {
            assert!((f64::from(*x) - expected).abs() < 1e-6, "{x} {expected}");
        }
    }
}

#[test]
fn at_the_peak_a_zero_gradient_decays_by_exactly_the_weight_decay() {
    let device = test_support::device();
    let theta = Tensor::<2>::ones([4, 4], &device);
    let zero = Tensor::<2>::zeros([4, 4], &device);
    let config = StableAdamWConfig::new(8e-4);
    let (theta, _) = config.build().step(8e-4, theta, zero, None);
    let values: Vec<f32> = theta.to_data().try_to_vec().unwrap();
    assert!(values.iter().all(|&x| x == 1.0 - 1e-5), "{:?}", values[0]);
}

#[test]
fn vectors_are_not_decayed() {
    let device = test_support::device();
    let theta = Tensor::<1>::ones([4], &device);
    let zero = Tensor::<1>::zeros([4], &device);
    let (theta, _) = config().build().step(0.01, theta, zero, None);
    let values: Vec<f32> = theta.to_data().try_to_vec().unwrap();
    assert_eq!(values, [1.0; 4]);
}

#[test]
fn a_spike_is_taken_in_smaller_steps() {
    // After many small gradients a large one: AdamW would jump by about lr * m / sqrt(v), StableAdamW divides by the rms.
    let device = test_support::device();
    let optimizer = StableAdamWConfig::new(1.0).build();
    let mut theta = Tensor::<1>::zeros([1], &device);
    let mut state = None;
    for _ in 0..50 {
        (theta, state) = optimizer.step(0.0, theta, Tensor::from_floats([1e-3], &device), state);
    }
    let (jumped, _) = optimizer.step(1.0, theta, Tensor::from_floats([1.0], &device), state);
    let moved = jumped.into_data().try_to_vec::<f32>().unwrap()[0].abs();
    assert!(moved < 0.2, "{moved}");
}

#[test]
fn decoupled_adamw_follows_its_formula() {
    let device = test_support::device();
    let optimizer = DecoupledAdamW::new(0.02, 0.01);
    let mut theta = Tensor::<2>::from_floats([[1.0, -2.0, 0.5]], &device);
    let (mut expected, mut m, mut v) = ([1.0f64, -2.0, 0.5], [0.0f64; 3], [0.0f64; 3]);
    let mut state = None;
    for (t, g) in GRADIENTS.iter().enumerate() {
        let lr = 0.02 * (1.0 - 0.2 * t as f64);
        let power = t as i32 + 1;
        for i in 0..3 {
            expected[i] *= 1.0 - lr / 0.02 * 0.01;
            m[i] = 0.9 * m[i] + 0.1 * g[i];
            v[i] = 0.98 * v[i] + 0.02 * g[i] * g[i];
            let (m, v) = (
                m[i] / (1.0 - 0.9f64.powi(power)),
                v[i] / (1.0 - 0.98f64.powi(power)),
            );
            expected[i] -= lr * m / (v.sqrt() + 1e-6);
        }
        let g = Tensor::<2>::from_floats([[g[0] as f32, g[1] as f32, g[2] as f32]], &device);
        (theta, state) = optimizer.step(lr, theta, g, state);
        let values: Vec<f32> = theta.to_data().try_to_vec().unwrap();
        for (x, e) in values.iter().zip(expected) {
            assert!((f64::from(*x) - e).abs() < 2e-6, "{x} {e}");
        }
    }
}

mod whole_model {
    use super::*;
    use crate::snapshot::tests::small_config;
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::optim::{GradientsParams, ModuleOptimizer};
    use modernbert::model::{MaskedLm, NamedMapper, initialize, map_named};
    use std::collections::BTreeMap;

    fn model() -> MaskedLm {
        let config = small_config(64);
        let device = test_support::autodiff_device();
        initialize(MaskedLm::new(&config, &device).unwrap(), &config, 5)
    }

    /// Sets biases to 1.
    struct OneBiases;
    impl NamedMapper for OneBiases {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            match name.ends_with(".bias") {
                true => value.ones_like(),
                false => value,
            }
        }
    }

    fn values(model: &MaskedLm) -> BTreeMap<String, Vec<f32>> {
        struct Read(BTreeMap<String, Vec<f32>>);
        impl NamedMapper for Read {
            fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
                let values = value.to_data().try_to_vec().unwrap();
                self.0.insert(name.to_string(), values);
                value
            }
        }
        let mut read = Read(BTreeMap::new());
        map_named(model.clone(), &mut read);
        read.0
    }

    /// A gradient for every parameter, computed by `of` from its value.
    fn gradients(model: &MaskedLm, of: fn(f32) -> f32) -> GradientsParams {
        struct Make(GradientsParams, fn(f32) -> f32);
        impl ModuleVisitor for Make {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                let value = param.val().inner();
                let numbers: Vec<f32> = value.to_data().try_to_vec().unwrap();
                let numbers: Vec<f32> = numbers.into_iter().map(self.1).collect();
                let data = burn::tensor::TensorData::new(numbers, value.dims());
                self.0
                    .register(param.id, Tensor::<D>::from_data(data, &value.device()));
            }
        }
        let mut make = Make(GradientsParams::new(), of);
        model.visit(&mut make);
        make.0
    }

    #[test]
    fn decay_takes_matrices_and_leaves_norms_and_biases() {
        let mut optimizer = NamedOptimizer::new(config());
        // Biases begin at 0, which no decay would change.
        let before = map_named(model(), &mut OneBiases);
        let zero = gradients(&before, |_| 0.0);
        let after = optimizer.step(0.01, before.clone(), zero);
        let (before, after) = (values(&before), values(&after));
        assert!(before.contains_key("model.embeddings.tok_embeddings.weight"));
        assert_eq!(before["decoder.bias"][0], 1.0);
        for (name, old) in &before {
            let one_axis = name.ends_with("norm.weight") || name.ends_with(".bias");
            let share = if one_axis { 1.0 } else { 1.0 - 0.01 };
            for (x, y) in old.iter().zip(&after[name]) {
                assert!((x * share - y).abs() <= 1e-7 * x.abs(), "{name}: {x} {y}");
            }
        }
    }

    /// The phase transition: moments and counts continue, rate and decay are those of the new rule.
    #[test]
    fn another_rule_keeps_the_moments() {
        let wave = |x: f32| (40.0 * x).sin() * 0.1;
        let start = model();
        let mut first = NamedOptimizer::new(config());
        let trained = first.step(0.01, start.clone(), gradients(&start, wave));
        let before = first.moments(&trained).unwrap();
        let new = StableAdamWConfig {
            weight_decay: 0.5,
            max_lr: 0.002,
            ..config()
        };
        let mut second = first.with_rule(new);
        assert_eq!(second.updates(), 1);
        assert_eq!(second.moments(&trained).unwrap(), before);
        // The second update is that of an optimizer with the new rule from the start, given the same moments.
        let mut fresh = NamedOptimizer::new(new);
        let read = |name: &str| {
            let found = before.iter().find(|tensor| tensor.name == name)?;
            Some((found.shape.clone(), found.values.clone()))
        };
        fresh.restore(&trained, 1, read).unwrap();
        let a = second.step(0.002, trained.clone(), gradients(&trained, wave));
        let b = fresh.step(0.002, trained.clone(), gradients(&trained, wave));
        assert_eq!(values(&a), values(&b));
        let mut old = NamedOptimizer::new(config());
        old.restore(&trained, 1, read).unwrap();
        let c = old.step(0.01, trained.clone(), gradients(&trained, wave));
        assert_ne!(values(&a), values(&c));
    }

    #[test]
    fn it_does_what_burns_driver_does_with_the_same_optimizer() {
        let mut named = NamedOptimizer::new(config());
        let mut other: ModuleOptimizer = config().build().into();
        let (mut a, mut b) = (model(), model());
        for lr in [0.01, 0.02, 0.005] {
            let wave = |x: f32| (40.0 * x).sin() * 0.1;
            let (of_a, of_b) = (gradients(&a, wave), gradients(&b, wave));
            a = named.step(lr, a, of_a);
            b = other.step(lr, b, of_b);
        }
        assert_eq!(values(&a), values(&b));
        assert_eq!(named.updates(), 3);
        let device = a.model.device();
        assert!(device.is_autodiff());
    }

    /// A matrix in bf16 moves by updates far below the spacing of its numbers, and continues from a checkpoint bit for bit.
    #[test]
    fn half_precision_weights_are_summed_with_compensation() {
        use burn::nn::{Linear, LinearConfig};
        use burn::tensor::DType;
        let device = test_support::autodiff_device();
        let mut linear = LinearConfig::new(8, 8).with_bias(false).init(&device);
        linear.weight = Param::from_tensor(Tensor::<2>::ones([8, 8], &device).cast(DType::BF16));
        let grads = |linear: &Linear| {
            let mut grads = GradientsParams::new();
            let ones = Tensor::<2>::ones([8, 8], &device.clone().inner());
            grads.register(linear.weight.id, ones.cast(DType::BF16));
            grads
        };
        let mut optimizer = NamedOptimizer::new(StableAdamWConfig {
            weight_decay: 0.0,
            ..StableAdamWConfig::new(1e-4)
        });
        let values = |linear: &Linear| -> Vec<f32> {
            let value = linear.weight.val().inner().cast(DType::F32);
            value.into_data().try_to_vec().unwrap()
        };
        for _ in 0..50 {
            let gradient = grads(&linear);
            linear = optimizer.step(1e-4, linear, gradient);
        }
        // Fifty steps of 1e-4 below 1, where bf16 numbers are 2^-8 = 0.0039 apart: 0.995 rounds to 0.99609.
        assert_eq!(values(&linear), [0.996_093_75; 64]);
        assert_eq!(linear.weight.val().dtype(), DType::BF16);
        let saved = optimizer.moments(&linear).unwrap();
        let names: Vec<&str> = saved.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(
            names,
            ["weight.moment_1", "weight.moment_2", "weight.compensation"]
        );
        let sum = 0.996_093_75 + saved[2].values[0];
        // The compensation is in bf16 too: fifty roundings of up to 2^-18.
        assert!((sum - 0.995).abs() < 1e-4, "{sum}");
        let mut restored = NamedOptimizer::new(StableAdamWConfig {
            weight_decay: 0.0,
            ..StableAdamWConfig::new(1e-4)
        });
        let read = |name: &str| {
            let found = saved.iter().find(|tensor| tensor.name == name)?;
            Some((found.shape.clone(), found.values.clone()))
        };
        restored.restore(&linear, 50, read).unwrap();
        let (mut a, mut b) = (linear.clone(), linear);
        for _ in 0..60 {
            let (of_a, of_b) = (grads(&a), grads(&b));
            a = optimizer.step(1e-4, a, of_a);
            b = restored.step(1e-4, b, of_b);
        }
        assert_eq!(values(&a), values(&b));
        assert!(values(&a)[0] < 0.99, "{}", values(&a)[0]);
    }

    #[test]
    fn gradients_are_scaled_to_a_norm() {
        let model = model();
        let grads = gradients(&model, |x| 3.0 * x);
        let norm = |grads: &GradientsParams| {
            let squares = GradientSquares::of(&model, grads);
            let sums: Vec<f32> = squares.sums.unwrap().to_data().try_to_vec().unwrap();
            assert_eq!(sums.len(), squares.names.len());
            sums.iter().sum::<f32>().sqrt()
        };
        let before = norm(&grads);
        assert!(before > 1.0);
        let squares = GradientSquares::of(&model, &grads);
        let clipped = clip_by_norm(&model, grads, &squares, 0.5);
        assert!((norm(&clipped) - 0.5).abs() < 1e-4, "{}", norm(&clipped));
        let squares = GradientSquares::of(&model, &clipped);
        let left = clip_by_norm(&model, clipped, &squares, 10.0);
        assert!((norm(&left) - 0.5).abs() < 1e-4);
    }
}
