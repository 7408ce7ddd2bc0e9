//! Fills a module from files, by name.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeSet;

use super::{CheckpointError, TensorFiles};
use crate::model::{NamedMapper, map_named, named_parameters};

/// What a load did beside copying tensors of the same name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Parameters the files don't have, left as they were.
    pub fresh: Vec<String>,
    /// Tensors of other heads, or a tied decoder's copy, that the model has no use for.
    pub unused: Vec<String>,
}

/// Tensors of other heads of the same family; a file may hold them.
const HEADS: [&str; 3] = ["head.", "decoder.", "classifier."];
/// Prefix of the encoder's tensors, which files of a bare encoder leave out.
const ENCODER: &str = "model.";

/// Copies the tensors of `files` into `module`.
///
/// Parameters whose name starts with one of `may_be_fresh` keep their value when the files lack them; a lack of any other
/// is an error, and so is a tensor of no known head.
///
/// # Errors
/// A missing, unknown or misshapen tensor, by name. The module is then lost; build it again.
pub fn load<M: Module>(
    module: M,
    files: &TensorFiles,
    may_be_fresh: &[&str],
) -> Result<(M, LoadReport), CheckpointError> {
    let wanted = named_parameters(&module);
    let encoder_alone = !wanted.iter().any(|(name, _)| name.starts_with(ENCODER));
    let mut used = BTreeSet::new();
    let mut report = LoadReport::default();
    let mut values = Vec::with_capacity(wanted.len());
    for (name, shape) in &wanted {
        let candidates = if encoder_alone {
            [name.clone(), format!("{ENCODER}{name}")]
        } else {
            [
                name.clone(),
                name.strip_prefix(ENCODER).unwrap_or(name).to_string(),
            ]
        };
        let mut found = None;
        for candidate in candidates {
            if let Some((found_shape, value)) = files.read(&candidate)? {
                if found_shape != *shape {
                    return Err(CheckpointError::Shape {
                        place: files.place(),
                        name: candidate,
                        found: found_shape,
                        expected: shape.clone(),
                    });
                }
                used.insert(candidate);
                found = Some(value);
                break;
            }
        }
        if found.is_none() {
            if !may_be_fresh.iter().any(|prefix| name.starts_with(prefix)) {
                return Err(CheckpointError::Missing {
                    place: files.place(),
                    name: name.clone(),
                });
            }
            report.fresh.push(name.clone());
        }
        values.push(found);
    }
    let left_over: Vec<&str> = files.names().filter(|name| !used.contains(*name)).collect();
    let unknown: Vec<&&str> = left_over
        .iter()
        .filter(|name| !HEADS.iter().any(|head| name.starts_with(head)))
        .collect();
    if let Some(first) = unknown.first() {
        return Err(CheckpointError::Unknown {
            place: files.place(),
            name: (**first).to_string(),
            count: unknown.len(),
        });
    }
    report.unused = left_over.into_iter().map(str::to_string).collect();
    let module = map_named(module, &mut Fill(values.into_iter()));
    Ok((module, report))
}

/// Hands out values in the order in which the module holds its parameters.
struct Fill(std::vec::IntoIter<Option<Vec<f32>>>);

impl NamedMapper for Fill {
    fn map<const D: usize>(&mut self, _name: &str, value: Tensor<D>) -> Tensor<D> {
        match self.0.next().flatten() {
            Some(values) => {
                Tensor::from_data(TensorData::new(values, value.dims()), &value.device())
            }
            None => value,
        }
    }
}
