//! How a product is cut into tiles, and in which order cubes take them.

use cubecl::prelude::*;

use super::Sizes;
use super::hopper::{INNER, ROWS, Tiling};

/// Tiles along the rows that are worked on together, so that what they share stays in the second-level cache.
const GROUP: u32 = 16;
/// Stages of a tail's tile from which on it is worth splitting, and of each part.
const LONG: u32 = 256;
const LONG_PART: u32 = 64;

/// How tiles are counted: those of a split, one split after the other. One number stands for the tiles of all cubes of a cluster.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Walk {
    /// Tiles of all splits.
    pub(super) tiles: u32,
    /// Tiles of a split, of which the first is number `first` of the result's.
    pub(super) per_split: u32,
    pub(super) first: u32,
    /// Tiles along the rows and the columns of the result.
    pub(super) row_tiles: u32,
    pub(super) column_tiles: u32,
    /// Stages along the inner dimension, in all and of one split.
    pub(super) steps: u32,
    pub(super) steps_per_split: u32,
}

impl Walk {
    /// As an argument of a kernel.
    pub(super) fn launch(&self) -> WalkLaunch {
        WalkLaunch::new(
            self.tiles,
            self.per_split,
            self.first,
            self.row_tiles,
            self.column_tiles,
            self.steps,
            self.steps_per_split,
        )
    }
}

/// A tile of the result: its first row and column, and its share of the inner dimension in stages.
#[derive(CubeType)]
pub(super) struct Tile {
    pub(super) row: u32,
    pub(super) column: u32,
    pub(super) split: u32,
    pub(super) first_step: u32,
    pub(super) steps: u32,
}

/// First row and column of cube `rank`'s part of the result's tile number `number`: [`GROUP`] tiles along the rows go through all
/// columns before the next ones do.
#[cube]
pub(super) fn place_of(
    number: u32,
    walk: &Walk,
    rank: u32,
    #[comptime] tiling: Tiling,
) -> (u32, u32) {
    let group = comptime!(GROUP / tiling.cluster);
    let per_group = walk.column_tiles * group;
    let first = number / per_group * group;
    let rows = min(walk.row_tiles - first, group.runtime());
    let local = number % per_group;
    let row = (first + local % rows) * comptime!(tiling.cluster * ROWS) + rank * comptime!(ROWS);
    (row, local / rows * comptime!(tiling.columns))
}

/// Cube `rank`'s tile number `index` of a walk.
#[cube]
pub(super) fn tile_at(index: u32, walk: &Walk, rank: u32, #[comptime] tiling: Tiling) -> Tile {
    let split = index / walk.per_split;
    let (row, column) = place_of(walk.first + index % walk.per_split, walk, rank, tiling);
    let first_step = split * walk.steps_per_split;
    Tile {
        row,
        column,
        split,
        first_step,
        steps: min(walk.steps_per_split, walk.steps - first_step),
    }
}

/// How a product is cut into tiles: all of them along the inner dimension into `splits` parts, or those of the last, unfilled round
/// into `tail_splits`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    /// Cubes of a cluster, and clusters that work at the same time.
    pub(super) cluster: u32,
    pub(super) clusters: u32,
    /// Columns of a tile.
    pub(super) columns: u32,
    pub(super) row_tiles: u32,
    pub(super) column_tiles: u32,
    /// Stages along the inner dimension.
    pub(super) steps: u32,
    pub(super) splits: u32,
    /// Tiles of the last round that are split on their own, and into how many parts.
    pub(super) tail: u32,
    pub(super) tail_splits: u32,
}

impl Plan {
    /// The cheapest of the possible plans, in stages of the slowest multiprocessor.
    pub(super) fn new(sizes: Sizes, multiprocessors: u32, clusters: &[u32]) -> Self {
        Self::all_possible(sizes, multiprocessors, clusters)
            .min_by(|a, b| a.cost(sizes).total_cmp(&b.cost(sizes)))
            .expect("one split is always possible")
    }

    /// All tile widths, splits and tails, for the given sizes of clusters.
    pub(super) fn all_possible(
        sizes: Sizes,
        multiprocessors: u32,
        clusters: &[u32],
    ) -> impl Iterator<Item = Self> {
        let styles = clusters
            .iter()
            .flat_map(|&cluster| [256u32, 192, 128].map(|columns| (cluster, columns)));
        styles
            .flat_map(move |(cluster, columns)| {
                let whole = Self {
                    cluster,
                    clusters: (multiprocessors / cluster).max(1),
                    columns,
                    row_tiles: (sizes.rows as u32).div_ceil(ROWS * cluster),
                    column_tiles: (sizes.columns as u32).div_ceil(columns),
                    steps: (sizes.inner as u32).div_ceil(INNER),
                    splits: 1,
                    tail: 0,
                    tail_splits: 1,
                };
                let splits = (1..=16).map(move |splits| Self { splits, ..whole });
                let tails = (2..=8).map(move |tail_splits| Self {
                    tail: whole.per_split() % whole.clusters,
                    tail_splits,
                    ..whole
                });
                splits.chain(tails)
            })
            .filter(Self::possible)
    }

    /// Splits beyond the first are worth it only where they are long; none may be empty.
    fn possible(&self) -> bool {
        let filled = |splits: u32| (splits - 1) * self.steps.div_ceil(splits) < self.steps;
        if self.tail_splits > 1 {
            return self.tail > 0
                && self.tail < self.per_split()
                && self.steps >= LONG
                && self.steps.div_ceil(self.tail_splits) >= LONG_PART
                && filled(self.tail_splits);
        }
        self.splits == 1 || (self.steps.div_ceil(self.splits) >= 16 && filled(self.splits))
    }

    fn cost(&self, sizes: Sizes) -> f64 {
        // In columns of a stage, of which 256 and the 24 are 1024 clocks. A narrower tile and a cube on its own read more for each
        // product; a tile's end takes 2400 clocks, twice that in f32 (docs/lab-log.md).
        let alone = if self.cluster == 1 { 1.03 } else { 1.0 };
        let round = |splits: u32| {
            let end = if splits > 1 { 1300.0 } else { 650.0 };
            ((f64::from(self.columns) + 24.0) * f64::from(self.steps.div_ceil(splits)) + end)
                * alone
        };
        let rounds = |tiles: u32| f64::from(tiles.div_ceil(self.clusters));
        // Parts are written, read and added at memory speed: per number what 0.0009 columns of a stage take.
        let adding = |splits: u32, numbers: f64| {
            if splits > 1 {
                9e-4 * f64::from(splits) * numbers
            } else {
                0.0
            }
        };
        let numbers = sizes.rows as f64 * sizes.columns as f64;
        let in_tail = f64::from(self.tail * self.cluster * ROWS) * f64::from(self.columns);
        rounds((self.per_split() - self.tail) * self.splits) * round(self.splits)
            + rounds(self.tail * self.tail_splits) * round(self.tail_splits)
            + adding(self.splits, numbers)
            + adding(self.tail_splits, in_tail)
    }

    fn per_split(&self) -> u32 {
        self.row_tiles * self.column_tiles
    }

    fn walk(&self, first: u32, per_split: u32, splits: u32) -> Walk {
        Walk {
            tiles: per_split * splits,
            per_split,
            first,
            row_tiles: self.row_tiles,
            column_tiles: self.column_tiles,
            steps: self.steps,
            steps_per_split: self.steps.div_ceil(splits),
        }
    }

    /// All tiles, split.
    pub(super) fn all(&self) -> Walk {
        self.walk(0, self.per_split(), self.splits)
    }

    /// The tiles of filled rounds.
    pub(super) fn before_tail(&self) -> Walk {
        self.walk(0, self.per_split() - self.tail, 1)
    }

    /// The tiles of the last round, split.
    pub(super) fn the_tail(&self) -> Walk {
        self.walk(self.per_split() - self.tail, self.tail, self.tail_splits)
    }
}
