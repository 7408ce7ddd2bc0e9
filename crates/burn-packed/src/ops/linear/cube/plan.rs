//! Tile scheduling of the Hopper GEMM: how a GEMM is divided into output tiles and split along K, and in which order thread blocks
//! take the tiles.

use cubecl::prelude::*;

use super::GemmShape;
use super::hopper::{TILE_K, TILE_M, TileConfig};

/// Tiles along the rows that are rasterized together, so that the operands they share stay in the L2 cache.
const RASTER_GROUP: u32 = 16;
/// Fewest K steps of a tile whose last wave is split, and of each of the splits (measured: docs/lab-log.md).
const MIN_TAIL_STEPS: u32 = 256;
const MIN_TAIL_SPLIT: u32 = 64;
/// Fewest K steps of a split where all tiles are split.
const MIN_SPLIT_STEPS: u32 = 16;

/// Tiles of one launch and their numbering, used on host and device: the tiles of split 0, then those of split 1, and so on. The tiles
/// of all blocks of a cluster have one number.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct TileSchedule {
    /// Tiles of all splits.
    pub(super) tiles: u32,
    /// Tiles of a split.
    pub(super) tiles_per_split: u32,
    /// Number of the schedule's first tile among the tiles of the whole output.
    pub(super) first_tile: u32,
    /// Tiles of the whole output along its rows and its columns.
    pub(super) row_tiles: u32,
    pub(super) column_tiles: u32,
    /// K steps (of [`TILE_K`] elements) of the GEMM, and of one split.
    pub(super) k_steps: u32,
    pub(super) k_steps_per_split: u32,
    /// GeGLU: the column of B with the first gate.
    pub(super) gate: u32,
}

impl TileSchedule {
    /// The schedule as a kernel argument.
    pub(super) fn launch(&self) -> TileScheduleLaunch {
        TileScheduleLaunch::new(
            self.tiles,
            self.tiles_per_split,
            self.first_tile,
            self.row_tiles,
            self.column_tiles,
            self.k_steps,
            self.k_steps_per_split,
            self.gate,
        )
    }
}

/// One output tile: its first row and column, and its share of the K steps.
#[derive(CubeType)]
pub(super) struct OutputTile {
    pub(super) row: u32,
    pub(super) column: u32,
    pub(super) split: u32,
    pub(super) first_k_step: u32,
    pub(super) k_steps: u32,
}

/// Returns the first row and column that block `rank` of a cluster computes of tile `number` of the output.
///
/// Rasterization: a group of [`RASTER_GROUP`] tiles along the rows passes through all columns before the next group starts;
/// within a column of tiles the row changes fastest.
#[cube]
pub(super) fn tile_origin(
    number: u32,
    schedule: &TileSchedule,
    rank: u32,
    #[comptime] config: TileConfig,
) -> (u32, u32) {
    let group = comptime!(RASTER_GROUP / config.cluster);
    let per_group = schedule.column_tiles * group;
    let first = number / per_group * group;
    // The last group may have fewer rows of tiles.
    let rows = min(schedule.row_tiles - first, group.runtime());
    let local = number % per_group;
    let row =
        (first + local % rows) * comptime!(config.cluster * TILE_M) + rank * comptime!(TILE_M);
    (row, local / rows * comptime!(config.tile_n))
}

/// Returns tile `index` of a schedule as block `rank` of a cluster computes it.
#[cube]
pub(super) fn tile_at(
    index: u32,
    schedule: &TileSchedule,
    rank: u32,
    #[comptime] config: TileConfig,
) -> OutputTile {
    let split = index / schedule.tiles_per_split;
    let (row, column) = tile_origin(
        schedule.first_tile + index % schedule.tiles_per_split,
        schedule,
        rank,
        config,
    );
    let first_k_step = split * schedule.k_steps_per_split;
    OutputTile {
        row,
        column,
        split,
        first_k_step,
        k_steps: min(schedule.k_steps_per_split, schedule.k_steps - first_k_step),
    }
}

/// Division of a GEMM into tiles. Either all tiles are split along K into `splits` partial sums (split-K), or only those of the last,
/// partial wave into `tail_splits` partial sums, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct GemmPlan {
    /// Blocks of a cluster.
    pub(super) cluster: u32,
    /// Clusters that are resident at the same time, which is the number of tiles of a wave.
    pub(super) resident_clusters: u32,
    /// Columns of a tile.
    pub(super) tile_n: u32,
    pub(super) row_tiles: u32,
    pub(super) column_tiles: u32,
    /// K steps of the GEMM.
    pub(super) k_steps: u32,
    pub(super) splits: u32,
    /// Tiles of the last wave that are split on their own, and the number of splits of each.
    pub(super) tail_tiles: u32,
    pub(super) tail_splits: u32,
}

impl GemmPlan {
    /// Returns the candidate of the lowest estimated cost. `narrow` allows tiles of 32 columns, for which B must be K-major.
    pub(super) fn new(
        shape: GemmShape,
        multiprocessors: u32,
        clusters: &[u32],
        narrow: bool,
    ) -> Self {
        Self::candidates(shape, multiprocessors, clusters)
            .filter(|plan| narrow || plan.tile_n > 32)
            .min_by(|a, b| a.cost(shape).total_cmp(&b.cost(shape)))
            .expect("a plan without splits is always possible")
    }

    /// Returns the unsplit candidate of the lowest estimated cost for GeGLU, whose epilogue needs slices of 32 or 64 columns of the output.
    pub(super) fn for_geglu(shape: GemmShape, multiprocessors: u32) -> Self {
        Self::unsplit(shape, multiprocessors, &[64, 128, 256])
    }

    /// Returns the unsplit candidate of the lowest estimated cost among these tile widths.
    pub(super) fn unsplit(shape: GemmShape, multiprocessors: u32, widths: &[u32]) -> Self {
        Self::candidates(shape, multiprocessors, &[2, 1])
            .filter(|plan| plan.splits == 1 && plan.tail_splits == 1)
            .filter(|plan| widths.contains(&plan.tile_n))
            .min_by(|a, b| a.cost(shape).total_cmp(&b.cost(shape)))
            .expect("a plan without splits is always possible")
    }

    /// Returns all possible tile widths, splits and split tails for these cluster sizes.
    pub(super) fn candidates(
        shape: GemmShape,
        multiprocessors: u32,
        clusters: &[u32],
    ) -> impl Iterator<Item = Self> {
        let tilings = clusters
            .iter()
            .flat_map(|&cluster| [256u32, 192, 128, 64, 32].map(|tile_n| (cluster, tile_n)));
        tilings
            .flat_map(move |(cluster, tile_n)| {
                let whole = Self {
                    cluster,
                    resident_clusters: (multiprocessors / cluster).max(1),
                    tile_n,
                    row_tiles: (shape.m as u32).div_ceil(TILE_M * cluster),
                    column_tiles: (shape.n as u32).div_ceil(tile_n),
                    k_steps: (shape.k as u32).div_ceil(TILE_K),
                    splits: 1,
                    tail_tiles: 0,
                    tail_splits: 1,
                };
                let splits = (1..=16).map(move |splits| Self { splits, ..whole });
                let tails = (2..=8).map(move |tail_splits| Self {
                    tail_tiles: whole.output_tiles() % whole.resident_clusters,
                    tail_splits,
                    ..whole
                });
                splits.chain(tails)
            })
            .filter(Self::is_possible)
            // The second block of a cluster would compute nothing.
            .filter(move |plan| plan.cluster == 1 || shape.m as u32 > TILE_M)
    }

    /// Returns whether every split has K steps, and splits and tail at least the fewest steps for which splitting is allowed.
    fn is_possible(&self) -> bool {
        let none_empty = |splits: u32| (splits - 1) * self.k_steps.div_ceil(splits) < self.k_steps;
        if self.tail_splits > 1 {
            return self.tail_tiles > 0
                && self.tail_tiles < self.output_tiles()
                && self.k_steps >= MIN_TAIL_STEPS
                && self.k_steps.div_ceil(self.tail_splits) >= MIN_TAIL_SPLIT
                && none_empty(self.tail_splits);
        }
        self.splits == 1
            || (self.k_steps.div_ceil(self.splits) >= MIN_SPLIT_STEPS && none_empty(self.splits))
    }

    /// Estimated duration on the slowest multiprocessor. The unit is one column of one K step: 256 + 24 of them take 1024 cycles.
    fn cost(&self, shape: GemmShape) -> f64 {
        // Measured (docs/lab-log.md): a narrower tile, and a block without a cluster, load more bytes per FLOP (the constant 24,
        // the factor 1.03); the epilogue takes 2400 cycles, twice that for f32.
        let unclustered = if self.cluster == 1 { 1.03 } else { 1.0 };
        let wave = |splits: u32| {
            let epilogue = if splits > 1 { 1300.0 } else { 650.0 };
            ((f64::from(self.tile_n) + 24.0) * f64::from(self.k_steps.div_ceil(splits)) + epilogue)
                * unclustered
        };
        let waves = |tiles: u32| f64::from(tiles.div_ceil(self.resident_clusters));
        // Parts are written, read and summed at memory bandwidth: 0.0009 units per element.
        let reduction = |splits: u32, elements: f64| {
            if splits > 1 {
                9e-4 * f64::from(splits) * elements
            } else {
                0.0
            }
        };
        let elements = shape.m as f64 * shape.n as f64;
        let in_tail = f64::from(self.tail_tiles * self.cluster * TILE_M) * f64::from(self.tile_n);
        waves((self.output_tiles() - self.tail_tiles) * self.splits) * wave(self.splits)
            + waves(self.tail_tiles * self.tail_splits) * wave(self.tail_splits)
            + reduction(self.splits, elements)
            + reduction(self.tail_splits, in_tail)
    }

    /// Tiles of the output; those of a cluster count as one.
    fn output_tiles(&self) -> u32 {
        self.row_tiles * self.column_tiles
    }

    fn schedule(&self, first_tile: u32, tiles_per_split: u32, splits: u32) -> TileSchedule {
        TileSchedule {
            tiles: tiles_per_split * splits,
            tiles_per_split,
            first_tile,
            row_tiles: self.row_tiles,
            column_tiles: self.column_tiles,
            k_steps: self.k_steps,
            k_steps_per_split: self.k_steps.div_ceil(splits),
            gate: 0,
        }
    }

    /// All tiles, each in `splits` splits.
    pub(super) fn all_tiles(&self) -> TileSchedule {
        self.schedule(0, self.output_tiles(), self.splits)
    }

    /// The tiles of full waves, unsplit.
    pub(super) fn full_waves(&self) -> TileSchedule {
        self.schedule(0, self.output_tiles() - self.tail_tiles, 1)
    }

    /// The tiles of the last wave, each in `tail_splits` splits.
    pub(super) fn tail(&self) -> TileSchedule {
        self.schedule(
            self.output_tiles() - self.tail_tiles,
            self.tail_tiles,
            self.tail_splits,
        )
    }
}
