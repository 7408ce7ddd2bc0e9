//! Timing, and the bandwidth that everything is compared with.

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor};
use modernbert::batch::{TokenOrder, int_tensor};
use modernbert::ops::embedding::embedding;
use modernbert_benches::row::{Row, median};
use serde::Serialize;

/// A measurement with its share of the copy bandwidth.
#[derive(Serialize)]
pub(crate) struct Shared {
    #[serde(flatten)]
    row: Row,
    /// GB/s over those of a copy; none where memory is not what limits the op.
    share: Option<f64>,
}

/// Times calls on a device and keeps the rows.
pub(crate) struct Meter {
    pub(crate) device: Device,
    calls: u32,
    runs: u32,
    only: Option<String>,
    pub(crate) lookup_gbs: f64,
    pub(crate) multiply_gbs: f64,
    pub(crate) rows: Vec<Shared>,
}

/// What an op moves or computes.
pub(crate) enum Work {
    /// Least bytes to and from memory.
    Bytes(f64),
    /// Operations of its products.
    Flops(f64),
}

/// Rows and columns of the tensor that is copied for comparison: 400 MB in f32 on a GPU.
const COPY: [usize; 2] = [131_072, 768];
const SMALL_COPY: [usize; 2] = [4096, 768];

impl Meter {
    /// A meter for `device`, the copy already measured.
    pub(crate) fn new(device: &Device, calls: u32, runs: u32, only: Option<String>) -> Self {
        let mut meter = Self {
            device: device.clone(),
            calls,
            runs,
            only,
            lookup_gbs: 0.0,
            multiply_gbs: 0.0,
            rows: Vec::new(),
        };
        let is_cuda = format!("{device:?}").to_lowercase().contains("cuda");
        let [rows, width] = if is_cuda { COPY } else { SMALL_COPY };
        let x = meter.normal([rows, width], DType::F32);
        let bytes = (2 * rows * width * 4) as f64;
        let ids = int_tensor((0..rows).map(|row| row as i32), device);
        let order = TokenOrder::new((0..rows as u32).collect());
        let lookup = meter.time(|| {
            embedding(x.clone(), ids.clone(), order.clone());
        });
        // One call at a time: lazily, several would become one kernel, and a product nobody holds is never computed.
        let multiply = meter.time_singly(|| x.clone() * 1.5);
        meter.lookup_gbs = bytes / lookup / 1e6;
        meter.multiply_gbs = bytes / multiply / 1e6;
        meter
    }

    /// The faster of the two copies.
    pub(crate) fn copy_gbs(&self) -> f64 {
        self.lookup_gbs.max(self.multiply_gbs)
    }

    /// Standard normal numbers, rows one behind the other as this project's ops leave them. The backend's own operations set some
    /// rows further apart on CUDA, and each timed call would begin with a copy.
    pub(crate) fn normal<const D: usize>(&self, shape: [usize; D], dtype: DType) -> Tensor<D> {
        let normal = Distribution::Normal(0.0, 1.0);
        let count = shape.iter().product::<usize>();
        let x: Tensor<1> = Tensor::random([count], normal, (&self.device, DType::F32));
        let x = if dtype == DType::F32 {
            x
        } else {
            x.cast(dtype)
        };
        // In one piece before it gets its rows: together they would be one kernel, whose result the backend sets apart.
        self.sync();
        let x = x.reshape(shape);
        // Run now, not in the middle of a measurement.
        self.sync();
        x
    }

    fn sync(&self) {
        if let Err(error) = self.device.sync() {
            eprintln!("the device reports: {error:?}");
        }
    }

    /// Milliseconds of a call, several between two synchronisations.
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

    /// Milliseconds of a call, each synchronised before its result is let go.
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

    /// Whether an op of this name was asked for.
    pub(crate) fn wants(&self, op: &str) -> bool {
        self.only.as_ref().is_none_or(|only| op.contains(only))
    }

    /// Times a call, prints its row and keeps it.
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
        self.rows.push(Shared { row, share });
    }
}
