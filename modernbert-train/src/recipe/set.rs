//! Reading and writing TOML, and single values replaced from the command line.

use super::interpolate;
use super::place::{self, RecipeText, line_of_key};
use super::{Recipe, RecipeError};
use modernbert::config::FlexOptions;
use modernbert::wording::of_reader;
use std::path::Path;
use toml::{Table, Value};

/// Every key a recipe may have, dotted. A test compares this list with the structs.
pub(super) const KEYS: &[&str] = &[
    "batch.micro_batches",
    "batch.packing",
    "batch.recompute",
    "batch.tokens",
    "batch.warmup_from",
    "batch.warmup_step",
    "batch.warmup_tokens",
    "checkpoint.every_minutes",
    "checkpoint.every_steps",
    "checkpoint.keep_best",
    "checkpoint.keep_every_steps",
    "checkpoint.keep_last",
    "data.corpus",
    "data.eval_bytes",
    "data.eval_corpus",
    "data.length_warmup_from",
    "data.length_warmup_step",
    "data.length_warmup_tokens",
    "data.loader_threads",
    "data.long_documents",
    "data.max_train_bytes",
    "data.seed",
    "data.sequence_length",
    "data.tokenizer",
    "data.tokenizer_vocab",
    "dropout.attention_output",
    "dropout.attention_probabilities",
    "dropout.embedding",
    "dropout.mlp",
    "ema.evaluate",
    "ema.every_steps",
    "ema.half_life_steps",
    "mask.eval",
    "mask.train",
    "model.attention_bias",
    "model.classifier_activation",
    "model.classifier_bias",
    "model.decoder_bias",
    "model.from",
    "model.global_attn_every_n_layers",
    "model.global_rope_theta",
    "model.hidden_activation",
    "model.hidden_size",
    "model.init_method",
    "model.init_small_embedding",
    "model.initializer_cutoff_factor",
    "model.intermediate_size",
    "model.local_attention",
    "model.local_rope_theta",
    "model.max_position_embeddings",
    "model.initializer_range",
    "model.mlp_bias",
    "model.norm_bias",
    "model.norm_eps",
    "model.num_attention_heads",
    "model.num_hidden_layers",
    "model.preset",
    "model.rope_warmup_from",
    "model.rope_warmup_step",
    "model.rope_warmup_tokens",
    "model.tie_word_embeddings",
    "model.tile_from",
    "model.tiling",
    "model.vocab_size",
    "optimizer.beta1",
    "optimizer.beta2",
    "optimizer.epsilon",
    "optimizer.kind",
    "optimizer.learning_rate",
    "optimizer.max_grad_norm",
    "optimizer.max_lr",
    "optimizer.skip_spikes",
    "optimizer.spike_window",
    "optimizer.weight_decay",
    "run.eval_every_tokens",
    "run.eval_tokens",
    "run.log_every_steps",
    "run.max_seconds",
    "run.precision",
    "run.read_every_steps",
    "run.seed",
    "run.total_tokens",
    "schedule.cosine_floor",
    "schedule.cosine_tokens",
    "schedule.decay",
    "schedule.decay_tokens",
    "schedule.final_fraction",
    "schedule.kind",
    "schedule.warmup_tokens",
];

/// The sections of a recipe. A test compares this list with the keys.
pub(crate) const SECTIONS: [&str; 10] = [
    "model",
    "data",
    "batch",
    "mask",
    "dropout",
    "optimizer",
    "ema",
    "schedule",
    "run",
    "checkpoint",
];

/// The table of architecture choices inside `[model]`, whose keys are those of [`FlexOptions`].
const FLEXBERT: &str = "model.flexbert.";

/// Returns true if a recipe may have this dotted key.
pub(super) fn is_known(key: &str) -> bool {
    let choice = key.strip_prefix(FLEXBERT);
    KEYS.contains(&key) || choice.is_some_and(|choice| FlexOptions::KEYS.contains(&choice))
}

/// Returns true if a recipe, or a phase of it as in `phase.NAME.section.key`, may have this dotted key.
pub(crate) fn is_setting(key: &str) -> bool {
    let of_phase = key
        .strip_prefix("phase.")
        .and_then(|rest| rest.split_once('.'));
    is_known(of_phase.map_or(key, |(_, key)| key))
}

/// Letters to insert, delete or replace to make `b` of `a`.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// The keys similar to `key`, at most three: by the whole key, or by its last part, because a section is easily forgotten. Others
/// are not named.
pub(crate) fn unknown(source_name: &str, key: &str) -> RecipeError {
    let likeness =
        |known: &str| distance(key, known).min(distance(last_part(key), last_part(known)));
    let most = 1 + last_part(key).chars().count() / 4;
    let choices = FlexOptions::KEYS.map(|choice| format!("{FLEXBERT}{choice}"));
    let known = KEYS
        .iter()
        .copied()
        .chain(choices.iter().map(String::as_str));
    let mut near: Vec<_> = known.map(|known| (likeness(known), known)).collect();
    // Of the keys of this section that begin alike, the letters that are missing do not count.
    let begins = |known: &str| known.starts_with(key) && key.contains('.');
    near.retain(|(likeness, known)| *likeness <= most || begins(known));
    near.sort_by_key(|(likeness, known)| (!begins(known), *likeness, *known));
    let near: Vec<_> = near.into_iter().take(3).map(|(_, known)| known).collect();
    RecipeError::UnknownKey {
        source_name: source_name.to_owned(),
        key: key.to_owned(),
        hint: match near[..] {
            [] => "docs/recipe.md lists all settings".to_owned(),
            [one] => format!("the nearest is {one}"),
            _ => format!("the nearest are {}", near.join(", ")),
        },
    }
}

/// Each key of a table of tables, dotted; those of `[model.flexbert]` as well.
pub(super) fn dotted(table: &Table) -> Vec<String> {
    let of_key = |section: &str, key: &String, value: &Value| -> Vec<String> {
        let name = format!("{section}.{key}");
        match value {
            Value::Table(choices) if FLEXBERT.strip_suffix('.') == Some(&name) => {
                choices.keys().map(|key| format!("{name}.{key}")).collect()
            }
            _ => vec![name],
        }
    };
    let inside = |(section, value): (&String, &Value)| match value {
        Value::Table(inner) => inner
            .iter()
            .flat_map(|(key, value)| of_key(section, key, value))
            .collect(),
        _ => vec![section.clone()],
    };
    table.iter().flat_map(inside).collect()
}

/// The bare value of `--set` that removes a key. A text of these letters is written `"unset"`.
const UNSET: &str = "unset";

/// An override that a file contains, such as the settings of a row of a sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedOverride {
    /// `key=value`, as after `--set`.
    pub text: String,
    /// File and line, for messages.
    pub place: String,
}

/// An override of the command line or of a file, `key=value`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Override {
    /// File and line; `None` on the command line.
    place: Option<String>,
    /// The dotted key.
    pub(super) key: String,
    /// The value as given.
    raw: String,
    /// The value; `None` removes the key.
    pub(super) value: Option<Value>,
}

impl Override {
    /// Reads `key=value`.
    ///
    /// # Errors
    /// A missing `=`; an empty value, which is what a variable that is not set leaves.
    pub(super) fn parse(text: &str) -> Result<Self, RecipeError> {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| RecipeError::NoValue(text.to_owned()))?;
        let (key, raw) = (key.trim().to_owned(), value.trim().to_owned());
        let value = match raw.as_str() {
            "" => return Err(RecipeError::EmptyValue(key)),
            UNSET => None,
            raw => Some(parse_value(raw)),
        };
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if matches!(value, Some(Value::String(_))) && digits(&raw.replace('_', "")) {
            return Err(RecipeError::Override {
                key,
                value: raw,
                message: "the number is too large: a setting is an integer below 2^63".to_owned(),
            });
        }
        Ok(Self {
            place: None,
            key,
            raw,
            value,
        })
    }

    fn parse_placed(given: &PlacedOverride) -> Result<Self, RecipeError> {
        let place = Some(given.place.clone());
        let parsed = Self::parse(&given.text)?;
        Ok(Self { place, ..parsed })
    }

    pub(super) fn parse_all(texts: &[String]) -> Result<Vec<Self>, RecipeError> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    fn refused(&self, message: impl Into<String>) -> RecipeError {
        let message = message.into();
        match &self.place {
            None => RecipeError::Override {
                key: self.key.clone(),
                value: self.raw.clone(),
                message,
            },
            Some(place) => RecipeError::Parse {
                source_name: place.clone(),
                message: format!("{} = {}: {message}", self.key, self.raw),
            },
        }
    }
}

/// Sets or removes a key.
fn replace(table: &mut Table, key: &str, value: Option<Value>) {
    match value {
        Some(value) => table.insert(key.to_owned(), value),
        None => table.remove(key),
    };
}

/// The value as TOML, or as plain text where it is none.
pub(super) fn parse_value(raw: &str) -> Value {
    let table = format!("value = {raw}").parse::<Table>().ok();
    // A line break could smuggle in a second key.
    let only = table
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"));
    only.unwrap_or_else(|| Value::String(raw.to_owned()))
}

impl Recipe {
    /// Reads a recipe; every error begins with `source_name` and the line. The settings are checked one by one; [`Self::validate`] checks
    /// their combinations, after any overrides.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, a missing field, a value of the wrong kind, a reference that can't be resolved; each with its
    /// line.
    pub fn from_str(text: &str, source_name: &str) -> Result<Self, RecipeError> {
        Self::from_str_with_overrides(text, source_name, &[])
    }

    /// As [`Self::from_str`], then [`Self::with_overrides`]; references such as `"${run.seed}"` follow the overrides.
    ///
    /// # Errors
    /// Those of [`Self::from_str`] and of [`Self::with_overrides`].
    pub fn from_str_with_overrides(
        text: &str,
        source_name: &str,
        overrides: &[String],
    ) -> Result<Self, RecipeError> {
        let parsed = Override::parse_all(overrides)?;
        let resolved = interpolate::resolve(text, source_name, &parsed)?;
        Self::from_plain(&resolved, source_name)?.with_overrides(overrides)
    }

    /// A recipe without references.
    fn from_plain(text: &str, source_name: &str) -> Result<Self, RecipeError> {
        let parse_error = |error: toml::de::Error| place::parse_error(source_name, text, &error);
        let at = |key: &str, phase: Option<&str>| match line_of_key(text, key, phase) {
            Some(line) => format!("{source_name}:{line}"),
            None => source_name.to_owned(),
        };
        let mut table = text.parse::<Table>().map_err(parse_error)?;
        table.remove("phase");
        let sections = |key: &String| {
            KEYS.iter()
                .any(|known| known.starts_with(&format!("{key}.")))
        };
        let keys = dotted(&table);
        if let Some(key) = keys.iter().find(|key| !is_known(key) && !sections(key)) {
            return Err(unknown(&at(key, None), key));
        }
        let recipe: Self = toml::from_str(text).map_err(parse_error)?;
        let named = RecipeText::new(source_name, text);
        for phase in &recipe.phase {
            phase
                .check_keys(&|key| at(key, Some(&phase.name)))
                .map_err(|error| named.locate(error))?;
        }
        Ok(recipe)
    }

    /// Reads a recipe file; see [`Self::from_str`]. Relative paths in it are relative to the file's folder, and are made absolute.
    ///
    /// # Errors
    /// A file that cannot be read, and those of [`Self::from_str`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, RecipeError> {
        Ok(Self::from_file_with_text(path, &[])?.0)
    }

    /// As [`Self::from_file`], with the text, for the line numbers of later errors. References follow `overrides`, which
    /// [`Self::with_overrides`] then applies.
    ///
    /// # Errors
    /// Those of [`Self::from_file`].
    pub fn from_file_with_text(
        path: impl AsRef<Path>,
        overrides: &[String],
    ) -> Result<(Self, RecipeText), RecipeError> {
        let path = path.as_ref();
        let overrides = Override::parse_all(overrides)?;
        let unreadable = |source| RecipeError::Io {
            path: path.to_owned(),
            source,
        };
        let text = modernbert::read::text(path).map_err(unreadable)?;
        let name = path.display().to_string();
        let resolved = interpolate::resolve(&text, &name, &overrides)?;
        let recipe = Self::from_plain(&resolved, &name)?;
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Ok((recipe.with_paths_in(folder), RecipeText::new(name, text)))
    }

    /// The recipe with single values replaced, each given as `key=value` with a dotted key. The value is read as TOML, and as plain text
    /// where it is none, so `run.precision=bf16` needs no quotes. `key=unset` removes the key, which restores its default. A new
    /// `schedule.kind` starts with the defaults of that kind, and is applied before other keys of the schedule.
    /// `phase.NAME.key=value` changes one phase; a key that phases set themselves can't be changed outside them.
    ///
    /// # Errors
    /// A missing `=`, an empty value, an unknown key, and a value that does not fit its key.
    pub fn with_overrides(&self, overrides: &[String]) -> Result<Self, RecipeError> {
        self.with_parsed(Override::parse_all(overrides)?)
    }

    /// As [`Self::with_overrides`], for settings of a file, which errors name with its line.
    ///
    /// # Errors
    /// As [`Self::with_overrides`].
    pub fn with_placed_overrides(&self, overrides: &[PlacedOverride]) -> Result<Self, RecipeError> {
        let parsed: Result<_, _> = overrides.iter().map(Override::parse_placed).collect();
        self.with_parsed(parsed?)
    }

    fn with_parsed(&self, mut overrides: Vec<Override>) -> Result<Self, RecipeError> {
        overrides.sort_by_key(|one| !one.key.ends_with("schedule.kind"));
        let mut recipe = self.clone();
        for one in overrides {
            recipe = recipe.with_override(one)?;
        }
        Ok(recipe)
    }

    fn with_override(&self, given: Override) -> Result<Self, RecipeError> {
        let key = given.key.as_str();
        if let Some(of_phase) = key.strip_prefix("phase.") {
            return self.with_phase_override(of_phase, &given);
        }
        let known = is_known(key).then(|| key.split_once('.')).flatten();
        let (section, name) =
            known.ok_or_else(|| unknown(given.place.as_deref().unwrap_or("--set"), key))?;
        let own: Vec<_> = self.phase.iter().filter(|phase| phase.sets(key)).collect();
        if let Some(first) = own.first() {
            let names: Vec<_> = own.iter().map(|phase| phase.name.as_str()).collect();
            return Err(given.refused(format!(
                "phases set it themselves ({}): write phase.{}.{key}{}{}",
                names.join(", "),
                first.name,
                if given.place.is_some() { " = " } else { "=" },
                given.raw,
            )));
        }
        let mut table = Table::try_from(self).map_err(|error| given.refused(error.to_string()))?;
        let entry = table
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = entry else {
            return Err(given.refused(format!("{section} is not a section")));
        };
        if key == "schedule.kind" {
            inner.clear();
        }
        let new = given.value.clone();
        match name.split_once('.') {
            Some((table, choice)) => {
                let entry = inner
                    .entry(table)
                    .or_insert_with(|| Value::Table(Table::new()));
                if let Value::Table(choices) = entry {
                    replace(choices, choice, new);
                }
            }
            None => replace(inner, name, new),
        }
        if inner.is_empty() {
            table.remove(section);
        }
        table
            .try_into()
            .map_err(|error: toml::de::Error| given.refused(of_reader(error.message())))
    }

    /// `key` is the phase's name and a dotted key.
    fn with_phase_override(&self, key: &str, given: &Override) -> Result<Self, RecipeError> {
        let names = || {
            let names: Vec<_> = self.phase.iter().map(|phase| phase.name.as_str()).collect();
            match names.is_empty() {
                true => "the recipe has no phases; leave phase.NAME. out".to_owned(),
                false => format!(
                    "write phase.NAME.key=value; the phases are: {}",
                    names.join(", ")
                ),
            }
        };
        let mut parts = key.splitn(3, '.');
        let (Some(phase), Some(section), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(given.refused(names()));
        };
        let mut recipe = self.clone();
        let Some(found) = recipe.phase.iter_mut().find(|known| known.name == phase) else {
            return Err(given.refused(names()));
        };
        let entry = found
            .settings
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = entry else {
            return Err(given.refused(format!("{section} is not a section")));
        };
        if section == "schedule" && name == "kind" {
            inner.clear();
        }
        replace(inner, name, given.value.clone());
        if inner.is_empty() {
            found.settings.remove(section);
        }
        let place = given.place.clone();
        let place = place.unwrap_or_else(|| format!("--set, phase {phase}"));
        found.check_keys(&|_| place.clone())?;
        recipe
            .phases()
            .map_err(|error| given.refused(error.to_string()))?;
        Ok(recipe)
    }

    /// The recipe with every default written out, as TOML that [`Self::from_str`] reads back to the same recipe.
    ///
    /// # Errors
    /// An integer of 2^63 or more, which TOML cannot hold and [`Self::validate`] refuses.
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        toml::to_string(self).map_err(|error| RecipeError::Parse {
            source_name: "recipe".to_owned(),
            message: error.to_string(),
        })
    }
}
