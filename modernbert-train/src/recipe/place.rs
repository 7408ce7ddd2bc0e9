//! Lines of a recipe's text, for messages.

use std::ops::Range;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::RecipeError;
use super::set::{Override, PlacedOverride};
use modernbert::config::{ConfigError, FlexOptions};
use modernbert::wording::of_reader;

/// A recipe's text with its name, to find the line of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecipeText {
    name: String,
    text: String,
    overrides: Vec<String>,
    /// Overrides that come before these, and their places.
    placed: Vec<PlacedOverride>,
}

impl RecipeText {
    /// The text of the recipe called `name`, a path as a rule.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            overrides: Vec::new(),
            placed: Vec::new(),
        }
    }

    /// The same with the `key=value` overrides of the command line, which have no line.
    #[must_use]
    pub fn with_overrides(mut self, overrides: &[String]) -> Self {
        self.overrides = overrides.to_vec();
        self
    }

    /// The same with overrides of a file, which those of the command line come after.
    #[must_use]
    pub fn with_placed_overrides(mut self, overrides: &[PlacedOverride]) -> Self {
        self.placed = overrides.to_vec();
        self
    }

    /// The place of the last override of a key, if there is one.
    fn place_of_override(&self, key: &str, phase: Option<&str>) -> Option<String> {
        let of_phase = phase.map(|phase| format!("phase.{phase}.{key}"));
        let sets = |text: &str| {
            let set = text.split('=').next().unwrap_or_default().trim();
            set == key || Some(set) == of_phase.as_deref()
        };
        let given = self.overrides.iter().rev().find(|text| sets(text));
        let placed = || self.placed.iter().rev().find(|one| sets(&one.text));
        given
            .map(|text| format!("--set {text}"))
            .or_else(|| Some(placed()?.place.clone()))
    }

    /// The place of a setting for messages: `recipe.toml:12`, `--set key=value`, or the recipe's name where the setting is a default.
    pub fn place(&self, key: &str, phase: Option<&str>) -> String {
        if let Some(place) = self.place_of_override(key, phase) {
            return place;
        }
        match line_of_key(&self.text, key, phase) {
            Some(line) => format!("{}:{line}", self.name),
            None => self.name.clone(),
        }
    }

    /// Returns true if the recipe or an override sets this key itself, and no override removes it.
    pub fn sets(&self, key: &str) -> bool {
        let of_phase = format!(".{key}");
        let placed = self.placed.iter().map(|one| &one.text);
        let overrides = placed
            .chain(&self.overrides)
            .filter_map(|text| Override::parse(text).ok());
        let (outer, of_phases): (Vec<_>, Vec<_>) = overrides
            .filter(|one| {
                one.key == key || one.key.starts_with("phase.") && one.key.ends_with(&of_phase)
            })
            .partition(|one| one.key == key);
        match outer.last() {
            _ if of_phases.iter().any(|one| one.value.is_some()) => true,
            Some(last) => last.value.is_some(),
            None => sets_key(&self.text, key),
        }
    }

    /// The place of an entry of a list, as [`Self::place`].
    fn place_of_entry(&self, key: &str, phase: Option<&str>, entry: usize) -> String {
        let line = lines_of_entries(&self.text, key, phase).get(entry).copied();
        match (self.place_of_override(key, phase), line) {
            (None, Some(line)) => format!("{}:{line}", self.name),
            _ => self.place(key, phase),
        }
    }

    /// The places of two entries of a list.
    fn locate_twice(&self, mut error: RecipeError, phase: Option<&str>) -> RecipeError {
        let RecipeError::Twice {
            key,
            entries,
            first_place,
            ..
        } = &mut error
        else {
            return error;
        };
        let [first, second] =
            [entries.0, entries.1].map(|entry| self.place_of_entry(key, phase, entry));
        // A list on the command line has one place.
        *first_place = (first != second || !first.starts_with("--set")).then(|| first.into());
        let source = match phase {
            None => error,
            Some(name) => RecipeError::Phase {
                name: name.to_owned(),
                source: Box::new(error),
            },
        };
        RecipeError::At {
            place: second,
            source: Box::new(source),
        }
    }

    /// The error with the place of its setting in front.
    pub fn locate(&self, error: RecipeError) -> RecipeError {
        let error = match error {
            error @ RecipeError::Twice { .. } => return self.locate_twice(error, None),
            RecipeError::Phase { name, source } => match *source {
                error @ RecipeError::Twice { .. } => {
                    return self.locate_twice(error, Some(&name));
                }
                other => RecipeError::Phase {
                    name,
                    source: Box::new(other),
                },
            },
            other => other,
        };
        let of_error;
        let (key, phase) = match &error {
            RecipeError::Invalid { key, .. } => (key.as_str(), None),
            RecipeError::Phase { name, source } => match &**source {
                RecipeError::Invalid { key, .. } => (key.as_str(), Some(name.as_str())),
                RecipeError::Schedule(error) => {
                    of_error = format!("schedule.{}", error.key());
                    (of_error.as_str(), Some(name.as_str()))
                }
                RecipeError::Model(error) => {
                    of_error = key_of_model(error);
                    (of_error.as_str(), Some(name.as_str()))
                }
                _ => return error,
            },
            RecipeError::Schedule(error) => {
                of_error = format!("schedule.{}", error.key());
                (of_error.as_str(), None)
            }
            RecipeError::Model(error) => {
                of_error = key_of_model(error);
                (of_error.as_str(), None)
            }
            _ => return error,
        };
        RecipeError::At {
            place: self.place(key, phase),
            source: Box::new(error),
        }
    }
}

/// The key of the setting that an error of the model names, else the section.
fn key_of_model(error: &ConfigError) -> String {
    let ConfigError::Setting { setting, .. } = error else {
        return "model".to_owned();
    };
    let name = setting.split('.').next().unwrap_or(setting);
    match FlexOptions::KEYS.contains(&name) {
        true => format!("model.flexbert.{name}"),
        false => format!("model.{name}"),
    }
}

/// Number of the line in which a byte of `text` is, from 1.
pub(crate) fn line_at(text: &str, byte: usize) -> usize {
    let before = text.as_bytes().iter().take(byte);
    1 + before.filter(|&&byte| byte == b'\n').count()
}

/// A TOML error as `name:line: message`, in one line.
pub(crate) fn parse_error(name: &str, text: &str, error: &toml::de::Error) -> RecipeError {
    let message = of_reader(error.message());
    let Some(span) = error.span() else {
        return RecipeError::Parse {
            source_name: name.to_owned(),
            message,
        };
    };
    let number = line_at(text, span.start);
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    let excerpt: String = line.chars().take(60).collect();
    RecipeError::Parse {
        source_name: format!("{name}:{number}"),
        message: format!("{message} (`{excerpt}`)"),
    }
}

/// The line of a dotted key, in the phase of this name if it is set there, else outside of phases.
pub(super) fn line_of_key(text: &str, key: &str, phase: Option<&str>) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let parts: Vec<&str> = key.split('.').collect();
    let inside = phase.and_then(|phase| span_of(phase_table(table.get_ref(), phase)?, &parts));
    let span = inside.or_else(|| span_of(table.get_ref(), &parts))?;
    Some(line_at(text, span.start))
}

/// The lines of the entries of a list, in the phase of this name if it is set there, else outside of phases.
fn lines_of_entries(text: &str, key: &str, phase: Option<&str>) -> Vec<usize> {
    let Ok(table) = DeTable::parse(text) else {
        return Vec::new();
    };
    let parts: Vec<&str> = key.split('.').collect();
    let of_phase = phase.and_then(|phase| phase_table(table.get_ref(), phase));
    let inside = of_phase.and_then(|phase| value_at(phase, &parts));
    let value = inside.or_else(|| value_at(table.get_ref(), &parts));
    match value {
        Some(DeValue::Array(entries)) => entries
            .iter()
            .map(|entry| line_at(text, entry.span().start))
            .collect(),
        _ => Vec::new(),
    }
}

fn value_at<'a, 'i>(table: &'a DeTable<'i>, parts: &[&str]) -> Option<&'a DeValue<'i>> {
    let (first, rest) = parts.split_first()?;
    let (_, value) = entry(table, first)?;
    match value.get_ref() {
        found if rest.is_empty() => Some(found),
        DeValue::Table(inner) => value_at(inner, rest),
        _ => None,
    }
}

/// Returns true if a text sets a dotted key, in a phase or outside.
fn sets_key(text: &str, key: &str) -> bool {
    let Ok(table) = DeTable::parse(text) else {
        return false;
    };
    let parts: Vec<&str> = key.split('.').collect();
    if parts.len() < 2 {
        return false;
    }
    let has = |table: &DeTable<'_>| has_path(table, &parts);
    let in_phases = match entry(table.get_ref(), "phase").map(|(_, value)| value.get_ref()) {
        Some(DeValue::Array(phases)) => phases
            .iter()
            .any(|phase| matches!(phase.get_ref(), DeValue::Table(phase) if has(phase))),
        _ => false,
    };
    has(table.get_ref()) || in_phases
}

fn has_path(table: &DeTable<'_>, parts: &[&str]) -> bool {
    let Some((first, rest)) = parts.split_first() else {
        return false;
    };
    match entry(table, first).map(|(_, value)| value.get_ref()) {
        Some(DeValue::Table(inner)) if !rest.is_empty() => has_path(inner, rest),
        Some(_) => rest.is_empty(),
        None => false,
    }
}

fn phase_table<'a, 'i>(table: &'a DeTable<'i>, phase: &str) -> Option<&'a DeTable<'i>> {
    let (_, phases) = entry(table, "phase")?;
    let DeValue::Array(phases) = phases.get_ref() else {
        return None;
    };
    phases.iter().find_map(|one| {
        let DeValue::Table(one) = one.get_ref() else {
            return None;
        };
        let (_, name) = entry(one, "name")?;
        (name.get_ref().as_str() == Some(phase)).then_some(one)
    })
}

fn entry<'a, 'i>(
    table: &'a DeTable<'i>,
    name: &str,
) -> Option<(&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>)> {
    table.iter().find(|(key, _)| key.get_ref() == name)
}

/// The bytes of a key; of the section where the section is there without the key.
fn span_of(table: &DeTable<'_>, parts: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = parts.split_first()?;
    let (key, value) = entry(table, first)?;
    let inner = match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => span_of(inner, rest),
        _ => None,
    };
    inner.or_else(|| Some(key.span()))
}
