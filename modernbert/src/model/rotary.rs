//! RoPE tables, computed once per rotary specification and device.

use burn::tensor::{Device, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::SequenceLayout;
use crate::config::flexbert::RotarySpec;
use crate::ops::attention::{rotary_rows, rotary_table_of};

/// Cache of RoPE tables; clones of a model share it.
#[derive(Clone, Debug, Default)]
pub(super) struct RotaryCache {
    tables: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    spec: RotarySpec,
    device: Device,
    table: Tensor<2>,
}

impl RotaryCache {
    /// A table with at least `positions` rows.
    ///
    /// Tables grow to the next power of two, so that batches of different lengths share a table. The
    /// base frequency is part of the key: a model whose base changes (context extension) gets a new table.
    pub(super) fn table(&self, positions: usize, spec: &RotarySpec, device: &Device) -> Tensor<2> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = tables
            .iter()
            .position(|entry| entry.spec == *spec && entry.device == *device);
        if let Some(i) = entry {
            if tables[i].table.dims()[0] >= positions {
                return tables[i].table.clone();
            }
            tables.swap_remove(i);
        }
        let rows = positions.next_power_of_two();
        let (frequencies, magnitude) = spec.frequencies(rows);
        let table = rotary_table_of(rows, spec.head_dim, &frequencies, magnitude, device);
        tables.push(Entry {
            spec: spec.clone(),
            device: device.clone(),
            table: table.clone(),
        });
        table
    }
}

/// A row for each token of a batch, for queries and keys: [`RotarySpec::is_per_token`].
pub(super) fn token_rows(
    layout: &SequenceLayout,
    spec: &RotarySpec,
    device: &Device,
) -> [Tensor<2>; 2] {
    let of_sequence = |length: usize| spec.frequencies(length);
    let decay = |position: usize, length: usize| spec.decay(position, length);
    rotary_rows(layout, spec.head_dim, of_sequence, decay, device)
}

#[cfg(test)]
mod tests {
    use crate::config::flexbert::{RopeScaling, RotarySpec};
    use serde_json::Value;

    /// `scripts/flexbert_fixtures.py` writes the frequencies of transformers' scaled rotary embeddings.
    #[test]
    fn scaled_frequencies_are_those_of_transformers() {
        let fixture: Value = serde_json::from_str(include_str!("fixtures/flexbert.json")).unwrap();
        let cases = fixture["frequencies"].as_array().unwrap();
        assert_eq!(cases.len(), 7);
        for case in cases {
            let scaling: RopeScaling = serde_json::from_value(case["scaling"].clone()).unwrap();
            let size = |value: &Value| value.as_u64().unwrap() as usize;
            let spec = RotarySpec {
                theta: case["theta"].as_f64().unwrap(),
                dim: size(&case["dim"]),
                head_dim: size(&case["dim"]),
                interleaved: false,
                scale_base: None,
                original_max: scaling.original_max_position_embeddings.unwrap_or(8192),
                scaling,
            };
            let (found, factor) = spec.frequencies(size(&case["length"]));
            assert!(
                (f64::from(factor) - case["factor"].as_f64().unwrap()).abs() < 1e-6,
                "{case}: {factor}"
            );
            let expected = case["frequencies"].as_array().unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                let off = (f64::from(*found) - expected).abs();
                assert!(
                    off <= 2e-6 * expected,
                    "{}: {found} {expected}",
                    case["scaling"]
                );
            }
        }
    }
}
