//! The optimizer step on CubeCL devices, for up to [`MAX_PARAMETERS`] parameters at a time: one launch for the means of StableAdamW, one
//! for the updates.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{AdamWStep, GroupParameter, ParameterGroup, Stepped, SteppedGroup, fallback};
use crate::ops::rows::{
    address, block_sum, empty, grid, is_cuda, resident_blocks, uniquely_owned, vector_size,
};

/// Threads of a block; a power of two.
const THREADS: usize = 256;
/// Vectors that a thread loads before it computes with them, so that the loads overlap.
const VECTORS: usize = 2;
/// Blocks per multiprocessor that compute sums.
const SUM_BLOCKS: usize = 4;
/// Parameters of a launch, at most.
const MAX_PARAMETERS: usize = 16;

/// A parameter's vectors and its thread blocks in both launches.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct ParameterSlot {
    /// Vectors of each of its tensors.
    vectors: usize,
    /// Number and first index of its blocks in the launch that sums.
    first_sum: usize,
    sums: usize,
    /// Number and first index of its blocks in the launch that updates.
    first_update: usize,
    updates: usize,
    elements: f32,
    decay: f32,
}

impl ParameterSlot {
    /// The part as a kernel argument.
    fn launch(&self) -> ParameterSlotLaunch {
        ParameterSlotLaunch::new(
            self.vectors,
            self.first_sum,
            self.sums,
            self.first_update,
            self.updates,
            self.elements,
            self.decay,
        )
    }
}

/// Numbers of a step that all parameters of a launch share; `1 - b` is computed in f64 on the host.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Factors {
    lr: f32,
    one_minus_b1: f32,
    b2: f32,
    one_minus_b2: f32,
    epsilon: f32,
    root_scale: f32,
}

impl Factors {
    /// The numbers of a step as a kernel argument.
    fn launch(step: &AdamWStep) -> FactorsLaunch {
        FactorsLaunch::new(
            step.lr as f32,
            (1.0 - step.b1) as f32,
            step.b2 as f32,
            (1.0 - step.b2) as f32,
            step.epsilon as f32,
            step.root_scale as f32,
        )
    }
}

/// One tensor of each parameter.
type Tensors<N> = Sequence<Box<[Vector<f32, N>]>>;

/// `partials[block]`: the block's part of `Σ g² / max(v, ε²)` of its parameter, with `v` after the step. `floor` is `ε²`.
#[cube(launch_unchecked, address_type = "dynamic")]
fn ratio_kernel<N: Size>(
    grads: &Tensors<N>,
    moments_2: &Tensors<N>,
    partials: &mut [f32],
    slots: &Sequence<ParameterSlot>,
    factors: &Factors,
    floor: f32,
) {
    let mut sum = 0.0f32;
    #[unroll]
    for k in 0..slots.len() {
        let slot = slots.index(k);
        if CUBE_POS >= slot.first_sum && CUBE_POS < slot.first_sum + slot.sums {
            let grad = grads.index(k);
            let moment_2 = moments_2.index(k);
            let block = CUBE_POS - slot.first_sum;
            let mut first = block * comptime!(THREADS * VECTORS) + UNIT_POS as usize;
            let mut gs = Array::<Vector<f32, N>>::new(VECTORS);
            let mut vs = Array::<Vector<f32, N>>::new(VECTORS);
            while first < slot.vectors {
                #[unroll]
                for i in 0..VECTORS {
                    let at = first + comptime!(i * THREADS);
                    let at = select(at < slot.vectors, at, first);
                    gs[i] = grad[at];
                    vs[i] = moment_2[at];
                }
                #[unroll]
                for i in 0..VECTORS {
                    if first + comptime!(i * THREADS) < slot.vectors {
                        let square = gs[i] * gs[i];
                        let v = vs[i] * Vector::new(factors.b2)
                            + square * Vector::new(factors.one_minus_b2);
                        #[unroll]
                        for j in 0..N::value() {
                            sum += square.extract(j) / max(v.extract(j), floor);
                        }
                    }
                }
                first += slot.sums * comptime!(THREADS * VECTORS);
            }
        }
    }
    let total = block_sum(sum, THREADS);
    if UNIT_POS == 0 {
        partials[CUBE_POS] = total;
    }
}

/// Returns whether a vector is written: if it is inside the tensor and, when `gated`, the flag `apply` is above 0.
#[cube]
fn is_written(inside: bool, apply: &[f32], #[comptime] gated: bool) -> bool {
    if comptime!(gated) {
        // False for NaN too.
        inside && apply[0] > 0.0f32
    } else {
        inside
    }
}

/// Updates weights and moments in place.
///
/// `apply` is `[1]`, read if `gated`; `partials` are those of [`ratio_kernel`], read if `stable`.
#[cube(launch_unchecked, address_type = "dynamic")]
fn update_kernel<N: Size>(
    grads: &Tensors<N>,
    partials: &[f32],
    apply: &[f32],
    weights: &mut Tensors<N>,
    moments_1: &mut Tensors<N>,
    moments_2: &mut Tensors<N>,
    slots: &Sequence<ParameterSlot>,
    factors: &Factors,
    #[comptime] stable: bool,
    #[comptime] gated: bool,
) {
    #[unroll]
    for k in 0..slots.len() {
        let slot = slots.index(k);
        if CUBE_POS >= slot.first_update && CUBE_POS < slot.first_update + slot.updates {
            let grad = grads.index(k);
            let weight = weights.index_mut(k);
            let moment_1 = moments_1.index_mut(k);
            let moment_2 = moments_2.index_mut(k);
            let block = CUBE_POS - slot.first_update;
            let first = block * comptime!(THREADS * VECTORS) + UNIT_POS as usize;
            let mut gs = Array::<Vector<f32, N>>::new(VECTORS);
            let mut ms = Array::<Vector<f32, N>>::new(VECTORS);
            let mut vs = Array::<Vector<f32, N>>::new(VECTORS);
            let mut ws = Array::<Vector<f32, N>>::new(VECTORS);
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * THREADS);
                let at = select(at < slot.vectors, at, 0usize);
                gs[i] = grad[at];
                ms[i] = moment_1[at];
                vs[i] = moment_2[at];
                ws[i] = weight[at];
            }
            let mut eta = factors.lr + 0.0f32;
            if comptime!(stable) {
                let mut sum = UNIT_POS as usize;
                let mut ratio = 0.0f32;
                while sum < slot.sums {
                    ratio += partials[slot.first_sum + sum];
                    sum += THREADS;
                }
                let rms = (block_sum(ratio, THREADS) / slot.elements).sqrt();
                eta = factors.lr / max(rms, 1.0f32);
            }
            let keep = 1.0f32 - eta * slot.decay;
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * THREADS);
                if is_written(at < slot.vectors, apply, gated) {
                    let g = gs[i];
                    let m = ms[i] + (g - ms[i]) * Vector::new(factors.one_minus_b1);
                    let v =
                        vs[i] * Vector::new(factors.b2) + g * g * Vector::new(factors.one_minus_b2);
                    let root =
                        v.sqrt() * Vector::new(factors.root_scale) + Vector::new(factors.epsilon);
                    weight[at] = ws[i] * Vector::new(keep) - m / root * Vector::new(eta);
                    moment_1[at] = m;
                    moment_2[at] = v;
                }
            }
        }
    }
}

/// A parameter that the kernels support: all tensors f32 and contiguous, those that are updated uniquely owned.
struct EligibleParameter {
    /// Index in the caller's list.
    index: usize,
    parameter: GroupParameter<CubeBackend>,
    /// Elements of a vector.
    vector: usize,
}

impl EligibleParameter {
    /// Vectors of each tensor.
    fn vectors(&self) -> usize {
        self.parameter.weight.shape().num_elements() / self.vector
    }

    /// Returns whether one launch can step both: the vector sizes must agree, and only the decay may differ.
    fn fits_launch_of(&self, other: &Self) -> bool {
        let alike = |step: AdamWStep| AdamWStep { decay: 0.0, ..step };
        self.vector == other.vector && alike(self.parameter.step) == alike(other.parameter.step)
    }
}

/// See [`super::adamw_all`].
pub(crate) fn steps(
    group: ParameterGroup<CubeBackend>,
    apply: CubeTensor,
    gated: bool,
) -> SteppedGroup<CubeBackend> {
    let count = group.0.len();
    let mut stepped: Vec<(usize, Stepped<CubeBackend>)> = Vec::with_capacity(count);
    let mut waiting: Vec<EligibleParameter> = Vec::new();
    for (index, parameter) in group.0.into_iter().enumerate() {
        match ready(index, parameter, &apply) {
            Ok(next) => {
                let most = max_parameters(&next.parameter.weight.client);
                let full = waiting.len() == most
                    || waiting
                        .first()
                        .is_some_and(|first| !first.fits_launch_of(&next));
                if full {
                    stepped.extend(launch(std::mem::take(&mut waiting), &apply, gated));
                }
                waiting.push(next);
            }
            Err(parameter) => {
                let one = ParameterGroup(vec![*parameter]);
                let mut one = fallback::steps::<CubeBackend>(one, gated.then(|| apply.clone()));
                stepped.push((index, one.0.remove(0)));
            }
        }
    }
    stepped.extend(launch(waiting, &apply, gated));
    stepped.sort_by_key(|(index, _)| *index);
    SteppedGroup(stepped.into_iter().map(|(_, stepped)| stepped).collect())
}

/// Returns the parameters of a launch, at most: one through graphics APIs, which guarantee only eight buffers.
fn max_parameters(client: &Client) -> usize {
    if is_cuda(client) { MAX_PARAMETERS } else { 1 }
}

/// Prepares a parameter for the kernels, or returns it if they do not support it.
fn ready(
    index: usize,
    parameter: GroupParameter<CubeBackend>,
    apply: &CubeTensor,
) -> Result<EligibleParameter, Box<GroupParameter<CubeBackend>>> {
    let elements = parameter.weight.shape().num_elements();
    let tensors = [
        &parameter.weight,
        &parameter.grad,
        &parameter.moment_1,
        &parameter.moment_2,
        apply,
    ];
    if elements == 0 || tensors.iter().any(|tensor| tensor.dtype != DType::F32) {
        return Err(Box::new(parameter));
    }
    Ok(EligibleParameter {
        index,
        vector: vector_size(&parameter.weight.client, elements, &[DType::F32]),
        parameter: GroupParameter {
            grad: into_contiguous(parameter.grad),
            // A tensor that is uniquely owned is updated in place, without a copy.
            weight: uniquely_owned(parameter.weight),
            moment_1: uniquely_owned(parameter.moment_1),
            moment_2: uniquely_owned(parameter.moment_2),
            step: parameter.step,
        },
    })
}

/// Both launches of parameters that fit one launch; returns them with their indices.
fn launch(
    group: Vec<EligibleParameter>,
    apply: &CubeTensor,
    gated: bool,
) -> impl Iterator<Item = (usize, Stepped<CubeBackend>)> {
    if let Some(first) = group.first() {
        let step = first.parameter.step;
        let client = first.parameter.weight.client.clone();
        let vector = first.vector;
        let (mut sums, mut updates) = (0, 0);
        let slots: Vec<ParameterSlot> = group
            .iter()
            .map(|ready| {
                let blocks = ready.vectors().div_ceil(THREADS * VECTORS);
                let slot = ParameterSlot {
                    vectors: ready.vectors(),
                    first_sum: sums,
                    sums: blocks.min(resident_blocks(&client, SUM_BLOCKS)),
                    first_update: updates,
                    updates: blocks,
                    elements: (ready.vectors() * vector) as f32,
                    decay: ready.parameter.step.decay as f32,
                };
                sums += slot.sums;
                updates += slot.updates;
                slot
            })
            .collect();
        let partials = empty(&first.parameter.weight, [sums], DType::F32);
        let all: Vec<&CubeTensor> = group.iter().map(|ready| &ready.parameter.weight).collect();
        let address = address(&all);
        let each = |which: fn(&GroupParameter<CubeBackend>) -> &CubeTensor| {
            let parameters = group.iter().map(|ready| &ready.parameter);
            parameters.map(move |parameter| which(parameter).clone().into_buffer_arg())
        };
        let slots = || slots.iter().map(ParameterSlot::launch);
        // SAFETY: instead of vectors beyond a tensor's last, a thread reads others of it and writes nothing; each thread writes only
        // what it has read; excess blocks do nothing.
        unsafe {
            if step.stable {
                ratio_kernel::launch_unchecked(
                    &client,
                    CubeCount::Static(sums as u32, 1, 1),
                    CubeDim::new_1d(THREADS as u32),
                    address,
                    vector,
                    each(|parameter| &parameter.grad).collect(),
                    each(|parameter| &parameter.moment_2).collect(),
                    partials.clone().into_buffer_arg(),
                    slots().collect(),
                    Factors::launch(&step),
                    (step.epsilon * step.epsilon) as f32,
                );
            }
            update_kernel::launch_unchecked(
                &client,
                grid(&client, updates),
                CubeDim::new_1d(THREADS as u32),
                address,
                vector,
                each(|parameter| &parameter.grad).collect(),
                partials.into_buffer_arg(),
                apply.clone().into_buffer_arg(),
                each(|parameter| &parameter.weight).collect(),
                each(|parameter| &parameter.moment_1).collect(),
                each(|parameter| &parameter.moment_2).collect(),
                slots().collect(),
                Factors::launch(&step),
                step.stable,
                gated,
            );
        }
    }
    group.into_iter().map(|ready| {
        let GroupParameter {
            weight,
            moment_1,
            moment_2,
            ..
        } = ready.parameter;
        let stepped = Stepped {
            weight,
            moment_1,
            moment_2,
        };
        (ready.index, stepped)
    })
}
