//! Files of vectors, as `embed` writes them, and the identity of the model they come from.

mod error;
mod hash;

pub use error::VectorError;
pub use hash::model_hash;

use std::path::Path;

use modernbert_files::checkpoint::TensorFiles;
use serde_json::{Map, Value};

use crate::data::{Row, rows};

/// Name of the matrix in a safetensors file.
const TENSOR: &str = "embeddings";

/// Vectors with their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Components of a vector.
    pub dimension: usize,
    /// `[n, dimension]`.
    pub values: Vec<f32>,
    /// `[n]`.
    pub ids: Vec<String>,
    /// `[n]`: line of each id in its file, from 1.
    pub id_lines: Vec<usize>,
    /// `[n]`: line of each vector in its file, from 1; its row in a matrix.
    pub lines: Vec<usize>,
    /// `[n]`: a JSON object of the requested fields; empty where a row has none of them.
    pub metadata: Vec<String>,
}

impl Vectors {
    /// Reads a safetensors file with the tensor `embeddings`, `[n, dimension]`, or a JSONL file with a list `embedding` per line.
    ///
    /// Ids are the fields `_id` or `id` of `texts`, the JSONL file (also .gz or Parquet) that was embedded, row by row; without it those of
    /// the JSONL file of vectors. `fields` of the same rows become metadata.
    ///
    /// # Errors
    /// [`VectorError`]: a file that cannot be read, another number of texts than vectors, rows of different lengths, a missing id.
    pub fn read(path: &Path, texts: Option<&Path>, fields: &[String]) -> Result<Self, VectorError> {
        let is_tensor = path
            .extension()
            .is_some_and(|extension| extension == "safetensors");
        let mut vectors = if is_tensor {
            from_tensor(path)?
        } else {
            from_rows(path, texts.is_none(), fields)?
        };
        if let Some(at) = vectors.values.iter().position(|value| !value.is_finite()) {
            return Err(VectorError::NotFinite {
                path: path.to_path_buf(),
                number: at / vectors.dimension + 1,
                component: at % vectors.dimension,
                value: vectors.values[at],
            });
        }
        let Some(texts) = texts else {
            if is_tensor {
                return Err(VectorError::NoIds {
                    path: path.to_path_buf(),
                });
            }
            return Ok(vectors);
        };
        let count = vectors.values.len() / vectors.dimension;
        for row in rows(texts)? {
            let row = row?;
            vectors.id_lines.push(row.line);
            vectors
                .ids
                .push(row.id(&["_id", "id", "docid", "query_id"], "text")?);
            vectors.metadata.push(metadata(texts, &row, fields)?);
        }
        if vectors.ids.len() != count {
            return Err(VectorError::Counts {
                path: path.to_path_buf(),
                vectors: count,
                texts_path: texts.to_path_buf(),
                texts: vectors.ids.len(),
            });
        }
        Ok(vectors)
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// File and line of a vector, `file` being the one that was read.
    pub fn place(&self, file: &Path, number: usize) -> String {
        let line = self.lines.get(number).copied().unwrap_or(number + 1);
        let is_tensor = file
            .extension()
            .is_some_and(|extension| extension == "safetensors");
        match is_tensor {
            true => format!("{}: row {line}", file.display()),
            false => format!("{}:{line}", file.display()),
        }
    }

    /// `true` if there is no vector.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns id, vector and metadata of each row.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[f32], &str)> {
        let rows = self.values.chunks_exact(self.dimension);
        let named = self.ids.iter().zip(rows).zip(&self.metadata);
        named.map(|((id, vector), metadata)| (id.as_str(), vector, metadata.as_str()))
    }
}

fn from_tensor(path: &Path) -> Result<Vectors, VectorError> {
    let no_matrix = |found: String| VectorError::NoMatrix {
        path: path.to_path_buf(),
        found,
    };
    let file = TensorFiles::open(path)?;
    let Some((shape, values)) = file.read(TENSOR)? else {
        let names: Vec<&str> = file.names().collect();
        return Err(no_matrix(format!("the tensors {}", names.join(", "))));
    };
    match shape[..] {
        [count, dimension] if dimension > 0 => Ok(Vectors {
            dimension,
            values,
            ids: Vec::new(),
            id_lines: Vec::new(),
            lines: (1..=count).collect(),
            metadata: Vec::new(),
        }),
        _ => Err(no_matrix(format!("the shape {:?}", shape))),
    }
}

fn from_rows(path: &Path, with_ids: bool, fields: &[String]) -> Result<Vectors, VectorError> {
    let mut vectors = Vectors {
        dimension: 0,
        values: Vec::new(),
        ids: Vec::new(),
        id_lines: Vec::new(),
        lines: Vec::new(),
        metadata: Vec::new(),
    };
    for row in rows(path)? {
        let row = row?;
        let (field, value) = row.need(&["embedding"])?;
        let numbers = value.as_array().and_then(|list| {
            let numbers = list
                .iter()
                .map(|number| number.as_f64().map(|number| number as f32));
            numbers.collect::<Option<Vec<f32>>>()
        });
        let numbers =
            numbers.ok_or_else(|| row.wrong_type(field, value, "a list of numbers alone"))?;
        if vectors.values.is_empty() {
            vectors.dimension = numbers.len();
        }
        if numbers.is_empty() {
            return Err(VectorError::EmptyVector {
                path: path.to_path_buf(),
                line: row.line,
            });
        }
        if numbers.len() != vectors.dimension {
            return Err(VectorError::Length {
                path: path.to_path_buf(),
                line: row.line,
                found: numbers.len(),
                expected: vectors.dimension,
            });
        }
        vectors.values.extend(numbers);
        vectors.lines.push(row.line);
        if with_ids {
            vectors.id_lines.push(row.line);
            vectors.ids.push(row.id(&["_id", "id"], "text")?);
            vectors.metadata.push(metadata(path, &row, fields)?);
        }
    }
    if vectors.values.is_empty() {
        return Err(VectorError::NoVectors {
            path: path.to_path_buf(),
        });
    }
    Ok(vectors)
}

/// The fields that a row has, as a JSON object; empty if it has none of them.
///
/// # Errors
/// A number of more digits than f64 holds, which would be written with others.
fn metadata(path: &Path, row: &Row, fields: &[String]) -> Result<String, VectorError> {
    let is_inexact = |field: &&String| row.fields.get(*field).is_some_and(is_inexact);
    if let Some(field) = fields.iter().find(is_inexact) {
        return Err(VectorError::Inexact {
            path: path.to_path_buf(),
            line: row.line,
            field: field.clone(),
        });
    }
    let present = fields
        .iter()
        .filter_map(|field| Some((field.clone(), row.fields.get(field)?.clone())));
    let present: Map<String, Value> = present.collect();
    Ok(match present.is_empty() {
        true => String::new(),
        false => Value::Object(present).to_string(),
    })
}

/// Returns whether a value has a number beyond the whole numbers of f64, which is what the JSON library makes of longer integers.
fn is_inexact(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.is_f64()
                && number
                    .as_f64()
                    .is_some_and(|value| value.abs() >= 2f64.powi(53))
        }
        Value::Array(values) => values.iter().any(is_inexact),
        Value::Object(fields) => fields.values().any(is_inexact),
        _ => false,
    }
}
