//! One attention problem for the op, for the f64 reference and for f32 loops.

use burn::tensor::{DType, Device, FloatDType, Tensor};
use burn_packed::batch::SequenceLayout;
use burn_packed::ops::attention::{
    AttentionSpec, attention, reference::ReferenceInputs, rotary_table,
};

use test_support::{autodiff_device, normals, read, read64, tensor, tensor64, wide};

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) lengths: Vec<usize>,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) half_window: Option<usize>,
    pub(crate) theta: Option<f64>,
    pub(crate) softcap: Option<f64>,
    pub(crate) qkv: Vec<f32>,
    pub(crate) d_out: Vec<f32>,
}

/// Output and gradient of `qkv`.
pub(crate) type Results = (Vec<f32>, Vec<f32>);

impl Case {
    pub(crate) fn new(lengths: &[usize], heads: usize, head_dim: usize, seed: u64) -> Self {
        let count = lengths.iter().sum::<usize>() * heads * head_dim;
        Self {
            lengths: lengths.to_vec(),
            heads,
            head_dim,
            half_window: None,
            theta: None,
            softcap: None,
            qkv: normals(seed, 3 * count),
            d_out: normals(seed + 1, count),
        }
    }

    pub(crate) fn window(mut self, half_window: impl Into<Option<usize>>) -> Self {
        self.half_window = half_window.into();
        self
    }

    pub(crate) fn theta(mut self, theta: impl Into<Option<f64>>) -> Self {
        self.theta = theta.into();
        self
    }

    pub(crate) fn softcap(mut self, softcap: impl Into<Option<f64>>) -> Self {
        self.softcap = softcap.into();
        self
    }

    /// Multiplies q and k by `factor`, and scores thus by its square.
    pub(crate) fn with_qk_times(mut self, factor: f32) -> Self {
        let part = self.heads * self.head_dim;
        for token in self.qkv.chunks_mut(3 * part) {
            token[..2 * part].iter_mut().for_each(|x| *x *= factor);
        }
        self
    }

    /// Rounds every input to `dtype`, so that all versions get the same numbers.
    pub(crate) fn rounded(mut self, round: fn(f32) -> f32) -> Self {
        for x in self.qkv.iter_mut().chain(&mut self.d_out) {
            *x = round(*x);
        }
        self
    }

    pub(crate) fn total(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub(crate) fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }

    /// Values of a token in `qkv`.
    pub(crate) fn token(&self) -> usize {
        3 * self.heads * self.head_dim
    }

    /// Index of element 0 of q, k or v (part 0, 1, 2) of a row.
    pub(crate) fn place(&self, row: usize, part: usize, head: usize) -> usize {
        ((row * 3 + part) * self.heads + head) * self.head_dim
    }

    fn longest(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    fn shapes(&self) -> ([usize; 4], [usize; 3]) {
        (
            [self.total(), 3, self.heads, self.head_dim],
            [self.total(), self.heads, self.head_dim],
        )
    }

    fn call(&self, qkv: Tensor<4>, rotary: Option<Tensor<2>>) -> Tensor<3> {
        let layout = SequenceLayout::from_lengths(self.lengths.iter().copied()).unwrap();
        let spec = AttentionSpec::new(layout, self.half_window, self.scale());
        attention(qkv, rotary, spec.with_softcap(self.softcap))
    }

    fn table(&self, device: &Device) -> Option<Tensor<2>> {
        self.theta
            .map(|theta| rotary_table(self.longest(), self.head_dim, theta, device))
    }

    /// The op on a tensor of the shape of `qkv`, with the case's positions and window.
    pub(crate) fn attend(&self, qkv: Tensor<4>, device: &Device) -> Tensor<3> {
        self.call(qkv, self.table(device))
    }

    /// The op's output on a device without gradients.
    pub(crate) fn forward(&self) -> Vec<f32> {
        let device = test_support::device();
        let qkv = tensor(&self.qkv, self.shapes().0, &device);
        read(self.call(qkv, self.table(&device)))
    }

    /// The op's output and gradient, with `qkv` and `d_out` in `dtype`.
    pub(crate) fn run_in(&self, dtype: FloatDType) -> Results {
        self.run_on(&autodiff_device(), dtype)
    }

    /// As [`Case::run_in`], on a device with gradients.
    pub(crate) fn run_on(&self, device: &Device, dtype: FloatDType) -> Results {
        let (qkv_shape, out_shape) = self.shapes();
        let qkv = tensor(&self.qkv, qkv_shape, device)
            .cast(dtype)
            .require_grad();
        let out = self.call(qkv.clone(), self.table(device));
        assert_eq!(
            out.dtype(),
            DType::from(dtype),
            "the output has the dtype of qkv"
        );
        let d_out = tensor(&self.d_out, out_shape, device).cast(dtype);
        let grads = (out.clone() * d_out).sum().backward();
        (read(out.inner()), read(qkv.grad(&grads).unwrap()))
    }

    /// The op's output and gradient in f32.
    pub(crate) fn run(&self) -> Results {
        self.run_in(FloatDType::F32)
    }

    /// The same in f64, which every backend computes by the fallback; the rotary table is exact too.
    pub(crate) fn run64(&self) -> (Vec<f64>, Vec<f64>) {
        let device = autodiff_device();
        let (qkv_shape, out_shape) = self.shapes();
        let qkv = tensor64(&wide(&self.qkv), qkv_shape, &device).require_grad();
        let table = self.theta.map(|theta| {
            let half = self.head_dim / 2;
            let angles = |p: usize| {
                (0..half)
                    .map(move |d| p as f64 * theta.powf(-2.0 * d as f64 / self.head_dim as f64))
            };
            let values: Vec<f64> = (0..self.longest())
                .flat_map(|p| angles(p).map(f64::cos).chain(angles(p).map(f64::sin)))
                .collect();
            tensor64(&values, [self.longest(), self.head_dim], &device)
        });
        let out = self.call(qkv.clone(), table);
        let d_out = tensor64(&wide(&self.d_out), out_shape, &device);
        let grads = (out.clone() * d_out).sum().backward();
        (read64(out.inner()), read64(qkv.grad(&grads).unwrap()))
    }

    pub(crate) fn problem<'a>(&'a self, qkv: &'a [f64]) -> ReferenceInputs<'a> {
        ReferenceInputs {
            qkv,
            lengths: &self.lengths,
            heads: self.heads,
            head_dim: self.head_dim,
            half_window: self.half_window,
            theta: self.theta,
            scale: self.scale(),
            softcap: self.softcap,
        }
    }

    /// Output and gradient by the reference.
    pub(crate) fn reference(&self) -> (Vec<f64>, Vec<f64>) {
        let qkv = wide(&self.qkv);
        let problem = self.problem(&qkv);
        (problem.forward(), problem.backward(&wide(&self.d_out)))
    }
}
