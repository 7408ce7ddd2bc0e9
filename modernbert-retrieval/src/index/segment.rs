//! Segment files: up to 65,536 vectors with ids and metadata, written once, never changed.
//!
//! | part | contents |
//! |---|---|
//! | header, 128 bytes | magic, format, dtype, rows, dimension, offsets of the parts, length of the file, CRC-32 of the header |
//! | panels | `[panels, dimension, 16]` components: 16 vectors component by component, as the inner loop reads them |
//! | scales | `[rows]` f32, for int8 only |
//! | ids, metadata | each `[rows + 1]` u64 offsets and the UTF-8 bytes |
//! | checksums | CRC-32 of each MiB between header and here, then the CRC-32 of these |
//!
//! All numbers are little-endian. Every byte is covered by a checksum.

use std::io::Read;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use modernbert_files::atomic::write_atomically;
use modernbert_files::read;
use rayon::prelude::*;

use super::{Dtype, IndexError};
use crate::kernel::{LANES, pack_panel};

pub(crate) const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"MBVECSEG";
const HEADER: usize = 128;
const BLOCK: usize = 1 << 20;

/// Returns true if a file begins as a segment does.
pub(super) fn is_segment(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    let read = read::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *MAGIC
}

/// Offsets of the parts of a file, which follow from the sizes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts {
    scales: usize,
    ids: usize,
    metadata: usize,
    checksums: usize,
    end: usize,
}

fn align(offset: usize) -> Option<usize> {
    Some(offset.checked_add(7)? / 8 * 8)
}

impl Parts {
    /// `None` if a size overflows.
    fn new(
        dtype: Dtype,
        rows: usize,
        dimension: usize,
        ids: usize,
        metadata: usize,
    ) -> Option<Self> {
        let panels = rows
            .div_ceil(LANES)
            .checked_mul(dimension)?
            .checked_mul(LANES)?;
        let scales = align(HEADER.checked_add(panels.checked_mul(dtype.bytes())?)?)?;
        let scale_bytes = if dtype == Dtype::Int8 {
            rows.checked_mul(4)?
        } else {
            0
        };
        let table = rows.checked_add(1)?.checked_mul(8)?;
        let ids_start = align(scales.checked_add(scale_bytes)?)?;
        let metadata_start = align(ids_start.checked_add(table)?.checked_add(ids)?)?;
        let checksums = align(metadata_start.checked_add(table)?.checked_add(metadata)?)?;
        let blocks = (checksums - HEADER).div_ceil(BLOCK);
        let end = checksums.checked_add(blocks.checked_add(1)?.checked_mul(4)?)?;
        Some(Self {
            scales,
            ids: ids_start,
            metadata: metadata_start,
            checksums,
            end,
        })
    }
}

/// Rows of a segment that is not written yet.
pub(crate) struct SegmentBuilder {
    dtype: Dtype,
    dimension: usize,
    stored: Vec<u8>,
    scales: Vec<f32>,
    ids: Texts,
    metadata: Texts,
    pending: Vec<f32>,
}

struct Texts {
    offsets: Vec<u64>,
    bytes: Vec<u8>,
}

impl Texts {
    fn new() -> Self {
        Self {
            offsets: vec![0],
            bytes: Vec::new(),
        }
    }

    fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.offsets.push(self.bytes.len() as u64);
    }

    fn append_to(&self, content: &mut Vec<u8>, start: usize) {
        content.resize(start, 0);
        content.extend(self.offsets.iter().flat_map(|offset| offset.to_le_bytes()));
        content.extend_from_slice(&self.bytes);
    }
}

impl SegmentBuilder {
    pub(crate) fn new(dtype: Dtype, dimension: usize) -> Self {
        Self {
            dtype,
            dimension,
            stored: vec![0; HEADER],
            scales: Vec::new(),
            ids: Texts::new(),
            metadata: Texts::new(),
            pending: Vec::new(),
        }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.scales.len()
    }

    pub(crate) fn push(&mut self, id: &str, vector: &[f32], metadata: &str) {
        self.push_scaled(id, vector, metadata, self.dtype.scale(vector));
    }

    /// As [`Self::push`], with the scale that the vector was stored with before, so that its bytes don't change.
    pub(crate) fn push_scaled(&mut self, id: &str, vector: &[f32], metadata: &str, scale: f32) {
        self.scales.push(scale);
        self.ids.push(id);
        self.metadata.push(metadata);
        self.pending.extend_from_slice(vector);
        if self.pending.len() == LANES * self.dimension {
            self.store_panel();
        }
    }

    fn store_panel(&mut self) {
        let rows = self.pending.len() / self.dimension;
        let mut panel = Vec::new();
        pack_panel(
            self.pending.chunks_exact(self.dimension),
            self.dimension,
            &mut panel,
        );
        let mut scales = [1.0; LANES];
        scales[..rows].copy_from_slice(&self.scales[self.scales.len() - rows..]);
        self.dtype.encode(&panel, &scales, &mut self.stored);
        self.pending.clear();
    }

    /// Writes the file so that it appears complete or not at all. Returns its checksum.
    pub(crate) fn write(self, path: &Path) -> Result<u32, IndexError> {
        let (content, checksum) = self.content(path)?;
        write_atomically(path, &content).map_err(IndexError::io(path))?;
        Ok(checksum)
    }

    /// The rows as a segment in memory; `name` is for errors.
    pub(crate) fn into_segment(self, name: &Path) -> Result<Segment, IndexError> {
        let (content, checksum) = self.content(name)?;
        Segment::of(name, Content::Owned(content), checksum, false)
    }

    /// Content of the file, and its checksum.
    fn content(mut self, path: &Path) -> Result<(Vec<u8>, u32), IndexError> {
        if !self.pending.is_empty() {
            self.store_panel();
        }
        let (rows, ids, metadata) = (self.len(), self.ids.bytes.len(), self.metadata.bytes.len());
        let parts = Parts::new(self.dtype, rows, self.dimension, ids, metadata);
        let parts =
            parts.ok_or_else(|| IndexError::damaged(path, "more bytes than a file can have"))?;
        let mut content = std::mem::take(&mut self.stored);
        content.resize(parts.scales, 0);
        if self.dtype == Dtype::Int8 {
            content.extend(self.scales.iter().flat_map(|scale| scale.to_le_bytes()));
        }
        self.ids.append_to(&mut content, parts.ids);
        self.metadata.append_to(&mut content, parts.metadata);
        content.resize(parts.checksums, 0);
        let sums: Vec<u8> = block_sums(&content[HEADER..])
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        content.extend_from_slice(&sums);
        content.extend(crc32fast::hash(&sums).to_le_bytes());
        let header = self.header(&parts, ids, metadata);
        content[..HEADER].copy_from_slice(&header);
        Ok((content, checksum(&header, &sums)))
    }

    fn header(&self, parts: &Parts, ids: usize, metadata: usize) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        header[12..16].copy_from_slice(&self.dtype.code().to_le_bytes());
        let numbers = [self.len(), self.dimension, ids, metadata, parts.end];
        for (i, number) in numbers.into_iter().enumerate() {
            header[16 + 8 * i..24 + 8 * i].copy_from_slice(&(number as u64).to_le_bytes());
        }
        let sum = crc32fast::hash(&header[..HEADER - 4]);
        header[HEADER - 4..].copy_from_slice(&sum.to_le_bytes());
        header
    }
}

/// Checksum of a whole file: of its header and of its checksums.
fn checksum(header: &[u8], sums: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(sums);
    hasher.finalize()
}

fn block_sums(body: &[u8]) -> Vec<u32> {
    body.par_chunks(BLOCK).map(crc32fast::hash).collect()
}

/// Bytes of a segment.
#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A segment: a mapped file, or in memory.
#[derive(Debug)]
pub(crate) struct Segment {
    map: Content,
    path: PathBuf,
    pub(crate) dtype: Dtype,
    pub(crate) rows: usize,
    pub(crate) dimension: usize,
    parts: Parts,
}

impl Segment {
    /// Maps a file and checks its header and sizes; with `verify` every byte against its checksum.
    pub(crate) fn open(path: &Path, expected: u32, verify: bool) -> Result<Self, IndexError> {
        let file = read::open(path).map_err(IndexError::io(path))?;
        // SAFETY: the map is only read. Segment files are never written again once they have their name; a writer that replaces an index
        // removes names, and the mapped file exists until the map is dropped.
        let map = unsafe { Mmap::map(&file) }.map_err(IndexError::io(path))?;
        Self::of(path, Content::Mapped(map), expected, verify)
    }

    fn of(path: &Path, map: Content, expected: u32, verify: bool) -> Result<Self, IndexError> {
        let damaged = |reason: &str| IndexError::damaged(path, reason);
        if map.len() < HEADER || map[..8] != *MAGIC {
            return Err(damaged("not a segment file, or cut short"));
        }
        let word = |at: usize| u32::from_le_bytes([map[at], map[at + 1], map[at + 2], map[at + 3]]);
        let format = word(8);
        if format != FORMAT {
            return Err(IndexError::Format {
                path: path.to_path_buf(),
                found: format,
                known: FORMAT,
            });
        }
        if word(HEADER - 4) != crc32fast::hash(&map[..HEADER - 4]) {
            return Err(damaged("the header's checksum differs"));
        }
        let number = |i: usize| usize::try_from(long(&map, 16 + 8 * i)).ok();
        let numbers = [number(0), number(1), number(2), number(3), number(4)];
        let dtype = Dtype::of_code(word(12)).ok_or_else(|| damaged("unknown dtype"))?;
        let [
            Some(rows),
            Some(dimension),
            Some(ids),
            Some(metadata),
            Some(end),
        ] = numbers
        else {
            return Err(damaged("impossible sizes"));
        };
        let parts = Parts::new(dtype, rows, dimension, ids, metadata)
            .ok_or_else(|| damaged("impossible sizes"))?;
        if parts.end != end || end != map.len() {
            return Err(damaged(&format!("{} bytes instead of {end}", map.len())));
        }
        let (sums, last) = map[parts.checksums..].split_at(end - parts.checksums - 4);
        if last != crc32fast::hash(sums).to_le_bytes() || checksum(&map[..HEADER], sums) != expected
        {
            return Err(damaged(
                "its checksums differ, or it is the file of another index",
            ));
        }
        if verify {
            let body = &map[HEADER..parts.checksums];
            let found: Vec<u8> = block_sums(body)
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect();
            if let Some(byte) = found.iter().zip(sums).position(|(a, b)| a != b) {
                return Err(damaged(&format!(
                    "MiB {} differs from its checksum",
                    byte / 4
                )));
            }
        }
        let segment = Self {
            path: path.to_path_buf(),
            dtype,
            rows,
            dimension,
            parts,
            map,
        };
        segment.check_texts(parts.ids, ids)?;
        segment.check_texts(parts.metadata, metadata)?;
        Ok(segment)
    }

    /// Checks that offsets ascend within the bytes and that the bytes are text.
    fn check_texts(&self, start: usize, length: usize) -> Result<(), IndexError> {
        let offset = |row: usize| long(&self.map, start + 8 * row);
        let first = start + 8 * (self.rows + 1);
        let ascends = (0..self.rows).all(|row| offset(row) <= offset(row + 1));
        let is_text = (0..self.rows).all(|row| {
            let (from, to) = (first as u64 + offset(row), first as u64 + offset(row + 1));
            let bytes = self.map.get(from as usize..to as usize);
            bytes.is_some_and(|bytes| std::str::from_utf8(bytes).is_ok())
        });
        if offset(0) != 0 || offset(self.rows) != length as u64 || !ascends || !is_text {
            return Err(IndexError::damaged(
                &self.path,
                "ids or metadata are not text",
            ));
        }
        Ok(())
    }

    fn text(&self, start: usize, row: usize) -> &str {
        let first = start + 8 * (self.rows + 1);
        let from = first + long(&self.map, start + 8 * row) as usize;
        let to = first + long(&self.map, start + 8 * (row + 1)) as usize;
        // Checked when the file was opened.
        std::str::from_utf8(&self.map[from..to]).unwrap_or_default()
    }

    pub(crate) fn id(&self, row: usize) -> &str {
        self.text(self.parts.ids, row)
    }

    pub(crate) fn metadata(&self, row: usize) -> &str {
        self.text(self.parts.metadata, row)
    }

    /// Number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Decodes panels `from..to` to f32, without scales.
    pub(crate) fn decode(&self, from: usize, to: usize, out: &mut Vec<f32>) {
        let size = self.dimension * LANES * self.dtype.bytes();
        self.dtype
            .decode(&self.map[HEADER + from * size..HEADER + to * size], out);
    }

    /// As [`Self::decode`], with scales: the components that distances are computed of.
    pub(crate) fn decode_scaled(&self, from: usize, to: usize, out: &mut Vec<f32>) {
        self.decode(from, to, out);
        if self.dtype != Dtype::Int8 {
            return;
        }
        let panels = out.chunks_exact_mut(self.dimension * LANES);
        for (panel, components) in (from..).zip(panels) {
            let rows = panel * LANES..self.rows.min((panel + 1) * LANES);
            let mut scales = [0.0; LANES];
            for (scale, row) in scales.iter_mut().zip(rows) {
                *scale = self.scale(row);
            }
            for components in components.chunks_exact_mut(LANES) {
                components.iter_mut().zip(scales).for_each(|(x, s)| *x *= s);
            }
        }
    }

    /// Factor of a row's scores.
    pub(crate) fn scale(&self, row: usize) -> f32 {
        if self.dtype != Dtype::Int8 {
            return 1.0;
        }
        let at = self.parts.scales + 4 * row;
        f32::from_le_bytes([
            self.map[at],
            self.map[at + 1],
            self.map[at + 2],
            self.map[at + 3],
        ])
    }

    /// Returns a row as f32 components.
    pub(crate) fn vector(&self, row: usize) -> Vec<f32> {
        let mut panel = Vec::new();
        self.decode(row / LANES, row / LANES + 1, &mut panel);
        let scale = self.scale(row);
        panel
            .chunks_exact(LANES)
            .map(|components| components[row % LANES] * scale)
            .collect()
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
