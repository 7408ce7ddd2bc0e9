//! Phases: parts of a run that differ in some settings.

use modernbert::wording::of_reader;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::set::{dotted, is_known, unknown};
use super::{Recipe, RecipeError};

/// The name of the only phase of a recipe that lists none.
const ONLY: &str = "train";

/// Keys that are the same in every phase: they decide the weights' shapes, the vocabulary or the run as a whole.
const SHARED: &[&str] = &[
    "data.tokenizer",
    "data.tokenizer_vocab",
    "data.eval_bytes",
    "data.eval_corpus",
    "run.precision",
    "run.seed",
];
/// Keys of `[model]` a phase may change.
const CHANGEABLE: &[&str] = &[
    "model.global_rope_theta",
    "model.local_rope_theta",
    "model.rope_warmup_from",
    "model.rope_warmup_step",
    "model.rope_warmup_tokens",
];

/// `[[phase]]`: a name, and the settings in which the phase differs from those outside the phases, in the same sections.
///
/// ```toml
/// [[phase]]
/// name = "extend"
/// model.global_rope_theta = 160_000.0
/// data.sequence_length = 8192
/// schedule.kind = "constant"
/// run.total_tokens = 250_000_000_000
/// ```
///
/// At a phase transition weights and moments are kept; tokens, schedule, batch-size warmup and data start again. A phase that sets a
/// `schedule.kind` replaces the whole schedule, otherwise single settings of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseRecipe {
    /// Its name, in the log and on the command line: letters, digits, `-` and `_`.
    pub name: String,
    /// The settings of the phase.
    #[serde(flatten)]
    pub settings: Table,
}

/// A phase with all of its settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Its settings, as if the recipe had this phase alone.
    pub recipe: Recipe,
}

impl PhaseRecipe {
    /// Checks that the phase sets only known keys that may differ from phase to phase; `place` returns the place of a key.
    pub(super) fn check_keys(&self, place: &dyn Fn(&str) -> String) -> Result<(), RecipeError> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || !self.name.chars().all(good) {
            return Err(RecipeError::invalid(
                "phase.name",
                format!("{:?}", self.name),
                "use letters, digits, - and _",
            ));
        }
        for key in dotted(&self.settings) {
            let shared = SHARED.contains(&key.as_str())
                || key.starts_with("model.") && !CHANGEABLE.contains(&key.as_str());
            if !is_known(&key) {
                return Err(unknown(&place(&key), &key));
            }
            if shared {
                return Err(RecipeError::At {
                    place: place(&key),
                    source: Box::new(RecipeError::invalid(
                        &format!("phase.{}.{key}", self.name),
                        "set for one phase",
                        "it is the same in every phase: set it outside",
                    )),
                });
            }
        }
        Ok(())
    }

    /// Returns true if the phase sets this dotted key itself.
    pub(super) fn sets(&self, key: &str) -> bool {
        let replaced = key.starts_with("schedule.")
            && dotted(&self.settings)
                .iter()
                .any(|own| own == "schedule.kind");
        replaced || dotted(&self.settings).iter().any(|own| own == key)
    }
}

/// Merges `over` into `base`, section by section.
fn merge(base: &mut Table, over: &Table) {
    for (section, value) in over {
        let Value::Table(inner) = value else {
            base.insert(section.clone(), value.clone());
            continue;
        };
        let entry = base
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(target) = entry {
            // Settings of one kind of schedule don't apply to another.
            if section == "schedule" && inner.contains_key("kind") {
                target.clear();
            }
            target.extend(inner.clone());
        }
    }
}

impl Recipe {
    /// The phases in order, each with all of its settings; a recipe without phases is one phase called `train`.
    ///
    /// # Errors
    /// A value of a phase that doesn't fit its key.
    pub fn phases(&self) -> Result<Vec<Phase>, RecipeError> {
        let alone = Self {
            phase: Vec::new(),
            ..self.clone()
        };
        if self.phase.is_empty() {
            return Ok(vec![Phase {
                name: ONLY.to_owned(),
                recipe: alone,
            }]);
        }
        let whole = Table::try_from(&alone).map_err(|error| RecipeError::Parse {
            source_name: "recipe".to_owned(),
            message: error.to_string(),
        })?;
        self.phase
            .iter()
            .map(|phase| {
                let mut table = whole.clone();
                merge(&mut table, &phase.settings);
                let recipe =
                    table
                        .try_into()
                        .map_err(|error: toml::de::Error| RecipeError::Parse {
                            source_name: format!("phase {}", phase.name),
                            message: of_reader(error.message()),
                        })?;
                Ok(Phase {
                    name: phase.name.clone(),
                    recipe,
                })
            })
            .collect()
    }

    /// The recipe of one phase alone, under its name.
    ///
    /// # Errors
    /// A name no phase has.
    pub fn only_phase(&self, name: &str) -> Result<Self, RecipeError> {
        let found = self.phase.iter().find(|phase| phase.name == name);
        let Some(phase) = found else {
            let names: Vec<_> = self.phases()?.into_iter().map(|phase| phase.name).collect();
            return Err(RecipeError::invalid(
                "--phase",
                name,
                format!("the recipe's phases are {}", names.join(", ")),
            ));
        };
        Ok(Self {
            phase: vec![phase.clone()],
            ..self.clone()
        })
    }
}
