//! The gradients of a step, summed in the order of the [`tree`]: within a process and over ranks.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{DType, Device, Tensor};
use ranks::{Ranks, tree};
use std::ops::Range;

use super::error::EngineError;
use super::task::{LossSums, Task};
use super::transport::GradientSum;

/// Sums of each micro-batch, and the gradients of the subtrees that the micro-batches `own` of a step's `leaves` make up.
pub(super) fn accumulate<T: Task + ?Sized>(
    task: &T,
    model: &T::Model,
    batches: Vec<T::Batch>,
    leaves: usize,
    own: &Range<usize>,
) -> (Vec<LossSums>, Vec<GradientsParams>) {
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
/// The gradient of each parameter is a piece of one vector of f32 on the device. Losses and numbers of correct predictions are sent as messages, in
/// the order of the micro-batches, with a number per parameter: of how many parts of this rank it has a gradient. They are read after the
/// gradients, so that the device never waits for the host before it has sent them.
pub(super) fn reduce<M: Module>(
    (ranks, gradients): (&Ranks, &GradientSum),
    model: &M,
    leaves: usize,
    sums: Vec<LossSums>,
    parts: Vec<GradientsParams>,
) -> Result<(Vec<LossSums>, GradientsParams), EngineError> {
    let device = model
        .devices()
        .into_iter()
        .next()
        .unwrap_or_default()
        .inner();
    let mut vectors = Vec::with_capacity(parts.len());
    let lengths = Lengths::of(model);
    let mut present = vec![0.0; lengths.len()];
    for part in parts {
        let visit = Flatten::of(model, &part, &device)?;
        (present.iter_mut().zip(&visit.present)).for_each(|(sum, one)| *sum += one);
        vectors.push(visit.gradients);
    }
    let sum = gradients.sum(ranks, leaves, vectors, (&lengths, &device))?;
    let (sums, present) = share_sums(ranks, leaves, sums, present, &device)?;
    Ok((sums, unflatten(model, sum, &present)))
}

/// Sums of all micro-batches, and for each parameter of how many subtrees it has a gradient.
fn share_sums(
    ranks: &Ranks,
    leaves: usize,
    sums: Vec<LossSums>,
    present: Vec<f32>,
    device: &Device,
) -> Result<(Vec<LossSums>, Vec<f32>), EngineError> {
    let read = |sum: Tensor<1>| {
        let read = sum.try_into_scalar::<f32>();
        read.map_err(|error| EngineError::Device(error.to_string()))
    };
    // A rank without a micro-batch does not know whether predictions are counted: NaN says that they are not.
    let mut message = Vec::with_capacity(2 * sums.len() + present.len());
    for sum in sums {
        let correct = sum.correct.map_or(Ok(f32::NAN), read)?;
        message.extend([read(sum.loss)?, correct]);
    }
    let parameters = present.len();
    message.extend(present);
    let counts: Vec<usize> = (0..ranks.size())
        .map(|rank| 2 * tree::range_of_rank(leaves, rank, ranks.size()).len() + parameters)
        .collect();
    let all = ranks.gather_numbers(&message, &counts)?;
    let mut rest = all.as_slice();
    let mut shared = Vec::with_capacity(leaves);
    let mut present = vec![0.0; parameters];
    let scalar = |x: f32| Tensor::<1>::from_floats([x], device);
    for count in counts {
        let (own, others) = rest.split_at(count);
        rest = others;
        let (losses, counted) = own.split_at(count - parameters);
        shared.extend(losses.chunks_exact(2).map(|both| LossSums {
            loss: scalar(both[0]),
            correct: (!both[1].is_nan()).then(|| scalar(both[1])),
        }));
        (present.iter_mut().zip(counted)).for_each(|(sum, one)| *sum += one);
    }
    Ok((shared, present))
}

/// Gradients as vectors, in the order in which the module visits its parameters.
struct Flatten<'a> {
    of: &'a GradientsParams,
    device: &'a Device,
    gradients: Vec<Tensor<1>>,
    /// For each parameter, 1 if it has a gradient.
    present: Vec<f32>,
    error: Option<EngineError>,
}

impl<'a> Flatten<'a> {
    fn of<M: Module>(
        model: &M,
        gradients: &'a GradientsParams,
        device: &'a Device,
    ) -> Result<Self, EngineError> {
        let mut visit = Self {
            of: gradients,
            device,
            gradients: Vec::new(),
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
        let count = param.val().shape().num_elements();
        let Some(gradient) = self.of.get::<D>(param.id) else {
            let zeros = Tensor::zeros([count], (self.device, DType::F32));
            self.gradients.push(zeros);
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
        self.gradients.push(gradient.reshape([count]));
        self.present.push(1.0);
    }
}

/// Number of elements of each parameter of a module.
#[derive(Default)]
struct Lengths(Vec<usize>);

impl Lengths {
    fn of<M: Module>(model: &M) -> Vec<usize> {
        let mut lengths = Self::default();
        model.visit(&mut lengths);
        lengths.0
    }
}

impl ModuleVisitor for Lengths {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().shape().num_elements());
    }
}

/// The inverse of [`Flatten`].
struct Unflatten<I> {
    /// Gradient of each parameter, and of how many parts it has one.
    pieces: I,
    gradients: GradientsParams,
}

/// Gradients of a module from pieces.
fn unflatten<M: Module>(model: &M, pieces: Vec<Tensor<1>>, present: &[f32]) -> GradientsParams {
    let mut visit = Unflatten {
        pieces: pieces.into_iter().zip(present.iter().copied()),
        gradients: GradientsParams::new(),
    };
    model.visit(&mut visit);
    visit.gradients
}

impl<I: Iterator<Item = (Tensor<1>, f32)>> ModuleVisitor for Unflatten<I> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some((piece, present)) = self.pieces.next()
            && present > 0.0
        {
            let gradient = piece.reshape::<D, _>(param.val().shape());
            self.gradients.register::<D>(param.id, gradient);
        }
    }
}
