//! Tile tables of buckets: tables whose place and size do not change, so that a captured graph can read them.
//!
//! A graph records the grids and the addresses of its launches. The tables of a bucket have room for the tiles of every batch of the bucket;
//! tiles without rows fill the rest. Before a replay the host writes the tiles of the batch into them.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use burn_cubecl::tensor::CubeTensor;

use super::tile_table::{ENTRY, TileTable, entries, upload};
use crate::batch::{Bucket, SequenceLayout};

struct Entry {
    id: u64,
    lengths: Range<usize>,
    tile: usize,
    table: TileTable,
}

/// The tables of all buckets that exist.
static TABLES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

fn tables() -> MutexGuard<'static, Vec<Entry>> {
    // A panic of another thread that held the lock leaves the list valid: no change of the list is ever partial.
    TABLES.lock().unwrap_or_else(|held| held.into_inner())
}

/// Returns the bucket's table of the sequences whose length is one of `lengths`, in tiles of `tile` rows; made at its first use, with the
/// tiles of `layout`.
pub(super) fn table(
    bucket: Bucket,
    layout: &SequenceLayout,
    lengths: Range<usize>,
    tile: usize,
    like: &CubeTensor,
) -> TileTable {
    let mut tables = tables();
    let known = tables
        .iter()
        .find(|entry| entry.id == bucket.id && entry.tile == tile && entry.lengths == lengths);
    if let Some(entry) = known {
        return entry.table.clone();
    }
    // Every sequence adds at most one tile that is not full.
    let tiles = layout.total_tokens() / tile + bucket.sequences.max(layout.num_sequences());
    let mut numbers = entries(layout, &lengths, tile);
    numbers.resize(tiles * ENTRY, 0);
    let table = upload(numbers, tile, like);
    tables.push(Entry {
        id: bucket.id,
        lengths,
        tile,
        table: table.clone(),
    });
    table
}

/// Writes the tiles of `layout` into the bucket's tables, in the order of the calling thread's stream.
///
/// # Panics
/// If the layout does not fit the bucket.
#[cfg(any(test, all(feature = "cuda", feature = "fusion")))]
pub(crate) fn write(id: u64, layout: &SequenceLayout) {
    use burn::backend::TensorMetadata;

    for entry in tables().iter().filter(|entry| entry.id == id) {
        let mut numbers = entries(layout, &entry.lengths, entry.tile);
        let room = entry.table.entries.shape().num_elements();
        assert!(
            numbers.len() <= room,
            "{} tiles for a bucket of {}",
            numbers.len() / ENTRY,
            room / ENTRY
        );
        numbers.resize(room, 0);
        write_numbers(&entry.table.entries, &numbers);
    }
}

/// Overwrites a tensor of 32-bit numbers in place.
#[cfg(any(test, all(feature = "cuda", feature = "fusion")))]
pub(crate) fn write_numbers(tensor: &CubeTensor, numbers: &[u32]) {
    let bytes = <u32 as cubecl::prelude::CubeElement>::as_bytes(numbers).to_vec();
    let bytes = cubecl::bytes::Bytes::from_bytes_vec(bytes);
    tensor.client.write(&tensor.handle, bytes);
}

/// Forgets the tables of a bucket whose graph is gone.
#[cfg(any(test, all(feature = "cuda", feature = "fusion")))]
pub(crate) fn forget(id: u64) {
    tables().retain(|entry| entry.id != id);
}
