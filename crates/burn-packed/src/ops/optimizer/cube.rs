//! The step on CubeCL devices: a launch for the means of up to [`MOST`] parameters where they are asked for, a launch for their updates.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{AdamWStep, Group, Member, Stepped, SteppedGroup, fallback};
use crate::ops::rows::{address, empty, grid, own, resident, sum_of_cube};

/// Units of a cube; a power of two.
const UNITS: usize = 256;
/// Vectors that a unit reads before it computes with them.
const VECTORS: usize = 2;
/// Cubes per multiprocessor that sum at the same time.
const SUMMING: usize = 4;
/// Most parameters of a launch.
const MOST: usize = 16;
/// A parameter's part of both launches.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Part {
    /// Vectors of each of its tensors.
    total: usize,
    /// Cubes that sum, after those of the parameters before it.
    first_sum: usize,
    sums: usize,
    /// Cubes that update, likewise.
    first_update: usize,
    updates: usize,
    elements: f32,
    decay: f32,
}

/// A tensor of each parameter.
type Tensors<N> = Sequence<Box<[Vector<f32, N>]>>;

/// Each cube's part of `sum(g² / max(v, ε²))`, v after the step.
#[cube(launch_unchecked, address_type = "dynamic")]
fn ratio_kernel<N: Size>(
    grads: &Tensors<N>,
    moments_2: &Tensors<N>,
    partials: &mut [f32],
    parts: &Sequence<Part>,
    b2: f32,
    not_b2: f32,
    floor: f32,
) {
    let mut sum = 0.0f32;
    #[unroll]
    for k in 0..parts.len() {
        let part = parts.index(k);
        if CUBE_POS >= part.first_sum && CUBE_POS < part.first_sum + part.sums {
            let grad = grads.index(k);
            let moment_2 = moments_2.index(k);
            let cube = CUBE_POS - part.first_sum;
            let mut first = cube * comptime!(UNITS * VECTORS) + UNIT_POS as usize;
            let mut gs = Array::<Vector<f32, N>>::new(VECTORS);
            let mut vs = Array::<Vector<f32, N>>::new(VECTORS);
            while first < part.total {
                #[unroll]
                for i in 0..VECTORS {
                    let at = first + comptime!(i * UNITS);
                    let at = select(at < part.total, at, first);
                    gs[i] = grad[at];
                    vs[i] = moment_2[at];
                }
                #[unroll]
                for i in 0..VECTORS {
                    if first + comptime!(i * UNITS) < part.total {
                        let square = gs[i] * gs[i];
                        let v = vs[i] * Vector::new(b2) + square * Vector::new(not_b2);
                        #[unroll]
                        for j in 0..N::value() {
                            sum += square.extract(j) / max(v.extract(j), floor);
                        }
                    }
                }
                first += part.sums * comptime!(UNITS * VECTORS);
            }
        }
    }
    let total_of_cube = sum_of_cube(sum, UNITS);
    if UNIT_POS == 0 {
        partials[CUBE_POS] = total_of_cube;
    }
}

/// Whether a place within the tensor is to be written: without a gate it is, with one if its number says so.
#[cube]
fn writes(inside: bool, go: &[f32], #[comptime] gated: bool) -> bool {
    if comptime!(gated) {
        inside && go[0] > 0.0f32
    } else {
        inside
    }
}

/// Weights and moments after the step.
#[cube(launch_unchecked, address_type = "dynamic")]
fn update_kernel<N: Size>(
    grads: &Tensors<N>,
    partials: &[f32],
    go: &[f32],
    weights: &mut Tensors<N>,
    moments_1: &mut Tensors<N>,
    moments_2: &mut Tensors<N>,
    parts: &Sequence<Part>,
    lr: f32,
    not_b1: f32,
    b2: f32,
    not_b2: f32,
    epsilon: f32,
    root_scale: f32,
    #[comptime] stable: bool,
    #[comptime] gated: bool,
) {
    #[unroll]
    for k in 0..parts.len() {
        let part = parts.index(k);
        if CUBE_POS >= part.first_update && CUBE_POS < part.first_update + part.updates {
            let grad = grads.index(k);
            let weight = weights.index_mut(k);
            let moment_1 = moments_1.index_mut(k);
            let moment_2 = moments_2.index_mut(k);
            let cube = CUBE_POS - part.first_update;
            let first = cube * comptime!(UNITS * VECTORS) + UNIT_POS as usize;
            let mut gs = Array::<Vector<f32, N>>::new(VECTORS);
            let mut ms = Array::<Vector<f32, N>>::new(VECTORS);
            let mut vs = Array::<Vector<f32, N>>::new(VECTORS);
            let mut ws = Array::<Vector<f32, N>>::new(VECTORS);
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * UNITS);
                let at = select(at < part.total, at, 0usize);
                gs[i] = grad[at];
                ms[i] = moment_1[at];
                vs[i] = moment_2[at];
                ws[i] = weight[at];
            }
            let mut eta = lr + 0.0f32;
            if comptime!(stable) {
                let mut sum = UNIT_POS as usize;
                let mut ratio = 0.0f32;
                while sum < part.sums {
                    ratio += partials[part.first_sum + sum];
                    sum += UNITS;
                }
                let rms = (sum_of_cube(ratio, UNITS) / part.elements).sqrt();
                eta = lr / max(rms, 1.0f32);
            }
            let keep = 1.0f32 - eta * part.decay;
            #[unroll]
            for i in 0..VECTORS {
                let at = first + comptime!(i * UNITS);
                if writes(at < part.total, go, gated) {
                    let g = gs[i];
                    let m = ms[i] + (g - ms[i]) * Vector::new(not_b1);
                    let v = vs[i] * Vector::new(b2) + g * g * Vector::new(not_b2);
                    let root = v.sqrt() * Vector::new(root_scale) + Vector::new(epsilon);
                    weight[at] = ws[i] * Vector::new(keep) - m / root * Vector::new(eta);
                    moment_1[at] = m;
                    moment_2[at] = v;
                }
            }
        }
    }
}

/// A parameter that the kernels serve: all tensors in f32, in one piece, and what is updated held by nobody else.
struct Ready {
    place: usize,
    member: Member<CubeBackend>,
    /// Elements read at once.
    vector: usize,
}

impl Ready {
    /// Vectors of each tensor.
    fn total(&self) -> usize {
        self.member.weight.shape().num_elements() / self.vector
    }

    /// Whether one launch serves both: the kernels read vectors of one size, and only decay may differ.
    fn goes_with(&self, other: &Self) -> bool {
        let alike = |step: AdamWStep| AdamWStep { decay: 0.0, ..step };
        self.vector == other.vector && alike(self.member.step) == alike(other.member.step)
    }
}

/// See [`super::adamw_all`].
pub(crate) fn steps(
    group: Group<CubeBackend>,
    go: CubeTensor,
    gated: bool,
) -> SteppedGroup<CubeBackend> {
    let count = group.0.len();
    let mut stepped: Vec<(usize, Stepped<CubeBackend>)> = Vec::with_capacity(count);
    let mut waiting: Vec<Ready> = Vec::new();
    for (place, member) in group.0.into_iter().enumerate() {
        match ready(place, member, &go) {
            Ok(next) => {
                let most = most_of_a_launch(&next.member.weight.client);
                let full = waiting.len() == most
                    || waiting.first().is_some_and(|first| !first.goes_with(&next));
                if full {
                    stepped.extend(launch(std::mem::take(&mut waiting), &go, gated));
                }
                waiting.push(next);
            }
            Err(member) => {
                let one = Group(vec![*member]);
                let mut one = fallback::steps::<CubeBackend>(one, gated.then(|| go.clone()));
                stepped.push((place, one.0.remove(0)));
            }
        }
    }
    stepped.extend(launch(waiting, &go, gated));
    stepped.sort_by_key(|(place, _)| *place);
    SteppedGroup(stepped.into_iter().map(|(_, stepped)| stepped).collect())
}

/// Parameters of a launch: [`MOST`] on CUDA; one where a graphics API binds buffers, which it promises no more than eight of.
fn most_of_a_launch(client: &Client) -> usize {
    let cuda = client.properties().identity.fingerprint.starts_with("ptx");
    if cuda { MOST } else { 1 }
}

fn ready(
    place: usize,
    member: Member<CubeBackend>,
    go: &CubeTensor,
) -> Result<Ready, Box<Member<CubeBackend>>> {
    let elements = member.weight.shape().num_elements();
    let tensors = [
        &member.weight,
        &member.grad,
        &member.moment_1,
        &member.moment_2,
        go,
    ];
    if elements == 0 || tensors.iter().any(|tensor| tensor.dtype != DType::F32) {
        return Err(Box::new(member));
    }
    let client = &member.weight.client;
    let most = client.properties().hardware.max_vector_size;
    let vector = client
        .io_optimized_vector_sizes(4)
        .find(|&vector| elements.is_multiple_of(vector) && vector <= most)
        .unwrap_or(1);
    Ok(Ready {
        place,
        vector,
        member: Member {
            grad: into_contiguous(member.grad),
            // What nobody else holds is updated where it lies.
            weight: own(member.weight),
            moment_1: own(member.moment_1),
            moment_2: own(member.moment_2),
            step: member.step,
        },
    })
}

/// Both launches of parameters that go together.
fn launch(
    group: Vec<Ready>,
    go: &CubeTensor,
    gated: bool,
) -> impl Iterator<Item = (usize, Stepped<CubeBackend>)> {
    if let Some(first) = group.first() {
        let step = first.member.step;
        let client = first.member.weight.client.clone();
        let vector = first.vector;
        let (mut sums, mut updates) = (0, 0);
        let parts: Vec<PartOnHost> = group
            .iter()
            .map(|ready| {
                let cubes = ready.total().div_ceil(UNITS * VECTORS);
                let part = PartOnHost {
                    total: ready.total(),
                    first_sum: sums,
                    sums: cubes.min(resident(&client, SUMMING)),
                    first_update: updates,
                    updates: cubes,
                    elements: (ready.total() * vector) as f32,
                    decay: ready.member.step.decay as f32,
                };
                sums += part.sums;
                updates += part.updates;
                part
            })
            .collect();
        let partials = empty(&first.member.weight, [sums], DType::F32);
        let all: Vec<&CubeTensor> = group.iter().map(|ready| &ready.member.weight).collect();
        let index = address(&all);
        let each = |which: fn(&Member<CubeBackend>) -> &CubeTensor| {
            let members = group.iter().map(|ready| &ready.member);
            members.map(move |member| which(member).clone().into_buffer_arg())
        };
        let parts = || parts.iter().map(PartOnHost::argument);
        // SAFETY: vectors beyond a tensor's last read others of it and write nothing, and each unit alone writes what it has
        // read; cubes beyond the last do nothing, or write a sum that nobody reads.
        unsafe {
            if step.stable {
                ratio_kernel::launch_unchecked(
                    &client,
                    CubeCount::Static(sums as u32, 1, 1),
                    CubeDim::new_1d(UNITS as u32),
                    index,
                    vector,
                    each(|member| &member.grad).collect(),
                    each(|member| &member.moment_2).collect(),
                    partials.clone().into_buffer_arg(),
                    parts().collect(),
                    step.b2 as f32,
                    (1.0 - step.b2) as f32,
                    (step.epsilon * step.epsilon) as f32,
                );
            }
            update_kernel::launch_unchecked(
                &client,
                grid(&client, updates),
                CubeDim::new_1d(UNITS as u32),
                index,
                vector,
                each(|member| &member.grad).collect(),
                partials.into_buffer_arg(),
                go.clone().into_buffer_arg(),
                each(|member| &member.weight).collect(),
                each(|member| &member.moment_1).collect(),
                each(|member| &member.moment_2).collect(),
                parts().collect(),
                step.lr as f32,
                (1.0 - step.b1) as f32,
                step.b2 as f32,
                (1.0 - step.b2) as f32,
                step.epsilon as f32,
                step.root_scale as f32,
                step.stable,
                gated,
            );
        }
    }
    group.into_iter().map(|ready| {
        let Member {
            weight,
            moment_1,
            moment_2,
            ..
        } = ready.member;
        let stepped = Stepped {
            weight,
            moment_1,
            moment_2,
        };
        (ready.place, stepped)
    })
}

/// [`Part`] before it becomes an argument.
struct PartOnHost {
    total: usize,
    first_sum: usize,
    sums: usize,
    first_update: usize,
    updates: usize,
    elements: f32,
    decay: f32,
}

impl PartOnHost {
    fn argument(&self) -> PartLaunch {
        PartLaunch::new(
            self.total,
            self.first_sum,
            self.sums,
            self.first_update,
            self.updates,
            self.elements,
            self.decay,
        )
    }
}
