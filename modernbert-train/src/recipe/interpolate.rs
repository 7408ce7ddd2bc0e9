//! References from one setting of a recipe file to another: `"${run.seed}"`.
//!
//! A text that is one reference takes the value of the setting it names, with its type; inside a longer text a reference is replaced by
//! the value's text. In a phase a reference finds the phase's own settings first, then those outside of phases. A setting of the command
//! line (`--set`) counts before the file's, also for the references to it.
//!
//! References are replaced in the text, each within its line, so that later messages name the right line.

use std::borrow::Cow;
use std::ops::Range;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::RecipeError;
use super::place::line_at;
use super::set::Override;

const OPEN: &str = "${";

/// The settings among which a reference is resolved.
#[derive(Clone, Copy)]
struct Scope<'a> {
    outer: &'a Table,
    /// The phase's name and settings, inside a phase.
    phase: Option<(&'a str, &'a Table)>,
    overrides: &'a [Override],
}

/// The text with every reference replaced by its value; text that is not TOML is returned as it is.
///
/// # Errors
/// A reference to a setting that is not set, to a section, or back to itself; a `${` without its `}`; each with its line.
pub(super) fn resolve<'t>(
    text: &'t str,
    source_name: &str,
    overrides: &[Override],
) -> Result<Cow<'t, str>, RecipeError> {
    let parsed = (DeTable::parse(text), text.parse::<Table>());
    let (Ok(spans), Ok(table)) = parsed else {
        return Ok(Cow::Borrowed(text));
    };
    if !text.contains(OPEN) {
        return Ok(Cow::Borrowed(text));
    }
    let phases: Vec<&Table> = match table.get("phase") {
        Some(Value::Array(phases)) => phases.iter().filter_map(Value::as_table).collect(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    collect(spans.get_ref(), None, &mut found);
    found.sort_by_key(|text: &Found| text.span.start);
    let mut resolved = text.to_owned();
    for Found { span, value, phase } in found.into_iter().rev() {
        let phase = phase.and_then(|at| phases.get(at)).map(|phase| {
            (
                phase.get("name").and_then(Value::as_str).unwrap_or(""),
                *phase,
            )
        });
        let scope = Scope {
            outer: &table,
            phase,
            overrides,
        };
        let value =
            scope
                .value_of(&value, &mut Vec::new())
                .map_err(|message| RecipeError::Parse {
                    source_name: format!("{source_name}:{}", line_at(text, span.start)),
                    message,
                })?;
        resolved.replace_range(span, &value.to_string());
    }
    Ok(Cow::Owned(resolved))
}

/// A text with references: its bytes with the quotes, its content, the number of its phase.
struct Found {
    span: Range<usize>,
    value: String,
    phase: Option<usize>,
}

fn collect(table: &DeTable<'_>, phase: Option<usize>, found: &mut Vec<Found>) {
    for (key, value) in table.iter() {
        match value.get_ref() {
            DeValue::Array(phases) if phase.is_none() && key.get_ref() == "phase" => {
                for (at, one) in phases.iter().enumerate() {
                    collect_value(one.get_ref(), one.span(), Some(at), found);
                }
            }
            inner => collect_value(inner, value.span(), phase, found),
        }
    }
}

fn collect_value(
    value: &DeValue<'_>,
    span: Range<usize>,
    phase: Option<usize>,
    found: &mut Vec<Found>,
) {
    match value {
        DeValue::String(text) if text.contains(OPEN) => found.push(Found {
            span,
            value: text.to_string(),
            phase,
        }),
        DeValue::Array(values) => {
            for one in values {
                collect_value(one.get_ref(), one.span(), phase, found);
            }
        }
        DeValue::Table(inner) => collect(inner, phase, found),
        _ => {}
    }
}

impl<'a> Scope<'a> {
    /// The value of a text with references; `above` are the settings whose references led here.
    fn value_of(&self, text: &str, above: &mut Vec<String>) -> Result<Value, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(OPEN) {
            let after = &rest[start + OPEN.len()..];
            let Some(end) = after.find('}') else {
                return Err(format!(
                    "\"{text}\" has a ${{ without a }}; write a reference as ${{run.seed}}"
                ));
            };
            parts.push(Value::String(rest[..start].to_owned()));
            parts.push(self.lookup(after[..end].trim(), above)?);
            rest = &after[end + 1..];
            if parts.len() == 2 && start == 0 && rest.is_empty() {
                return Ok(parts.remove(1));
            }
        }
        parts.push(Value::String(rest.to_owned()));
        let mut whole = String::new();
        for part in parts {
            match part {
                Value::String(part) => whole += &part,
                Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
                    whole += &part.to_string()
                }
                other => {
                    return Err(format!(
                        "\"{text}\" puts {} into a text; refer to a text, a number, true or false",
                        other.type_str()
                    ));
                }
            }
        }
        Ok(Value::String(whole))
    }

    /// The value of the setting that a reference names.
    fn lookup(&self, key: &str, above: &mut Vec<String>) -> Result<Value, String> {
        if above.iter().any(|one| one == key) {
            return Err(format!("${{{key}}} refers back to itself; give it a value"));
        }
        let (value, inside) = self.find(key).ok_or_else(|| {
            format!(
                "${{{key}}} refers to a setting that the file does not set; set {key} or correct the name"
            )
        })?;
        let outside = Self {
            phase: None,
            ..*self
        };
        let scope = if inside { self } else { &outside };
        above.push(key.to_owned());
        let value = scope.resolved(value, key, above)?;
        above.pop();
        Ok(value)
    }

    fn resolved(&self, value: Value, key: &str, above: &mut Vec<String>) -> Result<Value, String> {
        match value {
            Value::String(text) if text.contains(OPEN) => self.value_of(&text, above),
            Value::Array(values) => {
                let of = |value| self.resolved(value, key, above);
                Ok(Value::Array(
                    values.into_iter().map(of).collect::<Result<_, _>>()?,
                ))
            }
            Value::Table(_) => Err(format!(
                "${{{key}}} refers to a section; refer to one of its settings, such as ${{{key}.NAME}}"
            )),
            value => Ok(value),
        }
    }

    /// The setting's value, and whether it is the phase's own.
    fn find(&self, key: &str) -> Option<(Value, bool)> {
        // A setting that the command line removes is not set: its default is not known here.
        let value = |set: &str, table: &Table| {
            let last = self.overrides.iter().rev().find(|one| one.key == set);
            match last {
                Some(last) => last.value.clone(),
                None => entry(table, key),
            }
        };
        if let Some((name, phase)) = self.phase
            && let Some(own) = value(&format!("phase.{name}.{key}"), phase)
        {
            return Some((own, true));
        }
        Some((value(key, self.outer)?, false))
    }
}

fn entry(table: &Table, key: &str) -> Option<Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value.clone())
}

#[cfg(test)]
mod tests {
    use super::super::{Recipe, RecipeText};
    use crate::recipe::RecipeError;

    const FILE: &str = r#"
# ${not.a.reference} in a comment
[model]
preset = "17m"

[run]
seed = 5
total_tokens = 1_000_000
eval_tokens = "${batch.tokens}"

[data]
seed = "${run.seed}"
sequence_length = 512
corpus = ["texts-${run.seed}/a", "b"]

[batch]
tokens = 2048

[optimizer]
max_lr = "${optimizer.learning_rate}"
learning_rate = 5e-4

[[phase]]
name = "first"
optimizer.learning_rate = 1e-3
optimizer.max_lr = "${optimizer.learning_rate}"

[[phase]]
name = "second"
run.total_tokens = "${data.sequence_length}"
"#;

    fn read(overrides: &[&str]) -> Result<Recipe, RecipeError> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Recipe::from_str_with_overrides(FILE, "a.toml", &overrides)
    }

    #[test]
    fn a_reference_has_the_value_and_type_of_its_setting() {
        let recipe = read(&[]).unwrap();
        assert_eq!(recipe.data.seed, Some(5));
        assert_eq!(recipe.run.eval_tokens, 2048);
        assert_eq!(recipe.optimizer.max_lr, Some(5e-4));
        let text = recipe.to_toml().unwrap();
        assert!(text.contains("texts-5/a") && !text.contains("${"), "{text}");
        let phases = recipe.phases().unwrap();
        assert_eq!(phases[0].recipe.optimizer.max_lr, Some(1e-3));
        assert_eq!(phases[1].recipe.optimizer.max_lr, Some(5e-4));
        assert_eq!(phases[1].recipe.run.total_tokens, 512);
    }

    #[test]
    fn an_override_wins_and_references_follow_it() {
        let recipe = read(&["run.seed=8", "phase.first.optimizer.learning_rate=2e-3"]).unwrap();
        assert_eq!((recipe.run.seed, recipe.data.seed), (8, Some(8)));
        let phases = recipe.phases().unwrap();
        assert_eq!(phases[0].recipe.optimizer.max_lr, Some(2e-3));
        let recipe = read(&["data.seed=1"]).unwrap();
        assert_eq!((recipe.run.seed, recipe.data.seed), (5, Some(1)));
        let message = read(&["run.seed=unset"]).unwrap_err().to_string();
        assert!(message.contains("${run.seed} refers to"), "{message}");
        let message = read(&["run.seed="]).unwrap_err().to_string();
        assert!(message.starts_with("--set run.seed=: "), "{message}");
    }

    #[test]
    fn a_bad_reference_is_named_with_its_line() {
        for (setting, said) in [
            (
                "seed = \"${run.sed}\"",
                "refers to a setting that the file does not set",
            ),
            ("seed = \"${model}\"", "refers to a section"),
            ("seed = \"${data.seed}\"", "refers back to itself"),
            ("seed = \"${run.seed\"", "without a }"),
            (
                "corpus = \"a${data.list}\"\nlist = [1]",
                "puts array into a text",
            ),
        ] {
            let text = format!("model.preset = '17m'\nrun.total_tokens = 9\n[data]\n{setting}\n");
            let message = Recipe::from_str(&text, "a.toml").unwrap_err().to_string();
            assert!(message.starts_with("a.toml:4: "), "{message}");
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn a_mistake_behind_a_reference_keeps_its_line() {
        let text = "model.preset = '17m'\nrun.total_tokens = 9\n[data]\nseed = '${model.preset}'\n";
        let message = Recipe::from_str(text, "a.toml").unwrap_err().to_string();
        assert!(message.starts_with("a.toml:4: "), "{message}");
        assert!(message.contains("17m"), "{message}");
        let place = RecipeText::new("a.toml", text).place("data.seed", None);
        assert_eq!(place, "a.toml:4");
    }
}
