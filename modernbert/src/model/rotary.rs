//! RoPE tables, computed once per base frequency and device.

use burn::tensor::{Device, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ops::attention::rotary_table;

/// Cache of RoPE tables; clones of a model share it.
#[derive(Clone, Debug, Default)]
pub(super) struct RotaryCache {
    tables: Arc<Mutex<Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    theta: f64,
    device: Device,
    table: Tensor<2>,
}

impl RotaryCache {
    /// A table with at least `positions` rows.
    ///
    /// Tables grow to the next power of two, so that lengths that vary from batch to batch don't make a table each. The
    /// base frequency is part of the key: a model whose base changes (context extension) gets a new table.
    pub(super) fn table(
        &self,
        positions: usize,
        head_dim: usize,
        theta: f64,
        device: &Device,
    ) -> Tensor<2> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = tables
            .iter()
            .position(|entry| entry.theta == theta && entry.device == *device);
        if let Some(i) = entry {
            if tables[i].table.dims()[0] >= positions {
                return tables[i].table.clone();
            }
            tables.swap_remove(i);
        }
        let table = rotary_table(positions.next_power_of_two(), head_dim, theta, device);
        tables.push(Entry {
            theta,
            device: device.clone(),
            table: table.clone(),
        });
        table
    }
}
