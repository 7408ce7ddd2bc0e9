//! The check before every checkpoint: no parameter is NaN or infinite.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use modernbert::model::checkpoint_name;
use modernbert::ops::sum::sum_of_squares;

use super::error::EngineError;

/// Name of the first parameter of `module` whose sum of squares is not finite: a value is NaN, infinite or beyond 1.8e19. One readback.
///
/// The losses of a step depend on the weights before its update, so only this check detects a last update that diverges.
///
/// # Errors
/// A device that can't be read.
pub(super) fn non_finite_parameter<M: Module>(module: &M) -> Result<Option<String>, EngineError> {
    let mut visit = WeightNorms::default();
    module.visit(&mut visit);
    if visit.sums.is_empty() {
        return Ok(None);
    }
    let sums = Tensor::cat(visit.sums, 0)
        .try_into_vec_as::<f32>()
        .map_err(|error| EngineError::Device(error.to_string()))?;
    let found = sums.iter().position(|sum| !sum.is_finite());
    Ok(found.map(|i| visit.names[i].clone()))
}

#[derive(Default)]
struct WeightNorms {
    path: Vec<String>,
    names: Vec<String>,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for WeightNorms {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.names.push(checkpoint_name(&self.path));
        self.sums.push(sum_of_squares(param.val().inner()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use modernbert::model::{MaskedLm, NamedMapper, initialize, map_named};

    struct Put(f32);

    impl NamedMapper for Put {
        fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
            if name != "head.dense.weight" {
                return value;
            }
            let data = value.to_data();
            let mut values: Vec<f32> = data.try_to_vec().unwrap();
            values[3] = self.0;
            let data = burn::tensor::TensorData::new(values, value.dims());
            Tensor::from_data(data, &value.device())
        }
    }

    #[test]
    fn a_parameter_that_is_not_finite_is_named() {
        let config = crate::snapshot::tests::small_config(64);
        for device in [test_support::device(), test_support::device().autodiff()] {
            let model = initialize(MaskedLm::new(&config, &device).unwrap(), &config, 5);
            assert_eq!(non_finite_parameter(&model).unwrap(), None);
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let model = map_named(model.clone(), &mut Put(value));
                assert_eq!(
                    non_finite_parameter(&model).unwrap().as_deref(),
                    Some("head.dense.weight"),
                    "{value}"
                );
            }
        }
    }
}
