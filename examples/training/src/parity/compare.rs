//! Runs a case and measures how far our numbers are from the reference.

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, Tensor};
use modernbert::batch::PackedBatch;
use modernbert::config::Pooling;
use modernbert::device::read;
use modernbert::model::pool;
use serde::Serialize;
use std::path::Path;

use super::model::Output;
use super::{AnyModel, Case, Tensors, Training};

/// Rows decoded at once: the scores of a whole long text over a real vocabulary would take gigabytes.
const ROWS: usize = 512;

/// Largest allowed differences.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    /// Outputs: times `max(1, max |reference|)` of the tensor.
    pub outputs: f64,
    /// Gradients: the norm of the difference, relative to the norm of the reference.
    pub gradients: f64,
    /// Losses: relative.
    pub losses: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self {
            outputs: 1e-4,
            gradients: 1e-4,
            losses: 1e-5,
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Name of the compared numbers: `logits`, `grad:head.dense.weight`, `loss:3`.
    pub tensor: String,
    /// Largest absolute difference; for gradients and losses the relative one.
    pub max_abs: f64,
    /// Largest allowed difference.
    pub allowed: f64,
    /// The tolerance from which `allowed` follows.
    pub tol: f64,
}

impl Check {
    /// Returns true if the difference is allowed; NaN is not.
    pub fn passes(&self) -> bool {
        self.max_abs <= self.allowed
    }

    fn badness(&self) -> f64 {
        let ratio = self.max_abs / self.allowed;
        if ratio.is_nan() { f64::INFINITY } else { ratio }
    }
}

/// All comparisons of a case.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Every comparison made.
    pub checks: Vec<Check>,
    /// First layer whose states differ, if a comparison failed and the case has reference states.
    pub first_difference: Option<String>,
    /// Comparisons that were left out, with the reason.
    pub notes: Vec<String>,
}

impl Report {
    /// Returns true if everything agrees.
    pub fn passes(&self) -> bool {
        self.checks.iter().all(Check::passes)
    }

    /// Returns the comparison that is closest to its limit, or farthest above it.
    pub fn worst(&self) -> Option<&Check> {
        self.checks
            .iter()
            .max_by(|a, b| a.badness().total_cmp(&b.badness()))
    }
}

/// Runs the case in `folder` on `device`.
///
/// # Errors
/// A folder that is no case, inputs that the model doesn't accept, a reference of the wrong shape.
pub fn check(folder: &Path, device: &Device, tolerances: &Tolerances) -> Result<Report> {
    let case = Case::open(folder)?;
    let mut report = Report::default();
    if let Some(outputs) = Tensors::open_optional(folder.join("outputs.safetensors"))? {
        let model = AnyModel::load(&case, device)?;
        compare_outputs(&case, &model, &outputs, tolerances.outputs, &mut report)?;
    }
    if let Some(training) = Training::open(&case)? {
        training.compare(&case, device, tolerances, &mut report)?;
    }
    ensure!(
        !report.checks.is_empty(),
        "{}: nothing to compare; put outputs.safetensors or grads.safetensors there",
        folder.display()
    );
    Ok(report)
}

fn compare_outputs(
    case: &Case,
    model: &AnyModel,
    outputs: &Tensors,
    tol: f64,
    report: &mut Report,
) -> Result<()> {
    let batch = case.batch(&model.encoder().device());
    model.encoder().check_tokens(batch.layout.total_tokens())?;
    let hidden = model.encoder().forward(&batch);
    for name in outputs.names()? {
        if name.starts_with("hidden_states.") {
            continue;
        }
        let (shape, reference) = outputs.floats(&name)?;
        let mut difference = Difference::new(&reference);
        let place = || format!("{}: `{name}`", outputs.path().display());
        match (name.as_str(), model.kind(&name)) {
            ("last_hidden_state", _) => {
                fits(&shape, &case.leading().0).with_context(place)?;
                difference.tokens(case, |start, rows| {
                    Some(hidden.clone().narrow(0, start, rows))
                })?;
            }
            ("pooled_cls" | "pooled_mean" | "pooled_max", _) => {
                fits(&shape, &case.leading().1).with_context(place)?;
                let pooling = match name.as_str() {
                    "pooled_cls" => Pooling::Cls,
                    "pooled_mean" => Pooling::Mean,
                    _ => Pooling::Max,
                };
                let pooled = pool(hidden.clone(), &batch.layout, pooling);
                difference.sequences(&case.real_rows(), case.rows, Some(pooled))?;
            }
            (_, Some(Output::Tokens)) => {
                fits(&shape, &case.leading().0).with_context(place)?;
                difference.tokens(case, |start, rows| {
                    model.decode_tokens(&name, hidden.clone().narrow(0, start, rows))
                })?;
            }
            (_, Some(Output::Sequences)) => {
                fits(&shape, &case.leading().1).with_context(place)?;
                let rows = comparable_rows(case, model, report);
                let found = decode(model, hidden.clone(), &batch);
                difference.sequences(&rows, case.rows, found)?;
            }
            (_, None) => {
                anyhow::bail!("{}: this model has no such output", place());
            }
        }
        report.checks.push(Check {
            tensor: name.clone(),
            max_abs: difference.max_abs,
            allowed: tol * difference.max_reference.max(1.0),
            tol,
        });
    }
    if !report.passes() {
        report.first_difference = first_difference(case, model, outputs, &batch, tol)?;
    }
    Ok(())
}

fn decode(model: &AnyModel, hidden: Tensor<2>, batch: &PackedBatch) -> Option<Tensor<2>> {
    model.decode_sequences(hidden, batch)
}

/// transformers' sequence classifier pools column 0 even where it is padding: that output is meaningless, and an unpadded model has no
/// such column.
fn comparable_rows(case: &Case, model: &AnyModel, report: &mut Report) -> Vec<usize> {
    let real = case.real_rows();
    let AnyModel::Sequence(_) = model else {
        return real;
    };
    if case.config.classifier_pooling != Pooling::Cls {
        return real;
    }
    let (kept, left): (Vec<usize>, Vec<usize>) = real
        .into_iter()
        .partition(|&row| case.first_column(row) == Some(0));
    if !left.is_empty() {
        report.notes.push(format!(
            "rows {left:?} of logits are not compared: they are padded on the left, where transformers pools a padding token"
        ));
    }
    kept
}

fn fits(shape: &[usize], leading: &[usize]) -> Result<()> {
    ensure!(
        shape.starts_with(leading) && shape.len() <= leading.len() + 1,
        "shape {shape:?} doesn't fit the inputs, which ask for {leading:?} and at most one axis more"
    );
    Ok(())
}

/// Returns the differences over the real part of a padded reference.
struct Difference<'a> {
    reference: &'a [f32],
    max_abs: f64,
    max_reference: f64,
}

impl<'a> Difference<'a> {
    fn new(reference: &'a [f32]) -> Self {
        Self {
            reference,
            max_abs: 0.0,
            max_reference: 0.0,
        }
    }

    fn add(&mut self, found: &[f32], row: usize) -> Result<()> {
        let width = found.len();
        let reference = self.reference.get(row * width..(row + 1) * width);
        let reference =
            reference.context("our output is wider than the reference; is num_labels right?")?;
        for (&x, &r) in found.iter().zip(reference) {
            let difference = f64::from((x - r).abs());
            // `f64::max` ignores NaN.
            self.max_abs = if difference.is_nan() {
                f64::INFINITY
            } else {
                self.max_abs.max(difference)
            };
            self.max_reference = self.max_reference.max(f64::from(r.abs()));
        }
        Ok(())
    }

    /// Compares rows of tokens block by block; `decode` receives the first row and the number of rows.
    fn tokens(
        &mut self,
        case: &Case,
        decode: impl Fn(usize, usize) -> Option<Tensor<2>>,
    ) -> Result<()> {
        let indices = &case.unpadded.indices;
        for start in (0..indices.len()).step_by(ROWS) {
            let rows = ROWS.min(indices.len() - start);
            let found = decode(start, rows).context("the head has no such output")?;
            let width = found.dims()[1];
            ensure!(
                width * case.rows * case.width == self.reference.len(),
                "the model gives {width} numbers per token, the reference holds {} numbers for {} x {} tokens",
                self.reference.len(),
                case.rows,
                case.width
            );
            let values = read(found)?;
            for (values, &index) in values.chunks_exact(width).zip(&indices[start..]) {
                self.add(values, index as usize)?;
            }
        }
        Ok(())
    }

    fn sequences(&mut self, rows: &[usize], total: usize, found: Option<Tensor<2>>) -> Result<()> {
        let found = found.context("the head has no such output")?;
        let width = found.dims()[1];
        ensure!(
            width * total == self.reference.len(),
            "the model gives {width} numbers per sequence, the reference holds {} numbers for {total} sequences",
            self.reference.len()
        );
        let values = read(found)?;
        for &row in rows {
            self.add(&values[row * width..(row + 1) * width], row)?;
        }
        Ok(())
    }
}

/// Returns a description of the first of `hidden_states.N` that differs.
fn first_difference(
    case: &Case,
    model: &AnyModel,
    outputs: &Tensors,
    batch: &PackedBatch,
    tol: f64,
) -> Result<Option<String>> {
    let own = Tensors::open_optional(case.folder.join("hidden_states.safetensors"))?;
    let source = own.as_ref().unwrap_or(outputs);
    if !source.has("hidden_states.0") {
        return Ok(None);
    }
    let states = model.encoder().hidden_states(batch);
    let last = states.len() - 1;
    for (i, state) in states.into_iter().enumerate() {
        let name = format!("hidden_states.{i}");
        if !source.has(&name) {
            continue;
        }
        let (_, reference) = source.floats(&name)?;
        let mut difference = Difference::new(&reference);
        difference.tokens(case, |start, rows| {
            Some(state.clone().narrow(0, start, rows))
        })?;
        if difference.max_abs > tol * difference.max_reference.max(1.0) {
            let what = match i {
                0 => "the embeddings".to_string(),
                _ if i == last => format!("layer {} or the final norm", i - 1),
                _ => format!("layer {}", i - 1),
            };
            return Ok(Some(format!(
                "{what} (`{name}`, max_abs={:.3e})",
                difference.max_abs
            )));
        }
    }
    Ok(Some("the head: all hidden states agree".to_string()))
}
