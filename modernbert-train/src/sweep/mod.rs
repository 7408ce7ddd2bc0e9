//! Sweeps: runs of one recipe that differ in settings and seeds, and their comparison.
//!
//! A [`Grid`] is a TOML file: a base recipe, settings common to all runs, rows of settings ([`GRID_KEYS`]), seeds.
//! [`Grid::runs`] makes a recipe of each row and seed. [`SweepDir`] is the folder: each run is an ordinary folder of a run, see
//! [`crate::run_dir`]. [`Report`] reads the logs and compares the rows. The processes of the runs are started by the program.
//!
//! | name | content |
//! |---|---|
//! | `grid.toml` | a copy of the grid |
//! | `plan.json` | rows, seeds and runs, with the hash of each run's recipe |
//! | `recipes/NAME-seedN.toml` | the recipe of each run, complete |
//! | `runs/NAME-seedN/` | the runs |
//! | `logs/NAME-seedN.log` | what each run has printed |
//! | `failed.json` | the reason of each failed run |
//! | `sweep.md`, `sweep.json`, `sweep.png` | the comparison |
//! | `lock` | held by the process that works on the sweep |

mod dir;
mod error;
mod expand;
mod grid;
mod picture;
mod report;
mod table;
#[cfg(test)]
mod tests;

pub use dir::{NewRuns, RunStatus, SweepDir};
pub use error::SweepError;
pub use expand::{Overrides, PlannedRun};
pub use grid::{GRID_KEYS, Grid, Row, Setting, builtin_grid_names};
pub use report::{Report, ReportRow, SeedResult, Spread};
