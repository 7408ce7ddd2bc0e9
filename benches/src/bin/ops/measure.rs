//! Timing of calls, and the copy bandwidth as the reference.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};
use modernbert::batch::{TokenOrder, int_tensor};
use modernbert::ops::gather_rows::gather_rows;
use modernbert_benches::row::{Row, median};
use serde::Serialize;

/// A row of the results with the share of the copy bandwidth.
#[derive(Serialize)]
pub(crate) struct MeasuredRow {
    #[serde(flatten)]
    row: Row,
    /// GB/s divided by those of a copy; `None` for ops that are not memory-bound.
    share: Option<f64>,
}

/// Times calls on a device and keeps the rows.
pub(crate) struct Meter {
    pub(crate) device: Device,
    calls: u32,
    runs: u32,
    only: Option<String>,
    pub(crate) gather_gbs: f64,
    pub(crate) multiply_gbs: f64,
    pub(crate) rows: Vec<MeasuredRow>,
}

/// Amount of work of an op.
pub(crate) enum Work {
    /// Minimal bytes read from and written to memory.
    Bytes(f64),
    /// Floating-point operations of its GEMMs.
    Flops(f64),
}

/// Shape of the copied tensor: 400 MB in f32 on a GPU.
const COPY: [usize; 2] = [131_072, 768];
const SMALL_COPY: [usize; 2] = [4096, 768];

impl Meter {
    /// Creates a meter for `device` and measures the copy bandwidth.
    pub(crate) fn new(device: &Device, calls: u32, runs: u32, only: Option<String>) -> Self {
        let mut meter = Self {
            device: device.clone(),
            calls,
            runs,
            only,
            gather_gbs: 0.0,
            multiply_gbs: 0.0,
            rows: Vec::new(),
        };
        let is_cuda = format!("{device:?}").to_lowercase().contains("cuda");
        let [rows, width] = if is_cuda { COPY } else { SMALL_COPY };
        let x = meter.normal([rows, width], DType::F32);
        let bytes = (2 * rows * width * 4) as f64;
        let ids = int_tensor((0..rows).map(|row| row as i32), device);
        let order = TokenOrder::new((0..rows as u32).collect());
        let gather = meter.time(|| {
            gather_rows(x.clone(), ids.clone(), order.clone());
        });
        // Synchronized after each call: Fusion would fuse several multiplications into one kernel, and drop unused results.
        let multiply = meter.time_singly(|| x.clone() * 1.5);
        meter.gather_gbs = bytes / gather / 1e6;
        meter.multiply_gbs = bytes / multiply / 1e6;
        meter
    }

    /// Returns the bandwidth of the faster of the two copies.
    pub(crate) fn copy_gbs(&self) -> f64 {
        self.gather_gbs.max(self.multiply_gbs)
    }

    /// Returns a contiguous tensor of standard normal values. The backend's own operations pad some rows on CUDA, and each timed call
    /// would begin with a copy.
    pub(crate) fn normal<const D: usize>(&self, shape: [usize; D], dtype: DType) -> Tensor<D> {
        let normal = Distribution::Normal(0.0, 1.0);
        let count = shape.iter().product::<usize>();
        let x: Tensor<1> = Tensor::random([count], normal, (&self.device, DType::F32));
        let x = if dtype == DType::F32 {
            x
        } else {
            x.cast(dtype)
        };
        // Before the reshape, or Fusion makes one kernel of both and the backend pads its result.
        self.sync();
        let x = x.reshape(shape);
        // Fusion must not postpone this into a measurement.
        self.sync();
        x
    }

    fn sync(&self) {
        if let Err(error) = self.device.sync() {
            eprintln!("the device reports: {error:?}");
        }
    }

    /// Returns the milliseconds of a call, of `calls` between two synchronizations.
    fn time(&self, mut call: impl FnMut()) -> f64 {
        call();
        self.sync();
        let times = (0..self.runs).map(|_| {
            let start = Instant::now();
            for _ in 0..self.calls {
                call();
            }
            self.sync();
            start.elapsed().as_secs_f64() * 1e3 / f64::from(self.calls)
        });
        median(times.collect())
    }

    /// Returns the milliseconds of a call, with a synchronization after each before its result is dropped.
    fn time_singly<T>(&self, mut call: impl FnMut() -> T) -> f64 {
        drop(call());
        self.sync();
        let times = (0..self.runs * self.calls).map(|_| {
            let start = Instant::now();
            let result = call();
            self.sync();
            drop(result);
            start.elapsed().as_secs_f64() * 1e3
        });
        median(times.collect())
    }

    /// Returns whether an op is selected.
    pub(crate) fn wants(&self, op: &str) -> bool {
        self.only.as_ref().is_none_or(|only| op.contains(only))
    }

    /// Times a call, prints its row and stores it.
    pub(crate) fn row(
        &mut self,
        set: &str,
        (op, pass): (&str, &'static str),
        tokens: usize,
        work: Work,
        call: impl FnMut(),
    ) {
        let ms = self.time(call);
        let (gbs, tflops) = match work {
            Work::Bytes(bytes) => (Some(bytes / ms / 1e6), 0.0),
            Work::Flops(flops) => (None, flops / ms / 1e9),
        };
        let row = Row {
            set: set.to_owned(),
            op: op.to_owned(),
            pass,
            ms,
            tok_s: tokens as f64 / ms * 1e3,
            tflops,
            gbs,
            peak_mib: None,
            cpu_ms: None,
        };
        let share = gbs.map(|gbs| gbs / self.copy_gbs());
        let text = share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}"));
        println!("{}  {text:>6}", row.line());
        self.rows.push(MeasuredRow { row, share });
    }
}
