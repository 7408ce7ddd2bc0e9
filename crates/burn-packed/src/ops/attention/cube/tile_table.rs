//! The tile scheduler: the host's list of tiles, which gives every thread block its rows.
//!
//! A captured graph records the grids and the addresses of its launches. The tables of a bucket therefore keep their address and size: they
//! are large enough for the tiles of every batch of the bucket, and tiles without rows fill the rest. Before a replay the host writes the
//! tiles of the batch into the tables.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeDevice;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::CubeElement;

use crate::batch::SequenceLayout;

/// Numbers per tile in the table: its first row, the first row of its sequence, the row after the sequence's last.
const ENTRY: usize = 3;
/// A range that contains every length.
pub(super) const ALL_LENGTHS: Range<usize> = 0..usize::MAX;
/// Tables of layouts that stay cached on devices. A batch needs one per tile size and range of lengths; the cache holds those of several
/// batches.
const CACHED: usize = 32;

/// A table on a device and the grid that covers it: `heads × y × z` blocks.
#[derive(Clone)]
pub(super) struct TileTable {
    pub(super) entries: CubeTensor,
    pub(super) y: u32,
    pub(super) z: u32,
}

impl TileTable {
    /// Number of tiles, including the tiles without rows at the end.
    #[cfg(feature = "ptx")]
    pub(super) fn len(&self) -> u32 {
        self.y * self.z
    }
}

/// The batches for which a table is valid.
enum Key {
    Layout(SequenceLayout),
    /// Batches of a bucket.
    Bucket(u64),
}

impl Key {
    fn supports(&self, layout: &SequenceLayout) -> bool {
        match (self, layout.bucket()) {
            (Self::Layout(of), None) => of == layout,
            (Self::Bucket(id), Some(bucket)) => *id == bucket.id,
            _ => false,
        }
    }
}

struct Cached {
    key: Key,
    lengths: Range<usize>,
    tile: usize,
    device: CubeDevice,
    table: TileTable,
}

/// The tables of the buckets that exist and of the last layouts, most recently used first. All layers of a step share a layout, forward and
/// backward, and so upload its table once.
static TABLES: Mutex<Vec<Cached>> = Mutex::new(Vec::new());

fn tables() -> MutexGuard<'static, Vec<Cached>> {
    // A panic of another thread that held the lock leaves the list valid: no change of the list is ever partial.
    TABLES.lock().unwrap_or_else(|held| held.into_inner())
}

/// Returns the table of the sequences of `layout` whose length is one of `lengths`, in tiles of `tile` rows, on the device of `like`;
/// `None` if there are no such sequences.
pub(super) fn tile_table(
    layout: &SequenceLayout,
    lengths: Range<usize>,
    tile: usize,
    like: &CubeTensor,
) -> Option<TileTable> {
    if lengths.start > layout.max_seqlen() {
        return None;
    }
    // A range that excludes no sequence of this layout shares the table of all lengths.
    let lengths = match lengths.start == 0 && lengths.end > layout.max_seqlen() {
        true => ALL_LENGTHS,
        false => lengths,
    };
    let device = like.device();
    let mut tables = tables();
    let found = tables.iter().position(|cached| {
        cached.tile == tile
            && cached.lengths == lengths
            && cached.device == device
            && cached.key.supports(layout)
    });
    if let Some(index) = found {
        tables[..=index].rotate_right(1);
        return Some(tables[0].table.clone());
    }
    let mut numbers = entries(layout, &lengths, tile);
    let key = match layout.bucket() {
        Some(bucket) => {
            // Every sequence adds at most one tile that is not full.
            let sequences = bucket.sequences.max(layout.num_sequences());
            let tiles = layout.total_tokens() / tile + sequences;
            numbers.resize(tiles * ENTRY, 0);
            Key::Bucket(bucket.id)
        }
        None if numbers.is_empty() => return None,
        None => Key::Layout(layout.clone()),
    };
    let table = upload(numbers, tile, like);
    let cached = Cached {
        key,
        lengths,
        tile,
        device,
        table: table.clone(),
    };
    tables.insert(0, cached);
    let mut layouts = 0;
    tables.retain(|cached| {
        let of_layout = matches!(cached.key, Key::Layout(_));
        layouts += usize::from(of_layout);
        !of_layout || layouts <= CACHED
    });
    Some(table)
}

/// Writes the tiles of `layout` into the bucket's tables, in the order of the calling thread's stream.
///
/// # Panics
/// If the layout does not fit the bucket.
#[cfg(any(test, all(feature = "cuda", feature = "fusion")))]
pub(crate) fn write(id: u64, layout: &SequenceLayout) {
    let tables = tables();
    let of_bucket = |cached: &&Cached| matches!(cached.key, Key::Bucket(of) if of == id);
    for cached in tables.iter().filter(of_bucket) {
        let mut numbers = entries(layout, &cached.lengths, cached.tile);
        let room = cached.table.entries.shape().num_elements();
        assert!(
            numbers.len() <= room,
            "{} tiles for a bucket of {}",
            numbers.len() / ENTRY,
            room / ENTRY
        );
        numbers.resize(room, 0);
        write_numbers(&cached.table.entries, &numbers);
    }
}

/// Overwrites a tensor of 32-bit numbers in place.
#[cfg(any(test, all(feature = "cuda", feature = "fusion")))]
pub(crate) fn write_numbers(tensor: &CubeTensor, numbers: &[u32]) {
    let bytes = cubecl::bytes::Bytes::from_bytes_vec(u32::as_bytes(numbers).to_vec());
    tensor.client.write(&tensor.handle, bytes);
}

/// Drops the tables of a bucket whose graph was dropped.
#[cfg(any(test, all(feature = "cuda", feature = "fusion")))]
pub(crate) fn forget(id: u64) {
    tables().retain(|cached| !matches!(cached.key, Key::Bucket(of) if of == id));
}

/// Returns a new table of these tiles on the device of `like`.
fn upload(numbers: Vec<u32>, tile: usize, like: &CubeTensor) -> TileTable {
    let (most_y, most_z) = {
        let (_, y, z) = like.client.properties().hardware.max_cube_count;
        (y as usize, z as usize)
    };
    let (entries, y, z) = grid(numbers, most_y);
    assert!(
        z <= most_z,
        "{} tiles of {tile} tokens are more than this device starts at once; make the batch smaller",
        entries.len() / ENTRY
    );
    let handle = like.client.create_from_slice(u32::as_bytes(&entries));
    TileTable {
        entries: CubeTensor::new_contiguous(
            like.client.clone(),
            like.device(),
            Shape::new([entries.len()]),
            handle,
            DType::U32,
        ),
        y: y as u32,
        z: z as u32,
    }
}

/// Returns the tiles of every sequence of these lengths, the longest sequences first: the last blocks to start should be the cheapest.
fn entries(layout: &SequenceLayout, lengths: &Range<usize>, tile: usize) -> Vec<u32> {
    let mut ranges: Vec<_> = layout
        .ranges()
        .filter(|range| !range.is_empty() && lengths.contains(&range.len()))
        .collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.len()));
    ranges
        .into_iter()
        .flat_map(|range| {
            let (start, end) = (range.start, range.end);
            range
                .step_by(tile)
                .flat_map(move |first| [first, start, end])
        })
        .map(|row| row as u32)
        .collect()
}

/// Returns the table as `y × z` tiles with `y` at most `most`, padded with tiles without rows.
fn grid(mut entries: Vec<u32>, most: usize) -> (Vec<u32>, usize, usize) {
    let tiles = entries.len() / ENTRY;
    let z = tiles.div_ceil(most).max(1);
    let y = tiles.div_ceil(z);
    entries.resize(y * z * ENTRY, 0);
    (entries, y, z)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_start_with_their_sequence_and_the_longest_comes_first() {
        let layout = SequenceLayout::from_lengths([3, 0, 70, 1]).unwrap();
        assert_eq!(
            entries(&layout, &ALL_LENGTHS, 32),
            [3, 3, 73, 35, 3, 73, 67, 3, 73, 0, 0, 3, 73, 73, 74]
        );
    }

    #[test]
    fn more_tiles_than_a_side_allows_make_a_second_layer() {
        let seven: Vec<u32> = (1..=21).collect();
        let (filled, y, z) = grid(seven.clone(), 3);
        assert_eq!((y, z), (3, 3));
        assert_eq!(filled[..21], seven);
        assert_eq!(filled[21..], [0; 6]);
        assert_eq!(grid(seven, 100), ((1..=21).collect(), 7, 1));
    }
}
