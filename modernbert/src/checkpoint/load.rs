//! Fills a module from files, by name.

use burn::module::Module;
use burn::tensor::{AllocationProperty, Bytes, DType, Tensor, TensorData};
use std::collections::{BTreeMap, BTreeSet};

use super::{CheckpointError, TensorFiles, TensorValues};
use crate::model::{NamedMapper, map_named, named_parameters};

/// The differences between a module's parameters and the tensors of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters that the files lack; they keep their value.
    pub fresh: Vec<String>,
    /// Tensors that the model doesn't use: those of other heads, and the copy of a tied decoder.
    pub unused: Vec<String>,
}

/// Tensors of other heads of the same family; a file may hold them.
const HEADS: [&str; 3] = ["head.", "decoder.", "classifier."];
/// Prefix of the encoder's tensors, which files of a bare encoder leave out.
const ENCODER: &str = "model.";

/// Copies the tensors of `files` into `module`.
///
/// Parameters whose name starts with one of `may_be_fresh` keep their value where the files lack them. The shapes are compared before
/// anything is read, and one tensor at a time is on the host.
///
/// # Errors
/// A missing, unknown or misshapen tensor, a dtype that holds no weights, a weight that is NaN or infinite, weights whose squares
/// overflow f32: each by name. The module is
/// dropped then; build it again.
pub fn load<M: Module>(
    module: M,
    files: &TensorFiles,
    may_be_fresh: &[&str],
) -> Result<(M, LoadReport), CheckpointError> {
    let plan = LoadPlan::new(&module, files, may_be_fresh)?;
    let module = plan.fill(module, false)?;
    Ok((module, plan.report))
}

/// The tensors of the files by the parameters of a module that they belong to, once their shapes are known to fit.
pub(crate) struct LoadPlan<'a> {
    files: &'a TensorFiles,
    /// Name of the tensor in the files by name of the parameter.
    sources: BTreeMap<String, String>,
    report: LoadReport,
}

impl<'a> LoadPlan<'a> {
    /// Compares the parameters with the files, whose values are not read. Errors as those of [`load`] about names and shapes.
    pub(crate) fn new<M: Module>(
        module: &M,
        files: &'a TensorFiles,
        may_be_fresh: &[&str],
    ) -> Result<Self, CheckpointError> {
        let parameters = named_parameters(module);
        let prefixed = parameters.iter().any(|(name, _)| name.starts_with(ENCODER));
        let mut report = LoadReport::default();
        let mut sources = BTreeMap::new();
        for (name, shape) in parameters {
            match source_of(&name, &shape, files, prefixed)? {
                Some(source) => {
                    sources.insert(name, source);
                }
                None if may_be_fresh.iter().any(|prefix| name.starts_with(prefix)) => {
                    report.fresh.push(name);
                }
                None => {
                    let place = files.place();
                    return Err(CheckpointError::Missing { place, name });
                }
            }
        }
        let used: BTreeSet<&str> = sources.values().map(String::as_str).collect();
        let left_over: Vec<&str> = files
            .names()
            .filter(|name| !used.contains(name) && !files.is_scale(name))
            .collect();
        let unknown: Vec<&&str> = left_over
            .iter()
            .filter(|name| !HEADS.iter().any(|head| name.starts_with(head)))
            .filter(|name| !files.may_be_unused(name))
            .collect();
        if let Some(first) = unknown.first() {
            return Err(CheckpointError::Unknown {
                place: files.place(),
                name: (**first).to_string(),
                count: unknown.len(),
            });
        }
        report.unused = left_over.into_iter().map(str::to_string).collect();
        Ok(Self {
            files,
            sources,
            report,
        })
    }

    /// Gives each parameter of `module` its values. With `maps`, a tensor that the file has in f32 is not copied: its parameter is the mapped file, for a module
    /// in the memory of this machine that is not trained.
    pub(crate) fn fill<M: Module>(&self, module: M, maps: bool) -> Result<M, CheckpointError> {
        let mut fill = Fill {
            plan: self,
            maps,
            error: None,
        };
        let module = map_named(module, &mut fill);
        match fill.error {
            Some(error) => Err(error),
            None => Ok(module),
        }
    }

    /// Values of a parameter of the encoder, whose name has no prefix here; all of them are finite.
    #[cfg(feature = "flex")]
    pub(crate) fn encoder_values(&self, name: &str) -> Result<TensorValues<'a>, CheckpointError> {
        let prefixed = self.sources.get(&format!("{ENCODER}{name}"));
        let source = prefixed.or_else(|| self.sources.get(name));
        self.values(source.map_or(name, String::as_str))
    }

    /// Values of a tensor of the files; all of them are finite.
    fn values(&self, source: &str) -> Result<TensorValues<'a>, CheckpointError> {
        let place = || self.files.place();
        let name = || self.files.shown(source);
        let Some(values) = self.files.values(source)? else {
            return Err(CheckpointError::Missing {
                place: place(),
                name: name(),
            });
        };
        if values.sum_of_squares() <= f64::from(f32::MAX) {
            return Ok(values);
        }
        match values.non_finite() {
            // Variances and norms would be infinite, and the values that are divided by them 0: wrong, but finite.
            0 => Err(CheckpointError::TooLarge {
                place: place(),
                name: name(),
                largest: values.largest(),
            }),
            count => Err(CheckpointError::NonFinite {
                place: place(),
                name: name(),
                count,
                total: values.len(),
            }),
        }
    }
}

/// The tensor of the files that belongs to a parameter: of the same name, with or without the prefix of the encoder.
fn source_of(
    name: &str,
    shape: &[usize],
    files: &TensorFiles,
    prefixed: bool,
) -> Result<Option<String>, CheckpointError> {
    let other = if prefixed {
        name.strip_prefix(ENCODER).unwrap_or(name).to_string()
    } else {
        format!("{ENCODER}{name}")
    };
    for candidate in [name.to_string(), other] {
        match files.shape(&candidate) {
            Some(found) if found == shape => return Ok(Some(candidate)),
            Some(found) => {
                return Err(CheckpointError::Shape {
                    place: files.place(),
                    name: files.shown(&candidate),
                    found: found.to_vec(),
                    expected: shape.to_vec(),
                });
            }
            None => {}
        }
    }
    Ok(None)
}

/// Gives each parameter the values of its tensor.
struct Fill<'a> {
    plan: &'a LoadPlan<'a>,
    maps: bool,
    error: Option<CheckpointError>,
}

impl Fill<'_> {
    fn data(&self, source: &str, shape: &[usize]) -> Result<TensorData, CheckpointError> {
        let values = self.plan.values(source)?;
        if let Some(bytes) = self.plan.files.mapped(source).filter(|_| self.maps) {
            let bytes = Bytes::from_shared(bytes, AllocationProperty::File);
            return Ok(TensorData::from_bytes(bytes, shape.to_vec(), DType::F32));
        }
        Ok(TensorData::new(values.into_f32(), shape.to_vec()))
    }
}

impl NamedMapper for Fill<'_> {
    fn map<const D: usize>(&mut self, name: &str, value: Tensor<D>) -> Tensor<D> {
        let source = self.plan.sources.get(name);
        let Some(source) = source.filter(|_| self.error.is_none()) else {
            return value;
        };
        match self.data(source, &value.dims()) {
            Ok(data) => Tensor::from_data(data, &value.device()),
            Err(error) => {
                self.error = Some(error);
                value
            }
        }
    }
}
