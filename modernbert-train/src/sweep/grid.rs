//! The file of a grid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::SweepError;
use crate::recipe::{PlacedOverride, distance, is_setting, unknown};

/// The keys of a grid's file: the base recipe, the seeds, common settings, and rows as a product or as a list.
pub const GRID_KEYS: [&str; 5] = ["base", "seeds", "settings", "grid", "list"];

/// Grids that are built in, by name.
const BUILTIN: [(&str, &str); 6] = [
    (
        "activations",
        include_str!("../../recipes/sweeps/activations.toml"),
    ),
    ("blocks", include_str!("../../recipes/sweeps/blocks.toml")),
    ("norms", include_str!("../../recipes/sweeps/norms.toml")),
    (
        "optimizers",
        include_str!("../../recipes/sweeps/optimizers.toml"),
    ),
    (
        "schedules",
        include_str!("../../recipes/sweeps/schedules.toml"),
    ),
    ("windows", include_str!("../../recipes/sweeps/windows.toml")),
];

/// Runs of a grid at most; more are a typing error.
const MOST_RUNS: usize = 10_000;

/// Characters of a row's name at most: it is part of a folder's name.
const LONGEST_NAME: usize = 150;

/// The value that removes a setting, which restores its default.
const UNSET: &str = "unset";

/// Names of the built-in grids.
pub fn builtin_grid_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// A setting of a grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The dotted key of a recipe, or `phase.NAME.` and one.
    pub key: String,
    /// The value as TOML, or `unset`.
    pub value: String,
    /// File and line.
    pub place: String,
}

impl Setting {
    pub(super) fn as_override(&self) -> PlacedOverride {
        PlacedOverride {
            text: format!("{}={}", self.key, self.value),
            place: self.place.clone(),
        }
    }
}

/// A row of a grid: runs that differ in the seed alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its name, in folders and tables.
    pub name: String,
    /// The settings in which it differs from the base and the common settings.
    pub settings: Vec<Setting>,
    /// File and line.
    pub place: String,
}

/// A grid: the base recipe, common settings, rows and seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Name for messages: the path as given.
    pub name: String,
    /// The text of the file.
    pub text: String,
    /// The folder that relative paths are relative to.
    pub folder: PathBuf,
    /// The base recipe: the name of a built-in one, or a path.
    pub base: String,
    /// File and line of `base`.
    pub base_place: String,
    /// Settings of all runs.
    pub common: Vec<Setting>,
    /// The rows, of which the first is compared with.
    pub rows: Vec<Row>,
    /// The seeds, each a value of `run.seed`.
    pub seeds: Vec<u64>,
}

impl Grid {
    /// Reads a file, or a built-in grid by name.
    ///
    /// # Errors
    /// A file that can't be read; those of [`Self::parse`].
    pub fn read(path: &Path) -> Result<Self, SweepError> {
        let named = path.to_str().filter(|_| !path.is_file());
        let named = named.map(|name| name.strip_suffix(".toml").unwrap_or(name));
        if let Some((name, text)) = BUILTIN.iter().find(|(name, _)| Some(*name) == named) {
            return Self::parse(text, &format!("recipes/sweeps/{name}.toml"), Path::new(""));
        }
        let unreadable = |source| SweepError::NoGrid {
            path: path.to_path_buf(),
            source,
            names: builtin_grid_names().collect::<Vec<_>>().join(", "),
        };
        let text = modernbert::read::text(path).map_err(unreadable)?;
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, &path.display().to_string(), folder)
    }

    /// Reads a grid from its text; `name` is its name in messages.
    ///
    /// # Errors
    /// Text that is not TOML, an unknown key, values that are no grid, too many runs; each with its line.
    pub fn parse(text: &str, name: &str, folder: &Path) -> Result<Self, SweepError> {
        let file = File { name, text };
        let table: Table = text.parse().map_err(|error| file.toml_error(&error))?;
        let spans = DeTable::parse(text).map_err(|error| file.toml_error(&error))?;
        let spans = spans.get_ref();
        if let Some((key, _)) = table
            .iter()
            .find(|(key, _)| !GRID_KEYS.contains(&key.as_str()))
        {
            return Err(file.unknown_key(key, spans));
        }
        let place = |key: &str| file.place(line_of(text, spans, key));
        let refused = |key: &str, message: &str| {
            let place = place(key);
            let message = message.to_owned();
            Err(SweepError::Grid { place, message })
        };
        let base = match table.get("base") {
            Some(Value::String(base)) if !base.is_empty() => base.clone(),
            Some(_) => return refused("base", "base is no text; name a recipe"),
            None => {
                return refused(
                    "",
                    "base is missing; name a built-in recipe or the path of one, such as base = \"17m\"",
                );
            }
        };
        let section = |key: &str| -> Result<Vec<(String, Value, String)>, SweepError> {
            match (table.get(key), child(spans, key)) {
                (None, _) => Ok(Vec::new()),
                (Some(Value::Table(inner)), Some(DeValue::Table(spans))) => {
                    let mut found = Vec::new();
                    file.flatten("", inner, spans, &mut found)?;
                    Ok(found)
                }
                _ => Err(SweepError::Grid {
                    place: place(key),
                    message: format!("{key} is no table; write [{key}] and settings below it"),
                }),
            }
        };
        let common = section("settings")?;
        let common: Vec<Setting> = common.into_iter().map(setting).collect();
        let axes = section("grid")?;
        let rows = match (table.get("grid"), table.get("list")) {
            (Some(_), Some(_)) => {
                return refused(
                    "list",
                    "the file has a [grid] and a [[list]]; write one of the two",
                );
            }
            (None, None) => {
                return refused(
                    "",
                    "there are no rows; write [grid] with a list of values for each setting, or [[list]] with a name and settings for each row",
                );
            }
            (Some(_), None) if axes.is_empty() => {
                return refused("grid", "it has no settings; give one a list of values");
            }
            (Some(_), None) => product(&axes)?,
            (None, Some(_)) => file.list(&table, spans)?,
        };
        let seeds = file.seeds(table.get("seeds"), &place("seeds"))?;
        let grid = Self {
            name: name.to_owned(),
            text: text.to_owned(),
            folder: folder.to_path_buf(),
            base,
            base_place: place("base"),
            common,
            rows,
            seeds,
        };
        grid.check()?;
        Ok(grid)
    }

    /// Checks the names of the rows, the number of runs and the settings that the sweep decides.
    fn check(&self) -> Result<(), SweepError> {
        let refused = |place: &str, message: String| {
            let place = place.to_owned();
            Err(SweepError::Grid { place, message })
        };
        let mut names = BTreeMap::new();
        for row in &self.rows {
            let good = |c: char| {
                c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '=' | ',')
            };
            let name = &row.name;
            if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(good) {
                return refused(
                    &row.place,
                    format!(
                        "the row's name is {name:?}; use letters, digits, - _ . + = and a comma, a letter or digit first"
                    ),
                );
            }
            if name.len() > LONGEST_NAME {
                return refused(
                    &row.place,
                    format!(
                        "the name of the row {name} has {} characters, {LONGEST_NAME} at most are possible; write the rows as [[list]] with names",
                        name.len()
                    ),
                );
            }
            // Some file systems do not distinguish case.
            if let Some(other) = names.insert(name.to_lowercase(), name) {
                return refused(
                    &row.place,
                    format!("two rows have the name {name} ({other}); name them differently"),
                );
            }
        }
        let runs = self.rows.len().saturating_mul(self.seeds.len());
        if runs > MOST_RUNS {
            return refused(
                &self.rows[0].place,
                format!(
                    "these are {runs} runs, {} rows of {} seeds; write {MOST_RUNS} at most",
                    self.rows.len(),
                    self.seeds.len()
                ),
            );
        }
        let rows = self.rows.iter().flat_map(|row| &row.settings);
        for setting in self.common.iter().chain(rows) {
            if setting.key == "run.seed" {
                return refused(
                    &setting.place,
                    "the seeds of the grid decide run.seed; write them as seeds = [1, 2, 3]"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// A grid's text with its name.
struct File<'a> {
    name: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn place(&self, line: Option<usize>) -> String {
        match line {
            Some(line) => format!("{}:{line}", self.name),
            None => self.name.to_owned(),
        }
    }

    fn toml_error(&self, error: &toml::de::Error) -> SweepError {
        SweepError::Recipe(crate::recipe::parse_error(self.name, self.text, error))
    }

    fn unknown_key(&self, key: &str, spans: &DeTable<'_>) -> SweepError {
        let near = GRID_KEYS
            .iter()
            .map(|known| (distance(key, known), *known))
            .min();
        let near = near.filter(|(distance, _)| *distance <= 1 + key.chars().count() / 4);
        let hint = match near {
            Some((_, near)) => format!("the nearest is {near}"),
            None if is_section_of_a_recipe(key) => {
                "settings of a recipe are below [settings], [grid] or [[list]]".to_owned()
            }
            None => format!("a grid has {}", GRID_KEYS.join(", ")),
        };
        SweepError::Grid {
            place: self.place(line_of(self.text, spans, key)),
            message: format!("a grid has no key {key}; {hint}"),
        }
    }

    /// Each setting below a table, in the order of the file: its dotted key, its value, its place.
    fn flatten(
        &self,
        prefix: &str,
        table: &Table,
        spans: &DeTable<'_>,
        out: &mut Vec<(String, Value, String)>,
    ) -> Result<(), SweepError> {
        let mut keys: Vec<(usize, &String, &Value)> = Vec::new();
        for (key, value) in table {
            let start = key_start(spans, key).unwrap_or_default();
            keys.push((start, key, value));
        }
        keys.sort_by_key(|(start, ..)| *start);
        for (start, name, value) in keys {
            let key = match prefix {
                "" => name.clone(),
                prefix => format!("{prefix}.{name}"),
            };
            let place = self.place(Some(line_at(self.text, start)));
            match (value, child(spans, name)) {
                (Value::Table(inner), Some(DeValue::Table(spans))) if !is_setting(&key) => {
                    self.flatten(&key, inner, spans, out)?;
                }
                _ if is_setting(&key) => out.push((key, value.clone(), place)),
                _ => return Err(unknown(&place, &key).into()),
            }
        }
        Ok(())
    }

    /// The rows of `[[list]]`.
    fn list(&self, table: &Table, spans: &DeTable<'_>) -> Result<Vec<Row>, SweepError> {
        let place = self.place(line_of(self.text, spans, "list"));
        let refused = |place: String, message: &str| SweepError::Grid {
            place,
            message: message.to_owned(),
        };
        let (Some(Value::Array(rows)), Some(DeValue::Array(row_spans))) =
            (table.get("list"), child(spans, "list"))
        else {
            return Err(refused(
                place,
                "list is no list of tables; write [[list]] for each row",
            ));
        };
        if rows.is_empty() {
            return Err(refused(place, "list is empty; write [[list]] for each row"));
        }
        let mut found = Vec::new();
        for (row, span) in rows.iter().zip(row_spans.iter()) {
            let place = self.place(Some(line_at(self.text, span.span().start)));
            let (Value::Table(row), DeValue::Table(spans)) = (row, span.get_ref()) else {
                return Err(refused(
                    place,
                    "a row is a table with a name and settings; write [[list]]",
                ));
            };
            let mut settings = row.clone();
            let Some(Value::String(name)) = settings.remove("name") else {
                return Err(refused(
                    place,
                    "the row has no name; write name = \"…\" in it",
                ));
            };
            let place = self.place(line_of(self.text, spans, "name"));
            let mut flat = Vec::new();
            self.flatten("", &settings, spans, &mut flat)?;
            found.push(Row {
                name,
                settings: flat.into_iter().map(setting).collect(),
                place,
            });
        }
        Ok(found)
    }

    /// A count, which stands for 1, 2, …, or a list of seeds.
    fn seeds(&self, value: Option<&Value>, place: &str) -> Result<Vec<u64>, SweepError> {
        let refused = |message: String| {
            let place = place.to_owned();
            Err(SweepError::Grid { place, message })
        };
        const REMEDY: &str =
            "write a list, such as seeds = [1, 2, 3], or a count, such as seeds = 3";
        let seeds: Vec<u64> = match value {
            None => return refused(format!("seeds is missing; {REMEDY}")),
            Some(Value::Integer(count)) if (1..=MOST_RUNS as i64).contains(count) => {
                (1..=*count as u64).collect()
            }
            Some(Value::Array(seeds)) if !seeds.is_empty() => {
                let seed = |value: &Value| u64::try_from(value.as_integer()?).ok();
                match seeds.iter().map(seed).collect::<Option<Vec<_>>>() {
                    Some(seeds) => seeds,
                    None => return refused(format!("seeds are integers from 0; {REMEDY}")),
                }
            }
            Some(value) => return refused(format!("seeds is {value}; {REMEDY}")),
        };
        let mut sorted = seeds.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return refused(format!(
                "the seed {} is named twice; name it once",
                twice[0]
            ));
        }
        Ok(seeds)
    }
}

/// Returns true if a recipe has settings below this key.
fn is_section_of_a_recipe(key: &str) -> bool {
    crate::recipe::SECTIONS.contains(&key) || key == "phase"
}

fn setting((key, value, place): (String, Value, String)) -> Setting {
    let value = match value {
        Value::String(text) if text == UNSET => text,
        value => value.to_string(),
    };
    Setting { key, value, place }
}

/// Every combination of the values of the axes, the last axis fastest.
fn product(axes: &[(String, Value, String)]) -> Result<Vec<Row>, SweepError> {
    let mut short = BTreeMap::new();
    for (key, ..) in axes {
        *short.entry(last_part(key)).or_insert(0) += 1;
    }
    let mut rows = vec![Row {
        name: String::new(),
        settings: Vec::new(),
        place: String::new(),
    }];
    for (key, values, place) in axes {
        let refused = |message: String| {
            let place = place.clone();
            Err(SweepError::Grid { place, message })
        };
        let values = match values {
            Value::Array(values) if !values.is_empty() => values,
            Value::Array(_) => return refused(format!("{key} has no values; give it one or more")),
            value => {
                return refused(format!(
                    "{key} is one value, {value}; write a list of values, or move it below [settings]"
                ));
            }
        };
        let label = match short.get(last_part(key)) {
            Some(1) => last_part(key),
            _ => key.as_str(),
        };
        if rows.len().saturating_mul(values.len()) > MOST_RUNS {
            return refused(format!(
                "the grid has more than {MOST_RUNS} rows; leave some values out"
            ));
        }
        let mut next = Vec::with_capacity(rows.len() * values.len());
        for row in &rows {
            for value in values {
                let mut row = row.clone();
                if !row.name.is_empty() {
                    row.name.push(',');
                }
                row.name
                    .push_str(&format!("{label}={}", value_in_name(value)));
                row.place.clone_from(place);
                row.settings
                    .push(setting((key.clone(), value.clone(), place.clone())));
                next.push(row);
            }
        }
        rows = next;
    }
    Ok(rows)
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// A value in a name of letters, digits, `.`, `_`, `+` and `-`.
fn value_in_name(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(value_in_name).collect();
            values.join("-")
        }
        other => other.to_string(),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-');
    text.chars()
        .map(|c| if good(c) { c } else { '-' })
        .collect()
}

fn line_at(text: &str, byte: usize) -> usize {
    crate::recipe::line_at(text, byte)
}

fn key_start(spans: &DeTable<'_>, name: &str) -> Option<usize> {
    let found = spans.iter().find(|(key, _)| key.get_ref() == name);
    found.map(|(key, _)| key.span().start)
}

fn child<'a, 'i>(spans: &'a DeTable<'i>, name: &str) -> Option<&'a DeValue<'i>> {
    let found = spans.iter().find(|(key, _)| key.get_ref() == name);
    found.map(|(_, value)| value.get_ref())
}

fn line_of(text: &str, spans: &DeTable<'_>, name: &str) -> Option<usize> {
    key_start(spans, name).map(|start| line_at(text, start))
}
