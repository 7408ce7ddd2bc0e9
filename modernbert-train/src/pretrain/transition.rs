//! The same weights in a model of another config: the part of a phase transition that concerns the model.

use burn::tensor::{Device, Tensor};
use modernbert::config::{ConfigError, ModernBertConfig};
use modernbert::model::{MaskedLm, NamedMapper, map_named};
use std::any::Any;
use std::collections::HashMap;

/// Returns `model` under another config of the same shapes, such as another rotary base. Parameters are matched by name and stay on the
/// device.
///
/// # Errors
/// A config that can't be built.
///
/// # Panics
/// If the shapes differ; those of configs of one recipe are equal.
pub(super) fn with_config(
    model: MaskedLm,
    config: &ModernBertConfig,
    device: &Device,
) -> Result<MaskedLm, ConfigError> {
    let precision = model.model.precision();
    let mut take = Take(HashMap::new());
    map_named(model, &mut take);
    let fresh = MaskedLm::new(config, device)?.with_precision(precision);
    Ok(map_named(fresh, &mut Give(take.0)))
}

/// `Tensor<D>` of each parameter by its name.
type Tensors = HashMap<String, Box<dyn Any>>;

struct Take(Tensors);

impl NamedMapper for Take {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        self.0.insert(name.to_string(), Box::new(value.clone()));
        value
    }
}

struct Give(Tensors);

impl NamedMapper for Give {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let given = self.0.remove(name);
        match given.and_then(|given| given.downcast::<Tensor<D>>().ok()) {
            Some(given) => *given,
            None => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modernbert::batch::PackedBatch;
    use modernbert::model::{initialize, named_parameters};

    /// With the global layers' attention at zero, only local tables can have an effect: a new global base leaves every bit.
    #[test]
    fn local_layers_keep_their_rotary_tables() {
        struct WithoutGlobal;
        impl NamedMapper for WithoutGlobal {
            fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
                // Every third layer is global, from the first on.
                let global = [0, 3].map(|layer| format!("model.layers.{layer}.attn.Wo.weight"));
                match global.iter().any(|global| global == name) {
                    true => value.zeros_like(),
                    false => value,
                }
            }
        }
        let device = test_support::device();
        let config = ModernBertConfig {
            global_rope_theta: 10_000.0,
            local_rope_theta: 10_000.0,
            ..crate::snapshot::tests::small_config(64)
        };
        assert!((2..=6).contains(&config.num_hidden_layers));
        let whole = initialize(MaskedLm::new(&config, &device).unwrap(), &config, 3);
        let local = map_named(whole.clone(), &mut WithoutGlobal);
        let ids: Vec<Vec<u32>> = vec![(4..60).collect()];
        let batch = PackedBatch::from_sequences(&ids, &device).unwrap();
        let hidden = |model: &MaskedLm| model.model.forward(&batch).to_data();
        let later = |global: f64, local: f64| ModernBertConfig {
            global_rope_theta: global,
            local_rope_theta: local,
            ..config.clone()
        };
        let change = |model: &MaskedLm, config: &ModernBertConfig| {
            hidden(&with_config(model.clone(), config, &device).unwrap())
        };
        let extended = later(160_000.0, 10_000.0);
        assert_eq!(change(&local, &extended), hidden(&local));
        assert_ne!(change(&whole, &extended), hidden(&whole));
        assert_ne!(change(&local, &later(10_000.0, 20_000.0)), hidden(&local));
    }

    #[test]
    fn weights_stay_and_the_rotary_base_changes() {
        let device = test_support::device();
        let config = ModernBertConfig {
            global_rope_theta: 10_000.0,
            ..crate::snapshot::tests::small_config(64)
        };
        let model = initialize(MaskedLm::new(&config, &device).unwrap(), &config, 3);
        let later = ModernBertConfig {
            global_rope_theta: 160_000.0,
            ..config.clone()
        };
        let ids: Vec<Vec<u32>> = vec![(4..60).collect()];
        let batch = PackedBatch::from_sequences(&ids, &device).unwrap();
        let hidden = |model: &MaskedLm| model.model.forward(&batch).to_data();
        let before = hidden(&model);
        let changed = with_config(model.clone(), &later, &device).unwrap();
        assert_ne!(hidden(&changed), before);
        assert_eq!(changed.model.config().global_rope_theta, 160_000.0);
        assert_eq!(named_parameters(&changed), named_parameters(&model));
        // Back under the first config it is the same model: only the base differed.
        let back = with_config(changed, &config, &device).unwrap();
        assert_eq!(hidden(&back), before);
    }

    /// A base that changes in place has the outputs of a model made with that base: no table of an old base is used again.
    #[test]
    fn a_new_base_has_new_tables_at_once() {
        let device = test_support::device();
        let at = |theta: f64| ModernBertConfig {
            global_rope_theta: theta,
            ..ModernBertConfig {
                vocab_size: 64,
                pad_token_id: None,
                cls_token_id: None,
                sep_token_id: None,
                bos_token_id: None,
                eos_token_id: None,
                ..ModernBertConfig::of_shape(4, 32, 32, 2)
            }
        };
        let start = at(10_000.0);
        let mut model = initialize(MaskedLm::new(&start, &device).unwrap(), &start, 7);
        let ids: Vec<u32> = (0..90).map(|i| i * 7 % 64).collect();
        let batch = PackedBatch::from_sequences(&[ids], &device).unwrap();
        let hidden = |model: &MaskedLm| -> Vec<f32> {
            let states = model.model.forward(&batch);
            states.into_data().try_to_vec().unwrap()
        };
        let mut seen = vec![hidden(&model)];
        for theta in [20_000.0, 30_000.0, 160_000.0, 10_000.0] {
            let made = with_config(model.clone(), &at(theta), &device).unwrap();
            // A clone made before keeps its base and its tables.
            let before = model.clone();
            model = model.with_global_rope_theta(theta);
            assert_eq!(model.model.config(), made.model.config());
            assert_eq!(hidden(&model), hidden(&made), "{theta}");
            assert_eq!(hidden(&before), *seen.last().unwrap());
            seen.push(hidden(&model));
        }
        assert_eq!(seen[0], seen[4]);
        for (i, one) in seen[..4].iter().enumerate() {
            assert!(seen[..i].iter().all(|other| other != one), "base {i}");
        }
    }
}
