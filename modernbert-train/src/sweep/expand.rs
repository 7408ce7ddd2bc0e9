//! From a grid to the recipe of each run.

use std::path::{Path, PathBuf};

use super::{Grid, Row, SweepError};
use crate::recipe::{
    CorpusSource, PlacedOverride, Recipe, RecipeError, RecipeText, builtin_names, builtin_or_file,
};

/// Settings of the command line for all runs of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `key=value`, as in [`Recipe::with_overrides`].
    pub settings: Vec<String>,
    /// The texts to train on in place of those of the recipes.
    pub corpus: Vec<PathBuf>,
}

/// A run of a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedRun {
    /// Its name, `NAME-seedN`: that of its folder.
    pub name: String,
    /// Number of its row.
    pub row: usize,
    /// Its seed.
    pub seed: u64,
    /// Its recipe, complete.
    pub recipe: Recipe,
    /// The text of the base recipe with the overrides, for the places of later errors.
    pub text: RecipeText,
}

impl PlannedRun {
    /// Tokens of all phases.
    ///
    /// # Errors
    /// Phases that are invalid.
    pub fn tokens(&self) -> Result<u64, RecipeError> {
        let phases = self.recipe.phases()?;
        let tokens = phases.iter().map(|phase| phase.recipe.run.total_tokens);
        Ok(tokens.fold(0, u64::saturating_add))
    }
}

/// The name of a run.
pub(super) fn run_name(row: &str, seed: u64) -> String {
    format!("{row}-seed{seed}")
}

impl Grid {
    /// The runs of the grid: all rows of the first seed, then of the next, each with a checked recipe.
    ///
    /// # Errors
    /// A base that can't be read, settings that make no valid recipe, two rows with the same recipe, an override of a setting that rows or seeds
    /// decide.
    pub fn runs(&self, overrides: &Overrides) -> Result<Vec<PlannedRun>, SweepError> {
        self.check_overrides(overrides)?;
        let mut runs: Vec<PlannedRun> = Vec::new();
        for &seed in &self.seeds {
            for (number, row) in self.rows.iter().enumerate() {
                let (recipe, text) = self.recipe(row, seed, overrides)?;
                let same = |run: &&PlannedRun| run.seed == seed && run.recipe == recipe;
                if let Some(other) = runs.iter().find(same) {
                    return Err(SweepError::Grid {
                        place: row.place.clone(),
                        message: format!(
                            "the rows {} and {} have the same recipe; leave one out",
                            self.rows[other.row].name, row.name
                        ),
                    });
                }
                runs.push(PlannedRun {
                    name: run_name(&row.name, seed),
                    row: number,
                    seed,
                    recipe,
                    text,
                });
            }
        }
        Ok(runs)
    }

    /// Refuses overrides of what distinguishes the runs.
    fn check_overrides(&self, overrides: &Overrides) -> Result<(), SweepError> {
        let of_rows = |key: &str| {
            let mut settings = self.rows.iter().flat_map(|row| &row.settings);
            settings.find(|setting| setting.key == key)
        };
        for text in &overrides.settings {
            let key = text.split('=').next().unwrap_or_default().trim();
            if key == "run.seed" {
                return Err(SweepError::Argument(format!(
                    "--set {text}: the seeds of the grid decide run.seed; change seeds in {}",
                    self.name
                )));
            }
            if let Some(setting) = of_rows(key) {
                return Err(SweepError::Argument(format!(
                    "--set {text}: rows of the grid set {key} ({}); leave one of the two out",
                    setting.place
                )));
            }
        }
        match of_rows("data.corpus").filter(|_| !overrides.corpus.is_empty()) {
            Some(setting) => Err(SweepError::Argument(format!(
                "--corpus: rows of the grid set data.corpus ({}); leave one of the two out",
                setting.place
            ))),
            None => Ok(()),
        }
    }

    /// The recipe of a row and seed, and the base's text.
    fn recipe(
        &self,
        row: &Row,
        seed: u64,
        overrides: &Overrides,
    ) -> Result<(Recipe, RecipeText), SweepError> {
        let of_row = |error: RecipeError| SweepError::Row {
            row: row.name.clone(),
            place: row.place.clone(),
            source: Box::new(error),
        };
        let settings = self.common.iter().chain(&row.settings);
        let mut own: Vec<PlacedOverride> = settings.map(super::Setting::as_override).collect();
        own.push(PlacedOverride {
            text: format!("run.seed={seed}"),
            place: self.name.clone(),
        });
        let texts = own.iter().map(|one| &one.text);
        let all: Vec<String> = texts.chain(&overrides.settings).cloned().collect();
        let (recipe, text) = self.base(&all)?;
        let text = text
            .with_placed_overrides(&own)
            .with_overrides(&overrides.settings);
        let mut recipe = recipe
            .with_placed_overrides(&own)
            .map_err(of_row)?
            .with_paths_in(&self.folder)
            .with_overrides(&overrides.settings)?;
        if !overrides.corpus.is_empty() {
            recipe.data.corpus = CorpusSource::Paths(overrides.corpus.clone());
        }
        let here = std::env::current_dir().map_err(SweepError::io(Path::new(".")))?;
        let recipe = recipe.with_paths_in(&here);
        let located = |error| of_row(text.locate(error));
        let (recipe, _) = recipe.resolve_model().map_err(located)?;
        recipe.validate().map_err(located)?;
        recipe.check_used().map_err(located)?;
        Ok((recipe, text))
    }

    /// The base recipe; `overrides` are those that its references follow.
    fn base(&self, overrides: &[String]) -> Result<(Recipe, RecipeText), SweepError> {
        let path = self.folder.join(&self.base);
        // The name of a built-in recipe, unless there is such a file beside the grid.
        let path = match path.is_file() {
            true => path,
            false if builtin_names().any(|name| name == self.base.trim_end_matches(".toml")) => {
                PathBuf::from(&self.base)
            }
            false => path,
        };
        builtin_or_file(&path, overrides).map_err(|error| match error {
            RecipeError::Io { path, source } => SweepError::Grid {
                place: self.base_place.clone(),
                message: format!(
                    "base is {:?}: {} can't be read ({source}), and no built-in recipe has this name: {}",
                    self.base,
                    path.display(),
                    builtin_names().collect::<Vec<_>>().join(", ")
                ),
            },
            other => other.into(),
        })
    }
}
