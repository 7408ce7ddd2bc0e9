//! The gradients of a step, summed in the order of the [`tree`]: within a process and over ranks.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, Tensor, TensorData};
use ranks::{Ranks, tree};
use std::ops::Range;

use super::error::EngineError;
use super::task::{Sums, Task};

/// Sums of each micro-batch, and the gradients of the parts of the tree that the micro-batches `own` of a step's `leaves` make up.
pub(super) fn accumulate<T: Task + ?Sized>(
    task: &T,
    model: &T::Model,
    batches: Vec<T::Batch>,
    leaves: usize,
    own: &Range<usize>,
) -> (Vec<Sums>, Vec<GradientsParams>) {
    let mut parts = tree::Accumulator::new(leaves, own);
    let mut sums = Vec::with_capacity(batches.len());
    for batch in batches {
        let (sum, gradients) = task.gradients(model, batch);
        parts.push(gradients, |left, right| add(model, left, right));
        sums.push(sum);
    }
    (sums, parts.finish())
}

/// The sum of two sets of gradients.
fn add<M: Module>(model: &M, left: GradientsParams, right: GradientsParams) -> GradientsParams {
    let mut sum = GradientsAccumulator::new();
    sum.accumulate(model, left);
    sum.accumulate(model, right);
    sum.grads()
}

/// Sums of all micro-batches of the step and its gradients, the same on every rank, from those of this rank's share.
///
/// What is summed is a vector of numbers: all gradients; for each parameter, the number of micro-batches that have a gradient of it; loss and
/// number of correct predictions of each micro-batch, of which all but one rank hold zeros.
pub(super) fn reduce<M: Module>(
    ranks: &Ranks,
    model: &M,
    leaves: usize,
    sums: Vec<Sums>,
    parts: Vec<GradientsParams>,
) -> Result<(Vec<Sums>, GradientsParams), EngineError> {
    let own = tree::share(leaves, ranks.rank(), ranks.size());
    let ranges = tree::parts(leaves, &own);
    let counted = sums.first().is_none_or(|sum| sum.correct.is_some());
    let read = |sum: Tensor<1>| {
        let read = sum.try_into_scalar::<f32>();
        read.map_err(|error| EngineError::Device(error.to_string()))
    };
    let mut losses = Vec::with_capacity(sums.len());
    for sum in sums {
        let correct = sum.correct.map_or(Ok(0.0), read)?;
        losses.push((read(sum.loss)?, correct));
    }
    let mut vectors = Vec::with_capacity(parts.len());
    for (part, range) in parts.iter().zip(&ranges) {
        let mut flat = Flatten::of(model, part)?;
        let numbers = &mut flat.numbers;
        numbers.append(&mut flat.present);
        let mut tail = vec![0.0; 2 * leaves];
        for leaf in range.clone() {
            (tail[2 * leaf], tail[2 * leaf + 1]) = losses[leaf - own.start];
        }
        numbers.append(&mut tail);
        vectors.push(std::mem::take(numbers));
    }
    drop(parts);
    let (numbers, parameters) = Size::of(model);
    let sum = ranks.sum(leaves, vectors, numbers + parameters + 2 * leaves)?;
    let (gradients, rest) = sum.split_at(numbers);
    let (present, losses) = rest.split_at(parameters);
    let device = model
        .devices()
        .into_iter()
        .next()
        .unwrap_or_default()
        .inner();
    let scalar = |x: f32| Tensor::<1>::from_floats([x], &device);
    let sums = losses.chunks_exact(2).map(|both| Sums {
        loss: scalar(both[0]),
        correct: counted.then(|| scalar(both[1])),
    });
    Ok((sums.collect(), Unflatten::of(model, gradients, present)))
}

/// Gradients as numbers, in the order in which the module visits its parameters.
struct Flatten<'a> {
    gradients: &'a GradientsParams,
    numbers: Vec<f32>,
    present: Vec<f32>,
    error: Option<EngineError>,
}

impl<'a> Flatten<'a> {
    fn of<M: Module>(model: &M, gradients: &'a GradientsParams) -> Result<Self, EngineError> {
        let mut visit = Self {
            gradients,
            numbers: Vec::new(),
            present: Vec::new(),
            error: None,
        };
        model.visit(&mut visit);
        match visit.error.take() {
            Some(error) => Err(error),
            None => Ok(visit),
        }
    }
}

impl ModuleVisitor for Flatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            let count = param.val().shape().num_elements();
            self.numbers.extend(std::iter::repeat_n(0.0, count));
            self.present.push(0.0);
            return;
        };
        if gradient.dtype() != DType::F32 {
            let dtype = gradient.dtype();
            self.error = Some(EngineError::Device(format!(
                "gradients in {dtype:?} cannot be summed over ranks; keep the weights in f32"
            )));
            return;
        }
        match gradient.try_into_vec_as::<f32>() {
            Ok(mut numbers) => self.numbers.append(&mut numbers),
            Err(error) => self.error = Some(EngineError::Device(error.to_string())),
        }
        self.present.push(1.0);
    }
}

/// Numbers and parameters of a module.
#[derive(Default)]
struct Size {
    numbers: usize,
    parameters: usize,
}

impl Size {
    fn of<M: Module>(model: &M) -> (usize, usize) {
        let mut size = Self::default();
        model.visit(&mut size);
        (size.numbers, size.parameters)
    }
}

impl ModuleVisitor for Size {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.numbers += param.val().shape().num_elements();
        self.parameters += 1;
    }
}

/// The inverse of [`Flatten`].
struct Unflatten<'a> {
    numbers: &'a [f32],
    present: &'a [f32],
    gradients: GradientsParams,
}

impl<'a> Unflatten<'a> {
    fn of<M: Module>(model: &M, numbers: &'a [f32], present: &'a [f32]) -> GradientsParams {
        let mut visit = Self {
            numbers,
            present,
            gradients: GradientsParams::new(),
        };
        model.visit(&mut visit);
        visit.gradients
    }
}

impl ModuleVisitor for Unflatten<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let (mine, rest) = self.numbers.split_at(value.shape().num_elements());
        self.numbers = rest;
        let (present, others) = self.present.split_at(1);
        self.present = others;
        if present[0] > 0.0 {
            let data = TensorData::new(mine.to_vec(), value.shape());
            let gradient = Tensor::<D>::from_data(data, &value.device().inner());
            self.gradients.register::<D>(param.id, gradient);
        }
    }
}
