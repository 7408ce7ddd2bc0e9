//! An optimizer over all parameters of a module, with its state under the names of checkpoint files.
//!
//! Burn's own `ModuleOptimizer` keys its state by parameter ids, which differ in every process. With names a checkpoint
//! can be read by other programs, compared tensor by tensor, and loaded into a newly built model.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{GradientCheckpointingStrategy, Tensor, TensorData};
use modernbert::model::checkpoint_name;
use modernbert::ops::optimizer::{Parameter, SteppedParameter, adamw_all};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};

use super::average::{AverageSettings, WeightAverages};
use super::rule::{MomentsState, UpdateRule, is_half};

/// Reason why moments could not be read or restored.
#[derive(Debug, thiserror::Error)]
pub enum MomentsError {
    /// A parameter has no moments in the file.
    #[error("optimizer state: {name} is missing")]
    Missing {
        /// Name of the tensor.
        name: String,
    },
    /// Moments of another shape than their parameter.
    #[error("optimizer state: {name} has shape {found:?}, the model's parameter has {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The parameter's shape.
        expected: Vec<usize>,
    },
    /// The device could not be read.
    #[error("optimizer state: {name} can't be read from the device: {reason}")]
    Device {
        /// Name of the tensor.
        name: String,
        /// Message of the device.
        reason: String,
    },
}

/// A tensor on the host: name, shape and values in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// An update rule and the moments of every parameter that it has updated.
pub struct NamedOptimizer {
    rule: UpdateRule,
    /// `MomentsState<D>` of each parameter, where D is the parameter's rank: only a visitor of the module can name the type.
    states: BTreeMap<String, Box<dyn Any + Send>>,
    updates: u64,
    averages: WeightAverages,
}

impl NamedOptimizer {
    /// An optimizer without moments.
    pub fn new(rule: impl Into<UpdateRule>) -> Self {
        Self {
            rule: rule.into(),
            states: BTreeMap::new(),
            updates: 0,
            averages: WeightAverages::default(),
        }
    }

    /// The same moments under another rule: a phase transition.
    #[must_use]
    pub fn with_rule(self, rule: impl Into<UpdateRule>) -> Self {
        Self {
            rule: rule.into(),
            ..self
        }
    }

    /// The same optimizer with an exponential moving average of the weights, which starts at the weights before the next step unless one
    /// was restored or followed before; without one where `settings` is `None`.
    #[must_use]
    pub fn with_average(mut self, settings: Option<AverageSettings>) -> Self {
        self.averages = self.averages.with(settings);
        self
    }

    /// The module for evaluations and exports: with the averages as its parameters, or unchanged where averages are off or not
    /// to be evaluated.
    #[must_use]
    pub fn evaluated<M: Module>(&self, module: M) -> M {
        match self.averages.settings {
            Some(settings) if settings.evaluate => self.averages.applied(module),
            _ => module,
        }
    }

    /// Number of updates since the moments were zero.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Updates every parameter of `module` that has a gradient, at this learning rate. Nothing is read back from the device.
    pub fn step<M: Module>(&mut self, lr: f64, module: M, grads: GradientsParams) -> M {
        self.step_if(None, lr, module, grads)
    }

    /// As [`Self::step`], where weights and moments stay bit-identical unless the flag `apply`, `[1]` on the module's device, is
    /// above 0. [`Self::updates`] counts the step in either case, because the host does not know the flag.
    pub fn step_if<M: Module>(
        &mut self,
        apply: Option<Tensor<1>>,
        lr: f64,
        module: M,
        grads: GradientsParams,
    ) -> M {
        self.updates += 1;
        self.averages.begin(&module);
        let mut before = Before {
            path: Vec::new(),
            lr,
            grads,
            rule: self.rule,
            apply: apply.clone(),
            states: &mut self.states,
            parameters: Vec::new(),
            waiting: VecDeque::new(),
            placeholders: BTreeMap::new(),
        };
        let module = module.map(&mut before);
        let (parameters, waiting) = (before.parameters, before.waiting);
        let stepped = adamw_all(parameters, apply);
        let module = module.map(&mut After {
            stepped: waiting.into_iter().zip(stepped).collect(),
            states: &mut self.states,
        });
        self.averages.after_step(&module, self.updates);
        module
    }

    /// The moments of all parameters of `module`, read back: `NAME.moment_1` and `NAME.moment_2` each, `NAME.compensation` of weights in
    /// half precision, and `NAME.average` where weights are averaged.
    ///
    /// # Errors
    /// A device that can't be read.
    pub fn moments<M: Module>(&self, module: &M) -> Result<Vec<StoredTensor>, MomentsError> {
        let mut export = Export {
            path: Vec::new(),
            states: &self.states,
            averages: &self.averages,
            found: Ok(Vec::new()),
        };
        module.visit(&mut export);
        export.found
    }

    /// Restores moments by the names that [`Self::moments`] gives them; `read` finds a tensor, `updates` is the number of updates that made
    /// them.
    ///
    /// # Errors
    /// A missing tensor, or one of another shape than its parameter. Averages may be missing, all of them or some.
    pub fn restore<M: Module>(
        &mut self,
        module: &M,
        updates: u64,
        read: impl Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>,
    ) -> Result<(), MomentsError> {
        self.updates = updates;
        self.states.clear();
        self.averages.clear();
        if updates == 0 {
            return Ok(());
        }
        let mut import = Import {
            path: Vec::new(),
            updates,
            read,
            states: &mut self.states,
            averages: &mut self.averages,
            result: Ok(()),
        };
        module.visit(&mut import);
        import.result
    }
}

/// A parameter taken out of the module, with the information to put it back.
struct Waiting {
    id: ParamId,
    name: String,
    /// Updates of the parameter, this one included.
    time: usize,
    trainable: bool,
    tracked: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
}

/// Takes every parameter that has a gradient out of the module, so that the optimizer holds the only reference and can update in place.
struct Before<'a> {
    path: Vec<String>,
    lr: f64,
    grads: GradientsParams,
    rule: UpdateRule,
    apply: Option<Tensor<1>>,
    states: &'a mut BTreeMap<String, Box<dyn Any + Send>>,
    parameters: Vec<Parameter>,
    waiting: VecDeque<Waiting>,
    /// Placeholder tensors in the module while its parameters are updated, one for each rank.
    placeholders: BTreeMap<usize, Box<dyn Any>>,
}

impl ModuleMapper for Before<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, mapper) = param.consume();
        let Some(gradient) = self.grads.remove::<D>(id) else {
            return Param::from_mapped_value(id, value, mapper);
        };
        let name = checkpoint_name(&self.path);
        let device = value.device();
        let state = self.states.remove(&name);
        let state = state.and_then(|state| state.downcast::<MomentsState<D>>().ok());
        let (trainable, tracked) = (value.is_require_grad(), device.is_autodiff());
        let empty = || Tensor::<D>::empty([1; D], &device.clone().inner());
        let checkpointing = value.gradient_checkpointing_strategy();
        if is_half(value.dtype()) {
            let (state, apply) = (state.map(|state| *state), self.apply.clone());
            let inner = value.inner();
            let (value, state) = self.rule.step_half(self.lr, inner, gradient, state, apply);
            self.states.insert(name, Box::new(state));
            let value = returned(value, trainable, tracked, checkpointing);
            return Param::from_mapped_value(id, value, mapper);
        }
        let (parameter, time) =
            self.rule
                .prepare(self.lr, value.inner(), gradient, state.map(|state| *state));
        self.parameters.push(parameter);
        self.waiting.push_back(Waiting {
            id,
            name,
            time,
            trainable,
            tracked,
            checkpointing,
        });
        let placeholder = self
            .placeholders
            .entry(D)
            .or_insert_with(|| Box::new(empty()));
        let placeholder = placeholder.downcast_ref().cloned();
        let placeholder = placeholder.unwrap_or_else(empty);
        Param::from_mapped_value(id, placeholder, mapper)
    }
}

/// Puts the updated parameters back, in the same order.
struct After<'a> {
    stepped: VecDeque<(Waiting, SteppedParameter)>,
    states: &'a mut BTreeMap<String, Box<dyn Any + Send>>,
}

impl ModuleMapper for After<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self
            .stepped
            .front()
            .is_none_or(|(next, _)| next.id != param.id)
        {
            return param;
        }
        let (id, value, mapper) = param.consume();
        let Some((waiting, stepped)) = self.stepped.pop_front() else {
            return Param::from_mapped_value(id, value, mapper);
        };
        let (value, state) = MomentsState::<D>::after(stepped, waiting.time);
        self.states.insert(waiting.name, Box::new(state));
        let Waiting {
            trainable,
            tracked,
            checkpointing,
            ..
        } = waiting;
        let value = returned(value, trainable, tracked, checkpointing);
        Param::from_mapped_value(id, value, mapper)
    }
}

/// An updated tensor as the module had it before.
fn returned<const D: usize>(
    value: Tensor<D>,
    trainable: bool,
    tracked: bool,
    checkpointing: Option<GradientCheckpointingStrategy>,
) -> Tensor<D> {
    match (tracked, checkpointing) {
        (false, _) => value,
        (true, None) => Tensor::from_inner(value).set_require_grad(trainable),
        (true, Some(strategy)) => Tensor::from_inner(value)
            .with_gradient_checkpointing_strategy(strategy)
            .set_require_grad(trainable),
    }
}

struct Export<'a> {
    path: Vec<String>,
    states: &'a BTreeMap<String, Box<dyn Any + Send>>,
    averages: &'a WeightAverages,
    found: Result<Vec<StoredTensor>, MomentsError>,
}

impl Export<'_> {
    fn push<const D: usize>(&mut self, name: String, tensor: &Tensor<D>) {
        let Ok(found) = &mut self.found else { return };
        match tensor.to_data().convert::<f32>().try_to_vec::<f32>() {
            Ok(values) => found.push(StoredTensor {
                name,
                shape: tensor.dims().to_vec(),
                values,
            }),
            Err(error) => {
                self.found = Err(MomentsError::Device {
                    name,
                    reason: format!("{error:?}"),
                });
            }
        }
    }
}

impl ModuleVisitor for Export<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        let name = checkpoint_name(&self.path);
        let state = self.states.get(&name);
        let state = state.and_then(|state| state.downcast_ref::<MomentsState<D>>());
        let moments = state.map(|state| {
            [
                ("moment_1", Some(&state.moment_1)),
                ("moment_2", Some(&state.moment_2)),
                ("compensation", state.compensation.as_ref()),
            ]
        });
        let average = ("average", self.averages.get::<D>(&name));
        for (which, tensor) in moments.into_iter().flatten().chain([average]) {
            if let Some(tensor) = tensor {
                self.push(format!("{name}.{which}"), tensor);
            }
        }
    }
}

struct Import<'a, R> {
    path: Vec<String>,
    updates: u64,
    read: R,
    states: &'a mut BTreeMap<String, Box<dyn Any + Send>>,
    averages: &'a mut WeightAverages,
    result: Result<(), MomentsError>,
}

impl<R: Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>> Import<'_, R> {
    fn tensor<const D: usize>(
        &self,
        name: String,
        like: &Tensor<D>,
    ) -> Result<Tensor<D>, MomentsError> {
        let Some((found, values)) = (self.read)(&name) else {
            return Err(MomentsError::Missing { name });
        };
        let expected = like.dims().to_vec();
        if found != expected {
            return Err(MomentsError::Shape {
                name,
                found,
                expected,
            });
        }
        let device = like.device().inner();
        Ok(Tensor::from_data(TensorData::new(values, found), &device))
    }
}

impl<R: Fn(&str) -> Option<(Vec<usize>, Vec<f32>)>> ModuleVisitor for Import<'_, R> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_err() {
            return;
        }
        let (name, value) = (checkpoint_name(&self.path), param.val());
        let average = format!("{name}.average");
        if (self.read)(&average).is_some() {
            match self.tensor(average, &value) {
                Ok(average) => self.averages.insert(name.clone(), average),
                Err(error) => {
                    self.result = Err(error);
                    return;
                }
            }
        }
        let all = self
            .tensor(format!("{name}.moment_1"), &value)
            .and_then(|moment_1| {
                let moment_2 = self.tensor(format!("{name}.moment_2"), &value)?;
                if !is_half(value.dtype()) {
                    return Ok((moment_1, moment_2, None));
                }
                let kept = self.tensor(format!("{name}.compensation"), &value)?;
                Ok((moment_1, moment_2, Some(kept.cast(value.dtype()))))
            });
        match all {
            Ok((moment_1, moment_2, compensation)) => {
                let state = MomentsState {
                    time: usize::try_from(self.updates).unwrap_or(usize::MAX),
                    moment_1,
                    moment_2,
                    compensation,
                };
                self.states.insert(name, Box::new(state));
            }
            Err(error) => self.result = Err(error),
        }
    }
}
