//! Norms of gradients, computed on the device.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use modernbert::model::checkpoint_name;
use modernbert::ops::sum::{sum, sum_of_squares};
use std::sync::Arc;

/// The sum of squares of each parameter's gradient, still on the device.
///
/// The root of their total is the gradient norm. A gradient with a non-finite value has a non-finite sum, which identifies the tensor without
/// reading its values.
#[derive(Clone, Debug)]
pub struct GradientSquares {
    /// Names of the parameters, in the order of `sums`.
    pub names: Arc<[String]>,
    /// The sum of each, `[names]`; `None` if there is no gradient.
    pub sums: Option<Tensor<1>>,
}

impl GradientSquares {
    /// The sums over the gradients of `module`.
    pub fn of<M: Module>(module: &M, grads: &GradientsParams) -> Self {
        let mut visit = GradientNorms {
            path: Vec::new(),
            grads,
            names: Vec::new(),
            sums: Vec::new(),
        };
        module.visit(&mut visit);
        Self {
            names: visit.names.into(),
            sums: (!visit.sums.is_empty()).then(|| Tensor::cat(visit.sums, 0)),
        }
    }
}

struct GradientNorms<'a> {
    path: Vec<String>,
    grads: &'a GradientsParams,
    names: Vec<String>,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for GradientNorms<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.grads.get::<D>(param.id) {
            self.names.push(checkpoint_name(&self.path));
            self.sums.push(sum_of_squares(gradient));
        }
    }
}

/// Scales all gradients down so that their joint norm is at most `limit`, without reading anything back.
pub fn clip_by_norm<M: Module>(
    module: &M,
    grads: GradientsParams,
    squares: &GradientSquares,
    limit: f64,
) -> GradientsParams {
    let Some(sums) = &squares.sums else {
        return grads;
    };
    let norm = sum(sums.clone()).sqrt();
    let factor = (norm + 1e-6).recip() * limit;
    let mut visit = Scale {
        factor: factor.clamp_max(1.0),
        grads,
    };
    module.visit(&mut visit);
    visit.grads
}

struct Scale {
    factor: Tensor<1>,
    grads: GradientsParams,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.grads.remove::<D>(param.id) {
            let scaled = gradient * self.factor.clone().reshape([1; D]);
            self.grads.register::<D>(param.id, scaled);
        }
    }
}
